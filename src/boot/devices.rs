//! The drivers that a kernel has, each kind one type: which it is, is decided when the machine starts.

use crate::rings::virtio::{VirtioBlk, VirtioNet};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockEvent, BlockRequest, Capabilities, Full, Geometry, NetEvent, NetQueue, RxFrame,
    TxFrame,
};

/// A network interface.
#[expect(clippy::large_enum_variant, reason = "there is one, and no pointer is to stand between it and its user")]
pub enum Net {
    /// virtio's.
    Virtio(VirtioNet),
    /// None: down for ever.
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
            Self::Absent => ABSENT,
        }
    }

    fn event(&mut self) -> Option<NetEvent> {
        match self {
            Self::Virtio(net) => net.event(),
            Self::Absent => None,
        }
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        match self {
            Self::Virtio(net) => net.receive(budget, sink),
            Self::Absent => 0,
        }
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        match self {
            Self::Virtio(net) => net.transmit(frame),
            Self::Absent => Err(Full),
        }
    }

    fn flush(&mut self) {
        if let Self::Virtio(net) = self {
            net.flush();
        }
    }

    fn reclaim(&mut self) -> usize {
        match self {
            Self::Virtio(net) => net.reclaim(),
            Self::Absent => 0,
        }
    }

    fn arm(&mut self) -> bool {
        match self {
            Self::Virtio(net) => net.arm(),
            Self::Absent => false,
        }
    }
}

/// A disk.
pub enum Disk {
    /// virtio's.
    Virtio(VirtioBlk),
}

impl BlockDevice for Disk {
    fn geometry(&self) -> Geometry {
        let Self::Virtio(disk) = self;
        disk.geometry()
    }

    fn event(&mut self) -> Option<BlockEvent> {
        let Self::Virtio(disk) = self;
        disk.event()
    }

    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        let Self::Virtio(disk) = self;
        disk.submit(request)
    }

    fn flush(&mut self) {
        let Self::Virtio(disk) = self;
        disk.flush();
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        let Self::Virtio(disk) = self;
        disk.complete(sink)
    }

    fn arm(&mut self) -> bool {
        let Self::Virtio(disk) = self;
        disk.arm()
    }
}
