//! The chunks that are cached or on their way, and which of them has to make room (SIEVE).
//!
//! SIEVE (Zhang et al., NSDI 2024): chunks stand in the order of their arrival; a hit sets a bit; a hand goes from the oldest
//! to the newest, clears the bits it finds, and evicts the first chunk without one.

use alloc::vec::Vec;
use hashbrown::HashTable;
use smallvec::SmallVec;

use super::list::{Link, Linked, List};
use super::{SourceId, mix};
use crate::rings::{Page, PagePool};

/// Where an entry is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Unused.
    Free,
    /// Has its pages and waits for its turn to be read.
    Queued,
    /// Its pages are with a batch.
    Loading,
    /// As `Loading`, but its source has been detached: nobody can find it.
    Orphan,
    /// Its pages hold the chunk.
    Ready,
}

pub(super) struct Entry {
    pub source: SourceId,
    pub chunk: u64,
    pub state: State,
    /// All of the chunk when `Queued` or `Ready`, else empty.
    pub pages: SmallVec<[Page; INLINE_PAGES]>,
    page_count: u32,
    link: Link,
    /// SIEVE's bit.
    visited: bool,
    /// Nobody has looked it up since it arrived.
    fresh: bool,
    /// The round in which it arrived for somebody.
    woke_round: Option<u32>,
    /// Read ahead, and nobody has asked for it yet.
    ahead: bool,
    /// Not to be merged with others: a merged read failed.
    pub alone: bool,
}

/// For whom room is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Somebody waits for the chunk.
    Demand,
    /// Read-ahead: takes nothing that somebody may be about to use, and not this entry.
    Ahead {
        /// The entry whose look-up started the read-ahead.
        keep: u32,
    },
}

/// For how many rounds a chunk is left alone that somebody has been woken for: time enough to look it up. Not for ever, since
/// who was woken may have lost interest.
const GRACE_ROUNDS: u32 = 2;

/// Pages of a chunk that its place holds without an allocation of its own: chunks of 32 KiB.
const INLINE_PAGES: usize = 8;

struct Slots(Vec<Entry>);

impl Linked for Slots {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].link
    }
}

pub(super) struct Entries {
    slots: Slots,
    /// How many places there may be; the memory for them is there.
    most_slots: usize,
    free: List,
    index: HashTable<u32>,
    /// Newest first.
    ready: List,
    hand: Option<u32>,
    /// To be read for somebody, and ahead of need.
    demanded: List,
    ahead: List,
    held_pages: usize,
    ahead_pages: usize,
    /// Counts the polls, and the last one in which a chunk arrived for somebody.
    round: u32,
    last_woke_round: Option<u32>,
}

fn hash(source: SourceId, chunk: u64) -> u64 {
    mix(chunk, u64::from(source.index) << 32 | u64::from(source.generation))
}

impl Entries {
    pub fn new() -> Self {
        Self {
            slots: Slots(Vec::new()),
            most_slots: 0,
            free: List::EMPTY,
            index: HashTable::new(),
            ready: List::EMPTY,
            hand: None,
            demanded: List::EMPTY,
            ahead: List::EMPTY,
            held_pages: 0,
            ahead_pages: 0,
            round: 0,
            last_woke_round: None,
        }
    }

    /// Begins a round.
    pub fn next_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// True while the hand passes chunks by only because their round of grace has not ended.
    pub fn in_grace(&self) -> bool {
        self.last_woke_round.is_some_and(|woke| self.is_grace(woke))
    }

    fn is_grace(&self, woke_round: u32) -> bool {
        self.round.wrapping_sub(woke_round) < GRACE_ROUNDS
    }

    /// Makes room for `entries` chunks of `pages` pages, so that nothing allocates later. Places are made when they are first needed,
    /// but for chunks so large that each place needs memory of its own. Places that are there already may be made for smaller ones;
    /// a larger chunk makes its place larger when it first comes there.
    pub fn reserve(&mut self, entries: usize, pages: usize) {
        let Self { slots, index, .. } = self;
        // Twice as many, so that the table is cleaned of its tombstones in place and never grows.
        index.reserve((2 * entries).saturating_sub(index.len()), |&other| {
            let entry = &slots.0[other as usize];
            hash(entry.source, entry.chunk)
        });
        slots.0.reserve_exact(entries.saturating_sub(slots.0.len()));
        self.most_slots = self.most_slots.max(entries);
        while pages > INLINE_PAGES && self.slots.0.len() < entries {
            let place = self.add_place(pages);
            self.free.push_back(&mut self.slots, place);
        }
    }

