//! Who waits for what: for a chunk, for memory, or to be told.

use alloc::vec::Vec;
use hashbrown::HashTable;

use super::list::{Link, Linked, List};
use super::{ReadError, SourceId, Waiter, mix};

/// A look-up that waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub source: SourceId,
    pub chunk: u64,
    pub ahead_chunks: u32,
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug)]
enum Place {
    Nothing,
    /// The chunk of this entry.
    Entry(u32),
    /// Memory.
    Starved(Request),
    /// To be asked for by `next_woken`.
    Woken(Result<(), ReadError>),
}

struct Node {
    waiter: Waiter,
    place: Place,
    link: Link,
}

/// All waiters, each in one place.
pub(super) struct Waiters {
    nodes: Nodes,
    free: List,
    by_name: HashTable<u32>,
    /// For each entry of the cache.
    entries: Vec<List>,
    starved: List,
    woken: List,
}

struct Nodes(Vec<Node>);

impl Linked for Nodes {
    fn link(&mut self, index: u32) -> &mut Link {
        &mut self.0[index as usize].link
    }
}

impl Waiters {
    /// Reserves room for `max_waiters` waiters; more would have to allocate.
    pub fn new(max_waiters: usize) -> Self {
        Self {
            nodes: Nodes(Vec::with_capacity(max_waiters)),
            free: List::EMPTY,
            // Twice as many, so that the table is cleaned of its tombstones in place and never grows.
            by_name: HashTable::with_capacity(2 * max_waiters),
            entries: Vec::new(),
            starved: List::EMPTY,
            woken: List::EMPTY,
        }
    }

    /// Makes room for the waiters of `entries` entries.
    pub fn reserve_entries(&mut self, entries: usize) {
        if self.entries.len() < entries {
            self.entries.resize(entries, List::EMPTY);
        }
    }

    /// The waiter waits for an entry's chunk, and for nothing else any more. One that does already keeps its place.
    pub fn wait(&mut self, waiter: Waiter, entry: u32) {
        if matches!(self.place_of(waiter), Some(Place::Entry(other)) if other == entry) {
            return;
        }
        let index = self.place(waiter, Place::Entry(entry));
        self.entries[entry as usize].push_back(&mut self.nodes, index);
    }

    /// The waiter waits for memory, and for nothing else any more. One that does already keeps its place.
    pub fn starve(&mut self, waiter: Waiter, request: Request) {
        if matches!(self.place_of(waiter), Some(Place::Starved(other)) if other == request) {
            return;
        }
        let index = self.place(waiter, Place::Starved(request));
        self.starved.push_back(&mut self.nodes, index);
    }

    /// Wakes one waiter.
    pub fn wake(&mut self, waiter: Waiter, result: Result<(), ReadError>) {
        let index = self.place(waiter, Place::Woken(result));
        self.woken.push_back(&mut self.nodes, index);
    }

    /// Wakes all who wait for an entry's chunk, in the order in which they came.
    pub fn wake_all(&mut self, entry: u32, result: Result<(), ReadError>) {
        while let Some(index) = self.entries[entry as usize].pop_front(&mut self.nodes) {
            self.nodes.0[index as usize].place = Place::Woken(result);
            self.woken.push_back(&mut self.nodes, index);
        }
    }

    pub fn has_waiters(&self, entry: u32) -> bool {
        !self.entries[entry as usize].is_empty()
    }

    /// The first who waits for memory.
    pub fn first_starved(&self) -> Option<(Waiter, Request)> {
        let node = &self.nodes.0[self.starved.first()? as usize];
        let Place::Starved(request) = node.place else { unreachable!("{:?} among the starved", node.place) };
        Some((node.waiter, request))
    }

