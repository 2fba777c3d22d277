//! A whole appliance over the memory devices, with smoltcp's TCP as the client.

#[path = "../../tests/volumes/mod.rs"]
mod volumes;

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::tcp::State;
use smoltcp::socket::udp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpEndpoint, IpProtocol, Ipv4Address, TcpControl, TcpPacket, TcpRepr};

use super::{Appliance, ApplianceConfig};
use crate::net::NetworkConfig;
use crate::net::tests::client::Client;
use crate::net::tests::dhcp::{SERVER, Server};
use crate::net::tests::{SHELL_PORT, address, config as network_config, ip_frame, tcp_bytes, tcp_header};
use crate::platform::{MemoryUse, Platform, Power};
use crate::rings::memory::{MemoryDisk, MemoryDiskControl, MemoryNet, MemoryNetConfig, Pace, memory_net};
use crate::rings::{Capabilities, Geometry, PagePool};
use crate::stats::Stats;
use volumes::{Shape, Writer};

const UNIX_S: u64 = 1_700_000_000;
const CHUNK_BYTES: usize = 16 << 10;

/// Byte `i` of the object with that seed.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add((i >> 8) as u8) ^ seed).collect()
}

/// A volume of one member: name, seed and length of each object.
fn volume(objects: &[(&str, u8, usize)]) -> Vec<u8> {
    let mut writer = Writer::new(Shape::new(1, false, CHUNK_BYTES, 32));
    for (name, seed, length) in objects {
        let digest = volumes::digest(u64::from(*seed), 32);
        writer.add(name.as_bytes(), b"text/plain", &digest, 0, &content(*seed, *length));
    }
    writer.members.remove(0)
}

struct World {
    appliance: Appliance<MemoryNet, MemoryDisk>,
    client: Client,
    disk: MemoryDiskControl,
    now: Instant,
}

impl World {
    fn new(objects: &[(&str, u8, usize)]) -> Self {
        Self::with_disks(vec![volume(objects)], |_| ())
    }

    fn with_disks(disks: Vec<Vec<u8>>, change: impl FnOnce(&mut ApplianceConfig)) -> Self {
        let stats = Rc::new(Stats::default());
        let (net, backend) = memory_net(MemoryNetConfig::default(), PagePool::new(256), stats.clone());
        let disks: Vec<MemoryDisk> = disks.into_iter().map(MemoryDisk::read_only).collect();
        let control = disks[0].control();
        let mut config = ApplianceConfig { network: network_config(), ..ApplianceConfig::default() };
        change(&mut config);
        let appliance = Appliance::new(config, net, disks, [7; 32], stats).unwrap();
        let client = Client::new(backend, &["192.168.7.9/24", "10.0.0.9/8", "fd00::9/64", "fe80::9/64"]);
        let mut world = Self { appliance, client, disk: control, now: Instant::from_secs(1) };
        world.appliance.mount();
        world
    }

    fn mounted(objects: &[(&str, u8, usize)]) -> Self {
        let mut world = Self::new(objects);
        world.run(Duration::from_millis(10));
        assert_eq!(world.appliance.mount_result(), Some(Ok(())));
        world
    }

    /// Lets virtual time pass.
    fn run(&mut self, time: Duration) {
        self.run_while(time, |_| true);
    }

    /// Lets virtual time pass until `go_on` says no, at most that long. Only what is due happens: a wake-up that is lost
    /// shows as a stall.
    fn run_while(&mut self, time: Duration, mut go_on: impl FnMut(&mut Self) -> bool) {
        let end = self.now + time;
        while go_on(self) {
            let mut moved = self.client.poll(self.now);
            moved |= self.appliance.poll(self.now, UNIX_S);
            if moved || self.appliance.arm() {
                continue;
            }
            let theirs = self.client.interface.poll_at(self.now, &self.client.sockets);
            match self.appliance.next_deadline().into_iter().chain(theirs).min() {
                Some(next) if next <= end => self.now = next.max(self.now + Duration::from_micros(1)),
                _ => break,
            }
        }
        if go_on(self) {
            self.now = end;
        }
    }

    fn ask(&mut self, server: &str, path: &str) -> SocketHandle {
        let handle = self.client.connect(address(server), 80);
        self.run_while(Duration::from_secs(5), |world| !world.client.socket(handle).can_send());
        self.send(handle, path);
        handle
    }

    fn send(&mut self, handle: SocketHandle, path: &str) {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n");
        self.client.socket(handle).send_slice(request.as_bytes()).unwrap();
    }

