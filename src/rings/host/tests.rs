//! Host disks on real files: what they hold, what becomes of files that change, and the worker threads.

use super::folder::MAX_OPEN_FILES;
use super::*;
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, PAGE_BYTES, PagePool, PageVec,
};
use proptest::prelude::*;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

/// A disk with the loop that sleeps on it.
struct Bench {
    disk: HostDisk,
    pool: PagePool,
    woken: Receiver<()>,
}

impl Bench {
    fn new(mut disk: HostDisk) -> Self {
        let (wake, woken) = channel();
        disk.set_waker(Arc::new(move || wake.send(()).unwrap()));
        Self { disk, pool: PagePool::new(64), woken }
    }

    fn pages(&self, count: usize, fill: u8) -> PageVec {
        let page = || {
            let mut page = self.pool.allocate().unwrap();
            page.bytes_mut().unwrap().fill(fill);
            page
        };
        std::iter::repeat_with(page).take(count).collect()
    }

    fn request(&self, operation: BlockOperation, sector: u64, pages: usize, fill: u8) -> BlockRequest {
        BlockRequest { operation, sector, pages: self.pages(pages, fill), token: sector }
    }

    /// Sleeps until `count` requests have completed.
    fn wait(&mut self, count: usize) -> Vec<BlockCompletion> {
        let mut completions = Vec::new();
        self.disk.flush();
        while completions.len() < count {
            let got = self.disk.complete(&mut |completion| completions.push(completion));
            if got == 0 && !self.disk.arm() {
                self.woken.recv().expect("a lost wake-up would hang here");
            }
        }
        completions
    }

    fn read(&mut self, sector: u64, pages: usize) -> Result<Vec<u8>, BlockError> {
        // What is not filled in must not go unnoticed.
        self.disk.submit(self.request(BlockOperation::Read, sector, pages, 0xaa)).unwrap();
        let completion = self.wait(1).pop().unwrap();
        assert_eq!((completion.token, completion.pages.len()), (sector, pages));
        completion.result?;
        Ok(completion.pages.iter().flat_map(|page| *page.bytes()).collect())
    }

    fn write(&mut self, sector: u64, pages: usize, fill: u8) -> Result<(), BlockError> {
        self.disk.submit(self.request(BlockOperation::Write, sector, pages, fill)).unwrap();
        self.wait(1).pop().unwrap().result
    }
}

fn image(length: usize) -> (TempDir, std::path::PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let bytes: Vec<u8> = (0..length).map(|i| (i / 512 * 31 + i) as u8).collect();
    fs::write(&path, &bytes).unwrap();
    (dir, path, bytes)
}

/// The `pages` pages from `sector` on of a disk that holds `bytes` and then zeros.
fn expected(bytes: &[u8], sector: u64, pages: usize) -> Vec<u8> {
    let mut rest: Vec<u8> = bytes.iter().copied().skip(sector as usize * 512).take(pages * PAGE_BYTES).collect();
    rest.resize(pages * PAGE_BYTES, 0);
    rest
}

#[test]
fn an_image_reads_as_its_file_and_then_as_zeros() {
    let (_dir, path, bytes) = image(100_000);
    for slow in [false, true] {
        let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
        if slow {
            bench.disk.force_slow();
        }
        let geometry = bench.disk.geometry();
        assert_eq!((geometry.sector_bytes, geometry.sectors, geometry.read_only), (512, 196, true));
        assert_eq!(bench.disk.event(), Some(BlockEvent::Up(geometry)));
        assert_eq!(bench.disk.event(), None);
        for (sector, pages) in [(0, 1), (0, 16), (1, 3), (7, 16), (180, 2), (184, 1), (195, 16)] {
            assert!(bench.read(sector, pages) == Ok(expected(&bytes, sector, pages)), "{sector}+{pages}");
        }
        for sector in [196, 1 << 40, u64::MAX] {
            assert_eq!(bench.read(sector, 1), Err(BlockError::OutOfRange));
        }
        assert_eq!(bench.write(0, 1, 1), Err(BlockError::Unsupported));
        drop(bench);
        assert!(fs::read(&path).unwrap() == bytes);
    }
}

