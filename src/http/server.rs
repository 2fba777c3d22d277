//! The HTTP server: what all connections share, and the border to the serving TCP.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;
use smoltcp::time::Instant;

use super::access_log::{AccessLog, Answered};
use super::config::Config;
use super::object_stats::ObjectStats;
use super::response::{CommonFields, HeadBuffer};
use super::session::Session;
use crate::cache::shfs::{ObjectId, Volume};
use crate::cache::{AttachError, ChunkCache, Lookup, SourceId, Waiter};
use crate::rings::{BlockError, Page};
use crate::stats::Stats;
use crate::tcp_gso::{Application, CloseReason, ConnectionId, Outbox, Peer};

/// A volume that is served, or was when requests under way began.
pub struct Served {
    /// The volume.
    pub volume: Volume,
    /// Its name in the chunk cache.
    pub source: SourceId,
    /// Counters of its objects, in the directory's order.
    objects: Vec<ObjectStats>,
}

/// A chunk that µShell wants to see.
pub enum ChunkRead<'a> {
    /// Its pages.
    Ready(&'a [Page]),
    /// Being read, or waiting for memory: ask again in a later round.
    Pending,
    /// It can't be read.
    Failed,
}

impl Served {
    fn new(volume: Volume, source: SourceId) -> Self {
        let objects = core::iter::repeat_with(ObjectStats::default).take(volume.directory.len()).collect();
        Self { volume, source, objects }
    }

    /// Counters of one of the volume's objects.
    pub fn object_stats(&self, id: ObjectId) -> &ObjectStats {
        &self.objects[id.index()]
    }

    /// How many requests for its objects are under way.
    pub fn open_objects(&self) -> usize {
        self.objects.iter().map(|object| object.open() as usize).sum()
    }
}

/// Serves a volume's objects over HTTP. One value serves all connections of an appliance.
pub struct HttpServer {
    pub(super) config: Config,
    pub(super) cache: ChunkCache,
    pub(super) stats: Rc<Stats>,
    pub(super) served: Option<Rc<Served>>,
    /// Volumes that were replaced and that responses under way may still need.
    retired: Vec<Rc<Served>>,
    pub(super) common: CommonFields,
    pub(super) head: Box<HeadBuffer>,
    /// Connections whose chunk could not be read, until they notice.
    failed: BTreeMap<Waiter, BlockError>,
    pub(super) access_log: Option<Box<dyn AccessLog>>,
    pub(super) answered: Cell<Answered>,
    /// A new volume can be had when what the disks show has changed.
    renewable: bool,
    /// It has changed.
    stale: bool,
    /// Connections that wait for the new volume, and those that have to be told of it.
    awaiting: Vec<Waiter>,
    renewed: Vec<Waiter>,
    /// The server is being ended: no connection persists.
    pub(super) draining: bool,
}

impl HttpServer {
    /// A server without a volume: it answers every request with 503.
    pub fn new(config: Config, cache: ChunkCache, stats: Rc<Stats>) -> Self {
        Self {
            config,
            cache,
            stats,
            served: None,
            retired: Vec::new(),
            common: CommonFields::new(0),
            head: Box::default(),
            failed: BTreeMap::new(),
            access_log: None,
            answered: Cell::default(),
            renewable: false,
            stale: false,
            awaiting: Vec::new(),
            renewed: Vec::new(),
            draining: false,
        }
    }

    /// Serves `volume` from now on, or nothing. Responses under way finish on the volume that they began with. On an error
    /// nothing has changed.
    pub fn set_volume(&mut self, volume: Option<Volume>) -> Result<(), AttachError> {
        let new = match volume {
            Some(volume) => {
                let source = self.cache.attach(&volume.layout)?;
                Some(Rc::new(Served::new(volume, source)))
            }
            None => None,
        };
        self.retired.extend(core::mem::replace(&mut self.served, new));
        self.detach_unused();
        self.renewed.append(&mut self.awaiting);
        Ok(())
    }

    /// From now on, a response whose object has changed on the disks before it began waits for the next volume, instead of
    /// failing. Somebody has to look at [`HttpServer::take_stale`].
    pub fn set_renewable(&mut self) {
        self.renewable = true;
    }

    /// True, once, when what the disks show has changed and a new volume is needed.
    pub fn take_stale(&mut self) -> bool {
        core::mem::take(&mut self.stale)
    }

    /// Has the waiter woken when there is a new volume. False if there never will be one.
    pub(super) fn await_volume(&mut self, waiter: Waiter) -> bool {
        if self.renewable {
            self.awaiting.push(waiter);
        }
        self.renewable
    }

    /// The volume that is served.
    pub fn volume(&self) -> Option<&Volume> {
        self.served.as_ref().map(|served| &served.volume)
    }

