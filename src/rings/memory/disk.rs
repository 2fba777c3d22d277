//! A disk whose sectors lie in memory, and the handle that makes it late, disorderly, failing or gone.
//!
//! Everything that looks random comes from the seed, so a run can be repeated.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

use crate::rings::link::{Link, LinkEvent};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, PAGE_BYTES,
};

/// Requests that a disk holds unless told otherwise.
const DEFAULT_QUEUE_DEPTH: usize = 64;

/// What stands in the pages of a failed read, so that nobody takes it for data.
const FAILED_READ_BYTE: u8 = 0xee;

/// When requests complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// With the flush.
    AtOnce,
    /// When [`MemoryDiskControl::release`] says so.
    Held,
    /// Each after a number of polls (calls of `complete`) of its own, from 0 to `most_polls`; so out of order too.
    Delayed {
        /// Longest delay.
        most_polls: u32,
    },
}

struct Waiting {
    request: BlockRequest,
    /// Polls to go; only used with [`Pace::Delayed`].
    polls: u32,
}

struct State {
    bytes: Vec<u8>,
    geometry: Geometry,
    link: Link<Geometry>,
    queue_depth: usize,
    /// Requests in flight, oldest first; the first `published` of them have been flushed.
    waiting: VecDeque<Waiting>,
    published: usize,
    finished: VecDeque<BlockCompletion>,
    pace: Pace,
    shuffled: bool,
    fail_next: u32,
    fail_one_in: u32,
    fail_sectors: Range<u64>,
    random: u64,
    reads: u64,
    writes: u64,
    armed: bool,
    woken: bool,
    /// What failing requests complete with.
    failure: BlockError,
}

impl State {
    /// SplitMix64 (Steele, Lea, Flood 2014), reduced to `0..bound`.
    fn random_below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn fails(&mut self, request: &BlockRequest) -> bool {
        if self.fail_next > 0 {
            self.fail_next -= 1;
            return true;
        }
        let sectors = (request.pages.len() * PAGE_BYTES) as u64 / u64::from(self.geometry.sector_bytes);
        let end = request.sector.saturating_add(sectors);
        (request.sector < self.fail_sectors.end && self.fail_sectors.start < end)
            || (self.fail_one_in > 0 && self.random_below(self.fail_one_in.into()) == 0)
    }

    fn execute(&mut self, request: &mut BlockRequest) -> Result<(), BlockError> {
        let start = request.check(&self.geometry)?;
        if request.operation == BlockOperation::Flush {
            return Ok(());
        }
        let failed = self.fails(request);
        // Behind the bytes there are, a disk of any size reads as zeros; where `start` doesn't fit, so does that.
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        match request.operation {
            BlockOperation::Read => {
                self.reads += 1;
                let limit = usize::try_from(self.geometry.bytes()).unwrap_or(usize::MAX).min(self.bytes.len());
                let mut rest = self.bytes.get(start..limit).unwrap_or(&[]);
                for page in &mut request.pages {
                    let Some(page) = page.bytes_mut() else {
                        debug_assert!(false, "a page to be read into has another reference");
                        return Err(BlockError::Failed);
                    };
                    if failed {
                        page.fill(FAILED_READ_BYTE);
                        continue;
                    }
                    let (now, later) = rest.split_at(rest.len().min(PAGE_BYTES));
                    page[..now.len()].copy_from_slice(now);
                    page[now.len()..].fill(0);
                    rest = later;
                }
            }
            BlockOperation::Write | BlockOperation::Flush => {
                self.writes += 1;
                let end = start.saturating_add(request.pages.len() * PAGE_BYTES);
                let Some(sectors) = self.bytes.get_mut(start..end).filter(|_| !failed) else {
                    return Err(self.failure);
                };
                for (sectors, page) in sectors.chunks_exact_mut(PAGE_BYTES).zip(&request.pages) {
                    sectors.copy_from_slice(page.bytes());
                }
            }
        }
        if failed { Err(self.failure) } else { Ok(()) }
    }

    /// Completes the request at `index` of the waiting ones.
    fn finish(&mut self, index: usize, result: Result<(), BlockError>) {
        let Some(Waiting { mut request, .. }) = self.waiting.remove(index) else { return };
        self.published = self.published.saturating_sub(1);
        let result = result.and_then(|()| self.execute(&mut request));
        self.finished.push_back(BlockCompletion { token: request.token, pages: request.pages, result });
    }

