//! [`HostDisk`]: requests, what is done of them at once, what the workers do, and completions.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::folder::{FolderExtent, FolderMap};
use super::image::Image;
use super::workers::{Done, Job, Pieces, Source, Task, Waker, Workers, buffers};
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, Page, PageVec,
};

/// Requests that a disk holds, finished ones that nobody fetched included.
const QUEUE_DEPTH: usize = 64;

/// Smallest unit of every disk here: the OS buffers, so its own disk's sectors don't matter.
const SECTOR_BYTES: u32 = 512;

enum Content {
    Image(Image),
    Folder(FolderMap),
}

/// A request that is the workers', or waits to be.
struct Pending {
    token: u64,
    pages: PageVec,
    operation: BlockOperation,
    /// Counts submissions: a flush waits for the writes before it.
    number: u64,
    sent: bool,
}

/// A disk on the host: an image file, or a volume put together from a folder's files. It is up from the start, and says so
/// with a first [`BlockEvent::Up`].
///
/// Dropping it waits for the system calls that its worker threads have begun.
pub struct HostDisk {
    content: Content,
    geometry: Geometry,
    told_up: bool,
    pending: Vec<Option<Pending>>,
    in_flight: usize,
    submissions: u64,
    /// Jobs that go to the workers with the flush.
    unsent: Vec<Job>,
    workers: Workers,
    done: Vec<Done>,
    finished: VecDeque<BlockCompletion>,
}

impl HostDisk {
    /// The disk that an image file or a block device holds. A last partial sector is filled with zeros.
    ///
    /// # Errors
    /// If the path can't be opened, or is neither.
    pub fn open_image(path: &Path, read_only: bool) -> io::Result<Self> {
        let image = Image::open(path, read_only)?;
        let length = image.length;
        Ok(Self::new(Content::Image(image), length, read_only))
    }

    /// A read-only disk: `prefix` from its first byte on, then the extents' files (in order of their starts, apart from each
    /// other), zeros between and behind, `total_bytes` in all.
    ///
    /// A file whose length or modification time is not (or is no longer) the extent's can't be read, nor one that symbolic
    /// links lead to out of `folder`.
    ///
    /// # Errors
    /// If the folder can't be opened, or the extents can't lie so.
    pub fn open_folder(
        folder: &Path,
        prefix: Vec<u8>,
        extents: Vec<FolderExtent>,
        total_bytes: u64,
    ) -> io::Result<Self> {
        let map = FolderMap::new(folder, prefix, extents, total_bytes)?;
        Ok(Self::new(Content::Folder(map), total_bytes, true))
    }

    fn new(content: Content, bytes: u64, read_only: bool) -> Self {
        let sectors = bytes.div_ceil(SECTOR_BYTES.into());
        Self {
            content,
            geometry: Geometry { sector_bytes: SECTOR_BYTES, sectors, read_only },
            told_up: false,
            pending: std::iter::repeat_with(|| None).take(QUEUE_DEPTH).collect(),
            in_flight: 0,
            submissions: 0,
            unsent: Vec::with_capacity(QUEUE_DEPTH),
            workers: Workers::new(QUEUE_DEPTH),
            done: Vec::with_capacity(QUEUE_DEPTH),
            finished: VecDeque::with_capacity(QUEUE_DEPTH),
        }
    }

    /// Sets what is called, from another thread, when a completion is there after [`BlockDevice::arm`].
    pub fn set_waker(&mut self, waker: Waker) {
        self.workers.set_waker(waker);
    }

    /// Requests that wait for a worker thread.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Lets the workers open and read everything from now on that is not open yet, as on old kernels.
    #[cfg(test)]
    pub(super) fn force_slow(&mut self) {
        match &mut self.content {
            Content::Image(image) => image.file.force_slow(),
            Content::Folder(map) => map.force_slow(),
        }
    }

    #[cfg(test)]
    pub(super) fn unsent(&self) -> usize {
        self.unsent.len()
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        match &self.content {
            Content::Image(_) => 1,
            Content::Folder(map) => map.open_files(),
        }
    }

    /// What it means that a read or write failed: a folder's files are there to be changed by anybody.
    fn failure(&self) -> BlockError {
        match self.content {
            Content::Image(_) => BlockError::Failed,
            Content::Folder(_) => BlockError::Changed,
        }
    }

    fn finish(&mut self, token: u64, pages: PageVec, result: Result<(), BlockError>) {
        self.finished.push_back(BlockCompletion { token, pages, result });
    }

