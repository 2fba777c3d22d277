//! A link between the stack and smoltcp's TCP, on virtual time: super-frames are cut and checksums completed as a device
//! would, then frames are lost, doubled, delayed and damaged by a seeded coin.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use smoltcp::iface::{Config as InterfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, HardwareAddress,
    Icmpv6Packet, Icmpv6Repr, IpCidr, IpEndpoint, IpProtocol, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr, RawHardwareAddress, TcpPacket, TcpRepr,
};

use super::devices::{Frame, dissect};
use super::world::{CLIENT, CLIENT6, SERVER, SERVER6, World, response};
use crate::rings::Offload;
use crate::tcp_gso::RxSegment;

const CLIENT_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
const SERVER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

/// A small generator of pseudo-random numbers (SplitMix64).
pub struct Coin(pub u64);

impl Coin {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in `per_mille` of 1,000 throws.
    pub fn shows(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

/// How bad the link is; each in frames of 1,000.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub lost: u64,
    pub doubled: u64,
    pub delayed: u64,
    pub damaged: u64,
}

/// Sums 16-bit words.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for pair in parts.concat().chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The frames that go over the wire for one that was transmitted.
pub fn on_the_wire(frame: &Frame) -> Vec<Vec<u8>> {
    let bytes = frame.bytes();
    let (start, mss_bytes) = match frame.offload {
        Offload::None => return alloc::vec![bytes],
        Offload::Checksum(checksum) => (checksum.start as usize, usize::MAX),
        Offload::Segment { checksum, mss_bytes, .. } => (checksum.start as usize, mss_bytes as usize),
    };
    let headers = start + (bytes[start + 12] >> 4) as usize * 4;
    let seq = u32::from_be_bytes(bytes[start + 4..start + 8].try_into().unwrap());
    let payload = &bytes[headers..];
    let pieces: Vec<&[u8]> =
        if payload.is_empty() { alloc::vec![payload] } else { payload.chunks(mss_bytes.min(payload.len())).collect() };
    let mut frames = Vec::new();
    let mut offset = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let mut cut = [&bytes[..headers], piece].concat();
        let tcp_length = cut.len() - start;
        cut[start + 4..start + 8].copy_from_slice(&seq.wrapping_add(offset).to_be_bytes());
        if index + 1 < pieces.len() {
            cut[start + 13] &= !0x09;
        }
        let pseudo = if start == 34 {
            cut[16..18].copy_from_slice(&((20 + tcp_length) as u16).to_be_bytes());
            cut[24..26].fill(0);
            let sum = checksum(&[&cut[14..34]]);
            cut[24..26].copy_from_slice(&sum.to_be_bytes());
            cut[26..34].to_vec()
        } else {
            cut[18..20].copy_from_slice(&(tcp_length as u16).to_be_bytes());
            cut[22..54].to_vec()
        };
        cut[start + 16..start + 18].fill(0);
        let sum = checksum(&[&pseudo, &[0, 6], &(tcp_length as u16).to_be_bytes(), &cut[start..]]);
        cut[start + 16..start + 18].copy_from_slice(&sum.to_be_bytes());
        offset += piece.len() as u32;
        frames.push(cut);
    }
    frames
}

