//! A server over a volume in memory, and connections without a network: the test is the TCP.

use crate::response::{self, Response};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Poll;

use minicache::cache::ChunkCache;
use minicache::cache::shfs::{Mount, MountConfig, Volume};
use minicache::http::{Config, HttpServer, Session};
use minicache::rings::memory::{MemoryDisk, MemoryDiskControl};
use minicache::rings::{PAGE_BYTES, PagePool, PageSlice};
use minicache::stats::Stats;
use minicache::tcp_gso::{Application, CloseReason, ConnectionId, Outbox, Peer};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpAddress;

/// The time of the wall clock: Wed, 15 Nov 2023 22:13:21 GMT, a day after the objects were made.
pub const NOW_UNIX_S: u64 = 1_700_086_401;

/// What is queued on a connection.
enum Piece {
    Head(Vec<u8>),
    Body(PageSlice),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(bytes) => bytes,
            Self::Body(slice) => slice.bytes(),
        }
    }
}

/// The sending half of a connection: what is pushed stays queued, and pins its pages, until it is acknowledged.
pub struct Wire {
    pub now: Instant,
    pool: PagePool,
    /// Room of the send queue in bytes.
    pub capacity_bytes: usize,
    /// How many heads the pool still takes.
    pub head_pages: usize,
    queue: VecDeque<Piece>,
    unacknowledged_bytes: usize,
    acknowledged_bytes: u64,
    /// Everything that was pushed.
    pub sent: Vec<u8>,
    pub closed: bool,
    pub reset: bool,
    pub deadline: Option<Instant>,
}

impl Wire {
    /// Bytes that are queued.
    pub fn queue_bytes(&self) -> usize {
        self.unacknowledged_bytes
    }

    fn push(&mut self, piece: Piece) {
        assert!(!self.closed && !self.reset, "bytes behind the end of the connection");
        self.unacknowledged_bytes += piece.bytes().len();
        self.sent.extend_from_slice(piece.bytes());
        self.queue.push_back(piece);
    }
}

impl Outbox for Wire {
    fn now(&self) -> Instant {
        self.now
    }

    fn room_bytes(&self) -> usize {
        self.capacity_bytes.saturating_sub(self.unacknowledged_bytes)
    }

    fn push_head(&mut self, bytes: &[u8]) -> bool {
        assert!((1..=PAGE_BYTES).contains(&bytes.len()));
        if self.head_pages == 0 {
            return false;
        }
        self.head_pages -= 1;
        self.push(Piece::Head(bytes.to_vec()));
        true
    }

    fn push_body(&mut self, slice: PageSlice) {
        assert!(self.pool.owns(&slice), "bytes of objects come from the cache's pages");
        assert!(self.unacknowledged_bytes < self.capacity_bytes, "no room was left");
        self.push(Piece::Body(slice));
    }

    fn close(&mut self) {
        self.closed = true;
    }

    fn reset(&mut self) {
        self.reset = true;
        self.queue.clear();
        self.unacknowledged_bytes = 0;
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.deadline = deadline;
    }

    fn unacknowledged_bytes(&self) -> usize {
        self.unacknowledged_bytes
    }

    fn acknowledged_bytes(&self) -> u64 {
        self.acknowledged_bytes
    }
}

/// A connection.
pub struct Connection {
    session: Option<Session>,
    pub wire: Wire,
    /// Received bytes that the session has not consumed.
    pub unread: Vec<u8>,
    ended: bool,
    /// The peer acknowledges everything at once.
    pub acknowledges: bool,
}

/// A server, its disk, and its connections.
pub struct World {
    pub server: HttpServer,
    pub disks: Vec<MemoryDisk>,
    pub disk: MemoryDiskControl,
    pub stats: Rc<Stats>,
    pub pool: PagePool,
    pub connections: Vec<Connection>,
    now: Instant,
}

/// Mounts a volume.
pub fn mount(disks: &mut [MemoryDisk]) -> Volume {
    let mut mount = Mount::new(MountConfig { secret: [7; 16], directory_max_bytes: 1 << 20 });
    for _ in 0..1000 {
        if let Poll::Ready(volume) = mount.poll(disks) {
            return volume.expect("the volume is sound");
        }
    }
    panic!("mounting does not end");
}

impl World {
    /// Serves the volume on one disk through a cache of so many pages.
    pub fn new(disk: Vec<u8>, cache_pages: usize, config: Config) -> Self {
        let stats = Rc::new(Stats::default());
        let pool = PagePool::new(cache_pages);
        let mut disks = vec![MemoryDisk::read_only(disk)];
        let control = disks[0].control();
        let mut server = HttpServer::new(config, ChunkCache::new(pool.clone(), 1000, stats.clone()), stats.clone());
        server.tick(NOW_UNIX_S);
        server.set_volume(Some(mount(&mut disks))).expect("the cache holds a chunk");
        Self { server, disks, disk: control, stats, pool, connections: Vec::new(), now: Instant::from_secs(1000) }
    }

    /// Opens a connection and returns its number.
    pub fn connect(&mut self) -> usize {
        let number = self.connections.len();
        let id = ConnectionId { index: number as u32, generation: 3 };
        let address = IpAddress::v4(127, 0, 0, 1);
        let peer = Peer { address, port: 5000, local_address: address, local_port: 80 };
        let session = self.server.accept(id, &peer, self.now).expect("a session");
        let wire = Wire {
            now: self.now,
            pool: self.pool.clone(),
            capacity_bytes: 1 << 20,
            head_pages: usize::MAX,
            queue: VecDeque::new(),
            unacknowledged_bytes: 0,
            acknowledged_bytes: 0,
            sent: Vec::new(),
            closed: false,
            reset: false,
            deadline: None,
        };
        let connection =
            Connection { session: Some(session), wire, unread: Vec::new(), ended: false, acknowledges: true };
        self.connections.push(connection);
        self.writable(number);
        number
    }

