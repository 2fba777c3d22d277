//! The kernel beside Linux with nginx, each alone in the same machine: what they execute to boot and to serve, and the least memory.
//!
//! Both have one emulated processor, a q35 with the firmware qboot and virtio on PCI (Debian's kernel finds no clock on a microvm), the
//! same network, and objects in memory: MiniCache's from a disk once and then in its cache, nginx's on the RAM file system that the
//! kernel has unpacked. Linux is Debian's for clouds, as it boots by default but for `quiet` and NewReno; nginx is set up as for the
//! other measurements. How is counted: see [`kernel`](crate::kernel). The processor lacks "enhanced rep movsb" unless it is asked
//! for: with it Linux copies and clears memory by string instructions whose every byte would count.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::linux::{Debian, VIRTIO, web};
use testbed::qemu::{self, Counting, Machine, Transport};

use crate::build;
use crate::guest::{Client, Guest, LIMIT, System, network};
use crate::kernel::{self, Figure, LARGE, SMALL, image, measure};
use crate::nginx;
use crate::samples::Samples;

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    kernel: kernel::Arguments,

    /// QEMU's name of the processor
    #[arg(long, default_value = "max,-erms")]
    processor: String,

    /// Linux's command line, besides its console and address
    #[arg(long, default_value = "quiet")]
    linux: String,

    /// Leave out what it takes to boot
    #[arg(long)]
    booted: bool,
}

/// Memory of the machines whose instructions are counted, in MiB.
const MEMORY_MIB: u32 = 512;

/// How often to boot.
const BOOTS: u32 = 3;

/// How long to watch what does nothing, in seconds.
const IDLE_S: u32 = 5;

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let built = Built {
        minicache: build::command()?,
        kernel: build::kernel()?,
        debian: Debian::get(&build::target().join("debian"), "linux-image-cloud-amd64", &[web::PACKAGE])?,
        work: temporary.path(),
    };
    println!("q35, one processor ({}), network: {}", arguments.processor, network());
    println!("{:<60} {:>14} {:>14} {:>8}", "median of samples", "minicache", "linux, nginx", "ratio");
    if !arguments.booted {
        // One small object is enough: what Linux has to unpack should be no more than it must.
        let systems = built.systems(arguments, &[SMALL])?;
        let [ours, theirs] = systems.each_ref().map(first_answer);
        show("instructions from reset to the first answer", [ours?, theirs?]);
        let [ours, theirs] = systems.each_ref().map(least_memory_mib);
        show("least memory that boots and serves, MiB", [ours?, theirs?]);
    }
    let [ours, theirs] = built.systems(arguments, &[SMALL, LARGE])?.map(|system| -> Result<_> {
        let mut guest = system.boot()?;
        let figures = measure(&arguments.kernel, &mut guest)?;
        Ok((figures, idle(&mut guest)?))
    });
    let (ours, theirs) = (ours?, theirs?);
    for (Figure { what, samples }, theirs) in ours.0.into_iter().zip(theirs.0) {
        show(&what, [samples.median(), theirs.samples.median()]);
    }
    show("instructions a second while nobody asks", [ours.1, theirs.1]);
    Ok(())
}

fn show(what: &str, [ours, theirs]: [f64; 2]) {
    let ratio = if ours > 0.0 { format!("{:.1}", theirs / ours) } else { "-".to_owned() };
    println!("{what:<60} {ours:>14.0} {theirs:>14.0} {ratio:>8}");
}

/// The machine of both.
fn machine(arguments: &Arguments, machine: &mut qemu::Guest<'_>) {
    (machine.machine, machine.transport) = (Machine::Q35Qboot, Transport::Pci);
    machine.processor.clone_from(&arguments.processor);
    machine.counting = Counting::Executed;
}

/// What both are made of.
struct Built<'a> {
    minicache: PathBuf,
    kernel: PathBuf,
    debian: Debian,
    work: &'a Path,
}

impl Built<'_> {
    /// MiniCache and Linux, with objects of this length.
    fn systems(&self, arguments: &Arguments, objects: &[(&str, usize)]) -> Result<[System; 2]> {
        let mut ours = System::minicache(&self.kernel, &image(&self.minicache, self.work, objects)?, MEMORY_MIB);
        machine(arguments, &mut ours.machine);

        let contents: Vec<_> = objects.iter().map(|(name, length)| (*name, vec![b'x'; *length])).collect();
        let archive = self.work.join(format!("{}.cpio", objects.len()));
        let configuration = nginx::configuration("on", "/www", "/run", "80");
        let system = web::archive(&self.debian, &VIRTIO)?;
        std::fs::write(&archive, [system, web::content(&configuration, &contents)].concat())?;
        let mut guest = qemu::Guest::new(&self.debian.kernel()?);
        guest.memory_mib = MEMORY_MIB;
        guest.initial_ramdisk = Some(archive);
        guest.parameters = format!("console=ttyS0 panic=-1 {}", arguments.linux);
        guest.limit = LIMIT;
        machine(arguments, &mut guest);
        // A word that Linux does not know becomes a variable of the first program.
        let address = |address: &str| format!("address={address}");
        let theirs = System { name: "linux, nginx", machine: guest, address, serves: web::SERVES };
        Ok([ours, theirs])
    }
}

/// Instructions a second while nobody asks for anything.
fn idle(guest: &mut Guest) -> Result<f64> {
    // What was begun should be over.
    sleep(Duration::from_secs(2));
    let before = guest.instructions()?;
    sleep(Duration::from_secs(IDLE_S.into()));
    Ok(guest.instructions()?.saturating_sub(before) as f64 / f64::from(IDLE_S))
}

/// Instructions until the first answer has come: the median of some boots.
fn first_answer(system: &System) -> Result<f64> {
    let mut samples = Samples::default();
    for _ in 0..BOOTS {
        let mut guest = system.boot()?;
        Client::connect(&guest)?.get(&format!("/{}", SMALL.0))?;
        samples.push(guest.instructions()? as f64);
    }
    Ok(samples.median())
}

/// The least memory with which a request is answered, found by halving.
fn least_memory_mib(system: &System) -> Result<f64> {
    let answers = |memory_mib| {
        let mut system = system.clone();
        system.machine.memory_mib = memory_mib;
        system.machine.counting = Counting::No;
        system.machine.limit = Duration::from_secs(30);
        let answer = || Client::connect(&system.boot()?)?.get(&format!("/{}", SMALL.0));
        answer().is_ok()
    };
    let (mut too_little, mut enough) = (0, MEMORY_MIB);
    answers(enough).then_some(()).with_context(|| format!("{} does not serve in {enough} MiB", system.name))?;
    while enough - too_little > 1 {
        let middle = u32::midpoint(too_little, enough);
        *(if answers(middle) { &mut enough } else { &mut too_little }) = middle;
    }
    Ok(f64::from(enough))
}
