//! Doubly linked lists threaded through slabs: constant time everywhere, no allocation.

/// No index.
pub(super) const NONE: u32 = u32::MAX;

/// An element's neighbours in the one list that it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    previous: u32,
    next: u32,
}

impl Link {
    pub const UNLINKED: Self = Self { previous: NONE, next: NONE };
}

/// A slab whose elements can be in a list.
pub(super) trait Linked {
    /// The neighbours of the element at `index`.
    fn link(&mut self, index: u32) -> &mut Link;
}

/// A list of elements of one slab.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
    length: u32,
}

impl List {
    pub const EMPTY: Self = Self { first: NONE, last: NONE, length: 0 };

    pub fn len(&self) -> u32 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub fn last(&self) -> Option<u32> {
        (self.last != NONE).then_some(self.last)
    }

    /// The element in front of the one at `index`.
    pub fn before(slab: &mut impl Linked, index: u32) -> Option<u32> {
        let previous = slab.link(index).previous;
        (previous != NONE).then_some(previous)
    }

    /// The element behind the one at `index`.
    #[cfg(test)]
    pub fn behind(slab: &mut impl Linked, index: u32) -> Option<u32> {
        let next = slab.link(index).next;
        (next != NONE).then_some(next)
    }

    pub fn push_front(&mut self, slab: &mut impl Linked, index: u32) {
        *slab.link(index) = Link { previous: NONE, next: self.first };
        match self.first {
            NONE => self.last = index,
            first => slab.link(first).previous = index,
        }
        self.first = index;
        self.length += 1;
    }

    pub fn push_back(&mut self, slab: &mut impl Linked, index: u32) {
        *slab.link(index) = Link { previous: self.last, next: NONE };
        match self.last {
            NONE => self.first = index,
            last => slab.link(last).next = index,
        }
        self.last = index;
        self.length += 1;
    }

    pub fn pop_front(&mut self, slab: &mut impl Linked) -> Option<u32> {
        let first = self.first()?;
        self.remove(slab, first);
        Some(first)
    }

    /// Takes out an element, which must be in this list.
    pub fn remove(&mut self, slab: &mut impl Linked, index: u32) {
        let Link { previous, next } = core::mem::replace(slab.link(index), Link::UNLINKED);
        debug_assert!(self.length > 0);
        debug_assert!((previous == NONE) == (self.first == index) && (next == NONE) == (self.last == index));
        match previous {
            NONE => self.first = next,
            previous => slab.link(previous).next = next,
        }
        match next {
            NONE => self.last = previous,
            next => slab.link(next).previous = previous,
        }
        self.length -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec;
    use alloc::vec::Vec;

    impl Linked for Vec<Link> {
        fn link(&mut self, index: u32) -> &mut Link {
            &mut self[index as usize]
        }
    }

    fn content(list: &List, slab: &mut Vec<Link>) -> VecDeque<u32> {
        core::iter::successors(list.first(), |&index| List::behind(slab, index)).collect()
    }

    #[test]
    fn a_list_does_what_a_deque_does() {
        let mut slab = vec![Link::UNLINKED; 8];
        let (mut list, mut model) = (List::EMPTY, VecDeque::new());
        let mut random = 1_u32;
        for _ in 0..2000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let index = random >> 29;
            match (model.iter().position(|&other| other == index), random >> 20 & 3) {
                (None, 0) => (list.push_front(&mut slab, index), model.push_front(index)).0,
                (None, _) => (list.push_back(&mut slab, index), model.push_back(index)).0,
                (Some(_), 0) => assert_eq!(list.pop_front(&mut slab), model.pop_front()),
                (Some(at), _) => {
                    assert_eq!(List::before(&mut slab, index), at.checked_sub(1).map(|at| model[at]));
                    list.remove(&mut slab, index);
                    model.remove(at);
                }
            }
            assert_eq!(content(&list, &mut slab), model);
            assert_eq!((list.first(), list.last()), (model.front().copied(), model.back().copied()));
            assert_eq!((list.len() as usize, list.is_empty()), (model.len(), model.is_empty()));
        }
    }
}
