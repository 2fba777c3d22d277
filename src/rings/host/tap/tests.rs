//! A real interface, whose other side is this machine's own network stack in a network namespace of the test's own.
//!
//! They need root, `/dev/net/tun` and `ip` (Debian package iproute2), and say by name that they are not run without.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::BorrowedFd;
use std::process::Command;

use super::*;
use crate::rings::{Family, Offload, Page, PagePool, PageSlice, PartialChecksum, RxChecksum};

/// Longer than anything here takes.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// The address seed of our end, and what becomes of it.
const SEED: [u8; 6] = [0xff, 1, 2, 3, 4, 5];
const OURS: [u8; 6] = [0xfe, 1, 2, 3, 4, 5];

/// Offsets in a frame of UDP or TCP over IPv4 without options.
const IP: usize = 14;
const TRANSPORT: usize = 34;

/// Runs `ip` with these arguments; whether it succeeded.
fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// An interface `t0` in a network namespace of this thread's own, administratively up: the host is 10.0.0.1, we are 10.0.0.2.
fn tap(test: &str) -> Option<(Tap, Rc<Stats>)> {
    // SAFETY: another network namespace changes nothing that is in memory or open.
    let alone = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    let stats = Rc::new(Stats::default());
    let tap = alone.map_err(|error| error.to_string()).and_then(|()| {
        let tap = Tap::open("t0", SEED, stats.clone()).map_err(|error| error.to_string())?;
        let ours = "lladdr fe:01:02:03:04:05";
        let ready = ip("link set t0 up")
            && ip("address add 10.0.0.1/24 dev t0")
            && ip(&format!("neighbour add 10.0.0.2 {ours} dev t0"));
        if ready { Ok(tap) } else { Err("`ip` does not work".to_owned()) }
    });
    match tap {
        Ok(mut tap) => {
            assert!(matches!(tap.event(), Some(NetEvent::Up(up)) if up == tap.capabilities()));
            Some((tap, stats))
        }
        Err(reason) => {
            eprintln!("not run: rings::host::tap::tests::{test}: {reason}");
            None
        }
    }
}

/// Sleeps until the device has something to say. False if it never does.
fn sleep(tap: &Tap) -> bool {
    let watch = tap.watch();
    // SAFETY: both descriptors are open as long as `tap`.
    let descriptors = unsafe { [BorrowedFd::borrow_raw(watch.frames()), BorrowedFd::borrow_raw(watch.news())] };
    let mut polled = [PollFd::new(&descriptors[0], PollFlags::IN), PollFd::new(&descriptors[1], PollFlags::IN)];
    let count = poll(&mut polled, Some(&PATIENCE)).unwrap();
    if polled[1].revents().contains(PollFlags::IN) {
        watch.set_news();
    }
    count > 0
}

/// Receives until `wanted` sees what it looks for.
fn receive_until<T>(tap: &mut Tap, mut wanted: impl FnMut(&RxFrame, &[u8]) -> Option<T>) -> T {
    let mut found = None;
    let mut bytes = vec![0; 80 << 10];
    while found.is_none() {
        tap.receive(8, &mut |frame| {
            let length = frame.copy_to(&mut bytes);
            found = found.take().or_else(|| wanted(frame, &bytes[..length]));
        });
        assert!(found.is_some() || tap.arm() || sleep(tap), "the frame does not come");
    }
    found.unwrap()
}

/// The sum of `bytes` as 16-bit words, not inverted.
fn sum(bytes: &[u8]) -> u16 {
    smoltcp::wire::checksum::data(bytes)
}

