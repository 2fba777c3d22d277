//! The bridge between real sockets and a TCP that is not ours: smoltcp's, on the appliance's side of the ring.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::time;

use hashbrown::HashMap;
use minicache::rings::memory::{MemoryNet, MemoryNetConfig, memory_net};
use minicache::rings::{Capabilities, NetQueue, Offload, PagePool, RxFrame, TxFrame};
use minicache::stats::Stats;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetFrame, HardwareAddress, IpAddress, IpCidr, IpVersion, Ipv4Packet, Ipv6Packet, TcpPacket};

use super::*;

const HARDWARE_ADDRESS: [u8; 6] = [6, 0, 0, 0, 0, 1];
const MTU: usize = 1500;
const HTTP: Purpose = Purpose { option: "--listen", proposed_port: 8080, port: 80, behind_router: false };

/// The memory device as smoltcp's, without Ethernet: the sender of each connection's frames is remembered instead of asked for.
struct Wire {
    net: MemoryNet,
    senders: HashMap<(IpAddress, u16), EthernetAddress>,
}

struct Received(Vec<u8>);
struct Transmit<'a>(&'a mut Wire);

/// Addresses and ports of a TCP packet: source and destination.
fn ends(packet: &[u8]) -> [(IpAddress, u16); 2] {
    let (source, destination, header_bytes) = match IpVersion::of_packet(packet).unwrap() {
        IpVersion::Ipv4 => {
            let packet = Ipv4Packet::new_checked(packet).unwrap();
            (packet.src_addr().into(), packet.dst_addr().into(), usize::from(packet.header_len()))
        }
        IpVersion::Ipv6 => {
            let packet = Ipv6Packet::new_checked(packet).unwrap();
            (packet.src_addr().into(), packet.dst_addr().into(), packet.header_len())
        }
    };
    let tcp = TcpPacket::new_checked(&packet[header_bytes..]).unwrap();
    [(source, tcp.src_port()), (destination, tcp.dst_port())]
}

impl phy::Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Transmit<'_>)> {
        let mut bytes = Vec::new();
        self.net.receive(1, &mut |frame: &RxFrame| {
            bytes.resize(frame.len(), 0);
            frame.copy_to(&mut bytes);
        });
        let frame = EthernetFrame::new_checked(&bytes).ok()?;
        let packet = frame.payload().to_vec();
        self.senders.insert(ends(&packet)[0], frame.src_addr());
        Some((Received(packet), Transmit(self)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Transmit<'_>> {
        Some(Transmit(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; 14 + length];
        let result = f(&mut frame[14..]);
        let target = self.0.senders[&ends(&frame[14..])[1]];
        let ethertype = if frame[14] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        frame[..6].copy_from_slice(target.as_bytes());
        frame[6..12].copy_from_slice(&HARDWARE_ADDRESS);
        frame[12..14].copy_from_slice(&ethertype);
        // smoltcp sends a frame again that the full ring loses here.
        let _ = self.0.net.transmit(&TxFrame { head: &frame, slices: &[], offload: Offload::None });
        result
    }
}

/// A bridge with an appliance behind it that can hold `sockets` connections.
struct World {
    bridge: Bridge,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
    addresses: Vec<SocketAddr>,
    started: time::Instant,
}

impl World {
    fn new(listen: &[&str], sockets: usize) -> Self {
        let capabilities = Capabilities {
            hardware_address: HARDWARE_ADDRESS,
            mtu_bytes: MTU as u16,
            head_bytes: 14 + MTU,
            ..MemoryNetConfig::default().capabilities
        };
        let config = MemoryNetConfig { capabilities, verify: true, ..MemoryNetConfig::default() };
        let (net, backend) = memory_net(config, PagePool::new(256), Rc::new(Stats::default()));
        let listeners: Vec<_> = listen.iter().map(|at| Listener::bind(at.parse().unwrap(), &HTTP).unwrap()).collect();
        let addresses = listeners.iter().map(Listener::address).collect();
        let config = BridgeConfig {
            hardware_address: HARDWARE_ADDRESS,
            clients_max: 1000,
            initial_sequence: u32::MAX - 500,
            checksums: false,
        };
        let bridge = Bridge::new(config, backend, listeners).unwrap();
        let mut wire = Wire { net, senders: HashMap::new() };
        let now = smoltcp::time::Instant::ZERO;
        let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, now);
        interface.update_ip_addrs(|ours| {
            for index in 0..listen.len().min(2) {
                let (v4, v6) = appliance_addresses(index);
                ours.push(IpCidr::new(v4.into(), 32)).unwrap();
                ours.push(IpCidr::new(v6.into(), 128)).unwrap();
            }
        });
        let gateway = appliance_addresses(0);
        interface.routes_mut().add_default_ipv4_route(gateway.0).unwrap();
        interface.routes_mut().add_default_ipv6_route(gateway.1).unwrap();
        let mut set = SocketSet::new(Vec::new());
        let handles = (0..sockets)
            .map(|_| {
                let buffer = || tcp::SocketBuffer::new(vec![0; 16 << 10]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.listen(80).unwrap();
                set.add(socket)
            })
            .collect();
        Self { bridge, wire, interface, sockets: set, handles, addresses, started: time::Instant::now() }
    }

    fn now(&self) -> Instant {
        Instant::from_micros(self.started.elapsed().as_micros() as i64)
    }

    /// Runs both sides until `done` finds what it wants.
    fn until<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> R {
        for _ in 0..20_000 {
            if let Some(result) = done(self) {
                return result;
            }
            self.bridge.wait(Some(time::Duration::ZERO), |_| ()).unwrap();
            let mut busy = self.bridge.poll(self.now());
            busy |= self.interface.poll(self.now(), &mut self.wire, &mut self.sockets)
                == smoltcp::iface::PollResult::SocketStateChanged;
            self.wire.net.reclaim();
            self.wire.net.flush();
            if !busy && !self.bridge.flush_acknowledgements(self.now()) {
                self.bridge.wait(Some(time::Duration::from_millis(1)), |_| ()).unwrap();
            }
        }
        panic!("20,000 rounds changed nothing");
    }

    fn socket(&mut self, index: usize) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.handles[index])
    }

    /// Connects, and waits until the appliance has accepted as its connection `index`.
    fn connect(&mut self, listener: usize, index: usize) -> TcpStream {
        let client = TcpStream::connect(self.addresses[listener]).unwrap();
        self.until(|world| (world.socket(index).state() == tcp::State::Established).then_some(()));
        client
    }

    fn received(&mut self, index: usize) -> Vec<u8> {
        self.until(|world| {
            let socket = world.socket(index);
            socket.can_recv().then(|| socket.recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap())
        })
    }
}

