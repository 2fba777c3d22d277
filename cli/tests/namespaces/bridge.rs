//! `minicache bridge` between two foreign hosts.

use std::fs;
use std::process::{Child, Stdio};

use testbed::Namespace;

use crate::bed::{is_impossible, noise};

/// Ends a program with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Fetches an object through a bridge with this impairment, from a server of Linux's TCP, and pings with the longest packets. The
/// interfaces get their MTU when the bridge is there, and one is in another namespace.
fn linux_hears_linux_through(impairment: &str, mtu_bytes: usize, bytes: usize) {
    if is_impossible(&["curl", "ip", "ping"]) {
        return;
    }
    let (near, far) = (Namespace::new().unwrap(), Namespace::new().unwrap());
    let mut bridge = near.command(env!("CARGO_BIN_EXE_minicache"));
    bridge.args(["bridge", "near", "far", "--impair", impairment]).stdout(Stdio::null());
    let _bridge = Ended(bridge.spawn().unwrap());
    near.wait_for_interface("far").unwrap();
    near.run("ip", &["link", "set", "far", "netns", &far.pid().to_string()]).unwrap();
    for (namespace, end, address) in [(&near, "near", "10.0.0.1/24"), (&far, "far", "10.0.0.2/24")] {
        namespace.run("ip", &["address", "add", address, "dev", end]).unwrap();
        namespace.run("ip", &["link", "set", end, "mtu", &mtu_bytes.to_string(), "up"]).unwrap();
    }
    // Without the headers of IPv4 and ICMP.
    let ping_bytes = (mtu_bytes - 28).to_string();
    near.run("ping", &["-c", "20", "-i", "0.05", "-W", "5", "-M", "do", "-s", &ping_bytes, "10.0.0.2"]).unwrap();

    let temporary = tempfile::tempdir().unwrap();
    let object = noise(&[bytes]).remove(0);
    fs::write(temporary.path().join("object"), &object.content).unwrap();
    let mut server = far.command(env!("CARGO_BIN_EXE_minicache"));
    server.arg("serve").arg(temporary.path()).args(["--listen", "10.0.0.2:8080", "--shell", "none"]);
    let _server = Ended(server.stdout(Stdio::null()).spawn().unwrap());
    far.wait_for("http://10.0.0.2:8080/object").unwrap();
    let got = temporary.path().join("got");
    near.run(
        "curl",
        &[
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "60",
            "--output",
            got.to_str().unwrap(),
            "http://10.0.0.2:8080/object",
        ],
    )
    .unwrap();
    assert!(fs::read(got).unwrap() == object.content);
}

#[test]
fn a_clean_bridge() {
    linux_hears_linux_through("loss=0%", 1500, 50_000_000);
}

#[test]
fn a_bridge_for_jumbo_frames() {
    linux_hears_linux_through("seed=1", 9000, 50_000_000);
    linux_hears_linux_through("tx.duplicate=1%", 20_000, 10_000_000);
}

#[test]
fn a_bad_bridge() {
    linux_hears_linux_through("loss=1%,reorder=1%,duplicate=1%,corrupt=1%,delay=2ms,seed=1", 1500, 1_000_000);
}
