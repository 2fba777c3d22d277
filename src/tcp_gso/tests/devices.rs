//! A device that keeps what it is given, and the reading of it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{EthernetFrame, IpAddress, Ipv4Packet, Ipv6Packet, TcpControl, TcpPacket, TcpRepr};

use crate::rings::{Capabilities, Full, NetEvent, NetQueue, Offload, PageSlice, RxFrame, TxFrame};

/// All that a device can do, and its parts.
pub fn capabilities() -> Capabilities {
    Capabilities {
        hardware_address: [2, 0, 0, 0, 0, 1],
        mtu_bytes: 1500,
        max_slots: 18,
        max_frame_bytes: 65_535,
        head_bytes: 2048,
        checksum: true,
        tso4: true,
        tso6: true,
    }
}

/// A frame that was transmitted.
#[derive(Clone, Debug)]
pub struct Frame {
    pub head: Vec<u8>,
    pub slices: Vec<PageSlice>,
    pub offload: Offload,
}

impl Frame {
    pub fn bytes(&self) -> Vec<u8> {
        self.slices.iter().fold(self.head.clone(), |mut all, slice| {
            all.extend_from_slice(slice.bytes());
            all
        })
    }
}

/// Keeps frames, as far as it has room, and checks that they obey its capabilities.
pub struct FakeQueue {
    pub capabilities: Capabilities,
    pub frames: VecDeque<Frame>,
    pub room: usize,
}

impl FakeQueue {
    pub fn new(capabilities: Capabilities) -> Self {
        Self { capabilities, frames: VecDeque::new(), room: usize::MAX }
    }
}

impl NetQueue for FakeQueue {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn event(&mut self) -> Option<NetEvent> {
        None
    }

    fn receive(&mut self, _budget: usize, _sink: &mut dyn FnMut(&RxFrame)) -> usize {
        0
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        if self.room == 0 {
            return Err(Full);
        }
        self.room -= 1;
        let limits = &self.capabilities;
        assert!(frame.head.len() <= limits.head_bytes, "a head of {} bytes", frame.head.len());
        let most_slots = if limits.max_frame_bytes > 65_535 { limits.max_slots } else { limits.max_slots.min(17) };
        assert!(frame.slots() <= most_slots, "{} slots", frame.slots());
        let is_ipv6 = frame.head[12..14] == [0x86, 0xdd];
        match frame.offload {
            Offload::Segment { mss_bytes, .. } => {
                assert!(if is_ipv6 { limits.tso6 } else { limits.tso4 });
                assert!(frame.len() <= limits.max_frame_bytes && mss_bytes > 0);
            }
            _ => assert!(frame.len() <= 14 + limits.mtu_bytes as usize, "{} bytes", frame.len()),
        }
        assert!(limits.checksum || frame.offload == Offload::None);
        let (head, slices) = (frame.head.to_vec(), frame.slices.to_vec());
        self.frames.push_back(Frame { head, slices, offload: frame.offload });
        Ok(())
    }

    fn flush(&mut self) {}

    fn reclaim(&mut self) -> usize {
        0
    }

    fn arm(&mut self) -> bool {
        false
    }
}

/// What a frame says, for a test to look at.
#[derive(Clone, Debug)]
pub struct Sent {
    pub port: u16,
    pub seq: u32,
    pub ack: Option<u32>,
    pub control: TcpControl,
    pub psh: bool,
    pub window: u16,
    pub window_scale: Option<u8>,
    pub mss: Option<u16>,
    pub sack_permitted: bool,
    pub sack: Vec<(u32, u32)>,
    pub timestamp: Option<(u32, u32)>,
    pub payload: Vec<u8>,
    /// The payload's slices, as (page address, offset, length).
    pub slices: Vec<(usize, usize, usize)>,
    pub segment_bytes: Option<u16>,
    pub remote_hardware_address: [u8; 6],
}

impl Sent {
    pub fn len(&self) -> u32 {
        self.payload.len() as u32
    }

    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len())
    }

    pub fn is(&self, control: TcpControl) -> bool {
        self.control == control
    }
}

/// Source, destination and TCP part of a frame.
pub fn dissect(frame: &[u8]) -> (IpAddress, IpAddress, &[u8]) {
    let ethernet = EthernetFrame::new_checked(frame).unwrap();
    match frame[12] {
        0x08 => {
            let packet = Ipv4Packet::new_unchecked(&frame[14..]);
            assert!(packet.verify_checksum());
            let total = frame.len() - 14;
            assert_eq!(packet.total_len(), u16::try_from(total).unwrap_or(0));
            (packet.src_addr().into(), packet.dst_addr().into(), &frame[34..])
        }
        _ => {
            let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
            assert_eq!(packet.total_len(), ethernet.payload().len());
            (packet.src_addr().into(), packet.dst_addr().into(), &frame[54..])
        }
    }
}

/// Reads a frame back.
pub fn read(frame: &Frame) -> Sent {
    let bytes = frame.bytes();
    let (source, destination, tcp) = dissect(&bytes);
    let packet = TcpPacket::new_checked(tcp).unwrap();
    let mut checks = ChecksumCapabilities::default();
    if frame.offload != Offload::None {
        checks.tcp = Checksum::None;
        // Of a length that the pseudo-header's field can't hold smoltcp knows nothing.
        let known = tcp.len() > u16::MAX.into() || packet.verify_partial_checksum(&source, &destination);
        assert!(known, "the pseudo-header's sum");
    }
    let repr = TcpRepr::parse(&packet, &source, &destination, &checks).unwrap();
    Sent {
        port: repr.dst_port,
        seq: repr.seq_number.0 as u32,
        ack: repr.ack_number.map(|ack| ack.0 as u32),
        control: if repr.control == TcpControl::Psh { TcpControl::None } else { repr.control },
        psh: packet.psh(),
        window: repr.window_len,
        window_scale: repr.window_scale,
        mss: repr.max_seg_size,
        sack_permitted: repr.sack_permitted,
        sack: repr.sack_ranges.iter().flatten().copied().collect(),
        timestamp: repr.timestamp.map(|t| (t.tsval, t.tsecr)),
        payload: repr.payload.to_vec(),
        slices: frame.slices.iter().map(|s| (s.page_address(), s.offset(), s.len())).collect(),
        segment_bytes: match frame.offload {
            Offload::Segment { mss_bytes, .. } => Some(mss_bytes),
            _ => None,
        },
        remote_hardware_address: bytes[..6].try_into().unwrap(),
    }
}
