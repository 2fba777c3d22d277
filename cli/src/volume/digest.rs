//! Digests that name objects, and the UUIDs derived from them.

use std::time::SystemTime;

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Bytes of the digests of volumes made here.
pub const DIGEST_BYTES: usize = 32;

/// SHA-256 of something.
pub type ObjectDigest = [u8; DIGEST_BYTES];

/// Begins the digest of an object of a packed `manual` volume: over name, NUL and content. Unique for each name, changed
/// by any edit, and anybody can check it.
pub fn of_name_and_content(name: &[u8]) -> Sha256 {
    Sha256::new().chain_update(name).chain_update([0])
}

/// The digest of an object of a served folder: over name, NUL, length and modification time, so that no content is read.
pub fn of_identity(name: &[u8], length_bytes: u64, modified: SystemTime) -> ObjectDigest {
    let (before_epoch, distance) = match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (0u8, since),
        Err(before) => (1, before.duration()),
    };
    Sha256::new()
        .chain_update(name)
        .chain_update([0])
        .chain_update(length_bytes.to_le_bytes())
        .chain_update([before_epoch])
        .chain_update(distance.as_secs().to_le_bytes())
        .chain_update(distance.subsec_nanos().to_le_bytes())
        .finalize()
        .into()
}

/// A UUID (version 8, RFC 9562 section 5.8) made of what it names, so that equal volumes are equal byte for byte.
pub fn uuid_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize()[..16]);
    *Uuid::new_v8(bytes).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_identity_changes_with_each_of_its_parts() {
        let at = |nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        let base = of_identity(b"a", 1, at(1));
        assert_eq!(base, of_identity(b"a", 1, at(1)));
        for other in [
            of_identity(b"b", 1, at(1)),
            of_identity(b"a", 2, at(1)),
            of_identity(b"a", 1, at(2)),
            of_identity(b"a", 1, SystemTime::UNIX_EPOCH - Duration::from_nanos(1)),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn name_and_content_is_plain_sha256() {
        // printf 'index.html\0hello' | sha256sum
        let digest: ObjectDigest = of_name_and_content(b"index.html").chain_update(b"hello").finalize().into();
        assert_eq!(hex(&digest), "825e95a07f00d2626b72d18db2422f65b7b94282054ec527156a6f2d43f2daee");
    }

    #[test]
    fn uuids_are_of_version_8() {
        let uuid = Uuid::from_bytes(uuid_of(&[b"a", b"b"]));
        assert_eq!(uuid.get_version_num(), 8);
        assert_ne!(uuid.as_bytes(), &uuid_of(&[b"ab"]));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
