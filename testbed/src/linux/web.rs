//! A Linux that serves files by nginx and has nothing else.

use anyhow::Result;

use super::{Debian, System};
use crate::cpio::Archive;

/// What the console says when nginx listens.
pub const SERVES: &str = "nginx listens";

/// Debian's package, which [`Debian::get`] must have been asked for.
pub const PACKAGE: &str = "nginx";

/// nginx asks for these names, though it runs as root.
const USERS: &[u8] = b"root:x:0:0::/:\nwww-data:x:33:33::/:\nnobody:x:65534:65534::/:\n";
const GROUPS: &[u8] = b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n";

/// Brings up the network at the command line's `address`, and nginx. Then it does what the console says, line by line.
pub(crate) const INIT: &str = "set -e
echo reno >/proc/sys/net/ipv4/tcp_congestion_control
ip link set lo up
ip address add $address dev eth0
ip link set eth0 up
nginx -c /etc/nginx.conf
echo nginx listens
set +e
while read -r line; do eval \"$line\"; done
exec sleep 1000000
";

/// The archive of the system with these drivers ([`VIRTIO`](super::VIRTIO), [`XEN`](super::XEN)), without what it serves. It wants a
/// variable `address` (`10.0.0.2/24`) on the kernel's command line.
///
/// # Errors
/// If the packages lack something.
pub fn archive(debian: &Debian, drivers: &[&str]) -> Result<Vec<u8>> {
    let files = [("etc/passwd", USERS), ("etc/group", GROUPS)];
    debian.archive(&System { programs: &["sbin/nginx"], drivers, files: &files, init: INIT })
}

/// What it serves, as another archive to be put behind the first: nginx's configuration, and the files of its folder `/www`.
pub fn content(configuration: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.file("etc/nginx.conf", configuration.as_bytes());
    // nginx does not start without the folders of its defaults.
    ["var/lib/nginx", "var/log/nginx", "www"].iter().for_each(|folder| archive.folder(folder));
    for (name, content) in files {
        archive.file(&format!("www/{name}"), content);
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_it_serves() {
        assert!(INIT.contains(&format!("echo {SERVES}\n")));
    }
}
