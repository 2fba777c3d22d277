//! What there is to tell of a connection.

use smoltcp::time::{Duration, Instant};

use super::{ConnectionId, Peer};

/// What is told of a connection to `netstat` and to tests.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The connection's name.
    pub id: ConnectionId,
    /// Its two ends.
    pub peer: Peer,
    /// Its state's name in RFC 9293.
    pub state: &'static str,
    /// Bytes queued or in flight that the peer has not acknowledged.
    pub unacknowledged_bytes: usize,
    /// Bytes sent that the peer has not acknowledged.
    pub in_flight_bytes: usize,
    /// Bytes acknowledged since the connection began.
    pub acknowledged_bytes: u64,
    /// Received bytes that the application has not consumed.
    pub unread_bytes: usize,
    /// The peer's window in bytes.
    pub window_bytes: u32,
    /// Congestion window in bytes.
    pub congestion_window_bytes: u32,
    /// Slow start threshold in bytes.
    pub slow_start_threshold_bytes: u32,
    /// Smoothed round-trip time, once measured.
    pub smoothed_rtt: Option<Duration>,
    /// When the peer last acknowledged something new, or first had something to acknowledge.
    pub progress_at: Instant,
}
