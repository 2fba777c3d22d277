//! The threads that wait for slow files, and the page memory that they may use meanwhile.
//!
//! Threads are started when the first slow read comes, up to [`MAX_WORKERS`]. Dropping [`Workers`] waits for the reads that
//! are under way and forgets those that no thread has begun.

use arrayvec::ArrayVec;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::file::{Buffers, OpenFile, PlannedFile};
use crate::rings::{MAX_REQUEST_PAGES, PAGE_BYTES, Page, PageVec};

/// Most threads of one disk.
const MAX_WORKERS: usize = 4;

/// Called by a worker thread, to wake the thread that sleeps in the event loop.
pub type Waker = Arc<dyn Fn() + Send + Sync>;

/// The pages of a request, for the thread that carries it out.
///
/// Invariant: the request's `Page`s are kept, untouched, from [`Job::new`] until the job's [`Done`] has been collected or the
/// [`Workers`] are gone. Pages that are to be written were unique then, so nobody else can reach their bytes.
pub(super) struct PageMemory(ArrayVec<NonNull<u8>, MAX_REQUEST_PAGES>);

// SAFETY: the pointers name memory of a page pool, which has no thread of its own; who may access it when is the invariant
// above.
unsafe impl Send for PageMemory {}

impl PageMemory {
    fn new(pages: &[Page]) -> Self {
        Self(pages.iter().map(Page::pointer).collect())
    }

    /// As [`buffers`].
    fn buffers(&mut self, at: usize, length: usize) -> Buffers<'_> {
        page_ranges(at, length)
            .map(|(index, range)| {
                // SAFETY: by the invariant the page is alive, initialised, and only this thread's. The borrow of `self` is
                // the only one, the pages of a request are distinct, and the range lies in the page.
                unsafe { &mut self.0[index].cast::<[u8; PAGE_BYTES]>().as_mut()[range] }
            })
            .collect()
    }

    fn pages(&self) -> ArrayVec<&[u8; PAGE_BYTES], MAX_REQUEST_PAGES> {
        // SAFETY: by the invariant the page is alive and initialised, and nobody writes a page while its disk request holds a
        // reference to it.
        self.0.iter().map(|page| unsafe { page.cast().as_ref() }).collect()
    }
}

/// The pages that the bytes from `at` on lie in, and where in each.
fn page_ranges(at: usize, length: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let end = at + length;
    (at / PAGE_BYTES..end.div_ceil(PAGE_BYTES)).map(move |index| {
        let page = index * PAGE_BYTES;
        (index, at.max(page) - page..end.min(page + PAGE_BYTES) - page)
    })
}

/// The bytes of a request's pages from `at` on.
///
/// # Panics
/// If a page has another reference, or the bytes are not the pages'.
pub(super) fn buffers(pages: &mut PageVec, at: usize, length: usize) -> Buffers<'_> {
    let mut ranges = page_ranges(at, length);
    let pages = pages.iter_mut().skip(at / PAGE_BYTES);
    let buffers = pages
        .zip(&mut ranges)
        .map(|(page, (_, range))| &mut page.bytes_mut().expect("checked when the request was submitted")[range]);
    let buffers = buffers.collect();
    assert!(ranges.next().is_none(), "{length} bytes at {at} are not the pages'");
    buffers
}

/// Where the bytes of a piece come from.
pub(super) enum Source {
    Open(Arc<OpenFile>),
    /// The extent's number, and its file that has yet to be opened.
    Closed(u32, Arc<PlannedFile>),
}

/// A run of bytes of one file that goes into a request's pages.
pub(super) struct Piece {
    pub source: Source,
    /// First byte in the file.
    pub offset: u64,
    /// First byte in the pages.
    pub at: usize,
    pub length: usize,
}

/// Extents begin at multiples of a page, requests at sectors: one piece for each page, and the end of one before them.
const MAX_PIECES: usize = MAX_REQUEST_PAGES + 1;

/// The pieces of one request.
pub(super) type Pieces = ArrayVec<Piece, MAX_PIECES>;

/// What a worker is to do.
#[expect(clippy::large_enum_variant, reason = "reads are what there is, and they shall not allocate")]
pub(super) enum Task {
    Read(Pieces),
    Write { file: Arc<OpenFile>, offset: u64 },
    Sync(Arc<OpenFile>),
}

/// A task, its pages, and the place that waits for it.
pub(super) struct Job {
    place: usize,
    task: Task,
    memory: PageMemory,
}

