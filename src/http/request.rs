//! Request heads (RFC 9112 §2–§6): from the bytes at the front of a connection to a [`Request`], or a refusal.
//!
//! Field lines are parsed by `httparse`. Around it stand the checks that keep two readers of the same bytes from seeing
//! different messages (request smuggling): a line ends with CRLF and with nothing else, the length of the body is told in
//! one way only, and there is one valid `Host`.
//!
//! The verdict on a head depends on its bytes alone and never on how they were cut into segments: every check either looks
//! at a prefix that no later byte can change, or waits for the empty line.

use core::task::Poll;

use httparse::Header;
use memchr::memchr;

use super::authority;
use super::config::{Config, MAX_FIELDS};
use super::method::Method;
use super::status::{Refusal, Status};

/// HTTP's minor version; later ones are treated as 1.1 (RFC 9110 §2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How a request's body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes; 0 where there is no body.
    Length(u64),
    /// With a chunk of length 0.
    Chunked,
}

/// A complete, valid request head. Field values lie in the received bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The method.
    pub method: Method,
    /// The request target as sent: visible ASCII and bytes from 0x80 on.
    pub target: &'a [u8],
    /// The version.
    pub version: Version,
    /// The client wants to send further requests (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// The request's body.
    pub framing: Framing,
    /// The client waits for a status before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The field lines.
    pub fields: Fields<'a>,
}

/// The validated field lines of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// Lines, each ended by CRLF.
    lines: &'a [u8],
    /// Any of the fields that make a request conditional or ask for a range is there.
    selective: bool,
}

impl<'a> Fields<'a> {
    /// True if the request is conditional or asks for a range: only then are the fields worth a second look.
    pub fn selective(&self) -> bool {
        self.selective
    }

    /// The values of every line with this field name, without surrounding white space.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.lines.split(|&byte| byte == b'\n').filter_map(move |line| {
            let colon = memchr(b':', line)?;
            line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
        })
    }

    /// The value of a field that may occur only once; `None` if it is missing or repeated.
    pub fn single(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() { None } else { first }
    }
}

/// A head that is refused. The connection ends after the answer: where the next request would begin is not known for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedHead {
    /// Status and reason.
    pub refusal: Refusal,
    /// The method is `HEAD`, so the answer has no body.
    pub without_body: bool,
}

/// How far the head at the front of a connection has been searched, so that a head that arrives byte by byte is not searched
/// from its start each time.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadSearch {
    /// So many bytes hold no empty line.
    searched: u16,
    /// The request line is complete and valid.
    line_checked: bool,
}

impl HeadSearch {
    /// True if part of a head has been seen.
    pub fn begun(&self) -> bool {
        self.searched > 0
    }

    /// True if the request line is complete.
    pub fn line_checked(&self) -> bool {
        self.line_checked
    }
}

/// Parses the head at the front of `data`, which holds all bytes of it that have arrived. Returns the request and the length of
/// its head; `search` is then ready for the next one.
pub fn parse<'a>(
    data: &'a [u8],
    search: &mut HeadSearch,
    config: &Config,
) -> Poll<Result<(Request<'a>, usize), RefusedHead>> {
    let result = parse_head(data, search, config);
    if result.is_ready() {
        *search = HeadSearch::default();
    }
    result.map_err(|refusal| RefusedHead { refusal, without_body: data.starts_with(b"HEAD ") })
}

fn parse_head<'a>(
    data: &'a [u8],
    search: &mut HeadSearch,
    config: &Config,
) -> Poll<Result<(Request<'a>, usize), Refusal>> {
    let limit_bytes = config.max_head_bytes.min(u16::MAX.into());
    let visible = &data[..data.len().min(limit_bytes)];
    let mut line = None;
    let mut from = usize::from(search.searched);
    while let Some(distance) = memchr(b'\n', &visible[from..]) {
        let end = from + distance + 1;
        if end < 2 || visible[end - 2] != b'\r' {
            return Poll::Ready(Err(refuse_prefix(&visible[..end], search, config).unwrap_or(BARE_LF)));
        }
        if !search.line_checked {
            line = Some(RequestLine::parse(&visible[..end - 2], config)?);
            search.line_checked = true;
        } else if visible[end - 3] == b'\n' {
            let line = match line {
                Some(line) => line,
                None => RequestLine::first_of(visible, config)?,
            };
            return Poll::Ready(line.with_fields(&visible[line.bytes..end]).map(|request| (request, end)));
        }
        from = end;
    }
    // No empty line yet. Refuse what no further byte can mend, so that who speaks another protocol learns of it at once.
    let full = visible.len() == limit_bytes;
    let fresh_from = usize::from(search.searched).saturating_sub(1);
    if full || has_control_byte(&visible[fresh_from..]) {
        if let Some(refusal) = refuse_prefix(visible, search, config) {
            return Poll::Ready(Err(refusal));
        }
        if full {
            return Poll::Ready(Err(if search.line_checked { HEAD_TOO_LONG } else { TARGET_TOO_LONG }));
        }
    }
    search.searched = visible.len() as u16;
    Poll::Pending
}

