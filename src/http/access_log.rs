//! What is told of each answered request to whoever keeps an access log.

use alloc::boxed::Box;
use core::cell::Cell;
use smoltcp::wire::IpAddress;

use super::server::HttpServer;
use super::status::Status;

/// Most bytes of a request line that are logged.
pub const MAX_LINE_BYTES: usize = 1024;

/// An answered request.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// The client.
    pub client: IpAddress,
    /// When the request came, in seconds since 1970; 0 if the clock was not set.
    pub unix_s: u64,
    /// The request line as it was sent, cut at [`MAX_LINE_BYTES`]: any bytes but CR and LF.
    pub request_line: &'a [u8],
    /// Status of the answer; `None` if the connection ended before there was one.
    pub status: Option<u16>,
    /// Bytes of the body that were handed to TCP.
    pub body_bytes: u64,
}

/// Keeps an access log. Called once for each request, when its answer is on its way or has failed.
pub trait AccessLog {
    /// Takes note of a request.
    fn record(&mut self, access: &Access<'_>);
}

/// The answer that was sent last, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answered {
    status: u16,
    page_bytes: u32,
}

impl Answered {
    /// Notes an answer that is all in `bytes`, head and page.
    pub fn note(last: &Cell<Self>, status: Status, bytes: &[u8]) {
        let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        last.set(Self { status: status.code(), page_bytes: (bytes.len() - head_bytes) as u32 });
    }
}

/// A request whose answer is on its way.
pub(super) struct Pending {
    line: Box<[u8]>,
    unix_s: u64,
}

impl HttpServer {
    /// Tells `log` of every request from now on.
    pub fn set_access_log(&mut self, log: Box<dyn AccessLog>) {
        self.access_log = Some(log);
    }

    /// Keeps what the log will say of the request at the front of `data`; nothing without a log.
    pub(super) fn log_begin(&self, data: &[u8]) -> Option<Box<Pending>> {
        self.access_log.as_ref()?;
        let end = data.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(data.len());
        let line = &data[..end.min(MAX_LINE_BYTES)];
        Some(Box::new(Pending { line: line.into(), unix_s: self.common.unix_s() }))
    }

    /// The request has been answered by the answer that was sent last.
    pub(super) fn log_answered(&mut self, client: IpAddress, pending: Option<Box<Pending>>) {
        let Answered { status, page_bytes } = self.answered.get();
        self.log_end(client, pending, Some(status), page_bytes.into());
    }

    /// The request has been answered, or can't be any more.
    pub(super) fn log_end(
        &mut self,
        client: IpAddress,
        pending: Option<Box<Pending>>,
        status: Option<u16>,
        body_bytes: u64,
    ) {
        if let (Some(log), Some(pending)) = (&mut self.access_log, pending) {
            log.record(&Access { client, unix_s: pending.unix_s, request_line: &pending.line, status, body_bytes });
        }
    }
}
