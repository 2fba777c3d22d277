//! A link that loses nothing.

use std::fs;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use crate::bed::{Bed, Object, SERVERS, demofs, is_impossible, noise};
use crate::load::wrk;

/// Sizes around everything that is a border: of segments, pages, super-frames, chunks.
const SIZES: &[usize] = &[
    0, 1, 699, 1447, 1448, 1449, 4095, 4096, 4097, 14_480, 16_384, 65_483, 65_484, 65_535, 65_536, 131_072, 262_144,
    262_145, 1_000_000, 10_485_760,
];

/// Lengths of the frames in a capture file, as they were on the interface.
fn frame_lengths(capture: &[u8]) -> Vec<u32> {
    let word = |at: usize| u32::from_ne_bytes(capture[at..at + 4].try_into().unwrap());
    let (mut at, mut lengths) = (24, Vec::new());
    while at + 16 <= capture.len() {
        lengths.push(word(at + 12));
        at += 16 + word(at + 8) as usize;
    }
    lengths
}

/// Lengths of the frames on the interface that match `filter` while `action` goes on.
fn captured(bed: &Bed, filter: &str, action: impl FnOnce()) -> Vec<u32> {
    let capture = bed.downloads.join("capture");
    // Of an earlier capture there may be none.
    let _ = fs::remove_file(&capture);
    let mut tcpdump = bed.namespace.command("tcpdump");
    tcpdump.args(["-i", "mc0", "-s", "96", "--immediate-mode", "-U", "-w"]).arg(&capture).arg(filter);
    let mut tcpdump = tcpdump.stderr(Stdio::null()).spawn().unwrap();
    // The file's own header comes when it listens.
    for _ in 0..500 {
        if fs::metadata(&capture).is_ok_and(|file| file.len() >= 24) {
            break;
        }
        sleep(Duration::from_millis(10));
    }
    action();
    sleep(Duration::from_millis(300));
    tcpdump.kill().unwrap();
    tcpdump.wait().unwrap();
    frame_lengths(&fs::read(&capture).unwrap())
}

#[test]
fn linux_gets_every_object_over_both_families() {
    if is_impossible(&["curl", "ip"]) {
        return;
    }
    let mut objects = demofs();
    objects.extend(noise(SIZES));
    objects.push(Object { name: "large.bin".to_owned(), content: noise(&[64 << 20]).remove(0).content });
    let bed = Bed::new(objects, &[]);
    for server in SERVERS {
        bed.fetch_all(server, 1);
        bed.fetch_all(server, 8);
    }
    // Never copied, whatever the sizes.
    let shell =
        "{ echo stats; sleep 1; echo exit; } | timeout 20 curl --silent --globoff telnet://10.0.0.2:23 2>&1 || true";
    let stats = bed.run("sh", &["-c", shell]);
    let copied = stats.lines().find(|line| line.contains("copied_bytes")).unwrap_or_else(|| panic!("{stats}"));
    assert!(copied.split(|c: char| !c.is_ascii_digit()).any(|word| word == "0"), "{copied}");
    bed.finish();
}

#[test]
fn the_host_finds_us_and_hears_us() {
    if is_impossible(&["ping", "ip"]) {
        return;
    }
    let bed = Bed::new(noise(&[1]), &[]);
    bed.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", "10.0.0.2"]);
    bed.run("ping", &["-6", "-c", "3", "-i", "0.2", "-W", "5", "fd00::2"]);
    bed.run("ping", &["-c", "3", "-i", "0.2", "-W", "5", "-s", "1472", "-M", "do", "10.0.0.2"]);
    let neighbours = bed.run("ip", &["neighbour", "show", "dev", "mc0"]);
    let addresses = ["10.0.0.2", "fd00::2"].map(|address| {
        let line = neighbours.lines().find(|line| line.starts_with(&format!("{address} ")));
        let words: Vec<&str> = line.unwrap_or_else(|| panic!("{neighbours}")).split(' ').collect();
        let at = words.iter().position(|word| *word == "lladdr").unwrap_or_else(|| panic!("{neighbours}"));
        words[at + 1].to_owned()
    });
    assert_eq!(addresses[0], addresses[1]);
    // The link-local address is made of it (RFC 4291 appendix A).
    let mac: Vec<u8> = addresses[0].split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let local = format!(
        "fe80::{:02x}{:02x}:{:02x}ff:fe{:02x}:{:02x}{:02x}%mc0",
        mac[0] ^ 2,
        mac[1],
        mac[2],
        mac[3],
        mac[4],
        mac[5]
    );
    bed.run("ping", &["-6", "-c", "1", "-W", "5", &local]);
    bed.finish();
}

#[test]
fn super_frames_cross_the_clean_link() {
    if is_impossible(&["curl", "ip", "tcpdump"]) {
        return;
    }
    let bed = Bed::new(noise(&[20 << 20]), &[]);
    for (server, filter) in SERVERS.into_iter().zip(["src host 10.0.0.2", "src host fd00::2"]) {
        let lengths = captured(&bed, filter, || bed.fetch_all(server, 1));
        let large: Vec<u32> = lengths.iter().copied().filter(|length| *length >= 60_000).collect();
        assert!(large.iter().sum::<u32>() > 10 << 20, "over {server}: {lengths:?}");
    }
    bed.finish();
}

#[test]
fn wrk_finds_no_wrong_body() {
    if is_impossible(&["wrk", "ip"]) {
        return;
    }
    let bed = Bed::new(noise(&[700, 100_000, 10 << 20]), &[]);
    for server in SERVERS {
        for (object, connections) in [(0, 1), (0, 64), (1, 16), (2, 4)] {
            wrk(&bed, server, &bed.objects[object], connections, 1);
        }
    }
    bed.finish();
}

#[test]
fn large_frames_from_the_host_are_taken() {
    if is_impossible(&["bash", "ip", "tcpdump"]) {
        return;
    }
    // Linux sends what is pipelined in frames larger than the MTU, with checksums left to us.
    let bed = Bed::new(noise(&[3]), &[]);
    let name = &bed.objects[0].name;
    let requests = bed.downloads.join("requests");
    let request = |last: &str| format!("GET /{name} HTTP/1.1\r\nHost: a\r\n{last}\r\n");
    fs::write(&requests, request("").repeat(1000) + &request("Connection: close\r\n")).unwrap();
    let script = format!(
        "exec 3<>/dev/tcp/10.0.0.2/80; cat {} >&3; timeout 60 cat <&3 | grep -ao 'HTTP/1.1 200 ' | wc -l",
        requests.display()
    );
    let lengths = captured(&bed, "dst host 10.0.0.2", || {
        assert_eq!(bed.run("bash", &["-c", &script]).trim(), "1001");
    });
    assert!(lengths.iter().any(|length| *length > 1514), "{lengths:?}");
    bed.finish();
}
