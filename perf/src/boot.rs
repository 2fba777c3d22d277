//! How much it takes to boot: instructions from the reset until the kernel serves, its size, and the least memory that will do.

use std::path::Path;

use anyhow::{Context, Result, bail};
use testbed::qemu::{Counting, Network};

use crate::build;
use crate::guest::{SERVES, System};

/// Memory of the machine whose instructions are counted, in MiB.
const MEMORY_MIB: u32 = 64;

/// Most memory that is tried for the least, in MiB.
const FLOOR_FROM_MIB: u32 = 16;

/// The parameters: a static address.
const PARAMETERS: &str = "-i 10.0.2.15/24 -g 10.0.2.2";

/// Measures.
pub fn run() -> Result<()> {
    let (minicache, kernel) = (build::command()?, build::kernel()?);
    let temporary = tempfile::tempdir()?;
    let demofs = build::root().join("demofs");
    let image = build::pack(&minicache, &demofs, &temporary.path().join("site.img"))?;

    // Twice: without input from outside, every run is the same.
    let [first, second] = [boot(&kernel, &image)?, boot(&kernel, &image)?];
    println!("{}", first.console.trim_end());
    println!("\ninstructions from reset to {SERVES:?}: {}", first.instructions);
    if first.instructions != second.instructions {
        println!("  (in a second run: {})", second.instructions);
    }
    println!("kernel with debug information: {} KiB", std::fs::metadata(&kernel)?.len().div_ceil(1024));
    let least = (1..=FLOOR_FROM_MIB).rev().take_while(|mib| serves(&kernel, &image, *mib)).last();
    match least {
        Some(mib) => println!("least memory that serves demofs: {mib} MiB"),
        None => bail!("demofs is not served in {FLOOR_FROM_MIB} MiB"),
    }
    Ok(())
}

struct Boot {
    console: String,
    instructions: u64,
}

fn boot(kernel: &Path, image: &Path) -> Result<Boot> {
    let mut machine = System::minicache(kernel, image, MEMORY_MIB).machine;
    machine.counting = Counting::TimeStamps;
    machine.network = Network::User { forwards: Vec::new() };
    machine.parameters = PARAMETERS.to_owned();
    let mut running = machine.boot()?;
    running.wait_for(SERVES)?;
    // What follows is printed after the count was taken.
    let line = running.wait_for("time stamp counter")?;
    let digits = line.split(|character: char| !character.is_ascii_digit()).find(|digits| !digits.is_empty());
    let instructions =
        digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("no count in {line:?}"))?;
    Ok(Boot { console: running.console(), instructions })
}

/// Whether demofs can be had from a machine with so little memory.
fn serves(kernel: &Path, image: &Path, memory_mib: u32) -> bool {
    let attempt = || -> Result<()> {
        let address = crate::process::free_address()?;
        let mut machine = System::minicache(kernel, image, memory_mib).machine;
        machine.limit = std::time::Duration::from_secs(20);
        machine.network = Network::User { forwards: vec![(address.port(), 80)] };
        machine.parameters = PARAMETERS.to_owned();
        let mut running = machine.boot()?;
        running.wait_for(SERVES)?;
        let mut client = crate::guest::Client::to(std::net::TcpStream::connect(address)?)?;
        for target in ["/", "/media/noise.bin", "/media/ring.webm", "/style.css"] {
            client.get(target)?;
        }
        Ok(())
    };
    attempt().is_ok()
}
