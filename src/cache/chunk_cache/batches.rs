//! Reads on their way: chunks that lie one behind the other on their disks are read together.
//!
//! A batch is one or more chunks of one source. It becomes one request for each stripe of a chunk; the same stripe of the
//! next chunk lies right behind it on the same disk, so it joins the request.

use alloc::vec::Vec;
use arrayvec::ArrayVec;

use super::entries::{Entries, State};
use super::{SourceId, waiters::Waiters};
use crate::cache::shfs::{Layout, Run};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockOperation, BlockRequest, MAX_REQUEST_PAGES, PAGE_BYTES, Page,
    PageVec,
};

/// Most batches that are on their way at once.
pub(super) const MAX_BATCHES: usize = 64;
/// Most stripes of a chunk.
const MAX_RUNS: usize = crate::cache::shfs::format::MAX_MEMBERS;

#[derive(Default)]
struct Batch {
    /// Counts how often this place was used, so that a stray completion is recognised.
    generation: u32,
    source: Option<SourceId>,
    entries: ArrayVec<u32, MAX_REQUEST_PAGES>,
    chunk_pages: usize,
    /// Where the first chunk's pages lie; those of the others right behind.
    runs: ArrayVec<Run, MAX_RUNS>,
    /// One bit a run: still to be submitted, submitted and not completed.
    unsent: u32,
    in_flight: u32,
    /// All chunks' pages, `None` while a disk has them.
    pages: Vec<Option<Page>>,
    error: Option<BlockError>,
}

/// All batches.
pub(super) struct Batches {
    batches: Vec<Batch>,
    free: ArrayVec<u8, MAX_BATCHES>,
    /// Batches in use, oldest first.
    used: ArrayVec<u8, MAX_BATCHES>,
}

/// How a batch ended for one of its chunks.
pub(super) enum Outcome {
    /// The entry has its pages back, and they hold the chunk.
    Read,
    /// The entry has its pages back, and should be read again on its own: another chunk of the batch may be to blame.
    Again,
    /// The chunk can't be read.
    Failed(BlockError),
}

impl Batches {
    pub fn new() -> Self {
        Self {
            batches: (0..MAX_BATCHES).map(|_| Batch::default()).collect(),
            free: (0..MAX_BATCHES as u8).rev().collect(),
            used: ArrayVec::new(),
        }
    }

    /// Reserves what batches of such chunks need, so that nothing allocates later.
    pub fn reserve(&mut self, layout: &Layout) {
        let most = MAX_REQUEST_PAGES * layout.striping().stripes_per_chunk();
        for batch in &mut self.batches {
            batch.pages.reserve_exact(most);
        }
    }

    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// True while a batch needs this disk.
    pub fn uses_disk(&self, disk: usize) -> bool {
        self.used.iter().any(|&place| self.batches[usize::from(place)].runs.iter().any(|run| run.disk == disk))
    }

    /// Number of batches on their way.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Begins a batch with a queued chunk and those of its followers that are queued too.
    ///
    /// # Panics
    /// Without room.
    pub fn start(&mut self, entries: &mut Entries, first: u32, layout: &Layout) {
        let place = self.free.pop().expect("there is room for a batch");
        self.used.push(place);
        let batch = &mut self.batches[usize::from(place)];
        debug_assert!(batch.entries.is_empty() && batch.pages.is_empty() && batch.unsent == 0 && batch.in_flight == 0);
        batch.generation = batch.generation.wrapping_add(1);
        let (source, chunk) = (entries.get(first).source, entries.get(first).chunk);
        batch.source = Some(source);
        batch.chunk_pages = layout.chunk_pages();
        batch.runs = layout.runs(chunk).collect();
        batch.unsent = (1 << batch.runs.len()) - 1;
        batch.error = None;
        batch.push(entries, first);
        let alone = entries.get(first).alone;
        let stride = (layout.striping().members() / layout.striping().stripes_per_chunk()) as u64;
        let mut next = chunk.checked_add(stride);
        while let Some(chunk) = next.filter(|_| !alone && batch.takes_another()) {
            let found = entries.find(source, chunk).filter(|&index| {
                let entry = entries.get(index);
                entry.state == State::Queued && !entry.alone
            });
            let Some(index) = found.filter(|_| batch.is_followed_by(layout, chunk)) else { break };
            batch.push(entries, index);
            next = chunk.checked_add(stride);
        }
    }

