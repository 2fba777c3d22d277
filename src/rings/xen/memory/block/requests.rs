//! What the guest asks of a disk, and what comes of it.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::super::super::abi::block::{
    BLKIF_MAX_SEGMENTS_PER_REQUEST, BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_INDIRECT, BLKIF_OP_READ, BLKIF_OP_WRITE,
    BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY, IndirectRequest, Request, Response,
    SEGMENTS_PER_INDIRECT_PAGE, Segment, UNIT_BYTES,
};
use super::super::bus::BusState;
use super::super::grants::Mapping;
use super::{BlkbackConfig, MemoryBlkback};
use crate::rings::PAGE_BYTES;

/// Units in a page.
const UNITS: u8 = (PAGE_BYTES as u64 / UNIT_BYTES) as u8;
/// What stands in the pages of a failed read, so that nobody takes it for data.
const FAILED_READ_BYTE: u8 = 0xee;
/// Requests that are logged until somebody looks.
const MAX_LOGGED: usize = 4096;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Makes what has been written durable.
    Flush,
}

/// A request as the back end saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// What it does.
    pub operation: DiskOperation,
    /// First unit of 512 bytes.
    pub unit: u64,
    /// Units.
    pub units: u64,
    /// Segments.
    pub segments: usize,
    /// The segments lay in pages of their own.
    pub indirect: bool,
}

/// Part of a page, and where it is mapped.
struct Piece {
    mapping: Mapping,
    offset: usize,
    bytes: usize,
}

/// A request that was taken.
pub(super) struct Waiting {
    id: u64,
    /// As the response repeats it.
    code: u8,
    request: LoggedRequest,
    pieces: Vec<Piece>,
    /// What the pages of a write held when it was taken.
    written: Vec<u8>,
}

impl Waiting {
    pub fn mappings(self) -> impl Iterator<Item = Mapping> {
        self.pieces.into_iter().map(|piece| piece.mapping)
    }
}

impl MemoryBlkback {
    /// Takes what the front has notified of. True if there was anything.
    pub(super) fn take_requests(&mut self) -> bool {
        let Some(life) = &self.life else { return false };
        if !self.bus.machine.events.borrow_mut().take_notified(life.events) {
            return false;
        }
        let mut any = false;
        while let Some(life) = &mut self.life {
            let Some(request) = life.ring.take() else {
                if life.ring.arm(1) {
                    continue;
                }
                break;
            };
            assert!(self.bus.state() >= BusState::Connected, "a request before both sides are connected");
            any = true;
            // By a lie the front may believe that it was answered.
            let Some(waiting) = self.map(request) else { continue };
            if self.log.len() < MAX_LOGGED {
                self.log.push(waiting.request);
            }
            self.waiting.push(waiting);
        }
        if !self.held {
            self.release(usize::MAX);
        }
        any
    }

    /// Checks a request as blkback does, and maps its pages. `None` if a lie of ours has kept it from that.
    fn map(&mut self, request: Request) -> Option<Waiting> {
        let has_lied = self.life.as_ref().is_some_and(|life| life.ring.has_lied());
        let (operation, indirect) = match request.operation {
            BLKIF_OP_INDIRECT => {
                let indirect = IndirectRequest::read_from_bytes(request.as_bytes()).expect("of the same length");
                assert!(self.config.max_indirect_segments.is_some(), "indirect requests were not offered");
                (indirect.indirect_op, Some(indirect))
            }
            operation => (operation, None),
        };
        let operation = match operation {
            BLKIF_OP_READ => DiskOperation::Read,
            BLKIF_OP_WRITE => DiskOperation::Write,
            BLKIF_OP_FLUSH_DISKCACHE if indirect.is_none() => DiskOperation::Flush,
            other => panic!("operation {other}"),
        };
        let segments = match &indirect {
            Some(indirect) => self.indirect_segments(indirect),
            None => {
                let count = usize::from(request.nr_segments);
                assert!(count <= BLKIF_MAX_SEGMENTS_PER_REQUEST, "{count} segments");
                request.segments[..count].to_vec()
            }
        };
        let units = segments.iter().map(|segment| {
            assert!(segment.first_sect <= segment.last_sect && segment.last_sect < UNITS, "{segment:?}");
            u64::from(segment.last_sect - segment.first_sect) + 1
        });
        let (unit, units) = (request.sector_number, units.sum());
        let logged = LoggedRequest { operation, unit, units, segments: segments.len(), indirect: indirect.is_some() };
        check(&logged, &self.config);
        let id = indirect.map_or(request.id, |indirect| indirect.id);
        let mut pieces = Vec::new();
        let mut grants = self.bus.machine.grants.borrow_mut();
        for segment in segments {
            let writable = operation == DiskOperation::Read;
            let mapping = match grants.map(self.bus.back_domain, segment.gref, writable) {
                Ok(mapping) => mapping,
                Err(_) if has_lied => {
                    pieces.into_iter().for_each(|piece: Piece| grants.unmap(piece.mapping));
                    return None;
                }
                Err(error) => panic!("grant {}: {error}", segment.gref),
            };
            assert_eq!(grants.is_read_only(segment.gref), !writable, "grant {} could be written", segment.gref);
            let offset = usize::from(segment.first_sect) * UNIT_BYTES as usize;
            let bytes = usize::from(segment.last_sect - segment.first_sect + 1) * UNIT_BYTES as usize;
            pieces.push(Piece { mapping, offset, bytes });
        }
        let written = if operation == DiskOperation::Write { content(&pieces) } else { Vec::new() };
        Some(Waiting { id, code: request.operation, request: logged, pieces, written })
    }

