//! The kernel beside Linux with nginx, each a PVH guest of the same Xen host: what their packets cost at the ring, in Xen and in dom0.
//!
//! Both have one processor, the same memory, one interface on the bridge, and objects in memory: MiniCache's from a disk once and then in
//! its cache, nginx's on the RAM file system. dom0's curl asks. Xen ([`trace`]) and dom0 ([`judges`]) count the same way for both; only how
//! often a guest writes to its grant table is nobody's business but its own, so MiniCache's counter is believed, and a probe in Linux's
//! kernel. MiniCache is told to make its frames as long as they can be (`autosize off`), since it would take this machine's exits, which are
//! slow, for a long way. Times say nothing here but that it went on.

mod contenders;
mod judges;
mod trace;

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Result, bail};
use testbed::xen::{self, Bed, Config, Host};

use crate::build;
use crate::kernel::{SMALL, image};
use crate::process::free_address;
use crate::samples::Samples;
use contenders::Contender;
use judges::{Cost, Load};

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Samples, whose median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,

    /// Requests for the small object in each sample
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    requests: u32,

    /// Connections for the small object, one table each
    #[arg(long, value_delimiter = ',', default_value = "1,64", value_parser = clap::value_parser!(u16).range(1..=300))]
    connections: Vec<u16>,

    /// Memory of each guest, in MiB
    #[arg(long, default_value_t = 384)]
    memory_mib: u32,

    /// Let MiniCache fit the length of its frames to the rate
    #[arg(long)]
    autosize: bool,
}

/// The large object, and its length in bytes.
const LARGE: (&str, usize) = ("large.bin", 64 << 20);

/// The machine's memory beside the guest's, and dom0's part of it. The objects are in dom0's for a while.
const HOST_MIB: u32 = 896;
const DOM0_MIB: u32 = 640;

/// How long the host may run.
const LIMIT: Duration = Duration::from_secs(3600);

/// What a sample came to.
struct Sample {
    cost: Cost,
    grant_writes: f64,
}

/// A line of a table.
struct Figure {
    what: &'static str,
    /// Who says so.
    judge: &'static str,
    value: fn(&Sample) -> f64,
    /// It is for a whole load, and shown for a part of it.
    is_total: bool,
}

const fn total(what: &'static str, judge: &'static str, value: fn(&Sample) -> f64) -> Figure {
    Figure { what, judge, value, is_total: true }
}

const fn mean(what: &'static str, value: fn(&Sample) -> f64) -> Figure {
    Figure { what, judge: "dom0", value, is_total: false }
}

const FIGURES: [Figure; 15] = [
    total("packets from the guest", "dom0", |sample| sample.cost.dom0.packets as f64),
    mean("  bytes in each", |sample| sample.cost.dom0.bytes as f64 / sample.cost.dom0.packets as f64),
    mean("  slots for each", |sample| sample.cost.dom0.tx_slots as f64 / sample.cost.dom0.packets as f64),
    total("packets to the guest", "dom0", |sample| sample.cost.dom0.packets_back as f64),
    total("transmit slots", "dom0", |sample| sample.cost.dom0.tx_slots as f64),
    total("receive slots", "dom0", |sample| sample.cost.dom0.rx_slots as f64),
    total("grant writes", "guest", |sample| sample.grant_writes),
    total("pages that dom0 maps", "Xen", |sample| sample.cost.xen.maps as f64),
    total("pieces that dom0 has copied", "dom0", |sample| sample.cost.dom0.copies as f64),
    total("notifications by the guest", "Xen", |sample| sample.cost.xen.notifications as f64),
    total("  that dom0 takes one by one", "dom0", |sample| sample.cost.dom0.events as f64),
    total("interrupts of the guest", "Xen", |sample| sample.cost.xen.interrupts as f64),
    total("hypercalls", "Xen", |sample| sample.cost.xen.hypercalls as f64),
    total("sleeps", "Xen", |sample| sample.cost.xen.sleeps as f64),
    total("exits, these among them", "Xen", |sample| sample.cost.xen.exits as f64),
];

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(reason) = xen::obstacle() {
        bail!("no Xen host can be had here: {reason}");
    }
    let (command, kernel) = (build::command()?, build::kernel()?);
    let work = tempfile::tempdir()?;
    let image = image(&command, work.path(), &[SMALL, LARGE])?;
    let SocketAddr::V4(shell) = free_address()? else { bail!("127.0.0.1 is no address of IPv4") };
    let bed = Bed::get(&build::target().join("xen"))?;
    let host = boot(&bed, arguments, shell)?;
    let memory_mib = arguments.memory_mib;
    println!("PVH guests of {memory_mib} MiB and one processor; medians of {} samples", arguments.samples);
    let ours = measure(arguments, &host, contenders::minicache(&host, &kernel, &image, memory_mib, shell)?)?;
    let theirs = contenders::linux(&host, &bed, &[SMALL, LARGE], memory_mib, work.path())?;
    let theirs = measure(arguments, &host, theirs)?;
    for ((load, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        show(load, ours, theirs);
    }
    Ok(())
}

