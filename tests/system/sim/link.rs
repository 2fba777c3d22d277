//! One direction of a wire: bandwidth, a queue, delay, and everything that goes wrong with segments.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use fastrand::Rng;
use smoltcp::time::{Duration, Instant};

use super::nic::ETHERNET_BYTES;

/// What a direction of a wire does to frames. Rates are probabilities for each frame.
#[derive(Clone, Debug)]
pub struct Impairment {
    /// Lost.
    pub drop_rate: f64,
    /// Delivered twice, the second time a little later.
    pub duplicate_rate: f64,
    /// Delivered with flipped bits.
    pub corrupt_rate: f64,
    /// Held back for up to `reorder_by`, so that later frames overtake it.
    pub reorder_rate: f64,
    /// Longest time that a frame is held back.
    pub reorder_by: Duration,
    /// Time on the way.
    pub delay: Duration,
    /// Bandwidth in bits per second.
    pub bits_per_s: u64,
    /// What waits for the wire at most; more is lost.
    pub queue_bytes: usize,
}

impl Impairment {
    /// A good wire: 1 Gbit/s, 100 µs, nothing lost.
    pub const NONE: Self = Self {
        drop_rate: 0.0,
        duplicate_rate: 0.0,
        corrupt_rate: 0.0,
        reorder_rate: 0.0,
        reorder_by: Duration::ZERO,
        delay: Duration::from_micros(100),
        bits_per_s: 1_000_000_000,
        queue_bytes: 4 << 20,
    };

    /// Drops, reorders, duplicates and corrupts `rate` of the frames each.
    pub fn of_all_kinds(rate: f64) -> Self {
        Self {
            drop_rate: rate,
            duplicate_rate: rate,
            corrupt_rate: rate,
            reorder_rate: rate,
            reorder_by: Duration::from_millis(5),
            ..Self::NONE
        }
    }
}

/// What has happened on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames given to it.
    pub sent: u64,
    /// Frames lost by `drop_rate`.
    pub dropped: u64,
    /// Frames delivered twice.
    pub duplicated: u64,
    /// Frames with flipped bits.
    pub corrupted: u64,
    /// Frames held back.
    pub reordered: u64,
    /// Frames lost because the queue was full.
    pub overflowed: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.dropped += other.dropped;
        self.duplicated += other.duplicated;
        self.corrupted += other.corrupted;
        self.reordered += other.reordered;
        self.overflowed += other.overflowed;
    }
}

/// A frame on its way. Ordered by arrival, then by when it was sent.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct OnTheWay {
    arrival: Instant,
    number: u64,
    frame: Vec<u8>,
}

/// One direction of a wire.
pub struct Link {
    impairment: Impairment,
    rng: Rng,
    /// When the last queued frame has left.
    free_at: Instant,
    on_the_way: BinaryHeap<Reverse<OnTheWay>>,
    counts: Counts,
}

impl Link {
    /// A wire whose accidents `seed` decides.
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        Self {
            impairment,
            rng: Rng::with_seed(seed),
            free_at: Instant::ZERO,
            on_the_way: BinaryHeap::new(),
            counts: Counts::default(),
        }
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Sends a frame.
    pub fn send(&mut self, now: Instant, frame: Vec<u8>) {
        self.counts.sent += 1;
        let Some(departure) = self.depart(now, frame.len()) else {
            self.counts.overflowed += 1;
            return;
        };
        if self.happens(self.impairment.drop_rate) {
            self.counts.dropped += 1;
            return;
        }
        let mut arrival = departure + self.impairment.delay;
        if self.happens(self.impairment.duplicate_rate) {
            self.counts.duplicated += 1;
            let later = arrival + self.up_to(Duration::from_millis(1));
            self.put(later, frame.clone());
        }
        let mut frame = frame;
        if self.happens(self.impairment.corrupt_rate) && corrupt(&mut frame, &mut self.rng) {
            self.counts.corrupted += 1;
        }
        if self.happens(self.impairment.reorder_rate) {
            self.counts.reordered += 1;
            arrival += self.up_to(self.impairment.reorder_by);
        }
        self.put(arrival, frame);
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<Instant> {
        self.on_the_way.peek().map(|Reverse(next)| next.arrival)
    }

    /// The next frame that has arrived by `now`.
    pub fn receive(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_arrival()? > now {
            return None;
        }
        self.on_the_way.pop().map(|Reverse(next)| next.frame)
    }

    /// When the last bit of a frame has left; `None` if the queue has no room.
    fn depart(&mut self, now: Instant, frame_bytes: usize) -> Option<Instant> {
        let start = self.free_at.max(now);
        let waiting_bytes = (start - now).total_micros() * self.impairment.bits_per_s / 8_000_000;
        if waiting_bytes > self.impairment.queue_bytes as u64 {
            return None;
        }
        let micros = (frame_bytes as u64 * 8_000_000).div_ceil(self.impairment.bits_per_s);
        self.free_at = start + Duration::from_micros(micros);
        Some(self.free_at)
    }

    fn happens(&mut self, rate: f64) -> bool {
        self.rng.f64() < rate
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.u64(1..=most.total_micros().max(1)))
    }