    /// Reads a response to its end: status, head and body. `None` if the connection ended before.
    fn response(&mut self, handle: SocketHandle, limit: Duration) -> Option<Response> {
        let mut bytes = Vec::new();
        self.run_while(limit, |world| {
            bytes.extend(world.client.read(handle));
            Response::parse(&bytes).is_none() && world.client.socket(handle).is_active()
        });
        Response::parse(&bytes)
    }

    fn get(&mut self, server: &str, path: &str) -> Response {
        let handle = self.ask(server, path);
        self.response(handle, Duration::from_secs(30)).expect("a whole response")
    }

    fn state(&mut self, handle: SocketHandle) -> State {
        self.client.socket(handle).state()
    }

    fn stats(&self) -> &Stats {
        self.appliance.stats()
    }
}

struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let field = |name: &str| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            Some(String::from(line[name.len()..].trim()))
        };
        let length: usize = field("content-length:")?.parse().unwrap();
        let body = &bytes[end..];
        assert!(body.len() <= length, "bytes behind the body");
        (body.len() == length).then(|| Self { status: head[9..12].parse().unwrap(), body: body.to_vec(), head })
    }
}

const OBJECTS: [(&str, u8, usize); 4] =
    [("small", 1, 700), ("large", 2, 500_000), ("empty", 3, 0), ("other", 4, 70_000)];

#[test]
fn objects_are_served_over_both_versions_of_ip() {
    let mut world = World::mounted(&OBJECTS);
    for server in ["192.168.7.2", "10.0.0.2", "fd00::2", "fe80::ff:fe00:1"] {
        for (name, seed, length) in OBJECTS {
            let response = world.get(server, name);
            assert_eq!(response.status, 200, "{}", response.head);
            assert!(response.body == content(seed, length), "{name} from {server}");
        }
        assert_eq!(world.get(server, "nothing").status, 404);
    }
    assert_eq!(world.stats().copied_bytes.get(), 0);
    assert_eq!(world.stats().rx_malformed.get(), 0, "smoltcp sends nothing that is malformed");
}

#[test]
fn a_connection_serves_one_object_after_the_other() {
    let mut world = World::mounted(&OBJECTS);
    let handle = world.ask("192.168.7.2", "small");
    for (name, seed, length) in OBJECTS {
        assert_eq!(world.response(handle, Duration::from_secs(5)).unwrap().body, content(1, 700));
        world.send(handle, name);
        assert!(world.response(handle, Duration::from_secs(5)).unwrap().body == content(seed, length));
        world.send(handle, "small");
    }
    assert_eq!(world.stats().connections_accepted.get(), 1);
}

#[test]
fn other_ports_are_closed() {
    let mut world = World::mounted(&OBJECTS);
    for server in ["192.168.7.2", "fd00::2"] {
        let handle = world.client.connect(address(server), 8080);
        world.run(Duration::from_secs(1));
        assert_eq!(world.state(handle), State::Closed);
    }
}

#[test]
fn before_a_mount_and_after_a_failed_one_there_is_an_answer() {
    let mut world = World::new(&OBJECTS);
    world.disk.fail_next(1);
    assert_eq!(world.get("192.168.7.2", "small").status, 503);
    let failed = world.appliance.mount_result().unwrap();
    assert!(failed.is_err());
    assert_eq!(world.appliance.mount_result(), None, "told once");

    world.appliance.mount();
    world.run(Duration::from_millis(100));
    assert_eq!(world.appliance.mount_result(), Some(Ok(())));
    assert_eq!(world.get("192.168.7.2", "small").status, 200);
}

#[test]
fn the_smallest_cache_serves_the_largest_chunks() {
    // Two chunks of 512 KiB are all that the cache holds.
    let mut shape = Shape::new(16, true, 32 << 10, 32);
    shape.buckets = 16;
    let mut writer = Writer::new(shape);
    writer.add(b"large", b"", &volumes::digest(1, 32), 0, &content(1, 3_000_000));
    let mut world = World::with_disks(writer.members, |config| config.cache_bytes = super::MIN_CACHE_BYTES);
    let others: Vec<SocketHandle> = (0..3).map(|_| world.ask("192.168.7.2", "large")).collect();
    let response = world.get("fd00::2", "large");
    assert!(response.body == content(1, 3_000_000));
    for handle in others {
        let response =
            world.response(handle, Duration::from_secs(60)).expect("nobody is reset for a reader that reads");
        assert!(response.body == content(1, 3_000_000));
    }
}

