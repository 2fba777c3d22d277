//! `minicache shfs`: what it tells of volumes made here and by the original's tools.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::{fail, fixtures, members, minicache, run, succeed};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// A packed folder.
struct Packed {
    dir: TempDir,
}

impl Packed {
    fn new(files: &[(&str, &[u8])]) -> Self {
        let dir = tempdir().unwrap();
        let root = dir.path().join("site");
        fs::create_dir(&root).unwrap();
        for (name, bytes) in files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let packed = Self { dir };
        succeed(&["pack".into(), root.into_os_string(), packed.image().into_os_string()]);
        packed
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("site.img")
    }

    fn shfs(&self, command: &str, more: &[&str]) -> Vec<OsString> {
        shfs(command, &[self.image()], more)
    }
}

fn shfs(command: &str, images: &[PathBuf], more: &[&str]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["shfs".into(), command.into()];
    arguments.extend(images.iter().map(|image| image.clone().into_os_string()));
    arguments.extend(more.iter().map(Into::into));
    arguments
}

fn json(arguments: &[OsString]) -> Value {
    serde_json::from_slice(&succeed(arguments)).expect("the answer is JSON")
}

#[test]
fn objects_are_listed() {
    let packed = Packed::new(&[("index.html", b"<p>hello"), ("docs/a.css", b""), ("big.bin", &[7; 100_000])]);
    let listed = json(&packed.shfs("ls", &["--json"]));
    let object = |name: &str| listed.as_array().unwrap().iter().find(|object| object["name"] == name).unwrap().clone();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(object("index.html")["mime"], "text/html");
    assert_eq!(object("index.html")["default"], true);
    assert_eq!(object("index.html")["extent"]["length_bytes"], 8);
    assert_eq!(object("docs/a.css")["extent"]["chunks"], 0);
    assert_eq!(object("big.bin")["digest"].as_str().unwrap().len(), 64);

    let text = String::from_utf8(succeed(&packed.shfs("ls", &[]))).unwrap();
    assert_eq!(text.lines().count(), 4);
    let line = text.lines().find(|line| line.ends_with(" index.html")).unwrap();
    assert!(line.contains(" -D- ") && line.contains(" text/html "), "{line}");
}

