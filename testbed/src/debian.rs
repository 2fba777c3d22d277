//! Debian packages, by name, fetched by apt and unpacked beside the system: nothing is installed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What the names of libraries' packages begin with.
const LIBRARIES: [&str; 2] = ["lib", "zlib"];

/// apt's options: it fetches as whoever this is, since its own user can't write here.
const OPTIONS: [&str; 4] = ["--quiet", "--quiet", "--option", "APT::Sandbox::User=root"];

/// Unpacks these packages, and the libraries that they need, into one folder under `cache`, and returns it. What is there already
/// is not fetched again.
///
/// # Errors
/// If apt does not know a package, or can't fetch it.
pub fn unpacked(cache: &Path, packages: &[&str]) -> Result<PathBuf> {
    let (root, had) = (cache.join("root"), cache.join("had"));
    for folder in [&root, &had] {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let _lock = lock(cache)?;
    let wanted = with_libraries(packages)?;
    let missing: Vec<&str> = wanted.iter().map(String::as_str).filter(|package| !had.join(package).exists()).collect();
    if missing.is_empty() {
        return Ok(root);
    }
    let fetched = tempfile::tempdir_in(cache)?;
    let arguments = [&["download"], &OPTIONS[..], &missing].concat();
    with_fresh_lists(|| output("apt-get", &arguments, fetched.path()))?;
    for entry in fs::read_dir(fetched.path())? {
        output("dpkg-deb", &[OsStr::new("--extract"), entry?.path().as_os_str(), root.as_os_str()], cache)?;
    }
    for package in missing {
        fs::write(had.join(package), "")?;
    }
    Ok(root)
}

/// What `package` depends on directly, as far as the name begins so.
///
/// # Errors
/// If apt does not know the package.
pub fn dependencies(package: &str, prefix: &str) -> Result<Vec<String>> {
    let mut graph = graph(&["depends", package])?;
    let direct = graph.remove(package).unwrap_or_default();
    Ok(direct.into_iter().filter(|name| name.starts_with(prefix)).collect())
}

/// Waits until no other process works in this folder; they wait until the lock is dropped.
///
/// # Errors
/// If nothing can be written there.
pub fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let open = || {
        let file = File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    open().with_context(|| format!("can't lock {}", path.display()))
}

/// Runs a command, which must succeed, and returns what it printed.
///
/// # Errors
/// If it fails, with what it complained about.
pub fn output<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: &[A], folder: &Path) -> Result<String> {
    let mut command = Command::new(program);
    // What it says is read, and should not be said in another language.
    command.args(arguments).current_dir(folder).env("LC_ALL", "C");
    let output = command.output().with_context(|| format!("can't start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The packages and the libraries that they need, and those that these need.
fn with_libraries(packages: &[&str]) -> Result<BTreeSet<String>> {
    let graph = graph(&[&["depends", "--recurse"], packages].concat())?;
    Ok(reached(&graph, packages))
}

fn reached(graph: &BTreeMap<String, Vec<String>>, packages: &[&str]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<String> = packages.iter().map(|package| (*package).to_owned()).collect();
    while let Some(package) = next.pop() {
        // Libraries may depend on each other in circles.
        if !found.insert(package.clone()) {
            continue;
        }
        let needed = graph.get(&package).into_iter().flatten();
        next.extend(needed.filter(|name| LIBRARIES.iter().any(|prefix| name.starts_with(prefix))).cloned());
    }
    found
}

/// What depends on what, as apt tells it.
fn graph(arguments: &[&str]) -> Result<BTreeMap<String, Vec<String>>> {
    Ok(parsed(&with_fresh_lists(|| output("apt-cache", arguments, Path::new("/")))?))
}

/// Of alternatives the first counts.
fn parsed(said: &str) -> BTreeMap<String, Vec<String>> {
    let mut graph = BTreeMap::<String, Vec<String>>::new();
    let (mut package, mut is_alternative) = (String::new(), false);
    for line in said.lines() {
        if !line.starts_with([' ', '|']) {
            line.clone_into(&mut package);
            continue;
        }
        let more_follow = line.starts_with(" |");
        let Some((kind, name)) = line.trim_start_matches([' ', '|']).split_once(": ") else { continue };
        if !is_alternative && ["Depends", "PreDepends"].contains(&kind) {
            graph.entry(package.clone()).or_default().push(name.to_owned());
        }
        is_alternative = more_follow;
    }
    graph
}

/// Does it, and if that fails once more with fresh package lists, where this user may fetch them.
fn with_fresh_lists<T>(mut action: impl FnMut() -> Result<T>) -> Result<T> {
    action().or_else(|error| {
        let fresh = output("apt-get", &[&["update"], &OPTIONS[..]].concat(), Path::new("/"));
        match fresh {
            Ok(_) => action(),
            Err(_) => Err(error).context("apt may lack package lists: as root, `apt-get update` fetches them"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_of_libraries_are_found_and_other_packages_are_not() {
        let said = "curl\n  Depends: libc6\n |Depends: liba\n  Depends: libb\n  Depends: python3\n  Suggests: libno\n\
                    liba\n  PreDepends: zlib1g\n  Depends: <libvirtual>\n    libreal\n  Conflicts: libnever\n\
                    zlib1g\n  Depends: liba\nlibb\npython3\n  Depends: libpython\n";
        let graph = parsed(said);
        assert_eq!(graph["curl"], ["libc6", "liba", "python3"]);
        let found: Vec<String> = reached(&graph, &["curl", "busybox"]).into_iter().collect();
        assert_eq!(found, ["busybox", "curl", "liba", "libc6", "zlib1g"]);
    }

    #[test]
    fn a_folder_is_locked_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        let other = File::create(folder.path().join("lock")).unwrap();
        assert!(other.try_lock().is_err());
        drop(held);
        other.try_lock().unwrap();
    }
}
