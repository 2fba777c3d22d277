//! `minicache shfs cat`: the content of an object.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use minicache::cache::shfs::{Content, Directory, ObjectId};

use super::image::Image;
use super::list::url;
use super::text::from_hex;
use crate::terminal::{Output, printable};

/// Writes the content of `object` on the volume that the images hold.
pub fn run(images: &[PathBuf], object: &OsStr, output: &mut Output) -> anyhow::Result<()> {
    let mut image = Image::open(images)?;
    let id = find(&image.volume.directory, object.as_bytes())?;
    if let Content::Link(link) = image.volume.directory.get(id).content {
        bail!("{object:?} is a link to {}, whose content is not on the volume", url(&link));
    }
    image.read(id, |bytes| Ok(output.write_all(bytes)?)).with_context(|| format!("can't read {object:?}"))
}

/// Finds an object by its exact name, by `?` and its digest, or by its name behind a slash.
fn find(directory: &Directory, object: &[u8]) -> anyhow::Result<ObjectId> {
    let by_digest = || directory.by_digest(&from_hex(object.strip_prefix(b"?")?)?);
    let behind_slash = || directory.by_name(object.strip_prefix(b"/")?);
    let found = directory.by_name(object).or_else(by_digest).or_else(behind_slash);
    found.with_context(|| {
        let shown = printable(object);
        match object.strip_prefix(b"?") {
            Some(digits) if from_hex(digits).is_none_or(|digest| digest.len() != directory.digest_bytes()) => {
                let digits = 2 * directory.digest_bytes();
                format!("{shown} is no digest of this volume: they have {digits} hexadecimal digits")
            }
            _ => format!("there is no object {shown}; `minicache shfs ls` lists those that there are"),
        }
    })
}