#[test]
fn a_sparse_image_of_4_gib_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let file = File::create(&path).unwrap();
    file.set_len(4 << 30).unwrap();
    file.write_all_at(&[7; 5000], (4 << 30) - 5000).unwrap();
    let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
    let sectors = bench.disk.geometry().sectors;
    assert_eq!(sectors, 8 << 20);
    let end = bench.read(sectors - 16, 4).unwrap();
    let content = [vec![0; 8192 - 5000], vec![7; 5000], vec![0; 8192]].concat();
    assert!(end == content);
    assert!(bench.read(4 << 20, 16).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn writes_are_read_back_and_a_flush_comes_after_them() {
    let (_dir, path, mut bytes) = image(65_536 + 512);
    let mut bench = Bench::new(HostDisk::open_image(&path, false).unwrap());
    for (sector, pages, fill) in [(0, 2, 1), (3, 1, 2), (17, 14, 3)] {
        let request = bench.request(BlockOperation::Write, sector, pages, fill);
        bytes[sector as usize * 512..][..pages * PAGE_BYTES].fill(fill);
        bench.disk.submit(request).unwrap();
        // One after the other, since those that overlap may be carried out in any order.
        bench.wait(1)[0].result.unwrap();
    }
    for sector in [40, 80] {
        bench.disk.submit(bench.request(BlockOperation::Write, sector, 1, 4)).unwrap();
        bytes[sector as usize * 512..][..PAGE_BYTES].fill(4);
    }
    let flush = BlockRequest { operation: BlockOperation::Flush, sector: 0, pages: PageVec::new(), token: 77 };
    bench.disk.submit(flush).unwrap();
    assert_eq!(bench.disk.unsent(), 2, "no worker sees the flush before the writes are done");
    let tokens: Vec<u64> = bench.wait(3).iter().map(|completion| completion.token).collect();
    assert_eq!(tokens[2], 77, "{tokens:?}");
    for sector in [121, 122, 128, 129, u64::MAX] {
        assert_eq!(bench.write(sector, 2, 9), Err(BlockError::OutOfRange), "{sector}");
    }
    assert!(bench.read(0, 16).unwrap() == bytes[..65_536]);
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn an_image_that_was_cut_off_fails_where_it_ends() {
    let (_dir, path, bytes) = image(65_536);
    let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
    File::options().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    assert!(bench.read(0, 4).unwrap() == bytes[..16_384]);
    assert_eq!(bench.read(32, 4), Err(BlockError::Failed));
    assert_eq!(bench.read(64, 4), Err(BlockError::Failed));
}

#[test]
fn what_is_no_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |path: &Path| HostDisk::open_image(path, true).err().unwrap().kind();
    assert_eq!(refused(&dir.path().join("none")), std::io::ErrorKind::NotFound);
    assert_eq!(refused(dir.path()), std::io::ErrorKind::InvalidInput);
    assert_eq!(refused(Path::new("/dev/null")), std::io::ErrorKind::InvalidInput);
    let fifo = dir.path().join("fifo");
    make_fifo(&fifo);
    assert_eq!(refused(&fifo), std::io::ErrorKind::InvalidInput);
}

fn make_fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
}

#[test]
fn a_full_queue_gives_the_request_back() {
    let (_dir, path, _) = image(65_536);
    let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
    for slow in [false, true] {
        if slow {
            bench.disk.force_slow();
        }
        for _ in 0..64 {
            bench.disk.submit(bench.request(BlockOperation::Read, 0, 0, 0)).unwrap();
        }
        let refused = bench.disk.submit(bench.request(BlockOperation::Read, 5, 1, 3)).unwrap_err();
        assert_eq!((refused.sector, refused.pages[0].bytes()[0]), (5, 3));
        assert!(bench.wait(64).iter().all(|completion| completion.result == Err(BlockError::Unsupported)));
        drop(refused);
        for sector in 0..60 {
            bench.disk.submit(bench.request(BlockOperation::Read, sector, 1, 0)).unwrap();
        }
        assert!(bench.wait(60).iter().all(|completion| completion.result.is_ok()));
    }
    assert_eq!(bench.pool.in_use(), 0);
}

#[test]
fn dropping_a_disk_gives_the_pages_of_slow_reads_back() {
    let (_dir, path, _) = image(65_536);
    for flushed in [0, 1, 32] {
        let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
        bench.disk.force_slow();
        for sector in 0..32 {
            bench.disk.submit(bench.request(BlockOperation::Read, sector, 2, 0)).unwrap();
            if sector < flushed {
                bench.disk.flush();
            }
        }
        let waker: Waker = Arc::new(|| {});
        bench.disk.set_waker(waker.clone());
        assert_eq!((bench.pool.in_use(), bench.disk.in_flight()), (64, 32));
        drop(bench.disk);
        assert_eq!(bench.pool.in_use(), 0);
        assert_eq!(Arc::strong_count(&waker), 1, "no thread is left");
    }
}

#[test]
fn what_is_done_already_keeps_the_loop_awake() {
    let (_dir, path, _) = image(65_536);
    let mut bench = Bench::new(HostDisk::open_image(&path, true).unwrap());
    bench.disk.force_slow();
    assert!(bench.disk.event().is_some());
    bench.disk.submit(bench.request(BlockOperation::Read, 0, 1, 0)).unwrap();
    bench.disk.flush();
    if !bench.disk.arm() {
        bench.woken.recv().unwrap();
    }
    assert!(bench.disk.arm(), "nobody has fetched it");
    bench.wait(1);
    assert!(!bench.disk.arm());
}

