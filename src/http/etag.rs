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

/// An object's entity tag.
pub fn of(digest: &[u8], length_bytes: u64, created_unix_s: u64) -> ETag {
    let mut tag = ETag::new();
    tag.push(b'"');
    let mut digits = [[0; 8]; MAX_DIGEST_BYTES / 4];
    for (digits, word) in digits.iter_mut().zip(digest.chunks(4)) {
        let mut whole = [0; 4];
        whole[..word.len()].copy_from_slice(word);
        *digits = hex(u32::from_be_bytes(whole));
    }
    put(&mut tag, &digits.as_flattened()[..2 * digest.len()]);
    for number in [length_bytes, created_unix_s] {
        tag.push(b'-');
        let zeros = number.leading_zeros() as usize / 4;
        let digits = [hex((number >> 32) as u32), hex(number as u32)];
        put(&mut tag, &digits.as_flattened()[zeros.min(15)..]);
    }
    tag.push(b'"');
    tag
}

fn put(tag: &mut ETag, digits: &[u8]) {
    tag.try_extend_from_slice(digits).expect("MAX_ETAG_BYTES holds the longest digest and numbers");
}

/// Eight hexadecimal digits.
fn hex(value: u32) -> [u8; 8] {
    // Each half of a byte becomes a byte, the first digit the highest; then all eight become characters at once.
    let mut digits = u64::from(value);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

/// The entity tags of a list, each with its `W/`, if it has one, and its quotes. Ends at what is no tag.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    core::iter::from_fn(move || {
        // Elements may be empty (RFC 9110 §5.6.1.2).
        let start = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b','))?;
        rest = &rest[start..];
        let open = if rest.starts_with(b"W/") { 2 } else { 0 };
        if rest.get(open) != Some(&b'"') {
            rest = &[];
            return None;
        }
        let inner = &rest[open + 1..];
        let Some(close) = inner.iter().position(|&byte| byte == b'"') else {
            rest = &[];
            return None;
        };
        let (tag, behind) = rest.split_at(open + close + 2);
        rest = behind;
        Some(tag)
    })
}

/// Strong comparison (RFC 9110 §8.8.3.2) of a client's tag with ours, which is strong.
pub fn matches_strongly(theirs: &[u8], ours: &[u8]) -> bool {
    theirs == ours
}

/// Weak comparison of a client's tag with ours.
pub fn matches_weakly(theirs: &[u8], ours: &[u8]) -> bool {
    theirs.strip_prefix(b"W/").unwrap_or(theirs) == ours
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn tags_tell_digest_length_and_time() {
        assert_eq!(&of(&[0x0f, 0xa0], 0, 0)[..], b"\"0fa0-0-0\"");
        assert_eq!(&of(&[0xff], 0x1234, 0x6b02_a15f)[..], b"\"ff-1234-6b02a15f\"");
        let longest = of(&[0xab; MAX_DIGEST_BYTES], u64::MAX, u64::MAX);
        assert_eq!(longest.len(), MAX_ETAG_BYTES);
        assert!(longest.ends_with(b"-ffffffffffffffff-ffffffffffffffff\""));
    }

    #[test]
    fn lists_of_tags() {
        let tags = |value: &'static str| list(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(tags("\"a\""), [b"\"a\""]);
        assert_eq!(tags("\"a\", W/\"b,c\" ,, \"\""), [&b"\"a\""[..], b"W/\"b,c\"", b"\"\""]);
        assert_eq!(tags(" , "), [b""; 0]);
        assert_eq!(tags("\"a\", b, \"c\""), [b"\"a\""]);
        assert_eq!(tags("\"a"), [b""; 0]);
        assert_eq!(tags("w/\"a\""), [b""; 0]);
    }

    #[test]
    fn strong_and_weak_comparison() {
        assert!(matches_strongly(b"\"a\"", b"\"a\"") && matches_weakly(b"\"a\"", b"\"a\""));
        assert!(!matches_strongly(b"W/\"a\"", b"\"a\"") && matches_weakly(b"W/\"a\"", b"\"a\""));
        assert!(!matches_strongly(b"\"b\"", b"\"a\"") && !matches_weakly(b"W/\"b\"", b"\"a\""));
    }
}
