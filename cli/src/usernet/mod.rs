//! The user-mode network: host sockets, bridged to connections of the appliance across an in-memory ring.
//!
//! What may enter this room: sockets of the host and the client half of TCP. It knows the appliance's ring and nothing else of
//! it. For each host connection a client half ([`connection`]) opens a TCP connection into the appliance, with the real
//! client's address and port as its source; super-frames are taken whole, and their slices, which are the chunk cache's
//! own pages, go to the host socket in one `writev`.
//!
//! Everything is driven by readiness: a turn costs what its active clients cost, however many others there are.
//!
//! | file | duty |
//! |---|---|
//! | `sockets` | listening sockets, and how many sockets there may be |
//! | `client` | a client: its host socket and its client half, joined |
//! | `connection` | the client half of TCP, without I/O |
//! | `pending` | bytes on their way to a host socket |
//! | `frame` | frames, built and taken apart |
//! | `neighbour` | the router of the virtual wire, for the control plane |
//! | `table` | client halves by place and by address |

mod client;
mod connection;
mod frame;
mod neighbour;
mod pending;
mod sockets;
mod table;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use minicache::rings::memory::MemoryBackend;
use minicache::rings::{Full, Offload, RxChecksum};
use mio::{Events, Poll, Registry, Token};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, TcpControl, TcpRepr};

use crate::terminal::warn;
use client::Client;
use connection::{Connection, SpareBuffers};
use frame::Route;
pub use neighbour::{ROUTER_V4, ROUTER_V6};
pub use sockets::{Listener, Purpose, client_limit};
use table::{Key, Table};

/// Most listening sockets: each needs an address of the appliance for itself, since only (client, listening socket) is unique.
pub const MAX_LISTENERS: usize = 8;

/// epoll's token of the first listening socket. Clients' tokens are below (see `Key::token`), the caller's own above
/// [`FOREIGN_TOKENS`].
const LISTENER_TOKENS: usize = 1 << 48;

/// First token that the caller may use for sources of its own.
pub const FOREIGN_TOKENS: usize = 1 << 49;

/// Largest IP packet on the virtual wire in bytes: with the Ethernet header, the ring's 65,535.
pub const MTU_BYTES: u16 = u16::MAX - 14;

/// Events taken from epoll at a time.
const EVENTS: usize = 1024;

/// Clients accepted and frames taken in a turn.
const ACCEPT_BUDGET: usize = 64;
const FRAME_BUDGET: usize = 256;

/// Bytes read from a client's socket at a time.
const SCRATCH_BYTES: usize = 64 << 10;

/// Largest IP packet on a wire that is to be bad as a real one: the Ethernet's.
pub const REAL_MTU_BYTES: u16 = 1500;

/// Turns after which an acknowledgement no longer waits for data to ride on.
const ACKNOWLEDGE_TURNS: u64 = 32;

/// How long accepting pauses when the system has no room for another socket, unless one of ours is closed before.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Distance of the initial sequence numbers of two connections, at least.
const SEQUENCE_STEP: u32 = 64;

/// The appliance's address for the clients of a listening socket. They are of the ranges for documentation (RFC 5737,
/// RFC 3849): no real client has one.
pub fn appliance_addresses(listener: usize) -> (Ipv4Addr, Ipv6Addr) {
    let host = listener as u8 + 1;
    (Ipv4Addr::new(192, 0, 2, host), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()))
}

/// What the bridge has to know of the appliance.
#[derive(Clone, Copy, Debug)]
pub struct BridgeConfig {
    /// The appliance's hardware address.
    pub hardware_address: [u8; 6],
    /// Most clients at a time; more wait in the host's accept queue.
    pub clients_max: usize,
    /// Where sequence numbers begin.
    pub initial_sequence: u32,
    /// The wire to the appliance may be bad: checksums are made and looked at.
    pub checksums: bool,
}

/// The bridge.
pub struct Bridge {
    config: BridgeConfig,
    backend: MemoryBackend,
    poll: Poll,
    events: Events,
    listeners: Vec<Listener>,
    table: Table,
    /// Clients with something to do.
    active: VecDeque<Key>,
    /// Clients that owe an acknowledgement which can wait, with the turn since when.
    owing: VecDeque<(Key, u64)>,
    timers: BinaryHeap<Reverse<(Instant, Key)>>,
    spare: SpareBuffers,
    scratch: Box<[u8]>,
    next_sequence: u32,
    turn: u64,
    accept_paused_until: Option<Instant>,
    /// The reasons why accepting has ever paused have been told.
    told_of_limit: bool,
    told_of_failure: bool,
}

