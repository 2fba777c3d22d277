//! Request targets (RFC 9112 §3.2) and what they name on the volume.
//!
//! | target | object |
//! |---|---|
//! | `/` and `/?` and `/?arguments` | the default object, else `index.html` |
//! | `/?HEX` | the object with this digest, in hexadecimal digits of either case |
//! | `/name` and `/name?arguments` | the object with this name, percent-decoded once |
//! | `/name/` | the object `name/`, else `name/index.html` |
//! | `/name` where only `/name/` would be found | a redirect there |
//!
//! All leading slashes are dropped. Names are compared byte by byte; dot segments have no meaning.

use arrayvec::ArrayVec;

use super::authority;
use super::method::Method;
use super::status::Refusal;
use crate::cache::shfs::format::{MAX_DIGEST_BYTES, MAX_NAME_BYTES};
use crate::cache::shfs::{Directory, ObjectId};

/// Name of the object that stands for the folder it is in.
const INDEX: &[u8] = b"index.html";

/// A valid request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// A path, of origin-form or absolute-form.
    Path {
        /// What follows the leading slashes, not decoded.
        path: &'a [u8],
        /// What follows the first question mark.
        query: Option<&'a [u8]>,
    },
    /// `*`: the server as a whole.
    Asterisk,
}

/// What a target leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// An object.
    Object(ObjectId),
    /// The target is a folder's name; add a slash.
    Folder,
    /// Nothing.
    Missing,
}

/// A name of a request, percent-decoded.
pub type Name = ArrayVec<u8, MAX_NAME_BYTES>;

impl<'a> Target<'a> {
    /// Takes a request target apart.
    pub fn parse(target: &'a [u8], method: Method) -> Result<Self, Refusal> {
        if target.contains(&b'#') {
            return Err(FRAGMENT);
        }
        if let [b'/', ..] = target {
            return Ok(Self::from_path(target));
        }
        if target == b"*" {
            return if method == Method::Options { Ok(Self::Asterisk) } else { Err(ASTERISK) };
        }
        let rest =
            strip_scheme(target, b"http://").or_else(|| strip_scheme(target, b"https://")).ok_or(NOT_A_TARGET)?;
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        if !authority::is_valid(&rest[..end]) {
            return Err(BAD_AUTHORITY);
        }
        // RFC 9112 §3.2.4: OPTIONS for a URI without path and query means the server as a whole.
        if method == Method::Options && end == rest.len() {
            Ok(Self::Asterisk)
        } else {
            Ok(Self::from_path(&rest[end..]))
        }
    }

    fn from_path(target: &'a [u8]) -> Self {
        let (path, query) = match target.iter().position(|&byte| byte == b'?') {
            Some(at) => (&target[..at], Some(&target[at + 1..])),
            None => (target, None),
        };
        let slashes = path.iter().take_while(|&&byte| byte == b'/').count();
        Self::Path { path: &path[slashes..], query }
    }
}

/// Schemes are compared without regard to case (RFC 3986 §3.1).
fn strip_scheme<'a>(target: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = target.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Finds what a path and a query lead to.
pub fn resolve(path: &[u8], query: Option<&[u8]>, directory: &Directory) -> Result<Route, Refusal> {
    if path.is_empty() {
        let object = match query {
            Some(query) if !query.is_empty() && query.iter().all(u8::is_ascii_hexdigit) => {
                digest(query).and_then(|digest| directory.by_digest(&digest))
            }
            _ => directory.default_object().or_else(|| directory.by_name(INDEX)),
        };
        return Ok(object.map_or(Route::Missing, Route::Object));
    }
    let decoded;
    let name = if path.len() <= MAX_NAME_BYTES && !path.contains(&b'%') {
        path
    } else {
        match decode(path)? {
            Some(name) => {
                decoded = name;
                &decoded[..]
            }
            None => return Ok(Route::Missing),
        }
    };
    if let Some(id) = directory.by_name(name) {
        return Ok(Route::Object(id));
    }
    let with = |suffix: &[&[u8]]| {
        let mut longer = Name::new();
        longer.try_extend_from_slice(name).ok()?;
        suffix.iter().try_for_each(|part| longer.try_extend_from_slice(part).ok())?;
        directory.by_name(&longer)
    };
    if name.ends_with(b"/") {
        return Ok(with(&[INDEX]).map_or(Route::Missing, Route::Object));
    }
    let is_folder = with(&[b"/"]).or_else(|| with(&[b"/", INDEX])).is_some();
    Ok(if is_folder { Route::Folder } else { Route::Missing })
}

/// Decodes a path's percent-encoding, once. `None` if the result is longer than any name.
pub fn decode(path: &[u8]) -> Result<Option<Name>, Refusal> {
    let mut name = Some(Name::new());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        let byte = match byte {
            b'%' => {
                let high = rest.next().and_then(|&digit| hex_digit(digit)).ok_or(BAD_ESCAPE)?;
                let low = rest.next().and_then(|&digit| hex_digit(digit)).ok_or(BAD_ESCAPE)?;
                high << 4 | low
            }
            byte => byte,
        };
        if byte == 0 {
            return Err(NUL);
        }
        // The rest is still checked when the name is too long, so that a bad escape is refused wherever it stands.
        if name.as_mut().is_some_and(|name| name.try_push(byte).is_err()) {
            name = None;
        }
    }
    Ok(name)
}

/// Reads a digest; `None` if it has an odd number of digits or more than any digest.
fn digest(text: &[u8]) -> Option<ArrayVec<u8, MAX_DIGEST_BYTES>> {
    let mut digest = ArrayVec::new();
    for pair in text.chunks(2) {
        let &[high, low] = pair else { return None };
        digest.try_push(hex_digit(high)? << 4 | hex_digit(low)?).ok()?;
    }
    Some(digest)
}

fn hex_digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).map(|digit| digit as u8)
}

const NOT_A_TARGET: Refusal = Refusal::bad("The request target is neither a path nor an http URL.");
const ASTERISK: Refusal = Refusal::bad("The request target * is only for OPTIONS.");
const BAD_AUTHORITY: Refusal = Refusal::bad("The request target's host is not of the form host or host:port.");
const FRAGMENT: Refusal =
    Refusal::bad("The request target holds a #. Fragments stay with the client; a # in a name is %23.");
const BAD_ESCAPE: Refusal =
    Refusal::bad("The request target holds a % without two hexadecimal digits. A % in a name is %25.");
const NUL: Refusal = Refusal::bad("The request target holds %00, which no name can.");
