//! A response with an object's bytes on its way into a connection.
//!
//! The head leaves together with the first bytes, so that a disk that fails at once is answered with an error, and a small
//! object is one frame. What the disk has not delivered yet is waited for without holding anything.

use alloc::rc::Rc;
use smoltcp::time::Instant;

use super::answer::object_head;
use super::response::{CommonFields, Connection, HeadBuffer};
use super::server::{HttpServer, Served};
use super::status::Status;
use crate::cache::shfs::{Content, ObjectId};
use crate::cache::{Lookup, Waiter};
use crate::rings::PAGE_BYTES;
use crate::stats::Stats;
use crate::tcp_gso::Outbox;

/// Bytes of an object: `first` to `first + length − 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub first: u64,
    /// Number of bytes, at least 1.
    pub length: u64,
}

/// A response whose body is not completely queued yet.
pub struct Transfer {
    served: Rc<Served>,
    object: ObjectId,
    range_bytes: u64,
    /// What the head is made from, until it has been queued.
    head: Option<TransferHead>,
    /// Where the next byte lies.
    chunk: u64,
    offset_bytes: u64,
    left_bytes: u64,
    waiting: Option<Waiting>,
    status: Status,
    /// The volume shows the object as it was; the next one is waited for.
    awaits_volume: bool,
    /// Volumes that have been waited for.
    renewals: u8,
}

/// Most volumes that a response waits for, one after the other: an object may change again while it is read anew.
const MAX_RENEWALS: u8 = 32;

/// What came of waiting for a new volume.
pub enum Renewal {
    /// There is nothing to wait for (any more).
    None,
    /// It is not there yet.
    Awaited,
    /// It does not have the object.
    Missing,
}

/// What the head of a transfer says.
#[derive(Clone, Copy)]
pub struct TransferHead {
    /// The object.
    pub object: ObjectId,
    /// The part of it that is sent, for status 206.
    pub part: Option<ByteRange>,
    /// What is said of the connection.
    pub connection: Connection,
}

impl Drop for Transfer {
    /// However it ended.
    fn drop(&mut self) {
        self.served.object_stats(self.object).end(self.sent_bytes(), self.range_bytes);
    }
}

impl TransferHead {
    /// Queues the head. False if there is no head page for it.
    fn push(&self, served: &Served, buffer: &mut HeadBuffer, common: &CommonFields, out: &mut impl Outbox) -> bool {
        let object = served.volume.directory.get(self.object);
        let Content::Extent { length_bytes, .. } = object.content else { unreachable!("links have no bytes here") };
        out.push_head(object_head(buffer, &object, length_bytes, self.part, common, self.connection).finish())
    }
}

/// Why a transfer rests.
#[derive(Clone, Copy)]
pub struct Waiting {
    /// Since when.
    pub since: Instant,
    /// Cache memory or head pages are short; otherwise the disk is awaited.
    pub starved: bool,
}

/// How far a transfer got.
pub enum Progress {
    /// All is queued.
    Done,
    /// The send queue is full, or something is awaited.
    Resting,
    /// The object can't be read.
    Failed,
}

impl Transfer {
    /// A transfer of `range` of an object whose bytes begin at `offset_bytes` into `chunk`. `unix_s` is the time, for the
    /// object's counters.
    pub fn new(
        served: Rc<Served>,
        head: TransferHead,
        chunk: u64,
        offset_bytes: u64,
        range: ByteRange,
        unix_s: u64,
    ) -> Self {
        let chunk_bytes = u64::from(served.volume.chunk_bytes);
        // The whole extent is known to lie on the volume, so nothing here overflows.
        let start_bytes = offset_bytes + range.first;
        let (chunk, offset_bytes) = if start_bytes < chunk_bytes {
            (chunk, start_bytes)
        } else {
            (chunk + start_bytes / chunk_bytes, start_bytes % chunk_bytes)
        };
        served.object_stats(head.object).begin(unix_s);
        Self {
            served,
            object: head.object,
            range_bytes: range.length,
            head: Some(head),
            chunk,
            offset_bytes,
            left_bytes: range.length,
            waiting: None,
            status: if head.part.is_some() { Status::PartialContent } else { Status::Ok },
            awaits_volume: false,
            renewals: 0,
        }
    }

    /// The object has changed on the disks: wait for the volume that shows it as it is now. False if that is of no use: the head
    /// says what is no longer true, or this has been tried too often.
    pub fn await_volume(&mut self, server: &mut HttpServer, waiter: Waiter, now: Instant) -> bool {
        let fresh = self.head.is_some_and(|head| head.part.is_none()) && self.renewals < MAX_RENEWALS;
        if !fresh || !server.await_volume(waiter) {
            return false;
        }
        self.awaits_volume = true;
        self.renewals += 1;
        self.waiting = Some(Waiting { since: now, starved: false });
        true
    }

