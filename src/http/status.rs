//! Status codes (RFC 9110 §15, RFC 6585 §5) and refusals.

use crate::stats::Stats;

macro_rules! statuses {
    ($($(#[doc = $help:literal])+ $name:ident = $code:literal $reason:literal,)*) => {
        /// The status codes that this server sends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Status {
            $($(#[doc = $help])+ $name = $code,)*
        }

        impl Status {
            /// The status line, with its CRLF.
            pub fn line(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("HTTP/1.1 ", $code, " ", $reason, "\r\n"),)*
                }
            }

            /// Code and reason phrase.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($code, " ", $reason),)*
                }
            }
        }
    };
}

statuses! {
    /// The object follows.
    Ok = 200 "OK",
    /// The answer to OPTIONS.
    NoContent = 204 "No Content",
    /// A byte range of the object follows.
    PartialContent = 206 "Partial Content",
    /// A folder was asked for without its slash.
    MovedPermanently = 301 "Moved Permanently",
    /// The client's copy is current.
    NotModified = 304 "Not Modified",
    /// A link object that redirects.
    TemporaryRedirect = 307 "Temporary Redirect",
    /// The request breaks HTTP's rules.
    BadRequest = 400 "Bad Request",
    /// No such object.
    NotFound = 404 "Not Found",
    /// The method is known, and not supported.
    MethodNotAllowed = 405 "Method Not Allowed",
    /// The head took too long to arrive.
    RequestTimeout = 408 "Request Timeout",
    /// `If-Match` or `If-Unmodified-Since` does not hold.
    PreconditionFailed = 412 "Precondition Failed",
    /// The request target is too long.
    UriTooLong = 414 "URI Too Long",
    /// The range lies outside of the object.
    RangeNotSatisfiable = 416 "Range Not Satisfiable",
    /// The head is too long or has too many fields.
    RequestHeaderFieldsTooLarge = 431 "Request Header Fields Too Large",
    /// The disk failed.
    InternalServerError = 500 "Internal Server Error",
    /// Unknown method or transfer coding.
    NotImplemented = 501 "Not Implemented",
    /// A link object whose origin can't be asked.
    BadGateway = 502 "Bad Gateway",
    /// No volume is mounted, or memory is short.
    ServiceUnavailable = 503 "Service Unavailable",
    /// Not HTTP/1.
    HttpVersionNotSupported = 505 "HTTP Version Not Supported",
}

impl Status {
    /// The three digits.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Counts an answer with this status.
    pub fn count(self, stats: &Stats) {
        stats.http_requests.increment();
        match self.code() / 100 {
            2 => stats.http_2xx.increment(),
            3 => stats.http_3xx.increment(),
            4 => stats.http_4xx.increment(),
            _ => stats.http_5xx.increment(),
        }
    }
}

/// A status that is not success, with the sentence for the person who reads the error page. The sentence never repeats
/// bytes of the request, so that a page can't be made to say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// What was wrong and what to do.
    pub reason: &'static str,
}

impl Refusal {
    /// A refusal.
    pub const fn new(status: Status, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// A refusal with status 400.
    pub const fn bad(reason: &'static str) -> Self {
        Self::new(Status::BadRequest, reason)
    }
}
