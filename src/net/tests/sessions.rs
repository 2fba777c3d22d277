//! TCP sessions of the control plane, with an echo service behind them.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpEndpoint;

use super::control::World;
use super::{SHELL_PORT, address};
use crate::net::{ControlService, SESSIONS, SessionId, SessionOutput};
use crate::rings::NetQueue;
use crate::rings::memory::MemoryNetConfig;

/// Repeats what it is told, a line at a time. `quit` ends the session, `flood` says more than fits any buffer.
#[derive(Default)]
struct Echo {
    open: BTreeMap<SessionId, Session>,
    /// Sessions that have ended.
    closed: usize,
}

#[derive(Default)]
struct Session {
    pending: Vec<u8>,
    ended: bool,
}

const FLOOD_BYTES: usize = 100_000;

impl Echo {
    fn say(&mut self, id: SessionId, out: &mut SessionOutput<'_>) {
        let session = self.open.get_mut(&id).unwrap();
        let room = out.room_bytes();
        let written = out.write(&session.pending);
        assert_eq!(written, room.min(session.pending.len()));
        session.pending.drain(..written);
        if session.ended && session.pending.is_empty() {
            out.close();
        }
    }
}

impl ControlService for Echo {
    fn opened(&mut self, id: SessionId, peer: IpEndpoint, out: &mut SessionOutput<'_>) {
        assert_eq!(peer.addr, address("192.168.7.9"));
        assert!(self.open.insert(id, Session::default()).is_none(), "{id:?} is taken");
        assert!(usize::from(id.0) < SESSIONS);
        self.open.get_mut(&id).unwrap().pending = vec![b'0' + id.0, b'>'];
        self.say(id, out);
    }

    fn received(&mut self, id: SessionId, data: &[u8], out: &mut SessionOutput<'_>) -> usize {
        let session = self.open.get_mut(&id).unwrap();
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else { return 0 };
        match &data[..end] {
            b"quit" => session.ended = true,
            b"flood" => session.pending.extend((0..FLOOD_BYTES).map(|i| i as u8)),
            line => session.pending.extend(line),
        }
        self.say(id, out);
        end + 1
    }

    fn writable(&mut self, id: SessionId, out: &mut SessionOutput<'_>) {
        self.say(id, out);
    }

    fn ended(&mut self, id: SessionId, out: &mut SessionOutput<'_>) {
        self.open.get_mut(&id).unwrap().ended = true;
        self.say(id, out);
    }

    fn closed(&mut self, id: SessionId) {
        assert!(self.open.remove(&id).is_some());
        self.closed += 1;
    }

    fn refused(&mut self, _: IpEndpoint, out: &mut SessionOutput<'_>) {
        out.write(b"all sessions are taken\n");
    }
}

struct Shell {
    world: World,
    echo: Echo,
}

impl Shell {
    fn new() -> Self {
        Self { world: World::new(MemoryNetConfig::default()), echo: Echo::default() }
    }

    /// Runs both ends until nothing moves.
    fn settle(&mut self) {
        self.run_until(self.world.now);
    }

    /// Runs both ends on virtual time.
    fn run_until(&mut self, end: Instant) {
        loop {
            let World { network, net, client, now, .. } = &mut self.world;
            let mut moved = client.poll(*now);
            while net.event().is_some() {}
            net.reclaim();
            moved |= net.receive(64, &mut |frame| network.receive(frame, &mut |_| panic!("not for port 80"))) > 0;
            moved |= network.poll(*now, net, &mut self.echo);
            net.flush();
            if moved {
                continue;
            }
            let ours = network.next_deadline();
            let theirs = client.interface.poll_at(*now, &client.sockets);
            match ours.into_iter().chain(theirs).min() {
                Some(next) if next <= end => *now = next.max(*now + Duration::from_micros(1)),
                _ => break,
            }
        }
        self.world.now = self.world.now.max(end);
    }

