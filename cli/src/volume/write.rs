//! Writes a folder's files to an SHFS image.
//!
//! One pass: each file is read once, hashed and written to its extent, so a digest always is that of the bytes stored.
//! Label and table follow when the digests are known. All of it goes to a temporary file beside the image, which takes the
//! image's name when it is whole and durable: there is never half an image.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use minicache::cache::shfs::format::{HASH_MANUAL, HASH_SHA};
use sha2::{Digest, Sha256};

use super::digest::{ObjectDigest, of_name_and_content};
use super::head::{Head, VolumeName};
use super::layout::{Layout, choose_chunk_bytes};
use super::plan::{placed, unix_s};
use super::walk::SourceFile;

/// Bytes read at once: a multiple of every chunk size.
const BUFFER_BYTES: usize = 1 << 20;

/// What names an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DigestKind {
    /// SHA-256 of name, NUL and content: files with equal contents stay separate objects (and share their bytes)
    Name,
    /// SHA-256 of the content: a content-addressed volume, which can't hold the same content twice
    Content,
}

/// How an image is to be.
#[derive(Debug)]
pub struct WriteOptions<'a> {
    /// Volume name.
    pub volume_name: VolumeName,
    /// Bytes of a chunk; chosen by the files' sizes if not given.
    pub chunk_bytes: Option<u32>,
    /// What names an object.
    pub digest: DigestKind,
    /// Name of the object that `/` names, if it is there.
    pub default_name: &'a [u8],
    /// Unix time in seconds.
    pub created_unix_s: u64,
    /// Modification times later than this are recorded as this (`SOURCE_DATE_EPOCH`).
    pub newest_unix_s: u64,
    /// Replace an image that is there already.
    pub overwrite: bool,
    /// Set from outside to stop.
    pub interrupted: &'a AtomicBool,
}

/// An image that was written.
#[derive(Debug)]
pub struct Packed {
    /// Number of objects.
    pub objects: usize,
    /// Number of objects that share the bytes of another.
    pub shared: usize,
    /// Bytes of all objects.
    pub content_bytes: u64,
    /// Size of the image.
    pub image_bytes: u64,
    /// Bytes of a chunk.
    pub chunk_bytes: u32,
    /// Whether one of the objects is the default.
    pub has_default: bool,
}

/// Writes `files` (sorted by name) to `image`, calling `progress` with the number of bytes read since the last call.
pub fn write_image(
    files: &[SourceFile],
    image: &Path,
    options: &WriteOptions<'_>,
    progress: impl FnMut(u64),
) -> anyhow::Result<Packed> {
    let chunk_bytes =
        options.chunk_bytes.unwrap_or_else(|| choose_chunk_bytes(files.iter().map(|file| file.length_bytes)));
    let folder = folder_of(image);
    let temporary = tempfile::Builder::new()
        .prefix(".minicache-pack-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| format!("can't create a file in {folder:?}"))?;
    let mut writer = ImageWriter {
        image,
        file: temporary.as_file(),
        layout: Layout::new(chunk_bytes, files.len()),
        buffer: vec![0; BUFFER_BYTES],
        interrupted: options.interrupted,
        progress,
    };
    let packed = writer.write(files, options)?;
    writer.disk(temporary.as_file().sync_all())?;

    // The name last: whoever sees it sees a whole image.
    let renamed = if options.overwrite {
        temporary.persist(image).map_err(|error| error.error)
    } else {
        temporary.persist_noclobber(image).map_err(|error| error.error)
    };
    match renamed {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!("{image:?} exists; --force replaces it"),
        result => result.with_context(|| format!("can't give the image its name {image:?}"))?,
    };
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("can't sync {folder:?}"))?;
    Ok(packed)
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

struct ImageWriter<'a, P> {
    /// For messages.
    image: &'a Path,
    file: &'a File,
    layout: Layout,
    buffer: Vec<u8>,
    interrupted: &'a AtomicBool,
    progress: P,
}

