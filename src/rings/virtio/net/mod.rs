//! The network interface (virtio 1.2 §5.1): one queue pair, every offload that the device has, no control queue.

mod header;
mod receiver;
mod transmitter;

use alloc::rc::Rc;

use super::features::{
    ANY_LAYOUT, NET_CSUM, NET_GUEST_CSUM, NET_GUEST_ECN, NET_GUEST_TSO4, NET_GUEST_TSO6, NET_HOST_TSO4, NET_HOST_TSO6,
    NET_MAC, NET_MRG_RXBUF, NET_MTU, NET_STATUS, VERSION_1,
};
use super::life::Life;
use super::transport::Transport;
use super::{AnyTransport, DeviceKind, VirtioError};
use crate::rings::link::LinkEvent;
use crate::rings::{Capabilities, Full, NetEvent, NetQueue, Offload, PAGE_BYTES, PagePool, RxFrame, TxFrame};
use crate::stats::Stats;
use header::{MAX_HEADER_BYTES, header_bytes};
use receiver::{Next, Receiver};
use transmitter::{HEAD_BYTES, Transmitter};

/// What is used where it is offered.
const WANTED: u64 = NET_CSUM
    | NET_GUEST_CSUM
    | NET_MTU
    | NET_MAC
    | NET_GUEST_TSO4
    | NET_GUEST_TSO6
    | NET_GUEST_ECN
    | NET_HOST_TSO4
    | NET_HOST_TSO6
    | NET_MRG_RXBUF
    | NET_STATUS;

/// Configuration fields (§5.1.4).
mod field {
    pub const MAC: usize = 0;
    pub const STATUS: usize = 6;
    pub const MTU: usize = 10;
}

/// `status`: the link is up.
const LINK_UP: u16 = 1;

/// MTU where the device names none: Ethernet's.
const DEFAULT_MTU_BYTES: u16 = 1500;
/// Networks of less are not supported: what every IPv4 host takes (RFC 1122 §3.3.3). A device may name 68 (§5.1.4.1).
const MIN_MTU_BYTES: u16 = 576;

const ETHERNET_BYTES: usize = 14;

/// Longest frame to be segmented: what an IPv4 packet's length field allows, the Ethernet header counted in as on Xen.
const MAX_FRAME_BYTES: usize = 65_535;

/// A virtio network interface.
#[derive(Debug)]
pub struct VirtioNet<T: Transport = AnyTransport> {
    life: Life<T, Capabilities>,
    refused: u64,
    features: u64,
    capabilities: Capabilities,
    receiver: Receiver,
    transmitter: Transmitter,
    stats: Rc<Stats>,
}

impl<T: Transport> VirtioNet<T> {
    /// Resets the device and starts it, without the features in `refused` (bits of [`super::features`]; what depends on one of
    /// them goes too). Received frames land in pages of `pool`, which it takes as it needs them: up to 256 while it runs, so a
    /// pool of its own is wise. All other memory, about 700 KiB, is allocated here; nothing is later.
    ///
    /// It is up with its first [`NetEvent::Up`], which waits for the link.
    ///
    /// # Errors
    /// If the device can't be used; the error says why.
    pub fn new(transport: T, refused: u64, pool: PagePool, stats: Rc<Stats>) -> Result<Self, VirtioError> {
        let capabilities = Capabilities {
            hardware_address: [0; 6],
            mtu_bytes: DEFAULT_MTU_BYTES,
            max_slots: 1,
            max_frame_bytes: MAX_FRAME_BYTES,
            head_bytes: HEAD_BYTES,
            checksum: false,
            tso4: false,
            tso6: false,
        };
        let life = Life::new(transport, DeviceKind::Network, capabilities, stats.clone())?;
        let (receiver, transmitter) = (Receiver::new(pool), Transmitter::new());
        let mut net = Self { life, refused, features: 0, capabilities, receiver, transmitter, stats };
        net.start()?;
        Ok(net)
    }

