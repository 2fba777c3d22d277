//! What a guest executes for a request: instructions for a small object on kept connections, and for each MiB of a large one.
//!
//! QEMU tells how many instructions the guest has executed, before and after some requests. What the guest sleeps through is no
//! instruction, and nothing here depends on time but how many segments and acknowledgements meet in one wake-up: so each figure is
//! a median of samples. A repeated string instruction counts once for each round. What a device does (checksums, segmentation) is
//! not counted, and neither is what leaving the guest would cost on hardware.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testbed::qemu::Counting;

use crate::build;
use crate::guest::{Client, Guest, System, network};
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

    /// Connections for the small object, one line each; all of them ask, and then all are answered
    #[arg(long, value_delimiter = ',', default_value = "1,32", value_parser = clap::value_parser!(u16).range(1..))]
    connections: Vec<u16>,
}

/// The small object, and its length in bytes.
pub const SMALL: (&str, usize) = ("small.bin", 700);
/// The large one.
pub const LARGE: (&str, usize) = ("large.bin", 10 << 20);

/// Instructions for each of something.
pub struct Figure {
    /// Of what.
    pub what: String,
    /// How many.
    pub samples: Samples,
}

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (minicache, kernel) = (build::command()?, build::kernel()?);
    let temporary = tempfile::tempdir()?;
    let image = image(&minicache, temporary.path(), &[SMALL, LARGE])?;
    let mut system = System::minicache(&kernel, &image, 256);
    system.machine.counting = Counting::Executed;
    println!("network: {}", network());
    for Figure { what, samples } in measure(arguments, &mut system.boot()?)? {
        let at = |part: f64| samples.quantile(part);
        println!("{what:<56} {:>10.0}   (10 %: {:.0}, 90 %: {:.0})", at(0.5), at(0.1), at(0.9));
    }
    Ok(())
}

/// An image with some objects of this length, made in `work`.
pub fn image(minicache: &Path, work: &Path, objects: &[(&str, usize)]) -> Result<PathBuf> {
    let folder = tempfile::tempdir_in(work)?;
    for (name, length) in objects {
        std::fs::write(folder.path().join(name), vec![b'x'; *length])?;
    }
    build::pack(minicache, folder.path(), &work.join(format!("{}.img", objects.len())))
}

/// Measures a guest that has both objects and whose instructions are counted.
pub fn measure(arguments: &Arguments, guest: &mut Guest) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for &connections in &arguments.connections {
        let connect = |_| Client::connect(guest);
        let mut clients = (0..connections).map(connect).collect::<Result<Vec<_>>>()?;
        let rounds = arguments.requests.div_ceil(connections.into());
        // Once into the cache.
        sample(1, 2, guest, &mut clients, SMALL.0)?;
        let mut samples = sample(arguments.samples, rounds, guest, &mut clients, SMALL.0)?;
        samples.scale(1.0 / f64::from(rounds * u32::from(connections)));
        let what = format!("instructions a request, {} B, keep-alive, {connections} connections", SMALL.1);
        figures.push(Figure { what, samples });
    }
    let mut client = [Client::connect(guest)?];
    // Once into the cache, and the window open.
    sample(1, 3, guest, &mut client, LARGE.0)?;
    let mut samples = sample(arguments.samples, 1, guest, &mut client, LARGE.0)?;
    samples.scale(f64::from(1 << 20) / LARGE.1 as f64);
    figures.push(Figure { what: "instructions a MiB, object in memory, 1 connection".to_owned(), samples });
    Ok(figures)
}

/// Instructions for so many rounds, in which each client gets an object; sample by sample.
fn sample(samples: u32, rounds: u32, guest: &mut Guest, clients: &mut [Client], name: &str) -> Result<Samples> {
    let target = format!("/{name}");
    let mut found = Samples::default();
    for _ in 0..samples {
        let before = guest.instructions()?;
        for _ in 0..rounds {
            clients.iter_mut().try_for_each(|client| client.ask(&target))?;
            for client in &mut *clients {
                client.answer(&target)?;
            }
        }
        let executed = guest.instructions()?.checked_sub(before).context("a counter that runs backwards")?;
        found.push(executed as f64);
    }
    Ok(found)
}
