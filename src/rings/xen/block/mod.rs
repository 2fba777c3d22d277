//! The disk (blkfront, `io/blkif.h`): many requests in flight, each straight into the pages of whoever asks.
//!
//! A request of ours becomes one request of the back end, or two where that takes no indirect segments. Its pages are granted for
//! as long as it is in flight and no longer: never persistently.

mod connect;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use arrayvec::ArrayVec;

use super::abi::block::{
    BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_OKAY, IndirectRequest, Request, Response, Segment, UNIT_BYTES,
};
use super::grants::Access;
use super::life::{Life, Step};
use super::{DomainId, GrantRef, Xen, XenError};
use crate::rings::block_queue::{BlockQueue, Part};
use crate::rings::link::LinkEvent;
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, MAX_REQUEST_PAGES,
    PAGE_BYTES,
};
use crate::stats::Stats;
use connect::{Connected, Driver};

/// Requests of ours that the disk holds, and requests of the back end's: as many as fit a ring of one page.
const DEPTH: usize = 32;

/// Entries of the grant table that a disk takes: the ring, the indirect pages, and the pages of all requests.
const GRANTS: usize = 1 + DEPTH + DEPTH * MAX_REQUEST_PAGES;

/// A request of the back end's on its way.
#[derive(Debug)]
struct Asked {
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
    asked: Box<[Option<Asked>]>,
    /// Ids that it has not.
    free: ArrayVec<u8, DEPTH>,
    requests: BlockQueue<DEPTH>,
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
            asked: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH as u8).rev().collect(),
            requests: BlockQueue::new(),
            xen: xen.clone(),
        })
    }

    /// True until it has come up, or is gone: whoever waits for that may go on waiting.
    pub fn is_connecting(&self) -> bool {
        self.life.is_connecting()
    }

    /// Completes everything in flight, on a device that has been closed.
    fn take_back(&mut self) {
        for id in 0..DEPTH as u8 {
            if let Some(asked) = self.asked[usize::from(id)].take() {
                self.end_grants(asked);
                self.free.push(id);
            }
        }
        self.requests.take_back();
    }

    /// Completes everything in flight; what the back end has of it, grants and pages, is never used again.
    fn abandon(&mut self) {
        for asked in self.asked.iter_mut().filter_map(Option::take) {
            let pages = &self.requests.pages(asked.slot)[asked.first_page..][..asked.grants.len()];
            pages.iter().for_each(|page| core::mem::forget(page.clone()));
            core::mem::forget(asked);
        }
        self.requests.take_back();
        core::mem::forget(self.connected.take());
    }

    /// Ends the grants of the pages that were asked for. False if the back end still uses one.
    fn end_grants(&mut self, Asked { slot, first_page, grants }: Asked) -> bool {
        let pages = &self.requests.pages(slot)[first_page..];
        let ended = grants.into_iter().zip(pages).map(|(grant, page)| self.xen.end_grant_of(grant, page));
        ended.filter(|ended| !ended).count() == 0
    }

    /// Asks the back end for what has not been asked for, as far as there is room.
    fn issue(&mut self) {
        let Self { connected, asked, free, requests, xen, handle, .. } = self;
        let Some(connected) = connected else { return };
        let most = if connected.indirect.is_some() { MAX_REQUEST_PAGES } else { BLKIF_MAX_SEGMENTS_PER_REQUEST };
        requests.issue(most, |part| {
            if connected.ring.room() == 0 {
                return false;
            }
            let Some(id) = free.last().copied() else { return false };
            // Without grants, pages are in quarantine: it is tried again when something has come back.
            let Some((grants, segments)) = grant(xen, connected.domain, part) else { return false };
            let operation = match part.operation {
                BlockOperation::Read => BLKIF_OP_READ,
                BlockOperation::Write => BLKIF_OP_WRITE,
                BlockOperation::Flush => BLKIF_OP_FLUSH_DISKCACHE,
            };
            connected.put(operation, *handle, id, part.start / UNIT_BYTES, &segments);
            free.pop();
            asked[usize::from(id)] = Some(Asked { slot: part.slot, first_page: part.first_page, grants });
            true
        });
    }

    /// Takes the back end's answers.
    fn collect(&mut self) -> Result<(), XenError> {
        while let Some(connected) = &mut self.connected {
            let Some((_, Response { id, status, .. })) = connected.ring.take()? else { break };
            let asked = usize::try_from(id).ok().and_then(|id| self.asked.get_mut(id)?.take());
            let asked = asked.ok_or(XenError::UnknownId(id))?;
            self.free.push(id as u8);
            let slot = asked.slot;
            let ended = self.end_grants(asked);
            self.life.count_work(1);
            self.requests.answered(
                slot,
                match status {
                    // What it has not let go of could still change.
                    BLKIF_RSP_OKAY if !ended => Err(BlockError::Failed),
                    BLKIF_RSP_OKAY => Ok(()),
                    BLKIF_RSP_EOPNOTSUPP => Err(BlockError::Unsupported),
                    _ => Err(BlockError::Failed),
                },
            );
            if !ended {
                return Err(XenError::StillInUse);
            }
        }
        Ok(())
    }

    /// First byte and bytes of a request that fits the disk; `None` if there is nothing to do for it.
    fn prepare(&self, request: &mut BlockRequest) -> Result<Option<(u64, usize)>, BlockError> {
        let (start, bytes) = request.prepare(&self.geometry)?;
        // Without a cache every write that has completed is durable.
        let flushes = self.connected.as_ref().is_some_and(|connected| connected.flushes);
        let is_done = request.operation == BlockOperation::Flush && !flushes;
        Ok((!is_done).then_some((start, bytes)))
    }
}

type Grants = ArrayVec<GrantRef, MAX_REQUEST_PAGES>;
type Segments = ArrayVec<Segment, MAX_REQUEST_PAGES>;

/// Grants the pages of a part. `None`, and nothing is granted, if the grant table is full.
fn grant(xen: &Xen, domain: DomainId, part: &Part<'_>) -> Option<(Grants, Segments)> {
    let access = if part.operation == BlockOperation::Read { Access::Write } else { Access::Read };
    let (mut grants, mut segments) = (Grants::new(), Segments::new());
    for (at, page) in part.pages.iter().enumerate() {
        let Ok(grant) = xen.grant(domain, page.address(), access) else {
            // Nobody has been told of them.
            for (grant, page) in grants.into_iter().zip(part.pages) {
                xen.end_grant_of(grant, page);
            }
            return None;
        };
        let units = part.page_bytes(at).div_ceil(UNIT_BYTES as usize);
        segments.push(Segment { gref: grant.number(), first_sect: 0, last_sect: units as u8 - 1, pad: 0 });
        grants.push(grant);
    }
    Some((grants, segments))
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
                Step::Lost => self.abandon(),
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
        if !self.life.is_working() || !self.requests.has_room() {
            return Err(request);
        }
        let prepared = self.prepare(&mut request);
        self.requests.accept(request, prepared);
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
        self.requests.complete(sink)
    }

    fn arm(&mut self) -> bool {
        let mut answered = self.requests.has_finished();
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
