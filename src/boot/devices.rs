//! The devices that a kernel has, each kind one type: which it is, is decided when the machine starts.

use alloc::vec::Vec;
use core::fmt::Display;

use super::console::say;
use crate::rings::virtio::{VirtioBlk, VirtioNet};
use crate::rings::xen::{XenBlk, XenNet};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockEvent, BlockRequest, Capabilities, Full, Geometry, NetEvent, NetQueue, RxFrame,
    TxFrame,
};

/// All devices.
#[derive(Default)]
pub struct Devices {
    /// The network interface.
    pub net: Net,
    /// The disks, in the order in which the appliance counts them.
    pub disks: Vec<Disk>,
    /// What the command line calls them.
    pub numbers: Vec<u32>,
}

/// Says what an interface can do. `driver` says which it is.
pub fn describe_net(driver: impl Display, capabilities: &Capabilities) {
    let m = capabilities.hardware_address;
    say!(
        "network: {driver} {:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}, mtu {}{}{}",
        m[0],
        m[1],
        m[2],
        m[3],
        m[4],
        m[5],
        capabilities.mtu_bytes,
        if capabilities.checksum { ", checksums" } else { "" },
        if capabilities.tso4 || capabilities.tso6 { ", segmentation" } else { "" }
    );
    info!("network: {} is found", driver);
}

/// Says how large a disk is.
pub fn describe_disk(name: impl Display, driver: impl Display, geometry: &Geometry) {
    let kib = geometry.bytes() >> 10;
    say!("disk {name}: {driver} {kib} KiB{}", if geometry.read_only { ", read-only" } else { "" });
    info!("disk {}: {} is found, {} KiB", name, driver, kib);
}

/// A device that is waited for when the machine starts: the event that ends it is told again to its user.
pub struct Awaited<D, E> {
    device: D,
    said: Option<E>,
}

impl<D, E> Awaited<D, E> {
    /// A device that has said nothing yet.
    pub fn new(device: D) -> Self {
        Self { device, said: None }
    }
}

/// A device on its way.
pub trait Connecting {
    /// Goes on.
    fn step(&mut self);

    /// True until it works, or never will.
    fn is_on_its_way(&self) -> bool;

    /// True if it works.
    fn is_up(&self) -> bool;

    /// As [`NetQueue::arm`].
    fn arm(&mut self) -> bool;
}

impl Connecting for Awaited<XenNet, NetEvent> {
    fn step(&mut self) {
        self.said = self.said.take().or_else(|| self.device.event());
    }

    fn is_on_its_way(&self) -> bool {
        self.said.is_none() && self.device.is_connecting()
    }

    fn is_up(&self) -> bool {
        matches!(self.said, Some(NetEvent::Up(_)))
    }

    fn arm(&mut self) -> bool {
        self.said.is_some() || self.device.arm()
    }
}

impl Connecting for Awaited<XenBlk, BlockEvent> {
    fn step(&mut self) {
        self.said = self.said.take().or_else(|| self.device.event());
    }

    fn is_on_its_way(&self) -> bool {
        self.said.is_none() && self.device.is_connecting()
    }

    fn is_up(&self) -> bool {
        matches!(self.said, Some(BlockEvent::Up(_)))
    }

    fn arm(&mut self) -> bool {
        self.said.is_some() || self.device.arm()
    }
}

/// A network interface.
#[expect(clippy::large_enum_variant, reason = "there is one, and no pointer is to stand between it and its user")]
#[derive(Default)]
pub enum Net {
    /// virtio's.
    Virtio(VirtioNet),
    /// Xen's.
    Xen(Awaited<XenNet, NetEvent>),
    /// None: down for ever.
    #[default]
    Absent,
}

/// What an interface that does not exist would be.
const ABSENT: Capabilities = Capabilities {
    // Locally administered.
    hardware_address: [2, 0, 0, 0, 0, 1],
    mtu_bytes: 1500,
    max_slots: 1,
    max_frame_bytes: 1514,
    head_bytes: 1514,
    checksum: false,
    tso4: false,
    tso6: false,
};

impl NetQueue for Net {
    fn capabilities(&self) -> Capabilities {
        match self {
            Self::Virtio(net) => net.capabilities(),
            Self::Xen(net) => net.device.capabilities(),
            Self::Absent => ABSENT,
        }
    }

    fn event(&mut self) -> Option<NetEvent> {
        match self {
            Self::Virtio(net) => net.event(),
            Self::Xen(net) => net.said.take().or_else(|| net.device.event()),
            Self::Absent => None,
        }
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        match self {
            Self::Virtio(net) => net.receive(budget, sink),
            Self::Xen(net) => net.device.receive(budget, sink),
            Self::Absent => 0,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        match self {
            Self::Virtio(net) => net.transmit(frame),
            Self::Xen(net) => net.device.transmit(frame),
            Self::Absent => Err(Full),
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Virtio(net) => net.flush(),
            Self::Xen(net) => net.device.flush(),
            Self::Absent => {}
        }
    }

    fn reclaim(&mut self) -> usize {
        match self {
            Self::Virtio(net) => net.reclaim(),
            Self::Xen(net) => net.device.reclaim(),
            Self::Absent => 0,
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Virtio(net) => net.arm(),
            Self::Xen(net) => Connecting::arm(net),
            Self::Absent => false,
        }
    }
}

/// A disk.
pub enum Disk {
    /// virtio's.
    Virtio(VirtioBlk),
    /// Xen's.
    Xen(Awaited<XenBlk, BlockEvent>),
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        match self {
            Self::Virtio(disk) => disk.geometry(),
            Self::Xen(disk) => disk.device.geometry(),
        }
    }

    fn event(&mut self) -> Option<BlockEvent> {
        match self {
            Self::Virtio(disk) => disk.event(),
            Self::Xen(disk) => disk.said.take().or_else(|| disk.device.event()),
        }
    }

    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        match self {
            Self::Virtio(disk) => disk.submit(request),
            Self::Xen(disk) => disk.device.submit(request),
        }
    }

    fn flush(&mut self) {
        match self {
            Self::Virtio(disk) => disk.flush(),
            Self::Xen(disk) => disk.device.flush(),
        }
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        match self {
            Self::Virtio(disk) => disk.complete(sink),
            Self::Xen(disk) => disk.device.complete(sink),
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Virtio(disk) => disk.arm(),
            Self::Xen(disk) => Connecting::arm(disk),
        }
    }
}
