//! `minicache serve`: real sockets, and a folder or images on the disk.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{fail, fixtures, members, minicache, succeed};

/// Longer than anything here takes: a test that hangs fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub addresses: Vec<SocketAddr>,
    pub greeting: Vec<String>,
    stdout: BufReader<ChildStdout>,
    stderr: ChildStderr,
}

impl Server {
    /// A server without a shell.
    fn start(paths: &[impl AsRef<OsStr>], options: &[&str]) -> Self {
        Self::start_as_told(paths, &[&["--shell", "none"], options].concat())
    }

    pub fn start_as_told(paths: &[impl AsRef<OsStr>], options: &[&str]) -> Self {
        let mut child = minicache(&["serve"])
            .args(paths)
            .args(options)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut greeting = Vec::new();
        while greeting.last().is_none_or(|line: &String| !line.contains("Ctrl-C")) {
            let mut line = String::new();
            if stdout.read_line(&mut line).unwrap() == 0 {
                let mut said = String::new();
                stderr.read_to_string(&mut said).unwrap();
                panic!("the server did not start: {greeting:?} {said}");
            }
            greeting.push(line);
        }
        let addresses = greeting.iter().filter_map(|line| line.trim().strip_prefix("http://")?.strip_suffix("/"));
        let addresses = addresses.map(|address| address.parse().unwrap()).collect();
        Self { child, addresses, greeting, stdout, stderr }
    }

    /// A server of `folder` at a free port.
    pub fn of(folder: &Path) -> Self {
        Self::start(&[folder], &["--listen", "127.0.0.1:0"])
    }

    /// The same with more options.
    pub fn with(folder: &Path, options: &[&str]) -> Self {
        Self::start(&[folder], &[&["--listen", "127.0.0.1:0"], options].concat())
    }

    pub fn connect(&self) -> Client {
        Client::new(self.addresses[0])
    }

