//! Wires: the library's own, good and bad ones.

use minicache::rings::impair::Impairment;
use smoltcp::time::Duration;

/// A good wire: 1 Gbit/s, 100 µs, nothing lost.
pub const GOOD: Impairment = Impairment {
    delay: Duration::from_micros(100),
    rate_bits_per_s: Some(1_000_000_000),
    queue_bytes: Some(4 << 20),
    ..Impairment::NONE
};

/// A wire that loses, reorders, duplicates and corrupts this share of the frames each.
pub fn of_all_kinds(rate: f64) -> Impairment {
    Impairment { loss: rate, reorder: rate, duplicate: rate, corrupt: rate, ..GOOD }
}
