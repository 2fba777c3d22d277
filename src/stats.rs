//! Every counter, named once. µShell, `/metrics`, the export device and the summary at exit all read this list.
//!
//! What may enter this room: counters and gauges, each with the sentence that explains it. Rooms share one [`Stats`] by `Rc`
//! and count with [`Counter::add`]; nothing here decides anything.

use core::cell::Cell;

/// A number that only grows (until the machine restarts), or a gauge that is set.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get().wrapping_add(n));
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Replaces the value (gauges).
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)*) => {
        /// All counters of one appliance.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[doc = $help])+ pub $name: Counter,)*
        }

        impl Stats {
            /// Every counter's name, explanation and value, in the order of declaration.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
                [$((stringify!($name), concat!($($help),+).trim_ascii(), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Frames received from the device.
    rx_frames,
    /// Bytes received from the device.
    rx_bytes,
    /// Received frames that were dropped because they made no sense.
    rx_malformed,
    /// Received frames dropped because their checksum was wrong.
    rx_bad_checksum,
    /// Received frames dropped because they were not for us.
    rx_not_ours,
    /// Received IP fragments, which are dropped: nobody fragments towards a web server, and reassembly is an attack surface.
    rx_fragments,
    /// Received frames with a VLAN tag, which are dropped: the interface is an access port.
    rx_vlan,
    /// Received frames handed to the control plane.
    rx_control,
    /// Received frames that the control plane had no room for.
    rx_control_dropped,
    /// Frames of the control plane that the device could not carry (larger than its limits after it came back with less).
    tx_control_dropped,
    /// Frames given to the device.
    tx_frames,
    /// Bytes given to the device.
    tx_bytes,
    /// Slots (heads and slices) given to the device.
    tx_slots,
    /// Frames that the device refused because its ring was full or down.
    tx_full,
    /// Frames given to a device that lost them: its interface was administratively down, or the host was short of memory.
    tx_lost,
    /// Notifications sent to the other sides of rings.
    notifications,
    /// Publications to the other sides of rings that needed no notification, since they were awake.
    notifications_spared,
    /// Entries of the grant table written to let another domain use a page.
    grant_writes,
    /// Entries of the grant table that are in use now.
    grants_in_use,
    /// Grants that could not be ended, since the other domain still uses their pages: neither is used again meanwhile.
    grants_quarantined,
    /// Wake-ups by the other sides of rings.
    wakeups,
    /// Times that a device broke the rules of its ring, or asked to be reset.
    device_faults,
    /// Interrupts taken, timer and devices; 0 where nobody takes any (a process, the simulator).
    interrupts,
    /// Bytes of object bodies that the CPU copied or summed.
    copied_bytes,
    /// TCP segments received by the serving TCP.
    tcp_rx_segments,
    /// TCP segments sent by the serving TCP (a super-frame counts once).
    tcp_tx_segments,
    /// TCP payload bytes sent, retransmissions included.
    tcp_tx_bytes,
    /// TCP payload bytes sent again.
    tcp_retransmitted_bytes,
    /// Fast retransmissions entered.
    tcp_fast_retransmits,
    /// Retransmission timeouts.
    tcp_timeouts,
    /// Window probes sent.
    tcp_window_probes,
    /// Segments of the serving TCP with a bad checksum.
    tcp_bad_checksum,
    /// Segments of the serving TCP that made no sense or fitted no connection.
    tcp_rejected_segments,
    /// Resets sent.
    tcp_resets_sent,
    /// Resets received and believed.
    tcp_resets_received,
    /// Out-of-order segments kept.
    tcp_out_of_order,
    /// Received payload dropped for want of a receive buffer.
    tcp_no_receive_buffer,
    /// Connections accepted.
    connections_accepted,
    /// Connections open now.
    connections_open,
    /// Connections refused because a limit was reached.
    connections_refused,
    /// Half-open connections given up.
    connections_half_open_expired,
    /// Connections reset because their reader was the slowest while memory was short.
    connections_reset_slowest,
    /// Connections reset because their peer stopped acknowledging.
    connections_reset_stalled,
    /// Connections in TIME_WAIT now.
    time_wait,
    /// HTTP requests answered.
    http_requests,
    /// Answers with status 2xx.
    http_2xx,
    /// Answers with status 3xx.
    http_3xx,
    /// Answers with status 4xx.
    http_4xx,
    /// Answers with status 5xx.
    http_5xx,
    /// Object-body bytes queued for transmission.
    http_body_bytes,
    /// Responses cut off by a reset because the disk failed after the head went out.
    http_aborted,
    /// Connections ended by an HTTP time limit (slow head, slow reader or idle).
    http_timeouts,
    /// Chunk look-ups answered at once.
    cache_hits,
    /// Chunk look-ups that had to read.
    cache_misses,
    /// Chunk look-ups that joined a read under way.
    cache_joined,
    /// Chunk reads started ahead of need.
    cache_readahead,
    /// Chunks evicted.
    cache_evictions,
    /// Chunk look-ups turned away because every page was pinned or in use.
    cache_starved,
    /// Chunk reads finished.
    cache_reads,
    /// Chunk reads failed.
    cache_read_errors,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_is_listed_by_name_with_an_explanation() {
        let stats = Stats::default();
        stats.copied_bytes.add(7);
        let (_, help, value) = stats.iter().find(|(name, ..)| *name == "copied_bytes").unwrap();
        assert_eq!((help, value), ("Bytes of object bodies that the CPU copied or summed.", 7));
    }
}