/// Everything that the client reads while the world turns, up to the end or an error.
fn read_all(world: &mut World, client: &mut TcpStream) -> io::Result<Vec<u8>> {
    client.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    world.until(|_| match client.read(&mut buffer) {
        Ok(0) => Some(Ok(std::mem::take(&mut all))),
        Ok(bytes) => {
            all.extend_from_slice(&buffer[..bytes]);
            None
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    })
}

#[test]
fn requests_and_answers_pass_with_the_clients_own_address() {
    let mut world = World::new(&["127.0.0.1:0", "[::1]:0"], 2);
    for listener in 0..2 {
        let mut client = world.connect(listener, listener);
        let remote = world.socket(listener).remote_endpoint().unwrap();
        let local = client.local_addr().unwrap();
        assert_eq!((remote.addr, remote.port), (local.ip().into(), local.port()));

        client.write_all(b"request").unwrap();
        assert_eq!(world.received(listener), b"request");
        world.socket(listener).send_slice(b"answer").unwrap();
        world.socket(listener).close();
        assert_eq!(read_all(&mut world, &mut client).unwrap(), b"answer");
        drop(client);
    }
    world.until(|world| (world.bridge.clients() == 0).then_some(()));
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let mut world = World::new(&["127.0.0.1:0"], 1);
    let mut client = world.connect(0, 0);
    client.write_all(b"all I have to say").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(world.received(0), b"all I have to say");
    world.until(|world| (world.socket(0).state() == tcp::State::CloseWait).then_some(()));
    world.socket(0).send_slice(b"answer").unwrap();
    world.socket(0).close();
    assert_eq!(read_all(&mut world, &mut client).unwrap(), b"answer");
    world.until(|world| (world.bridge.clients() == 0).then_some(()));
    assert_eq!(world.socket(0).state(), tcp::State::Closed, "both ends are acknowledged");
}

#[test]
fn resets_pass_both_ways() {
    let mut world = World::new(&["127.0.0.1:0"], 2);
    let mut client = world.connect(0, 0);
    world.socket(0).abort();
    let error = read_all(&mut world, &mut client).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let client = world.connect(0, 1);
    socket2::SockRef::from(&client).set_linger(Some(time::Duration::ZERO)).unwrap();
    drop(client);
    world.until(|world| (world.socket(1).state() == tcp::State::Closed).then_some(()));
    world.until(|world| (world.bridge.clients() == 0).then_some(()));
}

#[test]
fn a_port_that_the_host_gives_away_again_begins_anew() {
    let mut world = World::new(&["127.0.0.1:0"], 8);
    let mut local: Option<SocketAddr> = None;
    for index in 0..8 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let from = local.unwrap_or("127.0.0.1:0".parse().unwrap());
        socket.bind(&from.into()).unwrap();
        socket.connect(&world.addresses[0].into()).unwrap();
        let mut client = TcpStream::from(socket);
        local = Some(client.local_addr().unwrap());
        client.write_all(&[index as u8; 10]).unwrap();
        let received = world.until(|world| {
            let socket = (0..8).find(|other| world.socket(*other).can_recv())?;
            Some(world.socket(socket).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap())
        });
        assert_eq!(received, [index as u8; 10]);
        // Gone without a word to the bridge, which learns of it together with the next one's arrival.
        socket2::SockRef::from(&client).set_linger(Some(time::Duration::ZERO)).unwrap();
    }
    world.until(|world| (world.bridge.clients() == 0).then_some(()));
}