    /// The volume that is served, to be held on to.
    pub fn served(&self) -> Option<Rc<Served>> {
        self.served.clone()
    }

    /// Answers each connection's request under way, and closes it instead of waiting for the next. Connections at rest are
    /// closed when they are woken ([`crate::tcp_gso::Stack::wake`]).
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The chunk cache.
    pub fn cache(&self) -> &ChunkCache {
        &self.cache
    }

    /// The chunk cache, for its `poll`.
    pub fn cache_mut(&mut self) -> &mut ChunkCache {
        &mut self.cache
    }

    /// Limits and time limits.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Tells the wall clock's time, once a round. 0 stands for a clock that is not set. `Date` is formatted when the second changes.
    pub fn tick(&mut self, unix_s: u64) {
        if self.common.unix_s() != unix_s {
            self.common = CommonFields::new(unix_s);
        }
        if !self.retired.is_empty() {
            self.detach_unused();
        }
    }

    fn detach_unused(&mut self) {
        let Self { retired, cache, .. } = self;
        retired.retain(|served| {
            let used = Rc::strong_count(served) > 1;
            if !used {
                cache.detach(served.source);
            }
            used
        });
    }

    /// Hands on every connection whose chunk arrived or failed since the last call: wake them
    /// ([`crate::tcp_gso::Stack::wake`]).
    pub fn wakes(&mut self, mut wake: impl FnMut(ConnectionId)) {
        while let Some((waiter, result)) = self.cache.next_woken() {
            if let Err(error) = result {
                self.stale |= error.error == BlockError::Changed;
                self.failed.insert(waiter, error.error);
            }
            wake(connection_of(waiter));
        }
        self.renewed.drain(..).for_each(|waiter| wake(connection_of(waiter)));
    }

    /// Why what `waiter` waited for could not be read, once.
    pub(super) fn take_failure(&mut self, waiter: Waiter) -> Option<BlockError> {
        if self.failed.is_empty() { None } else { self.failed.remove(&waiter) }
    }

    /// Serves nothing from now on. Responses under way finish.
    pub fn unmount(&mut self) {
        self.retired.extend(self.served.take());
        self.detach_unused();
    }

    /// Looks up a chunk for a session of µShell.
    pub fn read_for_shell(&mut self, session: u8, served: &Served, chunk: u64, ahead_chunks: u32) -> ChunkRead<'_> {
        let waiter = shell_waiter(session);
        if self.take_failure(waiter).is_some() {
            return ChunkRead::Failed;
        }
        match self.cache.lookup(served.source, chunk, ahead_chunks, waiter) {
            Lookup::Ready(pages) => ChunkRead::Ready(pages),
            Lookup::Pending | Lookup::Starved => ChunkRead::Pending,
            Lookup::OutOfRange => ChunkRead::Failed,
        }
    }

    /// Ends the wait of a session of µShell.
    pub fn forget_for_shell(&mut self, session: u8) {
        self.forget(shell_waiter(session));
    }

    /// Ends a wait.
    pub(super) fn forget(&mut self, waiter: Waiter) {
        self.cache.forget(waiter);
        self.awaiting.retain(|awaiting| *awaiting != waiter);
        self.take_failure(waiter);
    }
}

/// The cache's name for a connection.
pub(super) fn waiter_of(id: ConnectionId) -> Waiter {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

/// The cache's name for a session of µShell: that of a connection which no table is large enough for.
fn shell_waiter(session: u8) -> Waiter {
    waiter_of(ConnectionId { index: u32::MAX - u32::from(session), generation: u32::MAX })
}

fn connection_of(waiter: Waiter) -> ConnectionId {
    ConnectionId { index: waiter as u32, generation: (waiter >> 32) as u32 }
}

impl Application for HttpServer {
    type Session = Session;

    fn accept(&mut self, id: ConnectionId, peer: &Peer, now: Instant) -> Option<Session> {
        Some(Session::new(waiter_of(id), peer.address, now, &self.config))
    }

    fn receive(&mut self, session: &mut Session, data: &[u8], out: &mut impl Outbox) -> usize {
        session.receive(self, data, out)
    }

    fn writable(&mut self, session: &mut Session, out: &mut impl Outbox) {
        session.writable(self, out);
    }

    fn peer_closed(&mut self, session: &mut Session, unread: usize, out: &mut impl Outbox) {
        session.peer_closed(self, unread, out);
    }

    fn timeout(&mut self, session: &mut Session, out: &mut impl Outbox) {
        session.timeout(self, out);
    }

    fn closed(&mut self, session: Session, _reason: CloseReason) {
        session.closed(self);
    }
}