/// A frame of UDP from 10.0.0.2 to 10.0.0.1 whose UDP checksum is left to the device.
fn datagram(port: u16, payload_bytes: usize, head_payload: &[u8]) -> Vec<u8> {
    let udp_bytes = (8 + payload_bytes) as u16;
    let mut frame = vec![0; TRANSPORT + 8];
    frame[..6].copy_from_slice(&[0xff; 6]);
    frame[6..12].copy_from_slice(&OURS);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[IP] = 0x45;
    frame[IP + 2..IP + 4].copy_from_slice(&(20 + udp_bytes).to_be_bytes());
    frame[IP + 8..IP + 10].copy_from_slice(&[64, 17]);
    frame[IP + 12..IP + 20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    let header_sum = !sum(&frame[IP..TRANSPORT]);
    frame[IP + 10..IP + 12].copy_from_slice(&header_sum.to_be_bytes());
    frame[TRANSPORT..TRANSPORT + 2].copy_from_slice(&7_u16.to_be_bytes());
    frame[TRANSPORT + 2..TRANSPORT + 4].copy_from_slice(&port.to_be_bytes());
    frame[TRANSPORT + 4..TRANSPORT + 6].copy_from_slice(&udp_bytes.to_be_bytes());
    let pseudo = [&frame[IP + 12..IP + 20], &[0, 17], &udp_bytes.to_be_bytes()[..]].concat();
    frame[TRANSPORT + 6..TRANSPORT + 8].copy_from_slice(&sum(&pseudo).to_be_bytes());
    frame.extend_from_slice(head_payload);
    frame
}

/// What completes a datagram's checksum.
const UDP_CHECKSUM: Offload = Offload::Checksum(PartialChecksum { start: TRANSPORT as u16, offset: 6 });

fn page(pool: &PagePool, byte: u8) -> Page {
    let mut page = pool.allocate().unwrap();
    page.bytes_mut().unwrap().fill(byte);
    page
}

#[test]
fn the_host_gets_what_is_sent_and_sums_are_completed() {
    let Some((mut tap, stats)) = tap("the_host_gets_what_is_sent_and_sums_are_completed") else { return };
    let host = UdpSocket::bind("10.0.0.1:0").unwrap();
    host.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let port = host.local_addr().unwrap().port();
    let pool = PagePool::new(2);
    let slices = [page(&pool, b'x').slice(9, 700), page(&pool, b'y').slice(4000, 96)];
    let head = datagram(port, 3 + 796, b"abc");
    let frame = TxFrame { head: &head, slices: &slices, offload: UDP_CHECKSUM };
    tap.transmit(&frame).unwrap();
    let mut bytes = [0; 2000];
    let (length, from) = host.recv_from(&mut bytes).unwrap();
    assert_eq!(from, "10.0.0.2:7".parse().unwrap());
    assert_eq!(&bytes[..length], [&b"abc"[..], &[b'x'; 700], &[b'y'; 96]].concat());
    assert_eq!((stats.tx_frames.get(), stats.tx_bytes.get(), stats.tx_slots.get()), (1, frame.len() as u64, 3));
    drop(slices);
    assert_eq!(pool.in_use(), 0, "nothing is in flight");
}

#[test]
fn frames_of_the_host_come_with_the_sums_left_to_us() {
    let Some((mut tap, stats)) = tap("frames_of_the_host_come_with_the_sums_left_to_us") else { return };
    let host = UdpSocket::bind("10.0.0.1:0").unwrap();
    for i in 0..20_u8 {
        host.send_to(&[i; 500], "10.0.0.2:9").unwrap();
    }
    assert!(sleep(&tap));
    assert_eq!(tap.event(), None);
    // Of other frames (the host looks for routers) there are a few.
    let mut seen = Vec::new();
    let mut take = |frame: &RxFrame| {
        let mut bytes = [0; 2000];
        let length = frame.copy_to(&mut bytes);
        if bytes[IP + 9] == 17 && bytes[12..14] == [8, 0] {
            assert_eq!((&bytes[..6], length), (&OURS[..], 14 + 20 + 8 + 500));
            let partial = PartialChecksum { start: TRANSPORT as u16, offset: 6 };
            assert_eq!((frame.checksum, frame.gso), (RxChecksum::Partial(partial), None));
            seen.push(bytes[TRANSPORT + 8]);
        }
    };
    assert_eq!(tap.receive(5, &mut take), 5);
    assert!(tap.arm(), "the budget ended, not the frames");
    assert!(tap.receive(1000, &mut take) >= 15);
    assert!(!tap.arm());
    assert!(seen.iter().copied().eq(0..20));
    assert_eq!(stats.rx_malformed.get(), 0);
}

#[test]
fn the_host_sends_frames_larger_than_the_wires() {
    let Some((mut tap, _)) = tap("the_host_sends_frames_larger_than_the_wires") else { return };
    // A TCP of the host's, whose connection is accepted by hand.
    let client = std::thread::scope(|scope| {
        // In the same namespace: a thread inherits it.
        let connecting = scope.spawn(|| TcpStream::connect(SocketAddr::from(([10, 0, 0, 2], 80))));
        let (host, port, sequence) = receive_until(&mut tap, |_, bytes| {
            let is_syn = bytes.len() > 53 && bytes[IP + 9] == 6 && bytes[TRANSPORT + 13] == 2;
            is_syn.then(|| {
                let source = <[u8; 6]>::try_from(&bytes[6..12]).unwrap();
                let number = u32::from_be_bytes(bytes[TRANSPORT + 4..TRANSPORT + 8].try_into().unwrap());
                (source, u16::from_be_bytes([bytes[TRANSPORT], bytes[TRANSPORT + 1]]), number)
            })
        });
        let mut answer = datagram(port, 16, &[0; 16]);
        answer[..6].copy_from_slice(&host);
        // From UDP to TCP: another protocol, another header.
        answer[IP + 9] = 6;
        answer[IP + 10..IP + 12].fill(0);
        let header_sum = !sum(&answer[IP..TRANSPORT]);
        answer[IP + 10..IP + 12].copy_from_slice(&header_sum.to_be_bytes());
        let tcp = &mut answer[TRANSPORT..];
        tcp.fill(0);
        tcp[..2].copy_from_slice(&80_u16.to_be_bytes());
        tcp[2..4].copy_from_slice(&port.to_be_bytes());
        tcp[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
        // 24 bytes of header, SYN and ACK, a window that needs no scale, an MSS of 1,400.
        tcp[12..16].copy_from_slice(&[0x60, 0x12, 0xff, 0xff]);
        tcp[20..24].copy_from_slice(&[2, 4, 0x05, 0x78]);
        let pseudo = sum(&[10, 0, 0, 2, 10, 0, 0, 1, 0, 6, 0, 24]);
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload::Checksum(PartialChecksum { start: TRANSPORT as u16, offset: 16 });
        tap.transmit(&TxFrame { head: &answer, slices: &[], offload }).unwrap();
        connecting.join().unwrap().unwrap()
    });
    client.set_nonblocking(true).unwrap();
    let sent: Vec<u8> = (0..9000_u32).map(|i| i as u8).collect();
    std::io::Write::write_all(&mut &client, &sent).unwrap();
    let (gso, checksum, payload) = receive_until(&mut tap, |frame, bytes| {
        let is_large = bytes.len() > 2000;
        is_large.then(|| (frame.gso, frame.checksum, bytes[TRANSPORT + 20..].to_vec()))
    });
    assert_eq!(gso, Some(crate::rings::RxGso { family: Family::Ipv4, mss_bytes: 1400 }));
    assert!(matches!(checksum, RxChecksum::Partial(PartialChecksum { start: 34, offset: 16 })));
    assert_eq!(payload, sent[..payload.len()]);
}

#[test]
fn what_is_sent_into_an_unplugged_wire_is_lost_and_counted() {
    let Some((mut tap, stats)) = tap("what_is_sent_into_an_unplugged_wire_is_lost_and_counted") else { return };
    assert!(ip("link set t0 down"));
    let head = datagram(9, 0, &[]);
    let frame = TxFrame { head: &head, slices: &[], offload: UDP_CHECKSUM };
    assert_eq!(tap.transmit(&frame), Ok(()));
    assert_eq!((stats.tx_lost.get(), stats.tx_frames.get()), (1, 0));
    assert!(ip("link set t0 up"));
    assert_eq!(tap.transmit(&frame), Ok(()));
    assert_eq!((stats.tx_lost.get(), stats.tx_frames.get()), (1, 1));
}

#[test]
fn another_mtu_takes_the_device_down_and_up() {
    let Some((mut tap, _)) = tap("another_mtu_takes_the_device_down_and_up") else { return };
    assert_eq!(tap.capabilities().mtu_bytes, 1500);
    assert!(ip("link set t0 mtu 1300"));
    while !tap.watch().signals.news.get() {
        tap.receive(100, &mut |_| ());
        assert!(tap.arm() || sleep(&tap));
    }
    assert!(tap.arm(), "there is an event");
    assert_eq!(tap.event(), Some(NetEvent::Down));
    let head = datagram(9, 0, &[]);
    let frame = TxFrame { head: &head, slices: &[], offload: UDP_CHECKSUM };
    assert_eq!(tap.transmit(&frame), Err(Full));
    let Some(NetEvent::Up(capabilities)) = tap.event() else { panic!("it does not come up") };
    assert_eq!((capabilities.mtu_bytes, tap.event()), (1300, None));
    assert_eq!(tap.transmit(&frame), Ok(()));
}

#[test]
fn a_deleted_interface_is_gone_once() {
    let Some((mut tap, _)) = tap("a_deleted_interface_is_gone_once") else { return };
    tap.receive(100, &mut |_| ());
    assert!(ip("link delete t0"));
    // Nothing but sleep tells.
    while !tap.arm() {
        assert!(sleep(&tap), "nobody says that it is gone");
        tap.receive(100, &mut |_| ());
    }
    assert_eq!(tap.event(), Some(NetEvent::Gone));
    assert!(tap.watch().is_gone());
    let head = datagram(9, 0, &[]);
    let frame = TxFrame { head: &head, slices: &[], offload: UDP_CHECKSUM };
    assert_eq!(tap.transmit(&frame), Err(Full));
    assert_eq!((tap.event(), tap.receive(9, &mut |_| ()), tap.arm()), (None, 0, false));
}

#[test]
fn a_deletion_is_noticed_by_whoever_writes() {
    let Some((mut tap, _)) = tap("a_deletion_is_noticed_by_whoever_writes") else { return };
    assert!(ip("link delete t0"));
    let head = datagram(9, 0, &[]);
    let frame = TxFrame { head: &head, slices: &[], offload: UDP_CHECKSUM };
    assert_eq!(tap.transmit(&frame), Err(Full));
    assert!(tap.arm());
    assert_eq!((tap.event(), tap.event()), (Some(NetEvent::Gone), None));
}

#[test]
fn an_interface_that_moves_to_another_namespace_works_on() {
    let Some((mut tap, _)) = tap("an_interface_that_moves_to_another_namespace_works_on") else { return };
    let mut elsewhere = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
    let moved = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let other = std::fs::read_link(format!("/proc/{}/ns/net", elsewhere.id())).unwrap();
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        other != ours && ip(&format!("link set t0 netns {}", elsewhere.id()))
    });
    assert!(moved);
    while !tap.watch().signals.news.get() {
        assert!(sleep(&tap));
        tap.receive(100, &mut |_| ());
    }
    assert_eq!(tap.event(), None);
    assert!(!tap.watch().is_gone());
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
}

