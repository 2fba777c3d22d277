//! `minicache pack`: what it makes mounts with the appliance's reader and holds every byte.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::support::{content, fail, minicache, mount, run, succeed};
use minicache::cache::shfs::format::{Config, Label};
use minicache::cache::shfs::{Content, HashFunction};
use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

/// A folder of files and a place for an image beside it.
struct Site {
    dir: TempDir,
    files: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Site {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        fs::create_dir(dir.path().join("site")).unwrap();
        Self { dir, files: BTreeMap::new() }
    }

    fn of(files: &[(&str, &[u8])]) -> Self {
        let mut site = Self::new();
        for (name, bytes) in files {
            site.add(name, bytes);
        }
        site
    }

    fn add(&mut self, name: impl AsRef<[u8]>, bytes: &[u8]) {
        let name = name.as_ref();
        let path = self.root().join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self.files.insert(name.to_vec(), bytes.to_vec());
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("site")
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("site.img")
    }

    fn arguments(&self, more: &[&str]) -> Vec<std::ffi::OsString> {
        let mut arguments = vec!["pack".into(), self.root().into_os_string(), self.image().into_os_string()];
        arguments.extend(more.iter().map(|argument| (*argument).into()));
        arguments
    }

    fn pack(&self, more: &[&str]) -> String {
        String::from_utf8(succeed(&self.arguments(more))).unwrap()
    }

    /// Mounts the image and compares everything with the files.
    fn check(&self) {
        let volume = mount(&self.image());
        let image = fs::read(self.image()).unwrap();
        assert_eq!(image.len() as u64, (volume.vol_size + 1) * u64::from(volume.chunk_bytes));
        assert_eq!((volume.members.len(), volume.digest_bytes), (1, 32));
        let found: BTreeSet<_> = volume.directory.iter().map(|(_, object)| object.name.to_vec()).collect();
        assert_eq!(found, self.files.keys().cloned().collect());
        assert_eq!(volume.directory.len(), self.files.len());
        for (name, bytes) in &self.files {
            let id = volume.directory.by_name(name).unwrap();
            let object = volume.directory.get(id);
            assert!(content(&volume, &image, &object) == bytes.as_slice(), "{:?}", name.escape_ascii().to_string());
            let digest: [u8; 32] = match volume.hash_function {
                HashFunction::Sha => Sha256::digest(bytes).into(),
                _ => Sha256::new().chain_update(name).chain_update([0]).chain_update(bytes).finalize().into(),
            };
            assert_eq!(object.digest, digest);
            assert_eq!(volume.directory.by_digest(&digest), Some(id));
            let path = self.root().join(OsStr::from_bytes(name));
            let modified = path.metadata().unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(object.created_unix_s, modified.as_secs());
        }
        assert_eq!(volume.directory.default_object(), volume.directory.by_name(b"index.html"));

        // What is neither label, configuration, table nor content is zero.
        let mut rest = image.clone();
        let chunk = |chunk: u64| (chunk * u64::from(volume.chunk_bytes)) as usize;
        rest[1024..1024 + size_of::<Label>()].fill(0);
        rest[chunk(1)..chunk(1) + size_of::<Config>()].fill(0);
        rest[chunk(volume.table.first_chunk)..chunk(volume.table.first_chunk + volume.table.chunks)].fill(0);
        for (_, object) in volume.directory.iter() {
            let Content::Extent { chunk: first, length_bytes, .. } = object.content else { panic!("a link") };
            rest[chunk(first)..chunk(first) + length_bytes as usize].fill(0);
        }
        assert!(rest.iter().all(|byte| *byte == 0));
    }
}

/// Bytes that no two calls share.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let blocks = (0u64..).flat_map(|block| Sha256::digest([seed.to_le_bytes(), block.to_le_bytes()].concat()));
    blocks.take(length).collect()
}

#[test]
fn every_byte_is_there() {
    let mut site =
        Site::of(&[("index.html", b"<p>hello"), ("docs/index.html", b"<p>docs"), ("caf\u{e9}.txt", b"utf-8")]);
    for (seed, length) in
        [0, 1, 255, 4095, 4096, 4097, 16384, 32767, 32768, 32769, 100_001, 3 << 20].into_iter().enumerate()
    {
        site.add(format!("data/{length}.bin"), &noise(seed as u64, length));
    }
    site.add(format!("a/{}", "n".repeat(62)), b"a name of 64 bytes");
    site.add(b"latin-\xe9.txt", b"not utf-8");
    for stripe_size in ["4096", "8192", "16384", "32768"] {
        site.pack(&["--force", "--stripe-size", stripe_size]);
        assert_eq!(mount(&site.image()).chunk_bytes.to_string(), stripe_size);
        site.check();
    }
}

