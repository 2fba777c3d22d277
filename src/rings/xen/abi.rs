//! What front and back ends share, bit by bit: Xen's public headers (`xen/include/public/`), named as there.
//!
//! The crate xen-sys has the hypercalls' part of the ABI, which [`crate::boot`] uses; grant tables and the devices' rings are not
//! in it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Grant table entries, version 1 (`grant_table.h`).
pub mod grant {
    use super::*;

    /// `grant_entry_v1`: which page another domain may use, and how.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct Entry {
        /// `GTF_*`.
        pub flags: u16,
        /// The domain that is allowed to.
        pub domid: u16,
        /// The page's guest frame number.
        pub frame: u32,
    }

    /// The entry allows a domain to map or copy the page.
    pub const GTF_PERMIT_ACCESS: u16 = 1;
    /// Only to read.
    pub const GTF_READONLY: u16 = 1 << 2;
    /// Xen: the page is mapped or being copied.
    pub const GTF_READING: u16 = 1 << 3;
    /// Xen: the page is mapped writable or being copied to.
    pub const GTF_WRITING: u16 = 1 << 4;
    /// Entries that belong to the tools: the console's and the store's pages.
    pub const RESERVED: u32 = 8;
}

/// Network interfaces (`io/netif.h`).
pub mod net {
    use super::*;

    /// `netif_tx_request`, also where it stands for a later slot of a packet.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct TxRequest {
        /// The page.
        pub gref: u32,
        /// Where in it the bytes begin.
        pub offset: u16,
        /// `NETTXF_*`.
        pub flags: u16,
        /// Given back with the response.
        pub id: u16,
        /// First slot: bytes of the whole packet. Others: bytes of this slot.
        pub size: u16,
    }

    /// The checksum is left to the back end; the field holds the pseudo-header's sum.
    pub const NETTXF_CSUM_BLANK: u16 = 1;
    /// The data need no check.
    pub const NETTXF_DATA_VALIDATED: u16 = 1 << 1;
    /// The packet goes on in the next slot.
    pub const NETTXF_MORE_DATA: u16 = 1 << 2;
    /// An extra info follows.
    pub const NETTXF_EXTRA_INFO: u16 = 1 << 3;

    /// `netif_extra_info` with its GSO member.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct ExtraInfo {
        /// `XEN_NETIF_EXTRA_TYPE_*`.
        pub kind: u8,
        /// `XEN_NETIF_EXTRA_FLAG_*`.
        pub flags: u8,
        /// GSO: payload bytes of a segment.
        pub gso_size: u16,
        /// GSO: `XEN_NETIF_GSO_TYPE_*`.
        pub gso_type: u8,
        /// GSO: nothing.
        pub pad: u8,
        /// GSO: none are known.
        pub gso_features: u16,
    }

    /// The extra info is about GSO.
    pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
    /// Another extra info follows.
    pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;
    /// TCP over IPv4.
    pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const XEN_NETIF_GSO_TYPE_TCPV6: u8 = 2;

    /// `netif_tx_response`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct TxResponse {
        /// The request's.
        pub id: u16,
        /// `NETIF_RSP_*`.
        pub status: i16,
    }

    /// The packet was dropped (memory, congestion).
    pub const NETIF_RSP_DROPPED: i16 = -2;
    /// The packet or request made no sense.
    pub const NETIF_RSP_ERROR: i16 = -1;
    /// All is well.
    pub const NETIF_RSP_OKAY: i16 = 0;
    /// The answer to an extra info's slot.
    pub const NETIF_RSP_NULL: i16 = 1;

    /// `netif_rx_request`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct RxRequest {
        /// Given back with the response.
        pub id: u16,
        /// Nothing.
        pub pad: u16,
        /// The page to write to.
        pub gref: u32,
    }

    /// `netif_rx_response`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct RxResponse {
        /// The request's.
        pub id: u16,
        /// Where in the page the bytes begin.
        pub offset: u16,
        /// `NETRXF_*`.
        pub flags: u16,
        /// Bytes in this slot, or a negative `NETIF_RSP_*`.
        pub status: i16,
    }

    /// The checksum has been checked, or need not be.
    pub const NETRXF_DATA_VALIDATED: u16 = 1;
    /// The checksum field holds the pseudo-header's sum only.
    pub const NETRXF_CSUM_BLANK: u16 = 1 << 1;
    /// The packet goes on in the next slot.
    pub const NETRXF_MORE_DATA: u16 = 1 << 2;
    /// An extra info follows.
    pub const NETRXF_EXTRA_INFO: u16 = 1 << 3;

    /// Bytes of an entry of the TX ring: the larger of request and response.
    pub const TX_ENTRY_BYTES: usize = size_of::<TxRequest>();
    /// Bytes of an entry of the RX ring.
    pub const RX_ENTRY_BYTES: usize = size_of::<RxRequest>();
}

/// Disks (`io/blkif.h`), in the layout of 64-bit x86 (`x86_64-abi`).
pub mod block {
    use super::*;

    /// Most segments of a request that is not indirect.
    pub const BLKIF_MAX_SEGMENTS_PER_REQUEST: usize = 11;
    /// Segments that a page of an indirect request describes.
    pub const SEGMENTS_PER_INDIRECT_PAGE: usize = 512;
    /// Bytes of the unit in which requests count, whatever the disk's sectors are.
    pub const UNIT_BYTES: u64 = 512;