/// What is wrong with a head of which `prefix` has arrived, whatever may follow.
fn refuse_prefix(prefix: &[u8], search: &HeadSearch, config: &Config) -> Option<Refusal> {
    if !search.line_checked {
        return has_control_byte(prefix).then_some(CONTROL_BYTE);
    }
    match RequestLine::first_of(prefix, config) {
        Ok(line) => parse_fields(&prefix[line.bytes..], &mut [httparse::EMPTY_HEADER; MAX_FIELDS], |_| ()).err(),
        Err(refusal) => Some(refusal),
    }
}

/// True if there is a byte that no line of a head may hold: a control byte other than HTAB, or a CR that no LF follows.
fn has_control_byte(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().any(|(index, &byte)| match byte {
        b'\t' | b'\n' => false,
        b'\r' => bytes.get(index + 1).is_some_and(|&next| next != b'\n'),
        _ => byte.is_ascii_control(),
    })
}

/// A request line (RFC 9112 §3). Exactly one space between its parts: RFC 9112 §3 lets recipients be lenient there, but two that
/// are lenient in different ways disagree about the target.
#[derive(Clone, Copy)]
struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    version: Version,
    /// With its CRLF.
    bytes: usize,
}

impl<'a> RequestLine<'a> {
    /// The first line of `head`, which is known to hold one.
    fn first_of(head: &'a [u8], config: &Config) -> Result<Self, Refusal> {
        let end = memchr(b'\n', head).unwrap_or(head.len());
        Self::parse(head[..end].strip_suffix(b"\r").unwrap_or(&head[..end]), config)
    }

    /// `line` comes without its CRLF.
    fn parse(line: &'a [u8], config: &Config) -> Result<Self, Refusal> {
        let parsed = Self::parse_parts(line, config);
        if parsed.is_err() && (has_control_byte(line) || line.ends_with(b"\r")) {
            return Err(CONTROL_BYTE);
        }
        parsed
    }

    fn parse_parts(line: &'a [u8], config: &Config) -> Result<Self, Refusal> {
        let space = memchr(b' ', line).ok_or(NOT_HTTP)?;
        let (method, rest) = (&line[..space], &line[space + 1..]);
        let target_bytes = rest.iter().position(|byte| *byte <= b' ' || *byte == 0x7f).ok_or(HTTP_09)?;
        let (target, version) = rest.split_at(target_bytes);
        if target.is_empty() || version[0] != b' ' {
            return Err(NOT_HTTP);
        }
        let version = match &version[1..] {
            b"HTTP/1.1" => Version::Http11,
            b"HTTP/1.0" => Version::Http10,
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
                if *major != b'1' {
                    return Err(OTHER_VERSION);
                }
                Version::Http11
            }
            _ => return Err(NOT_HTTP),
        };
        let method = match Method::parse(method) {
            Method::Unknown if method.is_empty() || !method.iter().all(|&byte| is_token_byte(byte)) => {
                return Err(NOT_HTTP);
            }
            method => method,
        };
        if target.len() > config.max_target_bytes {
            return Err(TARGET_TOO_LONG);
        }
        Ok(Self { method, target, version, bytes: line.len() + 2 })
    }

    /// The request with the field lines that follow, up to and with the empty line.
    fn with_fields(&self, lines: &'a [u8]) -> Result<Request<'a>, Refusal> {
        // Nearly every request fits the small array, whose making costs less.
        let mut few = [httparse::EMPTY_HEADER; 16];
        let collected = match parse_fields(lines, &mut few, Collected::new) {
            Err(TOO_MANY_FIELDS) => parse_fields(lines, &mut [httparse::EMPTY_HEADER; MAX_FIELDS], Collected::new)?,
            collected => collected?,
        };
        // All of `lines` has been parsed, since a parse that ends early would have needed an empty line before the last.
        let collected = collected.ok_or(BAD_FIELD)??;
        collected.finish(self, lines)
    }
}

