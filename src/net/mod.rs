//! One parse per frame, demultiplexing to the serving TCP or to the control plane.
//!
//! What may enter this room: Ethernet, IPv4, IPv6, and the control plane on a smoltcp `Interface` (ARP, ND, ICMP, and the
//! TCP of µShell). It knows no HTTP.
//!
//! | file | duty |
//! |---|---|
//! | `config` | addresses, gateways and ports, validated |
//! | `addresses` | which addresses are ours, and which groups we listen to |
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
mod extensions;
mod frame_queue;
mod newcomer;
mod sessions;

#[cfg(test)]
pub(crate) mod tests;

use alloc::rc::Rc;
use arrayvec::ArrayVec;
use smoltcp::time::Instant;
use smoltcp::wire::IpCidr;

use crate::rings::{Capabilities, NetQueue, RxFrame};
use crate::stats::Stats;
use crate::tcp_gso::RxSegment;

pub use config::{MAX_ADDRESSES, MAX_STATIC_NEIGHBOURS, NetworkConfig, NetworkConfigError, StaticNeighbour};
pub use sessions::{ControlService, NoSessions, SESSIONS, SessionId, SessionOutput};

use addresses::Addresses;
use control::Control;
use demux::{DropReason, HEADER_VIEW_BYTES, Verdict};

/// One network interface: its addresses, the demultiplexer and the control plane.
pub struct Network {
    config: NetworkConfig,
    hardware_address: [u8; 6],
    addresses: Addresses,
    control: Control,
    stats: Rc<Stats>,
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
        let addresses = Addresses::new(&config.addresses, hardware_address);
        let control = Control::new(&config, &addresses, capabilities, seed);
        Ok(Self { config, hardware_address, addresses, control, stats })
    }

    /// Our addresses: the configured ones, and the IPv6 link-local one.
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
        if is_unicast(capabilities.hardware_address) {
            self.hardware_address = capabilities.hardware_address;
        }
        self.addresses = Addresses::new(&self.config.addresses, self.hardware_address);
        self.control.device_up(&self.config, &self.addresses, self.hardware_address, capabilities);
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
                let Self { control, addresses, hardware_address, .. } = self;
                if control.enqueue(frame, frame_bytes, listener_query, addresses, *hardware_address) {
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
        self.control.poll(now, queue, service, &self.stats)
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