    /// Begins anew on the volume that was waited for, if it is there.
    pub fn renew(&mut self, server: &HttpServer) -> Renewal {
        if !self.awaits_volume {
            return Renewal::None;
        }
        let Some(head) = self.head else { return Renewal::None };
        let Some(served) = server.served().filter(|served| !Rc::ptr_eq(served, &self.served)) else {
            return Renewal::Awaited;
        };
        let directory = &served.volume.directory;
        let name = self.served.volume.directory.get(head.object).name;
        let Some(object) = directory.by_name(name) else { return Renewal::Missing };
        let Content::Extent { chunk, offset_bytes, length_bytes } = directory.get(object).content else {
            return Renewal::Missing;
        };
        let (unix_s, renewals) = (server.common.unix_s(), self.renewals);
        // The object may have become empty: then there is only a head to send.
        let range = ByteRange { first: 0, length: length_bytes };
        *self = Self::new(served, TransferHead { object, ..head }, chunk, offset_bytes, range, unix_s);
        self.renewals = renewals;
        Renewal::None
    }

    /// Status of the head, if it has been queued.
    pub fn status_sent(&self) -> Option<u16> {
        self.head.is_none().then_some(self.status.code())
    }

    /// Bytes of the body that have been queued.
    pub fn sent_bytes(&self) -> u64 {
        self.range_bytes - self.left_bytes
    }

    /// Why it rests, if that is not the send queue's doing.
    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }

    /// The head that has not been queued, so that another can take its place.
    pub fn pending_head(&self) -> Option<&TransferHead> {
        self.head.as_ref()
    }

    /// Queues what the send queue and the cache allow.
    pub fn feed(&mut self, server: &mut HttpServer, waiter: Waiter, out: &mut impl Outbox) -> Progress {
        let chunk_bytes = u64::from(self.served.volume.chunk_bytes);
        let mut room_bytes = out.room_bytes();
        while self.left_bytes > 0 {
            if room_bytes == 0 {
                self.waiting = None;
                return Progress::Resting;
            }
            let in_chunk_bytes = self.left_bytes.min(chunk_bytes - self.offset_bytes);
            // What the connection can drain while a chunk is read: about a full send queue.
            let ahead_chunks = match self.left_bytes - in_chunk_bytes {
                0 => 0,
                behind_bytes => {
                    let drain_bytes = ((room_bytes + out.unacknowledged_bytes()) as u64).min(behind_bytes);
                    drain_bytes.div_ceil(chunk_bytes).min(server.config.max_ahead_chunks.into()) as u32
                }
            };
            let pages = match server.cache.lookup(self.served.source, self.chunk, ahead_chunks, waiter) {
                Lookup::Ready(pages) => pages,
                Lookup::Pending => return self.wait(out.now(), false),
                Lookup::Starved => return self.wait(out.now(), true),
                Lookup::OutOfRange => return Progress::Failed,
            };
            self.waiting = None;
            if self.head.is_some() {
                if !self.push_head(&mut server.head, &server.common, &server.stats, out) {
                    return self.wait(out.now(), true);
                }
                room_bytes = out.room_bytes();
            }
            let mut pushed_bytes = 0;
            while pushed_bytes < in_chunk_bytes && room_bytes > 0 {
                let at = (self.offset_bytes + pushed_bytes) as usize;
                let (page, offset) = (&pages[at / PAGE_BYTES], at % PAGE_BYTES);
                let length = (PAGE_BYTES - offset).min((in_chunk_bytes - pushed_bytes) as usize);
                out.push_body(page.slice(offset, length));
                pushed_bytes += length as u64;
                room_bytes = room_bytes.saturating_sub(length);
            }
            server.stats.http_body_bytes.add(pushed_bytes);
            self.left_bytes -= pushed_bytes;
            self.offset_bytes += pushed_bytes;
            if self.offset_bytes == chunk_bytes {
                self.chunk += 1;
                self.offset_bytes = 0;
            }
        }
        if !self.push_head(&mut server.head, &server.common, &server.stats, out) {
            return self.wait(out.now(), true);
        }
        Progress::Done
    }

    /// Queues the head unless it has been. False if there is no head page for it.
    fn push_head(
        &mut self,
        buffer: &mut HeadBuffer,
        common: &CommonFields,
        stats: &Stats,
        out: &mut impl Outbox,
    ) -> bool {
        let Some(head) = &self.head else { return true };
        if !head.push(&self.served, buffer, common, out) {
            return false;
        }
        self.status.count(stats);
        self.head = None;
        true
    }

    fn wait(&mut self, now: Instant, starved: bool) -> Progress {
        let since = self.waiting.map_or(now, |waiting| waiting.since);
        self.waiting = Some(Waiting { since, starved });
        Progress::Resting
    }
}