/// A folder's files, each with its length and a modification time long ago, so that any change shows.
struct Site {
    dir: TempDir,
    extents: Vec<FolderExtent>,
    prefix: Vec<u8>,
    /// The whole disk.
    bytes: Vec<u8>,
}

impl Site {
    fn new(prefix: usize, lengths: &[(usize, usize)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let prefix: Vec<u8> = (0..prefix).map(|i| (i * 7) as u8 | 1).collect();
        let mut bytes = prefix.clone();
        let mut extents = Vec::new();
        for (number, &(length, gap_pages)) in lengths.iter().enumerate() {
            let start = bytes.len().next_multiple_of(PAGE_BYTES) + gap_pages * PAGE_BYTES;
            bytes.resize(start, 0);
            bytes.extend((0..length).map(|i| (i * 3 + number * 17) as u8 | 1));
            let path = dir.path().join(format!("folder {}/file{number}", number % 3));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes[start..]).unwrap();
            let modified = set_old(&path);
            extents.push(FolderExtent { start_bytes: start as u64, length_bytes: length as u64, path, modified });
        }
        Self { dir, extents, prefix, bytes }
    }

    fn disk(&self) -> HostDisk {
        let total = self.bytes.len() as u64 + 5000;
        HostDisk::open_folder(self.dir.path(), self.prefix.clone(), self.extents.clone(), total).unwrap()
    }

    fn sector(&self, extent: usize) -> u64 {
        self.extents[extent].start_bytes / 512
    }
}

fn set_old(path: &Path) -> SystemTime {
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    old
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_folder_reads_as_its_files_at_their_places(
        prefix in 0usize..20_000,
        lengths in prop::collection::vec((prop_oneof![Just(0), 1usize..9000, Just(4096), 60_000usize..200_000], 0usize..3), 0..20),
        reads in prop::collection::vec((any::<prop::sample::Index>(), 1usize..=16), 1..40),
        slow: bool,
    ) {
        let site = Site::new(prefix, &lengths);
        let mut bench = Bench::new(site.disk());
        if slow {
            bench.disk.force_slow();
        }
        let sectors = bench.disk.geometry().sectors;
        for (sector, pages) in reads {
            let sector = sector.index(sectors as usize) as u64;
            prop_assert!(bench.read(sector, pages).unwrap() == expected(&site.bytes, sector, pages));
        }
    }
}

#[test]
fn many_files_are_served_with_few_open() {
    let count = MAX_OPEN_FILES * 2 + 50;
    let site = Site::new(100, &vec![(300, 0); count]);
    for slow in [false, true] {
        let mut bench = Bench::new(site.disk());
        if slow {
            bench.disk.force_slow();
        }
        for round in 0..2 {
            for extent in (0..count).step_by(16) {
                let sector = site.sector(extent);
                assert!(bench.read(sector, 16).unwrap() == expected(&site.bytes, sector, 16), "round {round}");
                assert!(bench.disk.open_files() <= MAX_OPEN_FILES);
            }
        }
        assert_eq!(bench.disk.open_files(), MAX_OPEN_FILES);
    }
}

/// Each change of a file, before its first reading or afterwards, makes its reads fail and leaves its neighbours alone.
#[test]
fn a_file_that_has_changed_is_not_read() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 9] = [
        ("rewritten", |path| fs::write(path, [0; 10_000]).unwrap()),
        ("written in place", |path| {
            File::options().write(true).open(path).unwrap().write_all_at(b"x", 5000).unwrap();
        }),
        ("longer, same time", |path| {
            File::options().append(true).open(path).unwrap().set_len(10_001).unwrap();
            set_old(path);
        }),
        ("shorter, same time", |path| {
            File::options().write(true).open(path).unwrap().set_len(9999).unwrap();
            set_old(path);
        }),
        ("touched", |path| File::options().write(true).open(path).unwrap().set_modified(SystemTime::now()).unwrap()),
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("a folder", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a FIFO", |path| {
            fs::remove_file(path).unwrap();
            make_fifo(path);
        }),
        ("a link to outside", |path| {
            let outside = path.ancestors().nth(2).unwrap().with_extension("outside");
            fs::rename(path, &outside).unwrap();
            symlink(&outside, path).unwrap();
        }),
    ];
    for (name, change) in changes {
        for (slow, read_before) in [(false, false), (true, false), (false, true), (true, true)] {
            let site = Site::new(0, &[(10_000, 0), (10_000, 0), (10_000, 0)]);
            let mut bench = Bench::new(site.disk());
            if slow {
                bench.disk.force_slow();
            }
            if read_before {
                assert!(bench.read(site.sector(1), 3).is_ok());
            }
            change(&site.extents[1].path);
            let result = bench.read(site.sector(1), 3);
            // A file that is still open and still as planned may have lost its name: then its old content is right.
            let replaced = ["gone", "a folder", "a FIFO", "a link to outside"].contains(&name);
            if read_before && replaced {
                assert!(result.is_err() || result == Ok(expected(&site.bytes, site.sector(1), 3)), "{name}");
            } else {
                assert!(result == Err(BlockError::Changed), "{name} slow {slow} read {read_before}");
            }
            for extent in [0, 2] {
                let sector = site.sector(extent);
                assert!(bench.read(sector, 2) == Ok(expected(&site.bytes, sector, 2)), "{name}");
            }
            let _ = fs::remove_file(site.dir.path().with_extension("outside"));
        }
    }
}

