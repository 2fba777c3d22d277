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
use minicache::rings::memory::MemoryNetConfig;
use minicache::rings::{BlockDevice, Capabilities, NetQueue, PagePool, RxChecksum};
use minicache::stats::Stats;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address};

use super::devices::{Devices, Frame, Setup};
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
    /// How long whoever connects devices takes for each step.
    pub step_delay: Duration,
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
            step_delay: Duration::from_micros(300),
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
struct Late<F> {
    completions: Vec<F>,
    frames: Vec<Vec<u8>>,
    /// A step towards connected devices.
    step: bool,
}

impl<F> Default for Late<F> {
    fn default() -> Self {
        Self { completions: Vec::new(), frames: Vec::new(), step: false }
    }
}

/// Looks at a frame: where its pieces behind the head lie in memory, and their lengths.
type Inspect = Box<dyn FnMut(&[(usize, usize)])>;

/// The world.
pub struct World<D: Devices> {
    /// Virtual time.
    pub now: Instant,
    /// The appliance under test.
    pub appliance: Appliance<Impaired<D::Net>, D::Disk>,
    /// The other side of its devices.
    pub devices: D,
    /// Every counter of the appliance.
    pub stats: Rc<Stats>,
    /// Where the network device's pages come from.
    pub rx_pool: PagePool,
    /// Looks at every frame that the backend takes.
    pub inspect: Inspect,
    /// Frames for the appliance that found no posted pages.
    pub undelivered: u64,
    /// Allocations made within the appliance's event loop.
    pub allocations: u64,
    /// Virtual time, for the network device.
    clock: Rc<Cell<Instant>>,
    rng: Rng,
    machines: Vec<Machine>,
    /// When each disk's requests complete, one entry for each of them.
    disks: Vec<Vec<Instant>>,
    /// Frames that the backend holds, by the time at which it completes them.
    taken: BTreeMap<(Instant, u64), D::Frame>,
    late: Late<D::Frame>,
    /// When the devices' connection goes on.
    step_at: Option<Instant>,
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    awake: bool,
    completion_delay: Duration,
    disk_delay: Duration,
    step_delay: Duration,
}

