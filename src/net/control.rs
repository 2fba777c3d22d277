//! The control plane: a smoltcp interface between two frame queues.
//!
//! Frames are linearised into the receive queue while the device lends them, and processed in [`Control::poll`]. What smoltcp
//! sends waits in the transmit queue until the ring takes it; while that queue is full smoltcp gets no token, so back-pressure
//! reaches its sockets. smoltcp never sees a segment for the serving port: the demultiplexer keeps those.

use alloc::vec::Vec;
use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address, Ipv6Address};

use super::addresses::Addresses;
use super::config::{NetworkConfig, StaticNeighbour};
use super::dhcp::{self, Dhcp, Lease};
use super::discovery::{self, Message};
use super::frame_queue::FrameQueue;
use super::sessions::{ControlService, RECEIVE_BUFFER_BYTES, Sessions};
use super::slaac::Slaac;
use super::{neighbours, newcomer};
use crate::rings::{Capabilities, NetQueue, Offload, RxChecksum, RxFrame, TxFrame, wire};
use crate::stats::Stats;

/// Frames that wait for the control plane. A burst beyond that is lost, as on any host; its senders repeat themselves.
const RX_FRAMES: usize = 32;

/// Frames of the control plane that wait for the ring.
const TX_FRAMES: usize = 16;

/// Headers around a session's bytes: Ethernet 14, IP at most 60, TCP at most 60.
const HEADERS_BYTES: usize = 134;

/// The range of packet sizes that the control plane works with: no link carries less (RFC 791: 576 bytes) and ours needs no more
/// (the largest usual jumbo frame), whatever a device claims.
const MTU_BYTES: core::ops::RangeInclusive<usize> = 576..=9000;

const ETHERNET_BYTES: usize = 14;

/// Multicast routers ask who listens to which groups, and smoltcp answers after a while that it keeps to itself (at most the
/// query's maximum response delay, RFC 3810 §9.3: 10 s by default). So it is polled this often for this long after a query.
const LISTENER_POLL: Duration = Duration::from_millis(500);
const LISTENER_REPORT_LIMIT: Duration = Duration::from_secs(12);

/// The two queues, as smoltcp's device.
struct Phy {
    rx: FrameQueue,
    tx: FrameQueue,
    /// Largest frame that the device carries for us, in bytes with the Ethernet header.
    max_frame_bytes: usize,
    /// Largest packet that the network announces, in bytes.
    limit_bytes: Option<usize>,
}

/// The IPv4 and the IPv6 router.
type Gateways = (Option<Ipv4Address>, Option<Ipv6Address>);

/// What the control plane is told with each round.
pub(super) struct Known<'a> {
    pub addresses: &'a Addresses,
    pub hardware_address: [u8; 6],
    pub neighbours: &'a [StaticNeighbour],
    pub stats: &'a Stats,
}

pub(super) struct Control {
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
    sessions: Option<Sessions>,
    dhcp: Option<Dhcp>,
    slaac: Option<Slaac>,
    /// What the network announces is not what it was.
    changed: bool,
    seed: u64,
    up: bool,
    /// smoltcp has to be polled whatever its deadline says.
    due: bool,
    deadline: Option<Instant>,
    /// A query came in and its answer may be pending until then.
    listener_query: bool,
    reports_until: Option<Instant>,
}

impl Control {
    pub fn new(config: &NetworkConfig, addresses: &Addresses, capabilities: &Capabilities, seed: u64) -> Self {
        let mut phy = Phy::new(capabilities);
        let gateways = (config.gateway_v4, config.gateway_v6);
        let interface = interface(gateways, addresses, capabilities.hardware_address, seed, &mut phy);
        let mut sockets = SocketSet::new(Vec::new());
        let sessions = config.shell_port.map(|port| Sessions::new(port, &mut sockets));
        let dhcp = config.dhcp.then(|| Dhcp::new(&mut sockets));
        let slaac = config.slaac.then(|| Slaac::new(capabilities.hardware_address));
        Self {
            phy,
            interface,
            sockets,
            sessions,
            dhcp,
            slaac,
            changed: false,
            seed,
            up: true,
            due: true,
            deadline: None,
            listener_query: false,
            reports_until: None,
        }
    }

