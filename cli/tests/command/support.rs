//! What the command's tests share: running it, mounting what it made, looking for the fixtures.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use minicache::cache::shfs::{Content, Mount, MountConfig, Object, Volume};
use minicache::rings::BlockDevice;
use minicache::rings::host::HostDisk;

/// The command, with these arguments and a time of its own.
pub fn minicache<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_minicache"));
    command.args(arguments).env("SOURCE_DATE_EPOCH", "2000000000").env("RUST_BACKTRACE", "0");
    command
}

/// Runs the command.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    minicache(arguments).output().expect("the command runs")
}

/// Runs the command, which has to succeed; its standard output.
pub fn succeed<S: AsRef<OsStr>>(arguments: &[S]) -> Vec<u8> {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Runs the command, which has to fail with exit code 1; its message.
pub fn fail<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = run(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("minicache: ") && !message.contains("panicked"), "{message}");
    message
}

/// Mounts the volume of one image with the appliance's own reader.
pub fn mount(image: &Path) -> Volume {
    let mut disk = HostDisk::open_image(image, true).expect("the image opens");
    let waiting = thread::current();
    disk.set_waker(Arc::new(move || waiting.unpark()));
    let mut mount = Mount::new(MountConfig { secret: [7; 16], directory_max_bytes: 1 << 30 });
    let disks = &mut [disk][..];
    loop {
        if let Poll::Ready(result) = mount.poll(disks) {
            let volume = result.expect("the volume mounts");
            assert_eq!((volume.damaged_entries, volume.skipped_disks.len()), (0, 0));
            return volume;
        }
        disks[0].flush();
        if !disks[0].arm() {
            thread::park();
        }
    }
}

/// The bytes of an object, taken from the image where the volume says that they are.
pub fn content<'a>(volume: &Volume, image: &'a [u8], object: &Object<'_>) -> &'a [u8] {
    let Content::Extent { chunk, offset_bytes, length_bytes } = object.content else { panic!("a link") };
    let start = (chunk * u64::from(volume.chunk_bytes) + offset_bytes) as usize;
    &image[start..start + length_bytes as usize]
}

/// The folder of images made with the original's tools, where there is one.
pub fn fixtures() -> Option<PathBuf> {
    let folder = std::env::var_os("MINICACHE_FIXTURES")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures"));
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: {folder:?} is not there; MINICACHE_FIXTURES names another folder of the original's images");
    None
}

/// The images of the volume `name`, last member first.
pub fn members(folder: &Path, name: &str) -> Vec<PathBuf> {
    let images = (0..16).map(|member| folder.join(format!("{name}{member}.img"))).take_while(|image| image.exists());
    images.collect::<Vec<_>>().into_iter().rev().collect()
}
