//! What the peer holds beyond its cumulative acknowledgement (before you work on this file, read RFC 2018 and RFC 6675 §4).
//!
//! ```text
//!   SND.UNA        left   right        left  right       SND.NXT
//!      |  not sacked |sacked|  not sacked |sacked| not sacked |
//! ```

use alloc::vec::Vec;

use super::sequence::Seq;

/// Most ranges remembered. What is beyond is forgotten, which costs a needless retransmission at worst.
const MAX_RANGES: usize = 64;

/// DupThresh of RFC 6675.
pub(super) const DUPLICATE_THRESHOLD: usize = 3;

/// Sacked ranges of one connection: ascending, disjoint, not adjacent, all above SND.UNA.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    ranges: Vec<(Seq, Seq)>,
}

impl Scoreboard {
    /// True if a range can be noted without allocating.
    pub fn has_memory(&self) -> bool {
        self.ranges.capacity() > 0
    }

    /// True if nothing is sacked.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Notes that the peer holds `left..right`; true if that says anything new.
    pub fn add(&mut self, left: Seq, right: Seq) -> bool {
        debug_assert!(left < right);
        let first = self.ranges.partition_point(|range| range.1 < left);
        let last = first + self.ranges[first..].partition_point(|range| range.0 <= right);
        if first == last {
            if self.ranges.len() == MAX_RANGES {
                return false;
            }
            if self.ranges.capacity() == 0 {
                self.ranges.reserve_exact(MAX_RANGES);
            }
            self.ranges.insert(first, (left, right));
            return true;
        }
        let merged = (left.min(self.ranges[first].0), right.max(self.ranges[last - 1].1));
        if last == first + 1 && merged == self.ranges[first] {
            return false;
        }
        self.ranges[first] = merged;
        self.ranges.drain(first + 1..last);
        true
    }

