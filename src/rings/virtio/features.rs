//! Feature bits (virtio 1.2 §5.1.3, §5.2.3, §6). A driver is told with such a mask which ones to do without.

/// virtio-net: the device completes partial checksums.
pub const NET_CSUM: u64 = 1 << 0;
/// virtio-net: received frames may have partial checksums.
pub const NET_GUEST_CSUM: u64 = 1 << 1;
/// virtio-net: the device knows the largest packet.
pub const NET_MTU: u64 = 1 << 3;
/// virtio-net: the device has a MAC address.
pub const NET_MAC: u64 = 1 << 5;
/// virtio-net: received frames may stand for several TCP segments over IPv4.
pub const NET_GUEST_TSO4: u64 = 1 << 7;
/// virtio-net: received frames may stand for several TCP segments over IPv6.
pub const NET_GUEST_TSO6: u64 = 1 << 8;
/// virtio-net: such frames may carry ECN's flags.
pub const NET_GUEST_ECN: u64 = 1 << 9;
/// virtio-net: the device segments TCP over IPv4.
pub const NET_HOST_TSO4: u64 = 1 << 11;
/// virtio-net: the device segments TCP over IPv6.
pub const NET_HOST_TSO6: u64 = 1 << 12;
/// virtio-net: a received frame may take several buffers.
pub const NET_MRG_RXBUF: u64 = 1 << 15;
/// virtio-net: the device knows whether its link is up.
pub const NET_STATUS: u64 = 1 << 16;

/// virtio-blk: the device knows how long a segment may be.
pub const BLK_SIZE_MAX: u64 = 1 << 1;
/// virtio-blk: the device knows how many segments a request may have.
pub const BLK_SEG_MAX: u64 = 1 << 2;
/// virtio-blk: the disk is read-only.
pub const BLK_RO: u64 = 1 << 5;
/// virtio-blk: the disk has sectors of another size than 512 bytes.
pub const BLK_BLK_SIZE: u64 = 1 << 6;
/// virtio-blk: there is a cache to flush.
pub const BLK_FLUSH: u64 = 1 << 9;

/// A legacy device takes any layout of descriptors.
pub const ANY_LAYOUT: u64 = 1 << 27;
/// A descriptor may stand for a table of them.
pub const INDIRECT_DESC: u64 = 1 << 28;
/// Either side says from which index on it wants to be notified.
pub const EVENT_IDX: u64 = 1 << 29;
/// The device follows virtio 1.0 or later.
pub const VERSION_1: u64 = 1 << 32;
/// The device reaches memory as the platform says, by way of an IOMMU perhaps.
pub const ACCESS_PLATFORM: u64 = 1 << 33;
