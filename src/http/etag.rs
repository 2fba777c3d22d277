//! Entity tags (RFC 9110 §8.8.3).
//!
//! An object's tag is made of its digest, length and time of creation, in hexadecimal: the digest alone may be of the name, or
//! by the original's tools of less than the content. It is strong: an object's bytes never change under the same tag.

use arrayvec::ArrayVec;

use crate::cache::shfs::format::MAX_DIGEST_BYTES;

/// Longest tag of ours, with its quotes: digest, two numbers of 64 bits, two dashes.
pub const MAX_ETAG_BYTES: usize = 2 * MAX_DIGEST_BYTES + 2 * 16 + 2 + 2;

/// An entity tag of ours, with its quotes.
pub type ETag = ArrayVec<u8, MAX_ETAG_BYTES>;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// An object's entity tag.
pub fn of(digest: &[u8], length_bytes: u64, created_unix_s: u64) -> ETag {
    let mut tag = ETag::new();
    tag.push(b'"');
    for &byte in digest {
        tag.push(HEX[usize::from(byte >> 4)]);
        tag.push(HEX[usize::from(byte & 15)]);
    }
    for number in [length_bytes, created_unix_s] {
        tag.push(b'-');
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        tag.extend((0..digits).rev().map(|digit| HEX[(number >> (4 * digit)) as usize & 15]));
    }
    tag.push(b'"');
    tag
}
