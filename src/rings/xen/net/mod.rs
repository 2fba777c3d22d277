//! The network interface (netfront, `io/netif.h`): one queue, every offload that the back end has, both ways.

mod receiver;
mod transmitter;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use arrayvec::ArrayVec;

use super::abi::net::{RX_ENTRY_BYTES, TX_ENTRY_BYTES};
use super::life::{Connect, Life, Step, Talk};
use super::ring::FrontRing;
use super::xenbus::{Device, State, bad_value};
use super::{Channel, Xen, XenError};
use crate::rings::link::LinkEvent;
use crate::rings::{Capabilities, Full, NetEvent, NetQueue, PagePool, RxFrame, TxFrame};
use crate::stats::Stats;
use receiver::{Next, Receiver};
use transmitter::{HEAD_BYTES, HEAD_PAGES, Transmitter};

/// Entries of each ring: what fits a page.
const RING_ENTRIES: usize = 256;

/// Most slots of a packet. The back end guarantees 18, but what is left of slot 0 behind the 128 bytes that it copies becomes a
/// fragment too, and Linux's packets have 17 of them.
const MAX_SLOTS: usize = 17;

/// The packet size field has 16 bits, and counts the Ethernet header.
const MAX_FRAME_BYTES: usize = 65_535;

/// MTU where the store names none: Ethernet's.
const DEFAULT_MTU_BYTES: u16 = 1500;
/// Networks of less are not supported: what every IPv4 host takes (RFC 1122 §3.3.3).
const MIN_MTU_BYTES: u16 = 576;

const ETHERNET_BYTES: usize = 14;

/// Entries of the grant table that an interface takes: pages of both rings, heads, and a page for each entry of the rings.
const GRANTS: usize = 2 + HEAD_PAGES + 2 * RING_ENTRIES;

/// What there is only while the back end is connected.
pub(super) struct Connected {
    transmitter: Transmitter,
    receiver: Receiver,
    /// The transmit ring's event channel, and the receive ring's where it has one of its own.
    channels: ArrayVec<Channel, 2>,
    capabilities: Capabilities,
}

impl Connected {
    fn publish(&mut self) {
        self.channels[0].publish(self.transmitter.ring());
        self.channels[self.channels.len() - 1].publish(self.receiver.ring());
    }
}

/// How an interface is connected.
struct Driver {
    pool: PagePool,
    stats: Rc<Stats>,
}

impl Connect<Connected> for Driver {
    const NAME: &'static str = "xen-netfront";
    const RETURNS: bool = true;

    fn connect(&self, device: Rc<Device>) -> Talk<Result<Connected, XenError>> {
        Box::pin(connect(device, self.pool.clone(), self.stats.clone()))
    }
}

async fn connect(device: Rc<Device>, pool: PagePool, stats: Rc<Stats>) -> Result<Connected, XenError> {
    device.wait_for_back_end().await?;
    let (capabilities, has_two_channels) = capabilities(&device).await?;
    let xen = &device.xen;
    let (tx, rx) =
        (FrontRing::new(xen, device.domain, TX_ENTRY_BYTES)?, FrontRing::new(xen, device.domain, RX_ENTRY_BYTES)?);
    let mut nodes: Vec<(String, String)> = Vec::new();
    let mut say = |name: &str, value: u32| nodes.push((name.to_string(), value.to_string()));
    say("tx-ring-ref", tx.reference());
    say("rx-ring-ref", rx.reference());
    let mut channels = ArrayVec::new();
    channels.push(xen.alloc_unbound(device.domain)?);
    if has_two_channels {
        channels.push(xen.alloc_unbound(device.domain)?);
        say("event-channel-tx", channels[0].port.0);
        say("event-channel-rx", channels[1].port.0);
    } else {
        say("event-channel", channels[0].port.0);
    }
    for feature in [
        "request-rx-copy",
        "feature-rx-notify",
        "feature-sg",
        "feature-gso-tcpv4",
        "feature-gso-tcpv6",
        "feature-ipv6-csum-offload",
    ] {
        say(feature, 1);
    }
    device.publish(&nodes).await?;
    let transmitter = Transmitter::new(tx, xen, device.domain, stats)?;
    let receiver = Receiver::new(rx, xen, device.domain, pool);
    device.set_state(State::Connected).await?;
    match device.wait_for(&[State::Connected, State::Closing, State::Closed, State::Unknown]).await? {
        State::Connected => {}
        _ => return Err(XenError::Withdrawn),
    }
    Ok(Connected { transmitter, receiver, channels, capabilities })
}

