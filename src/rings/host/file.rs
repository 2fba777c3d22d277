//! One file of the host, read and written in place; and whether it still is the file that a volume was planned with.

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, Metadata};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use arrayvec::ArrayVec;

use crate::rings::{MAX_REQUEST_PAGES, PAGE_BYTES};

/// `O_NONBLOCK`: a file that has become a FIFO must not hang us before we see that it has.
const OPEN_FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// What a plan says of a file.
#[derive(Debug)]
pub(super) struct Stamp {
    pub length: u64,
    pub modified: SystemTime,
}

impl Stamp {
    fn check(&self, metadata: &Metadata) -> io::Result<()> {
        let same = metadata.is_file() && metadata.len() == self.length && metadata.modified()? == self.modified;
        if same { Ok(()) } else { Err(changed()) }
    }
}

/// A file of a planned volume, open or not.
#[derive(Debug)]
pub(super) struct PlannedFile {
    folder: Arc<Folder>,
    /// Relative to the folder.
    path: PathBuf,
    stamp: Stamp,
    /// Device and inode at the first opening: another file of the same length and time is not the same file.
    identity: OnceLock<(u64, u64)>,
    /// A failure has been logged.
    reported: AtomicBool,
}

/// The folder that all files of a plan lie in.
#[derive(Debug)]
pub(super) struct Folder {
    root: OwnedFd,
    /// Without symbolic links.
    path: PathBuf,
}

impl Folder {
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let flags = OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::PATH;
        let root = rustix::fs::open(&path, flags, Mode::empty())?;
        Ok(Self { root, path })
    }

    /// `path` relative to the folder.
    pub fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.path).unwrap_or(path)
    }

    /// Opens a file for reading without ever leaving the folder. With `cached`, only if no disk is needed for that.
    fn open_file(&self, path: &Path, cached: bool) -> io::Result<File> {
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        resolve.set(ResolveFlags::CACHED, cached);
        let open = |path: &Path| rustix::fs::openat2(&self.root, path, OPEN_FLAGS, Mode::empty(), resolve);
        match open(path) {
            // An absolute link is refused wherever it leads; one that leads into the folder is as good as its target.
            Err(Errno::XDEV) if !cached => {
                let target = self.path.join(path).canonicalize()?;
                Ok(open(self.relative(&target))?.into())
            }
            Err(Errno::NOSYS | Errno::PERM) if !cached => self.open_stepwise(path),
            outcome => Ok(outcome?.into()),
        }
    }

    /// For kernels without `openat2` (before Linux 5.6) and sandboxes that refuse it: one step after the other, following no
    /// symbolic link.
    fn open_stepwise(&self, path: &Path) -> io::Result<File> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
        let mut folder = self.root.try_clone()?;
        for component in parent.components() {
            let Component::Normal(step) = component else { return Err(Errno::XDEV.into()) };
            let flags = OFlags::CLOEXEC | OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW;
            folder = rustix::fs::openat(&folder, step, flags, Mode::empty())?;
        }
        Ok(rustix::fs::openat(&folder, name, OPEN_FLAGS | OFlags::NOFOLLOW, Mode::empty())?.into())
    }
}

impl PlannedFile {
    pub fn new(folder: Arc<Folder>, path: PathBuf, stamp: Stamp) -> Self {
        Self { folder, path, stamp, identity: OnceLock::new(), reported: AtomicBool::new(false) }
    }

    /// Opens the file; an error if it is not what was planned. With `cached`, only if no disk is needed for that.
    pub fn open(self: &Arc<Self>, cached: bool) -> io::Result<OpenFile> {
        let file = self.folder.open_file(&self.path, cached)?;
        let metadata = file.metadata()?;
        self.stamp.check(&metadata)?;
        let identity = (metadata.dev(), metadata.ino());
        if *self.identity.get_or_init(|| identity) != identity {
            return Err(changed());
        }
        Ok(OpenFile { file, planned: Some(self.clone()), waits: AtomicBool::new(false) })
    }

    /// Tells the log why the file can't be read, the first time loudly. It is no fault: whoever shows the folder plans it anew.
    pub fn report(&self, error: &io::Error) {
        let first = !self.reported.swap(true, Ordering::Relaxed);
        let path = self.folder.path.join(&self.path);
        if first {
            info!("can't read {}: {}", format_args!("{path:?}"), error);
        } else {
            debug!("can't read {}: {}", format_args!("{path:?}"), error);
        }
    }
}

fn changed() -> io::Error {
    io::Error::other("it has changed since its folder was read")
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it has become shorter")
}

/// Pages, or parts of them, that bytes are read into.
pub(super) type Buffers<'a> = ArrayVec<&'a mut [u8], MAX_REQUEST_PAGES>;

/// An open file, shared with the worker threads.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    planned: Option<Arc<PlannedFile>>,
    /// Its file system knows no `RWF_NOWAIT`: every read is the workers'.
    waits: AtomicBool,
}

impl OpenFile {
    pub fn of_image(file: File) -> Self {
        Self { file, planned: None, waits: AtomicBool::new(false) }
    }

