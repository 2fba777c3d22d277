//! The disk (blkfront, `io/blkif.h`): many requests in flight, each straight into the pages of whoever asks.
//!
//! A request of ours becomes one request of the back end, or two where that takes no indirect segments. Its pages are granted for
//! as long as it is in flight and no longer: never persistently.

mod connect;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::ToString;
use arrayvec::ArrayVec;

use super::abi::block::{
    BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_OKAY, IndirectRequest, Request, Response, Segment, UNIT_BYTES,
};
use super::grants::Access;
use super::life::{Life, Step};
use super::{GrantRef, Xen, XenError};
use crate::rings::link::LinkEvent;
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, MAX_REQUEST_PAGES,
    PAGE_BYTES, PageVec,
};
use crate::stats::Stats;
use connect::{Connected, Driver};

/// Requests of ours that the disk holds, and requests of the back end's: as many as fit a ring of one page.
const DEPTH: usize = 32;

/// Entries of the grant table that a disk takes: the ring, the indirect pages, and the pages of all requests.
const GRANTS: usize = 1 + DEPTH + DEPTH * MAX_REQUEST_PAGES;

/// A request of ours on its way.
#[derive(Debug)]
struct Running {
    operation: BlockOperation,
    pages: PageVec,
    token: u64,
    /// First unit on the disk.
    unit: u64,
    /// Bytes to be read or written: the pages, up to the end of the disk.
    bytes: usize,
    /// How many of them have been asked for.
    issued_bytes: usize,
    /// Everything has been asked for.
    issued: bool,
    /// Requests of the back end's on their way.
    parts: u16,
    error: Option<BlockError>,
}

/// A request of the back end's on its way.
#[derive(Debug)]
struct Part {
    slot: u8,
    first_page: usize,
    grants: ArrayVec<GrantRef, MAX_REQUEST_PAGES>,
}

/// A Xen disk.
pub struct XenBlk {
    life: Life<Driver, Connected, Geometry>,
    geometry: Geometry,
    connected: Option<Connected>,
    /// The virtual device number, as requests name it.
    handle: u16,
    /// What the back end has, by id.
    parts: Box<[Option<Part>]>,
    free_parts: ArrayVec<u8, DEPTH>,
    slots: Box<[Option<Running>]>,
    free: ArrayVec<u8, DEPTH>,
    /// Slots with something to be asked for still, oldest first.
    unissued: VecDeque<u8>,
    finished: VecDeque<BlockCompletion>,
    xen: Xen,
}