impl<D: Devices> World<D> {
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
        let count = disks.len();
        let (devices, net, disks) = D::new(Setup {
            capabilities: config.capabilities,
            rx_pool: rx_pool.clone(),
            disks,
            stats: stats.clone(),
            rng: rng.fork(),
        });
        let clock = Rc::new(Cell::new(Instant::ZERO));
        let device_clock = clock.clone();
        let net = Impaired::new(net, config.device, Box::new(move || device_clock.get()), stats.clone());
        let mut appliance_config = config.appliance;
        appliance_config.network.serving_port = SERVING_PORT;
        appliance_config.network.addresses =
            [IpCidr::new(SERVER[0], 16), IpCidr::new(SERVER[1], 64)].into_iter().collect();
        let secret = std::array::from_fn(|_| rng.u8(..));
        let appliance =
            Appliance::new(appliance_config, net, disks, secret, stats.clone()).expect("a sound configuration");
        let machines = config.hosts.iter().zip(1..).map(|(mtu_bytes, number)| Machine {
            host: Host::new(number, *mtu_bytes, rng.u64(..)),
            to_host: Link::new(config.impairment, rng.u64(..)),
            to_appliance: Link::new(config.impairment, rng.u64(..)),
            deadline: Some(Instant::ZERO),
        });
        let mut world = Self {
            now: Instant::ZERO,
            appliance,
            devices,
            stats,
            rx_pool,
            inspect: Box::new(|_| ()),
            undelivered: 0,
            allocations: 0,
            clock,
            machines: machines.collect(),
            rng,
            disks: vec![Vec::new(); count],
            taken: BTreeMap::new(),
            late: Late::default(),
            step_at: None,
            events: BTreeMap::new(),
            number: 0,
            awake: true,
            completion_delay: config.completion_delay,
            disk_delay: config.disk_delay,
            step_delay: config.step_delay,
        };
        let are_connected = |world: &mut Self| world.appliance.disks().iter().all(|disk| disk.geometry().sectors > 0);
        assert!(world.run(&mut (), Duration::from_secs(10), are_connected), "disks that are not connected");
        world.appliance.mount();
        world.awake = true;
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
        (0..self.disks.len()).for_each(|disk| self.devices.fail_next(disk, 0));
        self.schedule(self.now, Event::FailOneIn(0));
        self.schedule(self.now, Event::NetUp(capabilities));
    }

    /// Puts a frame into the appliance's RX ring, from nowhere. False if there is no room for it.
    pub fn inject(&mut self, frame: &[u8]) -> bool {
        self.devices.deliver(&[frame], RxChecksum::Unknown).is_ok()
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
        self.late.step |= self.step_at.take_if(|at| *at <= self.now).is_some();
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
        let disks = 0..self.disks.len();
        match event {
            Event::NetDown => self.devices.net_down(),
            Event::NetUp(capabilities) => self.devices.net_up(capabilities),
            Event::FailNext(count) => self.devices.fail_next(0, count),
            Event::FailOneIn(n) => disks.for_each(|disk| self.devices.fail_one_in(disk, n)),
            Event::DiskBlip => {
                for disk in disks {
                    self.devices.blip(disk);
                    self.disks[disk].clear();
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
        if self.devices.deliver(&[&frame, padding], checksum).is_err() {
            self.undelivered += 1;
        }
    }

    /// Backend and disks do what they are late with, and wake the appliance if that asked to be woken.
    fn catch_up(&mut self) {
        for (disk, due) in self.disks.iter_mut().enumerate() {
            let waiting = due.len();
            due.retain(|due| *due > self.now);
            self.devices.release(disk, waiting - due.len());
        }
        let Late { completions, frames, step } = std::mem::take(&mut self.late);
        if step {
            self.devices.step();
        }
        completions.into_iter().for_each(|frame| self.devices.complete(frame));
        frames.into_iter().for_each(|frame| self.deliver(frame));
        self.devices.notify();
    }

    /// True if anything woke the event loop.
    fn is_woken(&self) -> bool {
        let woken = self.devices.woken(self.appliance.net().inner(), self.appliance.disks());
        let due = self.appliance.next_deadline().is_some_and(|deadline| deadline <= self.now);
        self.awake || woken || due
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

    /// The event loop sleeps: what has come for it must have been seen.
    fn check_that_nothing_waits(&self) {
        self.devices.check_asleep(self.now, self.taken.len() + self.late.completions.len());
    }

    /// The backend takes what it was told of and puts it on the wires.
    fn drain_ring(&mut self) {
        if !self.devices.notified() {
            return;
        }
        loop {
            while let Some(frame) = self.devices.take() {
                (self.inspect)(&frame.places());
                for frame in nic::wire_frames(frame.bytes(), frame.offload()) {
                    self.put_on_wires(frame);
                }
                let due = self.now + self.up_to(self.completion_delay);
                self.number += 1;
                self.taken.insert((due, self.number), frame);
            }
            if !self.devices.arm() {
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
            while self.disks[index].len() < self.devices.waiting(index) {
                let due = self.now + self.up_to(self.disk_delay);
                self.disks[index].push(due);
            }
        }
        if self.step_at.is_none() && self.devices.is_due() {
            self.step_at = Some(self.now + self.up_to(self.step_delay));
        }
        let of_machine = |machine: &Machine| {
            [machine.deadline, machine.to_host.next_deadline(), machine.to_appliance.next_deadline()]
                .into_iter()
                .flatten()
                .min()
        };
        let machines = self.machines.iter().filter_map(of_machine);
        let disks = self.disks.iter().flatten().copied();
        let frames = self.taken.keys().next().map(|(due, _)| *due);
        let events = self.events.keys().next().map(|(at, _)| *at);
        let others = [frames, events, self.step_at, self.appliance.next_deadline()].into_iter().flatten();
        machines.chain(disks).chain(others).min()
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.rng.u64(1..=most.total_micros().max(1)))
    }

    /// Takes the devices away and checks that everything lent has come back.
    pub fn check_that_all_came_back(&mut self) {
        let stats = &self.stats;
        assert_eq!((stats.connections_open.get(), stats.time_wait.get()), (0, 0), "connections left");
        self.devices.check_idle(&self.rx_pool);
        self.devices.gone();
        self.run(&mut (), Duration::from_secs(1), |_| false);
        self.devices.check_gone();
        assert_eq!(self.rx_pool.in_use(), 0, "RX pages left");
        assert_eq!(self.appliance.cache_pages().shared(), 0, "cache pages pinned by nobody");
        assert_eq!(self.appliance.packet_pages().in_use(), 0, "packet pages left");
    }
}
