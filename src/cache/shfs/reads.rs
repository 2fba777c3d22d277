//! Several reads in flight, their answers in the order of the questions.

use alloc::collections::VecDeque;

use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, PagePool, PageVec,
};

/// Most reads that are not answered yet.
const MAX_READS: usize = 64;
/// Pages for them: 512 KiB.
const POOL_PAGES: usize = 128;
/// Set in the tokens of a mount's requests and of no others, so that a disk can be mounted from while it is read otherwise.
pub const MOUNT_TOKEN: u64 = 1 << 63;

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Read {
    /// The disk.
    pub disk: usize,
    /// First byte, for messages.
    pub byte: u64,
    /// First sector.
    pub sector: u64,
    /// Whole pages.
    pub pages: usize,
}

/// A queue of reads. Its pages are its own, so a full cache can't hold up a mount.
pub(super) struct ReadQueue {
    pool: PagePool,
    reads: VecDeque<(Read, State)>,
    /// Number of the first of `reads`.
    first: u64,
    down: u64,
}

enum State {
    Unsent(PageVec),
    /// With the address of its first page: a stray completion from an earlier mount has another.
    Sent(usize),
    Answered(Result<PageVec, BlockError>),
}

impl ReadQueue {
    pub fn new() -> Self {
        Self { pool: PagePool::new(POOL_PAGES), reads: VecDeque::with_capacity(MAX_READS), first: 0, down: 0 }
    }

    /// True if another read of this many pages can be queued.
    pub fn has_room(&self, pages: usize) -> bool {
        self.reads.len() < MAX_READS && self.pool.available() >= pages
    }

    /// Queues a read.
    ///
    /// # Panics
    /// Without room, or for more pages than a request has.
    pub fn push(&mut self, read: Read) {
        assert!(self.has_room(read.pages), "{read:?} without room");
        let pages = (0..read.pages).map(|_| self.pool.allocate().expect("pages are available")).collect();
        self.reads.push_back((read, State::Unsent(pages)));
    }

    /// The oldest read, once it is answered.
    pub fn pop(&mut self) -> Option<(Read, Result<PageVec, BlockError>)> {
        match self.reads.pop_front()? {
            (read, State::Answered(answer)) => {
                self.first += 1;
                Some((read, answer))
            }
            unanswered => {
                self.reads.push_front(unanswered);
                None
            }
        }
    }

    /// Gives up: what was not sent never will be. True once the disks have given everything back.
    pub fn abandon(&mut self) -> bool {
        for (_, state) in &mut self.reads {
            if !matches!(state, State::Sent(_)) {
                *state = State::Answered(Err(BlockError::Down));
            }
        }
        !self.reads.iter().any(|(_, state)| matches!(state, State::Sent(_)))
    }

    /// Takes events and completions. True if a read was answered.
    pub fn collect<B: BlockDevice>(&mut self, disks: &mut [B]) -> bool {
        let mut answered = false;
        for (index, disk) in disks.iter_mut().enumerate() {
            while let Some(event) = disk.event() {
                match event {
                    BlockEvent::Down | BlockEvent::Gone => self.down |= 1 << index,
                    BlockEvent::Up(_) => self.down &= !(1 << index),
                }
            }
            disk.complete(&mut |completion| answered |= self.complete(completion));
        }
        answered
    }

    /// Sends what is not sent yet and has room in its disk's queue. True if anything was sent, or failed at once.
    pub fn submit<B: BlockDevice>(&mut self, disks: &mut [B]) -> bool {
        let (mut changed, mut full, mut submitted) = (false, 0_u64, 0_u64);
        for (number, (read, state)) in (self.first..).zip(&mut self.reads) {
            let bit = 1 << read.disk;
            let State::Unsent(pages) = state else { continue };
            let disk = disks.get_mut(read.disk).filter(|_| self.down & bit == 0);
            let Some(disk) = disk else {
                *state = State::Answered(Err(BlockError::Down));
                changed = true;
                continue;
            };
            if full & bit != 0 {
                continue;
            }
            let pages = core::mem::take(pages);
            let address = pages[0].address();
            let (operation, token) = (BlockOperation::Read, MOUNT_TOKEN | number);
            match disk.submit(BlockRequest { operation, sector: read.sector, pages, token }) {
                Ok(()) => {
                    *state = State::Sent(address);
                    submitted |= bit;
                }
                Err(request) => {
                    *state = State::Unsent(request.pages);
                    full |= bit;
                }
            }
        }
        for (index, disk) in disks.iter_mut().enumerate() {
            if submitted & 1 << index != 0 {
                disk.flush();
            }
        }
        changed || submitted != 0
    }

    fn complete(&mut self, completion: BlockCompletion) -> bool {
        let number = (completion.token ^ MOUNT_TOKEN).wrapping_sub(self.first);
        let Some((read, state)) = usize::try_from(number).ok().and_then(|number| self.reads.get_mut(number)) else {
            return false;
        };
        let address = completion.pages.first().map(|page| page.address());
        if !matches!(state, State::Sent(sent) if Some(*sent) == address) || completion.pages.len() != read.pages {
            return false;
        }
        *state = State::Answered(completion.result.map(|()| completion.pages));
        true
    }
}