/// smoltcp's end of the link.
#[derive(Default)]
struct Port {
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);
struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = alloc::vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Leaving<'_>)> {
        Some((Arrived(self.arrived.pop_front()?), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A client that fetches bodies one after the other, each over a connection of its own or all over one.
pub struct Fetcher {
    pub handle: SocketHandle,
    pub received: Vec<u8>,
    pub expected: Vec<u8>,
    /// Fetched completely.
    pub done: usize,
    requested: Vec<u8>,
    port: u16,
}

/// The stack, the link, and smoltcp.
pub struct Sim {
    pub world: World,
    pub trouble: Trouble,
    pub coin: Coin,
    pub delay: Duration,
    pub is_ipv6: bool,
    interface: Interface,
    port: Port,
    sockets: SocketSet<'static>,
    pub fetchers: Vec<Fetcher>,
    /// On the way, by time of arrival: true for those to the stack.
    on_the_way: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    sent: u64,
    pub damaged: u64,
}

impl Sim {
    pub fn new(world: World, trouble: Trouble, delay: Duration, is_ipv6: bool, seed: u64) -> Self {
        let mut port = Port::default();
        let config = InterfaceConfig::new(HardwareAddress::Ethernet(CLIENT_MAC));
        let mut interface = Interface::new(config, &mut port, world.now);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(CLIENT, 24)).unwrap();
            addresses.push(IpCidr::new(CLIENT6, 64)).unwrap();
        });
        Self {
            world,
            trouble,
            coin: Coin(seed),
            delay,
            is_ipv6,
            interface,
            port,
            sockets: SocketSet::new(Vec::new()),
            fetchers: Vec::new(),
            on_the_way: BTreeMap::new(),
            sent: 0,
            damaged: 0,
        }
    }

    /// Adds a client that fetches bodies of these sizes over one connection.
    pub fn fetch(&mut self, sizes: &[usize], window_bytes: usize) {
        let receive = tcp::SocketBuffer::new(alloc::vec![0; window_bytes]);
        let transmit = tcp::SocketBuffer::new(alloc::vec![0; 4096]);
        let mut socket = tcp::Socket::new(receive, transmit);
        let port = 10_000 + self.fetchers.len() as u16;
        let server = IpEndpoint::new(if self.is_ipv6 { SERVER6 } else { SERVER }, 80);
        let client = if self.is_ipv6 { CLIENT6 } else { CLIENT };
        socket.connect(self.interface.context(), server, (client, port)).unwrap();
        let handle = self.sockets.add(socket);
        let mut expected = Vec::new();
        let mut requested = Vec::new();
        for (number, bytes) in sizes.iter().enumerate() {
            expected.extend(response(number, *bytes));
            requested.extend(alloc::format!("{bytes}\n").bytes());
        }
        self.fetchers.push(Fetcher { handle, received: Vec::new(), expected, done: 0, requested, port });
    }

    /// Runs until all has been fetched and both sides have forgotten the connections.
    pub fn run(&mut self, limit: Duration) {
        let end = self.world.now + limit;
        loop {
            while self.step() {}
            if self.fetchers.iter().all(|f| f.done == 1) && self.world.stack.connections().count() == 0 {
                break;
            }
            let link = self.on_the_way.keys().next().map(|(at, _)| *at);
            let client = self.interface.poll_at(self.world.now, &self.sockets).filter(|at| *at > self.world.now);
            let stack = self.world.stack.next_deadline();
            let next = [link, client, stack].into_iter().flatten().min().expect("somebody has something to do");
            self.world.now = next.max(self.world.now);
            assert!(self.world.now < end, "it takes too long: {:?}", self.progress());
        }
    }

    fn progress(&self) -> Vec<(u16, usize, usize)> {
        self.fetchers.iter().map(|f| (f.port, f.received.len(), f.expected.len())).collect()
    }

    /// Everything that happens now; true if anything did.
    fn step(&mut self) -> bool {
        let now = self.world.now;
        let mut busy = false;
        while let Some(entry) = self.on_the_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to_stack, frame) = entry.remove();
            busy = true;
            if to_stack { self.hand_to_stack(&frame) } else { self.port.arrived.push_back(frame) }
        }
        self.interface.poll(now, &mut self.port, &mut self.sockets);
        busy |= self.serve_sockets();
        self.interface.poll(now, &mut self.port, &mut self.sockets);
        while let Some(frame) = self.port.leaving.pop_front() {
            self.put_on_link(true, frame);
        }
        busy |= self.world.stack.poll(now, &mut self.world.app, &mut self.world.queue);
        while let Some(frame) = self.world.queue.frames.pop_front() {
            for cut in on_the_wire(&frame) {
                self.put_on_link(false, cut);
            }
        }
        busy
    }

    fn serve_sockets(&mut self) -> bool {
        let mut busy = false;
        for fetcher in &mut self.fetchers {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(fetcher.handle);
            if socket.can_send() && !fetcher.requested.is_empty() {
                let sent = socket.send_slice(&fetcher.requested).unwrap();
                fetcher.requested.drain(..sent);
                busy |= sent > 0;
            }
            while socket.can_recv() {
                socket
                    .recv(|bytes| {
                        let from = fetcher.received.len();
                        assert!(fetcher.expected[from..].starts_with(bytes), "wrong bytes behind {from}");
                        fetcher.received.extend_from_slice(bytes);
                        (bytes.len(), ())
                    })
                    .unwrap();
                busy = true;
            }
            if fetcher.done == 0 && fetcher.received.len() == fetcher.expected.len() {
                fetcher.done = 1;
                socket.close();
                busy = true;
            }
            assert!(fetcher.done == 1 || socket.is_open(), "port {}: the connection broke", fetcher.port);
        }
        busy
    }

    fn put_on_link(&mut self, to_stack: bool, mut frame: Vec<u8>) {
        // The neighbour protocols are not what is tested.
        if to_stack && self.answer_neighbour(&frame) {
            return;
        }
        let trouble = self.trouble;
        let copies = 1 + u64::from(self.coin.shows(trouble.doubled));
        for _ in 0..copies {
            if self.coin.shows(trouble.lost) {
                continue;
            }
            let mut at = self.world.now + self.delay;
            if self.coin.shows(trouble.delayed) {
                at += Duration::from_micros(self.coin.below(2 * self.delay.total_micros() + 1000));
            }
            if self.coin.shows(trouble.damaged) {
                let place = 34 + self.coin.below(frame.len() as u64 - 34) as usize;
                frame[place] ^= 1 << self.coin.below(8);
                self.damaged += 1;
            }
            self.sent += 1;
            self.on_the_way.insert((at, self.sent), (to_stack, frame.clone()));
        }
    }

    /// What `net` does: verifies the checksum and hands the segment on.
    fn hand_to_stack(&mut self, frame: &[u8]) {
        let (source, destination, tcp) = dissect(frame);
        let Ok(packet) = TcpPacket::new_checked(tcp) else { return };
        let Ok(repr) = TcpRepr::parse(&packet, &source, &destination, &ChecksumCapabilities::default()) else { return };
        if ![SERVER, SERVER6].contains(&destination) || repr.dst_port != 80 {
            return;
        }
        let pieces = 1 + self.coin.below(4) as usize;
        let payload: ArrayVec<&[u8], 19> = match repr.payload.is_empty() {
            true => ArrayVec::new(),
            false => repr.payload.chunks(repr.payload.len().div_ceil(pieces)).collect(),
        };
        let segment = RxSegment {
            interface: 0,
            remote_hardware_address: CLIENT_MAC.0,
            source,
            destination,
            header: TcpRepr { payload: &[], ..repr },
            payload,
        };
        self.world.stack.receive(segment, self.world.now, &mut self.world.app);
    }

    /// Answers ARP and neighbour solicitations at once; true if the frame was one or is of no interest.
    fn answer_neighbour(&mut self, frame: &[u8]) -> bool {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        let mut reply = Vec::new();
        match ethernet.ethertype() {
            EthernetProtocol::Arp => {
                let arp = ArpRepr::parse(&ArpPacket::new_checked(ethernet.payload()).unwrap()).unwrap();
                let ArpRepr::EthernetIpv4 { source_protocol_addr, target_protocol_addr, .. } = arp else { return true };
                let answer = ArpRepr::EthernetIpv4 {
                    operation: ArpOperation::Reply,
                    source_hardware_addr: SERVER_MAC,
                    source_protocol_addr: target_protocol_addr,
                    target_hardware_addr: CLIENT_MAC,
                    target_protocol_addr: source_protocol_addr,
                };
                reply.resize(14 + answer.buffer_len(), 0);
                answer.emit(&mut ArpPacket::new_unchecked(&mut reply[14..]));
            }
            EthernetProtocol::Ipv6 => {
                let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                if ip.next_header() != IpProtocol::Icmpv6 {
                    return false;
                }
                let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
                let parsed = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &ChecksumCapabilities::default());
                let Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. })) = parsed else { return true };
                let answer = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                    flags: NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
                    target_addr,
                    lladdr: Some(RawHardwareAddress::from(SERVER_MAC)),
                });
                let source: Ipv6Address = target_addr;
                let header = Ipv6Repr {
                    src_addr: source,
                    dst_addr: ip.src_addr(),
                    next_header: IpProtocol::Icmpv6,
                    payload_len: answer.buffer_len(),
                    hop_limit: 255,
                };
                reply.resize(54 + answer.buffer_len(), 0);
                header.emit(&mut Ipv6Packet::new_unchecked(&mut reply[14..]));
                let mut packet = Icmpv6Packet::new_unchecked(&mut reply[54..]);
                answer.emit(&source, &ip.src_addr(), &mut packet, &ChecksumCapabilities::default());
            }
            _ => return false,
        }
        let header = EthernetRepr { src_addr: SERVER_MAC, dst_addr: CLIENT_MAC, ethertype: ethernet.ethertype() };
        header.emit(&mut EthernetFrame::new_unchecked(&mut reply[..]));
        self.port.arrived.push_back(reply);
        true
    }
}
