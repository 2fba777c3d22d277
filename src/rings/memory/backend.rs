//! The other side of the in-memory network device: takes frames, completes them late and in any order, delivers frames,
//! goes down and comes back.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::fmt;

use super::net::{Descriptor, ReceivedPage, Shared};
use crate::rings::{Capabilities, Full, MAX_RX_SLICES, Offload, PageSlice, RxChecksum, RxGso};

/// A TX frame that the backend has taken. Its pages stay granted until [`MemoryBackend::complete`].
///
/// Dropped instead of completed, it is a frame that the backend never answers: its ring entries stay in use until the device
/// goes down. Kept over a `Down`, it still pins its pages, as a grant does that can't be ended.
pub struct TakenFrame(Box<Descriptor>);

impl TakenFrame {
    /// Slot 0: headers, and the response head where it comes first.
    pub fn head(&self) -> &[u8] {
        &self.0.head
    }

    /// What follows the head: the granted pages themselves.
    pub fn slices(&self) -> &[PageSlice] {
        &self.0.slices
    }

    /// What is left to the device.
    pub fn offload(&self) -> Offload {
        self.0.offload
    }

    /// Head and slices as pieces of bytes, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(self.head()).chain(self.slices().iter().map(PageSlice::bytes))
    }

    /// Length of the whole frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    pub fn len(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }
}

impl fmt::Debug for TakenFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TakenFrame({} + {} slices, {} bytes)", self.head().len(), self.slices().len(), self.len())
    }
}

/// The other side of a [`super::MemoryNet`].
pub struct MemoryBackend {
    shared: Rc<RefCell<Shared>>,
}

impl MemoryBackend {
    pub(super) fn new(shared: Rc<RefCell<Shared>>) -> Self {
        Self { shared }
    }

    /// The next frame that the front has published, in order.
    pub fn take(&mut self) -> Option<TakenFrame> {
        self.shared.borrow_mut().tx.pop().map(TakenFrame)
    }

    /// Answers a frame: its pages go back to the front. Late and in any order; a frame from before a `Down` is just dropped.
    pub fn complete(&mut self, frame: TakenFrame) {
        let mut shared = self.shared.borrow_mut();
        shared.verify(&frame.0);
        if frame.0.generation != shared.generation {
            return shared.recycle(frame.0);
        }
        shared.completed.push(frame.0);
        shared.completed.publish();
    }

    /// Copies a frame, given in parts, into pages that the front has posted. `Full` if there are too few now, or the device is
    /// down; nothing is changed then.
    ///
    /// # Panics
    /// If the frame is empty or takes more than [`MAX_RX_SLICES`] buffers.
    pub fn deliver(&mut self, parts: &[&[u8]], checksum: RxChecksum, gso: Option<RxGso>) -> Result<(), Full> {
        let mut shared = self.shared.borrow_mut();
        let buffer_bytes = shared.config.rx_buffer_bytes;
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let pages = total.div_ceil(buffer_bytes);
        assert!((1..=MAX_RX_SLICES).contains(&pages), "a frame of {total} bytes takes {pages} buffers");
        if !shared.link.is_up() || shared.posted.available() < pages {
            shared.rx_pages_wanted = pages;
            return Err(Full);
        }
        shared.rx_pages_wanted = 0;
        let mut parts = parts.iter().copied();
        let mut part: &[u8] = &[];
        let mut left = total;
        while left > 0 {
            let mut page = shared.posted.pop().expect("counted above");
            let buffer = page.bytes_mut().expect("a posted page belongs to the device alone");
            let length = left.min(buffer_bytes);
            let mut filled = 0;
            while filled < length {
                if part.is_empty() {
                    part = parts.next().expect("the parts' lengths add up");
                    continue;
                }
                let take = part.len().min(length - filled);
                buffer[filled..filled + take].copy_from_slice(&part[..take]);
                part = &part[take..];
                filled += take;
            }
            left -= length;
            let end = (left == 0).then_some((checksum, gso));
            shared.received.push(ReceivedPage { slice: PageSlice::new(page, 0, length), end });
        }
        shared.received.publish();
        Ok(())
    }

    /// Wakes the front for what was completed and delivered, if it has armed. True if it did.
    pub fn notify(&mut self) -> bool {
        let mut shared = self.shared.borrow_mut();
        let completed = shared.completed.crossed_event();
        let received = shared.received.crossed_event();
        let wake = completed || received;
        if wake {
            shared.wake_front();
        }
        wake
    }

    /// Whether the front has notified this side since the last call.
    pub fn notified(&mut self) -> bool {
        core::mem::take(&mut self.shared.borrow_mut().back_notified)
    }

    /// Asks to be notified of the next frame and, after a `Full` from [`MemoryBackend::deliver`], of enough pages for that
    /// frame. True if that is there already: then don't sleep.
    pub fn arm(&mut self) -> bool {
        let mut shared = self.shared.borrow_mut();
        let frames = shared.tx.arm(1);
        let wanted = shared.rx_pages_wanted;
        let pages = wanted > 0 && shared.posted.arm(wanted);
        if pages {
            // Said once: a backend that gives the frame up is not kept awake by it.
            shared.rx_pages_wanted = 0;
        }
        frames || pages
    }

    /// The device stops working. Every page in its rings comes back at once; frames on the way are lost.
    pub fn down(&mut self) {
        let mut shared = self.shared.borrow_mut();
        if shared.link.is_up() {
            shared.tear_down();
            shared.link.down();
            shared.wake_front();
        }
    }

    /// The device works (again), with these capabilities; a device that was up goes down first. One that is gone stays gone.
    ///
    /// # Panics
    /// As [`super::memory_net`].
    pub fn up(&mut self, capabilities: Capabilities) {
        self.down();
        let mut shared = self.shared.borrow_mut();
        if shared.link.up(capabilities) {
            shared.set_up(capabilities);
            shared.wake_front();
        }
    }

    /// The device is removed for good.
    pub fn gone(&mut self) {
        self.down();
        let mut shared = self.shared.borrow_mut();
        shared.link.gone();
        shared.wake_front();
    }

    /// TX frames that the front has not taken back.
    pub fn in_flight(&self) -> usize {
        self.shared.borrow().frames_in_flight
    }

    /// TX ring entries, and so grants, that the front has not taken back.
    pub fn grants_in_use(&self) -> usize {
        self.shared.borrow().slots_in_use
    }

    /// As [`super::MemoryNet::violations`].
    pub fn violations(&self) -> u64 {
        self.shared.borrow().violations
    }

    /// Pages that wait to be filled.
    pub fn rx_posted(&self) -> usize {
        self.shared.borrow().posted.available()
    }
}
