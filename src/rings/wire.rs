//! What appears on the wire for a frame that was left to a device to finish: complete checksums, super-frames cut.
//!
//! Network hardware does this for a driver; this is the same in software, for devices and instruments that stand for a wire. Frames
//! may come from anybody: whatever does not parse is [`Malformed`], never a panic.

use alloc::vec::Vec;
use smoltcp::wire::checksum;

use super::{Family, Offload, PartialChecksum, RxChecksum, RxFrame};

/// Bytes of an Ethernet header.
pub const ETHERNET_BYTES: usize = 14;

/// Bytes of a VLAN tag (IEEE 802.1Q §9.3), and how many of them may precede the IP header.
const VLAN_BYTES: usize = 4;
const MAX_VLANS: usize = 2;

const IPV4_MIN_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const TCP_MIN_BYTES: usize = 20;

/// Most bytes of headers: room for two VLAN tags, IPv6 with extension headers and TCP with options.
const MAX_HEADER_BYTES: usize = 256;

const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Where the sequence number, the data offset, the flags and the checksum lie in a TCP header (RFC 9293 §3.1).
const TCP_SEQUENCE: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;
const FLAG_FIN: u8 = 0x01;
const FLAG_PSH: u8 = 0x08;
/// RFC 3168 §6.1.2.
const FLAG_CWR: u8 = 0x80;

/// Where the checksum lies in a UDP header (RFC 768), in which 0 stands for "none".
const UDP_CHECKSUM: u16 = 6;

/// The frame's headers don't suit what is to be done with it. A device would put garbage on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The family and the start of the IP header, behind VLAN tags. `None` for other protocols.
pub fn ip_start(frame: &[u8]) -> Option<(Family, usize)> {
    let mut at = ETHERNET_BYTES - 2;
    for _ in 0..=MAX_VLANS {
        match frame.get(at..at + 2)? {
            [0x08, 0x00] => return Some((Family::Ipv4, at + 2)),
            [0x86, 0xdd] => return Some((Family::Ipv6, at + 2)),
            [0x81, 0x00] | [0x88, 0xa8] => at += VLAN_BYTES,
            _ => return None,
        }
    }
    None
}