    pub fn signal(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits for the end, which must be in order, and returns what was said: standard output, standard error.
    pub fn finish(mut self) -> (String, String) {
        let status = self.child.wait().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        assert!(status.success(), "{status}: {out} {err}");
        (out, err)
    }

    /// A line of /proc/PID/status as a number.
    fn status(&self, field: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A keep-alive connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    pub fn send(&mut self, method: &str, target: &str) {
        write!(self.stream.get_mut(), "{method} {target} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    }

    /// Status and head, with the body still to be read; and the body's length.
    pub fn read_head(&mut self) -> (u16, String, usize) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.stream.read_line(&mut head).unwrap(), 0, "cut off: {head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let length = lower.split("\r\n").find_map(|line| line.strip_prefix("content-length:"));
        (status, head, length.map_or(0, |length| length.trim().parse().unwrap()))
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target);
        self.read_answer()
    }

    pub fn read_answer(&mut self) -> Answer {
        let (status, head, length) = self.read_head();
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        Answer { status, head, body }
    }
}

/// Bytes that tell files and places apart.
pub fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A folder of files with [`content`]: their names as targets, and their bytes.
fn folder(sizes: &[usize]) -> (tempfile::TempDir, Vec<(String, Vec<u8>)>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    let mut files = Vec::new();
    for (i, size) in sizes.iter().enumerate() {
        let name = if i % 2 == 0 { format!("file {i}.bin") } else { format!("sub/{i}.txt") };
        let bytes = content(i as u64, *size);
        std::fs::write(dir.path().join(&name), &bytes).unwrap();
        files.push((format!("/{}", name.replace(' ', "%20")), bytes));
    }
    (dir, files)
}

/// Sizes about everything that has a border: pages, chunks, segments, windows.
const SIZES: [usize; 14] =
    [0, 1, 700, 4095, 4096, 4097, 65_480, 65_481, 65_536, 262_143, 262_144, 524_289, 1_048_579, 9_000_001];

#[test]
fn every_file_is_served_byte_for_byte_over_both_ip_versions() {
    let (dir, files) = folder(&SIZES);
    let server = Server::start(&[dir.path()], &["--listen", "127.0.0.1:0", "--listen", "[::1]:0"]);
    assert_eq!(server.addresses.len(), 2, "{:?}", server.greeting);
    assert!(server.greeting[0].contains("14 objects"), "{:?}", server.greeting);
    for address in &server.addresses {
        let mut client = Client::new(*address);
        for (target, bytes) in &files {
            let answer = client.get(target);
            assert_eq!(answer.status, 200, "{target}");
            assert!(answer.body == *bytes, "{target} came back with other bytes");
            client.send("HEAD", target);
            let (status, _, length) = client.read_head();
            assert_eq!((status, length), (200, bytes.len()), "{target}");
        }
        assert_eq!(client.get("/no-such-file").status, 404);
        assert_eq!(client.get(&files[2].0).body, files[2].1, "the connection is as good as before");
    }
}

#[test]
fn many_clients_at_once_get_their_own_bytes() {
    let (dir, files) = folder(&SIZES);
    let server = Server::start(&[dir.path()], &["--listen", "127.0.0.1:0", "--cache-mib", "4"]);
    std::thread::scope(|scope| {
        for thread in 0..24 {
            let (server, files) = (&server, &files);
            scope.spawn(move || {
                let mut client = server.connect();
                for i in 0..20 {
                    let (target, bytes) = &files[(thread * 7 + i * 5) % files.len()];
                    let answer = client.get(target);
                    assert!(answer.status == 200 && answer.body == *bytes, "{target}: {}", answer.head);
                }
            });
        }
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (dir, files) = folder(&[700, 100_000, 0, 5000]);
    let server = Server::of(dir.path());
    let mut client = server.connect();
    for (target, _) in files.iter().cycle().take(40) {
        client.send("GET", target);
    }
    for (target, bytes) in files.iter().cycle().take(40) {
        assert!(client.read_answer().body == *bytes, "{target}");
    }
}

#[test]
fn clients_that_leave_in_the_middle_disturb_nobody() {
    let (dir, files) = folder(&[20 << 20, 700]);
    let server = Server::of(dir.path());
    for turn in 0..30 {
        let mut client = server.connect();
        client.send("GET", &files[0].0);
        if turn % 3 > 0 {
            let mut some = vec![0; 10_000];
            client.stream.read_exact(&mut some).unwrap();
        }
        if turn % 2 == 0 {
            socket2::SockRef::from(client.socket()).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let mut client = server.connect();
    assert!(client.get(&files[0].0).body == files[0].1);
    drop(client);
    server.signal();
    let (out, _) = server.finish();
    assert!(out.contains("31 connections"), "{out}");
}

#[test]
fn a_client_that_ends_its_half_gets_the_whole_answer() {
    let (dir, files) = folder(&[3 << 20]);
    let server = Server::of(dir.path());
    let mut client = server.connect();
    client.send("GET", &files[0].0);
    client.socket().shutdown(Shutdown::Write).unwrap();
    assert!(client.read_answer().body == files[0].1);
    assert_eq!(client.stream.read(&mut [0]).unwrap(), 0, "then the server ends its own");
}

#[test]
fn clients_that_stop_reading_do_not_stop_the_next_one() {
    let (dir, files) = folder(&[16 << 20, 2 << 20]);
    let server = Server::start(&[dir.path()], &["--listen", "127.0.0.1:0", "--cache-mib", "8"]);
    let stalled: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = server.connect();
            // A small receive buffer: what the host does not hold has to wait in the server.
            socket2::SockRef::from(client.socket()).set_recv_buffer_size(4096).unwrap();
            client.send("GET", &files[0].0);
            client
        })
        .collect();
    let mut client = server.connect();
    for _ in 0..3 {
        assert!(client.get(&files[1].0).body == files[1].1);
    }
    drop(stalled);
}

#[test]
fn the_first_signal_lets_requests_finish() {
    let (dir, files) = folder(&[24 << 20]);
    let server = Server::of(dir.path());
    let address = server.addresses[0];
    let idle = server.connect();
    let mut client = server.connect();
    client.send("GET", &files[0].0);
    let (_, _, length) = client.read_head();
    server.signal();
    // The idle connection's end tells that the signal has arrived.
    assert_eq!(idle.socket().read(&mut [0]).unwrap(), 0);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut body = vec![0; length];
    client.stream.read_exact(&mut body).unwrap();
    assert!(body == files[0].1);
    drop(client);
    let (out, err) = server.finish();
    assert!(out.contains("1 request answered on 2 connections") && out.contains(" 0 bytes of it copied"), "{out}");
    assert_eq!(err, "");
}

#[test]
fn the_second_signal_ends_at_once_and_resets_who_is_cut_off() {
    let (dir, files) = folder(&[24 << 20]);
    let server = Server::of(dir.path());
    let idle = server.connect();
    let mut client = server.connect();
    client.send("GET", &files[0].0);
    client.read_head();
    server.signal();
    assert_eq!(idle.socket().read(&mut [0]).unwrap(), 0);
    server.signal();
    server.finish();
    let mut rest = Vec::new();
    let error = client.stream.read_to_end(&mut rest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "a cut-off body must not look whole");
}

#[test]
fn an_idle_server_sleeps() {
    let (dir, files) = folder(&[700]);
    let server = Server::of(dir.path());
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.get(&files[0].0).body, files[0].1);
    }
    // What was still to be done is done within the second; then nothing wakes it any more.
    let mut before = server.status("voluntary_ctxt_switches");
    let quiet = (0..40).any(|_| {
        std::thread::sleep(Duration::from_millis(500));
        let now = server.status("voluntary_ctxt_switches");
        std::mem::replace(&mut before, now) == now
    });
    assert!(quiet, "the server kept waking up");
}

#[test]
fn errors_say_what_to_do() {
    let (dir, _) = folder(&[700]);
    let path = dir.path().to_str().unwrap();
    let file = dir.path().join("file 0.bin");
    let file = file.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], &[&str]); 7] = [
        (&["/no/such/folder"], &["/no/such/folder", "does not exist"]),
        (&[file, "--listen", "127.0.0.1:0"], &["file 0.bin", "SHFS"]),
        (&[path, file], &["is a folder", "alone"]),
        (&[path, "--listen", &taken], &[&taken, "taken", "--listen"]),
        (&[path, "--listen", "192.0.2.77:8080"], &["192.0.2.77", "no address of this machine"]),
        (&[path, "--cache-mib", "0"], &["--cache-mib 0", "at least"]),
        (&[path, "--cache-mib", "18446744073709551615"], &["--cache-mib 18446744073709551615", "at most"]),
    ];
    for (arguments, expected) in cases {
        let said = fail(&[&["serve"], arguments].concat());
        assert!(expected.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
    }
    for (listen, expected) in [("8080", "127.0.0.1:8080"), ("localhost:80", "[::1]:8080")] {
        let output = minicache(&["serve", path, "--listen", listen]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{listen}: {said}");
    }
}

#[test]
fn an_empty_folder_is_served_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::of(dir.path());
    assert_eq!(server.connect().get("/").status, 404);
    server.signal();
    let (_, err) = server.finish();
    assert!(err.contains("warning") && err.contains("404"), "{err}");
}

