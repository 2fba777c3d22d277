//! Requests of a disk on their way, the same for every driver: each becomes one request of the device, or several where that takes
//! fewer pages at once, and completes when all of them are answered.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;

use super::{BlockCompletion, BlockError, BlockOperation, BlockRequest, PAGE_BYTES, Page, PageVec};

/// A request of ours on its way.
#[derive(Debug)]
struct Running {
    operation: BlockOperation,
    pages: PageVec,
    token: u64,
    /// First byte on the disk.
    start: u64,
    /// Bytes to be read or written: the pages, up to the end of the disk.
    bytes: usize,
    /// How many of them have been asked for.
    issued_bytes: usize,
    /// Everything has been asked for.
    issued: bool,
    /// Requests of the device on their way.
    parts: u16,
    error: Option<BlockError>,
}

/// What the device is to be asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// Whose part it is, for [`BlockQueue::answered`].
    pub slot: u8,
    pub operation: BlockOperation,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes to be read or written; 0 for a flush.
    pub bytes: usize,
    /// Their pages.
    pub pages: &'a [Page],
    /// The first of them among the request's.
    pub first_page: usize,
}

impl Part<'_> {
    /// Bytes of one of the pages.
    pub fn page_bytes(&self, page: usize) -> usize {
        (self.bytes - page * PAGE_BYTES).min(PAGE_BYTES)
    }
}

/// Up to `DEPTH` requests. All memory is allocated at the beginning.
#[derive(Debug)]
pub(super) struct BlockQueue<const DEPTH: usize> {
    slots: Box<[Option<Running>]>,
    free: ArrayVec<u8, DEPTH>,
    /// Slots with something to be asked for still, oldest first.
    unissued: VecDeque<u8>,
    finished: VecDeque<BlockCompletion>,
}

impl<const DEPTH: usize> BlockQueue<DEPTH> {
    pub fn new() -> Self {
        Self {
            slots: (0..DEPTH).map(|_| None).collect(),
            free: (0..DEPTH as u8).rev().collect(),
            unissued: VecDeque::with_capacity(DEPTH),
            finished: VecDeque::with_capacity(DEPTH),
        }
    }

    /// True if another request is taken. A slot is a place among the finished ones, too.
    pub fn has_room(&self) -> bool {
        self.free.len() > self.finished.len()
    }

    /// Takes a request, with where it begins on the disk and how many bytes it moves; `None` if nothing is to be done for it.
    ///
    /// # Panics
    /// Without room.
    pub fn accept(&mut self, request: BlockRequest, prepared: Result<Option<(u64, usize)>, BlockError>) {
        assert!(self.has_room(), "a request too many");
        let BlockRequest { operation, pages, token, .. } = request;
        let (start, bytes) = match prepared {
            Ok(Some(place)) => place,
            Ok(None) | Err(_) => {
                self.finished.push_back(BlockCompletion { token, pages, result: prepared.map(|_| ()) });
                return;
            }
        };
        let (issued_bytes, issued, parts, error) = (0, false, 0, None);
        let running = Running { operation, pages, token, start, bytes, issued_bytes, issued, parts, error };
        let slot = self.free.pop().expect("one is free");
        self.slots[usize::from(slot)] = Some(running);
        self.unissued.push_back(slot);
    }

    /// Has `ask` ask the device for what has not been asked for, in parts of at most so many pages, until it says that there is no
    /// room.
    pub fn issue(&mut self, most_pages: usize, mut ask: impl FnMut(&Part<'_>) -> bool) {
        while let Some(&slot) = self.unissued.front() {
            let running = self.slots[usize::from(slot)].as_mut().expect("what is to be issued is there");
            while !running.issued {
                let first_page = running.issued_bytes / PAGE_BYTES;
                let bytes = (running.bytes - running.issued_bytes).min(most_pages * PAGE_BYTES);
                let part = Part {
                    slot,
                    operation: running.operation,
                    start: running.start + running.issued_bytes as u64,
                    bytes,
                    pages: &running.pages[first_page..][..bytes.div_ceil(PAGE_BYTES)],
                    first_page,
                };
                if !ask(&part) {
                    return;
                }
                running.issued_bytes += bytes;
                running.issued = running.issued_bytes == running.bytes;
                running.parts += 1;
            }
            self.unissued.pop_front();
        }
    }

    /// The pages of a request that has parts on their way.
    pub fn pages(&self, slot: u8) -> &[Page] {
        &self.slots[usize::from(slot)].as_ref().expect("a part has a request").pages
    }

    /// The device has answered a part.
    pub fn answered(&mut self, slot: u8, result: Result<(), BlockError>) {
        let running = self.slots[usize::from(slot)].as_mut().expect("a part has a request");
        running.error = running.error.or(result.err());
        running.parts -= 1;
        // What has not been asked for yet is not worth it any more after an error.
        if running.parts == 0 && (running.issued || running.error.is_some()) {
            self.unissued.retain(|unissued| *unissued != slot);
            self.finish(slot);
        }
    }

    /// Completes everything with [`BlockError::Down`]: the device will not answer any more.
    pub fn take_back(&mut self) {
        self.unissued.clear();
        for slot in 0..DEPTH as u8 {
            if let Some(running) = &mut self.slots[usize::from(slot)] {
                running.error = Some(BlockError::Down);
                self.finish(slot);
            }
        }
    }

    fn finish(&mut self, slot: u8) {
        let Some(running) = self.slots[usize::from(slot)].take() else { return };
        let result = running.error.map_or(Ok(()), Err);
        self.finished.push_back(BlockCompletion { token: running.token, pages: running.pages, result });
        self.free.push(slot);
    }

    /// True if [`BlockQueue::complete`] has something to say.
    pub fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Hands finished requests to `sink` and returns how many there were.
    pub fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        let mut count = 0;
        while let Some(completion) = self.finished.pop_front() {
            sink(completion);
            count += 1;
        }
        count
    }

    /// The device may still use the pages that it has: they are never used again.
    pub fn abandon(&mut self) {
        core::mem::forget(core::mem::take(&mut self.slots));
    }
}
