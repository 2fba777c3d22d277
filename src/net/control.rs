//! The control plane: a smoltcp interface between two frame queues.
//!
//! Frames are linearised into the receive queue while the device lends them, and processed in [`Control::poll`]. What smoltcp
//! sends waits in the transmit queue until the ring takes it; while that queue is full smoltcp gets no token, so back-pressure
//! reaches its sockets. smoltcp never sees a segment for the serving port: the demultiplexer keeps those.

use alloc::vec::Vec;
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress};

use super::addresses::Addresses;
use super::config::NetworkConfig;
use super::frame_queue::FrameQueue;
use super::newcomer::{self, Advertisement};
use super::sessions::{ControlService, RECEIVE_BUFFER_BYTES, Sessions};
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
}

pub(super) struct Control {
    phy: Phy,
    interface: Interface,
    sockets: SocketSet<'static>,
    sessions: Option<Sessions>,
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
        let interface = interface(config, addresses, capabilities.hardware_address, seed, &mut phy);
        let mut sockets = SocketSet::new(Vec::new());
        let sessions = config.shell_port.map(|port| Sessions::new(port, &mut sockets));
        Self {
            phy,
            interface,
            sockets,
            sessions,
            seed,
            up: true,
            due: true,
            deadline: None,
            listener_query: false,
            reports_until: None,
        }
    }

    /// Begins anew with what the device can do now. Sessions stay: their peers repeat what was lost.
    pub fn device_up(
        &mut self,
        config: &NetworkConfig,
        addresses: &Addresses,
        hardware_address: [u8; 6],
        capabilities: &Capabilities,
    ) {
        self.phy.device_up(capabilities);
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.interface = interface(config, addresses, hardware_address, self.seed, &mut self.phy);
        self.up = true;
        self.due = true;
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
    pub fn enqueue(
        &mut self,
        frame: &RxFrame,
        frame_bytes: usize,
        listener_query: bool,
        addresses: &Addresses,
        hardware_address: [u8; 6],
    ) -> bool {
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
        if let Some(address) = newcomer::wants(buffer, addresses) {
            let advertisement = Advertisement::new(address, hardware_address);
            // Without room in the queue it is lost as on a wire, and the newcomer may ask again.
            if let Some(buffer) = self.phy.tx.push(advertisement.frame_bytes()) {
                advertisement.emit(buffer);
            }
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
        stats: &Stats,
    ) -> bool {
        if !self.up {
            return false;
        }
        let mut busy = self.phy.transmit_queued(queue, stats);
        let due = self.due || self.deadline.is_some_and(|deadline| deadline <= now);
        if !due && !busy && self.phy.rx.is_empty() {
            return false;
        }
        self.due = false;
        // At most what the queue holds now: while it is processed nothing is added.
        while !self.phy.rx.is_empty() {
            match self.interface.poll_ingress_single(now, &mut self.phy, &mut self.sockets) {
                PollIngressSingleResult::None if !self.phy.transmit_queued(queue, stats) => break,
                _ => busy = true,
            }
        }
        if let Some(sessions) = &mut self.sessions {
            busy |= sessions.poll(now, &mut self.sockets, service);
            self.due = sessions.is_woken();
        }
        while self.interface.poll_egress(now, &mut self.phy, &mut self.sockets) == PollResult::SocketStateChanged {
            busy = true;
            if self.phy.tx.is_full() && !self.phy.transmit_queued(queue, stats) {
                break;
            }
        }
        busy |= self.phy.transmit_queued(queue, stats);
        if let Some(sessions) = &mut self.sessions {
            sessions.listen_again(&mut self.sockets);
        }
        self.set_deadline(now);
        busy
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
            [interface, sessions, reports].into_iter().flatten().min()
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
    config: &NetworkConfig,
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
    if let Some(gateway) = config.gateway_v4 {
        let added = routes.add_default_ipv4_route(gateway);
        debug_assert!(added.is_ok(), "there is room for two routes");
    }
    if let Some(gateway) = config.gateway_v6 {
        let added = routes.add_default_ipv6_route(gateway);
        debug_assert!(added.is_ok(), "there is room for two routes");
    }
    interface
}

impl Phy {
    fn new(capabilities: &Capabilities) -> Self {
        let mut phy = Self { rx: FrameQueue::new(1, 1), tx: FrameQueue::new(1, 1), max_frame_bytes: 0 };
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
    fn transmit_queued(&mut self, queue: &mut impl NetQueue, stats: &Stats) -> bool {
        let mut any = false;
        while let Some(head) = self.tx.front() {
            let capabilities = queue.capabilities();
            if head.len() > capabilities.head_bytes || head.len() > ETHERNET_BYTES + usize::from(capabilities.mtu_bytes)
            {
                stats.tx_control_dropped.increment();
            } else if queue.transmit(&TxFrame { head, slices: &[], offload: Offload::None }).is_err() {
                break;
            }
            self.tx.pop();
            any = true;
        }
        any
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
        capabilities.max_transmission_unit = self.max_frame_bytes;
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
