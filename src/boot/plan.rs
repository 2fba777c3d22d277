//! How a machine's memory is divided, and what sizes follow from it.

use core::fmt;

use crate::appliance::ApplianceConfig;
use crate::params::default_max_connections;
use crate::rings::PAGE_BYTES;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Least memory that is any use, in bytes: devices, some connections, and a cache of a few MiB.
pub const MIN_BYTES: u64 = 10 * MIB;

/// Memory of a network device's receive ring: every entry's page, and some for pages that are looked at.
const RECEIVE_BYTES: u64 = (256 + 8) * PAGE_BYTES as u64;

/// How memory is divided. What is not named here is the heap's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// For received frames.
    pub receive_bytes: u64,
    /// For response heads.
    pub packet_bytes: u64,
    /// For the chunk cache: everything but the heap's share.
    pub cache_bytes: u64,
    /// The heap's share.
    pub heap_bytes: u64,
    /// How many connections suit so much memory.
    pub connections: u32,
}

/// There is less memory than it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLittle {
    /// What is free.
    pub free_bytes: u64,
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, least) = (self.free_bytes / KIB, MIN_BYTES / KIB);
        write!(
            f,
            "{free} KiB of memory are free, and {least} are the least that works: give the machine at least 16 MiB"
        )
    }
}

impl core::error::Error for TooLittle {}

impl Plan {
    /// Divides what is free.
    ///
    /// # Errors
    /// If it is too little.
    pub fn new(free_bytes: u64) -> Result<Self, TooLittle> {
        if free_bytes < MIN_BYTES {
            return Err(TooLittle { free_bytes });
        }
        let whole_pages = |bytes: u64| bytes / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let heap_bytes = (free_bytes / 4).max(4 * MIB);
        let packet_bytes = whole_pages((free_bytes / 32).clamp(512 * KIB, 64 * MIB));
        let cache_bytes = whole_pages(free_bytes - heap_bytes - packet_bytes - RECEIVE_BYTES);
        let connections = default_max_connections(free_bytes);
        Ok(Self { receive_bytes: RECEIVE_BYTES, packet_bytes, cache_bytes, heap_bytes, connections })
    }

    /// Sets the sizes of what lives on the heap, each with its share of it, for so many connections or as many as suit.
    pub fn configure(&self, config: &mut ApplianceConfig, connections: Option<u32>) {
        /// Of what a table's entry takes at most, in bytes.
        const TIME_WAIT_BYTES: u64 = 128;
        const SYN_BYTES: u64 = 256;
        let share = |part: u64, bytes: u64| (self.heap_bytes / part / bytes) as usize;
        config.directory_bytes = (self.heap_bytes / 4) as usize;
        config.tcp.max_connections = connections.unwrap_or(self.connections) as usize;
        let buffers = share(16, config.tcp.receive_buffer_bytes as u64);
        config.tcp.receive_buffers = config.tcp.receive_buffers.min(buffers);
        config.tcp.time_wait_entries = config.tcp.time_wait_entries.min(share(32, TIME_WAIT_BYTES));
        config.tcp.syn_backlog = config.tcp.syn_backlog.min(share(32, SYN_BYTES));
        config.packet_bytes = self.packet_bytes as usize;
        config.cache_bytes = self.cache_bytes as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn a_small_machine_has_a_small_share_of_all() {
        // What 16 MiB leave.
        let plan = Plan::new(14 * MIB).unwrap();
        assert!(plan.cache_bytes > 8 * MIB && plan.connections > 1000, "{plan:?}");
        let mut config = ApplianceConfig::default();
        plan.configure(&mut config, None);
        assert_eq!(config.validate(), Ok(()));
        assert!(config.tcp.receive_buffers >= 16 && config.directory_bytes >= 1 << 20);
        plan.configure(&mut config, Some(7));
        assert_eq!(config.tcp.max_connections, 7);
        let error = Plan::new(9 * MIB).unwrap_err().to_string();
        assert!(error.contains("16 MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(free_bytes in MIN_BYTES..1 << 44) {
            let plan = Plan::new(free_bytes).unwrap();
            let sum = plan.receive_bytes + plan.packet_bytes + plan.cache_bytes + plan.heap_bytes;
            prop_assert!(sum <= free_bytes && free_bytes - sum < PAGE_BYTES as u64);
            let mut config = ApplianceConfig::default();
            plan.configure(&mut config, None);
            prop_assert_eq!(config.validate(), Ok(()));
        }
    }
}
