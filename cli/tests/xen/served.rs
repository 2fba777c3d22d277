//! What a guest serves, and how: every object over IPv4 and IPv6, under load, in large frames, and nothing of it is left behind.

use std::path::Path;
use std::process::Command;

use testbed::xen::{DOM0, GUEST, State};

use crate::site::Site;
use crate::volumes;
use crate::world::{GUEST_V6, Xen};

const LARGE_BYTES: usize = 64 << 20;

/// Connections of the load.
const CONNECTIONS: u32 = 64;

#[test]
fn a_guest_serves_everything_and_keeps_nothing() {
    let Some(xen) = Xen::boot() else { return };
    let large = ("large".to_owned(), volumes::noise(1, LARGE_BYTES));
    let site = Site::of(Site::new(true).objects.into_iter().chain([large]).collect());
    let mut domu = xen.domu("served", &[site.image()]);
    domu.parameters = format!("-i {GUEST}/24 -i {GUEST_V6}/64 -g {DOM0}");
    let served = xen.serve(&domu);
    let said = served.guest.console();
    for part in
        ["xen-netfront (device/vif/0) 00:16:3e:77:00:02", "checksums, segmentation", "51712 (xvda)", "read-only"]
    {
        served.assert(said.contains(part), part);
    }

    let count = "-c 3 -i 0.2 -W 10";
    for target in [&format!("{count} {GUEST}"), &format!("{count} {GUEST_V6}"), &format!("{count} -s 1472 {GUEST}")] {
        served.dom0(&format!("ping {target}"));
    }
    served.compare(&site, &format!("http://{GUEST}"), 4);
    served.compare(&site, &format!("http://[{GUEST_V6}]"), 4);
    whole_through_the_bridge(&served.xen.http.to_string(), &site);
    let said = served.ask("ifconfig");
    served.assert(said.contains(GUEST) && said.contains(GUEST_V6), &said);

    large_frames(&served);
    large_frames_come_in(&served);
    nothing_is_left(&served);
    served.end("halt", State::Halted);
    served.assert(served.guest.console().contains("MiniCache halts"), "it says so");
}

/// Segments that leave the host by its own network interface are right, too.
fn whole_through_the_bridge(address: &str, site: &Site) {
    let folder = tempfile::tempdir().unwrap();
    let got = folder.path().join("got");
    let fetch = |name: &str, to: &Path| {
        let url = format!("http://{address}/{name}");
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--output"])
            .arg(to)
            .arg(url)
            .status()
    };
    for name in ["noise/3000017", "noise/1448", "index.html"] {
        assert!(fetch(name, &got).unwrap().success() && std::fs::read(&got).unwrap() == site.content(name), "{name}");
    }
}

fn large_frames(served: &crate::world::Served<'_>) {
    // What a connection's rate would allow in a frame depends on this machine's mood.
    served.ask("autosize off");
    let (packets, bytes) = served.vif_counts();
    served.dom0(&format!("curl --silent --fail --output /dev/null http://{GUEST}/large"));
    let (packets, bytes) = (served.vif_counts().0 - packets, served.vif_counts().1 - bytes);
    println!("a large object: {packets} packets of {} bytes", bytes / packets);
    served.assert(
        bytes > LARGE_BYTES as u64 && bytes / packets >= 20 << 10,
        &format!("{bytes} bytes in {packets} packets"),
    );
    let copied_bytes = served.counter("copied_bytes");
    served.assert(copied_bytes == 0, &format!("{copied_bytes} bytes were copied"));
    served.ask("autosize on");
}

/// dom0 sends large ones too, with checksums that nobody has completed, where there is much to say: pipelined requests.
fn large_frames_come_in(served: &crate::world::Served<'_>) {
    const REQUESTS: usize = 5000;
    let request = format!("HEAD /noise/1 HTTP/1.1\r\nHost: {GUEST}\r\n\r\n");
    // curl ends when the server closes: without the last word, when it has waited a minute.
    let last = format!("HEAD /noise/1 HTTP/1.1\r\nHost: {GUEST}\r\nConnection: close\r\n\r\n");
    let requests = request.repeat(REQUESTS - 1) + &last;
    served.check(served.xen.host.put("/tmp/requests", requests.as_bytes()));
    let event = "/sys/kernel/tracing/events/net/net_dev_start_xmit";
    let answers = served.dom0(&format!(
        "echo 'gso_size > 0' >{event}/filter; echo 1 >{event}/enable; \
         {{ cat /tmp/requests; sleep 2; }} | curl --silent --no-buffer telnet://{GUEST}:80 | grep -c '^HTTP/1.1 200 OK'; \
         echo 0 >{event}/enable"
    ));
    let large = served.dom0(&format!("grep -c dev=vif{}.0 /sys/kernel/tracing/trace || true", served.guest.domid()));
    println!("pipelined requests: {} large frames", large.trim());
    served.assert(answers.trim() == REQUESTS.to_string(), &format!("{answers} answers"));
    served.assert(large.trim() != "0", "frames to be segmented have come in");
    let bad = served.counter("rx_malformed") + served.counter("rx_bad_checksum") + served.counter("tcp_bad_checksum");
    served.assert(bad == 0, &format!("{bad} frames made no sense"));
}

/// After a load, grants and pages are as they were before.
fn nothing_is_left(served: &crate::world::Served<'_>) {
    const REQUESTS: u64 = 10_000;
    let in_use = || {
        let pools: Vec<String> = served
            .ask("free -p")
            .lines()
            .filter(|line| !line.starts_with("heap") && !line.starts_with("memory"))
            .map(str::to_owned)
            .collect();
        (served.counter("grants_in_use"), served.counter("grants_quarantined"), pools)
    };
    // Whatever is made at the first request is there.
    served.load("/index.html", CONNECTIONS, 1);
    let before = in_use();
    let mut requests = 0;
    while requests < REQUESTS {
        requests += served.load("/index.html", CONNECTIONS, 10);
        println!("{requests} requests");
    }
    let after = in_use();
    served.assert(
        before == after && after.1 == 0,
        &format!("{before:?} before, and {after:?} after {requests} requests"),
    );
}
