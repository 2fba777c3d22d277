//! Response heads and error pages, written into one buffer (RFC 9112 §4, RFC 9110 §8).

use arrayvec::ArrayVec;
use core::fmt::Write;

use super::date;
use super::etag::ETag;
use super::status::{Refusal, Status};
use crate::cache::shfs::Host;

/// Room for the longest head with an error page behind it. Every part of a head is bounded: names of 64 bytes, links of 71 and
/// queries of [`super::config::MAX_REDIRECT_QUERY_BYTES`] (three times that when percent-encoded), types of 32, tags.
const HEAD_BYTES: usize = 2560;

/// What the `Server` field says.
pub const SERVER: &str = concat!("MiniCache/", env!("CARGO_PKG_VERSION"));

/// The field lines that every response carries, made anew once a second.
pub struct CommonFields {
    unix_s: u64,
    lines: ArrayVec<u8, 96>,
}

impl CommonFields {
    /// The lines for a time. RFC 9110 §6.6.1: without a clock, which 0 stands for, there is no `Date`.
    pub fn new(unix_s: u64) -> Self {
        let mut lines = ArrayVec::new();
        if unix_s > 0 {
            lines.extend(*b"Date: ");
            lines.extend(date::format(unix_s));
            lines.extend(*b"\r\n");
        }
        lines.extend(b"Server: ".iter().chain(SERVER.as_bytes()).chain(b"\r\n").copied());
        Self { unix_s, lines }
    }

    /// The time that `Date` says.
    pub fn unix_s(&self) -> u64 {
        self.unix_s
    }
}

/// What a response says of the connection (RFC 9112 §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It goes on, as HTTP/1.1 has it.
    Persists,
    /// It goes on, which an HTTP/1.0 client has to be told.
    KeepAlive,
    /// It ends behind this response.
    Close,
}

/// Where heads are written. There is one for all connections, so that it is neither cleared nor moved for each response.
pub type HeadBuffer = ArrayVec<u8, HEAD_BYTES>;

/// A response head, and perhaps a small body behind it.
pub struct Head<'a>(&'a mut HeadBuffer);

impl<'a> Head<'a> {
    /// Begins a head with the status line and the fields that every response has.
    pub fn new(buffer: &'a mut HeadBuffer, status: Status, common: &CommonFields, connection: Connection) -> Self {
        buffer.clear();
        let mut head = Self(buffer);
        head.put(status.line().as_bytes());
        head.put(&common.lines);
        head.put(match connection {
            Connection::Persists => b"",
            Connection::KeepAlive => b"Connection: keep-alive\r\n",
            Connection::Close => b"Connection: close\r\n",
        });
        head
    }

    fn put(&mut self, bytes: &[u8]) {
        self.0.try_extend_from_slice(bytes).expect("HEAD_BYTES holds the longest head");
    }

    /// A field line. `start` is the name with its colon and a blank; `value` must be free of control bytes.
    pub fn field(&mut self, start: &'static str, value: &[u8]) {
        debug_assert!(start.ends_with(": ") && !value.iter().any(u8::is_ascii_control));
        self.put(start.as_bytes());
        self.put(value);
        self.put(b"\r\n");
    }

    /// `Content-Length`.
    pub fn content_length(&mut self, length_bytes: u64) {
        self.put(b"Content-Length: ");
        self.number(length_bytes);
        self.put(b"\r\n");
    }

    /// `Accept-Ranges: bytes`.
    pub fn accept_ranges(&mut self) {
        self.put(b"Accept-Ranges: bytes\r\n");
    }

    /// `ETag`.
    pub fn etag(&mut self, etag: &ETag) {
        self.field("ETag: ", etag);
    }

    /// `Last-Modified`.
    pub fn last_modified(&mut self, unix_s: u64) {
        self.field("Last-Modified: ", &date::format(unix_s));
    }

    /// `Content-Range` of a part, `first` to `last` of `length` bytes (RFC 9110 §14.4).
    pub fn content_range(&mut self, first: u64, last: u64, length: u64) {
        self.put(b"Content-Range: bytes ");
        self.number(first);
        self.put(b"-");
        self.number(last);
        self.put(b"/");
        self.number(length);
        self.put(b"\r\n");
    }

    /// `Content-Range` that tells only the whole's length.
    pub fn unsatisfied_range(&mut self, length: u64) {
        self.put(b"Content-Range: bytes */");
        self.number(length);
        self.put(b"\r\n");
    }

    /// `Location: /NAME/?QUERY`. The name is percent-encoded; the query comes as a client sent it.
    pub fn location_of_folder(&mut self, name: &[u8], query: Option<&[u8]>) {
        self.put(b"Location: /");
        self.encoded(name, false);
        self.put(b"/");
        if let Some(query) = query {
            self.put(b"?");
            self.encoded(query, true);
        }
        self.put(b"\r\n");
    }

    /// `Location: http://HOST[:PORT]/PATH`; port 80 is left out. `path` may hold percent-encoding and a query.
    pub fn location_of_link(&mut self, host: &Host<'_>, port: u16, path: &[u8]) {
        self.put(b"Location: http://");
        let _ = write!(Encoded(self), "{host}");
        if port != 80 {
            self.put(b":");
            self.number(port.into());
        }
        self.put(b"/");
        self.encoded(path, true);
        self.put(b"\r\n");
    }

