//! `minicache serve --tap`: what it says when it can't, and when its interface is taken away.

use std::fs;
use std::process::{Command, Output};

use crate::support::{fail, minicache};

/// A folder with one file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("index.html"), "hello").unwrap();
    folder
}

#[test]
fn what_is_wrong_with_the_options_is_said_before_anything_is_made() {
    let folder = folder();
    let said = |options: &[&str]| {
        let serve = ["serve", folder.path().to_str().unwrap(), "--tap"];
        fail(&[&serve[..], options].concat())
    };
    assert!(said(&["mc0"]).contains("add --address 10.0.0.2/24"));
    let address = ["--address", "10.0.0.2/24"];
    let with = |name: &str, options: &[&str]| said(&[&[name], &address[..], options].concat());
    assert!(with("a-name-of-sixteen", &[]).contains("1 to 15"));
    assert!(with("mc0", &["--shell", "127.0.0.1:2323"]).contains("--shell none"));
    assert!(with("mc0", &["--gateway", "10.0.0.1", "--gateway", "10.0.0.3"]).contains("one of each"));
    assert!(with("mc0", &["--gateway", "10.1.0.1"]).contains("10.1.0.1 is in none"));
    assert!(said(&["mc0", "--address", "10.0.0.0/24"]).contains("10.0.0.0 is no host's address"));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let refused = |options: &[&str]| {
        let output = minicache(&["serve", "."]).args(options).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let with_listen = refused(&["--tap", "mc0", "--address", "10.0.0.2/24", "--listen", "127.0.0.1:0"]);
    assert!(with_listen.contains("'--tap <NAME>' cannot be used with '--listen"), "{with_listen}");
    assert!(refused(&["--address", "10.0.0.2/24"]).contains("--tap <NAME>"));
    assert!(refused(&["--tap", "mc0", "--address", "10.0.0.2"]).contains("such as 10.0.0.2/24 or fd00::2/64"));
}

/// Runs the server in a network namespace of its own, with the interface `mc0`, and a script from the moment on when it serves.
/// `None`, and the test's name, where that takes a privilege that we don't have.
fn alone(test: &str, options: &[&str], script: &str) -> Option<Output> {
    let is_possible =
        Command::new("unshare").args(["--net", "ip", "tuntap", "add", "dev", "mc0", "mode", "tap"]).output();
    if !is_possible.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "not run: tap::{test}: it takes root, /dev/net/tun, unshare and ip (Debian packages util-linux, iproute2)"
        );
        return None;
    }
    let folder = folder();
    let said = folder.path().join("said");
    let script = format!(
        "\"$0\" \"$@\" > {said:?} & server=$!
         until grep -qs Ctrl-C {said:?}; do kill -0 $server || break; sleep 0.02; done
         {script}
         wait $server; status=$?
         cat {said:?}
         exit $status"
    );
    let output = Command::new("unshare")
        .args(["--net", "timeout", "60", "sh", "-c", &script, env!("CARGO_BIN_EXE_minicache"), "serve"])
        .arg(folder.path())
        .args(["--tap", "mc0", "--address", "10.0.0.2/24", "--address", "fd00::2/64"])
        .args(options)
        .output();
    Some(output.unwrap())
}

#[test]
fn a_server_whose_interface_is_deleted_says_so_and_fails() {
    let test = "a_server_whose_interface_is_deleted_says_so_and_fails";
    let Some(output) = alone(test, &[], "ip link delete mc0") else { return };
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said} {warned}");
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert!(warned.contains("the interface mc0 has been deleted"), "{warned}");
    for line in [
        "  http://10.0.0.2/",
        "  http://[fd00::2]/",
        "  shell: telnet 10.0.0.2 23",
        "  ip address add 10.0.0.1/24 dev mc0",
        "  ip address add fd00::1/64 dev mc0",
        "  ip link set mc0 up",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is not in {said}");
    }
}

#[test]
fn a_signal_ends_it_in_order_and_takes_the_interface_away() {
    let test = "a_signal_ends_it_in_order_and_takes_the_interface_away";
    let script = "kill -TERM $server; while kill -0 $server; do sleep 0.02; done 2>&-; ip link show mc0 && exit 99";
    let Some(output) = alone(test, &["--shell", "none"], script) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said.contains("Stopped after") && !said.contains("telnet"), "{said}");
}