    /// The features that were agreed on (bits of [`super::features`]).
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Begins a life of the device, which has been reset.
    fn start(&mut self) -> Result<(), VirtioError> {
        let features = self.life.negotiate(WANTED, self.refused, settle)?;
        let capabilities = read_capabilities(&mut self.life.transport, features)?;
        let header_bytes = header_bytes(features);
        let separate_header = features & (VERSION_1 | ANY_LAYOUT) == 0;
        self.receiver.start(&mut self.life.transport, features, header_bytes, separate_header)?;
        self.transmitter.start(&mut self.life.transport, features, header_bytes, separate_header)?;
        self.features = features;
        self.capabilities = Capabilities { max_slots: self.transmitter.max_slots(), ..capabilities };
        self.life.start(None);
        if link_is_up(&mut self.life.transport, features)? {
            self.life.set_up(self.capabilities);
        }
        self.flush();
        Ok(())
    }

    /// Goes on with a reset, and with the life after it.
    fn recover(&mut self) {
        if self.life.has_stopped() {
            self.receiver.take_back();
            self.transmitter.take_back();
        }
        if self.life.wants_start()
            && let Err(error) = self.start()
        {
            // A start that failed half-way has shown pages to the device.
            if self.life.reset() {
                self.receiver.take_back();
                self.transmitter.take_back();
            }
            self.life.give_up(Some(error));
        }
    }

    /// The configuration may have changed: the link may be down, or up again.
    fn look_at_link(&mut self) {
        match link_is_up(&mut self.life.transport, self.features) {
            Ok(up) if up == self.life.is_up() => {}
            Ok(true) => self.life.set_up(self.capabilities),
            // The frames under way are the device's until it is reset.
            Ok(false) => self.life.stop(),
            Err(error) => self.life.fault(error),
        }
    }
}

/// Drops what depends on something that is not there (§5.1.3.1), and what can't be made use of.
fn settle<T: Transport>(transport: &mut T, mut features: u64) -> Result<u64, VirtioError> {
    if features & NET_MAC == 0 {
        return Err(VirtioError::MissingFeature("VIRTIO_NET_F_MAC"));
    }
    if features & NET_CSUM == 0 {
        features &= !(NET_HOST_TSO4 | NET_HOST_TSO6);
    }
    // Large frames take several pages.
    if features & NET_GUEST_CSUM == 0 || features & NET_MRG_RXBUF == 0 {
        features &= !(NET_GUEST_TSO4 | NET_GUEST_TSO6);
    }
    if features & (NET_GUEST_TSO4 | NET_GUEST_TSO6) == 0 {
        features &= !NET_GUEST_ECN;
    }
    // Who agrees on an MTU has to have room for such frames.
    if features & NET_MTU != 0 && features & NET_MRG_RXBUF == 0 {
        let mtu_bytes = usize::from(transport.config16(field::MTU)?);
        if mtu_bytes + ETHERNET_BYTES + MAX_HEADER_BYTES > PAGE_BYTES {
            features &= !NET_MTU;
        }
    }
    Ok(features)
}

/// What the configuration says; `max_slots` is still to be found out.
fn read_capabilities<T: Transport>(transport: &mut T, features: u64) -> Result<Capabilities, VirtioError> {
    let (hardware_address, mtu_bytes) = Life::<T, Capabilities>::configuration(transport, |transport| {
        let mut address = [0; 6];
        for (index, byte) in address.iter_mut().enumerate() {
            *byte = transport.config8(field::MAC + index)?;
        }
        let named = features & NET_MTU != 0;
        let mtu_bytes = if named { transport.config16(field::MTU)? } else { DEFAULT_MTU_BYTES };
        Ok((address, mtu_bytes))
    })?;
    let is_group = hardware_address[0] & 1 != 0;
    if is_group || hardware_address == [0; 6] {
        return Err(VirtioError::BadConfiguration("mac"));
    }
    if mtu_bytes < MIN_MTU_BYTES {
        return Err(VirtioError::BadConfiguration("mtu"));
    }
    Ok(Capabilities {
        hardware_address,
        mtu_bytes,
        max_slots: 1,
        max_frame_bytes: MAX_FRAME_BYTES,
        head_bytes: HEAD_BYTES,
        checksum: features & NET_CSUM != 0,
        tso4: features & NET_HOST_TSO4 != 0,
        tso6: features & NET_HOST_TSO6 != 0,
    })
}

