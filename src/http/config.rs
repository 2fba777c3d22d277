//! Limits and time limits of the HTTP server, with their defaults.

use smoltcp::time::Duration;

/// Most field lines of a request head; more are answered with 431.
pub const MAX_FIELDS: usize = 100;

/// Longest query that a redirect to a folder's slash carries over, in bytes. A longer one is left out of the `Location`.
pub const MAX_REDIRECT_QUERY_BYTES: usize = 512;

/// Empty lines that are skipped before a request line (RFC 9112 §2.2 asks for at least one); more are answered with 400.
pub const MAX_EMPTY_LINES: u8 = 4;

/// What a connection may cost. The defaults suit an open network.
#[derive(Clone, Debug)]
pub struct Config {
    /// Longest request head in bytes, from the request line to the empty line; longer ones are answered with 431, or with
    /// 414 where the request line alone is too long. TCP's receive buffer must hold as much. Default 8192.
    pub max_head_bytes: usize,
    /// Longest request target in bytes; longer ones are answered with 414. Default 8000, which RFC 9112 §3 recommends
    /// to support.
    pub max_target_bytes: usize,
    /// Longest request body that is read (and dropped) to keep the connection. A request that announces more, or whose
    /// chunked body turns out longer, is answered and its connection closed. Default 64 KiB.
    pub max_body_bytes: u64,
    /// A connection that never sent a byte is closed after this time. Default 15 s.
    pub first_request_timeout: Duration,
    /// A head must be complete this long after its first byte, and a request's body this long after the answer; else 408, or
    /// the end of the connection. Default 10 s.
    pub head_timeout: Duration,
    /// A connection that rests between two requests is closed after this time, or up to twice that when the last response was
    /// larger than a page. Default 20 s.
    pub idle_timeout: Duration,
    /// A peer that owes us acknowledgements must acknowledge at least one byte in each such period; else reset. Default 30 s.
    pub stall_timeout: Duration,
    /// And in each two such periods this many bytes a second on average; else reset. Default 256.
    pub min_rate_bytes_per_s: u64,
    /// After our end of a connection is closed, what arrives is dropped for once to twice this long, so that the peer can
    /// read the last answer; then reset (RFC 9112 §9.6). Default 5 s.
    pub linger_timeout: Duration,
    /// And at most so many bytes of it. Default 1 MiB.
    pub linger_bytes: u64,
    /// How long a response may wait for the disk. Default 30 s.
    pub read_timeout: Duration,
    /// How long a response may wait for cache memory. Default 5 s.
    pub starved_timeout: Duration,
    /// Most chunks that are read ahead of a connection. Default 32.
    pub max_ahead_chunks: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_head_bytes: 8192,
            max_target_bytes: 8000,
            max_body_bytes: 64 << 10,
            first_request_timeout: Duration::from_secs(15),
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(30),
            min_rate_bytes_per_s: 256,
            linger_timeout: Duration::from_secs(5),
            linger_bytes: 1 << 20,
            read_timeout: Duration::from_secs(30),
            starved_timeout: Duration::from_secs(5),
            max_ahead_chunks: 32,
        }
    }
}
