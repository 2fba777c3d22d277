//! An IPv4 address that the network lends us (DHCP, RFC 2131): smoltcp's client, and what it does not look at.
//!
//! Its answers are read here before the client sees them: one with an address that can't be ours, or that lends it for no time
//! at all, is dropped like a frame that was lost.

use arrayvec::ArrayVec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::dhcpv4::{Event, Socket};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpCidr,
    IpProtocol, Ipv4Address, Ipv4Cidr, Ipv4Packet, UdpPacket,
};

use super::config::is_host;

/// The ports of a server and of a client (RFC 2131 §4.1).
pub(super) const SERVER_PORT: u16 = 67;
pub(super) const CLIENT_PORT: u16 = 68;

/// What is asked for: subnet mask, router, DNS servers, and the link's MTU (RFC 2132).
const REQUESTED: &[u8] = &[1, OPTION_ROUTERS, 6, OPTION_MTU];

/// Routers, the one to use first in front (RFC 2132 §3.5).
const OPTION_ROUTERS: u8 = 3;

/// The interface's MTU (RFC 2132 §5.1).
const OPTION_MTU: u8 = 26;

/// A smaller MTU is not believed: every link carries this much (RFC 791), and less would only make work.
const MIN_MTU_BYTES: u16 = 576;

/// Time between searches for a server (RFC 2131 §4.1: from 4 s on).
const DISCOVER_INTERVAL: Duration = Duration::from_secs(4);

/// A shorter lease is not taken: it would have to be renewed all the time.
const MIN_LEASE: Duration = Duration::from_secs(10);

/// A lease is renewed no sooner, whatever its server says: one that is to be renewed at once would be renewed without end.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// What smoltcp takes a lease for whose server gives no time.
const DEFAULT_LEASE: Duration = Duration::from_secs(120);

/// Most DNS servers that are kept.
pub(super) const MAX_SERVERS: usize = 3;

/// An address for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Our address and its network.
    pub address: Ipv4Cidr,
    /// The router, if there is one.
    pub router: Option<Ipv4Address>,
    /// The DNS servers, the one to ask first in front.
    pub dns_servers: ArrayVec<Ipv4Address, MAX_SERVERS>,
    /// The MTU of the link in bytes, if the server knows it.
    pub mtu_bytes: Option<u16>,
    /// Who lends.
    pub server: Ipv4Address,
    /// When it ends unless it is renewed.
    pub expires_at: Instant,
}

/// What a server's answer says of which smoltcp tells nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    lease: Duration,
    message_type: DhcpMessageType,
    /// smoltcp reads that option only where it holds a single one.
    router: Option<Ipv4Address>,
    mtu_bytes: Option<u16>,
}

/// What there is to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is no answer of a DHCP server.
    Other,
    /// The client may see it.
    Answer(Answer),
    /// It makes no sense.
    Refused,
}

/// Judges a frame; its checksums are for smoltcp to verify.
fn screen(frame: &[u8], hardware_address: [u8; 6]) -> Verdict {
    let Some(payload) = answer_payload(frame) else { return Verdict::Other };
    let Ok(packet) = DhcpPacket::new_checked(payload) else { return Verdict::Refused };
    let Ok(repr) = DhcpRepr::parse(&packet) else { return Verdict::Refused };
    if repr.client_hardware_address != EthernetAddress(hardware_address) {
        return Verdict::Other;
    }
    let lease = repr.lease_duration.map_or(DEFAULT_LEASE, |seconds| Duration::from_secs(seconds.into()));
    let lends = matches!(repr.message_type, DhcpMessageType::Offer | DhcpMessageType::Ack);
    if lends && (lease < MIN_LEASE || !repr.subnet_mask.is_some_and(|mask| fits(repr.your_ip, mask))) {
        return Verdict::Refused;
    }
    let mtu = packet.options().find(|option| option.kind == OPTION_MTU);
    let mtu_bytes = mtu.and_then(|option| <[u8; 2]>::try_from(option.data).ok()).map(u16::from_be_bytes);
    let mtu_bytes = mtu_bytes.filter(|bytes| *bytes >= MIN_MTU_BYTES);
    let routers = packet.options().find(|option| option.kind == OPTION_ROUTERS);
    let is_useful = |address: &Ipv4Address| IpAddress::Ipv4(*address).is_unicast() && *address != repr.your_ip;
    let router = routers.and_then(|option| {
        option.data.as_chunks().0.iter().map(|octets: &[u8; 4]| Ipv4Address::from(*octets)).find(is_useful)
    });
    Verdict::Answer(Answer { lease, message_type: repr.message_type, router, mtu_bytes })
}

