//! What Xen itself saw of a guest, read from xentrace's records (`xen/trace.h`).
//!
//! Records of virtualized guests carry no domain: there must be one such guest at a time. dom0 is none.

use anyhow::{Result, ensure};

/// xentrace's `-e`: what virtualized guests do, and grants.
pub const MASK: &str = "0x18f000";

/// Records did not fit the buffers.
const LOST: u32 = 0x1_f001;
/// A guest was left, on a processor in 32-bit and in 64-bit mode.
const EXIT: [u32; 2] = [0x8_1002, 0x8_1102];
/// A hypercall; its number follows.
const HYPERCALL: u32 = 0x8_2012;
/// An interrupt was delivered.
const INTERRUPT: u32 = 0x8_2004;
/// It has halted.
const HALT: u32 = 0x8_2013;
/// A domain has mapped another's page.
const MAP: u32 = 0x10_f001;

/// The hypercall that notifies (`__HYPERVISOR_event_channel_op`).
const EVENT_CHANNEL_OP: u32 = 32;
/// The hypercall that sleeps, where that is no halt (`__HYPERVISOR_sched_op`).
const SCHED_OP: u32 = 29;

/// What Xen counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// How often the guest was left.
    pub exits: u64,
    /// Hypercalls of the guest.
    pub hypercalls: u64,
    /// Of those, about event channels: notifications.
    pub notifications: u64,
    /// Interrupts that the guest was given.
    pub interrupts: u64,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// Pages of the guest that dom0 mapped.
    pub maps: u64,
}

impl Trace {
    /// Counts a file of xentrace.
    ///
    /// # Errors
    /// If it is cut off, or if records were lost.
    pub fn parse(file: &[u8]) -> Result<Self> {
        let mut words = file.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
        let mut found = Self::default();
        while let Some(header) = words.next() {
            let (event, extra, has_time) = (header & 0x0fff_ffff, header >> 28 & 7, header >> 31 == 1);
            let length = extra as usize + if has_time { 2 } else { 0 };
            let record: Vec<u32> = words.by_ref().take(length).collect();
            ensure!(record.len() == length, "xentrace's file is cut off");
            ensure!(event != LOST, "Xen's trace has lost records");
            let first = record.get(if has_time { 2 } else { 0 }).copied();
            let is = |counts: bool| u64::from(counts);
            found.exits += is(EXIT.contains(&event));
            found.hypercalls += is(event == HYPERCALL);
            found.notifications += is(event == HYPERCALL && first == Some(EVENT_CHANNEL_OP));
            found.interrupts += is(event == INTERRUPT);
            found.sleeps += is(event == HALT || event == HYPERCALL && first == Some(SCHED_OP));
            found.maps += is(event == MAP);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: u32, time: bool, extra: &[u32]) -> Vec<u8> {
        let header = event | (extra.len() as u32) << 28 | u32::from(time) << 31;
        let time: &[u32] = if time { &[7, 8] } else { &[] };
        [&[header], time, extra].concat().iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn records_are_counted_by_their_event() {
        let file = [
            record(0x1_f003, false, &[0, 99]),
            record(0x8_1102, true, &[0x81, 1, 2]),
            record(HYPERCALL, false, &[EVENT_CHANNEL_OP]),
            record(0x8_1102, true, &[0x81, 1, 2]),
            record(HYPERCALL, false, &[SCHED_OP]),
            record(INTERRUPT, true, &[0xf3, 0]),
            record(MAP, false, &[1]),
        ]
        .concat();
        let counted = Trace { exits: 2, hypercalls: 2, notifications: 1, interrupts: 1, sleeps: 1, maps: 1 };
        assert_eq!(Trace::parse(&file).unwrap(), counted);
        assert!(Trace::parse(&file[..file.len() - 4]).is_err());
        assert!(Trace::parse(&record(LOST, true, &[1, 2])).is_err());
    }
}
