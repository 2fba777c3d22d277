//! The limits of the serving TCP, each with its default and where it comes from.

use smoltcp::time::Duration;

use crate::rings::PAGE_BYTES;

/// Limits and times of one [`super::Stack`].
#[derive(Clone, Debug)]
pub struct Config {
    /// Most established connections; beyond it a SYN is ignored and counted. Memory grows with use up to this.
    pub max_connections: usize,
    /// Most half-open connections; beyond it the oldest gives way (RFC 4987).
    pub syn_backlog: usize,
    /// How often an unanswered SYN-ACK is sent again: after 1, 2, 4 … seconds.
    pub syn_ack_retries: u8,
    /// Most connections remembered in TIME_WAIT; beyond it the oldest is forgotten early.
    pub time_wait_entries: usize,
    /// How long TIME_WAIT lasts (RFC 9293 says 4 minutes, everybody's practice is one).
    pub time_wait: Duration,
    /// Most bytes in a connection's send queue, acknowledged by nobody yet. It is what a fast connection pins.
    pub send_queue_max_bytes: usize,
    /// What a connection's send queue may hold in any case, however small its windows are.
    pub send_queue_min_bytes: usize,
    /// Size of a receive buffer, and so the receive window; at most 65,535, since no window scale is used in this direction.
    pub receive_buffer_bytes: usize,
    /// Number of receive buffers. Only connections whose request is incomplete, out of order or held back own one.
    pub receive_buffers: usize,
    /// Initial congestion window in segments (RFC 6928).
    pub initial_window_segments: u32,
    /// Longest super-frame in bytes with the Ethernet header; the device may lower it, and few take more than 65,535.
    pub max_frame_bytes: usize,
    /// Size super-frames by the connection's rate, so that they don't become loss bursts. Off for measurements.
    pub autosize_frames: bool,
    /// Smallest retransmission timeout (RFC 6298 says 1 s, Linux 200 ms).
    pub rto_min: Duration,
    /// Largest retransmission timeout and probe interval.
    pub rto_max: Duration,
    /// How long an acknowledgement waits for data to ride on (RFC 9293 allows 500 ms).
    pub delayed_ack: Duration,
    /// A connection with data outstanding whose peer acknowledges nothing for so long is reset (RFC 1122: at least 100 s).
    pub stall_timeout: Duration,
    /// How long we wait for the peer's FIN when ours has been acknowledged.
    pub fin_wait_2_timeout: Duration,
    /// Most frames sent in one `poll`.
    pub frames_per_poll: usize,
    /// Most resets and acknowledgements a second that answer segments of no connection.
    pub stateless_replies_per_s: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            syn_backlog: 1024,
            syn_ack_retries: 4,
            time_wait_entries: 65_536,
            time_wait: Duration::from_secs(60),
            send_queue_max_bytes: 4 << 20,
            send_queue_min_bytes: 8 * PAGE_BYTES,
            receive_buffer_bytes: 4 * PAGE_BYTES,
            receive_buffers: 256,
            initial_window_segments: 10,
            max_frame_bytes: 256 << 10,
            autosize_frames: true,
            rto_min: Duration::from_millis(200),
            rto_max: Duration::from_secs(60),
            delayed_ack: Duration::from_millis(40),
            stall_timeout: Duration::from_secs(120),
            fin_wait_2_timeout: Duration::from_secs(60),
            frames_per_poll: 128,
            stateless_replies_per_s: 1000,
        }
    }
}