    /// Delivers bytes and reads the responses that are sent now.
    pub fn ask(&mut self, number: usize, requests: impl AsRef<[u8]>) -> Vec<Response> {
        self.deliver(number, requests.as_ref());
        self.responses(number)
    }

    /// Reads the responses that were sent since the last look.
    pub fn responses(&mut self, number: usize) -> Vec<Response> {
        response::read_all(&self.take_sent(number), &[])
    }

    /// Delivers bytes to a connection, and lets everything happen that follows from it.
    pub fn deliver(&mut self, number: usize, bytes: &[u8]) {
        assert!(!self.connections[number].ended);
        self.connections[number].unread.extend_from_slice(bytes);
        self.show(number);
        self.settle();
    }

    /// The peer ends its direction.
    pub fn end(&mut self, number: usize) {
        let Self { connections, server, .. } = self;
        let Connection { session: Some(session), wire, unread, ended, .. } = &mut connections[number] else { return };
        *ended = true;
        server.peer_closed(session, unread.len(), wire);
        self.settle();
        self.bury(number);
    }

    fn show(&mut self, number: usize) {
        let Self { connections, server, .. } = self;
        let Connection { session: Some(session), wire, unread, .. } = &mut connections[number] else { return };
        if !unread.is_empty() {
            let consumed = server.receive(session, unread, wire);
            unread.drain(..consumed);
        }
        self.bury(number);
    }

    /// What TCP does when the send queue has room.
    pub fn writable(&mut self, number: usize) {
        let Self { connections, server, .. } = self;
        let Connection { session: Some(session), wire, .. } = &mut connections[number] else { return };
        server.writable(session, wire);
        self.show(number);
    }

    /// A connection that was reset, or whose two directions have ended with everything acknowledged, is no more.
    fn bury(&mut self, number: usize) {
        let Self { connections, server, .. } = self;
        let connection = &mut connections[number];
        let finished = connection.ended && connection.wire.closed && connection.wire.unacknowledged_bytes == 0;
        if connection.wire.reset || finished {
            let reason = if finished { CloseReason::Finished } else { CloseReason::ResetByApplication };
            if let Some(session) = connection.session.take() {
                server.closed(session, reason);
            }
        }
    }

    /// Ends a connection from outside, as by a reset of the peer.
    pub fn abort(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        connection.wire.queue.clear();
        if let Some(session) = connection.session.take() {
            self.server.closed(session, CloseReason::ResetByPeer);
        }
    }

    /// Acknowledges up to `bytes` bytes.
    pub fn acknowledge(&mut self, number: usize, bytes: usize) {
        let wire = &mut self.connections[number].wire;
        let mut left = bytes.min(wire.unacknowledged_bytes);
        wire.acknowledged_bytes += left as u64;
        wire.unacknowledged_bytes -= left;
        while left > 0 {
            match wire.queue.front_mut().expect("queued bytes") {
                Piece::Body(slice) if slice.len() > left => {
                    slice.advance(left);
                    left = 0;
                }
                Piece::Head(head) if head.len() > left => {
                    head.drain(..left);
                    left = 0;
                }
                whole => {
                    left -= whole.bytes().len();
                    wire.queue.pop_front();
                }
            }
        }
        self.writable(number);
    }

    /// Lets disk, cache and acknowledgements go on until nothing happens any more.
    pub fn settle(&mut self) {
        loop {
            let mut busy = self.server.cache_mut().poll(&mut self.disks);
            let mut woken = Vec::new();
            self.server.wakes(|id| {
                assert_eq!(id.generation, 3);
                assert!(self.connections[id.index as usize].session.is_some(), "nobody waits there any more");
                woken.push(id.index as usize);
            });
            for number in woken {
                busy = true;
                self.writable(number);
            }
            for number in 0..self.connections.len() {
                let connection = &self.connections[number];
                if connection.acknowledges && connection.wire.unacknowledged_bytes > 0 {
                    busy = true;
                    self.acknowledge(number, usize::MAX);
                }
            }
            if !busy {
                break;
            }
        }
    }

    /// Lets time pass on a connection, with its deadlines.
    pub fn wait(&mut self, number: usize, duration: Duration) {
        let end = self.now + duration;
        loop {
            let deadline = self.connections[number].wire.deadline.filter(|&deadline| deadline <= end);
            let at = deadline.map_or(end, |deadline| deadline.max(self.now));
            self.now = at;
            self.connections.iter_mut().for_each(|connection| connection.wire.now = at);
            if deadline.is_some() {
                let connection = &mut self.connections[number];
                connection.wire.deadline = None;
                if let Some(session) = &mut connection.session {
                    self.server.timeout(session, &mut connection.wire);
                }
                self.bury(number);
            }
            self.settle();
            if deadline.is_none() {
                return;
            }
        }
    }

    /// Lets so many seconds pass on a connection.
    pub fn wait_s(&mut self, number: usize, seconds: u64) {
        self.wait(number, Duration::from_secs(seconds));
    }

    /// Takes what was sent on a connection since the last call.
    pub fn take_sent(&mut self, number: usize) -> Vec<u8> {
        std::mem::take(&mut self.connections[number].wire.sent)
    }

    /// True while the connection's session lives.
    pub fn lives(&self, number: usize) -> bool {
        self.connections[number].session.is_some()
    }
}
