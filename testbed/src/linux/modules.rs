//! Modules of Linux's kernel, each behind those that it depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::packed::unpack;

/// A module.
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF.
    pub content: Vec<u8>,
}

/// The modules that these drivers need, and they themselves, in the order in which they are to be inserted. `folder` holds those of
/// one kernel. What the kernel has built in is left out.
pub fn in_order(folder: &Path, drivers: &[&str]) -> Result<Vec<Module>> {
    let list = folder.join("modules.builtin");
    let built_in = fs::read_to_string(&list).with_context(|| format!("can't read {}", list.display()))?;
    let built_in = built_in.lines().filter_map(|line| module_name(Path::new(line))).collect();
    let mut search = Search { built_in, places: places(folder)?, found: Vec::new() };
    drivers.iter().try_for_each(|driver| search.add(driver))?;
    Ok(search.found)
}

struct Search {
    built_in: Vec<String>,
    places: BTreeMap<String, PathBuf>,
    found: Vec<Module>,
}

impl Search {
    /// Adds a module behind those that it depends on.
    fn add(&mut self, wanted: &str) -> Result<()> {
        let known = |name: &str| name == wanted;
        if self.built_in.iter().any(|name| known(name)) || self.found.iter().any(|module| known(&module.name)) {
            return Ok(());
        }
        let place = self.places.get(wanted).with_context(|| format!("Debian's kernel has no module {wanted}"))?;
        let content = fs::read(place).with_context(|| format!("can't read {}", place.display()))?;
        let content = unpack(content).with_context(|| format!("{} can't be unpacked", place.display()))?;
        needs(&content).iter().try_for_each(|needed| self.add(needed))?;
        self.found.push(Module { name: wanted.to_owned(), content });
        Ok(())
    }
}

/// Where the modules are.
fn places(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut places = BTreeMap::new();
    let mut folders = vec![folder.join("kernel")];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("can't read {}", next.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if let Some(name) = module_name(&entry.path()) {
                places.insert(name, entry.path());
            }
        }
    }
    Ok(places)
}

/// The name of a module's file, which may be packed.
fn module_name(path: &Path) -> Option<String> {
    let (name, rest) = path.file_name()?.to_str()?.split_once(".ko")?;
    ["", ".xz", ".gz", ".zst"].contains(&rest).then(|| name.replace('-', "_"))
}

/// What a module says that it depends on (`depends=a,b` among its information).
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read() {
        assert_eq!(needs(b"xx\0license=GPL\0depends=virtio-ring,virtio\0name=y\0"), ["virtio_ring", "virtio"]);
        assert!(needs(b"\0depends=\0").is_empty() && needs(b"nothing").is_empty());
        assert_eq!(needs(b"\0depends=cut"), ["cut"]);
    }

    #[test]
    fn modules_come_behind_those_that_they_need() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("kernel/net")).unwrap();
        fs::write(path("modules.builtin"), "kernel/lib/crc.ko\n").unwrap();
        fs::write(path("kernel/net/bridge.ko"), b"\0depends=stp,crc\0").unwrap();
        fs::write(path("kernel/stp.ko"), b"\0depends=l-l-c\0").unwrap();
        fs::write(path("kernel/l-l-c.ko"), b"\0depends=\0").unwrap();
        let found = in_order(folder.path(), &["stp", "crc", "bridge"]).unwrap();
        assert_eq!(found.iter().map(|module| &module.name).collect::<Vec<_>>(), ["l_l_c", "stp", "bridge"]);
        let error = in_order(folder.path(), &["missing"]).err().unwrap();
        assert!(error.to_string().contains("missing"), "{error}");
    }
}
