//! Small Linux systems that live in memory: Debian's kernel, busybox, and those programs and drivers that are asked for, with the
//! libraries and modules that these need.

mod modules;
mod packed;
pub mod web;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cpio::Archive;
use crate::debian::{dependencies, output, unpacked};

pub(crate) use packed::{obstacle, unpack};

/// Debian's name of the libraries' folder.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// Who loads them, and where programs expect it.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Drivers of virtio's network device on PCI.
pub const VIRTIO: [&str; 2] = ["virtio_pci", "virtio_net"];

/// Drivers of a Xen guest's devices.
pub const XEN: [&str; 2] = ["xen_netfront", "xen_blkfront"];

/// Folders that are there even if nothing is in them.
const FOLDERS: [&str; 8] = ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];

/// How the first program begins. Until there is `/proc`, the shell does not find its own programs.
pub(crate) const BEGIN: &str = "#!/bin/busybox sh
export PATH=/bin HOME=/root
/bin/busybox mount -t proc proc /proc
mount -t devtmpfs dev /dev
mount -t sysfs sys /sys
";

/// What a system consists of, beside busybox.
#[derive(Clone, Copy, Debug, Default)]
pub struct System<'a> {
    /// Programs, by their path in Debian's packages. They come to lie in `/bin`.
    pub programs: &'a [&'a str],
    /// Drivers that are modules, by their names with underscores: inserted in this order.
    pub drivers: &'a [&'a str],
    /// More files: path without a slash before it, and content. They may be executed.
    pub files: &'a [(&'a str, &'a [u8])],
    /// What the first program, a shell, does when the file systems are mounted and the drivers are there.
    pub init: &'a str,
}

/// Unpacked packages of Debian, with a kernel among them.
pub struct Debian {
    root: PathBuf,
    /// The kernel's release.
    release: String,
}

impl Debian {
    /// Fetches what is missing in the folder `cache`: these packages, busybox, and the kernel that `kernel` depends on
    /// (`linux-image-amd64`).
    ///
    /// # Errors
    /// If apt does not know or can't fetch one of them.
    pub fn get(cache: &Path, kernel: &str, packages: &[&str]) -> Result<Self> {
        const PREFIX: &str = "linux-image-";
        let image = dependencies(kernel, PREFIX)?.pop();
        let image = image.with_context(|| format!("Debian's package {kernel} depends on no kernel"))?;
        let root = unpacked(cache, &[packages, &["busybox-static", &image]].concat())?;
        Ok(Self { root, release: image[PREFIX.len()..].to_owned() })
    }

    /// The kernel as Debian ships it.
    pub fn kernel(&self) -> Result<PathBuf> {
        self.file(&format!("boot/vmlinuz-{}", self.release))
    }

    /// The kernel as an ELF, which Xen boots.
    pub fn vmlinux(&self) -> Result<Vec<u8>> {
        packed::vmlinux(&read(&self.kernel()?)?)
    }

    /// A file of the packages, which may lie below `usr` as well.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        let places = ["", "usr/"].map(|prefix| self.root.join(format!("{prefix}{path}")));
        let found = places.into_iter().find(|place| place.exists());
        found.with_context(|| format!("Debian's packages lack {path}, which they used to have"))
    }

    /// The archive that the kernel unpacks at its start, and whose `/init` it runs.
    pub fn archive(&self, system: &System<'_>) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        FOLDERS.iter().for_each(|folder| archive.folder(folder));
        archive.file("bin/busybox", &read(&self.file("bin/busybox")?)?);
        archive.link("bin/sh", "busybox");
        let mut libraries = BTreeMap::new();
        for program in system.programs {
            let program = self.file(program)?;
            archive.file(&format!("bin/{}", name(&program)), &read(&program)?);
            libraries.extend(self.libraries(&program)?.into_iter().map(|library| (name(&library), library)));
        }
        if !libraries.is_empty() {
            archive.file(&format!("lib64/{LOADER}"), &read(&self.loader()?)?);
        }
        for (name, library) in libraries {
            archive.file(&format!("{LIBRARIES}/{name}"), &read(&library)?);
        }
        let modules = modules::in_order(&self.file(&format!("lib/modules/{}", self.release))?, system.drivers)?;
        for module in &modules {
            archive.file(&format!("modules/{}.ko", module.name), &module.content);
        }
        for (path, content) in system.files {
            archive.file(path, content);
        }
        archive.file("init", init(&modules, system.init).as_bytes());
        Ok(archive.finish())
    }

    fn loader(&self) -> Result<PathBuf> {
        self.file(&format!("{LIBRARIES}/{LOADER}"))
    }

    /// The libraries of a program, all of them among the unpacked.
    fn libraries(&self, program: &Path) -> Result<Vec<PathBuf>> {
        let mut places = ["", "usr/"].map(|prefix| self.root.join(format!("{prefix}{LIBRARIES}"))).to_vec();
        // Some packages have libraries of their own, beside their programs.
        places.extend(program.ancestors().nth(2).map(|own| own.join(LIBRARIES)));
        let places = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(":");
        let program = program.display().to_string();
        let listed = output(self.loader()?, &["--library-path", &places, "--list", &program], Path::new("/"))?;
        let mut libraries = Vec::new();
        for line in listed.lines() {
            // `libz.so.1 => /place/libz.so.1 (0x…)`; the loader itself and the kernel's page have no such arrow.
            let Some((wanted, place)) = line.trim().split_once(" => ") else { continue };
            let place = Path::new(place.split(" (").next().unwrap_or(place));
            if wanted.ends_with(LOADER) {
                continue;
            }
            ensure!(place.starts_with(&self.root), "no package brings {wanted}");
            libraries.push(place.to_owned());
        }
        Ok(libraries)
    }
}

/// The first program.
fn init(modules: &[modules::Module], then: &str) -> String {
    let insert = modules.iter().map(|module| format!("insmod /modules/{}.ko\n", module.name)).collect::<String>();
    format!("{BEGIN}{insert}{then}")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