impl Job {
    /// For the request at `place`, whose pages stay as [`PageMemory`] says.
    pub fn new(place: usize, task: Task, pages: &PageVec) -> Self {
        Self { place, task, memory: PageMemory::new(pages) }
    }

    fn run(mut self) -> Done {
        let mut opened = ArrayVec::new();
        let succeeded = match self.task {
            Task::Read(pieces) => pieces.into_iter().all(|piece| read_piece(piece, &mut self.memory, &mut opened)),
            Task::Write { file, offset } => succeeded(&file, file.write(&self.memory.pages(), offset)),
            Task::Sync(file) => succeeded(&file, file.sync()),
        };
        Done { place: self.place, succeeded, opened }
    }
}

fn succeeded(file: &OpenFile, outcome: io::Result<()>) -> bool {
    outcome.inspect_err(|error| file.report(error)).is_ok()
}

fn read_piece(piece: Piece, memory: &mut PageMemory, opened: &mut OpenedFiles) -> bool {
    let file = match piece.source {
        Source::Open(file) => file,
        Source::Closed(extent, planned) => match planned.open(false) {
            Ok(file) => {
                let file = Arc::new(file);
                opened.push((extent, file.clone()));
                file
            }
            Err(error) => {
                planned.report(&error);
                return false;
            }
        },
    };
    let mut buffers = memory.buffers(piece.at, piece.length);
    succeeded(&file, file.read(&mut buffers, piece.offset))
}

/// Files that a job had to open, with their extents' numbers.
pub(super) type OpenedFiles = ArrayVec<(u32, Arc<OpenFile>), MAX_PIECES>;

/// A job's outcome. Why one failed stands in the log.
pub(super) struct Done {
    pub place: usize,
    pub succeeded: bool,
    pub opened: OpenedFiles,
}

struct State {
    jobs: VecDeque<Job>,
    done: Vec<Done>,
    /// Threads that wait for a job.
    idle: usize,
    /// Somebody wants to be woken by the next job done.
    armed: bool,
    waker: Option<Waker>,
    stopping: bool,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point where a panic could be thrown.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work_until_stopped(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let Some(job) = state.jobs.pop_front() else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let done = job.run();
            state = self.lock();
            state.done.push(done);
            if std::mem::take(&mut state.armed) {
                let waker = state.waker.clone();
                drop(state);
                if let Some(wake) = waker {
                    wake();
                }
                state = self.lock();
            }
        }
    }
}

/// The worker threads of one disk.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: ArrayVec<JoinHandle<()>, MAX_WORKERS>,
}

impl Workers {
    /// No thread yet; at most `queue_depth` jobs will be there at once.
    pub fn new(queue_depth: usize) -> Self {
        let state = State {
            jobs: VecDeque::with_capacity(queue_depth),
            done: Vec::with_capacity(queue_depth),
            idle: 0,
            armed: false,
            waker: None,
            stopping: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() }), threads: ArrayVec::new() }
    }

    pub fn set_waker(&mut self, waker: Waker) {
        self.shared.lock().waker = Some(waker);
    }

    /// Hands jobs over, and starts threads for them as far as it takes.
    pub fn send(&mut self, jobs: impl Iterator<Item = Job>) {
        let mut state = self.shared.lock();
        state.jobs.extend(jobs);
        let (queued, idle) = (state.jobs.len(), state.idle);
        drop(state);
        for _ in idle..queued {
            if self.threads.is_full() || !self.start_thread() {
                break;
            }
        }
        self.shared.work.notify_all();
        if self.threads.is_empty() {
            self.run_here();
        }
    }

    fn start_thread(&mut self) -> bool {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("minicache-disk".into()).spawn(move || shared.work_until_stopped());
        thread.map(|thread| self.threads.push(thread)).is_ok()
    }

    /// Where no thread can be had, a slow disk slows everything, but it works.
    fn run_here(&mut self) {
        loop {
            let Some(job) = self.shared.lock().jobs.pop_front() else { return };
            let done = job.run();
            self.shared.lock().done.push(done);
        }
    }

    /// Moves what has been done to `done` (empty before).
    pub fn collect(&mut self, done: &mut Vec<Done>) {
        debug_assert!(done.is_empty());
        std::mem::swap(&mut self.shared.lock().done, done);
    }

    /// Asks for the waker to be called when a job is done. True if one is already.
    pub fn arm(&mut self) -> bool {
        let mut state = self.shared.lock();
        state.armed = true;
        !state.done.is_empty()
    }

    /// Lets every thread end after the job it has begun, and waits for that. Nothing is run afterwards.
    pub fn stop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}