#[test]
fn another_file_of_the_same_length_and_time_is_another_file() {
    let count = MAX_OPEN_FILES * 2;
    let site = Site::new(0, &vec![(5000, 0); count]);
    let mut bench = Bench::new(site.disk());
    assert!(bench.read(site.sector(0), 1).is_ok());
    let path = &site.extents[0].path;
    fs::write(path.with_extension("new"), [0; 5000]).unwrap();
    set_old(&path.with_extension("new"));
    fs::rename(path.with_extension("new"), path).unwrap();
    assert!(bench.read(site.sector(0), 1).unwrap() == site.bytes[..PAGE_BYTES], "the one that is open");
    for extent in 1..count {
        assert!(bench.read(site.sector(extent), 1).is_ok());
    }
    assert!(bench.read(site.sector(0), 1) == Err(BlockError::Changed), "opened anew");
}

#[test]
fn a_planned_file_that_comes_back_is_read_again() {
    for slow in [false, true] {
        let site = Site::new(0, &[(5000, 0)]);
        let mut bench = Bench::new(site.disk());
        if slow {
            bench.disk.force_slow();
        }
        let path = &site.extents[0].path;
        fs::rename(path, path.with_extension("away")).unwrap();
        assert!(bench.read(0, 2) == Err(BlockError::Changed), "there is none");
        fs::write(path, "another").unwrap();
        assert!(bench.read(0, 2) == Err(BlockError::Changed), "it is another");
        fs::rename(path.with_extension("away"), path).unwrap();
        assert!(bench.read(0, 2) == Ok(expected(&site.bytes, 0, 2)));
    }
}

#[test]
fn a_file_rewritten_meanwhile_is_never_read_as_a_mix() {
    let length = 1 << 20;
    let site = Site::new(0, &[(length, 0)]);
    let mut bench = Bench::new(site.disk());
    let path = site.extents[0].path.clone();
    let started = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let started = started.clone();
        move || {
            let file = File::options().write(true).open(path).unwrap();
            started.store(true, Ordering::SeqCst);
            (0..length / PAGE_BYTES).for_each(|page| {
                file.write_all_at(&[0; PAGE_BYTES], (page * PAGE_BYTES) as u64).unwrap();
            });
        }
    });
    while !started.load(Ordering::SeqCst) || !writer.is_finished() {
        for sector in (0..length as u64 / 512).step_by(128) {
            if let Ok(bytes) = bench.read(sector, 16) {
                assert!(bytes == site.bytes[sector as usize * 512..][..65_536], "old and new mixed at {sector}");
            }
        }
    }
    writer.join().unwrap();
    assert_eq!(bench.read(0, 1), Err(BlockError::Changed));
}

#[test]
fn extents_that_can_not_lie_so_are_refused() {
    let site = Site::new(5000, &[(5000, 0), (100, 0)]);
    let refused = |change: fn(&mut Vec<FolderExtent>), total: u64| {
        let mut extents = site.extents.clone();
        change(&mut extents);
        let error = HostDisk::open_folder(site.dir.path(), site.prefix.clone(), extents, total).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        error.to_string()
    };
    assert!(refused(|extents| extents[0].start_bytes = 4096, 1 << 20).contains("file0"));
    assert!(refused(|extents| extents[1].start_bytes += 512, 1 << 20).contains("file1"));
    assert!(refused(|extents| extents.swap(0, 1), 1 << 20).contains("file0"));
    assert!(refused(|extents| extents[1].length_bytes = u64::MAX, 1 << 20).contains("file1"));
    refused(|_| {}, 16_484 - 1);
    assert!(HostDisk::open_folder(&site.dir.path().join("none"), Vec::new(), Vec::new(), 0).is_err());
}
