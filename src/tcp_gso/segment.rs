//! Segments as they cross the border of this room.

use arrayvec::ArrayVec;
use smoltcp::wire::{IpAddress, TcpRepr};

use crate::rings::MAX_RX_SLICES;

/// A TCP segment that arrived, parsed and with its checksum verified (or vouched for by the device). Lent for one call.
#[derive(Debug)]
pub struct RxSegment<'a> {
    /// The interface it came in by, part of a connection's key.
    pub interface: u8,
    /// The sender's MAC address: where the answer goes (the way back is the way it came).
    pub remote_hardware_address: [u8; 6],
    /// Sender.
    pub source: IpAddress,
    /// Receiver: one of our addresses.
    pub destination: IpAddress,
    /// The TCP header with its options; its `payload` is empty, see below.
    pub header: TcpRepr<'a>,
    /// The payload, in order; the sum of the lengths is the segment's length.
    pub payload: ArrayVec<&'a [u8], MAX_RX_SLICES>,
}

impl RxSegment<'_> {
    /// Payload length in bytes.
    pub fn payload_bytes(&self) -> usize {
        self.payload.iter().map(|part| part.len()).sum()
    }
}