    /// The segments that an indirect request's pages describe.
    fn indirect_segments(&mut self, request: &IndirectRequest) -> Vec<Segment> {
        let count = usize::from(request.nr_segments);
        let most = self.config.max_indirect_segments.unwrap_or(0) as usize;
        assert!((1..=most).contains(&count), "{count} segments, where {most} are offered");
        let mut segments = Vec::new();
        let mut grants = self.bus.machine.grants.borrow_mut();
        for gref in &request.indirect_grefs[..count.div_ceil(SEGMENTS_PER_INDIRECT_PAGE)] {
            let mapping = grants.map(self.bus.back_domain, *gref, false);
            let mapping = mapping.unwrap_or_else(|error| panic!("a page of segments, grant {gref}: {error}"));
            assert!(grants.is_read_only(*gref), "a page of segments that the back end could write");
            let here = (count - segments.len()).min(SEGMENTS_PER_INDIRECT_PAGE);
            segments.extend((0..here).map(|index| mapping.page.read::<Segment>(index * size_of::<Segment>())));
            grants.unmap(mapping);
        }
        segments
    }

    /// Answers up to `count` of the requests that were taken, and wakes the front if it has armed. Returns how many there were.
    pub fn release(&mut self, count: usize) -> usize {
        let count = count.min(self.waiting.len());
        for _ in 0..count {
            let index = if self.shuffled { self.random.below(self.waiting.len() as u64) as usize } else { 0 };
            let waiting = self.waiting.remove(index);
            let status = self.execute(&waiting);
            let response = Response { id: waiting.id, operation: waiting.code, status, ..Response::default() };
            self.release_mappings(waiting.mappings());
            if let Some(life) = &mut self.life {
                life.ring.respond(response);
            }
        }
        if let Some(life) = &mut self.life
            && life.ring.publish()
        {
            self.bus.machine.events.borrow_mut().raise(life.events);
        }
        count
    }

    fn fails(&mut self, request: &LoggedRequest) -> bool {
        if self.fail_next > 0 {
            self.fail_next -= 1;
            return true;
        }
        (request.unit < self.fail_units.end && self.fail_units.start < request.unit + request.units)
            || (self.fail_one_in > 0 && self.random.below(self.fail_one_in) == 0)
    }

    /// Reads or writes, and says how it went.
    fn execute(&mut self, waiting: &Waiting) -> i16 {
        let request = &waiting.request;
        if self.refuses == Some(request.operation) {
            return BLKIF_RSP_EOPNOTSUPP;
        }
        if request.operation == DiskOperation::Flush {
            return BLKIF_RSP_OKAY;
        }
        let failed = self.fails(request);
        let start = usize::try_from(request.unit * UNIT_BYTES).unwrap_or(usize::MAX);
        let length = (request.units * UNIT_BYTES) as usize;
        if request.operation == DiskOperation::Read {
            let mut read = vec![0; length];
            let there = self.bytes.get(start..).unwrap_or(&[]);
            let there = &there[..there.len().min(length)];
            read[..there.len()].copy_from_slice(there);
            if failed {
                read.fill(FAILED_READ_BYTE);
            }
            let mut rest = &read[..];
            for piece in &waiting.pieces {
                let (now, later) = rest.split_at(piece.bytes);
                piece.mapping.page.copy_from(piece.offset, now);
                rest = later;
            }
            return if failed { BLKIF_RSP_ERROR } else { BLKIF_RSP_OKAY };
        }
        if content(&waiting.pieces) != waiting.written {
            self.violations += 1;
            debug_assert!(false, "a page was written while it was granted to the back end");
        }
        match self.bytes.get_mut(start..start.saturating_add(length)).filter(|_| !failed) {
            Some(place) => {
                place.copy_from_slice(&waiting.written);
                BLKIF_RSP_OKAY
            }
            None => BLKIF_RSP_ERROR,
        }
    }
}

/// What blkback refuses.
fn check(request: &LoggedRequest, config: &BlkbackConfig) {
    let geometry = &config.geometry;
    if request.operation == DiskOperation::Flush {
        assert!(config.flush, "flushes were not offered");
        return assert_eq!(request.segments, 0, "a flush with pages");
    }
    assert!(request.operation == DiskOperation::Read || !geometry.read_only, "a write to a disk that can only be read");
    assert!(request.units > 0, "a request for nothing");
    let per_sector = u64::from(geometry.sector_bytes) / UNIT_BYTES;
    assert!(
        request.unit.is_multiple_of(per_sector) && request.units.is_multiple_of(per_sector),
        "parts of sectors: {request:?}"
    );
    let end = request.unit.checked_add(request.units);
    let disk = geometry.bytes() / UNIT_BYTES;
    assert!(end.is_some_and(|end| end <= disk), "beyond the disk's {disk} units: {request:?}");
}

/// What the pieces hold.
fn content(pieces: &[Piece]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        let start = bytes.len();
        bytes.resize(start + piece.bytes, 0);
        piece.mapping.page.copy_to(piece.offset, &mut bytes[start..]);
    }
    bytes
}
