//! Plans the volume that shows a folder as a disk, without reading any content.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minicache::cache::shfs::format::HASH_MANUAL;

use super::digest;
use super::head::{Head, VolumeName};
use super::layout::{Layout, choose_chunk_bytes};
use super::media_type;
use super::table::PlacedObject;
use super::walk::{Skipped, SourceFile, walk};

/// The object that `/` names, where the folder has it.
pub const DEFAULT_NAME: &[u8] = b"index.html";

/// A file's place on the planned disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedExtent {
    /// The byte that the file begins at: a multiple of the chunk size, which is at least a page.
    pub start_bytes: u64,
    /// Length in bytes, never 0.
    pub length_bytes: u64,
    /// The file.
    pub path: PathBuf,
    /// Its modification time when the folder was walked.
    pub modified: SystemTime,
}

/// A disk that shows a folder as an SHFS volume.
#[derive(Debug)]
pub struct Plan {
    /// Label, configuration and table: the disk from byte 0 on.
    pub prefix: Vec<u8>,
    /// The files, ascending and disjoint; what lies between is zero.
    pub extents: Vec<PlannedExtent>,
    /// Size of the disk: a multiple of the chunk size.
    pub total_bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// Number of objects, with the empty ones that have no extent.
    pub objects: usize,
    /// Bytes of all objects.
    pub content_bytes: u64,
    /// Whether there is an `index.html` for `/`.
    pub has_default: bool,
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
    let mut content_bytes = 0;
    let mut end_chunk = layout.first_extent_chunk();
    for file in found.files {
        let digest = digest::of_identity(&file.name, file.length_bytes, file.modified);
        objects.push(placed(&file, digest, unix_s(file.modified), DEFAULT_NAME, end_chunk));
        if file.length_bytes > 0 {
            let SourceFile { path, length_bytes, modified, .. } = file;
            extents.push(PlannedExtent { start_bytes: layout.byte_of(end_chunk)?, length_bytes, path, modified });
            end_chunk += layout.chunks_of(length_bytes);
            // Checked here, so that no sum of many huge sparse files can wrap.
            layout.total_bytes(end_chunk)?;
            content_bytes += length_bytes;
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
        chunk_bytes,
        objects: objects.len(),
        content_bytes,
        has_default: objects.iter().any(|object| object.is_default),
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