    /// Submits what is left to submit and finds room in its disk's queue. Disks whose bit in `down` is set fail. True if
    /// anything was submitted or failed.
    pub fn submit<B: BlockDevice>(&mut self, disks: &mut [B], down: u64) -> bool {
        let (mut full, mut submitted, mut failed) = (0_u64, 0_u64, false);
        for &place in &self.used {
            let batch = &mut self.batches[usize::from(place)];
            for run in 0..batch.runs.len() {
                if batch.unsent == 0 {
                    break;
                }
                if batch.unsent & 1 << run == 0 {
                    continue;
                }
                let bit = 1 << batch.runs[run].disk;
                let disk = disks.get_mut(batch.runs[run].disk).filter(|_| down & bit == 0);
                if disk.is_none() {
                    batch.error.get_or_insert(BlockError::Down);
                }
                let Some(disk) = disk.filter(|_| batch.error.is_none()) else {
                    // What is not submitted yet is not worth it any more.
                    batch.unsent = 0;
                    failed = true;
                    break;
                };
                if full & bit == 0 {
                    let request = batch.take_request(run, place);
                    match disk.submit(request) {
                        Ok(()) => {
                            batch.unsent &= !(1 << run);
                            batch.in_flight |= 1 << run;
                            submitted |= bit;
                        }
                        Err(request) => {
                            batch.give_back(run, request.pages);
                            full |= bit;
                        }
                    }
                }
            }
        }
        for (index, disk) in disks.iter_mut().enumerate().take(u64::BITS as usize) {
            if submitted & 1 << index != 0 {
                disk.flush();
            }
        }
        submitted != 0 || failed
    }

    /// Takes a completion. One that belongs to nothing here (it is from a mount that was given up) is dropped: its pages
    /// return to their pool.
    pub fn complete(&mut self, completion: BlockCompletion) {
        let token = completion.token;
        let (place, run, generation) = (token as u8, (token >> 8) as u8, (token >> 32) as u32);
        let Some(batch) = self.batches.get_mut(usize::from(place)) else { return };
        let known = batch.generation == generation && run < MAX_RUNS as u8 && batch.in_flight & 1 << run != 0;
        if !known || token >> 16 & 0xffff != 0 {
            return;
        }
        batch.in_flight &= !(1 << run);
        if let Err(error) = completion.result {
            batch.error.get_or_insert(error);
        }
        batch.give_back(run.into(), completion.pages);
    }

    /// Ends the batches of which nothing is left to do, and tells `done` of each of their entries. Entries whose chunk was not
    /// read have lost their pages.
    pub fn finish(
        &mut self,
        entries: &mut Entries,
        waiters: &mut Waiters,
        mut done: impl FnMut(&mut Entries, &mut Waiters, u32, Outcome),
    ) {
        let Self { batches, free, used } = self;
        used.retain(|place| {
            let batch = &mut batches[usize::from(*place)];
            if batch.unsent != 0 || batch.in_flight != 0 {
                return true;
            }
            batch.finish(entries, waiters, &mut done);
            free.push(*place);
            false
        });
    }

    /// Gives up what was not submitted yet of a source that has been detached.
    pub fn abandon(&mut self, source: SourceId) {
        for &place in &self.used {
            let batch = &mut self.batches[usize::from(place)];
            if batch.source == Some(source) {
                batch.error.get_or_insert(BlockError::Down);
            }
        }
    }
}

