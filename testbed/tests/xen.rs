//! The Xen host: its dom0, its guests, and how they end. One boot serves all of it.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use testbed::linux::web;
use testbed::xen::{self, Bed, Config, Disk, DomU, Host, Output, State};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_host_boots_obeys_and_runs_guests() {
    if let Some(reason) = xen::obstacle() {
        println!("not run: {reason}");
        return;
    }
    let begin = Instant::now();
    let bed = Bed::get(&Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("xen")).unwrap();
    println!("the bed is there after {:?}", begin.elapsed());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let forwards = vec![(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port), 80)];
    let host = bed.boot(&Config { forwards, ..Config::default() }).unwrap();
    println!("dom0 is ready after {:?}", begin.elapsed());
    dom0_obeys(&host);
    println!("dom0 has obeyed after {:?}", begin.elapsed());
    every_end_is_told(&host);
    println!("some guests have ended after {:?}", begin.elapsed());
    a_guest_has_network_and_disks(&bed, &host, port);
    println!("a Linux guest has served after {:?}", begin.elapsed());
    nginx_serves(&bed, &host);
    println!("nginx has served after {:?}", begin.elapsed());
}

fn dom0_obeys(host: &Host) {
    let output = host.run("echo out; echo err >&2; exit 3").unwrap();
    assert_eq!(output, Output { status: 3, text: "out\nerr\n".to_owned() });
    let error = host.check("echo why; false").unwrap_err().to_string();
    assert!(error.contains("status 1: why"), "{error}");

    // What it leaves in the background holds nobody up, and what is long is no trouble.
    let long = format!("sleep 600 & echo '{}' | wc -c", "x".repeat(100_000));
    assert_eq!(host.check(&long).unwrap(), "100001\n");

    let begin = Instant::now();
    thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| host.check("sleep 2").unwrap()))));
    assert!(begin.elapsed() < Duration::from_secs(5), "one after the other");

    let error = host.run_within("echo begun; sleep 600", Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains("killed") && error.contains("begun"), "{error}");

    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    host.put("/root/some folder/bytes", &bytes).unwrap();
    assert!(host.get("/root/some folder/bytes").unwrap() == bytes);
    fs::write(host.share().join("note"), "hello").unwrap();
    assert_eq!(host.check("cat /share/note; echo there >/share/answer").unwrap(), "hello");
    assert_eq!(fs::read_to_string(host.share().join("answer")).unwrap(), "there\n");

    for program in
        ["curl --version", "wrk --version; true", "ethtool --version", "/bin/ip -V", "xl info", "arping -h 2>&1; true"]
    {
        host.check(program).unwrap();
    }
    assert!(host.check("ip address show dev xenbr0").unwrap().contains("fd77::1/64"));
}

/// A program for a PVH guest, in 32-bit mode, at 1 MiB.
fn program(code: &[u8]) -> Vec<u8> {
    const BASE: u32 = 0x10_0000;
    const HEADERS: u32 = 52 + 2 * 32;
    const NOTE: u32 = 20;
    let length = HEADERS + NOTE + code.len() as u32;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    // Type and machine, version, entry, headers; then their sizes.
    elf.extend(words(&[3 << 16 | 2, 1, BASE + HEADERS + NOTE, 52, 0, 0, 32 << 16 | 52, 2, 0]));
    // What is loaded (all of it), and the note that says where PVH enters (XEN_ELFNOTE_PHYS32_ENTRY).
    elf.extend(words(&[1, 0, BASE, BASE, length, length, 7, 4096]));
    elf.extend(words(&[4, HEADERS, BASE + HEADERS, BASE + HEADERS, NOTE, NOTE, 4, 4]));
    elf.extend(words(&[4, 4, 18, u32::from_le_bytes(*b"Xen\0"), BASE + HEADERS + NOTE]));
    elf.extend_from_slice(code);
    elf
}

/// A program that writes a line to port 0xE9, and tells Xen this reason for its end.
fn ending(reason: u8) -> Vec<u8> {
    // push reason; mov ecx, esp; mov ebx, SCHEDOP_shutdown; mov eax, sched_op; vmmcall
    let code = [0x6a, reason, 0x89, 0xe1, 0xbb, 2, 0, 0, 0, 0xb8, 29, 0, 0, 0, 0x0f, 0x01, 0xd9];
    // mov esp, 0x180000
    let mut begin = vec![0xbc, 0, 0, 0x18, 0];
    // mov al, byte; out 0xe9, al
    b"so long\n".iter().for_each(|byte| begin.extend([0xb0, *byte, 0xe6, 0xe9]));
    program(&[&begin, &code[..]].concat())
}