/// Parses field lines into `room` and hands them to `read`; `None` if there is no empty line yet.
fn parse_fields<'a, 'r, T>(
    lines: &'a [u8],
    room: &'r mut [Header<'a>],
    read: impl FnOnce(&'r [Header<'a>]) -> T,
) -> Result<Option<T>, Refusal> {
    match httparse::parse_headers(lines, room) {
        Ok(httparse::Status::Complete((_, fields))) => Ok(Some(read(fields))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_MANY_FIELDS),
        Err(_) => Err(BAD_FIELD),
    }
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What the field lines say about framing and the connection.
#[derive(Default)]
struct Collected {
    hosts: u32,
    content_length: Option<u64>,
    transfer_encoding: Option<TransferEncoding>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    selective: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    Chunked,
    /// Codings that we don't know, and then chunked.
    Unknown,
}

impl Collected {
    fn new(fields: &[Header<'_>]) -> Result<Self, Refusal> {
        let mut collected = Self::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            // By length first: most fields of most requests are none of these.
            match field.name.len() {
                4 if is("host") => {
                    collected.hosts += 1;
                    if collected.hosts > 1 {
                        return Err(TWO_HOSTS);
                    }
                    if !authority::is_valid_host_field(field.value) {
                        return Err(BAD_HOST);
                    }
                }
                10 if is("connection") => {
                    for option in field.value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                        collected.close |= option.eq_ignore_ascii_case(b"close");
                        collected.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if is("content-length") => {
                    if collected.content_length.is_some() {
                        return Err(TWO_LENGTHS);
                    }
                    collected.content_length = Some(decimal(field.value).ok_or(BAD_LENGTH)?);
                }
                17 if is("transfer-encoding") => {
                    if collected.transfer_encoding.is_some() {
                        return Err(BAD_TRANSFER_ENCODING);
                    }
                    collected.transfer_encoding = Some(transfer_encoding(field.value)?);
                }
                6 if is("expect") => collected.expects_continue |= field.value.eq_ignore_ascii_case(b"100-continue"),
                5 if is("range") => collected.selective = true,
                8 if is("if-match") => collected.selective = true,
                13 if is("if-none-match") => collected.selective = true,
                17 if is("if-modified-since") => collected.selective = true,
                19 if is("if-unmodified-since") => collected.selective = true,
                _ => {}
            }
        }
        Ok(collected)
    }

    fn finish<'a>(self, line: &RequestLine<'a>, lines: &'a [u8]) -> Result<Request<'a>, Refusal> {
        let framing = match (self.transfer_encoding, self.content_length) {
            (Some(_), Some(_)) => return Err(LENGTH_AND_ENCODING),
            (Some(_), None) if line.version == Version::Http10 => return Err(ENCODING_IN_HTTP_10),
            (Some(TransferEncoding::Unknown), None) => return Err(UNKNOWN_ENCODING),
            (Some(TransferEncoding::Chunked), None) => Framing::Chunked,
            (None, length) => Framing::Length(length.unwrap_or(0)),
        };
        if line.version == Version::Http11 && self.hosts == 0 {
            return Err(NO_HOST);
        }
        if line.method == Method::Unknown {
            return Err(UNKNOWN_METHOD);
        }
        Ok(Request {
            method: line.method,
            target: line.target,
            version: line.version,
            keep_alive: !self.close && (line.version == Version::Http11 || self.keep_alive),
            framing,
            expects_continue: self.expects_continue && line.version == Version::Http11,
            fields: Fields { lines, selective: self.selective },
        })
    }
}

/// `1*DIGIT` that fits 64 bits, and nothing around it.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn transfer_encoding(value: &[u8]) -> Result<TransferEncoding, Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(TransferEncoding::Chunked);
    }
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut codings = value.rsplit(|&byte| byte == b',');
    // RFC 9112 §6.3: without chunked at the end, and only there, nobody can tell where the body ends.
    if codings.next().is_some_and(is_chunked) && !codings.any(is_chunked) {
        Ok(TransferEncoding::Unknown)
    } else {
        Err(BAD_TRANSFER_ENCODING)
    }
}

const NOT_HTTP: Refusal =
    Refusal::bad("The request line is not of the form METHOD SP TARGET SP HTTP/1.1 with single spaces.");
const HTTP_09: Refusal = Refusal::bad("The request line names no HTTP version. HTTP/0.9 is not spoken here.");
const CONTROL_BYTE: Refusal =
    Refusal::bad("The request line holds a control byte. TLS is not spoken here; use http://.");
const BARE_LF: Refusal = Refusal::bad("A line of the request ends with LF alone. Lines end with CRLF.");
const BAD_FIELD: Refusal = Refusal::bad(
    "A field line is malformed: no white space before the colon, no folded lines, no control bytes, CRLF at the end.",
);
const TWO_HOSTS: Refusal = Refusal::bad("The request has more than one Host field.");
const BAD_HOST: Refusal = Refusal::bad("The Host field is not of the form host or host:port.");
const NO_HOST: Refusal = Refusal::bad("An HTTP/1.1 request needs a Host field.");
const TWO_LENGTHS: Refusal = Refusal::bad("The request has more than one Content-Length field.");
const BAD_LENGTH: Refusal = Refusal::bad("The Content-Length field is not one decimal number.");
const BAD_TRANSFER_ENCODING: Refusal =
    Refusal::bad("The Transfer-Encoding does not end with chunked, or names it more than once.");