    fn connect(&mut self) -> SocketHandle {
        let handle = self.world.client.connect(address("192.168.7.2"), SHELL_PORT);
        self.settle();
        handle
    }

    fn say(&mut self, handle: SocketHandle, text: &[u8]) -> Vec<u8> {
        self.world.client.socket(handle).send_slice(text).unwrap();
        // The client's Nagle algorithm waits for our delayed acknowledgement.
        self.run_until(self.world.now + Duration::from_millis(50));
        self.world.client.read(handle)
    }

    fn state(&mut self, handle: SocketHandle) -> State {
        self.world.client.socket(handle).state()
    }
}

#[test]
fn a_session_speaks_and_ends() {
    let mut shell = Shell::new();
    let client = shell.connect();
    assert_eq!(shell.world.client.read(client), b"0>");
    assert_eq!(shell.say(client, b"hello\n"), b"hello");
    assert_eq!(shell.say(client, b"two"), b"", "half a line is kept");
    assert_eq!(shell.say(client, b" halves\nand more\n"), b"two halvesand more");
    assert_eq!(shell.say(client, b"quit\n"), b"");
    assert_eq!(shell.state(client), State::CloseWait);
    assert_eq!((shell.echo.open.len(), shell.echo.closed), (0, 1));
    shell.world.client.socket(client).close();
    shell.settle();
    assert_eq!(shell.state(client), State::Closed);
}

#[test]
fn the_fifth_client_is_told_and_sessions_are_used_again() {
    let mut shell = Shell::new();
    let clients: Vec<_> = (0..SESSIONS).map(|_| shell.connect()).collect();
    for (i, client) in clients.iter().enumerate() {
        assert_eq!(shell.world.client.read(*client), [b'0' + i as u8, b'>']);
    }
    let fifth = shell.connect();
    assert_eq!(shell.world.client.read(fifth), b"all sessions are taken\n");
    assert_eq!(shell.state(fifth), State::CloseWait);
    assert_eq!(shell.echo.open.len(), SESSIONS);
    shell.world.client.socket(fifth).close();
    shell.settle();

    // A session that ended, one that was reset, and one whose client has closed: their numbers are given again.
    shell.say(clients[2], b"quit\n");
    shell.world.client.socket(clients[2]).close();
    shell.world.client.socket(clients[0]).abort();
    shell.world.client.socket(clients[1]).close();
    shell.settle();
    assert_eq!((shell.echo.open.len(), shell.echo.closed), (1, 3));
    for expected in [b"0>", b"1>", b"2>"] {
        let client = shell.connect();
        assert_eq!(shell.world.client.read(client), expected);
    }
    // Sockets don't wear out either.
    for _ in 0..20 {
        let client = shell.connect();
        assert_eq!(shell.world.client.read(client), b"all sessions are taken\n");
        shell.world.client.socket(client).close();
        shell.settle();
    }
}

#[test]
fn a_line_may_lie_on_both_ends_of_the_receive_buffer() {
    let mut shell = Shell::new();
    let client = shell.connect();
    shell.world.client.read(client);
    for length in [700, 699, 701, 1000, 512, 3].into_iter().cycle().take(60) {
        let mut line: Vec<u8> = (0..length).map(|i| b'a' + (i % 26) as u8).collect();
        line.push(b'\n');
        assert_eq!(shell.say(client, &line), line[..length]);
    }
}

#[test]
fn output_waits_for_the_client_and_survives_its_half_close() {
    let mut shell = Shell::new();
    let client = shell.connect();
    shell.world.client.read(client);
    shell.world.client.socket(client).send_slice(b"flood\n").unwrap();
    shell.world.client.socket(client).close();
    let mut bytes = Vec::new();
    while bytes.len() < FLOOD_BYTES {
        let before = bytes.len();
        shell.settle();
        bytes.extend(shell.world.client.read(client));
        assert!(bytes.len() > before, "stuck at {before}");
    }
    assert!(bytes.iter().enumerate().all(|(i, byte)| *byte == i as u8));
    shell.settle();
    assert_eq!(shell.echo.closed, 1);
    assert_eq!(shell.state(client), State::TimeWait);
}

