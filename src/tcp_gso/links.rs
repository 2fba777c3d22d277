//! Doubly linked lists of small numbers, for things that live in a table: constant-time removal, no allocation per entry.

use alloc::vec::Vec;

const NONE: u32 = u32::MAX;

/// The links of all entries of a table. An entry is in at most one [`List`] at a time.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// A list of entries, oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl Default for List {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}

impl List {
    /// The oldest entry.
    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }
}

impl Links {
    /// Makes links for entries up to `count`.
    pub fn grow(&mut self, count: usize) {
        if self.0.len() < count {
            self.0.resize(count, Link { previous: NONE, next: NONE });
        }
    }

    /// Appends `entry`, which must be in no list.
    pub fn push(&mut self, list: &mut List, entry: u32) {
        self.0[entry as usize] = Link { previous: list.last, next: NONE };
        match list.last {
            NONE => list.first = entry,
            last => self.0[last as usize].next = entry,
        }
        list.last = entry;
    }

    /// Removes `entry`, which must be in `list`.
    pub fn remove(&mut self, list: &mut List, entry: u32) {
        let link = self.0[entry as usize];
        match link.previous {
            NONE => list.first = link.next,
            previous => self.0[previous as usize].next = link.next,
        }
        match link.next {
            NONE => list.last = link.previous,
            next => self.0[next as usize].previous = link.previous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_leave_from_anywhere_in_order() {
        let mut links = Links::default();
        links.grow(5);
        let mut list = List::default();
        for entry in 0..5 {
            links.push(&mut list, entry);
        }
        for gone in [2, 0, 4] {
            links.remove(&mut list, gone);
        }
        assert_eq!(list.first(), Some(1));
        links.push(&mut list, 0);
        let mut order = Vec::new();
        while let Some(first) = list.first() {
            links.remove(&mut list, first);
            order.push(first);
        }
        assert_eq!(order, [1, 3, 0]);
        assert_eq!((list.first, list.last), (NONE, NONE));
    }
}
