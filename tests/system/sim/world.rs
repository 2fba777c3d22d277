//! Everything around one appliance, on virtual time: the ring's other side, a wire to each client machine, disks.
//!
//! Nothing happens between events, and whoever may sleep does: the appliance is only polled when a device woke it or its
//! deadline has come, the backend only looks into the ring when it was notified. So a lost wake-up is a stall here as it
//! would be on a real machine.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use fastrand::Rng;
use minicache::appliance::{Appliance, ApplianceConfig};
use minicache::rings::impair::{Impaired, Impairment, Impairments, Link, LinkCounts};
use minicache::rings::memory::TakenFrame;
use minicache::rings::memory::{
    MemoryBackend, MemoryDisk, MemoryDiskControl, MemoryNet, MemoryNetConfig, Pace, memory_net,
};
use minicache::rings::{BlockDevice, Capabilities, NetQueue, PagePool, RxChecksum};
use minicache::stats::Stats;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use super::host::Host;
use super::link;
use super::nic;
use super::site::{Site, Striping};

/// The port that is served.
pub const SERVING_PORT: u16 = 80;
/// The appliance's addresses, IPv4 and IPv6.
pub const SERVER: [IpAddress; 2] =
    [IpAddress::Ipv4(Ipv4Address::new(10, 0, 0, 1)), IpAddress::Ipv6(Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 1))];
/// Unix time at which virtual time begins.
const START_UNIX_S: u64 = 1_800_000_000;
/// Shortest frame that a wire carries, in bytes without its check sequence (IEEE 802.3 §3.2.8).
const MIN_FRAME_BYTES: usize = 60;
/// Rounds of the event loop at one moment after which it must have come to rest.
const MAX_ROUNDS: usize = 100_000;

/// What the world is like. Times are upper limits of uniform distributions.
pub struct WorldConfig {
    /// Decides everything that looks random.
    pub seed: u64,
    /// The appliance's network device.
    pub capabilities: Capabilities,
    /// The appliance. Addresses and port are filled in.
    pub appliance: ApplianceConfig,
    /// Each direction of each client machine's wire.
    pub impairment: Impairment,
    /// What goes wrong within the appliance's network device.
    pub device: Impairments,
    /// MTU in bytes of each client machine.
    pub hosts: Vec<usize>,
    /// How long the backend keeps a frame after it has taken it.
    pub completion_delay: Duration,
    /// How long a disk takes.
    pub disk_delay: Duration,
    /// How the site's volume is made.
    pub striping: Striping,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            capabilities: MemoryNetConfig::default().capabilities,
            appliance: ApplianceConfig::default(),
            impairment: link::GOOD,
            device: Impairments::NONE,
            hosts: vec![1500],
            completion_delay: Duration::from_micros(200),
            disk_delay: Duration::from_millis(2),
            striping: Striping { members: 1, combined: false, stripe_bytes: 16_384 },
        }
    }
}

/// Something that happens to the devices.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The network device goes down.
    NetDown,
    /// The network device comes up.
    NetUp(Capabilities),
    /// The next reads of a disk fail, so many.
    FailNext(u32),
    /// One in so many reads of all disks fails; 0 ends it.
    FailOneIn(u32),
    /// All disks go down and come back at once: what was in flight fails.
    DiskBlip,
}

/// What the client machines do. One value plays all of them.
pub trait Clients {
    /// Called after machine `index` has processed frames or its time has come. Returns when to be called again at the latest.
    fn step(&mut self, index: usize, host: &mut Host, now: Instant) -> Option<Instant>;
}

/// Clients that do nothing.
impl Clients for () {
    fn step(&mut self, _: usize, _: &mut Host, _: Instant) -> Option<Instant> {
        None
    }
}

/// Two kinds of clients on the same machines.
impl<A: Clients, B: Clients> Clients for (&mut A, &mut B) {
    fn step(&mut self, index: usize, host: &mut Host, now: Instant) -> Option<Instant> {
        let first = self.0.step(index, host, now);
        let second = self.1.step(index, host, now);
        first.into_iter().chain(second).min()
    }
}

/// Clients on some of the machines only.
pub struct On<C>(pub Range<usize>, pub C);

impl<C: Clients> Clients for On<C> {
    fn step(&mut self, index: usize, host: &mut Host, now: Instant) -> Option<Instant> {
        if self.0.contains(&index) { self.1.step(index - self.0.start, host, now) } else { None }
    }
}

/// A client machine and its wire.
struct Machine {
    host: Host,
    to_host: Link,
    to_appliance: Link,
    deadline: Option<Instant>,
}

/// What the backend is late with.
#[derive(Default)]
struct Late {
    completions: Vec<TakenFrame>,
    frames: Vec<Vec<u8>>,
}

