//! Two servers, loaded in turn, cell by cell: who is not being measured is stopped meanwhile.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::load::{Load, wrk};
use crate::process::Running;
use crate::samples::Samples;
use testbed::Namespace;

/// Core of the servers.
pub const SERVER_CORE: usize = 0;
/// Core of the load.
const LOAD_CORE: usize = 1;

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Samples of each contender in each cell
    #[arg(long, default_value_t = 20)]
    samples: u32,

    /// Seconds of a sample
    #[arg(long, default_value_t = 1)]
    seconds: u32,

    /// Connections for the small object, one cell each
    #[arg(long, value_delimiter = ',', default_value = "1,32,64")]
    small: Vec<usize>,

    /// Connections for the large object, one cell each
    #[arg(long, value_delimiter = ',', default_value = "1,4,16")]
    large: Vec<usize>,
}

/// A server, and where it answers.
pub struct Contender {
    /// The server.
    pub server: Running,
    /// Its URL, without a slash at the end.
    pub url: String,
}

struct Cell {
    title: String,
    path: &'static str,
    connections: usize,
    rate: fn(&Load) -> f64,
    /// What a rate is divided by to be shown, and that unit.
    unit: (f64, &'static str),
}

/// Puts the objects that are asked for into `folder`.
pub fn fill(folder: &Path) -> Result<()> {
    fs::create_dir(folder)?;
    fs::write(folder.join("small.bin"), vec![b's'; 700])?;
    fs::write(folder.join("large.bin"), vec![b'l'; 10 << 20])?;
    Ok(())
}

/// Measures MiniCache against nginx, and prints a line for each cell. The load comes from `clients`, if given.
pub fn run(arguments: &Arguments, ours: &Contender, theirs: &Contender, clients: Option<&Namespace>) -> Result<()> {
    println!(
        "{:<28} {:>12} {:>12} {:>7} {:>22}",
        "median of samples", "minicache", "nginx", "ratio", "ratio at 10 %, 90 %"
    );
    for cell in cells(arguments) {
        let mut samples = [Samples::default(), Samples::default()];
        for _ in 0..arguments.samples {
            for (side, (measured, other)) in [(ours, theirs), (theirs, ours)].into_iter().enumerate() {
                other.server.signal("STOP")?;
                let url = format!("{}/{}", measured.url, cell.path);
                let load = wrk(clients, LOAD_CORE, &url, cell.connections, arguments.seconds);
                other.server.signal("CONT")?;
                let load = load.with_context(|| cell.title.clone())?;
                samples[side].push((cell.rate)(&load));
            }
        }
        show(&cell, &samples);
    }
    Ok(())
}

fn cells(arguments: &Arguments) -> Vec<Cell> {
    let small = arguments.small.iter().map(|&connections| Cell {
        title: format!("700 B, {connections} connections"),
        path: "small.bin",
        connections,
        rate: |load| load.requests_per_s,
        unit: (1e3, "k/s"),
    });
    let large = arguments.large.iter().map(|&connections| Cell {
        title: format!("10 MiB, {connections} connections"),
        path: "large.bin",
        connections,
        rate: |load| load.bytes_per_s,
        unit: (1e9, "GB/s"),
    });
    small.chain(large).collect()
}

fn show(cell: &Cell, [ours, theirs]: &[Samples; 2]) {
    let (scale, unit) = cell.unit;
    let shown = |rate: f64| format!("{:.2} {unit}", rate / scale);
    let ratio = |part: f64| ours.quantile(part) / theirs.quantile(part);
    println!(
        "{:<28} {:>12} {:>12} {:>7.2} {:>11.2} {:>10.2}",
        cell.title,
        shown(ours.median()),
        shown(theirs.median()),
        ratio(0.5),
        ratio(0.1),
        ratio(0.9)
    );
}
