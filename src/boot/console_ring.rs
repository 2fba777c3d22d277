//! The layout of Xen's console page (`xencons_interface` of `io/console.h`), and how much may be written into its ring.

/// Bytes of the ring for output.
pub const OUT_BYTES: u32 = 2048;
/// Where that ring is in the page.
pub const OUT: usize = 1024;
/// Index behind the last byte that the console has read.
pub const OUT_CONS: usize = 3080;
/// Index behind the last byte that we have written.
pub const OUT_PROD: usize = 3084;

/// Bytes that may be written when we have written up to index `produced`, and the console says that it has read up to `consumed`.
/// None where that can't be.
pub fn room(produced: u32, consumed: u32) -> u32 {
    OUT_BYTES.saturating_sub(produced.wrapping_sub(consumed))
}

/// Where the byte with this index is in the page.
pub fn place(index: u32) -> usize {
    OUT + (index % OUT_BYTES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    #[test]
    fn a_console_that_read_what_is_not_written_gives_no_room() {
        assert_eq!((room(0, 0), room(5, 0), room(2048, 0)), (2048, 2043, 0));
        assert_eq!((room(0, 1), room(2049, 0), room(10, u32::MAX)), (0, 0, 2037));
        assert_eq!((place(0), place(2047), place(2048)), (1024, 3071, 1024));
    }

    proptest! {
        /// A queue of at most 2048 bytes, wherever its indices begin.
        #[test]
        fn nothing_is_written_over(start: u32, steps in proptest::collection::vec((0_usize..3000, 0_usize..3000), 1..20)) {
            let (mut produced, mut consumed) = (start, start);
            let mut page = [0_u8; 4096];
            let mut queue = VecDeque::new();
            for (written, read) in steps {
                for number in 0..written {
                    if room(produced, consumed) == 0 {
                        prop_assert_eq!(queue.len(), OUT_BYTES as usize);
                        break;
                    }
                    page[place(produced)] = number as u8;
                    queue.push_back(number as u8);
                    produced = produced.wrapping_add(1);
                }
                for byte in queue.drain(..read.min(queue.len())) {
                    prop_assert_eq!(page[place(consumed)], byte);
                    consumed = consumed.wrapping_add(1);
                }
            }
            prop_assert!(page[..OUT].iter().chain(&page[OUT_CONS - 8..]).all(|byte| *byte == 0));
        }
    }
}
