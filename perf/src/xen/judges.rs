//! Who counts: Xen, dom0's network interface and back end, and dom0's kernel; the same for every guest.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testbed::xen::{GUEST, Host};

use super::trace::{MASK, Trace};

/// How long a load may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Has dom0's kernel count the operations of its grant copies, which Xen does not trace: the sum of an argument (Linux,
/// `Documentation/trace/kprobetrace.rst` and `histogram.rst`).
const COUNT_COPIES: &str = "cd /sys/kernel/tracing
echo 'p:copies gnttab_batch_copy n=%si:u32' >>kprobe_events
echo 'hist:keys=common_type:vals=n' >events/kprobes/copies/trigger";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The object, and its length in bytes.
    pub object: (&'static str, usize),
    /// How often.
    pub requests: u32,
    /// Over how many connections.
    pub connections: u16,
}

/// What a load has cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What Xen saw.
    pub xen: Trace,
    /// What dom0 saw.
    pub dom0: Dom0,
}

/// What dom0 counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Dom0 {
    /// Packets from the guest, each as large as the guest has made it.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets to the guest.
    pub packets_back: u64,
    /// Entries of the transmit ring that the guest has put.
    pub tx_slots: u64,
    /// Entries of the receive ring that the back end has answered.
    pub rx_slots: u64,
    /// Events of the guest that the back end has taken; some may have come together.
    pub events: u64,
    /// Requests for blocks of a disk, or rather the events that brought them.
    disk_events: u64,
    /// Operations of grant copies.
    pub copies: u64,
    /// When, in seconds.
    pub seconds: f64,
}

/// Counters of dom0, in the order of [`Dom0`]. `$vif`: the guest's interface.
const COUNTERS: &str = r#"
counters() {
	echo counters
	cat /sys/class/net/$vif/statistics/rx_packets /sys/class/net/$vif/statistics/rx_bytes
	cat /sys/class/net/$vif/statistics/tx_packets
	# The transmit ring comes first.
	awk '/^req prod/ && !tx++ { print $3 } /^rsp prod/ && rx++ { print $3 }' /sys/kernel/debug/xen-netback/$vif/io_ring_q0
	awk -v vif="$vif-" 'index($NF, vif) { n += $2 } END { print n + 0 }' /proc/interrupts
	awk '$NF == "blkif-backend" { n += $2 } END { print n + 0 }' /proc/interrupts
	awk '/^[{]/ { n += $NF } END { print n + 0 }' /sys/kernel/tracing/events/kprobes/copies/hist
	cut -d ' ' -f 1 /proc/uptime
}
"#;

/// Has dom0's kernel count what it does not count by itself.
pub fn prepare(host: &Host) -> Result<()> {
    host.check(COUNT_COPIES).context("dom0's kernel does not count its copies")?;
    Ok(())
}

impl Load {
    /// Has dom0 ask the guest for the object once.
    pub fn warm(&self, host: &Host) -> Result<()> {
        let name = self.object.0;
        host.check(&format!("curl --silent --show-error --fail --output /dev/null http://{GUEST}/{name}"))?;
        Ok(())
    }

    /// Has dom0 ask the guest for the object, and returns what that has cost.
    pub fn run(&self, host: &Host, domid: u32) -> Result<Cost> {
        let Self { object: (name, bytes), requests, connections } = self;
        // In parallel, curl waits a second for each next request if there is one connection.
        let parallel =
            if *connections > 1 { format!("--parallel --parallel-max {connections}") } else { String::new() };
        let script = format!(
            "{COUNTERS}
vif=vif{domid}.0
awk 'BEGIN {{ while (n++ < {requests}) print \"url = http://{GUEST}/{name}\\noutput = /dev/null\" }}' >/tmp/urls
xentrace -D -S 256 -e {MASK} /tmp/trace >/dev/null 2>&1 &
sleep 1
counters
curl --silent --show-error --no-progress-meter --fail {parallel} --config /tmp/urls \
--write-out '%{{http_code}} %{{size_download}}\\n' >/tmp/got 2>&1
counters
kill -INT $!
wait $!
sort /tmp/got | uniq -c"
        );
        let output = host.run_within(&script, PATIENCE)?;
        let parsed = parse(&output.text).with_context(|| format!("dom0 says what it never said before: {output:?}"));
        let (before, after, got) = parsed?;
        let wanted = format!("{requests} 200 {bytes}");
        ensure!(got == wanted, "{name}: {got:?}, and not {wanted:?}");
        let cost = Cost { xen: Trace::parse(&host.get("/tmp/trace")?)?, dom0: after.since(&before) };
        let (sent, taken) = (cost.xen.notifications, cost.dom0.events);
        ensure!(sent >= taken, "Xen saw {sent} notifications, and dom0 took {taken}");
        ensure!(cost.dom0.disk_events == 0, "{name} was read from the disk");
        Ok(cost)
    }
}

/// The counters before and after, and what curl got, which should be one line.
fn parse(said: &str) -> Option<(Dom0, Dom0, String)> {
    let mut lines = said.trim_end().lines();
    let (before, after) = (Dom0::parse(&mut lines)?, Dom0::parse(&mut lines)?);
    Some((before, after, lines.map(str::trim).collect::<Vec<_>>().join(", ")))
}

impl Dom0 {
    fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        if lines.next() != Some("counters") {
            return None;
        }
        let mut number = || lines.next()?.trim().parse().ok();
        let found = Self {
            packets: number()?,
            bytes: number()?,
            packets_back: number()?,
            tx_slots: number()?,
            rx_slots: number()?,
            events: number()?,
            disk_events: number()?,
            copies: number()?,
            seconds: 0.0,
        };
        Some(Self { seconds: lines.next()?.trim().parse().ok()?, ..found })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            packets_back: self.packets_back - before.packets_back,
            // Indexes of rings, which wrap.
            tx_slots: self.tx_slots.wrapping_sub(before.tx_slots) & 0xffff_ffff,
            rx_slots: self.rx_slots.wrapping_sub(before.rx_slots) & 0xffff_ffff,
            events: self.events - before.events,
            disk_events: self.disk_events - before.disk_events,
            copies: self.copies - before.copies,
            seconds: self.seconds - before.seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dom0_says_is_understood() {
        let said = "counters\n1\n2\n3\n4294967295\n5\n6\n7\n8\n9.50\ncounters\n2\n4\n6\n7\n10\n12\n7\n16\n19.75\n  1000 200 700\n";
        let (before, after, got) = parse(said).unwrap();
        let difference = Dom0 {
            packets: 1,
            bytes: 2,
            packets_back: 3,
            tx_slots: 8,
            rx_slots: 5,
            events: 6,
            disk_events: 0,
            copies: 8,
            seconds: 10.25,
        };
        assert_eq!((after.since(&before), got.as_str()), (difference, "1000 200 700"));
        assert!(parse("counters\n1\n").is_none() && parse("").is_none());
    }
}
