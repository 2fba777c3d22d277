//! What a world asks of the other side of the appliance's devices, whatever they are.

use std::rc::Rc;

use fastrand::Rng;
use minicache::rings::{BlockDevice, Capabilities, Full, NetQueue, Offload, PagePool, RxChecksum};
use minicache::stats::Stats;
use smoltcp::time::Instant;

/// A frame that the back end has taken and not completed.
pub trait Frame {
    /// Its bytes.
    fn bytes(&self) -> Vec<u8>;
    /// What is left to the device.
    fn offload(&self) -> Offload;
    /// Where each piece of it behind the head lies in memory, and its length.
    fn places(&self) -> Vec<(usize, usize)>;
}

/// What devices are made of.
pub struct Setup {
    /// What the network device can do.
    pub capabilities: Capabilities,
    /// Where its pages come from.
    pub rx_pool: PagePool,
    /// The disks' content. They can only be read.
    pub disks: Vec<Vec<u8>>,
    /// Every counter of the appliance.
    pub stats: Rc<Stats>,
    /// Decides what the seed has not decided elsewhere.
    pub rng: Rng,
}

/// The other side of all of an appliance's devices. A disk holds its requests until they are released, and picks one at random.
pub trait Devices: Sized {
    /// The appliance's network device.
    type Net: NetQueue;
    /// One of its disks.
    type Disk: BlockDevice;
    /// What the network device transmits.
    type Frame: Frame;

    /// The devices, and their other side.
    fn new(setup: Setup) -> (Self, Self::Net, Vec<Self::Disk>);

    /// Whether anything woke the appliance since the last call.
    fn woken(&self, net: &Self::Net, disks: &[Self::Disk]) -> bool;
    /// Whether there is work for [`Devices::step`].
    fn is_due(&self) -> bool;
    /// Whoever connects both sides goes on with it.
    fn step(&mut self);

    /// The next frame that was published.
    fn take(&mut self) -> Option<Self::Frame>;
    /// Answers a frame.
    fn complete(&mut self, frame: Self::Frame);
    /// Puts a frame into posted pages.
    fn deliver(&mut self, parts: &[&[u8]], checksum: RxChecksum) -> Result<(), Full>;
    /// Wakes the appliance for what was completed and delivered, if it has armed.
    fn notify(&mut self);
    /// Whether the appliance has notified the back end since the last call.
    fn notified(&mut self) -> bool;
    /// Asks to be notified. True if there is something already.
    fn arm(&mut self) -> bool;
    /// The network device goes down.
    fn net_down(&mut self);
    /// The network device comes up.
    fn net_up(&mut self, capabilities: Capabilities);

    /// Requests that a disk has and that were not released.
    fn waiting(&self, disk: usize) -> usize;
    /// Has a disk finish so many requests.
    fn release(&mut self, disk: usize, requests: usize);
    /// The next reads of a disk fail, so many.
    fn fail_next(&mut self, disk: usize, reads: u32);
    /// One in so many reads of a disk fails; 0 ends it.
    fn fail_one_in(&mut self, disk: usize, n: u32);
    /// A disk goes down and comes back at once: what was in flight fails.
    fn blip(&mut self, disk: usize);

    /// All devices are removed.
    fn gone(&mut self);
    /// The appliance sleeps, and the back end holds so many frames: what has come for it must have been seen, or else a wake-up was
    /// lost. (TCP would heal it sooner or later, so it would show in no result.)
    fn check_asleep(&self, now: Instant, held: usize);
    /// Nothing is on its way.
    fn check_idle(&self, rx_pool: &PagePool);
    /// Everything has gone.
    fn check_gone(&self);
}