impl<P: FnMut(u64)> ImageWriter<'_, P> {
    fn write(&mut self, files: &[SourceFile], options: &WriteOptions<'_>) -> anyhow::Result<Packed> {
        // Only contents of equal length can be equal.
        let mut same_length: HashMap<u64, u32> = HashMap::new();
        for file in files {
            *same_length.entry(file.length_bytes).or_default() += 1;
        }
        let mut stored: HashMap<(u64, ObjectDigest), (u64, usize)> = HashMap::new();

        let mut objects = Vec::with_capacity(files.len());
        let mut end_chunk = self.layout.first_extent_chunk();
        let mut shared = 0;
        let mut content_bytes = 0u64;
        for (index, file) in files.iter().enumerate() {
            let next_chunk = end_chunk + self.layout.chunks_of(file.length_bytes);
            self.layout.total_bytes(next_chunk)?;
            content_bytes = content_bytes.saturating_add(file.length_bytes);

            let by_content = options.digest == DigestKind::Content;
            let may_repeat = by_content || (file.length_bytes > 0 && same_length[&file.length_bytes] > 1);
            let hashers = Hashers {
                name_and_content: (!by_content).then(|| of_name_and_content(&file.name)),
                content: may_repeat.then(Sha256::new),
            };
            let (named, content) = self.copy(file, end_chunk, hashers)?.finish();

            let mut chunk = end_chunk;
            let earlier = content.and_then(|content| stored.get(&(file.length_bytes, content)));
            if let Some((earlier_chunk, earlier_index)) = earlier {
                if by_content {
                    bail!(
                        "{:?} and {:?} have the same content, so on a content-addressed volume they would be one object; remove \
                         one of them or pack with --digest name",
                        files[*earlier_index].path,
                        file.path
                    );
                }
                // The next file is written over this copy.
                chunk = *earlier_chunk;
                shared += 1;
            } else {
                if let Some(content) = content {
                    stored.insert((file.length_bytes, content), (chunk, index));
                }
                end_chunk = next_chunk;
            }
            let digest = named.or(content).expect("each kind of digest was asked for");
            ensure!(digest != [0; 32], "the digest of {:?} is zero, which SHFS can't store", file.path);
            let modified_unix_s = unix_s(file.modified).min(options.newest_unix_s);
            objects.push(placed(file, digest, modified_unix_s, options.default_name, chunk));
        }

        let head = Head {
            name: options.volume_name,
            created_unix_s: options.created_unix_s,
            hash_function: if options.digest == DigestKind::Content { HASH_SHA } else { HASH_MANUAL },
            layout: self.layout,
            end_chunk,
            objects: &objects,
        };
        head.write(|byte, bytes| self.disk(self.file.write_all_at(bytes, byte)))?;
        let image_bytes = self.layout.total_bytes(end_chunk)?;
        // Cut first, so that nothing is left of a last file that shares another's bytes.
        self.disk(self.file.set_len(self.layout.byte_of(end_chunk)?))?;
        self.disk(self.file.set_len(image_bytes))?;
        Ok(Packed {
            objects: objects.len(),
            shared,
            content_bytes,
            image_bytes,
            chunk_bytes: self.layout.chunk_bytes(),
            has_default: objects.iter().any(|object| object.is_default),
        })
    }

    /// Copies a file to the extent at `chunk`, the last chunk filled with zeros.
    fn copy(&mut self, source: &SourceFile, chunk: u64, mut hashers: Hashers) -> anyhow::Result<Hashers> {
        let cant_read = || format!("can't read {:?}", source.path);
        let mut file = File::open(&source.path).with_context(cant_read)?;
        self.check_unchanged(source, &file)?;
        let chunk_bytes = self.layout.chunk_bytes() as usize;
        let mut byte = self.layout.byte_of(chunk)?;
        let mut left = source.length_bytes;
        while left > 0 {
            ensure!(!self.interrupted.load(Ordering::Relaxed), "interrupted; no image was written");
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            match file.read_exact(&mut self.buffer[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(changed(source)),
                result => result.with_context(cant_read)?,
            }
            hashers.update(&self.buffer[..wanted]);
            let padded = wanted.next_multiple_of(chunk_bytes);
            self.buffer[wanted..padded].fill(0);
            self.disk(self.file.write_all_at(&self.buffer[..padded], byte))?;
            byte += padded as u64;
            left -= wanted as u64;
            (self.progress)(wanted as u64);
        }
        self.check_unchanged(source, &file)?;
        Ok(hashers)
    }

    fn check_unchanged(&self, source: &SourceFile, file: &File) -> anyhow::Result<()> {
        let metadata = file.metadata().with_context(|| format!("can't read {:?}", source.path))?;
        let same = metadata.is_file()
            && metadata.len() == source.length_bytes
            && metadata.modified().is_ok_and(|modified: SystemTime| modified == source.modified);
        if same { Ok(()) } else { Err(changed(source)) }
    }

    /// Explains what went wrong with the image's file.
    fn disk(&self, result: io::Result<()>) -> anyhow::Result<()> {
        result.map_err(|error| {
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let hint = if full { "; free some space or write the image elsewhere" } else { "" };
            anyhow::anyhow!("can't write the image {:?}: {error}{hint}", self.image)
        })
    }
}

