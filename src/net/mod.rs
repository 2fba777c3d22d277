//! One parse per frame, demultiplexing to the serving TCP or to the control plane.
//!
//! What may enter this room: Ethernet, IPv4, IPv6, and the control plane on a smoltcp `Interface` (ARP, ND, ICMP, and the
//! TCP of µShell). It knows no HTTP.
//!
//! | file | duty |
//! |---|---|
//! | `config` | addresses, gateways and ports, validated |
//! | `addresses` | which addresses are ours, and which groups we listen to |
//! | `dhcp` | an IPv4 address that the network lends us |
//! | `slaac` | IPv6 addresses and routers that the network announces |
//! | `discovery` | frames of neighbour discovery |
//! | `neighbours` | neighbours whose MAC addresses are configured |
//! | `demux` | the one parse of a frame: a segment for the serving TCP, a frame for the control plane, or a reason to drop |
//! | `extensions` | the chain of IPv6 extension headers |
//! | `checksum` | the Internet checksum over slices |
//! | `frame_queue` | a bounded queue of frames in memory of its own |
//! | `control` | the control plane: a smoltcp interface between two frame queues |
//! | `newcomer` | hosts that try out an address that is ours |
//! | `sessions` | TCP sessions of the control plane, behind [`ControlService`] |

mod addresses;
mod checksum;
mod config;
mod control;
mod demux;
mod dhcp;
mod discovery;
mod extensions;
mod frame_queue;
mod neighbours;
mod newcomer;
mod sessions;
mod slaac;

#[cfg(test)]
pub(crate) mod tests;

use alloc::rc::Rc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use smoltcp::time::Instant;
use smoltcp::wire::{IpAddress, IpCidr, Ipv4Address, Ipv6Address, Ipv6Cidr};

use crate::rings::{Capabilities, NetQueue, RxFrame};
use crate::stats::Stats;
use crate::tcp_gso::RxSegment;

pub use config::{
    MAX_ADDRESSES, MAX_DNS_SERVERS, MAX_STATIC_NEIGHBOURS, NetworkConfig, NetworkConfigError, StaticNeighbour,
};
pub use dhcp::Lease;
pub use sessions::{ControlService, NoSessions, SESSIONS, SessionId, SessionOutput};

use addresses::Addresses;
use control::{Control, Known};
use demux::{DropReason, HEADER_VIEW_BYTES, Verdict};

/// One network interface: its addresses, the demultiplexer and the control plane.
pub struct Network {
    config: NetworkConfig,
    hardware_address: [u8; 6],
    addresses: Addresses,
    control: Control,
    /// What the network announces has changed, and nobody has asked yet.
    changed: bool,
    stats: Rc<Stats>,
}

/// What the network has announced, and what follows from it.
#[derive(Clone, Debug)]
pub struct NetworkStatus {
    /// The device works.
    pub up: bool,
    /// The IPv4 router in use.
    pub gateway_v4: Option<Ipv4Address>,
    /// The IPv6 router in use.
    pub gateway_v6: Option<Ipv6Address>,
    /// DNS servers, in order of preference.
    pub dns_servers: Vec<IpAddress>,
    /// The largest IPv4 packet in bytes, where the network limits it.
    pub mtu_v4_bytes: Option<u16>,
    /// The largest IPv6 packet in bytes, where the network limits it.
    pub mtu_v6_bytes: Option<u16>,
    /// `Some` with DHCP: the lease, if there is one.
    pub dhcp: Option<Option<Lease>>,
    /// `Some` with router advertisements: addresses that were announced, but that other hosts have.
    pub slaac: Option<Vec<Ipv6Cidr>>,
    /// Neighbours that need not be asked for.
    pub static_neighbours: Vec<StaticNeighbour>,
}

impl Network {
    /// A network on a device with these capabilities. `seed` makes the control plane's sequence numbers unpredictable.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or the device has no unicast MAC address.
    pub fn new(
        config: NetworkConfig,
        capabilities: &Capabilities,
        seed: u64,
        stats: Rc<Stats>,
    ) -> Result<Self, NetworkConfigError> {
        config.validate()?;
        let hardware_address = capabilities.hardware_address;
        if !is_unicast(hardware_address) {
            return Err(NetworkConfigError::HardwareAddress(hardware_address));
        }
        let addresses = Addresses::new(&config.addresses, core::iter::empty(), hardware_address);
        let control = Control::new(&config, &addresses, capabilities, seed);
        Ok(Self { config, hardware_address, addresses, control, changed: false, stats })
    }

    /// Our addresses: the configured ones, those that the network has given us, and the IPv6 link-local one.
    pub fn addresses(&self) -> &[IpCidr] {
        self.addresses.cidrs()
    }

    /// The interface's MAC address.
    pub fn hardware_address(&self) -> [u8; 6] {
        self.hardware_address
    }

    /// The device works (again), perhaps with other capabilities. What was queued for the old one is lost; µShell's sessions
    /// stay. A MAC address that is not unicast makes no sense and leaves the old one in place.
    pub fn device_up(&mut self, capabilities: &Capabilities) {
        let before = self.hardware_address;
        if is_unicast(capabilities.hardware_address) {
            self.hardware_address = capabilities.hardware_address;
        }
        self.control.device_up(capabilities, before, self.hardware_address);
        self.reconfigure();
    }

