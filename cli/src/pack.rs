//! `minicache pack`: makes an SHFS image of a folder.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::terminal::{Output, tell, warn};
use crate::volume::{self, DigestKind, VolumeName, WriteOptions};

/// Arguments of `minicache pack`.
#[derive(clap::Args)]
#[command(after_long_help = "\
Objects are named by their paths relative to DIR, at most 64 bytes. Symbolic links are followed as long as they stay \
inside DIR. Left out are: links that lead elsewhere, sockets, FIFOs, devices, and .git, .gitignore, .hg, .svn and \
.DS_Store; other hidden files are packed.

The same folder gives the same image, byte for byte, when the environment variable SOURCE_DATE_EPOCH holds the Unix time \
to record as the volume's date (modification times later than it are recorded as it).")]
pub struct Arguments {
    /// The folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The image to write
    image: PathBuf,
    /// The volume's name, at most 16 bytes [default: the folder's name]
    #[arg(long)]
    name: Option<String>,
    /// What names an object beside its name
    #[arg(long, value_enum, default_value = "name")]
    digest: DigestKind,
    /// Name of the object that `/` shows [default: index.html if there is one]
    #[arg(long, value_name = "NAME")]
    default: Option<String>,
    /// Bytes of a chunk: 4096, 8192, 16384 or 32768 [default: the largest that pads little]
    #[arg(long, value_name = "BYTES", value_parser = chunk_bytes)]
    stripe_size: Option<u32>,
    /// Leave out files whose names are too long or that can't be read, instead of refusing
    #[arg(long)]
    skip: bool,
    /// Replace an image that exists
    #[arg(long)]
    force: bool,
}

/// Runs `minicache pack`.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { folder, image, .. } = &arguments;
    volume::check_target(folder, image, arguments.force)?;
    let volume_name = match &arguments.name {
        Some(name) => VolumeName::new(name)?,
        None => VolumeName::of_folder(folder),
    };
    let source_date = source_date_epoch()?;
    let found = volume::walk(folder)?;

    let (lost, left_out): (Vec<_>, Vec<_>) = found.skipped.iter().partition(|skipped| skipped.reason.loses_content());
    for skipped in &left_out {
        warn(&format!("left out {skipped}"));
    }
    for skipped in &lost {
        if arguments.skip { warn(&format!("skipped {skipped}")) } else { tell(&skipped.to_string()) }
    }
    if !lost.is_empty() && !arguments.skip {
        bail!("{} of the files can't be packed; rename or move them, or leave them out with --skip", lost.len());
    }
    let default_name = arguments.default.as_deref().map_or(volume::DEFAULT_NAME, str::as_bytes);
    if let Some(name) = &arguments.default {
        let is_there = found.files.binary_search_by(|file| file.name.as_slice().cmp(name.as_bytes())).is_ok();
        ensure!(is_there, "{name:?}, the object for `/`, is not in {folder:?}");
    }

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted)).context("can't handle signals")?;
    }
    let bar = progress_bar(found.files.iter().fold(0, |sum, file| file.length_bytes.saturating_add(sum)));
    let options = WriteOptions {
        volume_name,
        chunk_bytes: arguments.stripe_size,
        digest: arguments.digest,
        default_name,
        created_unix_s: source_date.unwrap_or_else(|| volume::unix_s(SystemTime::now())),
        newest_unix_s: source_date.unwrap_or(u64::MAX),
        overwrite: arguments.force,
        interrupted: &interrupted,
    };
    let packed = volume::write_image(&found.files, image, &options, |bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let packed = packed?;

    let shared = match packed.shared {
        0 => String::new(),
        shared => format!(" ({shared} share the bytes of another)"),
    };
    if !packed.has_default {
        warn("no index.html and no --default: `/` will be answered with 404");
    }
    let mut output = Output::new();
    let summary = (|| {
        writeln!(output, "packed {} objects{shared}, {}", packed.objects, HumanBytes(packed.content_bytes))?;
        let image_bytes = HumanBytes(packed.image_bytes);
        writeln!(output, "image  {image:?}, {image_bytes}, chunks of {} KiB", packed.chunk_bytes / 1024)?;
        if !lost.is_empty() {
            writeln!(output, "skipped {} files", lost.len())?;
        }
        Ok(())
    })();
    output.finish(summary)
}

fn chunk_bytes(text: &str) -> Result<u32, String> {
    let bytes = text.parse().ok().filter(|bytes| volume::is_chunk_bytes(*bytes));
    bytes.ok_or_else(|| "4096, 8192, 16384 or 32768 is possible".to_string())
}

/// The time that reproducible builds record (reproducible-builds.org/specs/source-date-epoch).
fn source_date_epoch() -> anyhow::Result<Option<u64>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    Ok(Some(seconds.with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not a Unix time in seconds"))?))
}

fn progress_bar(total_bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::new(total_bytes).with_style(style.expect("the template is valid"))
}
