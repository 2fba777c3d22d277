//! One RX/TX pair of a network interface.

use smoltcp::time::Instant;

use super::{RxFrame, TxFrame};

/// What a network device can do. Read at each transmit: a backend may restart with less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The interface's MAC address.
    pub hardware_address: [u8; 6],
    /// Largest IP packet on the wire, in bytes (so without the Ethernet header).
    pub mtu_bytes: u16,
    /// Most slots of a frame: the head's and one for each slice. 1 means no scatter-gather: frames are all head.
    pub max_slots: usize,
    /// Longest frame to be segmented by the device, in bytes with the Ethernet header (Xen: 65,535). Frames that are not to be
    /// segmented are limited by the MTU. More than 65,535 concerns IPv4 alone, whose total length is then 0 (Linux's BIG TCP):
    /// over IPv6 a longer packet would need an extension header.
    pub max_frame_bytes: usize,
    /// Longest [`TxFrame::head`] in bytes; at least 14 + `mtu_bytes` where `max_slots` is 1.
    pub head_bytes: usize,
    /// The device completes TCP checksums ([`super::Offload::Checksum`]), for both IP versions.
    pub checksum: bool,
    /// The device segments TCP over IPv4. Implies `checksum`.
    pub tso4: bool,
    /// The device segments TCP over IPv6. Implies `checksum`.
    pub tso6: bool,
}

/// A change of the device's state, in the order in which it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// Nothing can be sent or received until `Up`; every page that was in flight has come back, frames on the way are lost.
    Down,
    /// The device works, with these capabilities.
    Up(Capabilities),
    /// The device has been removed for good.
    Gone,
}

/// The ring takes no frame now; nothing was changed. Try again after [`NetQueue::reclaim`] made room or `Up` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One RX/TX pair.
///
/// A round of the event loop is: `event` until `None`, `reclaim`, `receive`, any number of `transmit`, `flush`. Only when a
/// whole round found nothing to do is `arm` called, and only when that returns false may the loop sleep.
pub trait NetQueue {
    /// What the device can do now.
    fn capabilities(&self) -> Capabilities;

    /// The next change of state, oldest first. A device is down until its first `Up`.
    fn event(&mut self) -> Option<NetEvent>;

    /// Lends up to `budget` received frames to `sink` and returns how many there were. Their pages are taken back after each
    /// call of `sink`.
    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize;

    /// Puts a frame into the ring; the other side learns of it at [`NetQueue::flush`]. `Full` changes nothing, and is what a
    /// device that is down says.
    ///
    /// # Panics
    /// In debug builds, if the frame exceeds [`Capabilities`]: that is the caller's mistake, never the peer's.
    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full>;

    /// Publishes what `transmit` put into the ring, with at most one notification.
    fn flush(&mut self);

    /// Takes back the pages of completed frames and returns how many frames that were.
    fn reclaim(&mut self) -> usize;

    /// Asks to be woken when something happens. True if something did meanwhile: then don't sleep.
    fn arm(&mut self) -> bool;

    /// When `receive` or `flush` has something to do though nobody wakes us; in the past if it has now. `None`: never.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }
}