impl XenBlk {
    /// Begins to connect the disk in this folder of the store (`device/vbd/51712`). All memory, about 140 KiB, is allocated here and
    /// when it is connected; nothing is later.
    ///
    /// It goes on in [`BlockDevice::event`], and is up with its first [`BlockEvent::Up`].
    ///
    /// # Errors
    /// If the grant table is too small.
    pub fn new(xen: &Xen, path: &str, stats: Rc<Stats>) -> Result<Self, XenError> {
        xen.reserve_grants(GRANTS)?;
        let geometry = Geometry { sector_bytes: UNIT_BYTES as u32, sectors: 0, read_only: true };
        // The field has 16 bits, numbers may have more (XVDA+16 and on), and back ends don't look at it.
        let handle = path.rsplit('/').next().and_then(|name| name.parse::<u32>().ok()).unwrap_or(0) as u16;
        Ok(Self {
            life: Life::new(xen.clone(), path.to_string(), Driver, geometry, stats),
            geometry,
            connected: None,
            handle,
            parts: (0..DEPTH).map(|_| None).collect(),
            free_parts: (0..DEPTH as u8).rev().collect(),
            slots: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH as u8).rev().collect(),
            unissued: VecDeque::with_capacity(DEPTH),
            finished: VecDeque::with_capacity(DEPTH),
            xen: xen.clone(),
        })
    }

    /// True until it has come up, or is gone: whoever waits for that may go on waiting.
    pub fn is_connecting(&self) -> bool {
        self.life.is_connecting()
    }

    /// Completes everything in flight, on a device that has been closed.
    fn take_back(&mut self) {
        self.unissued.clear();
        for id in 0..DEPTH as u8 {
            if let Some(part) = self.parts[usize::from(id)].take() {
                self.end_grants(part);
                self.free_parts.push(id);
            }
        }
        for slot in 0..DEPTH as u8 {
            if let Some(running) = &mut self.slots[usize::from(slot)] {
                running.error = Some(BlockError::Down);
                self.finish(slot);
            }
        }
    }

    /// Ends the grants of a part's pages. False if the back end still uses one.
    fn end_grants(&mut self, part: Part) -> bool {
        let running = self.slots[usize::from(part.slot)].as_ref().expect("a part has a request");
        let pages = &running.pages[part.first_page..];
        let ended = part.grants.into_iter().zip(pages).map(|(grant, page)| self.xen.end_grant_of(grant, page));
        ended.filter(|ended| !ended).count() == 0
    }

    /// Asks the back end for what has not been asked for, as far as there is room.
    fn issue(&mut self) {
        while let Some(&slot) = self.unissued.front() {
            while self.issue_part(slot) {}
            if self.slots[usize::from(slot)].as_ref().is_some_and(|running| !running.issued) {
                return;
            }
            self.unissued.pop_front();
        }
    }

    /// One more request to the back end for a request of ours. False if that is all, or there is no room.
    fn issue_part(&mut self, slot: u8) -> bool {
        let Some(running) = self.slots[usize::from(slot)].as_mut().filter(|running| !running.issued) else {
            return false;
        };
        let Some(connected) = self.connected.as_mut().filter(|connected| connected.ring.room() > 0) else {
            return false;
        };
        let Some(id) = self.free_parts.pop() else { return false };
        let most = if connected.indirect.is_some() { MAX_REQUEST_PAGES } else { BLKIF_MAX_SEGMENTS_PER_REQUEST };
        let first_page = running.issued_bytes / PAGE_BYTES;
        let bytes = (running.bytes - running.issued_bytes).min(most * PAGE_BYTES);
        let access = if running.operation == BlockOperation::Read { Access::Write } else { Access::Read };
        let mut grants = ArrayVec::new();
        let mut segments = ArrayVec::<Segment, MAX_REQUEST_PAGES>::new();
        for at in 0..bytes.div_ceil(PAGE_BYTES) {
            let page = &running.pages[first_page + at];
            let Ok(grant) = self.xen.grant(connected.domain, page.address(), access) else {
                // Pages are in quarantine: it is tried again when something has come back. Nobody has been told of these.
                for (grant, page) in grants.into_iter().zip(&running.pages[first_page..]) {
                    self.xen.end_grant_of(grant, page);
                }
                self.free_parts.push(id);
                return false;
            };
            let units = (bytes - at * PAGE_BYTES).min(PAGE_BYTES).div_ceil(UNIT_BYTES as usize);
            segments.push(Segment { gref: grant.number(), first_sect: 0, last_sect: units as u8 - 1, pad: 0 });
            grants.push(grant);
        }
        let operation = match running.operation {
            BlockOperation::Read => BLKIF_OP_READ,
            BlockOperation::Write => BLKIF_OP_WRITE,
            BlockOperation::Flush => BLKIF_OP_FLUSH_DISKCACHE,
        };
        let sector_number = match running.operation {
            BlockOperation::Flush => 0,
            _ => running.unit + running.issued_bytes as u64 / UNIT_BYTES,
        };
        connected.put(operation, self.handle, id, sector_number, &segments);
        self.parts[usize::from(id)] = Some(Part { slot, first_page, grants });
        running.issued_bytes += bytes;
        running.issued = running.issued_bytes == running.bytes;
        running.parts += 1;
        true
    }

    /// Takes the back end's answers.
    fn collect(&mut self) -> Result<(), XenError> {
        while let Some(connected) = &mut self.connected {
            let Some((_, Response { id, status, .. })) = connected.ring.take()? else { break };
            let part = usize::try_from(id).ok().and_then(|id| self.parts.get_mut(id)?.take());
            let part = part.ok_or(XenError::UnknownId(id))?;
            self.free_parts.push(id as u8);
            let slot = part.slot;
            let ended = self.end_grants(part);
            let running = self.slots[usize::from(slot)].as_mut().expect("a part has a request");
            let error = match status {
                // What it has not let go of could still change.
                BLKIF_RSP_OKAY if !ended => Some(BlockError::Failed),
                BLKIF_RSP_OKAY => None,
                BLKIF_RSP_EOPNOTSUPP => Some(BlockError::Unsupported),
                _ => Some(BlockError::Failed),
            };
            running.error = running.error.or(error);
            running.parts -= 1;
            self.life.count_work(1);
            // What has not been asked for yet is not worth it any more after an error.
            let done = running.parts == 0 && (running.issued || running.error.is_some());
            if done {
                self.unissued.retain(|unissued| *unissued != slot);
                self.finish(slot);
            }
        }
        Ok(())
    }

    fn finish(&mut self, slot: u8) {
        let Some(running) = self.slots[usize::from(slot)].take() else { return };
        let result = running.error.map_or(Ok(()), Err);
        self.finished.push_back(BlockCompletion { token: running.token, pages: running.pages, result });
        self.free.push(slot);
    }

    /// First unit and bytes of a request that fits the disk; `None` if there is nothing to do for it.
    fn prepare(&self, request: &mut BlockRequest) -> Result<Option<(u64, usize)>, BlockError> {
        let (start, bytes) = request.prepare(&self.geometry)?;
        // Without a cache every write that has completed is durable.
        let flushes = self.connected.as_ref().is_some_and(|connected| connected.flushes);
        let is_done = request.operation == BlockOperation::Flush && !flushes;
        Ok((!is_done).then_some((start / UNIT_BYTES, bytes)))
    }
}

