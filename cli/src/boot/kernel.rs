//! Where the kernel's ELF is.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The ELF's name.
const NAME: &str = "minicache.elf";

/// The kernel: what the user says, or what lies in this program's folder or in the one above (`target/release/minicache` and
/// `target/minicache.elf`).
pub fn find(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return if path.is_file() { Ok(path) } else { bail!("--kernel: {path:?} is no file") };
    }
    let program = std::env::current_exe().context("can't find out where this program lies")?;
    beside(&program)
}

fn beside(program: &Path) -> anyhow::Result<PathBuf> {
    let places: Vec<PathBuf> = program.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).collect();
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => bail!(
            "the kernel is missing: there is none of {places:?}. `cargo xtask kernel` builds it; --kernel names another place"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn it_lies_beside_the_program_or_above() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("release");
        fs::create_dir(&release).unwrap();
        let program = release.join("minicache");
        let error = beside(&program).unwrap_err().to_string();
        assert!(error.contains("cargo xtask kernel") && error.contains("--kernel"), "{error}");
        fs::write(dir.path().join(NAME), "").unwrap();
        assert_eq!(beside(&program).unwrap(), dir.path().join(NAME));
        fs::write(release.join(NAME), "").unwrap();
        assert_eq!(beside(&program).unwrap(), release.join(NAME));

        assert_eq!(find(Some(release.join(NAME))).unwrap(), release.join(NAME));
        assert!(find(Some(release.join("other"))).unwrap_err().to_string().contains("--kernel"));
    }
}
