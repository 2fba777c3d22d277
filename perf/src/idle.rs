//! What a machine costs that does nothing: processor time of QEMU while nobody asks for anything.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use testbed::qemu::{Machine, Network, Transport};

use crate::build;
use crate::guest::{SERVES, System};

/// What to measure.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds to watch each machine
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// Measures.
pub fn run(arguments: &Arguments) -> Result<()> {
    let (minicache, kernel) = (build::command()?, build::kernel()?);
    let temporary = tempfile::tempdir()?;
    let image = build::pack(&minicache, &build::root().join("demofs"), &temporary.path().join("site.img"))?;
    for (kind, transport) in [(Machine::MicrovmWithoutAcpi, Transport::MmioModern), (Machine::Q35, Transport::Pci)] {
        let mut machine = System::minicache(&kernel, &image, 64).machine;
        (machine.machine, machine.transport) = (kind, transport);
        machine.network = Network::User { forwards: Vec::new() };
        machine.parameters = "-i 10.0.2.15/24 -g 10.0.2.2".to_owned();
        let mut running = machine.boot()?;
        running.wait_for(SERVES)?;
        sleep(Duration::from_secs(1));
        let (begun, before) = (Instant::now(), processor_time(running.pid())?);
        sleep(Duration::from_secs(arguments.seconds));
        let used = processor_time(running.pid())?.saturating_sub(before);
        let share = used.as_secs_f64() / begun.elapsed().as_secs_f64();
        println!("{kind:?}: {:.2} % of a core while idle", share * 100.0);
    }
    Ok(())
}

/// Processor time of a process so far (proc(5), `/proc/PID/stat`: fields 14 and 15, in ticks of 10 ms as all of Linux's
/// interfaces to programs count them).
fn processor_time(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which is in parentheses, may hold anything.
    let fields = stat.rsplit_once(") ").context("a process without a name")?.1.split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