#[test]
fn media_types_follow_names() {
    let site =
        Site::of(&[("index.html", b""), ("a.css", b""), ("b/c.JS", b""), ("d.svg", b""), ("e", b""), ("f.docx", b"")]);
    site.pack(&[]);
    let volume = mount(&site.image());
    let mime = |name: &str| {
        let object = volume.directory.get(volume.directory.by_name(name.as_bytes()).unwrap());
        String::from_utf8(object.mime.to_vec()).unwrap()
    };
    assert_eq!(mime("index.html"), "text/html");
    assert_eq!(mime("a.css"), "text/css");
    assert_eq!(mime("b/c.JS"), "text/javascript");
    assert_eq!(mime("d.svg"), "image/svg+xml");
    assert_eq!(mime("e"), "application/octet-stream");
    assert_eq!(mime("f.docx"), "application/octet-stream");
}

#[test]
fn the_same_folder_is_the_same_image() {
    let mut site = Site::of(&[("index.html", b"x"), ("a", b"same"), ("b", b"same")]);
    site.add("c", &noise(0, 50_000));
    site.pack(&[]);
    let first = fs::read(site.image()).unwrap();
    site.pack(&["--force"]);
    assert!(fs::read(site.image()).unwrap() == first);
    site.add("c", &noise(1, 50_000));
    site.pack(&["--force"]);
    let other = fs::read(site.image()).unwrap();
    assert_eq!(other.len(), first.len());
    assert!(other[0x406..0x416] != first[0x406..0x416], "another volume has another UUID");
}

#[test]
fn source_date_epoch_is_the_newest_time() {
    let site = Site::of(&[("old", b""), ("new", b"")]);
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    File::open(site.root().join("old")).unwrap().set_modified(at(1000)).unwrap();
    File::open(site.root().join("new")).unwrap().set_modified(at(3000)).unwrap();
    assert!(minicache(&site.arguments(&[])).env("SOURCE_DATE_EPOCH", "2000").output().unwrap().status.success());
    let volume = mount(&site.image());
    let created = |name: &[u8]| volume.directory.get(volume.directory.by_name(name).unwrap()).created_unix_s;
    assert_eq!((volume.created_unix_s, created(b"old"), created(b"new")), (2000, 1000, 2000));

    let output = minicache(&site.arguments(&["--force"])).env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("SOURCE_DATE_EPOCH"));
}

#[test]
fn equal_contents_share_an_extent() {
    let mut site = Site::new();
    let same = noise(1, 10_000);
    for name in ["a", "b", "z"] {
        site.add(name, &same);
    }
    site.add("c", &noise(2, 10_000));
    site.add("d", b"");
    site.add("e", b"");
    let summary = site.pack(&["--stripe-size", "4096"]);
    assert!(summary.contains("6 objects (2 share"), "{summary}");
    site.check();
    let volume = mount(&site.image());
    let chunk = |name: &[u8]| match volume.directory.get(volume.directory.by_name(name).unwrap()).content {
        Content::Extent { chunk, .. } => chunk,
        Content::Link(_) => panic!("a link"),
    };
    assert_eq!((chunk(b"a"), chunk(b"a")), (chunk(b"b"), chunk(b"z")));
    assert_ne!(chunk(b"a"), chunk(b"c"));
    // Label, configuration, table, two contents of three chunks, and the chunk that the format never uses.
    assert_eq!(fs::metadata(site.image()).unwrap().len(), (1 + 1 + 1 + 2 * 3 + 1) * 4096);
}

#[test]
fn two_thousand_files_fit_their_table() {
    let mut site = Site::new();
    for index in 0..2000u64 {
        let bytes =
            if index % 2 == 0 { noise(index, index as usize % 700) } else { b"the same thousand times".to_vec() };
        site.add(format!("folder-{}/file-{index}.txt", index % 37), &bytes);
    }
    site.pack(&[]);
    site.check();
}

#[test]
fn an_empty_folder_is_an_empty_volume() {
    let site = Site::new();
    site.pack(&[]);
    site.check();
}

#[test]
fn long_names_are_listed_and_refused() {
    let mut site = Site::of(&[("index.html", b"x")]);
    let long = ["a".repeat(65), format!("{}/{}", "b".repeat(40), "c".repeat(40))];
    for name in &long {
        let path = site.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "too long").unwrap();
    }
    site.add("d".repeat(64), b"fits");
    let message = fail(&site.arguments(&[]));
    assert!(long.iter().all(|name| message.contains(name)), "{message}");
    assert!(message.contains("64") && message.contains("--skip"), "{message}");
    assert!(!site.image().exists());

    let summary = site.pack(&["--skip"]);
    assert!(summary.contains("skipped 2 files"), "{summary}");
    site.check();
}

