//! Volumes that the original's tools made.

use minicache::cache::shfs::Content;

use crate::{content, mount};

/// A line of `shfs_admin -l`: digest, chunk and size in chunks (none for links), flags, name.
struct Listed {
    digest: Vec<u8>,
    extent: Option<(u64, u64)>,
    flags: String,
    name: String,
}

impl Listed {
    fn parse(line: &str, digest_columns: usize) -> Self {
        let digest = line[..digest_columns].trim();
        let digest = digest.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let digest = digest.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let rest = &line[digest_columns + 1..];
        let numbers: Vec<u64> = rest[..26].split_whitespace().map(|number| number.parse().unwrap()).collect();
        let flags = rest[26..].split_whitespace().next().unwrap().to_owned();
        let name = rest.split_whitespace().last().unwrap().to_owned();
        Self { digest, extent: (numbers.len() == 2).then(|| (numbers[0], numbers[1])), flags, name }
    }
}

/// Images that the original's tools made, where they are at hand.
#[test]
fn volumes_of_the_original_tools_are_read() {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures");
    let folder = std::path::PathBuf::from(std::env::var("MINICACHE_FIXTURES").unwrap_or_else(|_| default.to_owned()));
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: no images of the original tools in {}; set MINICACHE_FIXTURES", folder.display());
        return;
    };
    let file_names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = file_names.filter_map(|name| Some(name.strip_suffix(".list.txt")?.to_owned())).collect();
    assert!(!names.is_empty());
    let (mut objects, mut links) = (0, 0);
    for name in names {
        let images = (0..).map_while(|member| std::fs::read(folder.join(format!("{name}{member}.img"))).ok());
        let mut images: Vec<Vec<u8>> = images.collect();
        let listing = std::fs::read_to_string(folder.join(format!("{name}.list.txt"))).unwrap();
        for _ in 0..images.len() {
            let volume = mount(&images).unwrap_or_else(|error| panic!("{name}: {error}"));
            let digest_columns = if volume.digest_bytes > 32 { 128 } else { 64 };
            let listed: Vec<Listed> = listing.lines().skip(1).map(|line| Listed::parse(line, digest_columns)).collect();
            assert_eq!(volume.directory.len(), listed.len(), "{name}");
            assert_eq!(volume.damages, [], "{name}");
            for ((id, object), listed) in volume.directory.iter().zip(&listed) {
                assert_eq!(object.name, listed.name.as_bytes());
                assert_eq!(volume.directory.by_digest(&listed.digest), Some(id), "{name} {}", listed.name);
                assert_eq!(volume.directory.by_name(listed.name.as_bytes()), Some(id), "{name} {}", listed.name);
                assert_eq!(listed.flags.contains('D'), volume.directory.default_object() == Some(id));
                let Content::Extent { chunk, length_bytes, .. } = object.content else {
                    assert!(listed.flags.contains('L') && listed.extent.is_none());
                    links += 1;
                    continue;
                };
                assert_eq!(listed.extent, Some((chunk, length_bytes.div_ceil(volume.chunk_bytes.into()))));
                let expected = std::fs::read(folder.join("files").join(&listed.name)).unwrap();
                assert!(content(&volume, &images, &object) == expected, "{name} {}", listed.name);
                objects += 1;
            }
            images.rotate_left(1);
        }
    }
    assert!(objects > 10 && links > 2, "{objects} objects and {links} links");
}
