//! The chunk cache: chunks of volumes in pages, read once however many wait, evicted when nobody uses them.
//!
//! A chunk is an entry ([`entries`]) with pages from the cache's own pool from the moment somebody asks for it. It waits in a
//! queue, is read with its neighbours as a batch ([`batches`]), and stays until SIEVE picks it. Who waits is a node of
//! [`waiters`]: for a chunk, or for memory when everything is pinned. Pinning is nothing but a second reference to a page.
//! Everything is a slab with lists threaded through it: nothing allocates once a source is attached.

mod batches;
mod entries;
mod list;
mod waiters;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use super::shfs::{Layout, MAX_DISKS};
use crate::rings::{BlockDevice, BlockError, BlockEvent, PAGE_BYTES, Page, PagePool};
use crate::stats::Stats;
use batches::{Batches, Outcome};
use entries::{Entries, Need, State};
use waiters::{Request, Waiters};

/// How many steps SIEVE's hand makes for one look-up or one poll. It goes on where it was the next time.
const MAX_HAND_STEPS: u32 = 1024;

/// The share of the cache's pages that read-ahead may hold before anybody has used it.
const AHEAD_DIVISOR: usize = 4;

/// What is cached from: one generation of a volume. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SourceId {
    index: u32,
    generation: u32,
}

/// Who waits for a chunk: a name that the cache only hands back (http packs its connection into it).
///
/// A waiter waits for one thing at a time: each look-up that is not out of range ends its earlier wait.
pub type Waiter = u64;

/// A chunk that could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The chunk.
    pub chunk: u64,
    /// What the disk said; [`BlockError::Down`] also when the source was detached meanwhile.
    pub error: BlockError,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk {}: {}", self.chunk, self.error)
    }
}

impl core::error::Error for ReadError {}

/// Why a volume could not be attached to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// One chunk has more bytes than the whole cache.
    ChunkLargerThanCache {
        /// Bytes of a chunk.
        chunk_bytes: usize,
        /// Bytes of the cache.
        cache_bytes: usize,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChunkLargerThanCache { chunk_bytes, cache_bytes } => write!(
                f,
                "the volume's chunks have {chunk_bytes} bytes, but the cache has only {cache_bytes}: give it more memory"
            ),
        }
    }
}

impl core::error::Error for AttachError {}

/// What became of a look-up.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// The chunk's pages, all of it. Slices taken from them pin the chunk.
    Ready(&'a [Page]),
    /// Being read; the waiter will be woken.
    Pending,
    /// Every page is pinned or in use. The waiter is remembered, the chunk is read as soon as there is memory, and then the
    /// waiter is woken.
    Starved,
    /// The source has no such chunk, or has been detached.
    OutOfRange,
}

/// The cache.
pub struct ChunkCache {
    pool: PagePool,
    stats: Rc<Stats>,
    sources: Vec<Source>,
    entries: Entries,
    waiters: Waiters,
    batches: Batches,
    /// One bit a disk.
    down: u64,
    exhausted: Exhausted,
    /// A read has failed since the latest [`ChunkCache::attach`].
    has_failed: bool,
}

#[derive(Default)]
struct Source {
    generation: u32,
    layout: Option<Layout>,
}

/// How many steps SIEVE's hand has made in vain since the pool was like this.
#[derive(Default)]
struct Exhausted {
    steps: u32,
    shared: usize,
    available: usize,
}

impl ChunkCache {
    /// A cache of the pages of `pool`, which nobody else may use: its size is the bound. `max_waiters` is how many different
    /// waiters can wait at once without an allocation.
    pub fn new(pool: PagePool, max_waiters: usize, stats: Rc<Stats>) -> Self {
        Self {
            pool,
            stats,
            sources: Vec::new(),
            entries: Entries::new(),
            waiters: Waiters::new(max_waiters),
            batches: Batches::new(),
            down: 0,
            exhausted: Exhausted::default(),
            has_failed: false,
        }
    }