    /// Makes one more place, for a chunk of so many pages.
    fn add_place(&mut self, pages: usize) -> u32 {
        assert!(self.slots.0.len() < self.most_slots, "there are as many places as chunks fit the pool");
        self.slots.0.push(Entry {
            source: SourceId { index: 0, generation: 0 },
            chunk: 0,
            state: State::Free,
            pages: SmallVec::with_capacity(pages),
            page_count: 0,
            link: Link::UNLINKED,
            visited: false,
            fresh: false,
            woke_round: None,
            ahead: false,
            alone: false,
        });
        self.slots.0.len() as u32 - 1
    }

    pub fn get(&self, index: u32) -> &Entry {
        &self.slots.0[index as usize]
    }

    pub fn get_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.slots.0[index as usize]
    }

    pub fn find(&self, source: SourceId, chunk: u64) -> Option<u32> {
        let same = |&index: &u32| {
            let entry = self.get(index);
            entry.chunk == chunk && entry.source == source
        };
        self.index.find(hash(source, chunk), same).copied()
    }

    /// How many places there are: every entry's index is below.
    pub fn slots(&self) -> u32 {
        self.slots.0.len() as u32
    }

    /// Ready chunks.
    pub fn ready_count(&self) -> u32 {
        self.ready.len()
    }

    /// Pages of all entries, wherever they are.
    pub fn held_pages(&self) -> usize {
        self.held_pages
    }

    /// Pages of chunks that were read ahead, or are about to be, and that nobody has asked for yet.
    pub fn ahead_pages(&self) -> usize {
        self.ahead_pages
    }

    /// A new entry in the queue, with pages from the pool.
    ///
    /// # Panics
    /// If the pool has not got them, or the chunk has an entry.
    pub fn create(&mut self, source: SourceId, chunk: u64, pages: usize, pool: &PagePool, ahead: bool) -> u32 {
        debug_assert!(self.find(source, chunk).is_none(), "chunk {chunk} has an entry");
        let index = self.free.pop_front(&mut self.slots).unwrap_or_else(|| self.add_place(pages));
        let entry = &mut self.slots.0[index as usize];
        debug_assert!(entry.state == State::Free && entry.pages.is_empty());
        (entry.source, entry.chunk, entry.page_count) = (source, chunk, pages as u32);
        (entry.visited, entry.fresh, entry.ahead, entry.alone) = (false, true, ahead, false);
        entry.pages.reserve_exact(pages);
        entry.pages.extend((0..pages).map(|_| pool.allocate().expect("the pages are available")));
        self.held_pages += pages;
        self.ahead_pages += if ahead { pages } else { 0 };
        let Self { slots, index: table, .. } = self;
        table.insert_unique(hash(source, chunk), index, |&other| {
            let entry = &slots.0[other as usize];
            hash(entry.source, entry.chunk)
        });
        self.enqueue(index);
        index
    }

    /// Somebody asks for the chunk: it is not ahead of need any more.
    pub fn demand(&mut self, index: u32) {
        let entry = self.get_mut(index);
        if !core::mem::take(&mut entry.ahead) {
            return;
        }
        let (pages, queued) = (entry.page_count as usize, entry.state == State::Queued);
        self.ahead_pages -= pages;
        if queued {
            self.ahead.remove(&mut self.slots, index);
            self.demanded.push_back(&mut self.slots, index);
        }
    }

    /// A hit on a ready chunk. The first use after its arrival is what it was read for and no sign of popularity.
    pub fn touch(&mut self, index: u32) {
        self.demand(index);
        let entry = self.get_mut(index);
        debug_assert_eq!(entry.state, State::Ready);
        entry.visited |= !core::mem::take(&mut entry.fresh);
    }

    /// The next chunk to be read, those that somebody waits for first.
    pub fn next_queued(&self) -> Option<u32> {
        self.demanded.first().or(self.ahead.first())
    }

    /// Takes a chunk's pages out of the queue to be read.
    pub fn start_loading(&mut self, index: u32) -> impl Iterator<Item = Page> {
        debug_assert_eq!(self.get(index).state, State::Queued);
        self.dequeue(index);
        let entry = self.get_mut(index);
        entry.state = State::Loading;
        entry.pages.drain(..)
    }

    /// The chunk's pages are in `pages` again and hold the chunk. `waited` says that somebody is about to look it up.
    pub fn finish_loading(&mut self, index: u32, waited: bool) {
        let entry = &mut self.slots.0[index as usize];
        debug_assert!(entry.state == State::Loading && entry.pages.len() == entry.page_count as usize);
        entry.state = State::Ready;
        entry.woke_round = None;
        if waited {
            entry.woke_round = Some(self.round);
            self.last_woke_round = Some(self.round);
        }
        self.ready.push_front(&mut self.slots, index);
    }

    /// Back into the queue, to be read on its own; the pages are in `pages` again.
    pub fn requeue_alone(&mut self, index: u32) {
        let entry = self.get_mut(index);
        debug_assert!(entry.state == State::Loading && entry.pages.len() == entry.page_count as usize);
        entry.alone = true;
        self.enqueue(index);
    }

    /// Gives an entry up, with its pages. One that is loading becomes an orphan unless its pages are back.
    pub fn remove(&mut self, index: u32) {
        let Self { slots, index: table, .. } = &mut *self;
        let entry = &slots.0[index as usize];
        if entry.state != State::Orphan {
            let found = table.find_entry(hash(entry.source, entry.chunk), |&other| other == index);
            found.expect("an entry that is no orphan is in the index").remove();
        }
        match entry.state {
            State::Free => unreachable!("an entry is removed twice"),
            State::Queued => self.dequeue(index),
            State::Ready => {
                if self.hand == Some(index) {
                    self.hand = List::before(&mut self.slots, index);
                }
                self.ready.remove(&mut self.slots, index);
            }
            State::Loading | State::Orphan => {}
        }
        self.demand(index);
        let entry = &mut self.slots.0[index as usize];
        entry.pages.clear();
        entry.state = State::Free;
        self.held_pages -= entry.page_count as usize;
        self.free.push_front(&mut self.slots, index);
    }

    /// The source of an entry whose pages are with a batch has gone.
    pub fn orphan(&mut self, index: u32) {
        let Self { slots, index: table, .. } = &mut *self;
        let entry = &mut slots.0[index as usize];
        debug_assert_eq!(entry.state, State::Loading);
        let found = table.find_entry(hash(entry.source, entry.chunk), |&other| other == index);
        found.expect("an entry that is loading is in the index").remove();
        entry.state = State::Orphan;
        self.demand(index);
    }

    /// Moves SIEVE's hand by at most `steps` and returns the chunk to evict, with the steps made.
    pub fn victim(&mut self, need: Need, steps: u32) -> (Option<u32>, u32) {
        for step in 0..steps {
            let Some(index) = self.hand.or(self.ready.last()) else { return (None, step) };
            self.hand = List::before(&mut self.slots, index);
            let grace = self.get(index).woke_round.is_some_and(|woke| self.is_grace(woke));
            let entry = self.get_mut(index);
            if core::mem::take(&mut entry.visited) {
                continue;
            }
            let protected = match need {
                Need::Ahead { keep } => entry.fresh || index == keep,
                Need::Demand => entry.fresh && grace,
            };
            if !protected && entry.pages.iter().all(Page::is_unique) {
                return (Some(index), step + 1);
            }
        }
        (None, steps)
    }

    fn enqueue(&mut self, index: u32) {
        let entry = &mut self.slots.0[index as usize];
        entry.state = State::Queued;
        let queue = if entry.ahead { &mut self.ahead } else { &mut self.demanded };
        queue.push_back(&mut self.slots, index);
    }

    fn dequeue(&mut self, index: u32) {
        let queue = if self.get(index).ahead { &mut self.ahead } else { &mut self.demanded };
        queue.remove(&mut self.slots, index);
        // So that leaving the queue and being asked for can come in any order.
        self.get_mut(index).state = State::Loading;
    }

    /// Asserts what must hold, and returns how many entries are in use.
    #[cfg(test)]
    pub fn check(&mut self) -> usize {
        let (mut held, mut ahead, mut indexed, mut ready, mut queued, mut free) = (0, 0, 0, 0, 0, 0);
        for (index, entry) in self.slots.0.iter().enumerate() {
            if entry.state == State::Free {
                assert!(entry.pages.is_empty());
                free += 1;
                continue;
            }
            held += entry.page_count as usize;
            ahead += if entry.ahead { entry.page_count as usize } else { 0 };
            let found = self.find(entry.source, entry.chunk);
            match entry.state {
                State::Orphan => assert_ne!(found, Some(index as u32)),
                _ => assert_eq!(found, Some(index as u32)),
            }
            indexed += usize::from(entry.state != State::Orphan);
            ready += u32::from(entry.state == State::Ready);
            queued += u32::from(entry.state == State::Queued);
            let whole = matches!(entry.state, State::Ready | State::Queued);
            assert_eq!(entry.pages.len(), if whole { entry.page_count as usize } else { 0 });
        }
        assert_eq!((held, ahead, indexed), (self.held_pages, self.ahead_pages, self.index.len()));
        assert_eq!((ready, free), (self.ready.len(), self.free.len()));
        assert_eq!(queued, self.demanded.len() + self.ahead.len());
        assert!(self.hand.is_none_or(|hand| self.get(hand).state == State::Ready));
        self.slots.0.len() - free as usize
    }
}