#[test]
fn volumes_are_described() {
    let packed = Packed::new(&[("index.html", b"<p>hello"), ("two", b"2")]);
    let info = json(&packed.shfs("info", &["--json"]));
    assert_eq!((info["name"].as_str(), info["objects"].as_u64()), (Some("site"), Some(2)));
    assert_eq!(info["created"], "2033-05-18T03:33:20Z");
    assert_eq!(info["content_bytes"], 9);
    assert_eq!(info["default_object"], "index.html");
    assert_eq!(info["hash_function"], "manual");
    let text = String::from_utf8(succeed(&packed.shfs("info", &[]))).unwrap();
    for line in ["Volume name:        site", "Hash function:      Manual (256 bits)", "Volume members:     1 device(s)"]
    {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
}

#[test]
fn objects_are_written_by_name_and_by_digest() {
    let big: Vec<u8> = (0..3_000_000u32).flat_map(|word| word.to_le_bytes()).collect();
    let packed = Packed::new(&[("index.html", b"<p>hello"), ("empty", b""), ("docs/big", &big), ("?f00", b"question")]);
    assert_eq!(succeed(&packed.shfs("cat", &["index.html"])), b"<p>hello");
    assert_eq!(succeed(&packed.shfs("cat", &["/index.html"])), b"<p>hello");
    assert_eq!(succeed(&packed.shfs("cat", &["empty"])), b"");
    assert_eq!(succeed(&packed.shfs("cat", &["?f00"])), b"question");
    assert!(succeed(&packed.shfs("cat", &["docs/big"])) == big);
    let listed = json(&packed.shfs("ls", &["--json"]));
    for object in listed.as_array().unwrap() {
        let by_digest = succeed(&packed.shfs("cat", &[&format!("?{}", object["digest"].as_str().unwrap())]));
        assert!(by_digest == succeed(&packed.shfs("cat", &[object["name"].as_str().unwrap()])));
    }
    assert!(fail(&packed.shfs("cat", &["none"])).contains("there is no object none"));
    assert!(fail(&packed.shfs("cat", &["?12"])).contains("64 hexadecimal digits"));
    assert!(fail(&packed.shfs("cat", &[&format!("?{}", "0".repeat(64))])).contains("there is no object"));
}

#[test]
fn objects_may_begin_inside_a_chunk() {
    let content: Vec<u8> = (0..20_000u32).map(|byte| (byte % 251) as u8).collect();
    let packed = Packed::new(&[("object", &content)]);
    let good = fs::read(packed.image()).unwrap();
    // The only entry of the table lies in front of its name's place.
    let entry = good.windows(7).position(|bytes| bytes == b"object\0").unwrap() - 181;
    let chunk_bytes = json(&packed.shfs("info", &["--json"]))["chunk_bytes"].as_u64().unwrap();
    for offset in [1, 4095, 4096, 4097, chunk_bytes - 1].map(|offset| offset.min(chunk_bytes - 1)) {
        let mut image = good.clone();
        image[entry + 72..entry + 80].copy_from_slice(&offset.to_le_bytes());
        image[entry + 80..entry + 88].copy_from_slice(&(20_000 - offset).to_le_bytes());
        fs::write(packed.image(), image).unwrap();
        assert!(succeed(&packed.shfs("cat", &["object"])) == content[offset as usize..], "{offset}");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let files: Vec<_> = (0..2000).map(|index| (format!("file-{index}"), vec![0; 10])).collect();
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let packed = Packed::new(&files);
    for command in [&["ls"][..], &["ls", "--json"]] {
        let mut child = minicache(&packed.shfs(command[0], &command[1..]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 4];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    }
}

#[test]
fn standard_output_that_fails_is_an_error() {
    let Ok(full) = File::create("/dev/full") else { return eprintln!("skipped: there is no /dev/full") };
    let packed = Packed::new(&[("index.html", b"x")]);
    let output = minicache(&packed.shfs("ls", &[])).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
}

#[test]
fn damage_is_told_by_its_field() {
    let packed = Packed::new(&[("index.html", b"<p>hello")]);
    let good = fs::read(packed.image()).unwrap();
    let damaged = |byte: usize, value: u8| {
        let mut bad = good.clone();
        bad[byte] = value;
        fs::write(packed.image(), bad).unwrap();
        let message = fail(&packed.shfs("info", &[]));
        assert!(message.contains("site.img"), "{message}");
        message.to_lowercase()
    };
    assert!(damaged(0x400, b'X').contains("label"));
    assert!(damaged(0x404, 3).contains("version"));
    assert!(damaged(0x44d, 0).contains("member_count"));
    assert!(damaged(0x439, 1).contains("member_stripesize"));
    assert!(damaged(4096 + 17, 0).contains("hlen"));
    assert!(damaged(4096 + 16, 9).contains("hfunc"));
    assert!(damaged(4096 + 21, 0xff).contains("htable"));
    fs::write(packed.image(), &good[..good.len() / 2]).unwrap();
    fail(&packed.shfs("ls", &[]));
    fs::write(packed.image(), b"").unwrap();
    fail(&packed.shfs("cat", &["index.html"]));
}

#[test]
fn images_that_are_none_are_named() {
    let dir = tempdir().unwrap();
    let none = dir.path().join("none.img");
    assert!(fail(&shfs("ls", &[none], &[])).contains("none.img"));
    assert!(fail(&shfs("ls", &[dir.path().to_path_buf()], &[])).contains("neither a file nor a block device"));
    let many = vec![dir.path().join("x"); 65];
    assert!(fail(&shfs("ls", &many, &[])).contains("64"));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [&["shfs"][..], &["shfs", "ls"], &["shfs", "cat", "only-one"], &["shfs", "none", "x"]] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// A row of the original's listing: digest, chunk and chunks (files only), flags, kind of link, MIME type, name.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    digest: String,
    place: Option<(u64, u64)>,
    flags: String,
    kind: String,
    mime: String,
    name: String,
}

/// The rows of `shfs_admin -l`.
fn rows(listing: &str) -> Vec<Row> {
    let width = listing.lines().next().unwrap().find("Loc").unwrap() - 4;
    let width = if width > 100 { 128 } else { 64 };
    let row = |line: &str| {
        let field = |from: usize, length: usize| line[from..from + length].trim().to_string();
        let place = (field(width, 13), field(width + 13, 13));
        Row {
            digest: field(0, width),
            place: place.0.parse().ok().zip(place.1.parse().ok()),
            flags: field(width + 27, 6),
            kind: field(width + 33, 6),
            mime: field(width + 39, 25),
            name: line[width + 39 + 25 + 17..].to_string(),
        }
    };
    listing.lines().skip(1).map(row).collect()
}

/// The same of our listing in JSON.
fn rows_of(listed: &Value) -> Vec<Row> {
    let row = |object: &Value| {
        let text = |field: &str| object[field].as_str().unwrap().to_string();
        let extent = object.get("extent");
        let flag = |field: &str, letter| if object[field] == true { letter } else { '-' };
        let kind = object.get("link").map_or("", |link| link["kind"].as_str().unwrap());
        Row {
            digest: text("digest"),
            place: extent.map(|extent| (extent["chunk"].as_u64().unwrap(), extent["chunks"].as_u64().unwrap())),
            flags: [if extent.is_none() { 'L' } else { '-' }, flag("default", 'D'), flag("hidden", 'H')]
                .iter()
                .collect(),
            kind: kind.replace("redirect", "redir"),
            mime: text("mime"),
            name: text("name"),
        }
    };
    listed.as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_originals_volumes_are_listed_like_the_original() {
    let Some(folder) = fixtures() else { return };
    for name in ["single", "comb", "comb3", "ind", "links", "removed"] {
        let expected = rows(&fs::read_to_string(folder.join(format!("{name}.list.txt"))).unwrap());
        let images = members(&folder, name);
        assert!(!expected.is_empty() && !images.is_empty());
        assert_eq!(rows_of(&json(&shfs("ls", &images, &["--json"]))), expected, "{name}");
    }
}

#[test]
fn the_originals_volumes_are_described_like_the_original() {
    let Some(folder) = fixtures() else { return };
    for name in ["single", "comb", "comb3", "ind", "links", "removed"] {
        let expected = fs::read_to_string(folder.join(format!("{name}.mkfs.txt"))).unwrap();
        let told = String::from_utf8(succeed(&shfs("info", &members(&folder, name), &[]))).unwrap();
        // Dates are told in UTC, and the raw size of an entry is not told.
        let same =
            |line: &&str| !line.is_empty() && !line.starts_with("Creation date") && !line.starts_with("Entry size");
        for line in expected.lines().take_while(|line| !line.starts_with("Erasing")).filter(same) {
            assert!(told.lines().any(|ours| ours.starts_with(line)), "{name}: {line}\n{told}");
        }
    }
}

#[test]
fn the_originals_volumes_hold_their_files() {
    let Some(folder) = fixtures() else { return };
    for name in ["single", "comb", "comb3", "ind", "links", "removed"] {
        let images = members(&folder, name);
        for row in rows(&fs::read_to_string(folder.join(format!("{name}.list.txt"))).unwrap()) {
            if row.place.is_none() {
                assert!(fail(&shfs("cat", &images, &[&row.name])).contains("is a link to http://"));
                continue;
            }
            let expected = fs::read(folder.join("files").join(&row.name)).unwrap();
            assert!(succeed(&shfs("cat", &images, &[&row.name])) == expected, "{name}: {}", row.name);
            assert!(
                succeed(&shfs("cat", &images, &[&format!("?{}", row.digest)])) == expected,
                "{name}: {}",
                row.digest
            );
        }
    }
}