    /// `blkif_request_segment`: first and last unit within a page, both included.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct Segment {
        /// The page.
        pub gref: u32,
        /// First unit.
        pub first_sect: u8,
        /// Last unit.
        pub last_sect: u8,
        /// Nothing.
        pub pad: u16,
    }

    /// `blkif_request`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct Request {
        /// `BLKIF_OP_*`.
        pub operation: u8,
        /// How many of `segments` are meant.
        pub nr_segments: u8,
        /// The virtual device.
        pub handle: u16,
        /// Nothing.
        pub pad: u32,
        /// Given back with the response.
        pub id: u64,
        /// First unit on the disk.
        pub sector_number: u64,
        /// The pages.
        pub segments: [Segment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
    }

    /// `blkif_request_indirect`, filled up to the length of a [`Request`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct IndirectRequest {
        /// [`BLKIF_OP_INDIRECT`].
        pub operation: u8,
        /// What is to be done: [`BLKIF_OP_READ`] or [`BLKIF_OP_WRITE`].
        pub indirect_op: u8,
        /// How many segments the indirect pages describe.
        pub nr_segments: u16,
        /// Nothing.
        pub pad: u32,
        /// Given back with the response.
        pub id: u64,
        /// First unit on the disk.
        pub sector_number: u64,
        /// The virtual device.
        pub handle: u16,
        /// Nothing.
        pub pad2: u16,
        /// The pages with the segments.
        pub indirect_grefs: [u32; 8],
        /// Nothing.
        pub rest: [u32; 13],
    }

    /// Reads.
    pub const BLKIF_OP_READ: u8 = 0;
    /// Writes.
    pub const BLKIF_OP_WRITE: u8 = 1;
    /// Makes what has been written durable.
    pub const BLKIF_OP_FLUSH_DISKCACHE: u8 = 3;
    /// As `indirect_op` says, with segments in pages of their own.
    pub const BLKIF_OP_INDIRECT: u8 = 6;

    /// `blkif_response`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct Response {
        /// The request's.
        pub id: u64,
        /// The request's.
        pub operation: u8,
        /// Nothing.
        pub pad: u8,
        /// `BLKIF_RSP_*`.
        pub status: i16,
        /// Nothing.
        pub pad2: u32,
    }

    /// The operation is not supported.
    pub const BLKIF_RSP_EOPNOTSUPP: i16 = -2;
    /// It failed.
    pub const BLKIF_RSP_ERROR: i16 = -1;
    /// All is well.
    pub const BLKIF_RSP_OKAY: i16 = 0;

    /// In the back end's `info`: the disk can only be read.
    pub const VDISK_READONLY: u32 = 4;

    /// Bytes of a ring's entry.
    pub const ENTRY_BYTES: usize = size_of::<Request>();

    const _: () = assert!(size_of::<Request>() == 112 && size_of::<IndirectRequest>() == 112);
    const _: () = assert!(size_of::<Response>() == 16);
}

/// Rings (`io/ring.h`): four indices, and entries behind them.
pub mod ring {
    /// Index behind the last request.
    pub const REQ_PROD: usize = 0;
    /// The request index at which the back end wants to be notified.
    pub const REQ_EVENT: usize = 4;
    /// Index behind the last response.
    pub const RSP_PROD: usize = 8;
    /// The response index at which the front end wants to be notified.
    pub const RSP_EVENT: usize = 12;
    /// Where the entries begin.
    pub const ENTRIES: usize = 64;

    /// How many entries a ring over so much memory has: as many as fit, rounded down to a power of two.
    pub const fn entries(memory_bytes: usize, entry_bytes: usize) -> u32 {
        1 << ((memory_bytes - ENTRIES) / entry_bytes).ilog2()
    }
}

/// The store (`io/xs_wire.h`).
pub mod store {
    use super::*;

    /// `xsd_sockmsg`: what every message begins with.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
    #[repr(C)]
    pub struct Header {
        /// `XS_*`.
        pub kind: u32,
        /// Given back with the answer.
        pub req_id: u32,
        /// The transaction, or 0.
        pub tx_id: u32,
        /// Bytes that follow.
        pub len: u32,
    }

    /// Names of a node's children.
    pub const XS_DIRECTORY: u32 = 1;
    /// A node's value.
    pub const XS_READ: u32 = 2;
    /// Be told of changes.
    pub const XS_WATCH: u32 = 4;
    /// Be told no longer.
    pub const XS_UNWATCH: u32 = 5;
    /// Begin a transaction.
    pub const XS_TRANSACTION_START: u32 = 6;
    /// End a transaction.
    pub const XS_TRANSACTION_END: u32 = 7;
    /// Set a node's value.
    pub const XS_WRITE: u32 = 11;
    /// Remove a node with all below it.
    pub const XS_RM: u32 = 13;
    /// Not an answer: something has changed.
    pub const XS_WATCH_EVENT: u32 = 15;
    /// An answer: it failed.
    pub const XS_ERROR: u32 = 16;

    /// Most bytes that follow a header (`XENSTORE_PAYLOAD_MAX`).
    pub const PAYLOAD_MAX: usize = 4096;

    /// Bytes of each direction's ring.
    pub const RING_BYTES: u32 = 1024;
    /// Requests.
    pub const REQ: usize = 0;
    /// Answers.
    pub const RSP: usize = 1024;
    /// Index behind the last byte of the requests that the store has read.
    pub const REQ_CONS: usize = 2048;
    /// Index behind the last byte of the requests.
    pub const REQ_PROD: usize = 2052;
    /// Index behind the last byte of the answers that we have read.
    pub const RSP_CONS: usize = 2056;
    /// Index behind the last byte of the answers.
    pub const RSP_PROD: usize = 2060;
}