    fn number(&mut self, mut number: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        loop {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        self.put(&digits[first..]);
    }

    /// Percent-encodes what may not stand in a URI (RFC 3986 §2), and, in text that is none yet, its delimiters.
    fn encoded(&mut self, text: &[u8], is_uri: bool) {
        for &byte in text {
            let stays = match byte {
                b'?' | b'#' | b'%' | b'[' | b']' => is_uri && byte != b'#',
                _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte),
            };
            if stays {
                self.0.push(byte);
            } else {
                let digit =
                    |value: u8| char::from_digit(value.into(), 16).map_or(b'0', |c| c.to_ascii_uppercase() as u8);
                self.put(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }

    /// Ends the head.
    pub fn finish(mut self) -> &'a [u8] {
        self.put(b"\r\n");
        self.0
    }

    /// Ends the head with the fields of an error page, and the page itself unless the request was for a head only
    /// (RFC 9110 §9.3.2).
    pub fn finish_with_page(mut self, refusal: &Refusal, without_body: bool) -> &'a [u8] {
        let title = refusal.status.text();
        let parts = [
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>",
            title,
            "</title></head>\n<body><h1>",
            title,
            "</h1><p>",
            refusal.reason,
            "</p></body></html>\n",
        ];
        self.field("Content-Type: ", b"text/html; charset=utf-8");
        self.content_length(parts.iter().map(|part| part.len() as u64).sum());
        self.put(b"\r\n");
        if !without_body {
            for part in parts {
                self.put(part.as_bytes());
            }
        }
        self.0
    }
}

/// Percent-encodes what is written to a head.
struct Encoded<'h, 'a>(&'h mut Head<'a>);

impl Write for Encoded<'_, '_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.0.encoded(text.as_bytes(), true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::shfs::format::MAX_NAME_BYTES;
    use crate::http::config::MAX_REDIRECT_QUERY_BYTES;

    /// What `fill` adds to a head.
    fn added(fill: impl FnOnce(&mut Head<'_>)) -> alloc::string::String {
        let mut buffer = HeadBuffer::new();
        let mut head = Head::new(&mut buffer, Status::Ok, &CommonFields::new(0), Connection::Persists);
        let start = head.0.len();
        fill(&mut head);
        core::str::from_utf8(&head.finish()[start..]).unwrap().strip_suffix("\r\n\r\n").unwrap().into()
    }

    #[test]
    fn the_status_line_and_the_common_fields() {
        let mut buffer = HeadBuffer::new();
        let common = CommonFields::new(784_111_777);
        let head = Head::new(&mut buffer, Status::NotFound, &common, Connection::Close).finish();
        let expected = alloc::format!(
            "HTTP/1.1 404 Not Found\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: {SERVER}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(head, expected.as_bytes());
    }

    #[test]
    fn numbers_and_ranges() {
        assert_eq!(added(|head| head.content_length(0)), "Content-Length: 0");
        assert_eq!(added(|head| head.content_length(u64::MAX)), "Content-Length: 18446744073709551615");
        assert_eq!(added(|head| head.content_range(9, 10, 100)), "Content-Range: bytes 9-10/100");
        assert_eq!(added(|head| head.unsatisfied_range(0)), "Content-Range: bytes */0");
    }

    #[test]
    fn locations_hold_nothing_that_ends_them() {
        let folder = |name: &[u8], query| added(|head| head.location_of_folder(name, query));
        assert_eq!(folder(b"a/b c%\r\n?#\xff", None), "Location: /a/b%20c%25%0D%0A%3F%23%FF/");
        assert_eq!(folder(b"a", Some(b"b=c?d%20\xffe")), "Location: /a/?b=c?d%20%FFe");
        let link = |host: &Host<'_>, port, path: &[u8]| added(|head| head.location_of_link(host, port, path));
        assert_eq!(link(&Host::Name(b"example.org"), 80, b"x?y=%20z"), "Location: http://example.org/x?y=%20z");
        assert_eq!(link(&Host::Ipv6([0; 16]), 8080, b""), "Location: http://[::]:8080/");
        assert_eq!(link(&Host::Name(b"a\r\nb"), 80, b"\r\n#"), "Location: http://a%0D%0Ab/%0D%0A%23");
    }

    #[test]
    fn the_longest_heads_fit() {
        let (name, query) = ([0xff; MAX_NAME_BYTES], [0xff; MAX_REDIRECT_QUERY_BYTES]);
        let refusal = Refusal::new(Status::MovedPermanently, "This is a folder; its name ends with a slash.");
        let mut buffer = HeadBuffer::new();
        let common = CommonFields::new(date::MAX_UNIX_S);
        let mut head = Head::new(&mut buffer, Status::MovedPermanently, &common, Connection::KeepAlive);
        head.location_of_folder(&name, Some(&query));
        assert!(head.finish_with_page(&refusal, false).len() <= HEAD_BYTES);
        assert!(added(|head| head.location_of_link(&Host::Name(&[0x7f; 32]), 65535, &[0xff; 71])).len() < 1000);
    }
}