    fn read(&mut self, start: u64, mut request: BlockRequest) {
        if !request.pages.iter().all(Page::is_unique) {
            debug_assert!(false, "a page to be read into has another reference");
            return self.finish(request.token, request.pages, Err(BlockError::Failed));
        }
        let mut pieces = Pieces::new();
        match &mut self.content {
            Content::Image(image) => image.locate(start, &mut request.pages, &mut pieces),
            Content::Folder(map) => map.locate(start, &mut request.pages, &mut pieces),
        }
        let mut slow = Pieces::new();
        for piece in pieces {
            let outcome = match &piece.source {
                Source::Open(file) => {
                    let mut buffers = buffers(&mut request.pages, piece.at, piece.length);
                    file.read_cached(&mut buffers, piece.offset).inspect_err(|error| {
                        if error.kind() != io::ErrorKind::WouldBlock {
                            file.report(error);
                        }
                    })
                }
                Source::Closed(..) => Err(io::ErrorKind::WouldBlock.into()),
            };
            match outcome {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => slow.push(piece),
                Err(_) => return self.finish(request.token, request.pages, Err(self.failure())),
            }
        }
        if slow.is_empty() {
            self.finish(request.token, request.pages, Ok(()));
        } else {
            self.keep(request, Some(Task::Read(slow)));
        }
    }

    /// Puts a request where its completion finds it; its task goes to the workers with the next flush.
    fn keep(&mut self, request: BlockRequest, task: Option<Task>) {
        let place = self.pending.iter().position(Option::is_none).expect("the queue's depth is checked at submission");
        self.unsent.extend(task.map(|task| Job::new(place, task, &request.pages)));
        let BlockRequest { operation, pages, token, .. } = request;
        let sent = operation != BlockOperation::Flush;
        self.pending[place] = Some(Pending { token, pages, operation, number: self.submissions, sent });
        self.in_flight += 1;
    }

    /// Sends flushes whose earlier writes are all done.
    fn send_flushes(&mut self) {
        let Content::Image(image) = &self.content else { return };
        let writes = self.pending.iter().flatten().filter(|pending| pending.operation == BlockOperation::Write);
        let oldest_write = writes.map(|write| write.number).min().unwrap_or(u64::MAX);
        for (place, pending) in self.pending.iter_mut().enumerate() {
            if let Some(flush) = pending.as_mut().filter(|pending| !pending.sent && pending.number < oldest_write) {
                flush.sent = true;
                self.unsent.push(Job::new(place, Task::Sync(image.file.clone()), &flush.pages));
            }
        }
    }

    fn collect(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        self.workers.collect(&mut done);
        for Done { place, succeeded, opened } in done.drain(..) {
            let Some(pending) = self.pending[place].take() else { unreachable!("a job is done once") };
            self.in_flight -= 1;
            if let Content::Folder(map) = &mut self.content {
                opened.into_iter().for_each(|(extent, file)| map.keep_open(extent, file));
            }
            let result = if succeeded { Ok(()) } else { Err(self.failure()) };
            self.finish(pending.token, pending.pages, result);
            if pending.operation == BlockOperation::Write {
                self.send_flushes();
            }
        }
        self.done = done;
        self.flush();
    }
}

impl BlockDevice for HostDisk {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn event(&mut self) -> Option<BlockEvent> {
        let first = !std::mem::replace(&mut self.told_up, true);
        first.then_some(BlockEvent::Up(self.geometry))
    }

    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight + self.finished.len() >= QUEUE_DEPTH {
            return Err(request);
        }
        self.submissions += 1;
        match (request.check(&self.geometry), request.operation, &self.content) {
            (Err(error), ..) => self.finish(request.token, request.pages, Err(error)),
            (Ok(start), BlockOperation::Read, _) => self.read(start, request),
            (Ok(offset), BlockOperation::Write, Content::Image(image)) => {
                let task = Task::Write { file: image.file.clone(), offset };
                self.keep(request, Some(task));
            }
            (Ok(_), BlockOperation::Flush, Content::Image(_)) if !self.geometry.read_only => {
                self.keep(request, None);
                self.send_flushes();
            }
            // Nothing was ever written to a read-only disk.
            (Ok(_), BlockOperation::Flush, _) => self.finish(request.token, request.pages, Ok(())),
            (Ok(_), BlockOperation::Write, Content::Folder(_)) => unreachable!("a folder's disk is read-only"),
        }
        Ok(())
    }

    fn flush(&mut self) {
        if !self.unsent.is_empty() {
            self.workers.send(self.unsent.drain(..));
        }
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        if self.in_flight > 0 {
            self.collect();
        }
        let count = self.finished.len();
        self.finished.drain(..).for_each(sink);
        count
    }

    fn arm(&mut self) -> bool {
        self.flush();
        !self.told_up || !self.finished.is_empty() || (self.in_flight > 0 && self.workers.arm())
    }
}

impl Drop for HostDisk {
    fn drop(&mut self) {
        // Before the pages of pending requests are given back.
        self.workers.stop();
    }
}