/// True if a host can have the address in a network with that mask.
fn fits(address: Ipv4Address, mask: Ipv4Address) -> bool {
    let prefix = IpAddress::Ipv4(mask).prefix_len().filter(|prefix| *prefix > 0);
    prefix.is_some_and(|prefix| is_host(&IpCidr::Ipv4(Ipv4Cidr::new(address, prefix))))
}

/// The UDP payload of a frame from a server's port to a client's.
fn answer_payload(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
    if ip.next_header() != IpProtocol::Udp {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    (udp.src_port() == SERVER_PORT && udp.dst_port() == CLIENT_PORT).then(|| udp.payload())
}

/// The client.
#[derive(Debug)]
pub(super) struct Dhcp {
    handle: SocketHandle,
    lease: Option<Lease>,
    /// No offer is looked at before.
    next_offer_at: Instant,
    /// The lease is not renewed before.
    next_renewal_at: Instant,
}

impl Dhcp {
    /// A client that begins to search when the control plane is polled.
    pub fn new(sockets: &mut SocketSet<'static>) -> Self {
        let mut socket = Socket::new();
        let mut retry = socket.get_retry_config();
        retry.discover_timeout = DISCOVER_INTERVAL;
        socket.set_retry_config(retry);
        socket.set_parameter_request_list(REQUESTED);
        // With a buffer, even with one that holds nothing, the socket tells of every renewal, not only of changes.
        socket.set_receive_packet_buffer(&mut []);
        Self { handle: sockets.add(socket), lease: None, next_offer_at: Instant::ZERO, next_renewal_at: Instant::ZERO }
    }

    /// Looks at a frame before the client does. Offers are heard once in a while only: after a refusal smoltcp asks again at
    /// once, and with a server that offers and refuses in turn that would go on as fast as the wire is.
    pub fn look(&mut self, now: Instant, frame: &[u8], hardware_address: [u8; 6]) -> Verdict {
        let verdict = screen(frame, hardware_address);
        let Verdict::Answer(answer) = verdict else { return verdict };
        match answer.message_type {
            DhcpMessageType::Offer if now < self.next_offer_at => Verdict::Refused,
            DhcpMessageType::Offer => {
                self.next_offer_at = now + DISCOVER_INTERVAL;
                verdict
            }
            DhcpMessageType::Ack if now < self.next_renewal_at => Verdict::Refused,
            _ => verdict,
        }
    }

    /// What we have been lent.
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Searches from the beginning: the MAC address that the lease was for is gone.
    pub fn restart(&mut self, sockets: &mut SocketSet<'static>) {
        self.lease = None;
        sockets.get_mut::<Socket<'static>>(self.handle).reset();
    }

    /// Asks the client what has become of the lease; `answer` is what it has just been shown. True if address, router or MTU
    /// are others now.
    pub fn update(&mut self, now: Instant, answer: Option<Answer>, sockets: &mut SocketSet<'static>) -> bool {
        match sockets.get_mut::<Socket<'static>>(self.handle).poll() {
            None => false,
            Some(Event::Deconfigured) => {
                let lost = self.lease.take();
                if let Some(lease) = &lost {
                    warn!("DHCP: the lease of {} is over", lease.address);
                }
                lost.is_some()
            }
            Some(Event::Configured(config)) => {
                let Some(answer) = answer else { return false };
                self.next_renewal_at = now + MIN_RENEWAL;
                let lease = Lease {
                    address: config.address,
                    router: answer.router,
                    dns_servers: config.dns_servers.iter().copied().take(MAX_SERVERS).collect(),
                    mtu_bytes: answer.mtu_bytes,
                    server: config.server.identifier,
                    expires_at: now + answer.lease,
                };
                let uses = |lease: &Lease| (lease.address, lease.router, lease.mtu_bytes);
                match lease.router {
                    Some(router) => {
                        info!("DHCP: {} lends {} for {}, router {}", lease.server, lease.address, answer.lease, router);
                    }
                    None => info!("DHCP: {} lends {} for {}", lease.server, lease.address, answer.lease),
                }
                let changed = self.lease.as_ref().is_none_or(|before| uses(before) != uses(&lease));
                self.lease = Some(lease);
                changed
            }
        }
    }
}