    /// Wakes those who wait for memory for a chunk of `source`.
    pub fn wake_starved_of(&mut self, source: SourceId, result: impl Fn(u64) -> Result<(), ReadError>) {
        let mut rest = List::EMPTY;
        while let Some(index) = self.starved.pop_front(&mut self.nodes) {
            match self.nodes.0[index as usize].place {
                Place::Starved(request) if request.source == source => {
                    self.nodes.0[index as usize].place = Place::Woken(result(request.chunk));
                    self.woken.push_back(&mut self.nodes, index);
                }
                _ => rest.push_back(&mut self.nodes, index),
            }
        }
        self.starved = rest;
    }

    /// The next who is to be told, and what.
    pub fn next_woken(&mut self) -> Option<(Waiter, Result<(), ReadError>)> {
        let index = self.woken.first()?;
        let Node { waiter, place, .. } = self.nodes.0[index as usize];
        let Place::Woken(result) = place else { unreachable!("{place:?} among the woken") };
        self.forget(waiter);
        Some((waiter, result))
    }

    pub fn forget(&mut self, waiter: Waiter) {
        let nodes = &self.nodes.0;
        let same = |&index: &u32| nodes[index as usize].waiter == waiter;
        if let Ok(found) = self.by_name.find_entry(mix(waiter, 0), same) {
            let (index, _) = found.remove();
            self.unlink(index);
            self.nodes.0[index as usize].place = Place::Nothing;
            self.free.push_front(&mut self.nodes, index);
        }
    }

    fn find(&self, waiter: Waiter) -> Option<u32> {
        let nodes = &self.nodes.0;
        self.by_name.find(mix(waiter, 0), |&index| nodes[index as usize].waiter == waiter).copied()
    }

    fn place_of(&self, waiter: Waiter) -> Option<Place> {
        self.find(waiter).map(|index| self.nodes.0[index as usize].place)
    }

    /// Moves a waiter's node to another place, or makes one. The node is in no list then.
    fn place(&mut self, waiter: Waiter, place: Place) -> u32 {
        if let Some(index) = self.find(waiter) {
            self.unlink(index);
            self.nodes.0[index as usize].place = place;
            return index;
        }
        let node = Node { waiter, place, link: Link::UNLINKED };
        let index = match self.free.pop_front(&mut self.nodes) {
            Some(index) => {
                self.nodes.0[index as usize] = node;
                index
            }
            None => {
                self.nodes.0.push(node);
                self.nodes.0.len() as u32 - 1
            }
        };
        let nodes = &self.nodes.0;
        self.by_name.insert_unique(mix(waiter, 0), index, |&index| mix(nodes[index as usize].waiter, 0));
        index
    }

    fn unlink(&mut self, index: u32) {
        let list = match self.nodes.0[index as usize].place {
            Place::Nothing => return,
            Place::Entry(entry) => &mut self.entries[entry as usize],
            Place::Starved(_) => &mut self.starved,
            Place::Woken(_) => &mut self.woken,
        };
        list.remove(&mut self.nodes, index);
    }

    /// Asserts what must hold.
    #[cfg(test)]
    pub fn check(&mut self) {
        let mut listed = 0;
        for entry in 0..self.entries.len() {
            let is_right = |place| matches!(place, Place::Entry(other) if other as usize == entry);
            listed += Self::check_list(&mut self.nodes, &self.entries[entry], is_right);
        }
        listed += Self::check_list(&mut self.nodes, &self.starved, |place| matches!(place, Place::Starved(_)));
        listed += Self::check_list(&mut self.nodes, &self.woken, |place| matches!(place, Place::Woken(_)));
        assert_eq!(listed, self.by_name.len());
        listed += Self::check_list(&mut self.nodes, &self.free, |place| matches!(place, Place::Nothing));
        assert_eq!(listed, self.nodes.0.len());
    }

    #[cfg(test)]
    fn check_list(nodes: &mut Nodes, list: &List, is_right: impl Fn(Place) -> bool) -> usize {
        let mut count = 0;
        let mut next = list.first();
        while let Some(index) = next {
            assert!(is_right(nodes.0[index as usize].place));
            count += 1;
            next = List::behind(nodes, index);
        }
        assert_eq!(count, list.len() as usize);
        count
    }
}