fn changed(source: &SourceFile) -> anyhow::Error {
    anyhow::anyhow!("{:?} changed while it was being packed; pack again when nothing writes to it", source.path)
}

/// What is hashed while a file is copied.
struct Hashers {
    name_and_content: Option<Sha256>,
    content: Option<Sha256>,
}

impl Hashers {
    fn update(&mut self, bytes: &[u8]) {
        for hasher in [&mut self.name_and_content, &mut self.content].into_iter().flatten() {
            hasher.update(bytes);
        }
    }

    fn finish(self) -> (Option<ObjectDigest>, Option<ObjectDigest>) {
        (
            self.name_and_content.map(|hasher| hasher.finalize().into()),
            self.content.map(|hasher| hasher.finalize().into()),
        )
    }
}

/// Where an image may be written: not inside the folder that is packed, and not over anything but a file.
pub fn check_target(root: &Path, image: &Path, overwrite: bool) -> anyhow::Result<()> {
    ensure!(image.file_name().is_some(), "{image:?} is not a file name");
    let folder = folder_of(image);
    let real: PathBuf =
        folder.canonicalize().with_context(|| format!("can't find the folder {folder:?} for the image"))?;
    let real_root = root.canonicalize().with_context(|| format!("can't find the folder {root:?}"))?;
    ensure!(
        !real.starts_with(&real_root),
        "the image {image:?} would lie inside the folder that it is made of; choose another place"
    );
    match image.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("can't look at {image:?}")),
        Ok(metadata) if metadata.is_dir() => bail!("{image:?} is a folder; give the image's file name"),
        Ok(metadata) if !metadata.is_file() => {
            bail!("{image:?} is not a regular file; pack to a file and copy that there (dd)")
        }
        Ok(_) => {
            ensure!(overwrite, "{image:?} exists; --force replaces it");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::walk::walk;
    use super::*;
    use std::fs;

    fn options(interrupted: &AtomicBool) -> WriteOptions<'_> {
        WriteOptions {
            volume_name: VolumeName::new("test").unwrap(),
            chunk_bytes: None,
            digest: DigestKind::Name,
            default_name: b"index.html",
            created_unix_s: 0,
            newest_unix_s: u64::MAX,
            overwrite: false,
            interrupted,
        }
    }

    /// Packs a folder with one file of 3 MiB while `meanwhile` does something to it; the error.
    fn fails(meanwhile: impl Fn(&Path, &AtomicBool)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site");
        fs::create_dir(&site).unwrap();
        let file = site.join("file");
        fs::write(&file, vec![1; 3 * BUFFER_BYTES]).unwrap();
        let found = walk(&site).unwrap();
        let interrupted = AtomicBool::new(false);
        let image = dir.path().join("image");
        let written = write_image(&found.files, &image, &options(&interrupted), |_| meanwhile(&file, &interrupted));
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["site"], "neither an image nor a temporary file is left");
        written.unwrap_err().to_string()
    }

    #[test]
    fn a_file_that_grows_meanwhile_is_an_error() {
        use std::io::Write;
        assert!(
            fails(|file, _| File::options().append(true).open(file).unwrap().write_all(b"x").unwrap())
                .contains("changed")
        );
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_is_an_error() {
        assert!(
            fails(|file, _| File::options().write(true).open(file).unwrap().set_len(10).unwrap()).contains("changed")
        );
    }

    #[test]
    fn a_file_that_is_touched_meanwhile_is_an_error() {
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        assert!(fails(|file, _| File::open(file).unwrap().set_modified(later).unwrap()).contains("changed"));
    }

    #[test]
    fn an_interruption_leaves_nothing() {
        assert!(fails(|_, interrupted| interrupted.store(true, Ordering::Relaxed)).contains("interrupted"));
    }

    #[test]
    fn a_file_that_was_replaced_by_a_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site");
        fs::create_dir(&site).unwrap();
        fs::write(site.join("file"), "").unwrap();
        let found = walk(&site).unwrap();
        fs::remove_file(site.join("file")).unwrap();
        fs::create_dir(site.join("file")).unwrap();
        let never = AtomicBool::new(false);
        let error = write_image(&found.files, &dir.path().join("image"), &options(&never), |_| ()).unwrap_err();
        assert!(error.to_string().contains("changed"));
    }

    #[test]
    fn an_image_that_appears_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, "precious").unwrap();
        let never = AtomicBool::new(false);
        let error = write_image(&[], &image, &options(&never), |_| ()).unwrap_err();
        assert!(error.to_string().contains("--force"));
        assert_eq!(fs::read(&image).unwrap(), b"precious");
    }
}
