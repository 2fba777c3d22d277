//! The devices of a Xen guest: its front ends on an imitation of Xen, which connects them in its own time.

use std::rc::Rc;

use fastrand::Rng;
use minicache::rings::xen::memory::{
    BlkbackConfig, GrantedFrame, MemoryBlkback, MemoryNetback, MemoryXen, NetOffers, NetbackConfig,
};
use minicache::rings::xen::{XenBlk, XenNet};
use minicache::rings::{Capabilities, Full, Offload, PagePool, RxChecksum};
use minicache::stats::Stats;
use smoltcp::time::Instant;

use super::devices::{Devices, Frame, Setup};

/// The guest.
const GUEST: u16 = 5;
/// Number of the first disk (`xvda`), and what the next one has more.
const FIRST_DISK: u32 = 51712;
const DISK_STEP: u32 = 16;

/// Xen, xenstored and the back ends.
pub struct OnXen {
    xen: MemoryXen,
    netback: MemoryNetback,
    disks: Vec<MemoryBlkback>,
    stats: Rc<Stats>,
    rng: Rng,
}

impl Frame for GrantedFrame {
    fn bytes(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
    }

    fn offload(&self) -> Offload {
        self.offload()
    }

    fn places(&self) -> Vec<(usize, usize)> {
        self.places().skip(1).collect()
    }
}

impl Devices for OnXen {
    type Net = XenNet;
    type Disk = XenBlk;
    type Frame = GrantedFrame;

    fn new(mut setup: Setup) -> (Self, XenNet, Vec<XenBlk>) {
        let rng = &mut setup.rng;
        let xen = MemoryXen::new(GUEST);
        xen.set_store_pace(*rng.choice(&[usize::MAX, 700, 90]).expect("a choice"));
        let offers = NetOffers { split_event_channels: rng.bool(), ..setup.capabilities.into() };
        let mac = setup.capabilities.hardware_address;
        let rx_offset = *rng.choice(&[0, 2, 64]).expect("a choice");
        let rx_bytes = *rng.choice(&[1000, 4096 - rx_offset]).expect("a choice");
        let config =
            NetbackConfig { mac, offers, rx_offset, rx_bytes, domain: rng.u16(..3), ..NetbackConfig::default() };
        let netback = MemoryNetback::new(&xen, config);
        let disks = setup.disks.into_iter().zip(0..).map(|(bytes, index)| {
            let config = BlkbackConfig::read_only(bytes.len());
            let indirect = rng.u8(..3) > 0;
            let mut blkback = MemoryBlkback::new(
                &xen,
                bytes,
                BlkbackConfig {
                    number: FIRST_DISK + DISK_STEP * index,
                    max_indirect_segments: config.max_indirect_segments.filter(|_| indirect),
                    max_ring_page_order: config.max_ring_page_order.filter(|_| rng.bool()),
                    domain: rng.u16(..3),
                    seed: rng.u64(..),
                    ..config
                },
            );
            blkback.set_held(true);
            blkback.set_shuffled(true);
            blkback
        });
        let disks: Vec<MemoryBlkback> = disks.collect();
        let guest = xen.connect(setup.stats.clone());
        let net = XenNet::new(&guest, "device/vif/0", setup.rx_pool, setup.stats.clone()).expect("a large grant table");
        let path = |index| format!("device/vbd/{}", FIRST_DISK + DISK_STEP * index);
        let fronts = (0..disks.len() as u32).map(|index| XenBlk::new(&guest, &path(index), setup.stats.clone()));
        let fronts = fronts.collect::<Result<_, _>>().expect("a large grant table");
        (Self { xen, netback, disks, stats: setup.stats, rng: setup.rng }, net, fronts)
    }

    fn woken(&self, _: &XenNet, _: &[XenBlk]) -> bool {
        self.xen.woken()
    }

    fn is_due(&self) -> bool {
        self.xen.is_due() || self.netback.is_due() || self.disks.iter().any(MemoryBlkback::is_due)
    }

    fn step(&mut self) {
        // Some are slower than others.
        if self.rng.bool() {
            self.xen.step();
        }
        if self.rng.bool() {
            self.netback.step();
        }
        for disk in &mut self.disks {
            if self.rng.bool() {
                disk.step();
            }
        }
    }

    fn take(&mut self) -> Option<GrantedFrame> {
        self.netback.take()
    }

    fn complete(&mut self, frame: GrantedFrame) {
        self.netback.complete(frame);
    }

    fn deliver(&mut self, parts: &[&[u8]], checksum: RxChecksum) -> Result<(), Full> {
        self.netback.deliver(parts, checksum, None)
    }

    fn notify(&mut self) {
        self.netback.notify();
    }

    fn notified(&mut self) -> bool {
        self.netback.notified()
    }

    fn arm(&mut self) -> bool {
        self.netback.arm()
    }

    fn net_down(&mut self) {
        self.netback.down();
    }

    fn net_up(&mut self, capabilities: Capabilities) {
        self.netback.up(capabilities.into());
    }

    fn waiting(&self, disk: usize) -> usize {
        self.disks[disk].in_flight()
    }

    fn release(&mut self, disk: usize, requests: usize) {
        self.disks[disk].release(requests);
    }

    fn fail_next(&mut self, disk: usize, reads: u32) {
        self.disks[disk].fail_next(reads);
    }

    fn fail_one_in(&mut self, disk: usize, n: u32) {
        self.disks[disk].fail_one_in(n);
    }

    fn blip(&mut self, disk: usize) {
        let geometry = self.disks[disk].geometry();
        self.disks[disk].up(geometry);
    }

    fn gone(&mut self) {
        self.netback.gone();
        self.disks.iter_mut().for_each(MemoryBlkback::gone);
    }

    fn check_asleep(&self, now: Instant, _: usize) {
        // While the front closes, the store may not have heard of it yet.
        if !self.xen.is_due() {
            assert!(self.netback.front_may_sleep(), "asleep at {now} with frames in the RX ring");
            assert!(self.disks.iter().all(MemoryBlkback::front_may_sleep), "asleep at {now} with answers of a disk");
        }
    }

    fn check_idle(&self, rx_pool: &PagePool) {
        assert_eq!((self.netback.in_flight(), self.netback.violations()), (0, 0), "frames left, pages written");
        assert_eq!(rx_pool.in_use(), self.netback.rx_posted(), "RX pages that are not posted");
        assert_eq!(self.stats.grants_quarantined.get(), 0);
    }

    fn check_gone(&self) {
        assert_eq!((self.xen.mapped_grants(), self.xen.grants(), self.xen.event_channels()), (0, 0, 0));
        assert_eq!((self.stats.grants_in_use.get(), self.stats.grants_quarantined.get()), (0, 0));
    }
}