    /// Makes the chunks of a volume available. Its disks are taken to be up, since it has just been mounted.
    pub fn attach(&mut self, layout: &Layout) -> Result<SourceId, AttachError> {
        let chunk_pages = layout.chunk_pages();
        if chunk_pages > self.pool.capacity() {
            let (chunk_bytes, cache_bytes) = (chunk_pages * PAGE_BYTES, self.capacity_bytes());
            return Err(AttachError::ChunkLargerThanCache { chunk_bytes, cache_bytes });
        }
        let most_entries = self.pool.capacity() / chunk_pages;
        self.entries.reserve(most_entries, chunk_pages);
        self.waiters.reserve_entries(most_entries);
        self.batches.reserve(layout);
        for member in layout.members() {
            assert!(member.disk < MAX_DISKS, "disk {} of a layout", member.disk);
            self.down &= !(1 << member.disk);
        }
        self.has_failed = false;
        let index = self.sources.iter().position(|source| source.layout.is_none()).unwrap_or_else(|| {
            self.sources.push(Source::default());
            self.sources.len() - 1
        });
        let source = &mut self.sources[index];
        source.generation += 1;
        source.layout = Some(layout.clone());
        Ok(SourceId { index: index as u32, generation: source.generation })
    }

    /// Forgets a source; one that is not attached is ignored. Its waiters are woken with an error; pages that are pinned live
    /// on with their slices.
    pub fn detach(&mut self, source: SourceId) {
        if self.layout(source).is_none() {
            return;
        }
        self.sources[source.index as usize].layout = None;
        self.batches.abandon(source);
        let gone = |chunk| Err(ReadError { chunk, error: BlockError::Down });
        self.waiters.wake_starved_of(source, gone);
        for index in 0..self.entries.slots() {
            let entry = self.entries.get(index);
            if entry.source != source || matches!(entry.state, State::Free | State::Orphan) {
                continue;
            }
            self.waiters.wake_all(index, gone(entry.chunk));
            match entry.state {
                State::Loading => self.entries.orphan(index),
                _ => self.entries.remove(index),
            }
        }
    }