/// Whether the link is up; it is where the device does not know.
fn link_is_up<T: Transport>(transport: &mut T, features: u64) -> Result<bool, VirtioError> {
    if features & NET_STATUS == 0 {
        return Ok(true);
    }
    Ok(transport.config16(field::STATUS)? & LINK_UP != 0)
}

/// A frame that doesn't keep to the capabilities is our own mistake.
fn debug_check_frame(frame: &TxFrame<'_>, capabilities: &Capabilities) {
    debug_assert!(frame.slots() <= capabilities.max_slots, "a frame of {} slots", frame.slots());
    let single = ETHERNET_BYTES + usize::from(capabilities.mtu_bytes);
    let limit = match frame.offload {
        Offload::Segment { .. } => capabilities.max_frame_bytes,
        Offload::None | Offload::Checksum(_) => single,
    };
    debug_assert!(frame.len() <= limit, "a frame of {} bytes where {limit} are the limit", frame.len());
    debug_assert!(capabilities.checksum || frame.offload == Offload::None, "the device completes no checksums");
}

impl<T: Transport> NetQueue for VirtioNet<T> {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn event(&mut self) -> Option<NetEvent> {
        self.recover();
        Some(match self.life.event()? {
            LinkEvent::Down => NetEvent::Down,
            LinkEvent::Up(capabilities) => NetEvent::Up(capabilities),
            LinkEvent::Gone => NetEvent::Gone,
        })
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        if !self.life.is_up() {
            return 0;
        }
        let (mut looks, mut frames) = (0, 0);
        while looks < budget {
            match self.receiver.next() {
                Ok(Next::Nothing) => break,
                Ok(Next::Malformed) => self.stats.rx_malformed.increment(),
                Ok(Next::Frame) => {
                    let frame = &self.receiver.lent;
                    self.stats.rx_frames.increment();
                    self.stats.rx_bytes.add(frame.len() as u64);
                    sink(frame);
                    frames += 1;
                }
                Err(error) => {
                    self.life.fault(error);
                    break;
                }
            }
            self.receiver.recycle();
            looks += 1;
        }
        self.life.count_work(frames);
        looks
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        if !self.life.is_up() {
            self.stats.tx_full.increment();
            return Err(Full);
        }
        debug_check_frame(frame, &self.capabilities);
        if !self.transmitter.add(frame) {
            self.stats.tx_full.increment();
            return Err(Full);
        }
        self.stats.tx_frames.increment();
        self.stats.tx_bytes.add(frame.len() as u64);
        self.stats.tx_slots.add(frame.slots() as u64);
        Ok(())
    }

    fn flush(&mut self) {
        if !self.life.is_running() {
            return;
        }
        self.receiver.post();
        self.receiver.publish(&mut self.life);
        self.transmitter.publish(&mut self.life);
    }

    fn reclaim(&mut self) -> usize {
        let mut frames = 0;
        if self.life.is_running() {
            if let Err(error) = self.transmitter.reclaim(&mut frames) {
                self.life.fault(error);
            }
            self.life.count_work(frames);
        }
        frames
    }

    fn arm(&mut self) -> bool {
        if self.life.look() {
            self.look_at_link();
        }
        if !self.life.is_running() {
            return self.life.is_due();
        }
        // Pages that came free since the last round are posted before the device is left alone with an empty queue.
        self.flush();
        let received = self.life.is_up() && self.receiver.arm();
        self.transmitter.arm() || received || self.life.is_due()
    }
}

impl<T: Transport> Drop for VirtioNet<T> {
    fn drop(&mut self) {
        if !self.life.reset() {
            // It may still use its memory, so nobody else ever does.
            self.receiver.abandon();
            self.transmitter.abandon();
        }
    }
}