fn boot(bed: &Bed, arguments: &Arguments, shell: SocketAddrV4) -> Result<Host> {
    let config = Config {
        memory_mib: HOST_MIB + arguments.memory_mib,
        dom0_memory_mib: DOM0_MIB,
        forwards: vec![(shell, 23)],
        limit: LIMIT,
        ..Config::default()
    };
    let host = bed.boot(&config)?;
    judges::prepare(&host)?;
    Ok(host)
}

/// Runs every load against a guest.
fn measure(arguments: &Arguments, host: &Host, mut contender: Contender<'_>) -> Result<Vec<(Load, Vec<Sample>)>> {
    if !arguments.autosize {
        contender.shell("autosize off")?;
    }
    let small = |&connections| Load { object: SMALL, requests: arguments.requests, connections };
    let large = Load { object: LARGE, requests: 1, connections: 1 };
    let mut measured = Vec::new();
    for load in [large].into_iter().chain(arguments.connections.iter().map(small)) {
        let domid = contender.guest.domid();
        // Once into the cache.
        load.warm(host)?;
        // What asking costs by itself.
        let own = -(contender.grant_writes()? as f64) + contender.grant_writes()? as f64;
        let mut samples = Vec::new();
        for _ in 0..arguments.samples {
            let before = contender.grant_writes()?;
            let cost = load.run(host, domid)?;
            let grant_writes = (contender.grant_writes()? - before) as f64 - own;
            samples.push(Sample { cost, grant_writes });
        }
        measured.push((load, samples));
    }
    Ok(measured)
}

/// Prints a table.
fn show(load: &Load, ours: &[Sample], theirs: &[Sample]) {
    let Load { object: (_, bytes), requests, connections } = *load;
    let (title, parts) = if bytes >= 1 << 20 {
        (format!("an object of {} MiB, each MiB", bytes >> 20), bytes as f64 / f64::from(1 << 20))
    } else {
        let title = format!("{requests} requests for {bytes} bytes, {connections} connections, each request");
        (title, f64::from(requests))
    };
    println!("\n{title:<64} {:>6} {:>10} {:>12} {:>6}", "judge", "minicache", "linux, nginx", "ratio");
    for figure in &FIGURES {
        let [ours, theirs] = [ours, theirs].map(|samples| {
            let mut values = Samples::default();
            samples.iter().for_each(|sample| values.push((figure.value)(sample)));
            values.scale(if figure.is_total { 1.0 / parts } else { 1.0 });
            values.median()
        });
        let ratio = if ours > 0.0 { format!("{:.2}", theirs / ours) } else { "-".to_owned() };
        println!("{:<64} {:>6} {ours:>10.2} {theirs:>12.2} {ratio:>6}", figure.what, figure.judge);
    }
    let seconds = [ours, theirs].map(|samples| {
        let mut values = Samples::default();
        samples.iter().for_each(|sample| values.push(sample.cost.dom0.seconds));
        values.median()
    });
    println!("(the whole took {:.1} and {:.1} s here, which says nothing)", seconds[0], seconds[1]);
}