impl Batch {
    fn push(&mut self, entries: &mut Entries, index: u32) {
        self.entries.push(index);
        self.pages.extend(entries.start_loading(index).map(Some));
        debug_assert_eq!(self.pages.len(), self.entries.len() * self.chunk_pages);
    }

    /// True while no request would become too large with one more chunk.
    fn takes_another(&self) -> bool {
        let chunks = self.entries.len() + 1;
        chunks <= self.entries.capacity() && self.runs.iter().all(|run| run.pages * chunks <= MAX_REQUEST_PAGES)
    }

    /// True if all of `chunk` lies right behind the batch's last chunk.
    fn is_followed_by(&self, layout: &Layout, chunk: u64) -> bool {
        let behind = self.runs.iter().map(|run| {
            let byte = run.byte + (run.pages * PAGE_BYTES * self.entries.len()) as u64;
            (run.disk, byte, run.first_page, run.pages)
        });
        layout.runs(chunk).map(|run| (run.disk, run.byte, run.first_page, run.pages)).eq(behind)
    }

    /// Places in `pages` of a run's pages, in the order of its request.
    fn places(&self, run: usize) -> impl Iterator<Item = usize> + use<> {
        let (Run { first_page, pages, .. }, chunk_pages) = (self.runs[run], self.chunk_pages);
        (0..self.entries.len())
            .flat_map(move |entry| (0..pages).map(move |page| entry * chunk_pages + first_page + page))
    }

    fn take_request(&mut self, run: usize, place: u8) -> BlockRequest {
        let pages: PageVec = self.places(run).map(|at| self.pages[at].take().expect("a page is here")).collect();
        let token = u64::from(place) | (run as u64) << 8 | u64::from(self.generation) << 32;
        BlockRequest { operation: BlockOperation::Read, sector: self.runs[run].sector, pages, token }
    }

    fn give_back(&mut self, run: usize, pages: PageVec) {
        for (at, page) in self.places(run).zip(pages) {
            self.pages[at] = Some(page);
        }
    }

    fn finish(
        &mut self,
        entries: &mut Entries,
        waiters: &mut Waiters,
        done: &mut impl FnMut(&mut Entries, &mut Waiters, u32, Outcome),
    ) {
        // A device that keeps a page has not read it.
        if self.pages.iter().any(Option::is_none) {
            self.error.get_or_insert(BlockError::Failed);
        }
        if self.error.is_none() {
            self.clear_missing();
        }
        // Another chunk may be to blame: so who is waited for tries again alone, unless the disk has gone.
        let merged = self.entries.len() > 1;
        let mut pages = self.pages.drain(..);
        for index in self.entries.drain(..) {
            let own = pages.by_ref().take(self.chunk_pages);
            let outcome = match self.error {
                None => Outcome::Read,
                Some(BlockError::Failed | BlockError::OutOfRange | BlockError::Changed)
                    if merged && waiters.has_waiters(index) =>
                {
                    Outcome::Again
                }
                Some(error) => Outcome::Failed(error),
            };
            let entry = entries.get_mut(index);
            entry.pages.extend(own.flatten());
            if matches!(outcome, Outcome::Failed(_)) || entry.state == State::Orphan {
                entry.pages.clear();
            }
            done(entries, waiters, index, outcome);
        }
        drop(pages);
        self.source = None;
    }

    /// Zeros the pages that lie behind the end of a disk, which no run covers.
    fn clear_missing(&mut self) {
        if self.runs.iter().map(|run| run.pages).sum::<usize>() == self.chunk_pages {
            return;
        }
        for (at, page) in self.pages.iter_mut().flatten().enumerate() {
            let covers = |run: &Run| (run.first_page..run.first_page + run.pages).contains(&(at % self.chunk_pages));
            if !self.runs.iter().any(covers) {
                page.bytes_mut().expect("a page that is being read has one reference").fill(0);
            }
        }
    }
}
