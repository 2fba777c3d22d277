//! The Internet checksum (RFC 1071), over pieces that need not begin at even places.

/// A running one's-complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    total: u64,
    /// An odd number of bytes was added: the next one is the low half of a word.
    odd: bool,
}

impl Sum {
    /// A sum that has reached `total` over whole words.
    pub fn from_words(total: u32) -> Self {
        Self { total: total.into(), odd: false }
    }

    /// Adds a word.
    pub fn add_word(&mut self, word: u16) {
        debug_assert!(!self.odd);
        self.total += u64::from(word);
    }

    /// Adds bytes.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let sum = u64::from(fold(sum_bytes(bytes)));
        // A sum of words shifted by one byte is the byte-swapped sum (RFC 1071 §2 (B)).
        self.total += if self.odd { u64::from((sum as u16).swap_bytes()) } else { sum };
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum folded to 16 bits, not complemented: what a checksum field holds that the device completes.
    pub fn folded(self) -> u16 {
        fold(self.total)
    }

    /// The checksum.
    pub fn complement(self) -> u16 {
        !fold(self.total)
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the bytes' big-endian words, as if from an even place; an odd last byte is the high half of a word.
fn sum_bytes(bytes: &[u8]) -> u64 {
    let mut quads = bytes.chunks_exact(4);
    let mut sum: u64 = 0;
    for quad in &mut quads {
        // 2³² ≡ 1 and 2¹⁶ ≡ 1 modulo 2¹⁶ − 1, so wider words sum to the same.
        sum += u64::from(u32::from_be_bytes([quad[0], quad[1], quad[2], quad[3]]));
    }
    for pair in quads.remainder().chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let mut sum = Sum::default();
        sum.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.folded(), sum.complement()), (0xddf2, 0x220d));
    }

    proptest! {
        #[test]
        fn pieces_sum_to_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(0usize..60, 0..8)) {
            let mut expected = 0u32;
            for pair in bytes.chunks(2) {
                expected += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while expected > 0xffff {
                expected = (expected & 0xffff) + (expected >> 16);
            }
            let mut sum = Sum::default();
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                sum.add_bytes(piece);
                rest = tail;
            }
            sum.add_bytes(rest);
            prop_assert_eq!(u32::from(sum.folded()), expected);
        }
    }
}
