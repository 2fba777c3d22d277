//! The timer wheel: one entry a connection, set and cancelled in constant time.
//!
//! A tick is a millisecond. Level `k` has 64 slots of 64ᵏ ticks; an entry lies at the level of the highest base-64 digit in
//! which its tick differs from the wheel's, and moves down as the wheel reaches its slot. A connection has several deadlines
//! but only one entry, the earliest; deadlines that move later don't touch the wheel: the entry fires, finds nothing due
//! and is set anew.

use alloc::vec::Vec;
use smoltcp::time::Instant;

use super::links::{Links, List};

const LEVELS: usize = 7;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Ticks that the levels can tell apart: 139 years.
const MAX_TICK: u64 = (1 << (SLOT_BITS * LEVELS as u32)) - 1;

/// A timer wheel over the entries `0..n` of a table.
#[derive(Debug)]
pub(super) struct Wheel {
    /// The tick up to which everything has been handed out, but for what lies in its own slot of level 0.
    tick: u64,
    /// One bit for each slot that is not empty.
    occupied: [u64; LEVELS],
    slots: [[List; SLOTS]; LEVELS],
    links: Links,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    tick: u64,
    /// Level and slot, while the entry is set.
    place: Option<(u8, u8)>,
}

impl Wheel {
    /// A wheel without entries.
    pub fn new() -> Self {
        Self {
            tick: 0,
            occupied: [0; LEVELS],
            slots: [[List::default(); SLOTS]; LEVELS],
            links: Links::default(),
            entries: Vec::new(),
        }
    }

    /// Makes room for entries up to `count`.
    pub fn grow(&mut self, count: usize) {
        self.links.grow(count);
        if self.entries.len() < count {
            self.entries.resize(count, Entry::default());
        }
    }

    /// Sets `entry` to fire at `deadline`, rounded up to a tick, instead of what it was set to.
    pub fn set(&mut self, entry: u32, deadline: Instant) {
        self.cancel(entry);
        let tick = (deadline.total_micros().max(0) as u64).div_ceil(1000);
        self.place(entry, tick.clamp(self.tick + 1, MAX_TICK));
    }

    /// Unsets `entry`.
    pub fn cancel(&mut self, entry: u32) {
        if let Some((level, slot)) = self.entries[entry as usize].place.take() {
            let list = &mut self.slots[level as usize][slot as usize];
            self.links.remove(list, entry);
            if list.first().is_none() {
                self.occupied[level as usize] &= !(1 << slot);
            }
        }
    }

    /// The next entry that is due at `now`, which is unset by this.
    pub fn next_due(&mut self, now: Instant) -> Option<u32> {
        let now_tick = now.total_micros().max(0) as u64 / 1000;
        loop {
            if let Some(entry) = self.slots[0][(self.tick % SLOTS as u64) as usize].first() {
                self.cancel(entry);
                return Some(entry);
            }
            match self.next_stop() {
                Some((level, slot, tick)) if tick <= now_tick => {
                    self.tick = tick;
                    if level > 0 {
                        self.move_down(level, slot);
                    }
                }
                _ => {
                    self.tick = self.tick.max(now_tick.min(MAX_TICK));
                    return None;
                }
            }
        }
    }