    /// Begins anew with what the device can do now; [`Control::configure`] must follow. Sessions stay: their peers repeat what was
    /// lost. So does what the network has announced, unless it was for another MAC address than `after`.
    pub fn device_up(&mut self, capabilities: &Capabilities, before: [u8; 6], after: [u8; 6]) {
        self.phy.device_up(capabilities);
        if let Some(slaac) = &mut self.slaac {
            slaac.device_up(after);
        }
        if let Some(dhcp) = &mut self.dhcp
            && before != after
        {
            dhcp.restart(&mut self.sockets);
        }
        self.up = true;
    }

    /// Has the interface use these addresses, and what the network announces.
    pub fn configure(&mut self, config: &NetworkConfig, addresses: &Addresses, hardware_address: [u8; 6]) {
        let (v4, v6) = self.mtu_limits();
        self.phy.limit_bytes = v4.into_iter().chain(v6).min().map(usize::from);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.interface = interface(self.gateways(config), addresses, hardware_address, self.seed, &mut self.phy);
        if let Some(sessions) = &mut self.sessions {
            sessions.keep(&mut self.sockets, |address| addresses.has(address));
        }
        self.due = true;
    }

    /// True if addresses, routers or MTU that the network announces have changed since the last call: then
    /// [`Control::configure`] must follow.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// The addresses that the network has given us.
    pub fn announced(&self) -> impl Iterator<Item = IpCidr> + '_ {
        let lease = self.lease().map(|lease| IpCidr::Ipv4(lease.address));
        lease.into_iter().chain(self.slaac.iter().flat_map(Slaac::addresses).map(IpCidr::Ipv6))
    }

    /// The routers in use: those that are configured, or else announced.
    pub fn gateways(&self, config: &NetworkConfig) -> Gateways {
        let lent = self.lease().and_then(|lease| lease.router);
        let announced = self.slaac.as_ref().and_then(Slaac::router);
        (config.gateway_v4.or(lent), config.gateway_v6.or(announced))
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn lease(&self) -> Option<&Lease> {
        self.dhcp.as_ref().and_then(Dhcp::lease)
    }

    pub fn slaac(&self) -> Option<&Slaac> {
        self.slaac.as_ref()
    }

    /// The largest IPv4 and IPv6 packets in bytes that the network says its links carry.
    pub fn mtu_limits(&self) -> (Option<u16>, Option<u16>) {
        (self.lease().and_then(|lease| lease.mtu_bytes), self.slaac.as_ref().and_then(Slaac::mtu_bytes))
    }

    pub fn device_down(&mut self) {
        self.phy.rx.clear();
        self.phy.tx.clear();
        self.up = false;
        self.deadline = None;
    }

    pub fn wake_sessions(&mut self) {
        if let Some(sessions) = &mut self.sessions {
            sessions.wake();
            self.due = true;
        }
    }

    /// See [`super::Network::sessions_are_over`]. With the device down nothing will change.
    pub fn sessions_are_over(&self) -> bool {
        !self.up || self.phy.tx.is_empty() && self.sessions.as_ref().is_none_or(Sessions::are_over)
    }

    /// Copies the frame's first `frame_bytes` bytes into the receive queue. False if it has no room for it, or the frame's
    /// partial checksum does not lie in it.
    pub fn enqueue(&mut self, frame: &RxFrame, frame_bytes: usize, listener_query: bool) -> bool {
        if let RxChecksum::Partial(partial) = frame.checksum
            && usize::from(partial.start) + usize::from(partial.offset) + 2 > frame_bytes
        {
            return false;
        }
        let Some(buffer) = self.phy.rx.push(frame_bytes) else { return false };
        frame.copy_to(buffer);
        if let RxChecksum::Partial(partial) = frame.checksum {
            wire::complete(buffer, partial);
        }
        self.listener_query |= listener_query;
        true
    }

    /// One round. True if anything was done.
    pub fn poll(
        &mut self,
        now: Instant,
        queue: &mut impl NetQueue,
        service: &mut impl ControlService,
        known: &Known<'_>,
    ) -> bool {
        if !self.up {
            return false;
        }
        let mut busy = self.phy.transmit_queued(queue, known);
        let due = self.due || self.deadline.is_some_and(|deadline| deadline <= now);
        if !due && !busy && self.phy.rx.is_empty() {
            return false;
        }
        self.due = false;
        // At most what the queue holds now, and what static neighbours answer to what is sent because of it.
        while !self.phy.rx.is_empty() {
            // smoltcp takes no frame while it could not answer.
            if self.phy.tx.is_full() && !self.phy.transmit_queued(queue, known) {
                break;
            }
            busy = true;
            let Some(answer) = self.look_at_first(now, known) else {
                known.stats.rx_malformed.increment();
                self.phy.rx.pop();
                continue;
            };
            self.interface.poll_ingress_single(now, &mut self.phy, &mut self.sockets);
            self.update_lease(now, answer);
        }
        if let Some(slaac) = &mut self.slaac {
            slaac.poll(now, known.addresses.link_local(), &mut |message| send(&mut self.phy.tx, message));
            self.changed |= slaac.take_changed();
        }
        if let Some(sessions) = &mut self.sessions {
            busy |= sessions.poll(now, &mut self.sockets, service);
            self.due = sessions.is_woken();
        }
        while self.interface.poll_egress(now, &mut self.phy, &mut self.sockets) == PollResult::SocketStateChanged {
            busy = true;
            if self.phy.tx.is_full() && !self.phy.transmit_queued(queue, known) {
                break;
            }
        }
        // The lease may have ended.
        self.update_lease(now, None);
        busy |= self.phy.transmit_queued(queue, known);
        if let Some(sessions) = &mut self.sessions {
            sessions.listen_again(&mut self.sockets);
        }
        self.set_deadline(now);
        busy
    }

    /// Looks at the oldest frame before smoltcp does. `None`: it is not to be shown to it; else what it says of a lease.
    #[expect(clippy::option_option, reason = "the outer one is a verdict")]
    fn look_at_first(&mut self, now: Instant, known: &Known<'_>) -> Option<Option<dhcp::Answer>> {
        let Self { phy: Phy { rx, tx, .. }, dhcp, slaac, .. } = self;
        let frame = rx.front()?;
        if neighbours::contradicts(known.neighbours, frame) {
            return None;
        }
        let mut answer = None;
        if let Some(dhcp) = dhcp {
            match dhcp.look(now, frame, known.hardware_address) {
                dhcp::Verdict::Other => {}
                dhcp::Verdict::Answer(said) => answer = Some(said),
                dhcp::Verdict::Refused => return None,
            }
        }
        if let Some(received) = discovery::read(frame) {
            if let Some(address) = newcomer::wants(&received, known.addresses) {
                send(tx, &newcomer::advertisement(address, known.hardware_address));
            }
            if let Some(slaac) = slaac {
                slaac.receive(&received, now);
            }
        }
        Some(answer)
    }

    fn update_lease(&mut self, now: Instant, answer: Option<dhcp::Answer>) {
        if let Some(dhcp) = &mut self.dhcp {
            self.changed |= dhcp.update(now, answer, &mut self.sockets);
        }
    }

    fn set_deadline(&mut self, now: Instant) {
        if core::mem::take(&mut self.listener_query) {
            self.reports_until = Some(now + LISTENER_REPORT_LIMIT);
        }
        self.reports_until = self.reports_until.filter(|until| now < *until);
        // With a full queue nothing can be done before the ring has room, and then the device wakes the loop.
        self.deadline = if self.phy.tx.is_empty() {
            let interface = self.interface.poll_at(now, &self.sockets);
            let sessions = self.sessions.as_ref().and_then(Sessions::next_deadline);
            let reports = self.reports_until.map(|_| now + LISTENER_POLL);
            let slaac = self.slaac.as_ref().and_then(Slaac::next_deadline);
            [interface, sessions, reports, slaac].into_iter().flatten().min()
        } else {
            None
        };
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        match self.due && self.up && self.phy.tx.is_empty() {
            true => Some(Instant::ZERO),
            false => self.deadline,
        }
    }
}

