//! The receive queue: pages that wait to be filled, and frames put together from one or more of them.

use alloc::boxed::Box;
use arrayvec::ArrayVec;

use super::super::VirtioError;
use super::super::features::NET_MRG_RXBUF;
use super::super::life::Life;
use super::super::queue::{Buffer, MAX_ENTRIES, SplitQueue};
use super::super::transport::Transport;
use super::header::{MAX_HEADER_BYTES, ReceivedHeader};
use crate::rings::{Capabilities, MAX_RX_SLICES, PAGE_BYTES, Page, PagePool, PageSlice, RxChecksum, RxFrame};

/// Number of the first pair's receive queue (virtio 1.2 §5.1.2).
const QUEUE: u16 = 0;

/// What a look into the queue found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing (more) yet.
    Nothing,
    /// A frame that makes no sense, and is dropped.
    Malformed,
    /// [`Receiver::lent`] is a frame.
    Frame,
}

#[derive(Debug)]
pub(super) struct Receiver {
    queue: SplitQueue,
    /// Pages that the device may write, by the id of their buffer.
    posted: Box<[Option<Page>]>,
    pool: PagePool,
    /// The frame being put together or lent; empty otherwise.
    pub lent: RxFrame,
    /// The header of that frame, and how many of its buffers are still to come.
    header: ReceivedHeader,
    missing_buffers: u16,
    features: u64,
    header_bytes: usize,
    /// The header takes a descriptor of its own.
    separate_header: bool,
}

impl Receiver {
    pub fn new(pool: PagePool) -> Self {
        Self {
            queue: SplitQueue::new(QUEUE, 0),
            posted: (0..MAX_ENTRIES).map(|_| None).collect(),
            pool,
            lent: RxFrame { slices: ArrayVec::new(), checksum: RxChecksum::Unknown, gso: None },
            header: ReceivedHeader::default(),
            missing_buffers: 0,
            features: 0,
            header_bytes: MAX_HEADER_BYTES,
            separate_header: false,
        }
    }

    /// `separate_header`: as a legacy device wants it that knows no other layout. Buffers that may be merged are always single
    /// descriptors.
    pub fn start<T: Transport>(
        &mut self,
        transport: &mut T,
        features: u64,
        header_bytes: usize,
        separate_header: bool,
    ) -> Result<(), VirtioError> {
        debug_assert!(self.posted.iter().all(Option::is_none) && self.lent.slices.is_empty());
        (self.features, self.header_bytes) = (features, header_bytes);
        self.separate_header = separate_header && features & NET_MRG_RXBUF == 0;
        self.queue.start(transport, features)?;
        self.post();
        Ok(())
    }

    /// Fills the queue with pages from the pool, as far as both go.
    pub fn post(&mut self) {
        while self.has_room() {
            let Some(page) = self.pool.allocate() else { return };
            self.post_page(page);
        }
    }

    fn has_room(&self) -> bool {
        self.queue.room_for(1 + usize::from(self.separate_header)).is_some()
    }

    /// # Panics
    /// Without room.
    fn post_page(&mut self, page: Page) {
        let address = page.address() as u64;
        let header_bytes = self.header_bytes as u32;
        let buffer = |address, bytes| Buffer { address, bytes, writable: true };
        let id = if self.separate_header {
            let header = buffer(address, header_bytes);
            let rest = buffer(address + u64::from(header_bytes), PAGE_BYTES as u32 - header_bytes);
            self.queue.add([header, rest].into_iter())
        } else {
            self.queue.add([buffer(address, PAGE_BYTES as u32)].into_iter())
        };
        debug_assert!(self.posted[usize::from(id)].is_none());
        self.posted[usize::from(id)] = Some(page);
    }

    /// Takes buffers that the device has filled, until they are a frame. After [`Next::Frame`] and [`Next::Malformed`],
    /// [`Receiver::recycle`] has to follow.
    pub fn next(&mut self) -> Result<Next, VirtioError> {
        while let Some(used) = self.queue.pop()? {
            let page = self.posted[usize::from(used.id)].take().expect("a buffer in the device's hands has a page");
            let bytes = used.bytes as usize;
            let mut start = 0;
            if self.missing_buffers == 0 {
                start = self.header_bytes;
                if bytes < start {
                    self.keep(page);
                    return Ok(Next::Malformed);
                }
                let header = page.bytes().first_chunk().expect("a header is shorter than a page");
                self.header = ReceivedHeader::read(header, self.features);
                self.missing_buffers = self.header.buffers;
                if !(1..=MAX_RX_SLICES).contains(&usize::from(self.missing_buffers)) {
                    return Err(VirtioError::TooManyBuffers { buffers: self.missing_buffers });
                }
            }
            self.missing_buffers -= 1;
            if bytes > start {
                self.lent.slices.push(PageSlice::new(page, start, bytes - start));
            } else {
                self.keep(page);
            }
            if self.missing_buffers > 0 {
                continue;
            }
            return Ok(match self.header.check(self.lent.len(), self.features) {
                Ok((checksum, gso)) => {
                    (self.lent.checksum, self.lent.gso) = (checksum, gso);
                    Next::Frame
                }
                Err(_) => Next::Malformed,
            });
        }
        Ok(Next::Nothing)
    }

    /// Posts a page again that has been returned. One that somebody kept a reference to must not be written: it goes back to its
    /// pool in time.
    fn keep(&mut self, page: Page) {
        if page.is_unique() && self.has_room() {
            self.post_page(page);
        }
    }

    /// Posts the pages of [`Receiver::lent`] again.
    pub fn recycle(&mut self) {
        while let Some(slice) = self.lent.slices.pop() {
            self.keep(slice.into_page());
        }
    }

    /// Shows the device what was posted. Notifies it where it wants to be.
    pub fn publish<T: Transport>(&mut self, life: &mut Life<T, Capabilities>) {
        life.publish(&mut self.queue);
    }

    /// Asks for an interrupt with the next buffer. True if there is one already.
    pub fn arm(&mut self) -> bool {
        self.queue.arm(0)
    }

    /// Takes everything back from a device that has been reset.
    pub fn take_back(&mut self) {
        self.posted.fill_with(|| None);
        self.lent.slices.clear();
        self.missing_buffers = 0;
    }

    /// The device may still write all this: it is never used again.
    pub fn abandon(&mut self) {
        self.queue.abandon();
        core::mem::forget(core::mem::take(&mut self.posted));
    }
}
