//! Devices in memory, as the library has them for processes.

use minicache::rings::memory::{
    MemoryBackend, MemoryDisk, MemoryDiskControl, MemoryNet, MemoryNetConfig, Pace, TakenFrame, memory_net,
};
use minicache::rings::{Capabilities, Full, Geometry, Offload, PagePool, RxChecksum};
use smoltcp::time::Instant;

use super::devices::{Devices, Frame, Setup};

/// The other side of a network device and disks in memory.
pub struct InMemory {
    backend: MemoryBackend,
    disks: Vec<(MemoryDiskControl, Geometry)>,
    ring_entries: usize,
}

impl Frame for TakenFrame {
    fn bytes(&self) -> Vec<u8> {
        self.parts().collect::<Vec<_>>().concat()
    }

    fn offload(&self) -> Offload {
        self.offload()
    }

    fn places(&self) -> Vec<(usize, usize)> {
        self.slices().iter().map(|slice| (slice.page_address() + slice.offset(), slice.len())).collect()
    }
}

impl Devices for InMemory {
    type Net = MemoryNet;
    type Disk = MemoryDisk;
    type Frame = TakenFrame;

    fn new(setup: Setup) -> (Self, MemoryNet, Vec<MemoryDisk>) {
        let config = MemoryNetConfig { capabilities: setup.capabilities, verify: true, ..Default::default() };
        let (net, backend) = memory_net(config, setup.rx_pool, setup.stats);
        let disks: Vec<MemoryDisk> = setup.disks.into_iter().map(MemoryDisk::read_only).collect();
        let control = |disk: &MemoryDisk| {
            let control = disk.control();
            control.set_pace(Pace::Held);
            control.set_shuffled(true);
            (control, minicache::rings::BlockDevice::geometry(disk))
        };
        let controls = disks.iter().map(control).collect();
        (Self { backend, disks: controls, ring_entries: config.ring_entries }, net, disks)
    }

    fn woken(&self, net: &MemoryNet, disks: &[MemoryDisk]) -> bool {
        let by_disks = disks.iter().filter(|disk| disk.woken()).count();
        net.woken() || by_disks > 0
    }

    fn is_due(&self) -> bool {
        false
    }

    fn step(&mut self) {}

    fn take(&mut self) -> Option<TakenFrame> {
        self.backend.take()
    }

    fn complete(&mut self, frame: TakenFrame) {
        self.backend.complete(frame);
    }

    fn deliver(&mut self, parts: &[&[u8]], checksum: RxChecksum) -> Result<(), Full> {
        self.backend.deliver(parts, checksum, None)
    }

    fn notify(&mut self) {
        self.backend.notify();
    }

    fn notified(&mut self) -> bool {
        self.backend.notified()
    }

    fn arm(&mut self) -> bool {
        self.backend.arm()
    }

    fn net_down(&mut self) {
        self.backend.down();
    }

    fn net_up(&mut self, capabilities: Capabilities) {
        self.backend.up(capabilities);
    }

    fn waiting(&self, disk: usize) -> usize {
        self.disks[disk].0.in_flight()
    }

    fn release(&mut self, disk: usize, requests: usize) {
        self.disks[disk].0.release(requests);
    }

    fn fail_next(&mut self, disk: usize, reads: u32) {
        self.disks[disk].0.fail_next(reads);
    }

    fn fail_one_in(&mut self, disk: usize, n: u32) {
        self.disks[disk].0.fail_one_in(n);
    }

    fn blip(&mut self, disk: usize) {
        let (control, geometry) = &self.disks[disk];
        control.up(*geometry);
    }

    fn gone(&mut self) {
        self.backend.gone();
        self.disks.iter().for_each(|(control, _)| control.gone());
    }

    fn check_asleep(&self, now: Instant, held: usize) {
        let posted = self.backend.rx_posted();
        assert!(posted == 0 || posted == self.ring_entries, "asleep at {now} with frames in the RX ring");
        assert!(self.backend.in_flight() <= held, "asleep at {now} with completed frames in the TX ring");
    }

    fn check_idle(&self, rx_pool: &PagePool) {
        assert_eq!((self.backend.in_flight(), self.backend.grants_in_use()), (0, 0), "frames and grants left");
        assert_eq!(rx_pool.in_use(), self.backend.rx_posted(), "RX pages that are not posted");
        assert_eq!(self.backend.violations(), 0, "pages written while granted");
    }

    fn check_gone(&self) {
        assert_eq!(self.backend.rx_posted(), 0);
    }
}