    fn release(&mut self, count: usize) -> usize {
        let mut released = 0;
        while released < count && self.published > 0 {
            let index = if self.shuffled { self.random_below(self.published as u64) as usize } else { 0 };
            self.finish(index, Ok(()));
            released += 1;
        }
        if released > 0 {
            self.wake();
        }
        released
    }

    /// One poll of the delayed requests.
    fn poll_delays(&mut self) {
        let mut index = 0;
        while index < self.published {
            match self.waiting[index].polls.checked_sub(1) {
                Some(polls) => {
                    self.waiting[index].polls = polls;
                    index += 1;
                }
                None => self.finish(index, Ok(())),
            }
        }
    }

    fn wake(&mut self) {
        if core::mem::take(&mut self.armed) {
            self.woken = true;
        }
    }

    fn down(&mut self) {
        if !self.link.is_up() {
            return;
        }
        while !self.waiting.is_empty() {
            self.finish(0, Err(BlockError::Down));
        }
        self.published = 0;
        self.link.down();
        self.wake();
    }
}

/// A disk in memory. It is up, and says so with a first [`BlockEvent::Up`].
pub struct MemoryDisk {
    state: Rc<RefCell<State>>,
}

impl MemoryDisk {
    /// A disk of these bytes. Where the geometry says that it is larger than they are, the rest reads as zeros and can't be
    /// written.
    ///
    /// # Panics
    /// If the geometry's sectors are not a power of two from 512 to 4096 bytes.
    pub fn new(bytes: Vec<u8>, geometry: Geometry, seed: u64) -> Self {
        assert_sector_bytes(&geometry);
        Self {
            state: Rc::new(RefCell::new(State {
                bytes,
                geometry,
                link: Link::new(geometry),
                queue_depth: DEFAULT_QUEUE_DEPTH,
                waiting: VecDeque::with_capacity(DEFAULT_QUEUE_DEPTH),
                published: 0,
                finished: VecDeque::with_capacity(DEFAULT_QUEUE_DEPTH),
                pace: Pace::AtOnce,
                shuffled: false,
                fail_next: 0,
                fail_one_in: 0,
                fail_sectors: 0..0,
                random: seed,
                reads: 0,
                writes: 0,
                armed: false,
                woken: false,
                failure: BlockError::Failed,
            })),
        }
    }

    /// A read-only disk of these bytes in sectors of 512 (a last partial one is filled with zeros), never late.
    pub fn read_only(bytes: Vec<u8>) -> Self {
        let sectors = bytes.len().div_ceil(512) as u64;
        Self::new(bytes, Geometry { sector_bytes: 512, sectors, read_only: true }, 0)
    }

    /// The handle that decides how the disk behaves. Any number of them may exist.
    pub fn control(&self) -> MemoryDiskControl {
        MemoryDiskControl { state: self.state.clone() }
    }

    /// Whether the disk woke this side since the last call: the loop's interrupt.
    pub fn woken(&self) -> bool {
        core::mem::take(&mut self.state.borrow_mut().woken)
    }
}

fn assert_sector_bytes(geometry: &Geometry) {
    let bytes = geometry.sector_bytes;
    assert!(bytes.is_power_of_two() && (512..=4096).contains(&bytes), "sectors of {bytes} bytes");
}

impl BlockDevice for MemoryDisk {
    fn geometry(&self) -> Geometry {
        self.state.borrow().geometry
    }

