//! Interfaces that go away, or can't be had.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use testbed::Namespace;

use crate::bed::{Bed, is_impossible, noise};

#[test]
fn an_interface_that_is_deleted_while_it_serves_is_a_clear_end() {
    if is_impossible(&["wrk", "ip"]) {
        return;
    }
    let mut bed = Bed::new(noise(&[100_000]), &[]);
    let url = format!("http://10.0.0.2/{}", bed.objects[0].name);
    let mut wrk = bed.namespace.command("wrk");
    let mut wrk = wrk.args(["-t1", "-c16", "-d30s", &url]).stdout(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_secs(1));
    bed.run("ip", &["link", "delete", "mc0"]);
    let (success, said) = bed.wait();
    wrk.kill().unwrap();
    wrk.wait().unwrap();
    assert!(!success && said.contains("mc0"), "{said}");
}

#[test]
fn a_link_that_is_down_for_a_while_loses_nothing() {
    if is_impossible(&["curl", "ip"]) {
        return;
    }
    let bed = Bed::new(noise(&[20 << 20]), &["--impair", "rate=100mbit"]);
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| bed.fetch_all("10.0.0.2", 1));
        sleep(Duration::from_millis(500));
        bed.run("ip", &["link", "set", "mc0", "down"]);
        sleep(Duration::from_millis(500));
        bed.run("ip", &["link", "set", "mc0", "up"]);
        fetch.join().unwrap();
    });
    bed.finish();
}

#[test]
fn an_interface_that_can_not_be_had_is_explained() {
    if is_impossible(&["ip"]) {
        return;
    }
    let bed = Bed::new(noise(&[1]), &[]);
    let refused = |namespace: &Namespace, arguments: &[&str]| {
        let mut command = namespace.command(env!("CARGO_BIN_EXE_minicache"));
        let output = command.arg("serve").arg(&bed.folder).args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !said.contains("panicked"), "{arguments:?}: {said}");
        said
    };
    let taken = refused(&bed.namespace, &["--tap", "mc0", "--address", "10.0.0.3/24"]);
    assert!(taken.contains("mc0") && taken.contains("another program"), "{taken}");
    let long = refused(&bed.namespace, &["--tap", "an-interface-name-that-is-too-long", "--address", "10.0.0.3/24"]);
    assert!(long.contains("15"), "{long}");
    let missing = refused(&bed.namespace, &["--tap", "mc1"]);
    assert!(missing.contains("--address"), "{missing}");
    bed.finish();
}
