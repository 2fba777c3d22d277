//! What lies in a folder.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Every file of a folder and of the folders in it: its path from there, with slashes, and its content. In order of the paths.
pub fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("{next:?} can't be read"))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it was found there");
                let name = name.to_str().with_context(|| format!("{path:?} is not UTF-8"))?.to_owned();
                found.push((name, fs::read(&path)?));
            }
        }
    }
    found.sort();
    Ok(found)
}
