//! One direction of a wire: frames and time in, frames out.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};
use smoltcp::time::{Duration, Instant};

use super::config::Impairment;
use super::rng::Rng;
use crate::rings::Offload;
use crate::rings::wire::{ETHERNET_BYTES, ip_start};

/// Most bytes of frames on their way, those that wait for a bottleneck among them; what comes beyond them is lost.
pub const MAX_HELD_BYTES: u64 = 64 << 20;

/// What a frame on its way counts beside its bytes.
const HELD_OVERHEAD_BYTES: u64 = 64;

const NANOS_PER_S: u128 = 1_000_000_000;

/// What has happened to the frames of a [`Link`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Frames given to it.
    pub sent: u64,
    /// Frames that came out, duplicates included.
    pub delivered: u64,
    /// Frames lost by [`Impairment::loss`].
    pub lost: u64,
    /// Frames that arrive twice.
    pub duplicated: u64,
    /// Frames with a flipped bit.
    pub corrupted: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames lost because the queue, or the wire's memory, was full.
    pub tail_dropped: u64,
    /// Frames that were on their way when the link was cleared.
    pub cleared: u64,
}

impl core::ops::AddAssign for LinkCounts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.tail_dropped += other.tail_dropped;
        self.cleared += other.cleared;
    }
}

/// A frame on its way. Ordered by arrival, then by when it was sent.
struct Held {
    arrival_ns: u64,
    number: u64,
    offload: Offload,
    frame: Vec<u8>,
}

impl Held {
    fn weight_bytes(&self) -> u64 {
        self.frame.len() as u64 + HELD_OVERHEAD_BYTES
    }