fn interface(
    gateways: Gateways,
    addresses: &Addresses,
    hardware_address: [u8; 6],
    seed: u64,
    phy: &mut Phy,
) -> Interface {
    let mut interface_config = Config::new(HardwareAddress::Ethernet(EthernetAddress(hardware_address)));
    interface_config.random_seed = seed;
    let mut interface = Interface::new(interface_config, phy, Instant::ZERO);
    interface.update_ip_addrs(|list| {
        for cidr in addresses.cidrs() {
            let pushed = list.push(*cidr);
            debug_assert!(pushed.is_ok(), "smoltcp is built with room for {} addresses", addresses.cidrs().len());
        }
    });
    let routes = interface.routes_mut();
    if let Some(gateway) = gateways.0 {
        let added = routes.add_default_ipv4_route(gateway);
        debug_assert!(added.is_ok(), "there is room for two routes");
    }
    if let Some(gateway) = gateways.1 {
        let added = routes.add_default_ipv6_route(gateway);
        debug_assert!(added.is_ok(), "there is room for two routes");
    }
    interface
}

impl Phy {
    fn new(capabilities: &Capabilities) -> Self {
        let mut phy =
            Self { rx: FrameQueue::new(1, 1), tx: FrameQueue::new(1, 1), max_frame_bytes: 0, limit_bytes: None };
        phy.device_up(capabilities);
        phy
    }

