//! Finds the files of a folder: which are objects, under which names, and which are left out and why.
//!
//! Names are paths relative to the folder, with `/`, byte for byte as the file system has them. Symbolic links are
//! followed as long as they stay inside the folder; what leads out of it is left out, so that publishing a folder never
//! publishes more than the folder. Hidden files are objects like any others (`.well-known` has to be), but for what
//! version control and desktops leave behind.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use minicache::cache::shfs::format::MAX_NAME_BYTES;
use walkdir::WalkDir;

/// Most files of a folder, so that a mistaken root (`/`) is an error and not an hour of waiting.
const MAX_FILES: usize = 1 << 22;

/// Names that are never objects, at any depth.
const LEFT_BEHIND: [&str; 5] = [".git", ".gitignore", ".hg", ".svn", ".DS_Store"];

/// A file that becomes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The object's name: 1 to 64 bytes.
    pub name: Vec<u8>,
    /// Where the file is.
    pub path: PathBuf,
    /// Length in bytes when the folder was walked.
    pub length_bytes: u64,
    /// Time of the last modification when the folder was walked.
    pub modified: SystemTime,
}

/// Why something in the folder is not an object.
#[derive(Debug)]
pub enum SkipReason {
    /// The name has so many bytes; an SHFS name has at most 64.
    NameTooLong(usize),
    /// The file or folder can't be read.
    Unreadable(io::Error),
    /// A symbolic link that leads out of the folder.
    LeadsOutside,
    /// A symbolic link that leads nowhere.
    Dangling(io::Error),
    /// A symbolic link to a folder that holds it.
    Loop,
    /// Not a file: a socket, a FIFO or a device.
    Special(&'static str),
    /// What version control or a desktop left behind.
    LeftBehind,
}

impl SkipReason {
    /// Whether leaving it out loses content that was meant to be published: then `pack` refuses, unless told to skip.
    pub fn loses_content(&self) -> bool {
        matches!(self, Self::NameTooLong(_) | Self::Unreadable(_))
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTooLong(bytes) => write!(f, "the name has {bytes} bytes, SHFS holds {MAX_NAME_BYTES}"),
            Self::Unreadable(error) => write!(f, "can't be read: {error}"),
            Self::LeadsOutside => f.write_str("the symbolic link leads out of the folder"),
            Self::Dangling(error) => write!(f, "the symbolic link can't be followed: {error}"),
            Self::Loop => f.write_str("the symbolic link leads to a folder that holds it"),
            Self::Special(kind) => write!(f, "{kind} is not a file"),
            Self::LeftBehind => f.write_str("belongs to version control or the desktop"),
        }
    }
}

/// Something in the folder that is not an object.
#[derive(Debug)]
pub struct Skipped {
    /// Path relative to the folder.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug quotes the path and escapes what would disturb a terminal.
        write!(f, "{:?}: {}", self.path, self.reason)
    }
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Walk {
    /// The objects-to-be, by name.
    pub files: Vec<SourceFile>,
    /// What is left out, by path.
    pub skipped: Vec<Skipped>,
}

/// Walks `root`. Fails if it is not a readable folder; anything wrong below it is a [`Skipped`].
pub fn walk(root: &Path) -> anyhow::Result<Walk> {
    let real_root = root.canonicalize().with_context(|| format!("can't find the folder {root:?}"))?;
    ensure!(real_root.is_dir(), "{root:?} is not a folder");
    std::fs::read_dir(&real_root).with_context(|| format!("can't read the folder {root:?}"))?;

    let mut found = Walk::default();
    let mut entries = WalkDir::new(&real_root).min_depth(1).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        if found.files.len() + found.skipped.len() >= MAX_FILES {
            bail!("{root:?} holds more than {MAX_FILES} files; choose a folder further down");
        }
        let (path, outcome) = match entry {
            Err(error) => {
                let path = error.path().unwrap_or(&real_root).to_path_buf();
                (path, Outcome::Skip(reason_of(error)))
            }
            Ok(entry) => {
                let outcome = judge(&entry, &real_root);
                if entry.file_type().is_dir() && matches!(outcome, Outcome::Skip(_)) {
                    entries.skip_current_dir();
                }
                (entry.into_path(), outcome)
            }
        };
        let relative = path.strip_prefix(&real_root).unwrap_or(&path).to_path_buf();
        match outcome {
            Outcome::Descend => {}
            Outcome::Skip(reason) => found.skipped.push(Skipped { path: relative, reason }),
            Outcome::Take { length_bytes, modified } => {
                let name = relative.as_os_str().as_bytes().to_vec();
                if name.len() > MAX_NAME_BYTES {
                    found.skipped.push(Skipped { path: relative, reason: SkipReason::NameTooLong(name.len()) });
                } else {
                    found.files.push(SourceFile { name, path, length_bytes, modified });
                }
            }
        }
    }
    found.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    found.skipped.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

enum Outcome {
    Descend,
    Skip(SkipReason),
    Take { length_bytes: u64, modified: SystemTime },
}