#[test]
fn a_frame_beyond_64_kib_that_is_refused_brings_smaller_limits() {
    let Some((mut tap, stats)) = tap("a_frame_beyond_64_kib_that_is_refused_brings_smaller_limits") else { return };
    assert_eq!(tap.refused(70_000, Errno::INVAL), Err(Full));
    assert!(tap.arm());
    assert_eq!(tap.event(), Some(NetEvent::Down));
    let Some(NetEvent::Up(capabilities)) = tap.event() else { panic!("it does not come up") };
    assert_eq!(capabilities.max_frame_bytes, 65_535);
    tap.signals.news.set(true);
    assert_eq!((tap.event(), tap.capabilities().max_frame_bytes), (None, 65_535), "that stays so");
    assert_eq!((tap.refused(70_000, Errno::IO), tap.refused(100, Errno::NOMEM)), (Ok(()), Ok(())));
    assert_eq!((tap.refused(100, Errno::AGAIN), stats.tx_frames.get()), (Err(Full), 0));
}

#[test]
fn a_super_frame_beyond_64_kib_reaches_the_hosts_tcp_stack() {
    let Some((mut tap, stats)) = tap("a_super_frame_beyond_64_kib_reaches_the_hosts_tcp_stack") else { return };
    let big = tap.capabilities().max_frame_bytes;
    if big <= FRAME_BYTES {
        eprintln!(
            "not run: rings::host::tap::tests::a_super_frame_beyond_64_kib_reaches_the_hosts_tcp_stack: old kernel"
        );
        return;
    }
    let pool = PagePool::new(1);
    let page = page(&pool, 1);
    let slices: Vec<PageSlice> = (0..MAX_SLOTS - 1).map(|_| page.slice(0, 4000)).collect();
    let mut head = datagram(80, 0, &[0; 12]);
    head[IP + 2..IP + 4].fill(0);
    head[IP + 9] = 6;
    head[TRANSPORT + 12] = 0x50;
    let checksum = PartialChecksum { start: TRANSPORT as u16, offset: 16 };
    let offload = Offload::Segment { checksum, family: Family::Ipv4, mss_bytes: 1460 };
    let frame = TxFrame { head: &head, slices: &slices, offload };
    assert!(frame.len() > 250_000 && frame.len() <= big);
    assert_eq!(tap.transmit(&frame), Ok(()));
    assert_eq!((stats.tx_frames.get(), tap.event()), (1, None));
}

#[test]
fn who_comes_second_is_told_that_the_name_is_in_use() {
    let Some((_tap, stats)) = tap("who_comes_second_is_told_that_the_name_is_in_use") else { return };
    assert_eq!(Tap::open("t0", SEED, stats.clone()).err(), Some(TapError::InUse("t0".into())));
    assert_eq!(Tap::open("lo", SEED, stats.clone()).err(), Some(TapError::OtherKind("lo".into())));
    assert!(ip("tuntap add dev t1 mode tap"));
    let prepared = Tap::open("t1", SEED, stats.clone()).unwrap();
    drop(prepared);
    assert!(ip("link set t1 up"), "what was there before us stays");
}
