//! A Linux that serves files by nginx and has nothing else: Debian's kernel, busybox and nginx with its libraries, in memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::cpio::Archive;
use crate::debian::{dependencies, output, unpacked};
use crate::nginx;

/// What the console says when nginx listens.
pub const SERVES: &str = "nginx listens";

/// Debian's name of the libraries' folder.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
/// Who loads them, and where programs expect it.
const LOADER: &str = "ld-linux-x86-64.so.2";

/// Drivers that are modules. What they depend on comes with them.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];

/// nginx asks for these names, though it runs as root.
const USERS: &str = "root:x:0:0::/:\nwww-data:x:33:33::/:\nnobody:x:65534:65534::/:\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// The unpacked packages.
pub struct Debian {
    root: PathBuf,
}

impl Debian {
    /// Fetches what is missing in `cache`.
    pub fn new(cache: &Path) -> Result<Self> {
        let mut packages = dependencies("linux-image-cloud-amd64", &["linux-image-"])?;
        packages.extend(dependencies("nginx", &["lib", "zlib"])?);
        packages.extend(["nginx", "busybox-static"].map(str::to_owned));
        Ok(Self { root: unpacked(cache, &packages)? })
    }

    /// The newest kernel.
    pub fn kernel(&self) -> Result<PathBuf> {
        let mut kernels = files(&self.root.join("boot"), "vmlinuz-")?;
        kernels.sort();
        kernels.pop().context("Debian's kernel package has no kernel")
    }

    /// The archive that it unpacks at its start, which serves these objects.
    pub fn archive(&self, objects: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "etc", "lib", LIBRARIES, "lib64", "modules", "proc", "run", "sys", "www"] {
            archive.folder(folder);
        }
        let nginx = self.root.join("usr/sbin/nginx");
        archive.file("bin/nginx", &read(&nginx)?);
        archive.file("bin/busybox", &read(&self.found(&["bin/busybox", "usr/bin/busybox"])?)?);
        archive.file(&format!("lib64/{LOADER}"), &read(&self.loader()?)?);
        for library in self.libraries(&nginx)? {
            archive.file(&format!("{LIBRARIES}/{}", name(&library)), &read(&library)?);
        }
        let mut modules = Vec::new();
        for driver in DRIVERS {
            self.add_module(driver, &mut modules)?;
        }
        for module in &modules {
            archive.file(&format!("modules/{}", name(module)), &read(module)?);
        }
        archive.file("etc/passwd", USERS.as_bytes());
        archive.file("etc/group", GROUPS.as_bytes());
        archive.file("etc/nginx.conf", nginx::configuration("on", "/www", "/run", "80").as_bytes());
        for (name, content) in objects {
            archive.file(&format!("www/{name}"), content);
        }
        archive.file("init", init(&modules).as_bytes());
        Ok(archive.finish())
    }

    fn found(&self, places: &[&str]) -> Result<PathBuf> {
        let mut places = places.iter().map(|place| self.root.join(place));
        places.find(|place| place.exists()).context("Debian's packages lack a file that they used to have")
    }

    fn loader(&self) -> Result<PathBuf> {
        self.found(&[&format!("{LIBRARIES}/{LOADER}"), &format!("usr/{LIBRARIES}/{LOADER}")])
    }

    /// The libraries of a program, all of them among the unpacked.
    fn libraries(&self, program: &Path) -> Result<Vec<PathBuf>> {
        let places = ["", "usr/"].map(|prefix| self.root.join(format!("{prefix}{LIBRARIES}")).display().to_string());
        let (places, program) = (places.join(":"), program.display().to_string());
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

    /// Adds a module behind those that it depends on.
    fn add_module(&self, wanted: &str, modules: &mut Vec<PathBuf>) -> Result<()> {
        let kernel = self.kernel()?;
        let release = name(&kernel).replace("vmlinuz-", "");
        let places = ["lib/modules", "usr/lib/modules"].map(|place| format!("{place}/{release}/kernel"));
        let folder = self.found(&places.each_ref().map(String::as_str))?;
        // Those of the kernel itself, and those that are there already.
        let listed = output("find", &[folder.as_os_str(), "-name".as_ref(), "*.ko".as_ref()], Path::new("/"))?;
        let called = |path: &&str| name(Path::new(path)).trim_end_matches(".ko").replace('-', "_") == wanted;
        let module = PathBuf::from(listed.lines().find(called).with_context(|| format!("no module {wanted}"))?);
        if modules.contains(&module) {
            return Ok(());
        }
        for needed in needs(&read(&module)?) {
            self.add_module(&needed, modules)?;
        }
        modules.push(module);
        Ok(())
    }
}

/// What a module says that it depends on (`depends=a,b` among its information).
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The first program: brings up the network at the command line's `address`, and nginx.
fn init(modules: &[PathBuf]) -> String {
    let insert = modules.iter().map(|module| format!("$b insmod /modules/{}\n", name(module))).collect::<String>();
    format!(
        "#!/bin/busybox sh
set -e
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
{insert}echo reno >/proc/sys/net/ipv4/tcp_congestion_control
$b ip link set lo up
$b ip address add $address dev eth0
$b ip link set eth0 up
/bin/nginx -c /etc/nginx.conf
echo {SERVES}
exec $b sleep 1000000
"
    )
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("can't read {}", path.display()))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder whose name begins so.
fn files(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| name(path).starts_with(prefix)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read() {
        assert_eq!(needs(b"xx\0license=GPL\0depends=virtio_ring,virtio\0name=y\0"), ["virtio_ring", "virtio"]);
        assert!(needs(b"\0depends=\0").is_empty() && needs(b"nothing").is_empty());
        assert_eq!(needs(b"\0depends=cut"), ["cut"]);
    }
}