impl Bridge {
    /// A bridge from `listeners` (at most [`MAX_LISTENERS`]) to the appliance at the other side of `backend`.
    pub fn new(config: BridgeConfig, backend: MemoryBackend, mut listeners: Vec<Listener>) -> io::Result<Self> {
        assert!(listeners.len() <= MAX_LISTENERS, "{} listening sockets", listeners.len());
        let poll = Poll::new()?;
        for (index, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(LISTENER_TOKENS + index))?;
        }
        Ok(Self {
            config,
            backend,
            poll,
            events: Events::with_capacity(EVENTS),
            listeners,
            table: Table::default(),
            active: VecDeque::new(),
            owing: VecDeque::new(),
            timers: BinaryHeap::new(),
            spare: SpareBuffers::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            next_sequence: config.initial_sequence,
            turn: 0,
            accept_paused_until: None,
            told_of_limit: false,
            told_of_failure: false,
        })
    }

    /// Where the caller registers sources of its own, with tokens from [`FOREIGN_TOKENS`] on.
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Number of clients.
    pub fn clients(&self) -> usize {
        self.table.len()
    }

    /// Waits for readiness of any socket, at most `timeout` (for ever without one). Hands the tokens of the caller's sources to
    /// `foreign`. Returns how many events there were.
    pub fn wait(&mut self, timeout: Option<std::time::Duration>, mut foreign: impl FnMut(Token)) -> io::Result<usize> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
            Err(error) => return Err(error),
        }
        let mut count = 0;
        for event in &self.events {
            count += 1;
            let token = event.token();
            if token.0 >= FOREIGN_TOKENS {
                foreign(token);
            } else if token.0 >= LISTENER_TOKENS {
                if let Some(listener) = self.listeners.get_mut(token.0 - LISTENER_TOKENS) {
                    listener.set_ready();
                }
            } else {
                let key = Key::from_token(token);
                if let Some(client) = self.table.get_mut(key) {
                    client.ready(event);
                    enqueue(&mut self.active, key, client);
                }
            }
        }
        Ok(count)
    }

    /// One turn: new clients, frames of the appliance, timers, and the clients with something to do. True if anything was done.
    pub fn poll(&mut self, now: Instant) -> bool {
        self.turn += 1;
        let mut busy = self.accept(now);
        busy |= self.take_frames();
        busy |= self.expire_timers(now);
        busy |= self.serve_active(now);
        let turn = self.turn;
        busy |= self.flush_owed(now, |since| since + ACKNOWLEDGE_TURNS <= turn);
        self.backend.notify();
        busy
    }

    /// Sends the acknowledgements that wait for data to ride on; to be called before the loop sleeps. True if there were any.
    pub fn flush_acknowledgements(&mut self, now: Instant) -> bool {
        let busy = self.flush_owed(now, |_| true);
        self.backend.notify();
        busy
    }

    /// Asks the ring to wake us. True if something came meanwhile: then don't sleep.
    pub fn arm(&mut self) -> bool {
        self.backend.arm()
    }

    /// When [`Bridge::poll`] wants to be called again, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        [timer, self.accept_paused_until].into_iter().flatten().min()
    }

    /// Stops listening. Clients get their answers to what they have sent so far, and nothing more.
    pub fn drain(&mut self) {
        self.listeners.clear();
        self.accept_paused_until = None;
        for key in self.table.keys() {
            if let Some(client) = self.table.get_mut(key) {
                client.drain();
                enqueue(&mut self.active, key, client);
            }
        }
    }

    /// Resets every client, so that none takes a cut-off answer for a whole one.
    pub fn reset_all(&mut self) {
        for key in self.table.keys() {
            if let Some(client) = self.table.get_mut(key) {
                client.connection.abort();
            }
            self.remove(key);
        }
    }

    // ---- new clients

    fn accept(&mut self, now: Instant) -> bool {
        if self.accept_paused_until.is_some_and(|until| now < until) {
            return false;
        }
        self.accept_paused_until = None;
        let mut accepted = 0;
        for index in 0..self.listeners.len() {
            while accepted < ACCEPT_BUDGET {
                if self.table.len() >= self.config.clients_max {
                    if !std::mem::replace(&mut self.told_of_limit, true) {
                        warn(&format!(
                            "{} clients are connected, as many as there may be; more wait until one leaves (`ulimit -n` sets \
                             the limit)",
                            self.table.len()
                        ));
                    }
                    return accepted > 0;
                }
                match self.listeners[index].accept() {
                    Ok(Some((stream, address))) => {
                        self.admit(index as u8, stream, address);
                        accepted += 1;
                    }
                    Ok(None) => break,
                    Err(error) => {
                        if !std::mem::replace(&mut self.told_of_failure, true) {
                            warn(&format!("no room for another client at the moment ({error}); more wait"));
                        }
                        self.accept_paused_until = Some(now + ACCEPT_PAUSE);
                        return accepted > 0;
                    }
                }
            }
        }
        accepted > 0
    }

    fn admit(&mut self, listener: u8, mut stream: mio::net::TcpStream, address: SocketAddr) {
        if let Some(key) = self.table.find(listener, address) {
            // The host gave the port away again, so the connection that had it is dead: the news just hasn't come yet.
            if let Some(old) = self.table.get_mut(key) {
                old.connection.abort();
                enqueue(&mut self.active, key, old);
            }
        }
        let (appliance_v4, appliance_v6) = appliance_addresses(listener.into());
        let appliance = match address.ip() {
            IpAddr::V4(_) => appliance_v4.into(),
            IpAddr::V6(_) => appliance_v6.into(),
        };
        self.next_sequence = self.next_sequence.wrapping_add(SEQUENCE_STEP);
        let (config, sequence, registry) = (&self.config, self.next_sequence, self.poll.registry());
        let (port, behind_router) = self.listeners[usize::from(listener)].target();
        let inserted = self.table.insert(|key| -> io::Result<Client> {
            let interest = mio::Interest::READABLE | mio::Interest::WRITABLE;
            registry.register(&mut stream, key.token(), interest)?;
            let client_hardware = match behind_router {
                true => neighbour::ROUTER_HARDWARE,
                false => frame::hardware_address(key.index, key.generation),
            };
            let route = Route {
                client_hardware,
                appliance_hardware: EthernetAddress(config.hardware_address),
                client: address.ip().into(),
                appliance,
            };
            let connection = Connection::new(address.port(), port, route.mss_bytes(), sequence);
            Ok(Client::new(listener, address, route, connection, stream))
        });
        // A socket that epoll does not take (out of memory) is dropped, which closes it.
        if let Ok(key) = inserted
            && let Some(client) = self.table.get_mut(key)
        {
            enqueue(&mut self.active, key, client);
        }
    }

    // ---- from the appliance

    fn take_frames(&mut self) -> bool {
        let mut taken = 0;
        while taken < FRAME_BUDGET {
            let Some(frame) = self.backend.take() else { break };
            taken += 1;
            let checksums = self.config.checksums;
            // The pages of such a wire are few, and not for a slow client to keep: it gets copies.
            let whole = checksums.then(|| frame.parts().collect::<Vec<_>>().concat());
            let (head, slices) = whole.as_deref().map_or((frame.head(), frame.slices()), |whole| (whole, &[]));
            if let Some(segment) = frame::parse(head, slices, checksums && frame.offload() == Offload::None) {
                let key = match segment.client_hardware {
                    neighbour::ROUTER_HARDWARE => {
                        let client = SocketAddr::new(segment.client.into(), segment.tcp.dst_port);
                        neighbour::find(&self.table, segment.appliance.into(), client)
                    }
                    hardware => frame::table_place(hardware).map(|(index, generation)| Key { index, generation }),
                };
                let client = key.and_then(|key| Some((key, self.table.get_mut(key)?)));
                match client {
                    Some((key, client)) if client.is_at(&segment) => {
                        client.connection.receive(&segment.tcp, slices, &mut self.spare);
                        enqueue(&mut self.active, key, client);
                    }
                    _ => refuse(&mut self.backend, &self.config, &segment),
                }
            } else if let Some(answer) = neighbour::answer(head) {
                // A ring that is full loses it; the appliance asks again.
                let _ = self.backend.deliver(&[&answer], RxChecksum::Verified, None);
            }
            self.backend.complete(frame);
        }
        taken > 0
    }

    // ---- clients with something to do

    fn serve_active(&mut self, now: Instant) -> bool {
        let mut busy = false;
        for _ in 0..self.active.len() {
            let Some(key) = self.active.pop_front() else { break };
            let Some(client) = self.table.get_mut(key) else { continue };
            client.queued = false;
            let more = client.exchange(&mut self.scratch, &mut self.spare);
            if send(&mut self.backend, &self.config, client, false).is_err() {
                client.queued = true;
                self.active.push_front(key);
                return busy;
            }
            busy = true;
            self.settle(now, key, more);
        }
        busy
    }

    /// What follows when a client has been served: timers, the queue for what is left, or its end.
    fn settle(&mut self, now: Instant, key: Key, more: bool) {
        let Some(client) = self.table.get_mut(key) else { return };
        if client.connection.is_reset() || client.connection.is_finished() {
            self.remove(key);
            return;
        }
        if let Some(at) = client.connection.schedule(now, client.waits())
            && client.timer_at.is_none_or(|earlier| at < earlier)
        {
            client.timer_at = Some(at);
            self.timers.push(Reverse((at, key)));
        }
        client.connection.release_buffers(&mut self.spare, false);
        if client.connection.owes_later() && !client.owes_later {
            client.owes_later = true;
            self.owing.push_back((key, self.turn));
        }
        if more {
            enqueue(&mut self.active, key, client);
        }
    }

    fn remove(&mut self, key: Key) {
        let Some(mut client) = self.table.remove(key) else { return };
        let end = client.connection.sequence_end();
        if end.wrapping_sub(self.next_sequence) as i32 > 0 {
            // A later connection of the same ports must begin beyond this one (RFC 9293 §3.4.3, RFC 6191).
            self.next_sequence = end;
        }
        client.connection.release_buffers(&mut self.spare, true);
        client.close(&mut self.scratch);
        self.accept_paused_until = None;
    }

    fn flush_owed(&mut self, now: Instant, due: impl Fn(u64) -> bool) -> bool {
        let mut busy = false;
        while let Some(&(key, since)) = self.owing.front()
            && due(since)
        {
            if let Some(client) = self.table.get_mut(key) {
                if client.connection.owes_later() {
                    if send(&mut self.backend, &self.config, client, true).is_err() {
                        break;
                    }
                    busy = true;
                }
                client.owes_later = false;
                self.settle(now, key, false);
            }
            self.owing.pop_front();
        }
        busy
    }

    fn expire_timers(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(&Reverse((at, key))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            // An entry that a newer one replaced, or whose client is gone, means nothing.
            let Some(client) = self.table.get_mut(key).filter(|client| client.timer_at == Some(at)) else { continue };
            client.timer_at = None;
            client.connection.expire(now);
            enqueue(&mut self.active, key, client);
            busy = true;
        }
        busy
    }
}