#[test]
fn a_refused_connection_is_reset() {
    let mut world = World::new(&["127.0.0.1:0"], 0);
    let mut client = TcpStream::connect(world.addresses[0]).unwrap();
    assert_eq!(read_all(&mut world, &mut client).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn megabytes_pass_both_ways_while_either_side_stalls() {
    const TOTAL: usize = 8 << 20;
    let pattern = |position: usize| (position % 251) as u8;
    let mut world = World::new(&["127.0.0.1:0"], 1);
    let mut client = world.connect(0, 0);
    client.set_nonblocking(true).unwrap();
    let outgoing: Vec<u8> = (0..TOTAL).map(pattern).collect();
    let (mut sent, mut got, mut answered, mut read) = (0, 0, 0, 0);
    let mut buffer = vec![0; 100_000];
    let mut turn = 0;
    while read < TOTAL || got < TOTAL {
        turn += 1;
        // Long stretches in which one side takes nothing fill every buffer on the way.
        let (client_stalls, appliance_stalls) = (turn % 400 < 100, (200..300).contains(&(turn % 400)));
        if let Ok(bytes) = client.write(&outgoing[sent..]) {
            sent += bytes;
        }
        if !client_stalls && let Ok(bytes) = client.read(&mut buffer) {
            assert!(buffer[..bytes].iter().enumerate().all(|(i, byte)| *byte == pattern(read + i)));
            read += bytes;
        }
        let socket = world.socket(0);
        if socket.can_send() && answered < TOTAL {
            answered += socket.send_slice(&outgoing[answered..]).unwrap();
        }
        if !appliance_stalls && socket.can_recv() {
            let bytes = socket.recv_slice(&mut buffer).unwrap();
            assert!(buffer[..bytes].iter().enumerate().all(|(i, byte)| *byte == pattern(got + i)));
            got += bytes;
        }
        let mut once = false;
        world.until(|_| std::mem::replace(&mut once, true).then_some(()));
    }
    assert_eq!((sent, answered), (TOTAL, TOTAL));
    assert_eq!(world.wire.net.violations(), 0);
}

#[test]
fn draining_answers_what_was_asked_and_closes_the_rest() {
    let mut world = World::new(&["127.0.0.1:0"], 2);
    let mut asking = world.connect(0, 0);
    let mut idle = world.connect(0, 1);
    asking.write_all(b"request").unwrap();
    assert_eq!(world.received(0), b"request");
    world.bridge.drain();
    world.until(|world| (world.socket(1).state() == tcp::State::CloseWait).then_some(()));
    world.socket(1).close();
    assert_eq!(read_all(&mut world, &mut idle).unwrap(), b"");
    world.until(|world| (world.socket(0).state() == tcp::State::CloseWait).then_some(()));
    world.socket(0).send_slice(b"answer").unwrap();
    world.socket(0).close();
    assert_eq!(read_all(&mut world, &mut asking).unwrap(), b"answer");
    world.until(|world| (world.bridge.clients() == 0).then_some(()));
    assert!(TcpStream::connect(world.addresses[0]).is_err(), "nobody listens any more");
}