struct Disk {
    control: MemoryDiskControl,
    /// When requests in flight complete, one entry each.
    due: Vec<Instant>,
}

/// The world.
pub struct World {
    /// Virtual time.
    pub now: Instant,
    /// The appliance under test.
    pub appliance: Appliance<Impaired<MemoryNet>, MemoryDisk>,
    /// The other side of its network device.
    pub backend: MemoryBackend,
    /// Every counter of the appliance.
    pub stats: Rc<Stats>,
    /// Where the network device's pages come from.
    pub rx_pool: PagePool,
    /// Looks at every frame that the backend takes.
    pub inspect: Box<dyn FnMut(&TakenFrame)>,
    /// Frames for the appliance that found no posted pages.
    pub undelivered: u64,
    /// Allocations made within the appliance's event loop.
    pub allocations: u64,
    /// Virtual time, for the network device.
    clock: Rc<Cell<Instant>>,
    rng: Rng,
    machines: Vec<Machine>,
    disks: Vec<Disk>,
    /// Frames that the backend holds, by the time at which it completes them.
    taken: BTreeMap<(Instant, u64), TakenFrame>,
    late: Late,
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    awake: bool,
    ring_entries: usize,
    completion_delay: Duration,
    disk_delay: Duration,
}

impl World {
    /// A world whose appliance has mounted a volume with `site` on it.
    pub fn new(config: WorldConfig, site: &Site) -> Self {
        let members = site.members(config.striping);
        Self::with_disks(config, members)
    }

    /// A world whose appliance has mounted the volume on these disks.
    pub fn with_disks(config: WorldConfig, disks: Vec<Vec<u8>>) -> Self {
        let mut rng = Rng::with_seed(config.seed);
        let stats = Rc::new(Stats::default());
        let rx_pool = PagePool::new(512);
        let net_config = MemoryNetConfig { capabilities: config.capabilities, verify: true, ..Default::default() };
        let ring_entries = net_config.ring_entries;
        let (net, backend) = memory_net(net_config, rx_pool.clone(), stats.clone());
        let clock = Rc::new(Cell::new(Instant::ZERO));
        let device_clock = clock.clone();
        let net = Impaired::new(net, config.device, Box::new(move || device_clock.get()), stats.clone());
        let disks: Vec<MemoryDisk> = disks.into_iter().map(MemoryDisk::read_only).collect();
        let controls = disks.iter().map(|disk| Disk { control: disk.control(), due: Vec::new() }).collect::<Vec<_>>();
        for disk in &controls {
            disk.control.set_pace(Pace::Held);
            disk.control.set_shuffled(true);
        }
        let mut appliance_config = config.appliance;
        appliance_config.network.serving_port = SERVING_PORT;
        appliance_config.network.addresses =
            [IpCidr::new(SERVER[0], 16), IpCidr::new(SERVER[1], 64)].into_iter().collect();
        let secret = std::array::from_fn(|_| rng.u8(..));
        let mut appliance =
            Appliance::new(appliance_config, net, disks, secret, stats.clone()).expect("a sound configuration");
        appliance.mount();
        let machines = config.hosts.iter().zip(1..).map(|(mtu_bytes, number)| Machine {
            host: Host::new(number, *mtu_bytes, rng.u64(..)),
            to_host: Link::new(config.impairment, rng.u64(..)),
            to_appliance: Link::new(config.impairment, rng.u64(..)),
            deadline: Some(Instant::ZERO),
        });
        let mut world = Self {
            now: Instant::ZERO,
            appliance,
            backend,
            stats,
            rx_pool,
            inspect: Box::new(|_| ()),
            undelivered: 0,
            allocations: 0,
            clock,
            machines: machines.collect(),
            rng,
            disks: controls,
            taken: BTreeMap::new(),
            late: Late::default(),
            events: BTreeMap::new(),
            number: 0,
            awake: true,
            ring_entries,
            completion_delay: config.completion_delay,
            disk_delay: config.disk_delay,
        };
        assert!(
            world.run(&mut (), Duration::from_secs(10), |world| world.appliance.volume().is_some()),
            "no volume was mounted"
        );
        world
    }

    /// Has `event` happen at `at`.
    pub fn schedule(&mut self, at: Instant, event: Event) {
        self.number += 1;
        self.events.insert((at, self.number), event);
    }

    /// Forgets all events to come; the devices work from now on.
    pub fn calm(&mut self, capabilities: Capabilities) {
        self.events.clear();
        self.disks.iter().for_each(|disk| disk.control.fail_next(0));
        self.schedule(self.now, Event::FailOneIn(0));
        self.schedule(self.now, Event::NetUp(capabilities));
    }

