//! Objects of a volume as the rest of the program sees them.

use core::fmt;

use super::format::{FLAG_DEFAULT, FLAG_HIDDEN};

/// One object of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// Name, up to 64 bytes of any value but NUL; may be empty, and need not be unique.
    pub name: &'a [u8],
    /// Digest, as long as the volume's digests are.
    pub digest: &'a [u8],
    /// MIME type in visible ASCII and blanks; empty when there is none.
    pub mime: &'a [u8],
    /// Unix time in seconds at which the object was added.
    pub created_unix_s: u64,
    /// `format::FLAG_…` as they lie on disk.
    pub flags: u8,
    /// Where its bytes are.
    pub content: Content<'a>,
}

impl Object<'_> {
    /// The hidden flag, which has no meaning at run time.
    pub fn is_hidden(&self) -> bool {
        self.flags & FLAG_HIDDEN != 0
    }

    /// The default flag. Of several objects that have it, [`super::Directory::default_object`] names the one that counts.
    pub fn is_default(&self) -> bool {
        self.flags & FLAG_DEFAULT != 0
    }
}

/// Where an object's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// On the volume, in consecutive chunks. The whole extent is known to lie on the members.
    Extent {
        /// Chunk that holds the first byte. Any number when there are no bytes.
        chunk: u64,
        /// Place of the first byte in that chunk, below the chunk's size.
        offset_bytes: u64,
        /// Length; may be 0.
        length_bytes: u64,
    },
    /// On another server.
    Link(Link<'a>),
}

/// A link to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The server.
    pub host: Host<'a>,
    /// Its TCP port, never 0.
    pub port: u16,
    /// Path and query without the leading slash, as its maker wrote it: no control bytes, but what a URL has to escape may be
    /// there unescaped.
    pub path: &'a [u8],
    /// What to do with it.
    pub kind: LinkKind,
}

/// The server that a link names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host<'a> {
    /// A host name: 1 to 32 bytes, no control bytes, no blanks, none of `/?#@\`.
    Name(&'a [u8]),
    /// An IPv4 address in network order.
    Ipv4([u8; 4]),
    /// An IPv6 address in network order.
    Ipv6([u8; 16]),
}

impl fmt::Display for Host<'_> {
    /// As in a URL: an IPv6 address stands in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.utf8_chunks().try_for_each(|part| f.write_str(part.valid())),
            Self::Ipv4(address) => core::net::Ipv4Addr::from(*address).fmt(f),
            Self::Ipv6(address) => write!(f, "[{}]", core::net::Ipv6Addr::from(*address)),
        }
    }
}

/// What a link stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// The client is sent to the other server.
    Redirect,
    /// The other server's stream is passed on.
    Raw,
    /// The other server's stream is passed on, cut where its type says that a newcomer can join.
    Auto,
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redirect => "redirect",
            Self::Raw => "raw",
            Self::Auto => "auto",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn hosts_read_as_in_a_url() {
        assert_eq!(Host::Name(b"example.org").to_string(), "example.org");
        assert_eq!(Host::Ipv4([192, 168, 7, 9]).to_string(), "192.168.7.9");
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert_eq!(Host::Ipv6(loopback).to_string(), "[::1]");
    }
}