    fn put(&mut self, arrival: Instant, frame: Vec<u8>) {
        let number = self.counts.sent;
        self.on_the_way.push(Reverse(OnTheWay { arrival, number, frame }));
    }
}

/// Flips one to eight bits of one 16-bit word behind the Ethernet header, so that the Internet checksum is sure to find it:
/// of two flips in different words it may miss both, and turning 0000 into ffff (sixteen flips) changes no sum. Frames that no such checksum
/// protects (ARP) stay whole: on a real wire the Ethernet's own check drops them. True if the frame was changed.
fn corrupt(frame: &mut [u8], rng: &mut Rng) -> bool {
    let is_ip = matches!(frame.get(12..14), Some([0x08, 0x00] | [0x86, 0xdd]));
    let words = frame.len().saturating_sub(ETHERNET_BYTES) / 2;
    if !is_ip || words == 0 {
        return false;
    }
    let start = ETHERNET_BYTES + 2 * rng.usize(..words);
    let old = u16::from_be_bytes([frame[start], frame[start + 1]]);
    let flips = rng.u32(1..=8);
    let mut new = old;
    for _ in 0..flips {
        new ^= 1 << rng.u32(..16);
    }
    if new == old {
        new ^= 1 << rng.u32(..16);
    }
    frame[start..start + 2].copy_from_slice(&new.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u32, length: usize) -> Vec<u8> {
        let mut frame = vec![0; length];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        // Twice, so that a corrupted number is no other frame's.
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        frame[18..22].copy_from_slice(&number.to_be_bytes());
        frame
    }

    fn number(frame: &[u8]) -> u32 {
        u32::from_be_bytes(frame[14..18].try_into().unwrap())
    }

    #[test]
    fn a_good_wire_keeps_order_bytes_and_time() {
        let mut link = Link::new(Impairment::NONE, 1);
        for i in 0..100 {
            link.send(Instant::ZERO, frame(i, 1250));
        }
        for i in 0..100 {
            // 1250 bytes take 10 µs at 1 Gbit/s, and every bit travels 100 µs.
            let arrival = Instant::from_micros(100 + 10 * (i64::from(i) + 1));
            assert_eq!(link.next_arrival(), Some(arrival));
            assert_eq!(link.receive(arrival - Duration::from_micros(1)), None);
            assert_eq!(link.receive(arrival), Some(frame(i, 1250)));
        }
        assert_eq!(link.next_arrival(), None);
    }

    #[test]
    fn a_full_queue_loses_what_comes_behind() {
        let impairment = Impairment { queue_bytes: 10_000, ..Impairment::NONE };
        let mut link = Link::new(impairment, 1);
        for i in 0..20 {
            link.send(Instant::ZERO, frame(i, 1250));
        }
        // Eight wait and fill it, one is on the wire.
        assert_eq!(link.counts().overflowed, 11);
        link.send(Instant::from_micros(90), frame(20, 1250));
        assert_eq!(link.counts().overflowed, 11, "the queue has drained");
    }

    #[test]
    fn every_kind_of_accident_happens_as_often_as_asked() {
        const FRAMES: u32 = 100_000;
        let mut link = Link::new(Impairment::of_all_kinds(0.01), 7);
        let mut arrived = Vec::new();
        for i in 0..FRAMES {
            let now = Instant::from_micros(i64::from(i) * 2);
            link.send(now, frame(i, 100));
            arrived.extend(std::iter::from_fn(|| link.receive(now)));
        }
        arrived.extend(std::iter::from_fn(|| link.receive(Instant::from_secs(3600))));
        let counts = link.counts();
        for count in [counts.dropped, counts.duplicated, counts.corrupted, counts.reordered] {
            assert!((800..1200).contains(&count), "{counts:?}");
        }
        let expected = u64::from(FRAMES) - counts.dropped - counts.overflowed + counts.duplicated;
        assert_eq!(arrived.len() as u64, expected);
        let intact = arrived.iter().filter(|arrived| **arrived == frame(number(arrived), 100));
        assert_eq!(intact.count() as u64, expected - counts.corrupted);
        assert!(arrived.windows(2).filter(|pair| number(&pair[0]) > number(&pair[1])).count() > 500);
    }

    #[test]
    fn the_same_seed_has_the_same_accidents() {
        let run = |seed| {
            let mut link = Link::new(Impairment::of_all_kinds(0.1), seed);
            (0..1000).for_each(|i| link.send(Instant::ZERO, frame(i, 60)));
            std::iter::from_fn(|| link.receive(Instant::from_secs(1))).collect::<Vec<_>>()
        };
        assert_eq!(run(5), run(5));
        assert_ne!(run(5), run(6));
    }

    #[test]
    fn corruption_always_changes_a_frames_checksum() {
        let mut rng = Rng::with_seed(3);
        let sum = |frame: &[u8]| {
            let words = frame[ETHERNET_BYTES..].chunks_exact(2);
            words.map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>() % 0xffff
        };
        for i in 0..10_000 {
            let whole = frame(i, 60);
            let mut changed = whole.clone();
            assert!(corrupt(&mut changed, &mut rng));
            assert_ne!(sum(&whole), sum(&changed));
        }
        let mut arp = frame(1, 60);
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(!corrupt(&mut arp, &mut rng));
    }
}