const LENGTH_AND_ENCODING: Refusal = Refusal::bad("The request has both Content-Length and Transfer-Encoding.");
const ENCODING_IN_HTTP_10: Refusal = Refusal::bad("HTTP/1.0 knows no Transfer-Encoding.");
const UNKNOWN_ENCODING: Refusal =
    Refusal::new(Status::NotImplemented, "The only transfer coding that is understood here is chunked.");
const UNKNOWN_METHOD: Refusal = Refusal::new(Status::NotImplemented, "The request method is not known here.");
const TARGET_TOO_LONG: Refusal = Refusal::new(Status::UriTooLong, "The request target is too long.");
const HEAD_TOO_LONG: Refusal =
    Refusal::new(Status::RequestHeaderFieldsTooLarge, "The field lines of the request are too long together.");
const TOO_MANY_FIELDS: Refusal =
    Refusal::new(Status::RequestHeaderFieldsTooLarge, "The request has too many field lines.");
const OTHER_VERSION: Refusal =
    Refusal::new(Status::HttpVersionNotSupported, "Only HTTP/1.1 and HTTP/1.0 are spoken here.");

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec::Vec;

    fn parse_at_once(data: &[u8]) -> Poll<Result<(Request<'_>, usize), RefusedHead>> {
        parse(data, &mut HeadSearch::default(), &Config::default())
    }

    #[test]
    fn a_request_and_what_its_fields_say() {
        let text =
            b"GET /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\nrange: bytes=0-\r\nX:  y z \r\nx: 2\r\n\r\nrest";
        let Poll::Ready(Ok((request, length))) = parse_at_once(text) else { panic!("it is complete and valid") };
        assert_eq!(&text[length..], b"rest");
        assert_eq!((request.method, request.target, request.version), (Method::Get, &b"/a?b"[..], Version::Http11));
        assert_eq!((request.framing, request.keep_alive, request.expects_continue), (Framing::Length(7), true, false));
        assert!(request.fields.selective());
        assert_eq!(request.fields.values("X").collect::<Vec<_>>(), [&b"y z"[..], b"2"]);
        assert_eq!((request.fields.single("x"), request.fields.single("Range")), (None, Some(&b"bytes=0-"[..])));
        assert_eq!(request.fields.single("bytes=0-"), None);
    }

    #[test]
    fn a_slow_head_is_searched_once() {
        let mut head = String::from("GET / HTTP/1.1\r\nHost: h\r\n");
        while head.len() < 4000 {
            head.push_str("X: some value that is long enough for few lines\r\n");
        }
        let (mut search, config) = (HeadSearch::default(), Config::default());
        for length in 1..=head.len() {
            assert_eq!(parse(&head.as_bytes()[..length], &mut search, &config), Poll::Pending);
            assert_eq!(usize::from(search.searched), length);
        }
        head.push_str("\r\n");
        assert!(matches!(parse(head.as_bytes(), &mut search, &config), Poll::Ready(Ok(_))));
        assert!(!search.begun() && !search.line_checked());
    }

    #[test]
    fn nonsense_is_refused_before_the_head_is_complete() {
        for (text, status) in [
            ("\x16", Status::BadRequest),
            ("GET /\r\n", Status::BadRequest),
            ("GET / HTTP/2.0\r\n", Status::HttpVersionNotSupported),
            ("GET / HTTP/1.1\n", Status::BadRequest),
            ("GET / HTTP/1.1\r\nA: \x01", Status::BadRequest),
            ("GET / HTTP/1.1\r\nA: b\rc", Status::BadRequest),
        ] {
            let Poll::Ready(Err(refused)) = parse_at_once(text.as_bytes()) else { panic!("{text:?} is not refused") };
            assert_eq!((refused.refusal.status, refused.without_body), (status, false), "{text:?}");
            // As soon as its last byte has arrived, and not before.
            let (mut search, config) = (HeadSearch::default(), Config::default());
            let mut refused_at = |length: &usize| parse(&text.as_bytes()[..*length], &mut search, &config).is_ready();
            assert_eq!((1..=text.len()).find(&mut refused_at), Some(text.len()));
        }
    }

    #[test]
    fn decimal_numbers() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"00018446744073709551615"), Some(u64::MAX));
        for text in ["", "18446744073709551616", "1 ", "+1", "-1", "1e3", "a"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}
