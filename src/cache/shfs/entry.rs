//! An entry of the hash table, checked.

use core::fmt;
use zerocopy::FromBytes;

use super::config::Config;
use super::format::{self, FLAG_LINK, FileAttributes, LinkAttributes};
use super::geometry::is_empty_digest;
use super::label::until_nul;
use super::{Content, Host, Layout, Link, LinkKind, Object};

/// What is wrong with an entry. All but [`EntryDamage::Mime`] make the object unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryDamage {
    /// The extent's end can't be counted, or lies beyond the volume's.
    ExtentOffVolume {
        /// `chunk`.
        chunk: u64,
        /// `offset`.
        offset_bytes: u64,
        /// `len`.
        length_bytes: u64,
        /// The volume's last chunk.
        last_chunk: u64,
    },
    /// The extent begins in or crosses label, configuration or table.
    ExtentInMetadata {
        /// `chunk`.
        chunk: u64,
    },
    /// The MIME type holds bytes that may not stand in a header; the object is kept without one.
    Mime,
    /// Unknown host type of a link.
    HostType(u8),
    /// The host name of a link is empty, or holds bytes that may not stand in a URL's.
    HostName,
    /// The port of a link is 0.
    Port,
    /// The path of a link holds control bytes.
    Path,
    /// Unknown type of a link.
    LinkKind(u8),
}

impl fmt::Display for EntryDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExtentOffVolume { chunk, offset_bytes, length_bytes, last_chunk } => write!(
                f,
                "object left out: chunk {chunk}, offset {offset_bytes}, len {length_bytes} reach beyond the volume, \
                 which ends with chunk {last_chunk}"
            ),
            Self::ExtentInMetadata { chunk } => write!(
                f,
                "object left out: chunk {chunk} and its extent overlap the volume's label, configuration or hash table"
            ),
            Self::Mime => f.write_str("object kept without its mime, which holds control or non-ASCII bytes"),
            Self::HostType(value) => {
                write!(f, "link left out: host type is {value}, but must be 0 (name), 1 (IPv4) or 2 (IPv6)")
            }
            Self::HostName => f.write_str("link left out: host is empty or holds bytes that no host name has"),
            Self::Port => f.write_str("link left out: port is 0, but must be from 1 to 65535"),
            Self::Path => f.write_str("link left out: path holds control bytes"),
            Self::LinkKind(value) => {
                write!(f, "link left out: type is {value}, but must be 0 (redirect), 1 (raw) or 2 (auto)")
            }
        }
    }
}

impl core::error::Error for EntryDamage {}

/// Reads an entry. `None` for an empty slot, whatever else stands in it: the original's tools clear only the digest when they
/// remove an object. An object may come with damage that it survived.
pub(super) fn parse<'a>(
    raw: &'a format::Entry,
    config: &Config,
    layout: &Layout,
) -> Option<Result<(Object<'a>, Option<EntryDamage>), EntryDamage>> {
    let digest = &raw.digest[..config.digest_bytes];
    if is_empty_digest(digest) {
        return None;
    }
    let content = if raw.flags & FLAG_LINK == 0 {
        let attributes = FileAttributes::ref_from_bytes(&raw.attributes).expect("attributes have one size");
        let mime = until_nul(&attributes.mime);
        let sound = mime.iter().all(|byte| (0x20..0x7f).contains(byte));
        extent(attributes, config, layout)
            .map(|content| (content, if sound { mime } else { &[] }, (!sound).then_some(EntryDamage::Mime)))
    } else {
        let attributes = LinkAttributes::ref_from_bytes(&raw.attributes).expect("attributes have one size");
        link(attributes).map(|link| (Content::Link(link), &[][..], None))
    };
    Some(content.map(|(content, mime, damage)| {
        let created_unix_s = raw.ts_creation.get();
        (Object { name: until_nul(&raw.name), digest, mime, created_unix_s, flags: raw.flags, content }, damage)
    }))
}

fn extent(raw: &FileAttributes, config: &Config, layout: &Layout) -> Result<Content<'static>, EntryDamage> {
    let (chunk, offset_bytes, length_bytes) = (raw.chunk.get(), raw.offset.get(), raw.len.get());
    if length_bytes == 0 {
        // Nothing will be read, so it does not matter where.
        return Ok(Content::Extent { chunk, offset_bytes: 0, length_bytes });
    }
    let chunk_bytes = u64::from(layout.chunk_bytes());
    let last_chunk = layout.last_chunk();
    let off_volume = EntryDamage::ExtentOffVolume { chunk, offset_bytes, length_bytes, last_chunk };
    // The format lets the offset be larger than a chunk.
    let first = chunk.checked_add(offset_bytes / chunk_bytes).ok_or(off_volume)?;
    let offset_in_first = offset_bytes % chunk_bytes;
    if chunk == 0 {
        return Err(EntryDamage::ExtentInMetadata { chunk });
    }
    if !layout.holds_extent(first, offset_in_first, length_bytes) {
        return Err(off_volume);
    }
    let last = first + (offset_in_first + length_bytes - 1) / chunk_bytes;
    if config.table.is_metadata(first, last) {
        return Err(EntryDamage::ExtentInMetadata { chunk });
    }
    Ok(Content::Extent { chunk: first, offset_bytes: offset_in_first, length_bytes })
}

fn link(raw: &LinkAttributes) -> Result<Link<'_>, EntryDamage> {
    let host = match raw.host_type {
        0 => {
            let name = until_nul(&raw.host);
            let fits = |&byte: &u8| byte > b' ' && byte != 0x7f && !b"/?#@\\".contains(&byte);
            if name.is_empty() || !name.iter().all(fits) {
                return Err(EntryDamage::HostName);
            }
            Host::Name(name)
        }
        1 => Host::Ipv4(*raw.host.first_chunk().expect("a host has 32 bytes")),
        2 => Host::Ipv6(*raw.host.first_chunk().expect("a host has 32 bytes")),
        other => return Err(EntryDamage::HostType(other)),
    };
    let port = raw.port.get();
    if port == 0 {
        return Err(EntryDamage::Port);
    }
    let path = until_nul(&raw.path);
    if path.iter().any(u8::is_ascii_control) {
        return Err(EntryDamage::Path);
    }
    let kind = match raw.link_type {
        0 => LinkKind::Redirect,
        1 => LinkKind::Raw,
        2 => LinkKind::Auto,
        other => return Err(EntryDamage::LinkKind(other)),
    };
    Ok(Link { host, port, path, kind })
}
