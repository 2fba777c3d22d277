//! Shows what the kernel of a running machine has logged: `minicache trace`.
//!
//! The kernel keeps its log messages in memory, without their texts ([`minicache::boot::trace`]); the texts are in its ELF. What
//! may enter this room: what copies that memory out of a machine, and what makes lines of it. `monitor` asks QEMU for memory,
//! `image` reads the ELF, `messages` finds whole messages in what may be cut off, overwritten meanwhile, or nonsense.

mod image;
mod messages;
mod monitor;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use minicache::boot::trace::{Dump, HEADER_BYTES, MAX_CAPACITY};

use crate::boot::kernel;
use crate::terminal::{Output, warn};
use image::Image;
use messages::{Found, Messages};
use monitor::Monitor;

/// How often a machine that is followed is asked.
const INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `minicache trace`.
#[derive(clap::Args)]
#[command(after_long_help = "\
`minicache boot` says where its machine's monitor is. Each line shows the seconds since the machine's start, the level and the \
message. The kernel's ELF must be the very one that the machine has booted: it holds the messages' texts.

The machine keeps the latest 64 KiB of messages. It has them from the level \"info\" on; with DEFMT_LOG=debug in the environment \
`cargo xtask kernel` builds one that has more.")]
pub struct Arguments {
    /// The socket of the machine's monitor (QEMU's QMP)
    #[arg(long, value_name = "SOCKET", required_unless_present = "memory")]
    monitor: Option<PathBuf>,

    /// Read a copy of the machine's memory from the symbol MINICACHE_TRACE on instead, made by a debugger for example
    #[arg(long, value_name = "FILE", conflicts_with_all = ["monitor", "follow"])]
    memory: Option<PathBuf>,

    /// The kernel [default: minicache.elf in this program's folder, or in the one above]
    #[arg(long, value_name = "PATH")]
    kernel: Option<PathBuf>,

    /// Go on, and show new messages as they come
    #[arg(long)]
    follow: bool,
}

/// Runs `minicache trace`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let image = Image::read(&kernel::find(arguments.kernel)?)?;
    let mut output = Output::new();
    let result = match (&arguments.memory, &arguments.monitor) {
        (Some(memory), _) => show_file(memory, &image, &mut output),
        (None, Some(socket)) => show_machine(socket, arguments.follow, &image, &mut output),
        (None, None) => unreachable!("one of both is required"),
    };
    output.finish(result)
}

fn show_file(path: &Path, image: &Image, output: &mut Output) -> anyhow::Result<()> {
    let mut memory = Vec::new();
    let file = File::open(path).with_context(|| format!("can't open {path:?}"))?;
    let most = HEADER_BYTES as u64 + u64::from(MAX_CAPACITY);
    file.take(most).read_to_end(&mut memory).with_context(|| format!("can't read {path:?}"))?;
    let dump = Dump::parse(&memory).with_context(|| format!("{path:?}"))?;
    image.check(&dump)?;
    show(&mut Messages::default(), &dump, dump.written(), image, output)
}

fn show_machine(socket: &Path, follow: bool, image: &Image, output: &mut Output) -> anyhow::Result<()> {
    let mut monitor = Monitor::connect(socket)?;
    let mut messages = Messages::default();
    loop {
        let memory = monitor.memory(image.trace_address, image.trace_bytes)?;
        let dump = Dump::parse(&memory)?;
        image.check(&dump)?;
        // The machine goes on while its memory is copied: what it has overwritten meanwhile is not looked at.
        let header = monitor.memory(image.trace_address, memory.len() as u64)?;
        let written = Dump::parse(&header)?.written();
        show(&mut messages, &dump, written, image, output)?;
        if !follow {
            return Ok(());
        }
        // Others may want to speak to the machine; QEMU hears one at a time.
        drop(monitor);
        sleep(INTERVAL);
        monitor = match Monitor::connect(socket) {
            Ok(monitor) => monitor,
            Err(error) => {
                warn(&format!("the machine has ended: {error:#}"));
                return Ok(());
            }
        };
    }
}

/// Shows what is new. When the copy was complete, the machine had written so many bytes.
fn show(
    messages: &mut Messages,
    dump: &Dump<'_>,
    written: u64,
    image: &Image,
    output: &mut Output,
) -> anyhow::Result<()> {
    for found in messages.take(dump, written) {
        match found {
            Found::Message(bytes) => writeln!(output, "{}", image.line(&bytes))?,
            Found::Restart => writeln!(output, "(the machine has started anew)")?,
            Found::Lost { bytes } => writeln!(output, "({bytes} bytes of older messages have been overwritten)")?,
        }
    }
    output.flush()?;
    Ok(())
}