/// What a back end may offer.
#[derive(Clone, Copy)]
enum Feature {
    RxCopy,
    NoCsumOffload,
    Ipv6CsumOffload,
    ScatterGather,
    GsoTcpv4,
    GsoTcpv6,
    SplitEventChannels,
}

/// The features' names, in their order.
const FEATURES: [&str; 7] = [
    "feature-rx-copy",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-split-event-channels",
];

/// What the interface is, and what its back end can do; and whether the rings have an event channel each.
async fn capabilities(device: &Device) -> Result<(Capabilities, bool), XenError> {
    let node = |name: &str| format!("{}/{name}", device.path);
    let address = device.own("mac").await?.ok_or_else(|| XenError::Missing(node("mac")))?;
    let hardware_address = hardware_address(&address).ok_or_else(|| bad_value(&node("mac"), &address))?;
    let mtu_bytes = device.own_number::<u16>("mtu").await?.unwrap_or(DEFAULT_MTU_BYTES);
    if mtu_bytes < MIN_MTU_BYTES {
        return Err(bad_value(&node("mtu"), &mtu_bytes.to_string()));
    }
    let mut offered = [false; FEATURES.len()];
    for (offered, name) in offered.iter_mut().zip(FEATURES) {
        *offered = device.offers(name).await?;
    }
    let offers = |feature: Feature| offered[feature as usize];
    if !offers(Feature::RxCopy) {
        return Err(XenError::MissingFeature(FEATURES[Feature::RxCopy as usize]));
    }
    // Over IPv4 every back end completes checksums that does not say otherwise; over IPv6 it says so.
    let checksum = !offers(Feature::NoCsumOffload) && offers(Feature::Ipv6CsumOffload);
    let scatter_gather = offers(Feature::ScatterGather);
    // Without further slots a frame is all head.
    let longest = if scatter_gather { MAX_FRAME_BYTES } else { HEAD_BYTES };
    let largest = mtu_bytes.min((longest - ETHERNET_BYTES) as u16);
    let capabilities = Capabilities {
        hardware_address,
        mtu_bytes: largest,
        max_slots: if scatter_gather { MAX_SLOTS } else { 1 },
        max_frame_bytes: MAX_FRAME_BYTES,
        head_bytes: HEAD_BYTES,
        checksum,
        tso4: checksum && scatter_gather && offers(Feature::GsoTcpv4),
        tso6: checksum && scatter_gather && offers(Feature::GsoTcpv6),
    };
    Ok((capabilities, offers(Feature::SplitEventChannels)))
}

/// Six hexadecimal bytes with colons between, of a single host.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let mut address = [0; 6];
    let mut parts = text.trim_end_matches('\0').trim().split(':');
    for byte in &mut address {
        let part =
            parts.next().filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    (parts.next().is_none() && address[0] & 1 == 0 && address != [0; 6]).then_some(address)
}

/// What is told of an interface before it is connected.
const UNCONNECTED: Capabilities = Capabilities {
    // Locally administered.
    hardware_address: [2, 0, 0, 0, 0, 1],
    mtu_bytes: DEFAULT_MTU_BYTES,
    max_slots: 1,
    max_frame_bytes: MAX_FRAME_BYTES,
    head_bytes: HEAD_BYTES,
    checksum: false,
    tso4: false,
    tso6: false,
};

/// A Xen network interface.
pub struct XenNet {
    life: Life<Driver, Connected, Capabilities>,
    capabilities: Capabilities,
    connected: Option<Connected>,
    xen: Xen,
    stats: Rc<Stats>,
}

impl XenNet {
    /// Begins to connect the interface in this folder of the store (`device/vif/0`). Received frames land in pages of `pool`, which it
    /// takes as it needs them: up to 256 while it runs, so a pool of its own is wise. All other memory, about 550 KiB, is allocated when
    /// it is connected; nothing is later.
    ///
    /// It goes on in [`NetQueue::event`], and is up with its first [`NetEvent::Up`].
    ///
    /// # Errors
    /// If the grant table is too small.
    pub fn new(xen: &Xen, path: &str, pool: PagePool, stats: Rc<Stats>) -> Result<Self, XenError> {
        xen.reserve_grants(GRANTS)?;
        let driver = Driver { pool, stats: stats.clone() };
        let life = Life::new(xen.clone(), path.to_string(), driver, UNCONNECTED, stats.clone());
        Ok(Self { life, capabilities: UNCONNECTED, connected: None, xen: xen.clone(), stats })
    }

