//! A served folder that changes: what is new shows by itself, and no answer is a mix of old and new.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::serve::{Answer, Client, Server, content};

fn etag(answer: &Answer) -> String {
    let lines = answer.head.to_ascii_lowercase();
    lines.lines().find_map(|line| Some(line.strip_prefix("etag: ")?.to_owned())).unwrap()
}

/// Asks until the answer is as expected, for about a minute (ten seconds are enough where nothing else runs).
fn eventually(server: &Server, target: &str, expected: impl Fn(&Answer) -> bool) -> Answer {
    let mut latest = None;
    for _ in 0..600 {
        let answer = server.connect().get(target);
        if expected(&answer) {
            return answer;
        }
        assert!(answer.status < 500, "{target}: {}", answer.head);
        latest = Some(answer);
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{target} has not become what it should be: {}", latest.unwrap().head);
}

#[test]
fn changes_are_served_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).unwrap();
    for name in ["edited", "replaced", "truncated", "removed", "same"] {
        write(name, &content(1, 100_000));
    }
    let server = Server::of(dir.path());
    assert!(server.greeting.iter().any(|line| line.contains("changes in the folder")), "{:?}", server.greeting);
    let mut etags = Vec::new();
    for name in ["edited", "replaced", "truncated", "removed", "same"] {
        let answer = server.connect().get(&format!("/{name}"));
        assert!(answer.status == 200 && answer.body == content(1, 100_000), "{name}");
        etags.push(etag(&answer));
    }
    assert_eq!(server.connect().get("/added").status, 404);
    assert_eq!(server.connect().get("/new/folder/file").status, 404);
    let is = |seed, length| move |answer: &Answer| answer.status == 200 && answer.body == content(seed, length);

    // In place, with the same length.
    let mut file = fs::OpenOptions::new().write(true).open(path("edited")).unwrap();
    file.write_all(&content(2, 100_000)).unwrap();
    drop(file);
    assert_ne!(etag(&eventually(&server, "/edited", is(2, 100_000))), etags[0]);

    write("temporary", &content(3, 70_000));
    fs::rename(path("temporary"), path("replaced")).unwrap();
    assert_ne!(etag(&eventually(&server, "/replaced", is(3, 70_000))), etags[1]);
    eventually(&server, "/temporary", |answer| answer.status == 404);

    fs::OpenOptions::new().write(true).open(path("truncated")).unwrap().set_len(5000).unwrap();
    let truncated = |answer: &Answer| answer.status == 200 && answer.body == content(1, 100_000)[..5000];
    assert_ne!(etag(&eventually(&server, "/truncated", truncated)), etags[2]);
    write("truncated", b"");
    eventually(&server, "/truncated", |answer| answer.status == 200 && answer.body.is_empty());

    write("added", &content(4, 4096));
    eventually(&server, "/added", is(4, 4096));
    fs::remove_file(path("removed")).unwrap();
    eventually(&server, "/removed", |answer| answer.status == 404);
    write("removed", &content(5, 10));
    eventually(&server, "/removed", is(5, 10));

    // In a folder that is new itself.
    fs::create_dir_all(path("new/folder")).unwrap();
    write("new/folder/file", &content(6, 9000));
    eventually(&server, "/new/folder/file", is(6, 9000));
    write("new/folder/file", &content(7, 9000));
    eventually(&server, "/new/folder/file", is(7, 9000));
    fs::rename(path("new"), path("moved")).unwrap();
    eventually(&server, "/moved/folder/file", is(7, 9000));
    eventually(&server, "/new/folder/file", |answer| answer.status == 404);

    let same = server.connect().get("/same");
    assert_eq!(etag(&same), etags[4], "what has not changed is still what clients have cached");
    server.signal();
    server.finish();
}

/// Versions of a file that is written again and again.
const VERSIONS: u64 = 60;

/// The bytes of a version: every 8 bytes tell which, and lengths differ.
fn version(number: u64) -> Vec<u8> {
    let length = 200_000 + number as usize % 7 * 40_000;
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// Writes all versions while clients ask; what they get must be of exactly one version, as `is_right` (length got, length of the
/// version) has it, or fail on the way. Returns how many answers there were, and how many versions they showed.
fn hammer(write: impl Fn(&Path, &[u8]) + Sync, is_right: impl Fn(usize, usize) -> bool + Sync) -> (usize, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    write(&path, &version(0));
    let server = Server::of(dir.path());
    let over = AtomicBool::new(false);
    let seen: Vec<AtomicUsize> = (0..=VERSIONS).map(|_| AtomicUsize::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let mut client = server.connect();
                    while let Some((status, body)) = ask(&mut client) {
                        assert_eq!(status, 200, "a file that exists");
                        let number = body.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
                        let whole = version(number);
                        assert!(number <= VERSIONS && whole.starts_with(&body), "a mix of {} bytes", body.len());
                        assert!(is_right(body.len(), whole.len()), "{} of {} bytes", body.len(), whole.len());
                        seen[number as usize].fetch_add(1, Ordering::Relaxed);
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
            });
        }
        // However the writing ends, the clients end too.
        let writing = scope.spawn(|| {
            for number in 1..=VERSIONS {
                write(&path, &version(number));
                thread::sleep(Duration::from_millis(40));
            }
        });
        let written = writing.join();
        over.store(true, Ordering::Relaxed);
        written.unwrap();
    });
    eventually(&server, "/file", |answer| answer.status == 200 && answer.body == version(VERSIONS));
    server.signal();
    server.finish();
    let counts = seen.iter().map(|count| count.load(Ordering::Relaxed));
    (counts.clone().sum(), counts.filter(|count| *count > 0).count())
}

/// Status and body; `None` if the connection failed before all was there.
fn ask(client: &mut Client) -> Option<(u16, Vec<u8>)> {
    use std::io::{BufRead, Read};
    write!(client.stream.get_mut(), "GET /file HTTP/1.1\r\nHost: test\r\n\r\n").ok()?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    client.stream.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1).unwrap().parse().unwrap(), body))
}

#[test]
fn a_file_that_is_replaced_again_and_again_is_always_one_version() {
    let replace = |path: &Path, bytes: &[u8]| {
        let temporary = path.with_extension("new");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, path).unwrap();
    };
    let (answers, versions) = hammer(replace, |got, whole| got == whole);
    println!("{answers} answers, {versions} versions");
    assert!(answers > 0);
}

/// Who writes in place shows what is there so far; but never some of this version and some of that.
#[test]
fn a_file_that_is_rewritten_in_place_is_never_a_mix() {
    let rewrite = |path: &Path, bytes: &[u8]| fs::write(path, bytes).unwrap();
    let (answers, versions) = hammer(rewrite, |_, _| true);
    println!("{answers} answers, {versions} versions");
    assert!(answers > 0);
}