    /// The first moment at which it has arrived.
    fn arrival(&self) -> Instant {
        Instant::from_micros(self.arrival_ns.div_ceil(1000) as i64)
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.arrival_ns, self.number).cmp(&(other.arrival_ns, other.number))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Held {}

/// One direction of a wire.
///
/// A frame waits for the bottleneck, takes its time on it, is perhaps lost, travels, and arrives. It is copied in and
/// allocated for; at most [`MAX_HELD_BYTES`] are on their way, of which [`Impairment::queue_bytes`] may wait for the bottleneck.
pub struct Link {
    impairment: Impairment,
    rng: Rng,
    /// When the last queued frame has left the bottleneck.
    free_at_ns: u64,
    /// When the last frame arrives that was not held back.
    last_arrival_ns: u64,
    held: BinaryHeap<Reverse<Held>>,
    held_bytes: u64,
    number: u64,
    counts: LinkCounts,
}

impl Link {
    /// A wire whose accidents `seed` decides.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: Rng::new(seed),
            free_at_ns: 0,
            last_arrival_ns: 0,
            held: BinaryHeap::new(),
            held_bytes: 0,
            number: 0,
            counts: LinkCounts::default(),
        }
    }

    /// What goes wrong on it.
    pub fn impairment(&self) -> &Impairment {
        &self.impairment
    }

    /// What has happened so far.
    pub fn counts(&self) -> LinkCounts {
        self.counts
    }

    /// Frames on their way.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Sends a frame with complete checksums. Time must not run backwards.
    pub fn send(&mut self, now: Instant, frame: &[u8]) {
        self.send_unfinished(now, frame, Offload::None);
    }

    /// Sends a frame of which something is left to the device that takes it out. Only for a link that is the same for
    /// super-frames and segments ([`Impairment::needs_segments`]).
    pub fn send_unfinished(&mut self, now: Instant, frame: &[u8], offload: Offload) {
        debug_assert!(
            offload == Offload::None || !self.impairment.needs_segments(),
            "an accident would hit many at once"
        );
        self.counts.sent += 1;
        let now_ns = (now.total_micros().max(0) as u64).saturating_mul(1000);
        let held_bytes = self.held_bytes + frame.len() as u64 + HELD_OVERHEAD_BYTES;
        let Some(departure_ns) = self.depart(now_ns, frame.len()).filter(|_| held_bytes <= MAX_HELD_BYTES) else {
            self.counts.tail_dropped += 1;
            return;
        };
        let Impairment { loss, duplicate, corrupt, reorder, .. } = self.impairment;
        if self.rng.happens(loss) {
            self.counts.lost += 1;
            return;
        }
        let arrival_ns = (departure_ns + self.travel_ns()).max(self.last_arrival_ns);
        if self.rng.happens(duplicate) && held_bytes * 2 <= MAX_HELD_BYTES {
            self.counts.duplicated += 1;
            let later_ns = arrival_ns + self.hold_ns();
            self.put(later_ns, offload, frame.to_vec());
        }
        let mut frame = frame.to_vec();
        if self.rng.happens(corrupt) && flip_a_bit(&mut frame, &mut self.rng) {
            self.counts.corrupted += 1;
        }
        if self.rng.happens(reorder) {
            self.counts.reordered += 1;
            let later_ns = arrival_ns + self.hold_ns();
            self.put(later_ns, offload, frame);
        } else {
            self.last_arrival_ns = arrival_ns;
            self.put(arrival_ns, offload, frame);
        }
    }

    /// When [`Link::deliver`] has something to hand out.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse(next)| next.arrival())
    }

    /// Hands out the frames that have arrived by `now`, in the order of their arrival, until `sink` refuses one by returning false
    /// (it stays at the head). Returns how many were taken.
    pub fn deliver(&mut self, now: Instant, sink: &mut dyn FnMut(&[u8], Offload) -> bool) -> usize {
        let mut taken = 0;
        while let Some(Reverse(next)) = self.held.peek()
            && next.arrival() <= now
            && sink(&next.frame, next.offload)
        {
            self.held_bytes -= next.weight_bytes();
            self.held.pop();
            taken += 1;
        }
        self.counts.delivered += taken as u64;
        taken
    }

    /// Loses everything that is on its way.
    pub fn clear(&mut self) {
        self.counts.cleared += self.held.len() as u64;
        self.held.clear();
        self.held_bytes = 0;
        self.free_at_ns = 0;
        self.last_arrival_ns = 0;
    }

    /// When the last bit of a frame has left the bottleneck; `None` if too much waits for it.
    fn depart(&mut self, now_ns: u64, frame_bytes: usize) -> Option<u64> {
        let Some(rate) = self.impairment.rate_bits_per_s else { return Some(now_ns) };
        let start_ns = self.free_at_ns.max(now_ns);
        let waiting_bytes = u128::from(start_ns - now_ns) * u128::from(rate) / (8 * NANOS_PER_S);
        if waiting_bytes > u128::from(self.impairment.queue_bytes_at(rate)) {
            return None;
        }
        let duration_ns = (frame_bytes as u128 * 8 * NANOS_PER_S).div_ceil(u128::from(rate.max(1)));
        self.free_at_ns = start_ns.saturating_add(duration_ns as u64);
        Some(self.free_at_ns)
    }

    /// Time on the way, which jitter changes.
    fn travel_ns(&mut self) -> u64 {
        let Impairment { delay, jitter, .. } = self.impairment;
        let (delay_ns, jitter_ns) = (nanos(delay), nanos(jitter));
        match jitter_ns {
            0 => delay_ns,
            _ => (delay_ns + self.rng.below(2 * jitter_ns + 1)).saturating_sub(jitter_ns),
        }
    }

    fn hold_ns(&mut self) -> u64 {
        1 + self.rng.below(nanos(self.impairment.hold))
    }

    fn put(&mut self, arrival_ns: u64, offload: Offload, frame: Vec<u8>) {
        self.number += 1;
        let held = Held { arrival_ns, number: self.number, offload, frame };
        self.held_bytes += held.weight_bytes();
        self.held.push(Reverse(held));
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.total_micros().saturating_mul(1000)
}

/// Flips one bit of an IP packet, so that the Internet checksum is sure to find it where it covers the bit. Other frames (ARP)
/// stay whole: on a real wire the Ethernet's own check drops them. True if the frame was changed.
fn flip_a_bit(frame: &mut [u8], rng: &mut Rng) -> bool {
    if ip_start(frame).is_none() || frame.len() <= ETHERNET_BYTES {
        return false;
    }
    let bit = rng.below((frame.len() - ETHERNET_BYTES) as u64 * 8) as usize;
    frame[ETHERNET_BYTES + bit / 8] ^= 1 << (bit % 8);
    true
}

#[cfg(test)]
mod tests;