#[test]
fn a_service_speaks_unasked_when_it_asks_for_a_word() {
    let mut shell = Shell::new();
    let client = shell.connect();
    shell.world.client.read(client);
    shell.echo.open.get_mut(&SessionId(0)).unwrap().pending = b"news".to_vec();
    shell.settle();
    assert_eq!(shell.world.client.read(client), b"");
    shell.world.network.wake_sessions();
    assert_eq!(shell.world.network.next_deadline(), Some(Instant::ZERO));
    shell.settle();
    assert_eq!(shell.world.client.read(client), b"news");
}

#[test]
fn a_silent_client_is_given_up_after_a_while() {
    let mut shell = Shell::new();
    let alive = shell.connect();
    shell.run_until(shell.world.now + Duration::from_secs(1000));
    assert_eq!(shell.say(alive, b"still here\n"), b"0>still here", "keep-alive probes were answered");

    let dead = shell.connect();
    shell.world.client.sockets.remove(dead);
    // Its host is gone: nobody answers, not even with a reset.
    let end = shell.world.now + Duration::from_secs(400);
    while shell.echo.closed == 0 {
        let World { network, net, client, now, .. } = &mut shell.world;
        client.take_raw();
        net.reclaim();
        network.poll(*now, net, &mut shell.echo);
        net.flush();
        match network.next_deadline() {
            Some(next) if next <= end => *now = next.max(*now + Duration::from_millis(1)),
            _ => break,
        }
    }
    assert!(shell.echo.closed >= 1, "sessions of a dead host are over");
    assert!(shell.world.now < end);
}

#[test]
fn half_open_connections_give_their_sockets_back() {
    let mut shell = Shell::new();
    let probe = shell.connect();
    shell.say(probe, b"quit\n");
    shell.world.client.socket(probe).close();
    shell.settle();
    // Handshakes that nobody completes take all sockets...
    for port in 0..10 {
        let mut header = super::tcp_header(SHELL_PORT, b"");
        header.control = smoltcp::wire::TcpControl::Syn;
        header.src_port = 1000 + port;
        header.ack_number = None;
        header.sack_ranges = [None; 3];
        let (source, destination) = (address("192.168.7.77"), address("192.168.7.2"));
        let segment = super::tcp_bytes(&header, source, destination);
        let frame = super::ip_frame(source, destination, smoltcp::wire::IpProtocol::Tcp, &segment);
        shell.world.client.send_raw(&frame);
    }
    let refused = shell.connect();
    assert_eq!(shell.state(refused), State::Closed);
    // ... for a while.
    shell.run_until(shell.world.now + Duration::from_secs(60));
    let client = shell.connect();
    assert_eq!(shell.world.client.read(client), b"0>");
}

/// Changes a byte behind the addresses of every other frame, and makes its checksums right again.
fn change_a_byte(frame: &mut [u8], seed: &mut u64) {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let random = (*seed >> 33) as usize;
    if random.is_multiple_of(2) && frame.len() > 34 {
        let at = 34 + random / 2 % (frame.len() - 34);
        frame[at] ^= 1 << (random >> 20 & 7);
        super::control::fix_checksums(frame);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn no_client_panics_a_session(seed in any::<u64>()) {
        let mut shell = Shell::new();
        let clients = [shell.connect(), shell.connect()];
        (shell.world.client.mangle, shell.world.client.seed) = (change_a_byte, seed);
        for round in 0..20 {
            let line: &[u8] = match round % 5 {
                3 => b"flood\n",
                _ => b"a line that comes back\n",
            };
            for client in clients {
                // It may have been reset by what was changed.
                let _ = shell.world.client.socket(client).send_slice(line);
            }
            shell.run_until(shell.world.now + Duration::from_millis(700));
            let _ = clients.map(|client| shell.world.client.read(client));
        }
    }
}
