//! Plans the volume that shows a folder as a disk, without reading any content.

use std::path::Path;
use std::time::SystemTime;

use minicache::cache::shfs::format::HASH_MANUAL;
use minicache::rings::host::FolderExtent;

use super::digest;
use super::head::{Head, VolumeName};
use super::layout::{Layout, choose_chunk_bytes};
use super::media_type;
use super::table::PlacedObject;
use super::walk::{Skipped, SourceFile, walk};

/// The object that `/` names, where the folder has it.
pub const DEFAULT_NAME: &[u8] = b"index.html";

/// A disk that shows a folder as an SHFS volume.
#[derive(Debug)]
pub struct Plan {
    /// Label, configuration and table: the disk from byte 0 on.
    pub prefix: Vec<u8>,
    /// The files that are not empty, ascending and disjoint; each begins with a chunk.
    pub extents: Vec<FolderExtent>,
    /// Size of the disk: a multiple of the chunk size.
    pub total_bytes: u64,
    /// Number of objects, with the empty ones that have no extent.
    pub objects: usize,
    /// What of the folder is no object.
    pub skipped: Vec<Skipped>,
}

/// Plans the volume of the folder `root`. Object digests are made of name, length and modification time. The only errors
/// are a `root` that is no readable folder and more files or bytes than a volume can have.
pub fn plan_folder(root: &Path, created_unix_s: u64) -> anyhow::Result<Plan> {
    let found = walk(root)?;
    let chunk_bytes = choose_chunk_bytes(found.files.iter().map(|file| file.length_bytes));
    let layout = Layout::new(chunk_bytes, found.files.len());

    let mut extents = Vec::new();
    let mut objects = Vec::with_capacity(found.files.len());
    let mut end_chunk = layout.first_extent_chunk();
    for file in found.files {
        let digest = digest::of_identity(&file.name, file.length_bytes, file.modified);
        objects.push(placed(&file, digest, unix_s(file.modified), DEFAULT_NAME, end_chunk));
        if file.length_bytes > 0 {
            let SourceFile { path, length_bytes, modified, .. } = file;
            extents.push(FolderExtent { start_bytes: layout.byte_of(end_chunk)?, length_bytes, path, modified });
            end_chunk += layout.chunks_of(length_bytes);
            // Checked here, so that no sum of many huge sparse files can wrap.
            layout.total_bytes(end_chunk)?;
        }
    }

    let head = Head {
        name: VolumeName::of_folder(root),
        created_unix_s,
        hash_function: HASH_MANUAL,
        layout,
        end_chunk,
        objects: &objects,
    };
    let mut prefix = vec![0; layout.byte_of(layout.first_extent_chunk())? as usize];
    let Ok(()) = head.write(|byte, bytes| {
        prefix[byte as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok::<_, std::convert::Infallible>(())
    });
    Ok(Plan {
        prefix,
        extents,
        total_bytes: layout.total_bytes(end_chunk)?,
        objects: objects.len(),
        skipped: found.skipped,
    })
}

/// The object of `file` whose extent begins at `chunk`.
pub fn placed(
    file: &SourceFile,
    digest: digest::ObjectDigest,
    modified_unix_s: u64,
    default_name: &[u8],
    chunk: u64,
) -> PlacedObject {
    PlacedObject {
        digest,
        media_type: media_type::of_name(&file.name),
        modified_unix_s,
        is_default: file.name == default_name,
        chunk,
        length_bytes: file.length_bytes,
        name: file.name.clone(),
    }
}

/// Unix time in seconds; 0 for what is earlier.
pub fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shfs::image::Image;
    use minicache::cache::shfs::Content;
    use minicache::rings::host::HostDisk;
    use std::fs::{self, File};
    use std::time::Duration;

    fn mount(root: &Path, plan: Plan) -> Image {
        let disk = HostDisk::open_folder(root, plan.prefix, plan.extents, plan.total_bytes).unwrap();
        let image = Image::mount(vec![disk]).unwrap();
        assert_eq!(image.volume.directory.len(), plan.objects);
        assert_eq!(image.volume.damaged_entries, 0);
        image
    }

    #[test]
    fn a_folder_reads_as_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("docs/deep")).unwrap();
        let lengths = [0, 1, 4095, 4096, 4097, 32768, 100_001];
        for (index, length) in lengths.into_iter().enumerate() {
            let name = if index % 2 == 0 { format!("docs/f{index}.css") } else { format!("f{index}") };
            fs::write(root.join(name), vec![index as u8 + 1; length]).unwrap();
        }
        std::os::unix::fs::symlink("docs/f6.css", root.join("alias.css")).unwrap();
        fs::write(root.join("index.html"), "<p>hello").unwrap();

        let plan = plan_folder(root, 1234).unwrap();
        assert_eq!((plan.objects, plan.extents.len()), (9, 8));
        let mut image = mount(root, plan);
        assert_eq!(image.volume.created_unix_s, 1234);
        let objects: Vec<_> = image.volume.directory.iter().map(|(id, object)| (id, object.name.to_vec())).collect();
        for (id, name) in objects {
            let mut content = Vec::new();
            image
                .read(id, |bytes| {
                    content.extend_from_slice(bytes);
                    Ok(())
                })
                .unwrap();
            let name = String::from_utf8(name).unwrap();
            assert_eq!(content, fs::read(root.join(&name)).unwrap(), "{name}");
            let object = image.volume.directory.get(id);
            assert_eq!(
                object.mime,
                if name.ends_with("css") { &b"text/css"[..] } else { media_type::of_name(name.as_bytes()).as_bytes() }
            );
            assert_eq!(object.is_default(), name == "index.html");
        }
    }

    #[test]
    fn an_empty_folder_is_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan_folder(dir.path(), 0).unwrap();
        assert!(plan.extents.is_empty());
        mount(dir.path(), plan);
    }

    #[test]
    fn two_thousand_files_of_two_gibibytes_are_planned_without_being_read() {
        let dir = tempfile::tempdir().unwrap();
        for index in 0..2000u64 {
            // Holes: nothing is written, and reading them all would take its time.
            File::create(dir.path().join(format!("f{index:04}"))).unwrap().set_len(index * 1100).unwrap();
        }
        let plan = plan_folder(dir.path(), 0).unwrap();
        assert_eq!((plan.objects, plan.extents.len()), (2000, 1999));
        assert_eq!(plan.extents.iter().map(|extent| extent.length_bytes).sum::<u64>(), 1999 * 1000 * 1100);
        let mut end = plan.prefix.len() as u64;
        for extent in &plan.extents {
            assert!(extent.start_bytes >= end && extent.start_bytes % 4096 == 0);
            end = extent.start_bytes + extent.length_bytes;
        }
        assert!(end <= plan.total_bytes);
        let starts: Vec<u64> = plan.extents.iter().map(|extent| extent.start_bytes).collect();
        let image = mount(dir.path(), plan);
        let chunk_bytes = u64::from(image.volume.chunk_bytes);
        for (_, object) in image.volume.directory.iter() {
            let Content::Extent { chunk, length_bytes, .. } = object.content else { panic!("a link") };
            assert!(length_bytes == 0 || starts.contains(&(chunk * chunk_bytes)));
        }
    }

    #[test]
    fn more_bytes_than_a_disk_has_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let longest = |name| File::create(dir.path().join(name)).unwrap().set_len(i64::MAX as u64);
        if longest("a").is_err() {
            eprintln!("skipped: the file system of {:?} has no files of 8 EiB", dir.path());
            return;
        }
        longest("b").unwrap();
        assert!(plan_folder(dir.path(), 0).unwrap_err().to_string().contains("more bytes"));
    }

    #[test]
    fn digests_follow_the_modification_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("page");
        fs::write(&path, "same").unwrap();
        let digest = || {
            let image = mount(dir.path(), plan_folder(dir.path(), 0).unwrap());
            let id = image.volume.directory.by_name(b"page").unwrap();
            image.volume.directory.get(id).digest.to_vec()
        };
        let before = digest();
        assert_eq!(before, digest());
        File::open(&path).unwrap().set_modified(SystemTime::now() + Duration::from_nanos(1_000_000_007)).unwrap();
        assert_ne!(before, digest());
    }

    #[test]
    fn times_before_the_epoch_are_zero() {
        assert_eq!(unix_s(SystemTime::UNIX_EPOCH - Duration::from_secs(5)), 0);
        assert_eq!(unix_s(SystemTime::UNIX_EPOCH + Duration::from_millis(5999)), 5);
    }
}
