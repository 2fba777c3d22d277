//! The Internet checksum (RFC 1071) over a frame's slices.

use smoltcp::wire::{IpAddress, checksum};

use crate::rings::RxFrame;

/// The protocol number of TCP.
const TCP: u8 = 6;

/// A ones-complement sum over bytes that come in pieces of any length.
struct Sum {
    total: u32,
    /// An odd number of bytes has been summed: the next one is the low half of a word.
    odd: bool,
}

impl Sum {
    fn new() -> Self {
        Self { total: 0, odd: false }
    }

    fn add(&mut self, bytes: &[u8]) {
        let sum = checksum::data(bytes);
        // The sum of bytes that begin in mid-word is the byte-swapped sum (RFC 1071 §2.B).
        self.add_word(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= bytes.len() % 2 == 1;
    }

    fn add_word(&mut self, word: u16) {
        self.total += u32::from(word);
        self.total = (self.total & 0xffff) + (self.total >> 16);
    }

    fn value(&self) -> u16 {
        checksum::combine(&[(self.total >> 16) as u16, self.total as u16])
    }
}

/// The frame's bytes from `start` to `end`, in the pieces that its slices make of them.
pub(super) fn pieces(frame: &RxFrame, start: usize, end: usize) -> impl Iterator<Item = &[u8]> {
    let mut before = 0;
    frame.slices.iter().filter_map(move |slice| {
        let (first, last) = (before, before + slice.len());
        before = last;
        let (from, to) = (start.max(first), end.min(last));
        (from < to).then(|| &slice.bytes()[from - first..to - first])
    })
}

/// True if the TCP checksum of the segment that lies in the frame from `start` to `end` is right.
pub(super) fn segment_is_intact(
    frame: &RxFrame,
    start: usize,
    end: usize,
    source: &IpAddress,
    destination: &IpAddress,
) -> bool {
    let mut sum = Sum::new();
    for address in [source, destination] {
        match address {
            IpAddress::Ipv4(v4) => sum.add(&v4.octets()),
            IpAddress::Ipv6(v6) => sum.add(&v6.octets()),
        }
    }
    let length = (end - start) as u32;
    sum.add_word((length >> 16) as u16);
    sum.add_word(length as u16);
    sum.add_word(TCP.into());
    pieces(frame, start, end).for_each(|piece| sum.add(piece));
    sum.value() == 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_pieces(bytes in prop::collection::vec(any::<u8>(), 0..600), cuts in prop::collection::vec(0..600_usize, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut sum = Sum::new();
            for pair in cuts.windows(2) {
                sum.add(&bytes[pair[0]..pair[1]]);
            }
            // 0 and 0xffff are the same number.
            prop_assert_eq!(sum.value() % 0xffff, checksum::data(&bytes) % 0xffff);
        }
    }
}