    /// Makes what we are of what is configured and what the network announces.
    fn reconfigure(&mut self) {
        let addresses = Addresses::new(&self.config.addresses, self.control.announced(), self.hardware_address);
        self.changed |= addresses.cidrs() != self.addresses.cidrs();
        self.addresses = addresses;
        self.control.configure(&self.config, &self.addresses, self.hardware_address);
    }

    /// True if [`Network::addresses`] or [`Network::mtu_limits`] may have changed since the last call.
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// True for an address of ours.
    pub fn is_ours(&self, address: IpAddress) -> bool {
        self.addresses.has(address)
    }

    /// The largest IPv4 and IPv6 packets in bytes that the network says its links carry, where it says so. The device's own
    /// limit is not in it.
    pub fn mtu_limits(&self) -> (Option<u16>, Option<u16>) {
        self.control.mtu_limits()
    }

    /// What the network has announced, and what follows from it.
    pub fn status(&self) -> NetworkStatus {
        let (mtu_v4_bytes, mtu_v6_bytes) = self.mtu_limits();
        let lease = self.control.lease();
        let lent = lease.iter().flat_map(|lease| &lease.dns_servers).map(|server| IpAddress::Ipv4(*server));
        let slaac = self.control.slaac();
        let (gateway_v4, gateway_v6) = self.control.gateways(&self.config);
        NetworkStatus {
            up: self.control.is_up(),
            gateway_v4,
            gateway_v6,
            dns_servers: self.config.dns_servers.iter().copied().chain(lent).collect(),
            mtu_v4_bytes,
            mtu_v6_bytes,
            dhcp: self.config.dhcp.then(|| lease.cloned()),
            slaac: slaac.map(|slaac| slaac.taken().collect()),
            static_neighbours: self.config.static_neighbours.to_vec(),
        }
    }

    /// The device has gone down: nothing is sent or expected until [`Network::device_up`].
    pub fn device_down(&mut self) {
        self.control.device_down();
    }

    /// Parses a frame once. A segment for the serving port goes to `serve`, its checksum verified or vouched for by the device;
    /// what the control plane can use is queued for [`Network::poll`]; the rest is counted and dropped.
    pub fn receive(&mut self, frame: &RxFrame, serve: &mut impl FnMut(RxSegment<'_>)) {
        // The device keeps headers together where the backend sent them so; only a frame cut up by its sender is copied.
        let mut gathered = ArrayVec::new();
        let view = header_view(frame, &mut gathered);
        match demux::classify(frame, view, &self.config, self.hardware_address, &self.addresses) {
            Verdict::Serve(segment) => serve(segment),
            Verdict::Control { frame_bytes, listener_query } => {
                if self.control.enqueue(frame, frame_bytes, listener_query) {
                    self.stats.rx_control.increment();
                } else {
                    self.stats.rx_control_dropped.increment();
                }
            }
            Verdict::Drop(reason) => self.count(reason),
        }
    }

    fn count(&self, reason: DropReason) {
        let stats = &self.stats;
        match reason {
            DropReason::Malformed => stats.rx_malformed.increment(),
            DropReason::NotOurs => stats.rx_not_ours.increment(),
            DropReason::Fragment => stats.rx_fragments.increment(),
            DropReason::Vlan => stats.rx_vlan.increment(),
            DropReason::HeaderChecksum => stats.rx_bad_checksum.increment(),
            DropReason::SegmentChecksum => {
                stats.rx_bad_checksum.increment();
                stats.tcp_bad_checksum.increment();
            }
        }
    }

    /// Runs the control plane: answers what was queued, moves the bytes of its TCP sessions from and to `service`, and
    /// transmits. True if anything was done.
    pub fn poll(&mut self, now: Instant, queue: &mut impl NetQueue, service: &mut impl ControlService) -> bool {
        let known = Known {
            addresses: &self.addresses,
            hardware_address: self.hardware_address,
            neighbours: &self.config.static_neighbours,
            stats: &self.stats,
        };
        let busy = self.control.poll(now, queue, service, &known);
        if self.control.take_changed() {
            // The MTU, too, may be another.
            self.changed = true;
            self.reconfigure();
            return true;
        }
        busy
    }

    /// Asks for [`ControlService::writable`] of every session in the next poll: the service has something to say unasked.
    pub fn wake_sessions(&mut self) {
        self.control.wake_sessions();
    }

    /// True if nobody is connected to the control service, and all that it said has been acknowledged.
    pub fn sessions_are_over(&self) -> bool {
        self.control.sessions_are_over()
    }

    /// When [`Network::poll`] has something to do without anything being received. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.control.next_deadline()
    }
}

fn is_unicast(hardware_address: [u8; 6]) -> bool {
    hardware_address[0] & 1 == 0 && hardware_address != [0; 6]
}

/// The frame's first bytes in one piece, at most [`HEADER_VIEW_BYTES`] however they are cut: a part of its first slice, or a
/// copy where that is shorter and more follows.
fn header_view<'a>(frame: &'a RxFrame, gathered: &'a mut ArrayVec<u8, HEADER_VIEW_BYTES>) -> &'a [u8] {
    match frame.slices.as_slice() {
        [] => &[],
        [first, rest @ ..] if rest.is_empty() || first.len() >= HEADER_VIEW_BYTES => {
            &first.bytes()[..first.len().min(HEADER_VIEW_BYTES)]
        }
        slices => {
            for slice in slices {
                let take = slice.len().min(gathered.remaining_capacity());
                gathered.extend(slice.bytes()[..take].iter().copied());
            }
            gathered
        }
    }
}