fn every_end_is_told(host: &Host) {
    let folder = tempfile::tempdir().unwrap();
    let kernel = folder.path().join("kernel");
    // lidt with nothing in the table, and int3: a triple fault.
    let fault = program(&[0x0f, 0x01, 0x1d, 0, 0, 0x18, 0, 0xcc]);
    let ends = [
        (ending(0), State::Halted),
        (ending(1), State::Rebooted),
        (ending(3), State::Crashed),
        (ending(5), State::Ended(5)),
        (fault, State::Rebooted),
    ];
    for (elf, end) in ends {
        fs::write(&kernel, elf).unwrap();
        let mut guest = DomU::new("short", &kernel);
        (guest.vif, guest.memory_mib) = (None, 16);
        let guest = host.create(&guest).unwrap();
        assert_eq!(guest.wait_for_end(LIMIT).unwrap(), end);
        if end == State::Halted {
            let deadline = Instant::now() + LIMIT;
            let line = format!("(d{}) so long", guest.domid());
            while !host.console().contains(&line) {
                assert!(Instant::now() < deadline, "no {line:?}: {}", host.console());
            }
        }
        let error = guest.wait_for("anything", LIMIT).unwrap_err().to_string();
        assert!(error.contains("no \"anything\"") && error.contains(&format!("{end:?}")), "{error}");
        guest.destroy().unwrap();
    }
    fs::write(&kernel, "no kernel").unwrap();
    let error = host.create(&DomU::new("none", &kernel)).err().unwrap().to_string();
    assert!(error.contains("xl") || error.contains("kernel"), "{error}");
    let list = host.check("xl list").unwrap();
    assert_eq!(list.lines().count(), 2, "{list}");
}

fn a_guest_has_network_and_disks(bed: &Bed, host: &Host, port: u16) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["content", "log"] {
        let mut image = fs::File::create(path(name)).unwrap();
        image.set_len(100 << 20).unwrap();
        image.seek(SeekFrom::Start(64 << 20)).unwrap();
        write!(image, "this is {name}").unwrap();
    }
    let mut guest = bed.stand_in("linux", "10.77.0.2/24");
    guest.disks = vec![
        Disk { image: path("content"), name: "xvda".to_owned(), writable: false },
        Disk { image: path("log"), name: "xvdb".to_owned(), writable: true },
    ];
    let guest = host.create(&guest).unwrap();
    guest.wait_for("stand-in: serving", LIMIT).unwrap();
    host.check("ping -c 2 -i 0.2 -W 10 10.77.0.2").unwrap();
    let vif = format!("/sys/class/net/vif{}.0/statistics/rx_packets", guest.domid());
    assert!(host.check(&format!("cat {vif}")).unwrap().trim().parse::<u64>().unwrap() >= 2);

    // By the forwarded port, and from dom0.
    let does = |script: &str| post(port, script);
    assert!(does("uname -a").contains("Linux"));
    let run = "curl --silent --data-binary 'hostname -i; echo $address' http://guest/cgi-bin/run";
    assert!(host.check(run).unwrap().contains("10.77.0.2/24"));

    let read = |disk: &str| does(&format!("dd if=/dev/{disk} bs=1M skip=64 count=1 | head -c 12"));
    assert!(read("xvda").contains("this is cont") && read("xvdb").contains("this is log"));
    let write =
        |disk: &str| does(&format!("echo 'from the guest' | dd of=/dev/{disk} bs=512 seek=7 conv=sync,fsync; echo $?"));
    assert!(write("xvdb").ends_with("0\n"));
    assert!(!write("xvda").ends_with("0\n"));
    // Whoever looks at it in dom0, and on this system.
    let backend = format!("xenstore-read /local/domain/0/backend/vbd/{}/51728/params", guest.domid());
    let seen = host.check(&format!("dd if=$({backend}) bs=512 skip=7 count=1 2>/dev/null")).unwrap();
    assert!(seen.starts_with("from the guest\n"));
    assert!(fs::read(path("log")).unwrap()[7 * 512..].starts_with(b"from the guest\n"));
    assert!(fs::read(path("content")).unwrap()[7 * 512..][..512].iter().all(|byte| *byte == 0));

    assert_eq!(guest.state(), State::Runs);
    assert!(guest.console().contains("stand-in: serving"));
    host.check("xl destroy linux").unwrap();
    assert_eq!(guest.wait_for_end(LIMIT).unwrap(), State::Gone);
    guest.destroy().unwrap();
    host.check("while ls /sys/class/scsi_disk | grep -q .; do usleep 20000; done").unwrap();
}

fn nginx_serves(bed: &Bed, host: &Host) {
    const CONFIGURATION: &str = "events {} http { server { listen 80; root /www; } }";
    let ramdisk = tempfile::NamedTempFile::new().unwrap();
    let files = [("a/b", b"served by nginx".to_vec())];
    let guest = bed.nginx("web", "10.77.0.3/24", CONFIGURATION, &files, ramdisk.path()).unwrap();
    let guest = host.create(&guest).unwrap();
    guest.wait_for(web::SERVES, LIMIT).unwrap();
    assert_eq!(host.check("curl --silent http://10.77.0.3/a/b").unwrap(), "served by nginx");
    guest.say("echo '6 * 7' is $((6 * 7))").unwrap();
    guest.wait_for("6 * 7 is 42", LIMIT).unwrap();
}

/// What the stand-in's shell says to a script.
fn post(port: u16, script: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = script.len();
    write!(stream, "POST /cgi-bin/run HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{script}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}