#[test]
fn a_device_that_goes_and_comes_back_interrupts_nothing() {
    let mut world = World::mounted(&OBJECTS);
    let capabilities = MemoryNetConfig::default().capabilities;
    let fewer = Capabilities { checksum: false, tso4: false, tso6: false, ..capabilities };
    for (server, after) in [("192.168.7.2", capabilities), ("fd00::2", capabilities), ("192.168.7.2", fewer)] {
        let handle = world.ask(server, "large");
        let mut bytes = Vec::new();
        world.run_while(Duration::from_secs(5), |world| {
            bytes.extend(world.client.read(handle));
            bytes.len() < 100_000
        });
        world.client.backend.down();
        world.run(Duration::from_millis(500));
        bytes.extend(world.client.read(handle));
        assert!(bytes.len() < 500_000);
        world.client.backend.up(after);
        world.run_while(Duration::from_secs(60), |world| {
            bytes.extend(world.client.read(handle));
            Response::parse(&bytes).is_none()
        });
        assert!(Response::parse(&bytes).unwrap().body == content(2, 500_000), "{server}");
        world.client.backend.up(capabilities);
    }
    assert_eq!(world.client.backend.violations(), 0);
}

#[test]
fn a_disk_that_fails_before_the_head_is_an_error_page() {
    let mut world = World::mounted(&OBJECTS);
    world.disk.fail_next(100);
    let response = world.get("192.168.7.2", "large");
    assert!(matches!(response.status, 500 | 503), "{}", response.head);
    world.disk.fail_next(0);
    assert_eq!(world.get("192.168.7.2", "large").status, 200, "a failed read is no fact");
}

#[test]
fn a_disk_that_fails_behind_the_head_resets_the_connection() {
    let mut world = World::mounted(&OBJECTS);
    // The object's chunks from the tenth on.
    let sectors = |byte: usize| (byte / 512) as u64;
    let start =
        world.disk.with_bytes(|bytes| bytes.windows(64).position(|window| window == &content(2, 64)[..]).unwrap());
    let bad = sectors(start + 10 * CHUNK_BYTES)..sectors(start + 500_000);
    world.disk.fail_sectors(bad);
    let handle = world.ask("fd00::2", "large");
    assert!(world.response(handle, Duration::from_secs(30)).is_none());
    assert_eq!(world.state(handle), State::Closed, "reset, not ended as if it were whole");
    assert_eq!(world.stats().http_aborted.get(), 1);
    world.disk.fail_sectors(0..0);
    assert!(world.get("fd00::2", "large").body == content(2, 500_000));
}

#[test]
fn a_disk_that_goes_away_takes_no_other_down() {
    let mut world = World::mounted(&OBJECTS);
    assert_eq!(world.get("192.168.7.2", "small").status, 200);
    let geometry = Geometry {
        sector_bytes: 512,
        sectors: world.disk.with_bytes(|bytes| bytes.len() as u64 / 512),
        read_only: true,
    };
    world.disk.down();
    assert_eq!(world.get("192.168.7.2", "small").status, 200, "cached");
    assert!(matches!(world.get("192.168.7.2", "large").status, 500 | 503));
    world.disk.up(geometry);
    assert_eq!(world.get("192.168.7.2", "large").status, 200);
}

#[test]
fn a_remount_swaps_the_volume_and_requests_under_way_finish_on_the_old_one() {
    let mut world = World::mounted(&OBJECTS);
    // All of it in the cache, a part of it on its way.
    assert!(world.get("192.168.7.2", "large").body == content(2, 500_000));
    let handle = world.ask("192.168.7.2", "large");
    let mut bytes = Vec::new();
    world.run_while(Duration::from_secs(5), |world| {
        bytes.extend(world.client.read(handle));
        bytes.len() < 50_000
    });
    world.disk.set_bytes(volume(&[("large", 9, 300_000), ("fresh", 5, 10)]));
    world.appliance.mount();
    world.run_while(Duration::from_secs(5), |world| world.appliance.mount_result().is_none());
    assert!(world.get("fd00::2", "large").body == content(9, 300_000));
    assert_eq!(world.get("fd00::2", "fresh").status, 200);
    assert_eq!(world.get("fd00::2", "small").status, 404);
    world.run_while(Duration::from_secs(30), |world| {
        bytes.extend(world.client.read(handle));
        Response::parse(&bytes).is_none()
    });
    assert!(Response::parse(&bytes).unwrap().body == content(2, 500_000));
}