fn judge(entry: &walkdir::DirEntry, real_root: &Path) -> Outcome {
    if LEFT_BEHIND.iter().any(|name| entry.file_name() == OsStr::new(name)) {
        return Outcome::Skip(SkipReason::LeftBehind);
    }
    // Only links can lead outside: a folder that was reached through an inner link holds inner entries.
    if entry.path_is_symlink() {
        match entry.path().canonicalize() {
            Ok(target) if target.starts_with(real_root) => {}
            Ok(_) => return Outcome::Skip(SkipReason::LeadsOutside),
            Err(error) => return Outcome::Skip(SkipReason::Dangling(error)),
        }
    }
    let kind = entry.file_type();
    if kind.is_dir() {
        return Outcome::Descend;
    }
    if !kind.is_file() {
        return Outcome::Skip(SkipReason::Special(if kind.is_socket() {
            "a socket"
        } else if kind.is_fifo() {
            "a FIFO"
        } else {
            "a device"
        }));
    }
    // Opened, since permissions of a file that has them can still be refused by its file system.
    let metadata = File::open(entry.path()).and_then(|file| file.metadata());
    match metadata.and_then(|metadata| Ok((metadata.len(), metadata.modified()?))) {
        Ok((length_bytes, modified)) => Outcome::Take { length_bytes, modified },
        Err(error) => Outcome::Skip(SkipReason::Unreadable(error)),
    }
}

fn reason_of(error: walkdir::Error) -> SkipReason {
    if error.loop_ancestor().is_some() {
        return SkipReason::Loop;
    }
    let is_link = error.path().is_some_and(|path| path.is_symlink());
    let error = error.into_io_error().unwrap_or_else(|| io::Error::other("can't be walked"));
    if is_link { SkipReason::Dangling(error) } else { SkipReason::Unreadable(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use tempfile::tempdir;

    fn names(found: &Walk) -> Vec<String> {
        found.files.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect()
    }

    fn reason<'a>(found: &'a Walk, path: &str) -> &'a SkipReason {
        &found.skipped.iter().find(|skipped| skipped.path == Path::new(path)).expect(path).reason
    }

    #[test]
    fn names_are_relative_paths_sorted_by_bytes() {
        let dir = tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["a/b/c", "a-b", "a/z", ".well-known", "Z"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let found = walk(dir.path()).unwrap();
        assert_eq!(names(&found), [".well-known", "Z", "a-b", "a/b/c", "a/z"]);
        assert!(found.skipped.is_empty());
        assert_eq!(found.files[3].length_bytes, 5);
    }

    #[test]
    fn names_keep_bytes_that_are_not_utf8() {
        let dir = tempdir().unwrap();
        let name = OsStr::from_bytes(b"caf\xe9.txt");
        fs::write(dir.path().join(name), "x").unwrap();
        assert_eq!(walk(dir.path()).unwrap().files[0].name, b"caf\xe9.txt");
    }

    #[test]
    fn names_of_64_bytes_fit_and_of_65_do_not() {
        let dir = tempdir().unwrap();
        fs::write(dir.path().join("n".repeat(64)), "").unwrap();
        fs::write(dir.path().join("m".repeat(65)), "").unwrap();
        let found = walk(dir.path()).unwrap();
        assert_eq!(names(&found), ["n".repeat(64)]);
        assert!(matches!(reason(&found, &"m".repeat(65)), SkipReason::NameTooLong(65)));
    }

    #[test]
    fn links_are_followed_inside_and_not_outside() {
        let dir = tempdir().unwrap();
        let outside = tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let root = dir.path().join("site");
        fs::create_dir_all(root.join("real")).unwrap();
        fs::write(root.join("real/page"), "p").unwrap();
        symlink("real/page", root.join("alias")).unwrap();
        symlink("real", root.join("folder")).unwrap();
        symlink(outside.path().join("secret"), root.join("leak")).unwrap();
        symlink(outside.path(), root.join("leaks")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink(".", root.join("real/loop")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        symlink("itself", root.join("itself")).unwrap();

        let found = walk(&root).unwrap();
        assert_eq!(names(&found), ["alias", "folder/page", "real/page"]);
        for path in ["leak", "leaks", "up"] {
            assert!(matches!(reason(&found, path), SkipReason::LeadsOutside), "{path}");
        }
        for path in ["real/loop", "folder/loop"] {
            assert!(matches!(reason(&found, path), SkipReason::Loop), "{path}");
        }
        for path in ["dangling", "itself"] {
            assert!(matches!(reason(&found, path), SkipReason::Dangling(_)), "{path}");
        }
        assert!(found.skipped.iter().all(|skipped| !skipped.reason.loses_content()));
    }

    #[test]
    fn a_root_that_is_a_link_is_walked() {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("real")).unwrap();
        fs::write(dir.path().join("real/page"), "p").unwrap();
        symlink("real", dir.path().join("site")).unwrap();
        assert_eq!(names(&walk(&dir.path().join("site")).unwrap()), ["page"]);
    }

    #[test]
    fn what_is_not_a_file_is_left_out() {
        let dir = tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/config"), "x").unwrap();
        fs::write(dir.path().join(".DS_Store"), "x").unwrap();
        let found = walk(dir.path()).unwrap();
        assert!(found.files.is_empty());
        assert!(matches!(reason(&found, "socket"), SkipReason::Special("a socket")));
        assert!(matches!(reason(&found, ".git"), SkipReason::LeftBehind));
        assert_eq!(found.skipped.len(), 3);
    }

    #[test]
    fn a_root_that_is_no_folder_is_an_error() {
        let dir = tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(walk(&file).unwrap_err().to_string().contains("not a folder"));
        assert!(walk(&dir.path().join("none")).unwrap_err().to_string().contains("can't find"));
    }
}