    /// True until it has come up, or is gone: whoever waits for that may go on waiting.
    pub fn is_connecting(&self) -> bool {
        self.life.is_connecting()
    }

    /// What works, if the device does.
    fn working(&mut self) -> Option<&mut Connected> {
        if self.life.is_working() { self.connected.as_mut() } else { None }
    }

    /// The back end can't be trusted any more.
    fn fault(&mut self, error: &XenError) {
        self.life.fault(error);
    }
}

impl NetQueue for XenNet {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn event(&mut self) -> Option<NetEvent> {
        loop {
            match self.life.step() {
                Step::None => break,
                Step::Connected(connected) => {
                    self.capabilities = connected.capabilities;
                    self.connected = Some(connected);
                    self.life.set_up(self.capabilities);
                    self.flush();
                }
                // Whatever the back end has not let go of is quarantined.
                Step::Stopped => self.connected = None,
                Step::Lost => core::mem::forget(self.connected.take()),
            }
        }
        self.xen.retry_quarantine();
        Some(match self.life.event()? {
            LinkEvent::Down => NetEvent::Down,
            LinkEvent::Up(capabilities) => NetEvent::Up(capabilities),
            LinkEvent::Gone => NetEvent::Gone,
        })
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        let stats = self.stats.clone();
        let (mut looks, mut frames) = (0, 0);
        let Some(connected) = self.working() else { return 0 };
        let receiver = &mut connected.receiver;
        let mut fault = None;
        while looks < budget {
            match receiver.next() {
                Ok(Next::Nothing) => break,
                Ok(Next::Malformed) => stats.rx_malformed.increment(),
                Ok(Next::Frame) => {
                    stats.rx_frames.increment();
                    stats.rx_bytes.add(receiver.lent.len() as u64);
                    sink(&receiver.lent);
                    frames += 1;
                }
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            }
            receiver.recycle();
            looks += 1;
        }
        self.life.count_work(frames);
        if let Some(error) = fault {
            self.fault(&error);
        }
        looks
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        let capabilities = self.capabilities;
        let added = match self.working() {
            Some(connected) => {
                frame.debug_check(&capabilities);
                connected.transmitter.add(frame)
            }
            None => None,
        };
        let Some(entries) = added else {
            self.stats.tx_full.increment();
            return Err(Full);
        };
        self.stats.tx_frames.increment();
        self.stats.tx_bytes.add(frame.len() as u64);
        self.stats.tx_slots.add(entries as u64);
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(connected) = self.working() {
            connected.receiver.post();
            connected.publish();
        }
    }

    fn reclaim(&mut self) -> usize {
        let mut frames = 0;
        let Some(connected) = self.working() else { return 0 };
        let result = connected.transmitter.reclaim(&mut frames);
        self.life.count_work(frames);
        if let Err(error) = result {
            self.fault(&error);
        }
        frames
    }

    fn arm(&mut self) -> bool {
        let Some(connected) = self.working() else { return self.life.arm() };
        connected.channels.iter().for_each(Channel::acknowledge);
        // Pages that came free since the last round are posted before the device is left alone with an empty ring.
        self.flush();
        let connected = self.connected.as_mut().expect("it works");
        let received = connected.receiver.ring().arm(1);
        connected.transmitter.arm() || received || self.life.arm()
    }
}

impl Drop for XenNet {
    fn drop(&mut self) {
        self.connected = None;
        self.xen.release_grants(GRANTS);
    }
}

impl core::fmt::Debug for XenNet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "XenNet({:?})", self.life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_six_bytes_of_one_host() {
        assert_eq!(hardware_address("00:16:3e:77:00:02"), Some([0, 0x16, 0x3e, 0x77, 0, 2]));
        assert_eq!(hardware_address("0a:FF:00:00:00:01\0"), Some([10, 255, 0, 0, 0, 1]));
        for bad in [
            "",
            "00:16:3e:77:00",
            "00:16:3e:77:00:02:03",
            "0:16:3e:77:00:02",
            "+1:16:3e:77:00:02",
            "01:16:3e:77:00:02",
            "00:00:00:00:00:00",
            "xx:16:3e:77:00:02",
        ] {
            assert_eq!(hardware_address(bad), None, "{bad}");
        }
    }
}