    /// Empties the queues, and makes them larger where the device carries larger frames than before.
    fn device_up(&mut self, capabilities: &Capabilities) {
        let claimed = usize::from(capabilities.mtu_bytes).min(capabilities.head_bytes.saturating_sub(ETHERNET_BYTES));
        self.max_frame_bytes = ETHERNET_BYTES + claimed.clamp(*MTU_BYTES.start(), *MTU_BYTES.end());
        // A whole receive window may come as one super-frame.
        let rx_bytes = self.max_frame_bytes.max(RECEIVE_BUFFER_BYTES + HEADERS_BYTES);
        for (queue, slots, slot_bytes) in
            [(&mut self.rx, RX_FRAMES, rx_bytes), (&mut self.tx, TX_FRAMES, self.max_frame_bytes)]
        {
            queue.clear();
            if queue.slot_bytes() < slot_bytes {
                *queue = FrameQueue::new(slots, slot_bytes);
            }
        }
    }

    /// Gives the ring as many queued frames as it takes. True if there were any.
    fn transmit_queued(&mut self, queue: &mut impl NetQueue, known: &Known<'_>) -> bool {
        let mut any = false;
        while let Some(head) = self.tx.front() {
            let capabilities = queue.capabilities();
            if let Some(answer) = neighbours::answer(known.neighbours, head) {
                // Without room it is lost as on a wire, and smoltcp asks again.
                if let Some(buffer) = self.rx.push(answer.frame_bytes()) {
                    answer.emit(buffer);
                }
            } else if head.len() > capabilities.head_bytes
                || head.len() > ETHERNET_BYTES + usize::from(capabilities.mtu_bytes)
            {
                known.stats.tx_control_dropped.increment();
            } else if queue.transmit(&TxFrame { head, slices: &[], offload: Offload::None }).is_err() {
                break;
            }
            self.tx.pop();
            any = true;
        }
        any
    }
}

/// Queues a message. Without room it is lost as on a wire.
fn send(tx: &mut FrameQueue, message: &Message) {
    if let Some(buffer) = tx.push(message.frame_bytes()) {
        message.emit(buffer);
    }
}

impl Device for Phy {
    type RxToken<'a> = ReceivedFrame<'a>;
    type TxToken<'a> = FreeSlot<'a>;

    fn receive(&mut self, _: Instant) -> Option<(ReceivedFrame<'_>, FreeSlot<'_>)> {
        if self.rx.is_empty() || self.tx.is_full() {
            return None;
        }
        Some((ReceivedFrame(&mut self.rx), FreeSlot(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<FreeSlot<'_>> {
        (!self.tx.is_full()).then_some(FreeSlot(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        let limit = self.limit_bytes.map_or(usize::MAX, |bytes| ETHERNET_BYTES + bytes);
        capabilities.max_transmission_unit = self.max_frame_bytes.min(limit);
        capabilities
    }
}

/// The oldest frame of the receive queue.
struct ReceivedFrame<'a>(&'a mut FrameQueue);

impl RxToken for ReceivedFrame<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(self.0.front().unwrap_or(&[]));
        self.0.pop();
        result
    }
}

/// Room for one frame in the transmit queue.
struct FreeSlot<'a>(&'a mut FrameQueue);

impl TxToken for FreeSlot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let slot = self.0.push(length);
        f(slot.expect("a token is given out only for a free slot, and smoltcp keeps to the MTU"))
    }
}
