//! Hostile clients: floods of half-open connections, and requests that never end.

use std::rc::Rc;

use fastrand::Rng;
use smoltcp::iface::SocketHandle;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpProtocol, IpRepr, Ipv4Address, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

use crate::sim::devices::Devices;
use crate::sim::host::{Host, SocketOptions};
use crate::sim::in_memory::InMemory;
use crate::sim::nic::ETHERNET_BYTES;
use crate::sim::on_xen::OnXen;
use crate::sim::population::{Behaviour, Population};
use crate::sim::site::Site;
use crate::sim::world::{Clients, On, SERVER, SERVING_PORT, World, WorldConfig};

/// A SYN from an address and port that nobody has.
fn forged_syn(rng: &mut Rng) -> Vec<u8> {
    let source = Ipv4Address::new(10, 0, rng.u8(100..200), rng.u8(1..=254)).into();
    let tcp = TcpRepr {
        src_port: rng.u16(1024..),
        dst_port: SERVING_PORT,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(rng.i32(..)),
        ack_number: None,
        window_len: 64_000,
        window_scale: Some(7),
        max_seg_size: Some(1460),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let ip = IpRepr::new(source, SERVER[0], IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut frame = vec![0; ETHERNET_BYTES + ip.buffer_len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_dst_addr(EthernetAddress([0x02, 0, 0, 0, 0, 0x01]));
    ethernet.set_src_addr(EthernetAddress([0x02, 0, 0, 0, 9, 9]));
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let capabilities = ChecksumCapabilities::default();
    ip.emit(ethernet.payload_mut(), &capabilities);
    let start = ETHERNET_BYTES + ip.header_len();
    tcp.emit(&mut TcpPacket::new_unchecked(&mut frame[start..]), &source, &SERVER[0], &capabilities);
    frame
}

/// Clients among forged SYNs.
fn flood<D: Devices>() {
    let site = Rc::new(Site::new([1000, 50_000, 300_000], 5));
    let mut world = World::<D>::new(WorldConfig { hosts: vec![1500, 1500], ..WorldConfig::default() }, &site);
    let behaviour = Behaviour { requests: 200, connections_each: 4, mixed: false };
    let mut population = Population::new(site, 2, behaviour, 1);
    let mut rng = Rng::with_seed(8);
    let mut forged = 0;
    while !population.is_done() {
        assert!(world.now < Instant::from_secs(120), "{:?} after {forged} SYNs", population.tally);
        forged += (0..20).filter(|_| world.inject(&forged_syn(&mut rng))).count();
        world.run(&mut population, Duration::from_millis(1), |_| false);
    }
    assert!(forged > 2 * minicache::tcp_gso::Config::default().syn_backlog, "only {forged} SYNs: not much of a flood");
    let failures = [population.tally.refused, population.tally.reset_within, population.tally.unanswered];
    assert_eq!(failures, [0; 3], "{:?}", population.tally);
    world.run(&mut (), Duration::from_secs(300), |_| false);
    world.check_that_all_came_back();
}

#[test]
fn a_flood_of_forged_syns_does_not_stop_the_others() {
    flood::<InMemory>();
}

#[test]
fn a_flood_of_forged_syns_does_not_stop_the_others_on_xen() {
    flood::<OnXen>();
}

/// Clients that send a byte of their request now and then, and never its end.
struct Slow {
    sockets: Vec<SocketHandle>,
    count: usize,
    sent: usize,
    next: Instant,
}

impl Slow {
    const REQUEST: &'static [u8] = b"GET /slowly HTTP/1.1\r\nHost: simulated\r\nX-Slow: ";
    const INTERVAL: Duration = Duration::from_secs(2);
}

impl Clients for Slow {
    fn step(&mut self, _: usize, host: &mut Host, now: Instant) -> Option<Instant> {
        while self.sockets.len() < self.count {
            let options = SocketOptions { receive_bytes: 4096, timestamps: false };
            self.sockets.push(host.connect((SERVER[1], SERVING_PORT), options));
        }
        if now >= self.next {
            let byte = [*Self::REQUEST.get(self.sent).unwrap_or(&b'x')];
            for handle in &self.sockets {
                let socket = host.socket(*handle);
                if socket.can_send() {
                    socket.send_slice(&byte).expect("an open socket");
                } else if socket.may_send() || socket.is_open() {
                    socket.close();
                }
            }
            self.sent += 1;
            self.next = now + Self::INTERVAL;
        }
        Some(self.next)
    }
}

#[test]
fn requests_that_never_end_are_ended() {
    let site = Rc::new(Site::new([1000, 50_000, 300_000], 6));
    let mut world = World::<InMemory>::new(WorldConfig { hosts: vec![1500, 1500], ..WorldConfig::default() }, &site);
    let slow = Slow { sockets: Vec::new(), count: 400, sent: 0, next: Instant::from_secs(1) };
    let mut slow = On(0..1, slow);
    world.run(&mut slow, Duration::from_secs(5), |_| false);
    assert_eq!(world.stats.connections_open.get(), 400);

    let behaviour = Behaviour { requests: 200, connections_each: 4, mixed: false };
    let mut population = On(1..2, Population::new(site, 1, behaviour, 1));
    world.run(&mut (&mut slow, &mut population), Duration::from_secs(30), |_| false);
    let tally = population.1.tally;
    assert!(population.1.is_done(), "{tally:?}");
    assert_eq!([tally.refused, tally.reset_within, tally.unanswered], [0; 3], "{tally:?}");

    world.run(&mut slow, Duration::from_secs(300), |_| false);
    assert_eq!(world.stats.connections_open.get(), 0, "nobody may hold a connection with half a request for ever");
    assert!(world.stats.http_timeouts.get() >= 400);
    world.check_that_all_came_back();
}