    fn event(&mut self) -> Option<BlockEvent> {
        Some(match self.state.borrow_mut().link.next()? {
            LinkEvent::Down => BlockEvent::Down,
            LinkEvent::Up(geometry) => BlockEvent::Up(geometry),
            LinkEvent::Gone => BlockEvent::Gone,
        })
    }

    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        let mut state = self.state.borrow_mut();
        if !state.link.is_up() || state.waiting.len() + state.finished.len() >= state.queue_depth {
            return Err(request);
        }
        let polls = match state.pace {
            Pace::Delayed { most_polls } => state.random_below(u64::from(most_polls) + 1) as u32,
            Pace::AtOnce | Pace::Held => 0,
        };
        state.waiting.push_back(Waiting { request, polls });
        Ok(())
    }

    fn flush(&mut self) {
        let mut state = self.state.borrow_mut();
        state.published = state.waiting.len();
        if state.pace == Pace::AtOnce {
            state.release(usize::MAX);
        }
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        if matches!(self.state.borrow().pace, Pace::Delayed { .. }) {
            self.state.borrow_mut().poll_delays();
        }
        let mut count = 0;
        loop {
            // Not borrowed during the call: the sink may use a control handle.
            let Some(completion) = self.state.borrow_mut().finished.pop_front() else { return count };
            sink(completion);
            count += 1;
        }
    }

    fn arm(&mut self) -> bool {
        let mut state = self.state.borrow_mut();
        state.armed = true;
        // Delays are counted in polls, so somebody has to poll.
        let delayed = matches!(state.pace, Pace::Delayed { .. }) && state.published > 0;
        delayed || !state.finished.is_empty() || state.link.pending()
    }
}

/// Decides how a [`MemoryDisk`] behaves, at any time.
#[derive(Clone)]
pub struct MemoryDiskControl {
    state: Rc<RefCell<State>>,
}

impl MemoryDiskControl {
    /// When requests complete from now on. Those that wait already complete by the new rule.
    pub fn set_pace(&self, pace: Pace) {
        let mut state = self.state.borrow_mut();
        state.pace = pace;
        if pace == Pace::AtOnce {
            state.release(usize::MAX);
        }
    }

    /// Whether released requests are picked at random instead of oldest first.
    pub fn set_shuffled(&self, shuffled: bool) {
        self.state.borrow_mut().shuffled = shuffled;
    }

    /// How many requests the disk holds, finished ones that nobody fetched included.
    pub fn set_queue_depth(&self, requests: usize) {
        self.state.borrow_mut().queue_depth = requests;
    }

    /// Completes up to `count` flushed requests now and wakes the other side if it has armed. Returns how many there were.
    pub fn release(&self, count: usize) -> usize {
        self.state.borrow_mut().release(count)
    }

    /// Requests that are neither finished nor released, flushed or not.
    pub fn in_flight(&self) -> usize {
        self.state.borrow().waiting.len()
    }

    /// The next `count` reads and writes to be carried out fail.
    pub fn fail_next(&self, count: u32) {
        self.state.borrow_mut().fail_next = count;
    }

    /// What requests that are made to fail complete with; [`BlockError::Failed`] unless told.
    pub fn set_failure(&self, error: BlockError) {
        self.state.borrow_mut().failure = error;
    }

    /// One in `n` reads and writes fails, as the seed decides; 0 ends it.
    pub fn fail_one_in(&self, n: u32) {
        self.state.borrow_mut().fail_one_in = n;
    }

    /// Reads and writes that touch these sectors fail; an empty range ends it.
    pub fn fail_sectors(&self, sectors: Range<u64>) {
        self.state.borrow_mut().fail_sectors = sectors;
    }

    /// The device stops working: every request in flight completes with [`BlockError::Down`].
    pub fn down(&self) {
        self.state.borrow_mut().down();
    }

    /// The device works (again), with this geometry; a device that was up goes down first. One that is gone stays gone.
    ///
    /// # Panics
    /// As [`MemoryDisk::new`].
    pub fn up(&self, geometry: Geometry) {
        assert_sector_bytes(&geometry);
        let mut state = self.state.borrow_mut();
        state.down();
        if state.link.up(geometry) {
            state.geometry = geometry;
            state.wake();
        }
    }

    /// The device is removed for good.
    pub fn gone(&self) {
        let mut state = self.state.borrow_mut();
        state.down();
        state.link.gone();
        state.wake();
    }

    /// Replaces the disk's content (not its geometry, see [`MemoryDiskControl::up`]).
    pub fn set_bytes(&self, bytes: Vec<u8>) {
        self.state.borrow_mut().bytes = bytes;
    }

    /// Shows the disk's content to `look`, which may change it.
    pub fn with_bytes<R>(&self, look: impl FnOnce(&mut [u8]) -> R) -> R {
        look(&mut self.state.borrow_mut().bytes)
    }

    /// Reads carried out so far, failed ones included.
    pub fn reads(&self) -> u64 {
        self.state.borrow().reads
    }

    /// Writes carried out so far, failed ones included.
    pub fn writes(&self) -> u64 {
        self.state.borrow().writes
    }
}
