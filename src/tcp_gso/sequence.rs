//! Positions in the sequence space, which is a circle of 2³² (RFC 9293 §3.4).

use core::cmp::Ordering;
use core::ops::{Add, AddAssign, Sub};
use smoltcp::wire::TcpSeqNumber;

/// A sequence number. Comparisons hold between numbers less than 2³¹ apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seq(pub u32);

impl Seq {
    /// The signed distance from `origin` to here.
    pub fn distance_from(self, origin: Seq) -> i32 {
        self.0.wrapping_sub(origin.0) as i32
    }

    /// Bytes from `origin` to here; 0 if this lies before it.
    pub fn bytes_past(self, origin: Seq) -> u32 {
        self.distance_from(origin).max(0) as u32
    }

    /// The later of two.
    pub fn max(self, other: Seq) -> Seq {
        if self < other { other } else { self }
    }

    /// The earlier of two.
    pub fn min(self, other: Seq) -> Seq {
        if other < self { other } else { self }
    }
}

impl PartialOrd for Seq {
    fn partial_cmp(&self, other: &Seq) -> Option<Ordering> {
        Some(self.distance_from(*other).cmp(&0))
    }
}

impl Add<u32> for Seq {
    type Output = Seq;

    fn add(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for Seq {
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for Seq {
    type Output = Seq;

    fn sub(self, bytes: u32) -> Seq {
        Seq(self.0.wrapping_sub(bytes))
    }
}

/// The bytes from `other` to `self`, which must not lie before it.
impl Sub for Seq {
    type Output = u32;

    fn sub(self, other: Seq) -> u32 {
        debug_assert!(self >= other, "{self:?} lies before {other:?}");
        self.0.wrapping_sub(other.0)
    }
}

impl From<TcpSeqNumber> for Seq {
    fn from(number: TcpSeqNumber) -> Self {
        Seq(number.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_distance_hold_across_the_wrap() {
        let before = Seq(u32::MAX - 9);
        let after = before + 20;
        assert_eq!(after, Seq(10));
        assert_eq!(before.partial_cmp(&after), Some(Ordering::Less));
        assert_eq!(after - before, 20);
        assert_eq!(after - 20, before);
        assert_eq!((before.distance_from(after), before.bytes_past(after)), (-20, 0));
        assert_eq!((before.max(after), before.min(after)), (after, before));
    }
}
