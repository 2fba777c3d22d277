//! Where QEMU's monitor is: what `minicache trace` speaks to. Whoever can reach it controls the machine.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::terminal::warn;

/// Longest name of a socket, in bytes (`sockaddr_un` of Linux, without the zero at the end).
const MAX_BYTES: usize = 107;

/// What `--monitor` says.
#[derive(Clone, Debug)]
pub enum MonitorAt {
    /// There is to be none.
    Nowhere,
    /// This socket.
    Socket(PathBuf),
}

/// Reads `--monitor`.
pub fn parse(text: &str) -> Result<MonitorAt, String> {
    match text {
        "" => Err("give the name of a socket".to_owned()),
        "none" => Ok(MonitorAt::Nowhere),
        path => Ok(MonitorAt::Socket(path.into())),
    }
}

/// The socket's place: what the user says, or else in `folder`, which only this user can enter.
///
/// # Errors
/// If the user's can't be.
pub fn place(given: Option<MonitorAt>, folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let fits = |path: &Path| path.as_os_str().as_bytes().len() <= MAX_BYTES;
    match given {
        Some(MonitorAt::Nowhere) => Ok(None),
        Some(MonitorAt::Socket(path)) => {
            ensure!(fits(&path), "--monitor: a socket's name has at most {MAX_BYTES} bytes, and {path:?} has more");
            ensure!(!path.exists(), "--monitor: {path:?} is there already: remove it, or choose another");
            Ok(Some(path))
        }
        None => {
            let path = folder.join("monitor");
            if !fits(&path) {
                warn(&format!("no monitor: {path:?} is too long for a socket (--monitor names another place)"));
                return Ok(None);
            }
            Ok(Some(path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_where_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, at) = (folder.path(), |path: PathBuf| Some(MonitorAt::Socket(path)));
        assert_eq!(place(None, folder).unwrap(), Some(folder.join("monitor")));
        assert_eq!(place(None, &folder.join("x".repeat(100))).unwrap(), None);
        assert_eq!(place(Some(parse("none").unwrap()), folder).unwrap(), None);
        assert_eq!(place(at(folder.join("a")), folder).unwrap(), Some(folder.join("a")));
        assert!(place(at(folder.to_owned()), folder).unwrap_err().to_string().contains("is there already"));
        assert!(place(at(folder.join("x".repeat(100))), folder).unwrap_err().to_string().contains("107 bytes"));
        assert!(parse("").is_err());
    }
}