impl Connected {
    /// Puts a request of at most [`MAX_REQUEST_PAGES`] segments into the ring; its id is below [`DEPTH`].
    fn put(&mut self, operation: u8, handle: u16, id: u8, sector_number: u64, segments: &[Segment]) {
        if let (Some(pages), true) = (&self.indirect, segments.len() > BLKIF_MAX_SEGMENTS_PER_REQUEST) {
            let page = usize::from(id) * PAGE_BYTES;
            for (at, segment) in segments.iter().enumerate() {
                pages.memory.put(page + at * size_of::<Segment>(), *segment);
            }
            let mut indirect_grefs = [0; 8];
            indirect_grefs[0] = pages.reference_at(page);
            let (indirect_op, nr_segments) = (operation, segments.len() as u16);
            let operation = BLKIF_OP_INDIRECT;
            let id = id.into();
            return self.ring.put(IndirectRequest {
                operation,
                indirect_op,
                nr_segments,
                id,
                sector_number,
                handle,
                indirect_grefs,
                ..Default::default()
            });
        }
        let mut request = Request { operation, handle, id: id.into(), sector_number, ..Default::default() };
        request.nr_segments = segments.len() as u8;
        request.segments[..segments.len()].copy_from_slice(segments);
        self.ring.put(request);
    }
}

impl BlockDevice for XenBlk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn event(&mut self) -> Option<BlockEvent> {
        loop {
            match self.life.step() {
                Step::None => break,
                Step::Connected(connected) => {
                    self.geometry = connected.geometry;
                    self.connected = Some(connected);
                    self.life.set_up(self.geometry);
                }
                Step::Stopped => {
                    self.take_back();
                    self.connected = None;
                }
            }
        }
        self.xen.retry_quarantine();
        Some(match self.life.event()? {
            LinkEvent::Down => BlockEvent::Down,
            LinkEvent::Up(geometry) => BlockEvent::Up(geometry),
            LinkEvent::Gone => BlockEvent::Gone,
        })
    }

    fn submit(&mut self, mut request: BlockRequest) -> Result<(), BlockRequest> {
        // A slot is a place among the finished ones, too.
        if !self.life.is_working() || self.free.len() <= self.finished.len() {
            return Err(request);
        }
        let prepared = self.prepare(&mut request);
        let BlockRequest { operation, pages, token, .. } = request;
        let (unit, bytes) = match prepared {
            Ok(Some(place)) => place,
            Ok(None) | Err(_) => {
                self.finished.push_back(BlockCompletion { token, pages, result: prepared.map(|_| ()) });
                return Ok(());
            }
        };
        let running =
            Running { operation, pages, token, unit, bytes, issued_bytes: 0, issued: false, parts: 0, error: None };
        let slot = self.free.pop().expect("one is free");
        self.slots[usize::from(slot)] = Some(running);
        self.unissued.push_back(slot);
        self.issue();
        Ok(())
    }

    fn flush(&mut self) {
        if let Some(connected) = self.connected.as_mut().filter(|_| self.life.is_working()) {
            connected.channel.publish(&mut connected.ring);
        }
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        if self.life.is_working() {
            match self.collect() {
                Ok(()) => {
                    self.issue();
                    self.flush();
                }
                Err(error) => self.life.fault(&error),
            }
        }
        let mut count = 0;
        while let Some(completion) = self.finished.pop_front() {
            sink(completion);
            count += 1;
        }
        count
    }

    fn arm(&mut self) -> bool {
        let mut answered = !self.finished.is_empty();
        if let Some(connected) = self.connected.as_mut().filter(|_| self.life.is_working()) {
            connected.channel.acknowledge();
            answered |= connected.ring.arm(1);
        }
        answered || self.life.arm()
    }
}

impl Drop for XenBlk {
    fn drop(&mut self) {
        self.take_back();
        self.connected = None;
        self.xen.release_grants(GRANTS);
    }
}

impl core::fmt::Debug for XenBlk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "XenBlk({:?})", self.life)
    }
}
