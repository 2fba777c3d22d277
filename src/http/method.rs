//! Request methods (RFC 9110 §9).

/// What a request asks to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The object.
    Get,
    /// The head that `GET` would be answered with.
    Head,
    /// What the target supports.
    Options,
    /// A tunnel: refused with 405 on a connection that then ends, since what follows the head is not HTTP.
    Connect,
    /// A registered method that no object of ours supports: 405.
    Refused,
    /// Not known: 501.
    Unknown,
}

impl Method {
    /// The methods that every target supports, as the `Allow` field lists them.
    pub const ALLOW: &'static str = "GET, HEAD, OPTIONS";

    /// Method names are case-sensitive (RFC 9110 §9.1).
    pub fn parse(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            b"POST" | b"PUT" | b"DELETE" | b"TRACE" | b"PATCH" => Self::Refused,
            _ => Self::Unknown,
        }
    }
}