    #[cfg(test)]
    pub fn force_slow(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    /// Fills the buffers with the bytes from `offset` on. `WouldBlock` if a disk were to be waited for, which leaves any
    /// content in the buffers.
    pub fn read_cached(&self, buffers: &mut Buffers<'_>, offset: u64) -> io::Result<()> {
        if self.waits.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut vectors = vectors(buffers, 0);
        match rustix::io::preadv2(&self.file, &mut vectors, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) if count == wanted => self.check_unchanged(),
            // What is missing is not in memory, or not in the file any more: a worker finds out.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.waits.store(true, Ordering::Relaxed);
                Err(io::ErrorKind::WouldBlock.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Fills the buffers with the bytes from `offset` on, however long it takes.
    pub fn read(&self, buffers: &mut Buffers<'_>, offset: u64) -> io::Result<()> {
        let wanted: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut filled = 0;
        while filled < wanted {
            let mut vectors = vectors(buffers, filled);
            match rustix::io::preadv(&self.file, &mut vectors, offset + filled as u64) {
                Ok(0) => return Err(too_short()),
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.check_unchanged()
    }

    /// After a read: what was read is what was planned. A write changes the modification time before it changes a byte, so
    /// to look afterwards is enough.
    fn check_unchanged(&self) -> io::Result<()> {
        self.planned.as_ref().map_or(Ok(()), |planned| planned.stamp.check(&self.file.metadata()?))
    }

    /// Writes whole pages at `offset`.
    pub fn write(&self, pages: &[&[u8; PAGE_BYTES]], offset: u64) -> io::Result<()> {
        let wanted = pages.len() * PAGE_BYTES;
        let mut written = 0;
        while written < wanted {
            let mut vectors: ArrayVec<IoSlice<'_>, MAX_REQUEST_PAGES> = ArrayVec::new();
            vectors.push(IoSlice::new(&pages[written / PAGE_BYTES][written % PAGE_BYTES..]));
            vectors.extend(pages[written / PAGE_BYTES + 1..].iter().map(|page| IoSlice::new(&page[..])));
            match rustix::io::pwritev(self.file.as_fd(), &vectors, offset + written as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes earlier writes durable.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Tells the log why the file can't be used.
    pub fn report(&self, error: &io::Error) {
        match &self.planned {
            Some(planned) => planned.report(error),
            None => warn!("a disk image fails: {}", error),
        }
    }
}

/// The buffers without their first `skip` bytes, of which at least one is left, for the system call.
fn vectors<'a>(buffers: &'a mut Buffers<'_>, mut skip: usize) -> ArrayVec<IoSliceMut<'a>, MAX_REQUEST_PAGES> {
    let mut vectors = ArrayVec::new();
    for buffer in buffers {
        let skipped = skip.min(buffer.len());
        skip -= skipped;
        if skipped < buffer.len() {
            vectors.push(IoSliceMut::new(&mut buffer[skipped..]));
        }
    }
    vectors
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("site/inner")).unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::fs::write(dir.path().join("site/inner/page"), "page").unwrap();
        symlink("inner/page", dir.path().join("site/relative")).unwrap();
        symlink(dir.path().canonicalize().unwrap().join("site/inner/page"), dir.path().join("site/absolute")).unwrap();
        symlink("../secret", dir.path().join("site/leak")).unwrap();
        symlink("..", dir.path().join("site/up")).unwrap();
        let folder = Folder::open(&dir.path().join("site")).unwrap();
        (dir, folder)
    }

    #[test]
    fn links_are_followed_inside_the_folder_only() {
        let (dir, folder) = folder();
        for path in ["inner/page", "relative", "absolute"] {
            let file = folder.open_file(Path::new(path), false).expect(path);
            assert_eq!(file.metadata().unwrap().len(), 4, "{path}");
        }
        let secret = dir.path().join("secret");
        for path in [Path::new("leak"), Path::new("up/secret"), Path::new("../secret"), &secret] {
            assert!(folder.open_file(path, false).is_err(), "{path:?}");
        }
    }

    #[test]
    fn without_openat2_no_link_is_followed() {
        let (_dir, folder) = folder();
        assert!(folder.open_stepwise(Path::new("inner/page")).is_ok());
        for path in ["relative", "leak", "up/secret", "../secret", "inner/../inner/page", "/etc/passwd", ""] {
            assert!(folder.open_stepwise(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn partial_reads_go_on_where_they_stopped() {
        let (mut one, mut two) = ([0; 10], [0; 5]);
        let mut buffers: Buffers<'_> = ArrayVec::new();
        buffers.push(&mut one);
        buffers.push(&mut two);
        let lengths =
            |buffers: &mut Buffers<'_>, skip| vectors(buffers, skip).iter().map(|v| v.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&mut buffers, 0), [10, 5]);
        assert_eq!(lengths(&mut buffers, 4), [6, 5]);
        assert_eq!(lengths(&mut buffers, 10), [5]);
        assert_eq!(lengths(&mut buffers, 12), [3]);
    }
}
