//! Debian packages, by name, fetched by apt and unpacked beside the system: nothing is installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Unpacks these packages into one folder under `cache`, and returns it. What is there already is not fetched again.
pub fn unpacked(cache: &Path, packages: &[String]) -> Result<PathBuf> {
    let (root, had) = (cache.join("root"), cache.join("had"));
    for folder in [&root, &had] {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    for package in packages {
        let mark = had.join(package);
        if mark.exists() {
            continue;
        }
        let fetched = tempfile::tempdir_in(cache)?;
        output("apt-get", &["download", "--quiet", "--quiet", package], fetched.path())?;
        for entry in fs::read_dir(fetched.path())? {
            output("dpkg-deb", &[OsStr::new("--extract"), entry?.path().as_os_str(), root.as_os_str()], cache)?;
        }
        fs::write(mark, "")?;
    }
    Ok(root)
}

/// What `package` depends on directly, as far as the name begins so.
pub fn dependencies(package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
    let said = output("apt-cache", &["depends", package], Path::new("/"))?;
    let names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let wanted = names.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    Ok(wanted.map(str::to_owned).collect())
}

/// Runs a command, which must succeed, and returns what it printed.
pub fn output<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A], folder: &Path) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    let output = command.output().with_context(|| format!("can't start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
