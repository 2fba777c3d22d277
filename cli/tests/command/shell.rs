//! µShell over a real socket: a telnet client tries every command, and what it says agrees with what was done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::serve::{Client, PATIENCE, Server, content};
use crate::support::fail;

const PROMPT: &str = "mc# ";

const IAC: u8 = 255;

/// Polls until `done` gives something. It is asked for about a minute.
fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1200 {
        if let Some(result) = done() {
            return result;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{what}: has not come about");
}

/// A server of `folder` with a shell.
fn serve(folder: &Path) -> Server {
    Server::start_as_told(&[folder], &["--listen", "127.0.0.1:0", "--shell", "127.0.0.1:0"])
}

fn shell_address(server: &Server) -> SocketAddr {
    let words = server.greeting.iter().find_map(|line| line.trim().strip_prefix("shell: telnet "));
    words.unwrap().replace(' ', ":").parse().unwrap()
}

/// A telnet client, in line mode unless [`Telnet::let_it_echo`] is called.
struct Telnet {
    stream: TcpStream,
    /// Bytes of a telnet command that is not complete.
    command: Vec<u8>,
    /// Text that came behind the last prompt.
    text: Vec<u8>,
    used: BTreeSet<String>,
}

impl Telnet {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, command: Vec::new(), text: Vec::new(), used: BTreeSet::new() }
    }

    /// A client that has seen the greeting.
    fn new(server: &Server) -> Self {
        let mut telnet = Self::connect(shell_address(server));
        let greeting = telnet.read_until(PROMPT);
        assert!(greeting.contains("MiniCache") && greeting.contains("help"), "{greeting}");
        telnet
    }

    fn send(&mut self, keys: impl AsRef<[u8]>) {
        self.stream.write_all(keys.as_ref()).unwrap();
    }

    /// Agrees to what the server offers: it echoes.
    fn let_it_echo(&mut self) {
        const DO: u8 = 253;
        self.send([IAC, DO, 1, IAC, DO, 3]);
    }

    /// Reads some more; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let length = match self.stream.read(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&self.text)),
        };
        for byte in &bytes[..length] {
            match (&self.command[..], *byte) {
                ([], IAC) => self.command.push(IAC),
                ([], byte) => self.text.push(byte),
                ([_], IAC) => {
                    self.command.clear();
                    self.text.push(IAC);
                }
                ([_], 251..=254) => self.command.push(*byte),
                _ => self.command.clear(),
            }
        }
        length > 0
    }

    /// Text up to and with `end`.
    fn read_until(&mut self, end: &str) -> String {
        String::from_utf8(self.read_bytes_until(end)).unwrap()
    }

    fn read_bytes_until(&mut self, end: &str) -> Vec<u8> {
        let end = end.as_bytes();
        let mut searched = 0;
        loop {
            if let Some(at) = self.text[searched..].windows(end.len()).position(|window| window == end) {
                let rest = self.text.split_off(searched + at + end.len());
                return std::mem::replace(&mut self.text, rest);
            }
            searched = self.text.len().saturating_sub(end.len());
            let text = String::from_utf8_lossy(&self.text).into_owned();
            assert!(self.read(), "ended before {:?}: {text}", String::from_utf8_lossy(end));
        }
    }

    fn read_to_end(&mut self) -> String {
        while self.read() {}
        String::from_utf8(std::mem::take(&mut self.text)).unwrap()
    }

    /// What a command writes, with lines that end in LF.
    fn run(&mut self, line: &str) -> String {
        let bytes = self.run_for_bytes(line);
        String::from_utf8(bytes).unwrap().replace("\r\n", "\n")
    }

    fn run_for_bytes(&mut self, line: &str) -> Vec<u8> {
        let name = line.trim_start().split(' ').next().unwrap();
        self.used.insert(name.to_owned());
        self.send(format!("{line}\r\n"));
        let mut bytes = self.read_bytes_until(PROMPT);
        bytes.truncate(bytes.len() - PROMPT.len());
        bytes
    }

    /// A counter from what `command` lists.
    fn number(&mut self, command: &str, name: &str) -> u64 {
        let text = self.run(command);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.unwrap_or_else(|| panic!("{name} is not in {text}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A line of `stats objects`.
#[derive(Debug, PartialEq, Eq)]
struct ObjectLine {
    hits: u32,
    completed: u32,
    /// Requests that got 0, 1, 2, 3, 4 and 5 fifths.
    progress: Vec<u32>,
}

fn object_lines(text: &str) -> BTreeMap<String, ObjectLine> {
    let line = |line: &str| {
        let (digest, rest) = line.strip_prefix('?')?.split_once(' ')?;
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{line}");
        let (hits, rest) = rest.split_once('[')?;
        let (numbers, rest) = rest.split_once(']')?;
        let (completed, progress) = numbers.split_once('|')?;
        let (_, name) = rest.rsplit_once("  ")?;
        let progress = progress.split_whitespace().map(|count| count.parse().unwrap()).collect();
        let (hits, completed) = (hits.trim().parse().unwrap(), completed.trim().parse().unwrap());
        Some((name.to_owned(), ObjectLine { hits, completed, progress }))
    };
    text.lines().map(|text| line(text).unwrap_or_else(|| panic!("not a line of stats: {text}"))).collect()
}

/// The bytes that a hexdump shows.
fn undump(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let (at, rest) = line.split_once(": ").unwrap();
        assert_eq!(usize::from_str_radix(at, 16).unwrap(), bytes.len(), "{line}");
        // Sixteen bytes in four groups; their text follows.
        let digits: Vec<u8> = rest.bytes().take(36).filter(|digit| *digit != b' ').collect();
        let digits = String::from_utf8(digits).unwrap();
        bytes.extend((0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()));
    }
    bytes
}

const BIG_BYTES: usize = 40 << 20;

/// The folder of the scripted session: its files by name.
fn site() -> (tempfile::TempDir, BTreeMap<&'static str, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let poem: String = (0..400).map(|line| format!("line {line} of a text that spans some pages\n")).collect();
    let files = BTreeMap::from([
        ("big.bin", content(1, BIG_BYTES)),
        ("empty", Vec::new()),
        ("index.html", b"<p>hello".to_vec()),
        ("noise.bin", content(2, 5003)),
        ("sub/poem.txt", poem.into_bytes()),
    ]);
    std::fs::create_dir(dir.path().join("sub")).unwrap();
    for (name, bytes) in &files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    (dir, files)
}

/// What the host holds for a client that stops reading is much less than what is left of the file.
fn bound_buffers(client: &Client) {
    socket2::SockRef::from(client.socket()).set_recv_buffer_size(256 << 10).unwrap();
}

#[test]
fn every_command_says_what_is_so() {
    let (dir, files) = site();
    let server = serve(dir.path());
    let mut shell = Telnet::new(&server);

    let help = shell.run("help");
    let listed: BTreeSet<String> =
        help.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect();
    assert!(listed.len() > 25, "{help}");
    for name in &listed {
        let usage = shell.run(&format!("help {name}"));
        assert!(usage.starts_with(&format!("usage: {name}")), "{usage}");
    }

    the_machine(&mut shell);
    the_volume(&mut shell, &files);
    the_requests(&mut shell, &server, &files);
    the_objects(&mut shell, &files);
    the_cache(&mut shell, &server, &files);
    mounting(&mut shell, &server, &files);
    commands_in_commands(&mut shell);

    assert!(shell.run("reboot").contains("'halt' ends it"));
    // Tried where it can be: in a test of its own.
    shell.used.extend(["exit", "halt"].map(str::to_owned));
    let missing: Vec<_> = listed.difference(&shell.used).collect();
    assert!(missing.is_empty(), "commands of 'help' that no test uses: {missing:?}");
    shell.send("exit\r\n");
    assert!(shell.read_to_end().contains("logout"));
    server.signal();
    let (_, said) = server.finish();
    assert_eq!(said, "");
}

fn the_machine(shell: &mut Telnet) {
    assert!(shell.run("info").starts_with("MiniCache/"));
    assert_eq!(shell.run("echo  a  b "), "a b\n");
    assert_eq!(shell.run("clear"), "\x1b[H\x1b[J");
    assert!(shell.run("uptime").starts_with("up 0:"), "a test takes no hour");
    let date = shell.run("date");
    assert!(date.len() == 25 && date.contains(" 20") && date.matches(':').count() == 2, "{date}");
    let own = shell.stream.local_addr().unwrap();
    let who = shell.run("who");
    assert!(who.lines().count() == 1 && who.contains("rsh0: up 0:") && who.contains(&own.ip().to_string()), "{who}");
    let interface = shell.run("ifconfig");
    assert!(interface.contains("HWaddr 06-00-00-00-00-01") && interface.contains(" GSO4 "), "{interface}");
    let rings = shell.run("rings");
    let pools = shell.run("free -p");
    assert!(pools.contains("\ncache ") && pools.contains("\npackets "), "{pools}");
    assert!(shell.run("free").contains(" MiB ") && shell.run("free -x").contains("usage: free"));
    assert!(shell.run("mallinfo").contains("does not tell"));
    assert_eq!(
        ["", " off", "", " on"].map(|word| shell.run(&format!("autosize{word}"))),
        ["on\n", "off\n", "off\n", "on\n"]
    );
    assert!(rings.starts_with("en0\n") && rings.contains("tx_frames") && rings.contains("notifications"), "{rings}");
}

fn the_volume(shell: &mut Telnet, files: &BTreeMap<&str, Vec<u8>>) {
    let count = files.len();
    let list = shell.run("ls");
    assert_eq!(list.lines().count(), count, "{list}");
    assert!(files.keys().all(|name| list.lines().any(|line| line.ends_with(&format!(" {name}")))), "{list}");
    let info = shell.run("shfs-info");
    assert!(info.contains("SHFS version:") && info.contains(&format!("Objects:            {count} (")), "{info}");
    let disks = shell.run("lsbd");
    assert!(disks.lines().count() == 1 && disks.contains("in use") && disks.contains("block size"), "{disks}");
    assert!(shell.run("mount").contains(&format!("{count} objects")));
}

fn the_requests(shell: &mut Telnet, server: &Server, files: &BTreeMap<&str, Vec<u8>>) {
    assert_eq!(shell.run("stats objects"), "", "nobody has asked for anything");
    let mut held = server.connect();
    assert_eq!(held.get("/sub/poem.txt").body, files["sub/poem.txt"]);
    held.send("HEAD", "/sub/poem.txt");
    held.read_head();
    let (first, last) = (1000, 2999);
    write!(held.stream.get_mut(), "GET /noise.bin HTTP/1.1\r\nHost: test\r\nRange: bytes={first}-{last}\r\n\r\n")
        .unwrap();
    let answer = held.read_answer();
    assert!(answer.status == 206 && answer.body == files["noise.bin"][first..=last], "{}", answer.head);

    let connections = shell.run("netstat");
    let own = held.socket().local_addr().unwrap();
    assert!(
        connections.lines().any(|line| line.starts_with(&own.to_string()) && line.contains("ESTABLISHED")),
        "{own}: {connections}"
    );
    assert!(connections.contains("\n1 connections of "), "{connections}");
    assert_eq!(shell.number("http-info", "http_requests"), 3);
    assert_eq!(shell.number("stats counters", "http_2xx"), 3);
    assert_eq!(shell.run("lsof"), "", "nothing is under way");

    // One that stops reading half way.
    let mut stalled = server.connect();
    bound_buffers(&stalled);
    stalled.send("GET", "/big.bin");
    let (_, _, length) = stalled.read_head();
    assert_eq!(length, BIG_BYTES);
    let mut half = vec![0; BIG_BYTES / 2];
    stalled.stream.read_exact(&mut half).unwrap();
    let open = shell.run("lsof");
    let words: Vec<&str> = open.split_whitespace().collect();
    assert_eq!(words[1..], ["1", "big.bin"], "{open}");
    assert_eq!(object_lines(&shell.run("stats objects"))["big.bin"].hits, 1);
    let refused = shell.run("umount");
    assert!(refused.contains("1 objects are open") && refused.contains("umount: command returned"), "{refused}");
    assert!(shell.number("cache-info", "cache_reads") > 0);

    // It leaves with bytes unread, which resets the connection.
    drop(stalled);
    eventually("the aborted transfer is closed", || shell.run("lsof").is_empty().then_some(()));
    let lines = object_lines(&shell.run("stats objects"));
    let big = &lines["big.bin"];
    assert_eq!((big.hits, big.completed), (1, 0));
    assert_eq!((&big.progress[..3], big.progress[5]), (&[1, 1, 1][..], 0), "{big:?}");
    for name in ["noise.bin", "sub/poem.txt"] {
        assert_eq!(lines[name], ObjectLine { hits: 1, completed: 1, progress: vec![1; 6] }, "{name}");
    }
    assert_eq!(lines.len(), 3);
    assert!(shell.run("stats").len() > shell.run("stats objects").len());
}

fn the_objects(shell: &mut Telnet, files: &BTreeMap<&str, Vec<u8>>) {
    let poem = &files["sub/poem.txt"];
    assert!(shell.run_for_bytes("cat sub/poem.txt") == *poem);
    assert!(shell.run_for_bytes("cat / index.html empty") == [&files["index.html"][..]; 2].concat());
    let shown: Vec<u8> = files["noise.bin"].iter().copied().filter(|byte| *byte != 0).collect();
    assert!(shell.run_for_bytes("cat noise.bin") == shown);
    assert!(undump(&shell.run("df noise.bin")) == files["noise.bin"]);
    assert_eq!(shell.run("df empty"), "");
    assert_eq!(shell.run("file noise.bin"), "noise.bin: application/octet-stream, 4.8 KiB\n");
    assert_eq!(shell.run("file / empty"), "/: text/html, 8 B\nempty: application/octet-stream, 0 B\n");
    let list = shell.run("ls");
    let digest = list.lines().find(|line| line.ends_with(" index.html")).unwrap().split(' ').next().unwrap();
    assert_eq!(shell.run(&format!("cat {digest}")), "<p>hello");
}

fn the_cache(shell: &mut Telnet, server: &Server, files: &BTreeMap<&str, Vec<u8>>) {
    eventually("the cache is empty", || (shell.run("flush") == "0 chunks dropped\n").then_some(()));
    let reads = shell.number("cache-info", "cache_reads");
    assert_eq!(shell.run("prefetch big.bin sub/poem.txt"), "");
    let prefetched = shell.number("cache-info", "cache_reads");
    assert!(prefetched > reads);
    assert_eq!(server.connect().get("/sub/poem.txt").body, files["sub/poem.txt"]);
    assert_eq!(shell.number("cache-info", "cache_reads"), prefetched, "what is prefetched needs no disk");
    let said = shell.run("prefetch-all");
    assert_eq!(said.matches("Prefetching ?").count(), files.len(), "{said}");
}

fn mounting(shell: &mut Telnet, server: &Server, files: &BTreeMap<&str, Vec<u8>>) {
    let poem = || server.connect().get("/sub/poem.txt");
    let mounted = format!("{} objects\n", files.len());
    assert!(shell.run("remount").ends_with(&mounted));
    assert!(poem().body == files["sub/poem.txt"]);
    let refused = shell.run("mount all");
    assert!(refused.contains("already mounted") && refused.contains("umount"), "{refused}");
    assert_eq!(shell.run("umount"), "");
    assert_eq!(poem().status, 503);
    for command in ["umount", "remount", "ls", "lsof", "shfs-info", "cat empty", "mount", "prefetch-all"] {
        let said = shell.run(command);
        assert!(said.contains("No filesystem mounted"), "{command}: {said}");
    }
    assert!(shell.run("mount all").ends_with(&mounted));
    let answer = poem();
    assert!(answer.status == 200 && answer.body == files["sub/poem.txt"], "{}", answer.head);
    let mut stalled = server.connect();
    bound_buffers(&stalled);
    stalled.send("GET", "/big.bin");
    stalled.read_head();
    assert_eq!(shell.run("umount -f"), "");
    assert_eq!(poem().status, 503);
    let mut body = vec![0; BIG_BYTES];
    stalled.stream.read_exact(&mut body).unwrap();
    assert!(body == files["big.bin"], "what was under way is finished");
    assert!(shell.run("mount all").ends_with(&mounted));
}

fn commands_in_commands(shell: &mut Telnet) {
    assert_eq!(shell.run("xargs echo a 'b c' d"), "a\nb c\nd\n");
    assert_eq!(shell.run("xargs cat index.html /index.html"), "<p>hello<p>hello");
    let failed = shell.run("xargs file nothing index.html");
    assert!(failed.contains("No such file") && !failed.contains("index.html: text"), "{failed}");
    let timed = shell.run("time echo x");
    assert!(timed.starts_with("x\necho: command runtime 0m"), "{timed}");
    assert_eq!(shell.run("repeat 3 1 0 echo x"), "x\nx\nx\n");
    assert_eq!(shell.run("repeat 0 1 0 echo x"), "");
    assert_eq!(shell.run("repeat 4 0 2 echo x"), "x\nx\n\x1b[H\x1b[Jx\nx\n");
    assert!(shell.run("repeat 2 1 0 time xargs echo a b").matches("a\nb\nxargs: command runtime").count() == 2);
    assert!(shell.run("time time").contains("usage: time"));
    assert!(shell.run(&format!("{}echo x", "time ".repeat(20))).contains("nested too deeply"));
}

#[test]
fn halt_ends_the_process_and_says_so() {
    let (dir, files) = site();
    let server = serve(dir.path());
    let mut shells = [Telnet::new(&server), Telnet::new(&server)];
    let mut held = server.connect();
    assert_eq!(held.get("/index.html").body, files["index.html"]);
    shells[0].send("halt\r\n");
    for shell in &mut shells {
        let said = shell.read_to_end();
        assert!(said.contains("The system halts now.") && said.ends_with("logout\r\n"), "{said}");
    }
    let (_, said) = server.finish();
    assert_eq!(said, "");
}

#[test]
fn wrong_lines_are_answered_and_harmless() {
    let (dir, _) = site();
    let server = serve(dir.path());
    let mut shell = Telnet::new(&server);
    for (line, expected) in [
        ("nonsense and more", "nonsense: command not found"),
        ("echo 'open", "quote is not closed"),
        ("echo open\\", "backslash"),
        ("help nonsense", "no command 'nonsense'"),
        ("help a b", "usage: help"),
        ("cat", "name at least one object"),
        ("cat nothing", "nothing: Could not open"),
        ("cat ?00", "Could not open"),
        ("cat ?0g", "Could not open"),
        ("cat ?\u{e4}", "Could not open"),
        ("file nothing", "nothing: Could not open"),
        ("df", "usage: df"),
        ("df index.html empty", "usage: df"),
        ("prefetch nothing", "Could not open"),
        ("stats everything", "usage: stats"),
        ("umount please", "usage: umount"),
        ("flush now", "unexpected argument 'now'"),
        ("repeat", "usage: repeat"),
        ("repeat 1 2 3", "usage: repeat"),
        ("repeat x 1 1 echo", "'x' is not a number"),
        ("repeat 5000000000 1 1 echo", "is not a number"),
        ("repeat 3 1 0 nonsense", "nonsense: command not found"),
        ("time nonsense", "nonsense: command not found"),
        ("xargs", "usage: xargs"),
        ("xargs nonsense a", "nonsense: command not found"),
    ] {
        let said = shell.run(line);
        assert!(said.contains(expected), "{line}: {said}");
    }
    assert_eq!(shell.run("umount"), "");
    for (line, expected) in [("mount 7", "'7'"), ("mount x", "'x'"), ("mount 0 0", "duplicates"), ("mount -1", "'-1'")]
    {
        let said = shell.run(line);
        assert!(said.contains(expected), "{line}: {said}");
    }
    assert!(shell.run("mount all").contains("5 objects"));
    assert_eq!(shell.run(""), "");
    assert_eq!(shell.run("   "), "");
    let most = shell.run(&format!("echo {}", "x".repeat(300)));
    assert_eq!(most, format!("{}\n", "x".repeat(255 - "echo ".len())), "keys beyond 255 are not taken");
    assert_eq!(shell.run("echo still here"), "still here\n");
}

#[test]
fn lines_can_be_edited_and_quoted() {
    let (dir, _) = site();
    let server = serve(dir.path());
    let mut shell = Telnet::new(&server);
    assert_eq!(shell.run(r#"echo 'a  b' "c \" d" e\ \ f '' x"#), "a  b c \" d e  f  x\n");
    assert_eq!(shell.run("echo abX\x08cY\x7fd"), "abcd\n");
    assert_eq!(shell.run("\x08\x7fecho x"), "x\n");
    assert_eq!(shell.run("echo \u{e4}\u{20ac}\x7f\u{f6}"), "\u{e4}\u{f6}\n");
    assert_eq!(shell.run("nonsense\x15echo x"), "x\n");
    // LF alone, CR NUL and CR LF each end one line.
    shell.send("echo 1\necho 2\r\0echo 3\r\n");
    for line in ["1", "2", "3"] {
        assert_eq!(shell.read_until(PROMPT), format!("{line}\r\n{PROMPT}"));
    }
}

#[test]
fn a_client_that_is_echoed_to_has_a_history() {
    let (dir, _) = site();
    let server = serve(dir.path());
    let mut shell = Telnet::new(&server);
    shell.let_it_echo();
    const COLOURED: &str = "\x1b[01;31mmc\x1b[00m# ";
    shell.send("echo first\r\0");
    assert_eq!(shell.read_until(COLOURED), format!("echo first\r\nfirst\r\n{COLOURED}"));
    shell.send("echo second\r\0");
    assert_eq!(shell.read_until(COLOURED), format!("echo second\r\nsecond\r\n{COLOURED}"));
    for (keys, expected) in [("\x1b[A\r\0", "second"), ("\x1b[A\x1b[A\r\0", "first"), ("\x1bOA\x7f!\r\0", "firs!")] {
        shell.send(keys);
        let shown = shell.read_until(COLOURED);
        assert!(shown.ends_with(&format!("\r\n{expected}\r\n{COLOURED}")), "{keys:?}: {shown:?}");
    }
    // ^C drops the line, ^D on an empty one ends the session.
    shell.send("echo never\x03");
    let shown = shell.read_until(COLOURED);
    assert_eq!(shown, format!("echo never^C\r\n{COLOURED}"));
    shell.send("\x04");
    assert!(shell.read_to_end().contains("logout"));
}

#[test]
fn interrupting_ends_what_runs() {
    let (dir, _) = site();
    let server = serve(dir.path());
    let mut shell = Telnet::new(&server);
    // ^C, and telnet's "interrupt process".
    for interrupt in [&[3][..], &[IAC, 244]] {
        shell.send("repeat 1000000 5 0 echo tick\r\n");
        for _ in 0..3 {
            shell.read_until("tick\r\n");
        }
        shell.send(interrupt);
        assert!(shell.read_until(PROMPT).ends_with(&format!("^C\r\n{PROMPT}")));
        assert_eq!(shell.run("echo calm"), "calm\n");
    }
    // A hexdump of 40 MiB that nobody reads to its end.
    shell.send("df big.bin\r\n");
    shell.read_until("00010000: ");
    shell.send([3]);
    shell.read_until(&format!("^C\r\n{PROMPT}"));
    assert_eq!(shell.run("echo calm"), "calm\n");
    assert_eq!(shell.run("lsof"), "");
}

#[test]
fn a_fifth_session_is_told_why_not() {
    let (dir, _) = site();
    let server = serve(dir.path());
    let mut shells: Vec<Telnet> = (0..4).map(|_| Telnet::new(&server)).collect();
    let who = shells[3].run("who");
    assert!((0..4).all(|number| who.contains(&format!("rsh{number}: "))), "{who}");
    let said = Telnet::connect(shell_address(&server)).read_to_end();
    assert!(said.contains("All 4 sessions"), "{said}");
    for shell in &mut shells {
        assert_eq!(shell.run("echo x"), "x\n");
    }
    drop(shells.remove(1));
    let mut next = eventually("a session is free again", || {
        let mut shell = Telnet::connect(shell_address(&server));
        while shell.read() && !shell.text.ends_with(PROMPT.as_bytes()) {}
        shell.text.ends_with(PROMPT.as_bytes()).then_some(shell)
    });
    next.text.clear();
    assert!(next.run("who").contains("rsh1: "));
}

#[test]
fn a_script_that_ends_its_half_gets_its_answers() {
    let (dir, files) = site();
    let server = serve(dir.path());
    for (script, expected) in [
        ("echo help\n", "\r\nhelp\r\n".to_owned()),
        ("echo a\necho b", "b\r\n".to_owned()),
        ("cat sub/poem.txt\nrepeat 3 20 0 echo tick\n", String::from_utf8(files["sub/poem.txt"].clone()).unwrap()),
    ] {
        let mut shell = Telnet::connect(shell_address(&server));
        shell.send(script);
        shell.stream.shutdown(Shutdown::Write).unwrap();
        let said = shell.read_to_end().replace(PROMPT, "\r\n");
        assert!(said.contains(&expected), "{script}: {said}");
        assert!(!script.contains("repeat") || said.matches("tick").count() == 3, "{said}");
    }
    eventually("only this session is left", || (Telnet::new(&server).run("who").lines().count() == 1).then_some(()));
}

#[test]
fn where_the_shell_listens_is_said_or_why_it_does_not() {
    let (dir, files) = site();
    let none = Server::of(dir.path());
    assert!(!none.greeting.iter().any(|line| line.contains("shell")), "{:?}", none.greeting);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let folder = dir.path().to_str().unwrap();
    let said = fail(&["serve", folder, "--listen", "127.0.0.1:0", "--shell", &taken]);
    assert!([&taken, "taken", "--shell"].iter().all(|part| said.contains(part)), "{said}");

    // If this can't be bound, somebody else has it.
    let _taken = TcpListener::bind("127.0.0.1:2323");
    let server = Server::start_as_told(&[dir.path()], &["--listen", "127.0.0.1:0"]);
    assert!(!server.greeting.iter().any(|line| line.contains("shell")), "{:?}", server.greeting);
    assert_eq!(server.connect().get("/index.html").body, files["index.html"]);
    server.signal();
    let (_, said) = server.finish();
    assert!(said.contains("warning") && said.contains("no shell") && said.contains("2323"), "{said}");
}