    /// When the wheel has to be looked at next: never later than the earliest entry.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.slots[0][(self.tick % SLOTS as u64) as usize].first().is_some() {
            return Some(Instant::from_micros((self.tick * 1000) as i64));
        }
        self.next_stop().map(|(_, _, tick)| Instant::from_micros((tick * 1000) as i64))
    }

    /// The first occupied slot behind the wheel's position: level, slot, and the tick at which it begins.
    fn next_stop(&self) -> Option<(usize, usize, u64)> {
        for level in 0..LEVELS {
            let shift = SLOT_BITS * level as u32;
            let digit = (self.tick >> shift) % SLOTS as u64;
            // Lower levels lie within the current slot of the higher ones, so the first level with an entry has the earliest.
            let ahead = self.occupied[level] & (u64::MAX << digit << 1);
            if ahead != 0 {
                let slot = ahead.trailing_zeros() as usize;
                let above = self.tick >> shift >> SLOT_BITS << SLOT_BITS;
                return Some((level, slot, (above + slot as u64) << shift));
            }
        }
        None
    }

    /// The wheel has reached the beginning of a slot of a higher level: its entries go where they belong now.
    fn move_down(&mut self, level: usize, slot: usize) {
        while let Some(entry) = self.slots[level][slot].first() {
            self.cancel(entry);
            self.place(entry, self.entries[entry as usize].tick);
        }
    }

    /// Puts an unset entry, not before the wheel's position, where it belongs.
    fn place(&mut self, entry: u32, tick: u64) {
        debug_assert!(tick >= self.tick);
        let level = match (tick ^ self.tick).checked_ilog2() {
            Some(bit) => bit / SLOT_BITS,
            None => 0,
        };
        let slot = ((tick >> (SLOT_BITS * level)) % SLOTS as u64) as usize;
        self.links.push(&mut self.slots[level as usize][slot], entry);
        self.occupied[level as usize] |= 1 << slot;
        self.entries[entry as usize] = Entry { tick, place: Some((level as u8, slot as u8)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn due(wheel: &mut Wheel, now_us: i64) -> Vec<u32> {
        let mut due: Vec<u32> = core::iter::from_fn(|| wheel.next_due(Instant::from_micros(now_us))).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn entries_fire_once_at_their_tick_and_not_before() {
        let mut wheel = Wheel::new();
        wheel.grow(4);
        wheel.set(0, Instant::from_micros(1));
        wheel.set(1, Instant::from_millis(40));
        wheel.set(2, Instant::from_secs(60));
        wheel.set(3, Instant::from_secs(3600));
        assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(1)));
        assert_eq!(due(&mut wheel, 999), []);
        assert_eq!(due(&mut wheel, 1000), [0]);
        assert_eq!(due(&mut wheel, 39_999), []);
        assert_eq!(due(&mut wheel, 60_000_000), [1, 2]);
        wheel.cancel(3);
        assert_eq!(wheel.next_deadline(), None);
        assert_eq!(due(&mut wheel, 7_200_000_000), []);
    }

    #[test]
    fn an_entry_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new();
        wheel.grow(1);
        assert_eq!(due(&mut wheel, 5_000_000), []);
        wheel.set(0, Instant::from_secs(1));
        assert_eq!(wheel.next_deadline(), Some(Instant::from_millis(5001)));
        assert_eq!(due(&mut wheel, 5_001_000), [0]);
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_list(
            steps in prop::collection::vec((0u32..16, 0u64..400_000, 0u64..3, any::<bool>()), 1..200),
        ) {
            let mut wheel = Wheel::new();
            wheel.grow(16);
            let mut model = [None; 16];
            let mut now_ms = 0u64;
            for (entry, delay_ms, scale, cancel) in steps {
                if cancel {
                    wheel.cancel(entry);
                    model[entry as usize] = None;
                } else {
                    let deadline_ms = now_ms + 1 + (delay_ms >> (8 * scale));
                    wheel.set(entry, Instant::from_millis(deadline_ms as i64));
                    model[entry as usize] = Some(deadline_ms);
                }
                if let Some(earliest) = model.iter().flatten().min() {
                    let next = wheel.next_deadline().unwrap();
                    prop_assert!(next <= Instant::from_millis(*earliest as i64));
                    prop_assert!(next > Instant::from_millis(now_ms as i64));
                }
                now_ms += delay_ms >> (6 * ((entry as u64 + scale) % 4));
                let expected: Vec<u32> = (0..16).filter(|i| model[*i as usize].is_some_and(|at| at <= now_ms)).collect();
                prop_assert_eq!(due(&mut wheel, now_ms as i64 * 1000), expected.clone());
                for entry in expected {
                    model[entry as usize] = None;
                }
            }
        }
    }
}