/// Completes a checksum of which the field holds the pseudo-header's sum. False, and nothing changed, where it does not lie in
/// the frame.
pub fn complete(frame: &mut [u8], partial: PartialChecksum) -> bool {
    let start = usize::from(partial.start);
    let field = start + usize::from(partial.offset);
    if field + 2 > frame.len() {
        return false;
    }
    let sum = match !checksum::data(&frame[start..]) {
        0 if partial.offset == UDP_CHECKSUM => 0xffff,
        sum => sum,
    };
    frame[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// Where the checksum of a TCP or UDP frame is completed, for devices that only say that it is to be. `None` where the frame's headers
/// lead to neither.
pub fn transport_checksum(frame: &[u8]) -> Option<PartialChecksum> {
    let (family, ip) = ip_start(frame)?;
    let (protocol, start) = match family {
        Family::Ipv4 => {
            let header_bytes = usize::from(frame.get(ip)? & 15) * 4;
            (*frame.get(ip + 9)?, ip + header_bytes.max(IPV4_MIN_BYTES))
        }
        Family::Ipv6 => {
            let mut next = (*frame.get(ip + 6)?, ip + IPV6_BYTES);
            // RFC 8200 §4: hop-by-hop, routing and destination options say what follows, and their length in units of 8 bytes.
            while let (0 | 43 | 60, at) = next {
                next = (*frame.get(at)?, at + 8 * (1 + usize::from(*frame.get(at + 1)?)));
            }
            next
        }
    };
    let offset = match protocol {
        PROTOCOL_TCP => TCP_CHECKSUM as u16,
        PROTOCOL_UDP => UDP_CHECKSUM,
        _ => return None,
    };
    let field = start + usize::from(offset);
    (field + 2 <= frame.len()).then_some(PartialChecksum { start: start.try_into().ok()?, offset })
}

/// What is left to do with a received frame: the counterpart of the offload that it was sent with.
pub fn offload_of(frame: &RxFrame) -> Offload {
    match (frame.gso, frame.checksum) {
        (Some(gso), RxChecksum::Partial(checksum)) => {
            Offload::Segment { checksum, family: gso.family, mss_bytes: gso.mss_bytes }
        }
        // Its checksum is that of the whole, which no segment can use: `start` is found in the headers.
        (Some(gso), _) => {
            let checksum = PartialChecksum { start: 0, offset: TCP_CHECKSUM as u16 };
            Offload::Segment { checksum, family: gso.family, mss_bytes: gso.mss_bytes }
        }
        (None, RxChecksum::Partial(checksum)) => Offload::Checksum(checksum),
        (None, RxChecksum::Unknown | RxChecksum::Verified) => Offload::None,
    }
}

/// Hands each frame that appears on the wire for `frame` to `sink`, in order, and returns how many there were. `frame` serves
/// as the memory for them: its content is lost.
///
/// As Linux's software segmentation and hardware do: the checksums are complete, sequence numbers and IPv4 identifications
/// count up, FIN and PSH go to the last segment and CWR to the first. An IPv4 length or IPv6 payload length of 0 stands for
/// "up to the end of the frame" (Linux's BIG TCP).
///
/// # Errors
/// If the headers don't parse as the offload says. `sink` has not been called then.
pub fn wire_frames(frame: &mut [u8], offload: Offload, sink: &mut dyn FnMut(&mut [u8])) -> Result<usize, Malformed> {
    match offload {
        Offload::None => sink(frame),
        Offload::Checksum(partial) => {
            let end = padding_start(frame);
            if !complete(&mut frame[..end], partial) {
                return Err(Malformed);
            }
            sink(frame);
        }
        Offload::Segment { checksum, family, mss_bytes } => {
            let headers = Headers::parse(frame, family, checksum)?;
            return headers.cut(frame, usize::from(mss_bytes), sink);
        }
    }
    Ok(1)
}

/// Where the IP packet ends: what follows in a short frame is the Ethernet's padding, and no part of any sum.
fn padding_start(frame: &[u8]) -> usize {
    let length = ip_start(frame).and_then(|(family, ip)| ip_end(frame, family, ip));
    length.unwrap_or(frame.len())
}

/// The end of the IP packet as its header says, where it lies in the frame.
fn ip_end(frame: &[u8], family: Family, ip: usize) -> Option<usize> {
    let (field, counted_from) = match family {
        Family::Ipv4 => (ip + 2, ip),
        Family::Ipv6 => (ip + 4, ip + IPV6_BYTES),
    };
    let field = frame.get(field..field + 2)?;
    match u16::from_be_bytes([field[0], field[1]]) {
        0 => Some(frame.len()),
        length => Some(counted_from + usize::from(length)).filter(|end| *end <= frame.len()),
    }
}

/// Where a super-frame's headers lie; all of it within the frame.
struct Headers {
    family: Family,
    ip: usize,
    tcp: usize,
    payload: usize,
    /// Behind the payload's last byte.
    end: usize,
}

impl Headers {
    /// Checks the headers of a super-frame.
    fn parse(frame: &[u8], expected: Family, checksum: PartialChecksum) -> Result<Self, Malformed> {
        let (family, ip) = ip_start(frame).filter(|(family, _)| *family == expected).ok_or(Malformed)?;
        let end = ip_end(frame, family, ip).ok_or(Malformed)?;
        let header = frame.get(ip..end).ok_or(Malformed)?;
        let (least, protocol) = match family {
            Family::Ipv4 if header.len() >= IPV4_MIN_BYTES => (usize::from(header[0] & 15) * 4, header[9]),
            Family::Ipv6 if header.len() >= IPV6_BYTES => (IPV6_BYTES, header[6]),
            _ => return Err(Malformed),
        };
        // `csum_start` is behind IPv6 extension headers, too; without it there must be none.
        let tcp = match usize::from(checksum.start) {
            0 if protocol == PROTOCOL_TCP => ip + least,
            start => start,
        };
        let starts_where_it_may = match family {
            Family::Ipv4 => least >= IPV4_MIN_BYTES && protocol == PROTOCOL_TCP && tcp == ip + least,
            Family::Ipv6 => tcp >= ip + least && (protocol == PROTOCOL_TCP) == (tcp == ip + least),
        };
        if !starts_where_it_may || usize::from(checksum.offset) != TCP_CHECKSUM || tcp + TCP_MIN_BYTES > end {
            return Err(Malformed);
        }
        let tcp_header_bytes = usize::from(frame[tcp + TCP_DATA_OFFSET] >> 4) * 4;
        let payload = tcp + tcp_header_bytes;
        if tcp_header_bytes < TCP_MIN_BYTES || payload >= end || payload > MAX_HEADER_BYTES {
            return Err(Malformed);
        }
        Ok(Self { family, ip, tcp, payload, end })
    }

    /// Writes each segment's headers right before its payload, over the end of the one before.
    fn cut(&self, frame: &mut [u8], mss_bytes: usize, sink: &mut dyn FnMut(&mut [u8])) -> Result<usize, Malformed> {
        let payload_bytes = self.end - self.payload;
        let segment_bytes = self.payload + mss_bytes.min(payload_bytes);
        if mss_bytes == 0 || segment_bytes - self.ip > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        let count = payload_bytes.div_ceil(mss_bytes);
        let mut saved = [0; MAX_HEADER_BYTES];
        let head = &mut saved[..self.payload];
        head.copy_from_slice(&frame[..self.payload]);
        for index in 0..count {
            let start = index * mss_bytes;
            let length = mss_bytes.min(payload_bytes - start);
            let segment = &mut frame[start..start + self.payload + length];
            segment[..self.payload].copy_from_slice(head);
            self.finish(segment, index, index + 1 == count, start);
            sink(segment);
        }
        Ok(count)
    }

    /// Makes a copy of the super-frame's headers that of one segment.
    fn finish(&self, segment: &mut [u8], index: usize, last: bool, offset: usize) {
        let bytes = segment.len();
        let (head, tcp) = segment.split_at_mut(self.tcp);
        let ip = &mut head[self.ip..];
        let addresses = match self.family {
            Family::Ipv4 => {
                ip[2..4].copy_from_slice(&((bytes - self.ip) as u16).to_be_bytes());
                let identification = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(index as u16);
                ip[4..6].copy_from_slice(&identification.to_be_bytes());
                ip[10..12].fill(0);
                let sum = !checksum::data(ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                &ip[12..20]
            }
            Family::Ipv6 => {
                ip[4..6].copy_from_slice(&((bytes - self.ip - IPV6_BYTES) as u16).to_be_bytes());
                &ip[8..40]
            }
        };
        let sequence = u32::from_be_bytes([
            tcp[TCP_SEQUENCE],
            tcp[TCP_SEQUENCE + 1],
            tcp[TCP_SEQUENCE + 2],
            tcp[TCP_SEQUENCE + 3],
        ]);
        tcp[TCP_SEQUENCE..TCP_SEQUENCE + 4].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
        if !last {
            tcp[TCP_FLAGS] &= !(FLAG_FIN | FLAG_PSH);
        }
        if index > 0 {
            tcp[TCP_FLAGS] &= !FLAG_CWR;
        }
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].fill(0);
        // RFC 9293 §3.1, RFC 8200 §8.1: addresses, protocol and length of the pseudo-header, then the segment.
        let length_and_protocol = checksum::combine(&[tcp.len() as u16, PROTOCOL_TCP.into()]);
        let sums = [checksum::data(addresses), length_and_protocol, checksum::data(tcp)];
        let sum = !checksum::combine(&sums);
        tcp[TCP_CHECKSUM..TCP_CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Puts the pieces of a frame together in `buffer`, in place of what it held.
pub fn gather<'a>(parts: impl Iterator<Item = &'a [u8]>, buffer: &mut Vec<u8>) {
    buffer.clear();
    parts.for_each(|part| buffer.extend_from_slice(part));
}

#[cfg(test)]
mod tests;
