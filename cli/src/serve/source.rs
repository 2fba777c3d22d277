//! What is served: a folder shown as a disk, or the disks of an SHFS volume.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail};
use minicache::rings::host::HostDisk;

use crate::terminal::warn;
use crate::volume;

/// Most skipped files that are named; the rest is counted.
const SKIPPED_SHOWN: usize = 20;

/// Disks to mount a volume from.
pub struct Source {
    /// The disks, in the order of the arguments.
    pub disks: Vec<HostDisk>,
    /// What to call it, for messages.
    pub title: String,
    /// The paths of the disks, in the same order.
    pub paths: Vec<PathBuf>,
    /// The folder, if it is one.
    pub folder: Option<PathBuf>,
}

/// Opens what `paths` name: one folder, or one or more images.
pub fn open(paths: &[PathBuf]) -> anyhow::Result<Source> {
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        bail!("{missing:?} does not exist (or can't be reached): give a folder or the images of an SHFS volume");
    }
    match paths.iter().find(|path| path.is_dir()) {
        Some(folder) if paths.len() == 1 => open_folder(folder),
        Some(folder) => bail!("{folder:?} is a folder, and one folder is served alone: leave the other arguments out"),
        None => open_images(paths),
    }
}

fn open_folder(folder: &Path) -> anyhow::Result<Source> {
    let plan = volume::plan_folder(folder, volume::unix_s(SystemTime::now()))?;
    warn_of_skipped(&plan.skipped);
    if plan.objects == 0 {
        warn(&format!("{folder:?} holds no file that can be served: every request is answered with 404"));
    }
    let disk = HostDisk::open_folder(folder, plan.prefix, plan.extents, plan.total_bytes)
        .with_context(|| format!("can't serve the folder {folder:?}"))?;
    Ok(Source {
        disks: vec![disk],
        title: format!("{folder:?}"),
        paths: vec![folder.to_path_buf()],
        folder: Some(folder.to_path_buf()),
    })
}

fn open_images(paths: &[PathBuf]) -> anyhow::Result<Source> {
    let open =
        |path: &PathBuf| HostDisk::open_image(path, true).with_context(|| format!("can't open the image {path:?}"));
    let disks = paths.iter().map(open).collect::<anyhow::Result<Vec<_>>>()?;
    let title = match paths {
        [path] => format!("{path:?}"),
        paths => format!("{} images", paths.len()),
    };
    Ok(Source { disks, title, paths: paths.to_vec(), folder: None })
}

fn warn_of_skipped(skipped: &[volume::Skipped]) {
    for file in skipped.iter().take(SKIPPED_SHOWN) {
        warn(&format!("not served: {file}"));
    }
    if skipped.len() > SKIPPED_SHOWN {
        warn(&format!("not served: {} files more", skipped.len() - SKIPPED_SHOWN));
    }
}
