//! What a guest executes for a request: instructions for a small object on a kept connection, and for each MiB of a large one.

use std::path::Path;

use anyhow::{Context, Result};

use crate::build;
use crate::guest::{Client, Guest, MiniCache};
use crate::samples::Samples;

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Samples, whose median counts
    #[arg(long, default_value_t = 20)]
    samples: u32,

    /// Requests for the small object in each sample
    #[arg(long, default_value_t = 100)]
    requests: u32,
}

const SMALL_BYTES: usize = 700;
const LARGE_MIB: usize = 10;

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (minicache, kernel) = (build::command()?, build::kernel()?);
    let temporary = tempfile::tempdir()?;
    let image = image(&minicache, temporary.path())?;
    let mut guest = MiniCache::boot(&kernel, &image)?;
    measure(arguments, &mut guest)
}

/// An image with the objects that are asked for.
fn image(minicache: &Path, work: &Path) -> Result<std::path::PathBuf> {
    let folder = work.join("www");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("small.bin"), vec![b's'; SMALL_BYTES])?;
    std::fs::write(folder.join("large.bin"), vec![b'l'; LARGE_MIB << 20])?;
    build::pack(minicache, &folder, &work.join("site.img"))
}

/// Measures a guest that has `/small.bin` and `/large.bin`, and prints what it found.
pub fn measure(arguments: &Arguments, guest: &mut dyn Guest) -> Result<()> {
    let mut client = Client::connect(guest)?;
    // Once into the cache, and the window open.
    for _ in 0..3 {
        client.get("/small.bin")?;
        client.get("/large.bin")?;
    }
    let small = sample(arguments.samples, arguments.requests, guest, &mut client, "/small.bin")?;
    show(guest.name(), &format!("instructions a request, {SMALL_BYTES} B, keep-alive"), &small, 1.0);
    let large = sample(arguments.samples, 1, guest, &mut client, "/large.bin")?;
    show(guest.name(), "instructions a MiB, object in the cache", &large, LARGE_MIB as f64);
    Ok(())
}

/// Instructions for each of so many requests, sample by sample.
fn sample(samples: u32, requests: u32, guest: &mut dyn Guest, client: &mut Client, target: &str) -> Result<Samples> {
    let mut found = Samples::default();
    for _ in 0..samples {
        let before = guest.instructions()?;
        for _ in 0..requests {
            client.get(target)?;
        }
        let executed = guest.instructions()?.checked_sub(before).context("a counter that runs backwards")?;
        found.push(executed as f64 / f64::from(requests));
    }
    Ok(found)
}

fn show(name: &str, what: &str, samples: &Samples, scale: f64) {
    let at = |part: f64| samples.quantile(part) / scale;
    println!("{name:<12} {what:<44} {:>10.0}   (10 %: {:.0}, 90 %: {:.0})", at(0.5), at(0.1), at(0.9));
}