#[test]
fn memory_stays_within_the_cache_and_64_mib() {
    let (dir, files) = folder(&[48 << 20]);
    let server = Server::start(&[dir.path()], &["--listen", "127.0.0.1:0", "--cache-mib", "16"]);
    let mut client = server.connect();
    for _ in 0..2 {
        assert!(client.get(&files[0].0).body == files[0].1);
    }
    let peak_kib = server.status("VmHWM");
    assert!(peak_kib <= (16 + 64) << 10, "{peak_kib} KiB");
}

/// Fetches every object that `shfs ls` lists, by name and by digest, and compares it with what `expected` has for its name.
fn fetch_all(server: &Server, images: &[impl AsRef<OsStr>], expected: impl Fn(&str) -> Vec<u8>) -> usize {
    let mut arguments = vec![OsStr::new("shfs"), OsStr::new("ls"), OsStr::new("--json")];
    arguments.extend(images.iter().map(AsRef::as_ref));
    let listed: serde_json::Value = serde_json::from_slice(&succeed(&arguments)).unwrap();
    let objects = listed.as_array().unwrap().iter().filter(|object| object.get("extent").is_some());
    let mut client = server.connect();
    let mut fetched = 0;
    for object in objects {
        let name = object["name"].as_str().unwrap();
        let bytes = expected(name);
        for target in [format!("/{}", name.replace(' ', "%20")), format!("/?{}", object["digest"].as_str().unwrap())] {
            let answer = client.get(&target);
            assert!(answer.status == 200 && answer.body == bytes, "{target}: {}", answer.head);
        }
        fetched += 1;
    }
    fetched
}

#[test]
fn a_packed_folder_is_served_by_name_and_by_digest() {
    let (dir, _) = folder(&[0, 700, 100_000, 3 << 20]);
    let image = tempfile::tempdir().unwrap();
    let image = image.path().join("site.img");
    succeed(&[OsStr::new("pack"), dir.path().as_os_str(), image.as_os_str()]);
    let server = Server::start(&[&image], &["--listen", "127.0.0.1:0", "--cache-mib", "2"]);
    let bytes_of = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
    assert_eq!(fetch_all(&server, &[&image], bytes_of), 4);
}

#[test]
fn the_originals_volumes_are_served_by_name_and_by_digest() {
    let Some(folder) = fixtures() else { return };
    for name in ["single", "comb", "comb3", "ind", "links", "removed"] {
        let images = members(&folder, name);
        let server = Server::start(&images, &["--listen", "127.0.0.1:0"]);
        let bytes_of = |name: &str| std::fs::read(folder.join("files").join(name)).unwrap();
        assert!(fetch_all(&server, &images, bytes_of) > 0, "{name}");
    }
    let incomplete = &members(&folder, "comb")[..1];
    let said =
        fail(&[OsStr::new("serve"), incomplete[0].as_os_str(), OsStr::new("--listen"), OsStr::new("127.0.0.1:0")]);
    assert!(said.contains("member") && said.contains("comb"), "{said}");
}