    /// SND.UNA has moved to `una`.
    pub fn advance(&mut self, una: Seq) {
        if self.ranges.is_empty() {
            return;
        }
        let gone = self.ranges.partition_point(|range| range.1 <= una);
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(una);
        }
    }

    /// True if the peer sacked what it now says it still waits for: it has thrown the data away (RFC 2018 §8).
    pub fn reneged(&self, una: Seq) -> bool {
        self.ranges.first().is_some_and(|range| range.0 <= una)
    }

    /// Sacked bytes in `from..to`.
    pub fn sacked_bytes(&self, from: Seq, to: Seq) -> u32 {
        self.ranges.iter().map(|&(left, right)| right.min(to).bytes_past(left.max(from))).sum()
    }

    /// The end of the highest sacked range.
    pub fn highest(&self) -> Option<Seq> {
        self.ranges.last().map(|range| range.1)
    }

    /// Everything before this position that is not sacked counts as lost (IsLost of RFC 6675 §4: three ranges, or more than
    /// two segments, are sacked above it).
    pub fn lost_edge(&self, una: Seq, mss_bytes: u32) -> Seq {
        let mut bytes = 0;
        for (count, &(left, right)) in self.ranges.iter().rev().enumerate() {
            bytes += right - left;
            if count + 1 >= DUPLICATE_THRESHOLD || bytes > (DUPLICATE_THRESHOLD as u32 - 1) * mss_bytes {
                return left.max(una);
            }
        }
        una
    }

    /// The first run of bytes from `from` on and before `limit` that is not sacked.
    pub fn next_hole(&self, from: Seq, limit: Seq) -> Option<(Seq, Seq)> {
        let mut begin = from;
        for &(left, right) in &self.ranges[self.ranges.partition_point(|range| range.1 <= from)..] {
            if begin < left {
                return (begin < limit).then(|| (begin, left.min(limit)));
            }
            begin = begin.max(right);
        }
        (begin < limit).then_some((begin, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: Seq = Seq(u32::MAX - 4000);

    fn board(ranges: &[(u32, u32)]) -> Scoreboard {
        let mut board = Scoreboard::default();
        for &(left, right) in ranges {
            board.add(BASE + left, BASE + right);
        }
        board
    }

    #[test]
    fn ranges_merge_and_only_news_count() {
        let mut board = board(&[(1000, 2000), (3000, 4000), (5000, 6000)]);
        assert!(!board.add(BASE + 1000, BASE + 1500));
        assert!(board.add(BASE + 2000, BASE + 3000));
        assert_eq!(board.ranges, [(BASE + 1000, BASE + 4000), (BASE + 5000, BASE + 6000)]);
        assert!(board.add(BASE + 500, BASE + 9000));
        assert_eq!(board.ranges, [(BASE + 500, BASE + 9000)]);
        assert_eq!(board.sacked_bytes(BASE, BASE + 1500), 1000);
    }

    #[test]
    fn loss_is_three_ranges_or_more_than_two_segments_above() {
        assert_eq!(board(&[(1000, 3000)]).lost_edge(BASE, 1000), BASE);
        assert_eq!(board(&[(1000, 3001)]).lost_edge(BASE, 1000), BASE + 1000);
        assert_eq!(board(&[(1000, 1001), (2000, 2001)]).lost_edge(BASE, 1000), BASE);
        let three = board(&[(1000, 1001), (2000, 2001), (3000, 3001)]);
        assert_eq!(three.lost_edge(BASE, 1000), BASE + 1000);
    }

    #[test]
    fn holes_are_found_in_order_and_within_the_limit() {
        let board = board(&[(1000, 2000), (3000, 5000)]);
        let limit = BASE + 4500;
        assert_eq!(board.next_hole(BASE, limit), Some((BASE, BASE + 1000)));
        assert_eq!(board.next_hole(BASE + 500, BASE + 700), Some((BASE + 500, BASE + 700)));
        assert_eq!(board.next_hole(BASE + 1000, limit), Some((BASE + 2000, BASE + 3000)));
        assert_eq!(board.next_hole(BASE + 3000, limit), None);
        assert_eq!(board.next_hole(BASE + 3000, BASE + 6000), Some((BASE + 5000, BASE + 6000)));
    }

    #[test]
    fn a_full_board_forgets_and_a_peer_that_reneges_is_noticed() {
        let mut board = Scoreboard::default();
        for i in 0..MAX_RANGES as u32 {
            assert!(board.add(BASE + 10 * i + 1, BASE + 10 * i + 2));
        }
        assert!(!board.add(BASE + 5000, BASE + 5001));
        assert!(!board.reneged(BASE));
        board.advance(BASE + 1);
        assert!(board.reneged(BASE + 1));
    }

    proptest! {
        #[test]
        fn the_ranges_are_the_bytes_that_were_added(
            adds in prop::collection::vec((0u32..300, 1u32..40), 0..40), una in 0u32..200,
        ) {
            let mut board = Scoreboard::default();
            let mut model = [false; 400];
            for (left, length) in adds {
                let fresh = model[left as usize..(left + length) as usize].iter().any(|sacked| !sacked);
                prop_assert_eq!(board.add(BASE + left, BASE + left + length), fresh);
                model[left as usize..(left + length) as usize].fill(true);
            }
            board.advance(BASE + una);
            model[..una as usize].fill(false);
            let count = model.iter().filter(|sacked| **sacked).count() as u32;
            prop_assert_eq!(board.sacked_bytes(BASE, BASE + 400), count);
            prop_assert!(board.ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let mut at = BASE + una;
            let mut holes = 0;
            while let Some((from, to)) = board.next_hole(at, BASE + 400) {
                let (a, b) = (from - BASE, to - BASE);
                prop_assert!(model[a as usize..b as usize].iter().all(|sacked| !sacked));
                holes += b - a;
                at = to;
            }
            prop_assert_eq!(holes, 400 - una - count);
        }
    }
}