#[test]
fn what_the_cache_reads_during_a_mount_arrives() {
    let mut world = World::mounted(&OBJECTS);
    world.disk.set_pace(Pace::Held);
    let handle = world.ask("192.168.7.2", "large");
    world.run(Duration::from_millis(10));
    assert!(world.disk.in_flight() > 0);
    world.appliance.mount();
    world.appliance.mount();
    let mut mounts = 0;
    let mut bytes = Vec::new();
    world.run_while(Duration::from_secs(30), |world| {
        world.disk.release(1);
        mounts += usize::from(world.appliance.mount_result() == Some(Ok(())));
        bytes.extend(world.client.read(handle));
        Response::parse(&bytes).is_none() || mounts == 0
    });
    assert!(Response::parse(&bytes).unwrap().body == content(2, 500_000));
    assert_eq!(mounts, 1, "of two mounts in a row the last one's end is told");
}

#[test]
fn a_shutdown_lets_requests_finish_and_closes_the_rest() {
    let mut world = World::mounted(&OBJECTS);
    let at_rest = world.ask("192.168.7.2", "small");
    assert!(world.response(at_rest, Duration::from_secs(5)).is_some());
    let busy = world.ask("fd00::2", "large");
    world.run_while(Duration::from_secs(5), |world| world.client.socket(busy).recv_queue() < 1000);
    world.appliance.shutdown(world.now, Duration::from_secs(20));
    let late = world.client.connect(address("192.168.7.2"), 80);
    let response = world.response(busy, Duration::from_secs(10)).expect("finished");
    assert!(response.body == content(2, 500_000));
    assert!(matches!(world.state(at_rest), State::CloseWait), "{:?}", world.state(at_rest));
    for handle in [at_rest, busy] {
        world.client.socket(handle).close();
    }
    world.run_while(Duration::from_secs(15), |world| !world.appliance.is_stopped());
    assert!(world.appliance.is_stopped(), "before its limit");
    assert_eq!(world.state(late), State::SynSent);
    assert!(!world.appliance.poll(world.now, UNIX_S));
    assert_eq!(world.appliance.next_deadline(), None);
}

#[test]
fn a_shutdown_resets_what_does_not_finish() {
    let mut world = World::mounted(&OBJECTS);
    let stalled = world.ask("192.168.7.2", "large");
    // It never reads, so its window closes.
    world.run(Duration::from_secs(1));
    world.appliance.shutdown(world.now, Duration::from_secs(5));
    world.run_while(Duration::from_secs(4), |world| !world.appliance.is_stopped());
    assert!(!world.appliance.is_stopped());
    world.run_while(Duration::from_secs(5), |world| !world.appliance.is_stopped());
    assert!(world.appliance.is_stopped());
    world.client.poll(world.now);
    assert_eq!(world.state(stalled), State::Closed);
    assert_eq!(world.appliance.cache_pages().shared(), 0, "nothing is pinned any more");
}

/// The world as a process has it: the client shares the loop, and sleep takes virtual time.
struct Process<'a> {
    client: &'a mut Client,
    now: Instant,
    end: Instant,
    sleeps: usize,
}

impl Platform for Process<'_> {
    type Error = Infallible;

    fn now(&self) -> Instant {
        self.now
    }

    fn unix_s(&self) -> u64 {
        UNIX_S
    }

    fn work(&mut self) -> Result<bool, Infallible> {
        Ok(self.client.poll(self.now))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<(), Infallible> {
        let theirs = self.client.interface.poll_at(self.now, &self.client.sockets);
        let next = deadline.into_iter().chain(theirs).min().unwrap_or(self.end);
        if next > self.now {
            self.sleeps += 1;
            self.now = next;
        }
        Ok(())
    }
}

#[test]
fn turns_do_what_there_is_to_do_and_sleep_in_between() {
    let mut world = World::mounted(&OBJECTS);
    let handle = world.ask("192.168.7.2", "large");
    let World { appliance, client, now, .. } = &mut world;
    let end = *now + Duration::from_secs(60);
    let mut process = Process { client, now: *now, end, sleeps: 0 };
    let mut bytes = Vec::new();
    let mut turns = 0;
    while process.now < end {
        let Ok(()) = appliance.turn(&mut process);
        bytes.extend(process.client.read(handle));
        turns += 1;
    }
    assert!(Response::parse(&bytes).unwrap().body == content(2, 500_000));
    assert_eq!(appliance.stats().http_timeouts.get(), 1, "the connection at rest was closed in time");
    assert!(process.sleeps > 1 && turns < process.sleeps * 2 + 100, "{turns} turns, {} sleeps", process.sleeps);
}

