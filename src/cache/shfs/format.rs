//! SHFS 2.1 structures as they lie on disk (docs/shfs.md). Little-endian; nothing here is validated.
//!
//! Reader and writer share these structures, so that what one writes the other reads.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte offset of the label's header on each member. Chunk 0 of a member holds nothing else.
pub const LABEL_OFFSET: usize = 1024;
/// Bytes of a member that hold the label: the first 4096, whatever the stripe size.
pub const LABEL_BLOCK_BYTES: usize = 4096;
/// First four bytes of a label.
pub const MAGIC: [u8; 4] = *b"SHFS";
/// Version: major, minor.
pub const VERSION: [u8; 2] = [2, 1];
/// Most members of a volume.
pub const MAX_MEMBERS: usize = 16;
/// Smallest stripe in bytes.
pub const MIN_STRIPE_BYTES: u32 = 4096;
/// Largest stripe in bytes.
pub const MAX_STRIPE_BYTES: u32 = 32768;
/// Chunk that holds the configuration.
pub const CONFIG_CHUNK: u64 = 1;
/// Bytes of a hash table entry on disk (245 rounded up).
pub const ENTRY_BYTES: usize = 256;
/// Longest digest in bytes.
pub const MAX_DIGEST_BYTES: usize = 64;
/// Longest object name in bytes.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest MIME type in bytes.
pub const MAX_MIME_BYTES: usize = 32;

/// `vol_byteorder` of a little-endian volume.
pub const BYTE_ORDER_LITTLE: u8 = 0;
/// `vol_byteorder` of a big-endian volume.
pub const BYTE_ORDER_BIG: u8 = 1;
/// `member_stripemode`: stripes dealt out to the members one by one.
pub const STRIPE_MODE_INDEPENDENT: u8 = 0;
/// `member_stripemode`: a chunk is one stripe of every member.
pub const STRIPE_MODE_COMBINED: u8 = 1;

/// `hfunc`: digests are whatever the maker of the volume says.
pub const HASH_MANUAL: u8 = 1;
/// `hfunc`: SHA-1 or SHA-2 by length.
pub const HASH_SHA: u8 = 2;
/// `hfunc`: CRC-32, most significant bit first.
pub const HASH_CRC: u8 = 3;
/// `hfunc`: MD5.
pub const HASH_MD5: u8 = 4;
/// `hfunc`: HAVAL with 3 passes.
pub const HASH_HAVAL: u8 = 5;

/// Entry flag: hidden (no meaning at run time).
pub const FLAG_HIDDEN: u8 = 0x01;
/// Entry flag: the entry is a link to another server.
pub const FLAG_LINK: u8 = 0x04;
/// Entry flag: the object that `/` names.
pub const FLAG_DEFAULT: u8 = 0x08;

/// Label of a member (`shfs_hdr_common`), at [`LABEL_OFFSET`].
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Label {
    /// [`MAGIC`].
    pub magic: [u8; 4],
    /// [`VERSION`].
    pub version: [u8; 2],
    /// UUID of the volume (RFC 4122 byte order).
    pub vol_uuid: [u8; 16],
    /// Name, zero padded, not necessarily terminated.
    pub vol_name: [u8; 16],
    /// [`BYTE_ORDER_LITTLE`] or [`BYTE_ORDER_BIG`].
    pub vol_byteorder: u8,
    /// Always 0.
    pub vol_encoding: u8,
    /// Highest chunk number + 1 that the allocator hands out.
    pub vol_size: U64,
    /// Unix time of creation in seconds.
    pub vol_ts_creation: U64,
    /// [`STRIPE_MODE_INDEPENDENT`] or [`STRIPE_MODE_COMBINED`].
    pub member_stripemode: u8,
    /// Bytes of a stripe.
    pub member_stripesize: U32,
    /// UUID of this member.
    pub member_uuid: [u8; 16],
    /// Number of members.
    pub member_count: u8,
    /// UUIDs of all members in order; unused ones are zero.
    pub members: [[u8; 16]; MAX_MEMBERS],
}

/// Configuration of a volume (`shfs_hdr_config`), at byte 0 of [`CONFIG_CHUNK`].
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Config {
    /// First chunk of the hash table.
    pub htable_ref: U64,
    /// First chunk of the table's copy, 0 for none.
    pub htable_bak_ref: U64,
    /// Hash function.
    pub hfunc: u8,
    /// Bytes of a digest.
    pub hlen: u8,
    /// Number of buckets.
    pub htable_bucket_count: U32,
    /// Entries of a bucket.
    pub htable_entries_per_bucket: U32,
    /// Allocator that the tools use: 0 first fit, 1 best fit.
    pub allocator: u8,
}

/// One slot of the hash table (`shfs_hentry`). Empty iff the first `hlen` bytes of the digest are zero.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Entry {
    /// Digest; only the first `hlen` bytes count.
    pub digest: [u8; MAX_DIGEST_BYTES],
    /// [`FileAttributes`] or [`LinkAttributes`], by [`FLAG_LINK`].
    pub attributes: [u8; 108],
    /// Unix time in seconds at which the object was added.
    pub ts_creation: U64,
    /// `FLAG_…`.
    pub flags: u8,
    /// Name, zero padded, not necessarily terminated.
    pub name: [u8; MAX_NAME_BYTES],
    /// Zero.
    pub padding: [u8; 11],
}

/// Attributes of an object whose bytes lie on the volume.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FileAttributes {
    /// First chunk.
    pub chunk: U64,
    /// Byte offset within the first chunk.
    pub offset: U64,
    /// Length in bytes.
    pub len: U64,
    /// MIME type, zero padded.
    pub mime: [u8; MAX_MIME_BYTES],
    /// Content coding, zero padded (the original's tools leave it empty).
    pub encoding: [u8; 16],
    /// Unused.
    pub unused: [u8; 36],
}

/// Attributes of a link to another server.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct LinkAttributes {
    /// 0 name, 1 IPv4, 2 IPv6.
    pub host_type: u8,
    /// Name bytes, or the address in network order.
    pub host: [u8; 32],
    /// The original's compiler left a hole here.
    pub padding: u8,
    /// TCP port.
    pub port: U16,
    /// Path without its leading slash.
    pub path: [u8; 71],
    /// 0 redirect, 1 raw, 2 auto.
    pub link_type: u8,
}

impl Entry {
    /// An empty slot.
    pub fn empty() -> Self {
        Self::new_zeroed()
    }
}

const _: () = {
    assert!(size_of::<Label>() == 334);
    assert!(size_of::<Config>() == 27);
    assert!(size_of::<Entry>() == ENTRY_BYTES);
    assert!(size_of::<FileAttributes>() == 108);
    assert!(size_of::<LinkAttributes>() == 108);
};