fn enqueue(active: &mut VecDeque<Key>, key: Key, client: &mut Client) {
    if !std::mem::replace(&mut client.queued, true) {
        active.push_back(key);
    }
}

/// Sends what the client half has to say. `Full`: the ring took not all of it.
fn send(backend: &mut MemoryBackend, config: &BridgeConfig, client: &mut Client, flush: bool) -> Result<(), Full> {
    while let Some(segment) = client.connection.next_segment(flush) {
        let headers = frame::build(&client.route, &segment.tcp, segment.bytes);
        let payload = &client.connection.outgoing()[segment.start..segment.start + segment.bytes];
        if config.checksums || client.route.client_hardware == neighbour::ROUTER_HARDWARE {
            // The control plane is an ordinary host: it looks at checksums itself.
            let frame = frame::with_checksum(&client.route, &headers, payload);
            backend.deliver(&[&frame], RxChecksum::Unknown, None)?;
        } else {
            backend.deliver(&[&headers, payload], RxChecksum::Verified, None)?;
        }
        client.connection.sent(&segment);
    }
    Ok(())
}

/// Answers a segment that belongs to no client half with a reset (RFC 9293 §3.10.7.1), so that the appliance forgets it.
fn refuse(backend: &mut MemoryBackend, config: &BridgeConfig, segment: &frame::FromAppliance<'_>) {
    let (TcpControl::None | TcpControl::Psh | TcpControl::Fin | TcpControl::Syn, Some(sequence)) =
        (segment.tcp.control, segment.tcp.ack_number)
    else {
        return;
    };
    let route = Route {
        client_hardware: segment.client_hardware,
        appliance_hardware: EthernetAddress(config.hardware_address),
        client: segment.client,
        appliance: segment.appliance,
    };
    let reset = TcpRepr {
        src_port: segment.tcp.dst_port,
        dst_port: segment.tcp.src_port,
        control: TcpControl::Rst,
        seq_number: sequence,
        ack_number: None,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let frame = frame::with_checksum(&route, &frame::build(&route, &reset, 0), &[]);
    // Where the ring has no room the appliance will send again, and be answered then.
    let _ = backend.deliver(&[&frame], RxChecksum::Unknown, None);
}

#[cfg(test)]
mod tests;