#[test]
fn a_turn_does_not_sleep_over_the_end_of_a_mount_or_a_shutdown() {
    let mut world = World::new(&OBJECTS);
    let World { appliance, client, now, .. } = &mut world;
    let (begin, end) = (*now, *now + Duration::from_secs(1000));
    let mut process = Process { client, now: begin, end, sleeps: 0 };
    let mut result = None;
    while result.is_none() {
        let Ok(()) = appliance.turn(&mut process);
        result = appliance.mount_result();
    }
    assert_eq!((result, process.now), (Some(Ok(())), begin));
    appliance.shutdown(process.now, Duration::from_secs(10));
    while !appliance.is_stopped() {
        let Ok(()) = appliance.turn(&mut process);
    }
    assert!(process.now < begin + Duration::from_secs(10), "nobody was connected");
}

/// A client of the shell that has said `line`.
fn tell_shell(world: &mut World, line: &str) -> SocketHandle {
    let shell = world.client.connect(address("192.168.7.2"), SHELL_PORT);
    world.run_while(Duration::from_secs(5), |world| !world.client.socket(shell).can_send());
    world.client.socket(shell).send_slice(format!("{line}\r\n").as_bytes()).unwrap();
    shell
}

/// What the shell has said, telnet's commands left in.
fn heard(world: &mut World, shell: SocketHandle) -> String {
    String::from_utf8_lossy(&world.client.read(shell)).into_owned()
}

#[test]
fn halt_says_goodbye_lets_requests_finish_and_asks_the_platform() {
    let mut world = World::mounted(&OBJECTS);
    let onlooker = tell_shell(&mut world, "repeat 1000000 10 0 echo tick");
    world.disk.set_pace(Pace::Held);
    let download = world.ask("10.0.0.2", "large");
    world.run(Duration::from_millis(100));
    let shell = tell_shell(&mut world, "halt");
    world.run(Duration::from_millis(100));
    assert_eq!(world.appliance.power_request(), Some(Power::Halt));
    for client in [shell, onlooker] {
        let said = heard(&mut world, client);
        assert!(said.ends_with("\r\nThe system halts now.\r\nlogout\r\n"), "{said}");
        assert_eq!(world.state(client), State::CloseWait, "the connection is closed, not reset");
        world.client.socket(client).close();
    }
    assert!(!world.appliance.is_stopped(), "a request is under way");
    // Who comes now is told as well.
    let late = tell_shell(&mut world, "echo x");
    world.run(Duration::from_millis(10));
    let said = heard(&mut world, late);
    assert!(said.contains("halts now") && !said.contains("mc#"), "{said}");
    world.client.socket(late).close();
    world.disk.set_pace(Pace::AtOnce);
    world.disk.release(usize::MAX);
    let response = world.response(download, Duration::from_secs(4)).unwrap();
    assert!(response.body == content(2, 500_000));
    world.client.socket(download).close();
    world.run(Duration::from_secs(2));
    assert!(world.appliance.is_stopped());
}

#[test]
fn a_farewell_waits_for_its_reader_but_not_for_long() {
    let mut world = World::mounted(&OBJECTS);
    let shell = tell_shell(&mut world, "halt");
    // The client neither closes nor goes away.
    world.run_while(Duration::from_secs(20), |world| !world.appliance.is_stopped());
    assert!(world.appliance.is_stopped());
    let said = heard(&mut world, shell);
    assert!(said.contains("The system halts now."), "{said}");
}

#[test]
fn reboot_is_for_machines_that_can() {
    let mut world = World::mounted(&OBJECTS);
    let shell = tell_shell(&mut world, "reboot");
    world.run(Duration::from_millis(100));
    let said = heard(&mut world, shell);
    assert!(said.contains("reboot: this is a process") && world.appliance.power_request().is_none(), "{said}");
    world.appliance.allow_reboot();
    world.client.socket(shell).send_slice(b"reboot\r\n").unwrap();
    world.run(Duration::from_millis(100));
    assert_eq!(world.appliance.power_request(), Some(Power::Reboot));
    let said = heard(&mut world, shell);
    assert!(said.contains("The system reboots now."), "{said}");
}