#[test]
fn content_addressed_volumes_refuse_an_equal_file() {
    let mut site = Site::of(&[("index.html", b"one"), ("two", b"two"), ("empty", b"")]);
    site.pack(&["--digest", "content"]);
    assert_eq!(mount(&site.image()).hash_function, HashFunction::Sha);
    site.check();
    site.add("docs/copy", b"two");
    let message = fail(&site.arguments(&["--digest", "content", "--force"]));
    assert!(
        message.contains("docs/copy") && message.contains("two\"") && message.contains("same content"),
        "{message}"
    );
    site.pack(&["--force"]);
    site.check();
}

#[test]
fn the_default_object_can_be_chosen() {
    let site = Site::of(&[("index.html", b"x"), ("home.html", b"y")]);
    site.pack(&["--default", "home.html"]);
    let volume = mount(&site.image());
    assert_eq!(volume.directory.default_object(), volume.directory.by_name(b"home.html"));
    assert!(fail(&site.arguments(&["--default", "none", "--force"])).contains("none"));
}

#[test]
fn volumes_are_named() {
    let site = Site::of(&[("index.html", b"x")]);
    site.pack(&[]);
    assert_eq!(mount(&site.image()).name, "site");
    site.pack(&["--force", "--name", "0123456789abcdef"]);
    assert_eq!(mount(&site.image()).name, "0123456789abcdef");
    assert!(fail(&site.arguments(&["--force", "--name", "0123456789abcdefg"])).contains("16"));
}

#[test]
fn images_are_replaced_only_when_told() {
    let mut site = Site::of(&[("index.html", b"x")]);
    fs::write(site.image(), "precious").unwrap();
    assert!(fail(&site.arguments(&[])).contains("--force"));
    assert_eq!(fs::read(site.image()).unwrap(), b"precious");
    // What fails midway leaves the old image, too.
    site.add("copy", b"x");
    fail(&site.arguments(&["--force", "--digest", "content"]));
    assert_eq!(fs::read(site.image()).unwrap(), b"precious");
    assert_eq!(fs::read_dir(site.dir.path()).unwrap().count(), 2, "no temporary file is left");
    site.pack(&["--force"]);
    site.check();
}

#[test]
fn images_go_where_they_can() {
    let site = Site::of(&[("docs/index.html", b"x")]);
    let root = site.root();
    let pack = |image: &Path| fail(&["pack".as_ref(), root.as_os_str(), image.as_os_str()]);
    assert!(pack(&root.join("site.img")).contains("inside"));
    assert!(pack(&root.join("docs/../docs/site.img")).contains("inside"));
    assert!(pack(site.dir.path()).contains("is a folder"));
    assert!(pack(&site.dir.path().join("none/site.img")).contains("can't find"));
    assert!(pack(Path::new("/dev/null")).contains("not a regular file"));
    assert!(
        fail(&["pack".as_ref(), root.join("docs/index.html").as_os_str(), site.image().as_os_str()])
            .contains("not a folder")
    );
    assert!(fail(&["pack".as_ref(), root.join("none").as_os_str(), site.image().as_os_str()]).contains("can't find"));
}

#[test]
fn links_stay_inside_the_folder() {
    let mut site = Site::of(&[("real", b"r")]);
    std::os::unix::fs::symlink("real", site.root().join("alias")).unwrap();
    site.files.insert(b"alias".to_vec(), b"r".to_vec());
    std::os::unix::fs::symlink("/etc/hostname", site.root().join("leak")).unwrap();
    let output = run(&site.arguments(&[]));
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("left out \"leak\""));
    site.check();
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["pack"][..],
        &["pack", "a"],
        &["pack", "a", "b", "--stripe-size", "5000"],
        &["pack", "a", "b", "--digest", "x"],
    ] {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// Paths of a random tree: a folder and a file never have the same name.
fn trees() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let folder = prop::sample::select(vec!["", "A/", "A/B/", "A/B/C/", "\u{e4}\u{f6}/"]);
    let file = "[a-z0-9 ._\u{e9}-]{1,12}".prop_filter("not a file's name", |name| name != "." && name != "..");
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        (any::<u64>(), 0..40_000usize).prop_map(|(seed, length)| noise(seed, length)),
        (0..3u64, prop::sample::select(vec![4096, 8192, 32768])).prop_map(|(seed, length)| noise(seed, length)),
    ];
    prop::collection::btree_map((folder, file).prop_map(|(folder, file)| format!("{folder}{file}")), bytes, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_tree_is_packed_whole(tree in trees(), stripe_size in prop::sample::select(vec!["4096", "32768"])) {
        let mut site = Site::new();
        for (name, bytes) in &tree {
            site.add(name, bytes);
        }
        site.pack(&["--stripe-size", stripe_size]);
        site.check();
    }
}
