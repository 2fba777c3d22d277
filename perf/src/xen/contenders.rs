//! The guests that are compared, and what they alone can tell: how often they have written to their grant tables.

use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::Telnet;
use testbed::linux::web;
use testbed::xen::{Bed, Disk, DomU, GUEST, Guest, Host};

use crate::guest::SERVES;
use crate::nginx;

/// How long a guest may take to boot, or to answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Has Linux count how often it writes to its grant table, and lets the console be silent about what it is told.
const COUNT_GRANTS: &str = "stty -echo; mount -t tracefs tracing /sys/kernel/tracing; cd /sys/kernel/tracing; \
                            echo p:grants gnttab_grant_foreign_access_ref >kprobe_events; \
                            echo 1 >events/kprobes/grants/enable; echo grants are $((500 + 500)) times counted";

/// A guest, and the way to ask it for its counter.
pub struct Contender<'a> {
    /// The guest.
    pub guest: Guest<'a>,
    way: Way,
}

enum Way {
    /// µShell, behind this address.
    Shell(SocketAddrV4),
    /// The console, with the number of the next question.
    Console(u32),
}

/// MiniCache, with a disk.
pub fn minicache<'a>(
    host: &'a Host,
    kernel: &Path,
    image: &Path,
    memory_mib: u32,
    shell: SocketAddrV4,
) -> Result<Contender<'a>> {
    let mut domu = DomU::new("minicache", kernel);
    domu.memory_mib = memory_mib;
    domu.parameters = format!("-i {GUEST}/24");
    domu.disks = vec![Disk { image: image.to_owned(), name: "xvda".to_owned(), writable: false }];
    let guest = host.create(&domu)?;
    guest.wait_for(SERVES, PATIENCE)?;
    Ok(Contender { guest, way: Way::Shell(shell) })
}

/// Linux with nginx; the objects are in memory. What it boots from goes into `work`.
pub fn linux<'a>(
    host: &'a Host,
    bed: &Bed,
    objects: &[(&str, usize)],
    memory_mib: u32,
    work: &Path,
) -> Result<Contender<'a>> {
    let contents: Vec<_> = objects.iter().map(|(name, length)| (*name, vec![b'x'; *length])).collect();
    let configuration = nginx::configuration("on", "/www", "/run", "80");
    let ramdisk = work.join("ramdisk.cpio");
    let mut domu = bed.nginx("linux", &format!("{GUEST}/24"), &configuration, &contents, &ramdisk)?;
    domu.memory_mib = memory_mib;
    let guest = host.create(&domu)?;
    guest.wait_for(web::SERVES, PATIENCE)?;
    guest.say(COUNT_GRANTS)?;
    guest.wait_for("grants are 1000 times counted", PATIENCE)?;
    Ok(Contender { guest, way: Way::Console(0) })
}

impl Contender<'_> {
    /// Says something to its shell, if it is one of ours.
    pub fn shell(&self, command: &str) -> Result<()> {
        if let Way::Shell(address) = self.way {
            ask(address, command)?;
        }
        Ok(())
    }

    /// How many entries of its grant table it has written so far, by its own account.
    pub fn grant_writes(&mut self) -> Result<u64> {
        let (said, name) = match &mut self.way {
            Way::Shell(address) => (ask(*address, "stats counters")?, "grant_writes".to_owned()),
            Way::Console(number) => {
                *number += 1;
                let name = format!("answer {number}:");
                self.guest.say(&format!("echo {name} $(cat kprobe_profile)"))?;
                (self.guest.wait_for(&name, PATIENCE)?, format!("{name} grants"))
            }
        };
        let count = || {
            let line = said.lines().find_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(' '))?;
            line.split_whitespace().next()?.parse().ok()
        };
        count().with_context(|| format!("no {name:?} in {said:?}"))
    }
}

/// What µShell says to a command.
fn ask(address: SocketAddrV4, command: &str) -> Result<String> {
    let stream = TcpStream::connect(address).context("the guest's shell can't be reached")?;
    Telnet::new(stream, "mc# ", PATIENCE)?.run(command)
}
