//! Whether a device works, and the changes that its front has not been told of yet.
//!
//! Bounded whatever the other side does: a pair of changes that the front has not seen falls together, since after `Down`
//! nothing of what lay between matters.

/// A change, as the traits' events name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkEvent<U> {
    Down,
    Up(U),
    Gone,
}

/// State of a device that begins to work at once; `U` is what it comes up with.
#[derive(Debug)]
pub(super) struct Link<U> {
    up: bool,
    gone: bool,
    /// The last event handed out was `Up`.
    told_up: bool,
    told_gone: bool,
    pending_down: bool,
    pending_up: Option<U>,
}

impl<U> Link<U> {
    pub fn new(up: U) -> Self {
        Self { up: true, gone: false, told_up: false, told_gone: false, pending_down: false, pending_up: Some(up) }
    }

    pub fn is_up(&self) -> bool {
        self.up
    }

    pub fn down(&mut self) {
        self.up = false;
        self.pending_up = None;
        self.pending_down = self.told_up;
    }

    /// False for a device that is gone: it doesn't come back.
    pub fn up(&mut self, with: U) -> bool {
        if self.gone {
            return false;
        }
        self.down();
        self.up = true;
        self.pending_up = Some(with);
        true
    }

    pub fn gone(&mut self) {
        self.down();
        self.gone = true;
    }

    /// True if [`Link::next`] has something to say.
    pub fn pending(&self) -> bool {
        self.pending_down || self.pending_up.is_some() || self.gone != self.told_gone
    }

    pub fn next(&mut self) -> Option<LinkEvent<U>> {
        if core::mem::take(&mut self.pending_down) {
            self.told_up = false;
            return Some(LinkEvent::Down);
        }
        if let Some(with) = self.pending_up.take() {
            self.told_up = true;
            return Some(LinkEvent::Up(with));
        }
        (core::mem::replace(&mut self.told_gone, self.gone) != self.gone).then_some(LinkEvent::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LinkEvent::{Down, Gone, Up};
    use alloc::vec::Vec;

    fn told(link: &mut Link<u8>) -> Vec<LinkEvent<u8>> {
        let events = core::iter::from_fn(|| link.next()).collect();
        assert!(!link.pending());
        events
    }

    #[test]
    fn the_front_hears_what_it_missed_in_short() {
        let mut link = Link::new(1);
        assert_eq!(told(&mut link), [Up(1)]);
        link.down();
        link.up(2);
        link.down();
        assert_eq!(told(&mut link), [Down]);
        link.up(3);
        link.down();
        assert_eq!(told(&mut link), []);
        link.up(4);
        assert_eq!(told(&mut link), [Up(4)]);
        link.up(5);
        assert!(link.pending());
        assert_eq!(told(&mut link), [Down, Up(5)]);
        link.gone();
        assert!(!link.up(6) && !link.is_up());
        assert_eq!(told(&mut link), [Down, Gone]);
    }
}