#[test]
fn memory_is_shown_as_the_platform_tells_it() {
    let mut world = World::mounted(&OBJECTS);
    let shell = tell_shell(&mut world, "mallinfo");
    world.run(Duration::from_millis(100));
    let said = heard(&mut world, shell);
    assert!(said.contains("does not tell"), "{said}");
    world.appliance.set_memory_source(Box::new(|| MemoryUse {
        total_bytes: 64 << 20,
        heap_bytes: 60 << 20,
        heap_used_bytes: 20 << 20,
        heap_peak_bytes: Some(30 << 20),
        allocations: 1234,
    }));
    world.client.socket(shell).send_slice(b"free -m\r\nmallinfo\r\n").unwrap();
    world.run(Duration::from_millis(100));
    let said = heard(&mut world, shell);
    let rows: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &["memory", "64", "24", "40"][..],
        &["heap", "60", "20", "40"],
        &["free", "41943040"],
        &["most", "used", "31457280"],
        &["allocations", "1234"],
    ] {
        assert!(rows.iter().any(|said| said == row), "{row:?}: {said}");
    }
}

/// A DHCP server behind a socket of the client's.
fn serve_dhcp(world: &mut World, server: &mut Server, socket: SocketHandle) {
    let socket = world.client.sockets.get_mut::<udp::Socket<'static>>(socket);
    while let Ok((message, _)) = socket.recv() {
        if let Some(answer) = server.answer(message, SERVER) {
            let everybody = IpEndpoint::new(IpAddress::v4(255, 255, 255, 255), 68);
            socket.send_slice(&answer, everybody).unwrap();
        }
    }
}

#[test]
fn a_lent_address_is_served_until_it_is_another() {
    let mut world = World::with_disks(vec![volume(&OBJECTS)], |config| {
        config.network = NetworkConfig { dhcp: true, shell_port: Some(SHELL_PORT), ..NetworkConfig::default() };
    });
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(67).unwrap();
    let socket = world.client.sockets.add(socket);
    let mut server = Server::new();
    server.lease_s = Some(30);
    let run = |world: &mut World, server: &mut Server, time| {
        world.run_while(time, |world| {
            serve_dhcp(world, server, socket);
            true
        });
    };
    run(&mut world, &mut server, Duration::from_secs(2));
    let response = world.get("192.168.7.100", "large");
    assert!(response.body == content(2, 500_000));
    // What the server says of the link's MTU counts.
    let (us, peer) = (address("192.168.7.100"), address("192.168.7.9"));
    let syn = TcpRepr { control: TcpControl::Syn, ack_number: None, sack_ranges: [None; 3], ..tcp_header(80, &[]) };
    let frame = ip_frame(peer, us, IpProtocol::Tcp, &tcp_bytes(&syn, peer, us));
    world.client.send_raw(&frame);
    while world.appliance.poll(world.now, UNIX_S) {}
    let answers = world.client.take_raw();
    let segment = TcpPacket::new_checked(&answers.last().unwrap()[34..]).unwrap();
    let answer = TcpRepr::parse(&segment, &us, &peer, &ChecksumCapabilities::ignored()).unwrap();
    assert_eq!(answer.max_seg_size, Some(1400 - 40));

    let shell = world.client.connect(us, SHELL_PORT);
    let held = world.client.connect(us, 80);
    run(&mut world, &mut server, Duration::from_secs(1));
    world.client.socket(shell).send_slice(b"ifconfig\r\n").unwrap();
    run(&mut world, &mut server, Duration::from_secs(1));
    let said = heard(&mut world, shell);
    for line in [
        "inet addr:192.168.7.100/24",
        "dhcp:192.168.7.100/24 from 192.168.7.9, 0:00:2",
        "gateway:192.168.7.1",
        "dns:9.9.9.9",
        "IPv4 MTU:1400",
        "UP DHCP ",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(world.client.socket(held).may_recv() && world.appliance.connections().count() > 0);
    server.offers = Ipv4Address::new(192, 168, 7, 101);
    run(&mut world, &mut server, Duration::from_secs(13));
    assert_eq!(world.appliance.connections().count(), 0, "its address is gone");
    assert_eq!(world.stats().http_timeouts.get(), 0);
    assert_eq!(world.appliance.packet_pages().in_use(), 0);
    assert_eq!(world.get("192.168.7.101", "small").status, 200);
    let shell = world.client.connect(address("192.168.7.101"), SHELL_PORT);
    run(&mut world, &mut server, Duration::from_secs(1));
    world.client.socket(shell).send_slice(b"who\r\n").unwrap();
    run(&mut world, &mut server, Duration::from_secs(1));
    assert_eq!(heard(&mut world, shell).matches("rsh").count(), 1, "the session at the old address is over");
}
