//! A Linux that serves files by nginx and has nothing else: Debian's kernel, busybox and nginx with its libraries, in memory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use testbed::linux::{self, System};

use crate::nginx;

/// What the console says when nginx listens.
pub const SERVES: &str = "nginx listens";

/// Drivers that are modules.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];

/// nginx asks for these names, though it runs as root.
const USERS: &str = "root:x:0:0::/:\nwww-data:x:33:33::/:\nnobody:x:65534:65534::/:\n";
const GROUPS: &str = "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// The unpacked packages.
pub struct Debian(linux::Debian);

impl Debian {
    /// Fetches what is missing in `cache`.
    pub fn new(cache: &Path) -> Result<Self> {
        Ok(Self(linux::Debian::get(cache, "linux-image-cloud-amd64", &["nginx"])?))
    }

    /// The kernel.
    pub fn kernel(&self) -> Result<PathBuf> {
        self.0.kernel()
    }

    /// The archive that it unpacks at its start, which serves these objects.
    pub fn archive(&self, objects: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
        let configuration = nginx::configuration("on", "/www", "/run", "80");
        let objects: Vec<_> = objects.iter().map(|(name, content)| (format!("www/{name}"), content)).collect();
        let mut files: Vec<(&str, &[u8])> = vec![
            ("etc/passwd", USERS.as_bytes()),
            ("etc/group", GROUPS.as_bytes()),
            ("etc/nginx.conf", configuration.as_bytes()),
        ];
        files.extend(objects.iter().map(|(path, content)| (path.as_str(), content.as_slice())));
        self.0.archive(&System { programs: &["sbin/nginx"], drivers: &DRIVERS, files: &files, init: &init() })
    }
}

/// Brings up the network at the command line's `address`, and nginx.
fn init() -> String {
    format!(
        "set -e
echo reno >/proc/sys/net/ipv4/tcp_congestion_control
ip link set lo up
ip address add $address dev eth0
ip link set eth0 up
nginx -c /etc/nginx.conf
echo {SERVES}
exec sleep 1000000
"
    )
}