    /// Puts a frame into the appliance's RX ring, from nowhere. False if there is no room for it.
    pub fn inject(&mut self, frame: &[u8]) -> bool {
        self.backend.deliver(&[frame], RxChecksum::Unknown, None).is_ok()
    }

    /// What has happened on all wires.
    pub fn counts(&self) -> LinkCounts {
        let mut total = LinkCounts::default();
        for machine in &self.machines {
            total += machine.to_host.counts();
            total += machine.to_appliance.counts();
        }
        total
    }

    /// Lets time pass until `done` says so (true), or for `limit`, or until nothing will ever happen again (false).
    pub fn run(
        &mut self,
        clients: &mut impl Clients,
        limit: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        // These clients may be others than the last time.
        self.machines.iter_mut().for_each(|machine| machine.deadline = Some(self.now));
        loop {
            self.turn(clients);
            if done(self) {
                return true;
            }
            match self.next_event() {
                Some(next) if next <= end => self.now = next.max(self.now + Duration::from_micros(1)),
                _ => {
                    self.now = end;
                    return false;
                }
            }
        }
    }

    /// Everything that happens now.
    fn turn(&mut self, clients: &mut impl Clients) {
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.happen(event);
        }
        while let Some(entry) = self.taken.first_entry().filter(|entry| entry.key().0 <= self.now) {
            self.late.completions.push(entry.remove());
        }
        for index in 0..self.machines.len() {
            let frames = &mut self.late.frames;
            self.machines[index].to_appliance.deliver(self.now, &mut |frame, _| {
                frames.push(frame.to_vec());
                true
            });
        }
        // Some of it comes a moment later, when the event loop has just found nothing to do.
        if self.rng.u8(..4) > 0 {
            self.catch_up();
        }
        self.wake_appliance();
        self.drain_ring();
        self.check_that_nothing_waits();
        for index in 0..self.machines.len() {
            self.run_machine(index, clients);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::NetDown => self.backend.down(),
            Event::NetUp(capabilities) => self.backend.up(capabilities),
            Event::FailNext(count) => self.disks[0].control.fail_next(count),
            Event::FailOneIn(n) => self.disks.iter().for_each(|disk| disk.control.fail_one_in(n)),
            Event::DiskBlip => {
                for (disk, device) in self.disks.iter_mut().zip(self.appliance.disks()) {
                    disk.control.up(device.geometry());
                    disk.due.clear();
                }
            }
        }
    }

    /// Puts a frame from the wire into the RX ring; the network interface may have checked its checksum, and pads it.
    fn deliver(&mut self, mut frame: Vec<u8>) {
        let checksum = match nic::tcp_checksum_is_right(&frame) {
            true if self.rng.u8(..3) == 0 => RxChecksum::Verified,
            true if self.rng.u8(..3) == 0 => RxChecksum::Partial(nic::to_partial(&mut frame)),
            _ => RxChecksum::Unknown,
        };
        let padding = [0x5a; MIN_FRAME_BYTES];
        let padding = &padding[..MIN_FRAME_BYTES.saturating_sub(frame.len())];
        if self.backend.deliver(&[&frame, padding], checksum, None).is_err() {
            self.undelivered += 1;
        }
    }

    /// Backend and disks do what they are late with, and wake the appliance if that asked to be woken.
    fn catch_up(&mut self) {
        for disk in &mut self.disks {
            let waiting = disk.due.len();
            disk.due.retain(|due| *due > self.now);
            disk.control.release(waiting - disk.due.len());
        }
        let Late { completions, frames } = std::mem::take(&mut self.late);
        completions.into_iter().for_each(|frame| self.backend.complete(frame));
        frames.into_iter().for_each(|frame| self.deliver(frame));
        self.backend.notify();
    }

    /// True if anything woke the event loop.
    fn is_woken(&self) -> bool {
        let woken_by_net = self.appliance.net().inner().woken();
        let woken_by_disk = self.appliance.disks().iter().filter(|disk| disk.woken()).count() > 0;
        let due = self.appliance.next_deadline().is_some_and(|deadline| deadline <= self.now);
        self.awake || woken_by_net || woken_by_disk || due
    }

    /// Runs the event loop if anything woke it, until it may sleep again.
    fn wake_appliance(&mut self) {
        if !self.is_woken() {
            self.catch_up();
            if !self.is_woken() {
                return;
            }
        }
        self.clock.set(self.now);
        let mut before = crate::allocations();
        let unix_s = START_UNIX_S + self.now.total_micros() as u64 / 1_000_000;
        for _ in 0..MAX_ROUNDS {
            if self.appliance.poll(self.now, unix_s) {
                continue;
            }
            self.allocations += crate::allocations() - before;
            self.catch_up();
            before = crate::allocations();
            if !self.appliance.arm() {
                self.awake = false;
                self.allocations += crate::allocations() - before;
                let deadline = self.appliance.next_deadline();
                assert!(
                    deadline.is_none_or(|at| at > self.now),
                    "asleep at {} until {deadline:?}, which is past",
                    self.now
                );
                return;
            }
        }
        panic!("the event loop finds no rest at {}", self.now);
    }

    /// The event loop sleeps: what has come for it must have been seen, or else a wake-up was lost. (TCP would heal it sooner
    /// or later, so it would show in no result.)
    fn check_that_nothing_waits(&self) {
        let posted = self.backend.rx_posted();
        assert!(posted == 0 || posted == self.ring_entries, "asleep at {} with frames in the RX ring", self.now);
        let held = self.taken.len() + self.late.completions.len();
        assert!(self.backend.in_flight() <= held, "asleep at {} with completed frames in the TX ring", self.now);
    }

    /// The backend takes what it was told of and puts it on the wires.
    fn drain_ring(&mut self) {
        if !self.backend.notified() {
            return;
        }
        loop {
            while let Some(frame) = self.backend.take() {
                (self.inspect)(&frame);
                let bytes = frame.parts().collect::<Vec<_>>().concat();
                for frame in nic::wire_frames(bytes, frame.offload()) {
                    self.put_on_wires(frame);
                }
                let due = self.now + self.up_to(self.completion_delay);
                self.number += 1;
                self.taken.insert((due, self.number), frame);
            }
            if !self.backend.arm() {
                return;
            }
        }
    }

    fn put_on_wires(&mut self, frame: Vec<u8>) {
        let destination = EthernetAddress::from_bytes(&frame[..6]);
        for machine in self.machines.iter_mut().filter(|machine| machine.host.hears(destination)) {
            machine.to_host.send(self.now, &frame);
        }
    }

    fn run_machine(&mut self, index: usize, clients: &mut impl Clients) {
        let now = self.now;
        let ours = EthernetAddress(self.appliance.net().capabilities().hardware_address);
        let machine = &mut self.machines[index];
        let mut active = machine.deadline.is_some_and(|deadline| deadline <= now);
        let host = &mut machine.host;
        active |= machine.to_host.deliver(now, &mut |frame, _| host.receive(frame)) > 0;
        if !active {
            return;
        }
        machine.host.poll(now);
        let wanted = clients.step(index, &mut machine.host, now);
        machine.host.poll(now);
        machine.deadline = wanted.into_iter().chain(machine.host.next_deadline(now)).min();
        for frame in machine.host.sent() {
            let destination = EthernetAddress::from_bytes(&frame[..6]);
            if destination == ours || destination.is_multicast() {
                machine.to_appliance.send(now, &frame);
            }
        }
    }

    /// When something happens next.
    fn next_event(&mut self) -> Option<Instant> {
        for index in 0..self.disks.len() {
            while self.disks[index].due.len() < self.disks[index].control.in_flight() {
                let due = self.now + self.up_to(self.disk_delay);
                self.disks[index].due.push(due);
            }
        }
        let of_machine = |machine: &Machine| {
            [machine.deadline, machine.to_host.next_deadline(), machine.to_appliance.next_deadline()]
                .into_iter()
                .flatten()
                .min()
        };
        let machines = self.machines.iter().filter_map(of_machine);
        let disks = self.disks.iter().flat_map(|disk| disk.due.iter().copied());
        let frames = self.taken.keys().next().map(|(due, _)| *due);
        let events = self.events.keys().next().map(|(at, _)| *at);
        let others = [frames, events, self.appliance.next_deadline()].into_iter().flatten();
        machines.chain(disks).chain(others).min()
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.u64(1..=most.total_micros().max(1)))
    }

    /// Takes the network device away and checks that everything lent has come back.
    pub fn check_that_all_came_back(&mut self) {
        let stats = &self.stats;
        assert_eq!((stats.connections_open.get(), stats.time_wait.get()), (0, 0), "connections left");
        assert_eq!((self.backend.in_flight(), self.backend.grants_in_use()), (0, 0), "frames and grants left");
        assert_eq!(self.rx_pool.in_use(), self.backend.rx_posted(), "RX pages that are not posted");
        assert_eq!(self.backend.violations(), 0, "pages written while granted");
        self.backend.gone();
        self.run(&mut (), Duration::from_secs(1), |_| false);
        assert_eq!(self.rx_pool.in_use(), 0, "RX pages left");
        assert_eq!(self.appliance.cache_pages().shared(), 0, "cache pages pinned by nobody");
        assert_eq!(self.appliance.packet_pages().in_use(), 0, "packet pages left");
    }
}