    /// Looks for a chunk, and starts reading it and the `ahead_chunks` behind it where they are not there. The hint may reach
    /// beyond the source's end, but should not reach beyond the object's.
    pub fn lookup(&mut self, source: SourceId, chunk: u64, ahead_chunks: u32, waiter: Waiter) -> Lookup<'_> {
        let Some(layout) = self.layout(source).filter(|layout| layout.contains(chunk)) else {
            return Lookup::OutOfRange;
        };
        let (chunk_pages, last_chunk) = (layout.chunk_pages(), layout.last_chunk());
        let index = match self.entries.find(source, chunk) {
            Some(index) if self.entries.get(index).state == State::Ready => {
                self.stats.cache_hits.increment();
                self.entries.touch(index);
                self.waiters.forget(waiter);
                index
            }
            Some(index) => {
                self.stats.cache_joined.increment();
                self.entries.demand(index);
                self.waiters.wait(waiter, index);
                index
            }
            None => {
                let nobody_is_first = self.waiters.first_starved().is_none_or(|(first, _)| first == waiter);
                if !nobody_is_first || !self.make_room(chunk_pages, Need::Demand) {
                    self.stats.cache_starved.increment();
                    self.waiters.starve(waiter, Request { source, chunk, ahead_chunks });
                    return Lookup::Starved;
                }
                self.stats.cache_misses.increment();
                let index = self.create(source, chunk, chunk_pages, false);
                self.waiters.wait(waiter, index);
                index
            }
        };
        self.read_ahead(source, chunk, last_chunk.min(chunk.saturating_add(ahead_chunks.into())), chunk_pages, index);
        match self.entries.get(index) {
            entry if entry.state == State::Ready => Lookup::Ready(&entry.pages),
            _ => Lookup::Pending,
        }
    }

    /// Takes the disks' events and completions, and submits reads. True if anything was done. Once a round, with the disks in
    /// the order in which the volumes were mounted.
    pub fn poll<B: BlockDevice>(&mut self, disks: &mut [B]) -> bool {
        let mut busy = false;
        self.entries.next_round();
        for (index, disk) in disks.iter_mut().enumerate().take(MAX_DISKS) {
            while let Some(event) = disk.event() {
                self.disk_event(index, event);
                busy = true;
            }
            let batches = &mut self.batches;
            busy |= disk.complete(&mut |completion| batches.complete(completion)) > 0;
        }
        self.finish_batches();
        busy |= self.feed_starved();
        loop {
            while let Some(index) = self.entries.next_queued().filter(|_| self.batches.has_room()) {
                let source = self.entries.get(index).source;
                let layout = self.sources[source.index as usize].layout.as_ref().expect("queued chunks have a source");
                self.batches.start(&mut self.entries, index, layout);
            }
            if !self.batches.submit(disks, self.down) {
                return busy;
            }
            busy = true;
            // Reads that failed at once make room for others.
            self.finish_batches();
            if self.entries.next_queued().is_none() || !self.batches.has_room() {
                return true;
            }
        }
    }

    /// The next waiter whose chunk is there (look it up again) or failed, in the order in which that happened.
    pub fn next_woken(&mut self) -> Option<(Waiter, Result<(), ReadError>)> {
        self.waiters.next_woken()
    }

    /// Forgets a waiter: its connection has gone.
    pub fn forget(&mut self, waiter: Waiter) {
        self.waiters.forget(waiter);
    }

    /// True while a source lies on this disk or a read from it is on its way, so that it can't be exchanged for another.
    pub fn uses_disk(&self, disk: usize) -> bool {
        let layouts = self.sources.iter().filter_map(|source| source.layout.as_ref());
        layouts.flat_map(Layout::members).any(|member| member.disk == disk) || self.batches.uses_disk(disk)
    }

    /// Drops every chunk that is there and that no slice refers to; returns how many.
    pub fn flush(&mut self) -> usize {
        let before = self.entries.ready_count();
        for index in 0..self.entries.slots() {
            let entry = self.entries.get(index);
            if entry.state == State::Ready && entry.pages.iter().all(Page::is_unique) {
                self.entries.remove(index);
            }
        }
        (before - self.entries.ready_count()) as usize
    }

    /// Bytes that can't be evicted because a slice refers to their page.
    pub fn pinned_bytes(&self) -> usize {
        // Pages that are in use and not ours any more belong to slices of a detached source.
        (self.pool.shared() + self.pool.in_use().saturating_sub(self.entries.held_pages())) * PAGE_BYTES
    }

    /// Bytes of the whole cache.
    pub fn capacity_bytes(&self) -> usize {
        self.pool.capacity() * PAGE_BYTES
    }

    /// True while a look-up waits for memory.
    pub fn starved(&self) -> bool {
        self.waiters.first_starved().is_some()
    }

    fn layout(&self, source: SourceId) -> Option<&Layout> {
        let known = self.sources.get(source.index as usize).filter(|known| known.generation == source.generation)?;
        known.layout.as_ref()
    }

    fn create(&mut self, source: SourceId, chunk: u64, pages: usize, ahead: bool) -> u32 {
        self.entries.create(source, chunk, pages, &self.pool, ahead)
    }

    /// Starts reading the chunks behind `chunk`, as far as there is memory that nobody is about to use.
    fn read_ahead(&mut self, source: SourceId, chunk: u64, last: u64, pages: usize, keep: u32) {
        let share_pages = self.pool.capacity() / AHEAD_DIVISOR;
        for chunk in (chunk + 1..=last).take(share_pages / pages) {
            if self.entries.find(source, chunk).is_some() {
                continue;
            }
            let within_share = self.entries.ahead_pages() + pages <= share_pages;
            if !within_share || self.starved() || !self.make_room(pages, Need::Ahead { keep }) {
                return;
            }
            self.stats.cache_readahead.increment();
            self.create(source, chunk, pages, true);
        }
    }

    /// Evicts until `pages` pages are free. False if not enough could be found in [`MAX_HAND_STEPS`] steps.
    fn make_room(&mut self, pages: usize, need: Need) -> bool {
        let mut steps = MAX_HAND_STEPS;
        while self.pool.available() < pages {
            let (victim, made) = self.entries.victim(need, steps.min(2 * self.entries.ready_count()));
            steps -= made;
            let Some(victim) = victim else {
                if need == Need::Demand {
                    self.exhausted.steps = self.exhausted.steps.saturating_add(made);
                }
                return false;
            };
            self.exhausted.steps = 0;
            self.stats.cache_evictions.increment();
            self.entries.remove(victim);
        }
        true
    }

    /// Gives memory to those who wait for it, in their order. True if there is reason to call again soon.
    fn feed_starved(&mut self) -> bool {
        let mut busy = false;
        while let Some((waiter, Request { source, chunk, ahead_chunks })) = self.waiters.first_starved() {
            let (shared, available) = (self.pool.shared(), self.pool.available());
            if (shared, available) != (self.exhausted.shared, self.exhausted.available) {
                self.exhausted = Exhausted { steps: 0, shared, available };
            }
            let pages = self.layout(source).expect("the starved of a detached source are woken").chunk_pages();
            if self.entries.find(source, chunk).is_none() && !self.make_room(pages, Need::Demand) {
                // While the hand has not seen every chunk twice since the pool last changed, it may still find one.
                return busy || self.entries.in_grace() || self.exhausted.steps < 2 * self.entries.ready_count();
            }
            busy = true;
            if let Lookup::Ready(_) = self.lookup(source, chunk, ahead_chunks, waiter) {
                self.waiters.wake(waiter, Ok(()));
            }
        }
        busy
    }

    /// Asserts what must hold, and returns how many chunks are cached or on their way.
    #[cfg(test)]
    fn check(&mut self) -> usize {
        self.waiters.check();
        let used = self.entries.check();
        for index in 0..self.entries.slots() {
            let state = self.entries.get(index).state;
            assert!(matches!(state, State::Queued | State::Loading) || !self.waiters.has_waiters(index), "{state:?}");
        }
        assert!(self.entries.held_pages() <= self.pool.in_use());
        assert!(self.batches.len() <= batches::MAX_BATCHES);
        used
    }

    fn disk_event(&mut self, disk: usize, event: BlockEvent) {
        let up = match event {
            BlockEvent::Down | BlockEvent::Gone => false,
            // A disk that came back smaller or with other sectors is not the one that was mounted.
            BlockEvent::Up(geometry) => {
                let layouts = self.sources.iter().filter_map(|source| source.layout.as_ref());
                layouts.flat_map(Layout::members).filter(|member| member.disk == disk).all(|member| {
                    let mounted = &member.geometry;
                    mounted.sector_bytes == geometry.sector_bytes && mounted.sectors <= geometry.sectors
                })
            }
        };
        match event {
            BlockEvent::Up(geometry) if up => info!("disk {}: up, {} sectors", disk, geometry.sectors),
            BlockEvent::Up(geometry) => {
                warn!("disk {}: up with {} sectors, and not the disk that is mounted", disk, geometry.sectors);
            }
            BlockEvent::Down => info!("disk {}: down", disk),
            BlockEvent::Gone => info!("disk {}: gone", disk),
        }
        self.down = self.down & !(1 << disk) | u64::from(!up) << disk;
    }

    fn finish_batches(&mut self) {
        let Self { batches, entries, waiters, stats, has_failed, .. } = self;
        batches.finish(entries, waiters, |entries, waiters, index, outcome| {
            let chunk = entries.get(index).chunk;
            match outcome {
                _ if entries.get(index).state == State::Orphan => entries.remove(index),
                Outcome::Read => {
                    stats.cache_reads.increment();
                    entries.finish_loading(index, waiters.has_waiters(index));
                    waiters.wake_all(index, Ok(()));
                }
                Outcome::Again => entries.requeue_alone(index),
                Outcome::Failed(error) => {
                    stats.cache_read_errors.increment();
                    // Whoever asks for it again and again must not have us write all the time; and change is no fault.
                    if error == BlockError::Changed || core::mem::replace(has_failed, true) {
                        debug!("chunk {} can't be read: {}", chunk, error);
                    } else {
                        warn!("chunk {} can't be read: {} (others that follow are only counted)", chunk, error);
                    }
                    waiters.wake_all(index, Err(ReadError { chunk, error }));
                    entries.remove(index);
                }
            }
        });
    }
}

/// Spreads keys over hash tables (the finalizer of SplitMix64, Steele, Lea, Flood 2014). Not keyed: chunk numbers and
/// connection names are not chosen freely by anybody outside.
fn mix(a: u64, b: u64) -> u64 {
    let mut mixed = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests;
