//! What the machine's disks show: images that are there, or one that is packed of a folder.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use anyhow::{Context, bail};

use crate::terminal::warn;
use crate::volume::{self, DigestKind, VolumeName, WriteOptions};

/// Most files left out that are named; the rest is counted.
const SKIPPED_SHOWN: usize = 20;

/// The machine's disks.
pub struct Disks {
    /// Their images, in order.
    pub images: Vec<PathBuf>,
    /// What to call them, for messages.
    pub title: String,
}

/// Finds or packs (into `temporary`) the images of what `paths` name: one folder, or images. Setting `interrupted` stops the
/// packing.
pub fn prepare(paths: &[PathBuf], temporary: &Path, interrupted: &AtomicBool) -> anyhow::Result<Disks> {
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        bail!("{missing:?} does not exist (or can't be reached): give a folder or the images of an SHFS volume");
    }
    match paths.iter().find(|path| path.is_dir()) {
        Some(folder) if paths.len() == 1 => pack(folder, temporary, interrupted),
        Some(folder) => bail!("{folder:?} is a folder, and one folder is booted alone: leave the other arguments out"),
        None => {
            let title = match paths {
                [path] => format!("{path:?}"),
                paths => format!("{} images", paths.len()),
            };
            Ok(Disks { images: paths.to_vec(), title })
        }
    }
}

fn pack(folder: &Path, temporary: &Path, interrupted: &AtomicBool) -> anyhow::Result<Disks> {
    let found = volume::walk(folder)?;
    for file in found.skipped.iter().take(SKIPPED_SHOWN) {
        warn(&format!("not served: {file}"));
    }
    if found.skipped.len() > SKIPPED_SHOWN {
        warn(&format!("not served: {} files more", found.skipped.len() - SKIPPED_SHOWN));
    }
    let image = temporary.join("volume.img");
    let options = WriteOptions {
        volume_name: VolumeName::of_folder(folder),
        chunk_bytes: None,
        digest: DigestKind::Name,
        default_name: volume::DEFAULT_NAME,
        created_unix_s: volume::unix_s(SystemTime::now()),
        newest_unix_s: u64::MAX,
        overwrite: false,
        interrupted,
    };
    volume::write_image(&found.files, &image, &options, |_| {})
        .with_context(|| format!("can't pack {folder:?} into an image in {temporary:?}"))?;
    Ok(Disks { images: vec![image], title: format!("{folder:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn folders_are_packed_and_images_taken_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let never = AtomicBool::new(false);
        let folder = dir.path().join("site");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("index.html"), "<p>hello").unwrap();
        let packed = prepare(std::slice::from_ref(&folder), dir.path(), &never).unwrap();
        assert!(packed.images[0].starts_with(dir.path()));
        assert_eq!(fs::read(&packed.images[0]).unwrap()[1024..1028], *b"SHFS");

        let images: Vec<_> = ["b.img", "a.img"].iter().map(|name| dir.path().join(name)).collect();
        images.iter().for_each(|image| fs::write(image, "").unwrap());
        assert_eq!(prepare(&images, dir.path(), &never).unwrap().images, images);
        let refused = |paths: &[PathBuf], interrupted: bool| {
            format!("{:#}", prepare(paths, dir.path(), &AtomicBool::new(interrupted)).err().unwrap())
        };
        assert!(refused(&[folder.clone(), images[0].clone()], false).contains("alone"));
        assert!(refused(&[dir.path().join("nothing")], false).contains("does not exist"));
        assert!(refused(&[folder], true).contains("interrupted"));
    }
}
