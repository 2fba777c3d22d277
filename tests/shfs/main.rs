//! Whole volumes: what the test writer writes, the program mounts, finds and reads; what is damaged, it reports.

mod damage;
mod disks;
mod original;
#[path = "../volumes/mod.rs"]
mod volumes;

use std::task::Poll;

use minicache::cache::shfs::{
    Content, Directory, EntryDamage, HashFunction, Host, LinkKind, Mount, MountConfig, MountError, Object, Volume,
};
use minicache::rings::Geometry;
use minicache::rings::memory::MemoryDisk;
use volumes::{Shape, Writer, digest, file_entry, noise};

const CONFIG: MountConfig = MountConfig { secret: [7; 16], directory_max_bytes: 1 << 20 };

fn disks(images: &[Vec<u8>]) -> Vec<MemoryDisk> {
    images.iter().map(|image| MemoryDisk::read_only(image.clone())).collect()
}

fn mount_disks(disks: &mut [MemoryDisk]) -> Result<Volume, MountError> {
    let mut mount = Mount::new(CONFIG);
    for _ in 0..1_000_000 {
        if let Poll::Ready(result) = mount.poll(disks) {
            assert!(disks.iter().all(|disk| disk.control().in_flight() == 0));
            return result;
        }
    }
    panic!("the mount does not end");
}

fn mount(images: &[Vec<u8>]) -> Result<Volume, MountError> {
    mount_disks(&mut disks(images))
}

/// Reads an object straight from the images, by the volume's layout.
fn content(volume: &Volume, images: &[Vec<u8>], object: &Object<'_>) -> Vec<u8> {
    let Content::Extent { chunk, offset_bytes, length_bytes } = object.content else { panic!("{object:?} is a link") };
    let (start, end) = (offset_bytes as usize, (offset_bytes + length_bytes) as usize);
    let mut bytes = Vec::new();
    for index in 0..end.div_ceil(volume.chunk_bytes as usize) as u64 {
        for run in volume.layout.runs(chunk + index) {
            let image = &images[run.disk];
            let mut pages = vec![0; run.pages * 4096];
            let on_disk = pages.len().min(image.len() - run.byte as usize);
            pages[..on_disk].copy_from_slice(&image[run.byte as usize..][..on_disk]);
            bytes.extend(pages);
        }
    }
    bytes.resize(bytes.len().max(end), 0xff);
    bytes[start..end].to_vec()
}

fn named<'a>(directory: &'a Directory, name: &[u8]) -> Object<'a> {
    directory.get(directory.by_name(name).unwrap_or_else(|| panic!("no {}", name.escape_ascii())))
}

/// Objects that a volume was given: name, digest, content.
type Objects = Vec<(String, Vec<u8>, Vec<u8>)>;

/// A volume of every shape with objects of lengths around its chunk's, and a content for each name.
fn golden(shape: Shape) -> (Writer, Objects) {
    let chunk = shape.chunk_bytes();
    let mut writer = Writer::new(shape);
    let mut objects = Vec::new();
    let mut lengths = vec![0, 1, 4096, chunk - 1, chunk, chunk + 1];
    if chunk <= 64 << 10 {
        lengths.push(3 * chunk + 5);
    }
    for (seed, length) in lengths.into_iter().enumerate() {
        let name = format!("folder/object-{seed}");
        let (digest, content) = (digest(seed as u64, writer.shape.digest_bytes), noise(seed as u64, length));
        writer.add(name.as_bytes(), b"application/octet-stream", &digest, 0, &content);
        objects.push((name, digest, content));
    }
    (writer, objects)
}

#[test]
fn volumes_of_every_shape_are_read() {
    let digest_lengths = [1, 2, 3, 4, 5, 16, 20, 32, 63, 64];
    let mut shapes = 0;
    for members in [1, 2, 3, 5, 16] {
        for combined in [false, true] {
            for stripe_bytes in [4096, 8192, 16384, 32768] {
                let mut shape = Shape::new(members, combined, stripe_bytes, digest_lengths[shapes % 10]);
                shape.hash_function = 1 + (shapes % 5) as u8;
                shape.backup = shapes % 3 == 0;
                // Tables that fill no whole number of chunks, and buckets that straddle chunks.
                (shape.buckets, shape.bucket_entries) = [(64, 4), (37, 7), (1, 19), (5, 100)][shapes % 4];
                let (writer, objects) = golden(shape.clone());
                let mut images = writer.members.clone();
                images.rotate_left(shapes % members);
                images.insert(shapes % (members + 1), vec![0; 8192]);
                let volume = mount(&images).unwrap_or_else(|error| panic!("{shape:?}: {error}"));
                assert_eq!(volume.vol_size, shape.vol_size());
                assert_eq!(volume.chunk_bytes as usize, shape.chunk_bytes());
                assert_eq!(volume.digest_bytes, shape.digest_bytes);
                assert_eq!(volume.hash_function.to_disk(), shape.hash_function);
                assert_eq!(volume.table.backup_chunk.is_some(), shape.backup);
                assert_eq!(volume.damages, []);
                assert_eq!(volume.directory.len(), objects.len());
                assert_eq!(volume.skipped_disks.len(), 1);
                for (name, digest, expected) in &objects {
                    let by_name = volume.directory.by_name(name.as_bytes());
                    assert_eq!(by_name, volume.directory.by_digest(digest), "{shape:?}");
                    let object = named(&volume.directory, name.as_bytes());
                    assert!(content(&volume, &images, &object) == *expected, "{shape:?} {name}");
                    assert_eq!((object.digest, object.created_unix_s), (&digest[..], 1_700_000_001));
                    assert_eq!(object.mime, b"application/octet-stream");
                }
                assert_eq!(volume.directory.by_name(b"folder/object"), None);
                assert_eq!(volume.directory.by_digest(&vec![0; shape.digest_bytes]), None);
                shapes += 1;
            }
        }
    }
}

#[test]
fn members_come_in_any_order() {
    let (writer, objects) = golden(Shape::new(3, true, 4096, 16));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let images = order.map(|member| writer.members[member].clone());
        let volume = mount(&images).unwrap();
        assert_eq!(volume.members.len(), 3);
        for (member, disk) in volume.layout.members().iter().enumerate() {
            assert_eq!(order[disk.disk], member);
        }
        for (name, _, expected) in &objects {
            assert!(content(&volume, &images, &named(&volume.directory, name.as_bytes())) == *expected);
        }
    }
}

#[test]
fn disks_of_any_sector_size_are_read() {
    for sector_bytes in [512_u32, 1024, 2048, 4096] {
        let (writer, objects) = golden(Shape::new(2, false, 8192, 32));
        let geometry = |image: &Vec<u8>| Geometry {
            sector_bytes,
            sectors: image.len() as u64 / u64::from(sector_bytes),
            read_only: true,
        };
        let mut disks: Vec<MemoryDisk> =
            writer.members.iter().map(|image| MemoryDisk::new(image.clone(), geometry(image), 1)).collect();
        let volume = mount_disks(&mut disks).unwrap();
        for run in volume.layout.runs(5) {
            assert_eq!(run.sector * u64::from(sector_bytes), run.byte);
        }
        assert_eq!(volume.directory.len(), objects.len());
    }
}

#[test]
fn the_last_default_flag_counts_and_stale_ones_do_not() {
    let mut writer = Writer::new(Shape::new(1, false, 4096, 4));
    let slot_of = |writer: &Writer, seed| writer.free_slot(&digest(seed, 4));
    let (low, high) = if slot_of(&writer, 1) < slot_of(&writer, 2) { (1, 2) } else { (2, 1) };
    // Written in the other order than they stand in the table.
    writer.add(b"last", b"", &digest(high, 4), 0x08, b"last");
    writer.add(b"first", b"", &digest(low, 4), 0x08 | 0x01, b"first");
    let volume = mount(&writer.members).unwrap();
    let default = volume.directory.default_object().unwrap();
    assert_eq!(volume.directory.get(default).name, b"last");
    assert!(named(&volume.directory, b"first").is_hidden() && named(&volume.directory, b"first").is_default());

    // The original's tools clear only the digest of an entry that they remove.
    let slot =
        volume.directory.by_name(b"last").map(|_| (0..256).find(|&s| &writer.read_entry(s)[181..185] == b"last"));
    let slot = slot.flatten().unwrap();
    let mut entry = writer.read_entry(slot);
    entry[..8].fill(0);
    writer.write_entry(slot, &entry);
    let volume = mount(&writer.members).unwrap();
    let default = volume.directory.default_object().unwrap();
    assert_eq!(volume.directory.get(default).name, b"first");
    assert_eq!((volume.directory.by_name(b"last"), volume.directory.len()), (None, 1));
}

#[test]
fn of_several_objects_with_one_name_the_first_in_the_table_counts() {
    let mut writer = Writer::new(Shape::new(1, false, 4096, 32));
    for seed in 0..9 {
        writer.add(b"same", b"", &digest(seed, 32), 0, &[seed as u8]);
    }
    let volume = mount(&writer.members).unwrap();
    let (first, object) = volume.directory.iter().next().unwrap();
    assert_eq!(volume.directory.by_name(b"same"), Some(first));
    let slots: Vec<u32> = (0..256).filter(|&slot| writer.read_entry(slot)[181] == b's').collect();
    assert_eq!(object.digest, &writer.read_entry(slots[0])[..32]);
    for (id, object) in volume.directory.iter() {
        assert_eq!(volume.directory.by_digest(object.digest), Some(id));
    }
}

#[test]
fn fields_need_no_terminator() {
    let mut writer = Writer::new(Shape::new(1, false, 4096, 64));
    let (name, mime) = ([b'n'; 64], [b'm'; 32]);
    writer.add(&name, &mime, &[0xff; 64], 0x08, b"x");
    let mut members = writer.members.clone();
    members[0][1024 + 22..1024 + 38].copy_from_slice(b"0123456789abcdef");
    let volume = mount(&members).unwrap();
    assert_eq!(volume.name, "0123456789abcdef");
    let object = named(&volume.directory, &name);
    assert_eq!((object.mime, object.digest), (&mime[..], &[0xff; 64][..]));
    assert_eq!(volume.directory.default_object(), volume.directory.by_digest(&[0xff; 64]));
}

#[test]
fn an_object_may_begin_anywhere_in_its_chunks() {
    let mut writer = Writer::new(Shape::new(3, true, 4096, 8));
    let chunk = writer.shape.chunk_bytes();
    for (seed, offset) in [1, 4095, 4096, chunk - 1, chunk, 2 * chunk + 77].into_iter().enumerate() {
        let bytes = noise(seed as u64, chunk + 3);
        writer.add_at(&[b'a' + seed as u8], b"", &digest(seed as u64, 8), 0, offset, &bytes);
    }
    let volume = mount(&writer.members).unwrap();
    for seed in 0..6_u8 {
        let object = named(&volume.directory, &[b'a' + seed]);
        assert!(content(&volume, &writer.members, &object) == noise(seed.into(), chunk + 3));
        let Content::Extent { offset_bytes, .. } = object.content else { panic!() };
        assert!(offset_bytes < chunk as u64);
    }
}

#[test]
fn links_are_recognised() {
    let mut writer = Writer::new(Shape::new(1, false, 4096, 16));
    let long_host = [b'h'; 32];
    let long_path = [b'p'; 71];
    let v6 = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    writer.add_link(b"v4", &digest(0, 16), (1, &[192, 168, 7, 9]), 81, b"x/y", 0);
    writer.add_link(b"name", &digest(1, 16), (0, b"example.org"), 80, b"", 1);
    writer.add_link(b"long", &digest(2, 16), (0, &long_host), 65535, &long_path, 2);
    writer.add_link(b"v6", &digest(3, 16), (2, &v6), 8080, b"a?b=c d", 2);
    for (seed, (host, port, path, kind)) in [
        ((3, &b"x"[..]), 80, &b""[..], 0),
        ((0, b""), 80, b"", 0),
        ((0, b"a b"), 80, b"", 0),
        ((0, b"a/b"), 80, b"", 0),
        ((0, b"a"), 0, b"", 0),
        ((0, b"a"), 80, b"x\r\nSet-Cookie: y", 0),
        ((0, b"a"), 80, b"", 3),
    ]
    .into_iter()
    .enumerate()
    {
        writer.add_link(b"bad", &digest(10 + seed as u64, 16), host, port, path, kind);
    }
    let volume = mount(&writer.members).unwrap();
    let link = |name: &[u8]| match named(&volume.directory, name).content {
        Content::Link(link) => link,
        other => panic!("{other:?}"),
    };
    assert_eq!((link(b"v4").host, link(b"v4").port), (Host::Ipv4([192, 168, 7, 9]), 81));
    assert_eq!((link(b"v4").path, link(b"v4").kind), (&b"x/y"[..], LinkKind::Redirect));
    assert_eq!((link(b"name").host, link(b"name").path), (Host::Name(b"example.org"), &b""[..]));
    assert_eq!((link(b"name").kind, link(b"name").port), (LinkKind::Raw, 80));
    assert_eq!((link(b"long").host, link(b"long").path), (Host::Name(&long_host), &long_path[..]));
    assert_eq!((link(b"v6").host, link(b"v6").path), (Host::Ipv6(v6), &b"a?b=c d"[..]));
    let mut damages: Vec<EntryDamage> = volume.damages.iter().map(|entry| entry.damage).collect();
    damages.sort_by_key(|damage| format!("{damage:?}"));
    use EntryDamage::{HostName, HostType, LinkKind as Kind, Path, Port};
    assert_eq!(damages, [HostName, HostName, HostName, HostType(3), Kind(3), Path, Port]);
    assert_eq!((volume.directory.len(), volume.damaged_entries), (4, 7));
}

#[test]
fn a_volume_that_ends_within_its_last_used_chunk_is_read() {
    for (members, combined) in [(1, false), (3, false), (3, true)] {
        let mut writer = Writer::new(Shape::new(members, combined, 16384, 4));
        let chunk = writer.shape.vol_size() - 1;
        let digest = digest(1, 4);
        writer.write(chunk, 0, &noise(1, 5000));
        let slot = writer.free_slot(&digest);
        writer.write_entry(slot, &file_entry(b"tail", b"", &digest, 0, chunk, 0, 5000));
        let (member, byte) = writer.place(chunk, 0);
        let cut = |bytes: usize| {
            let mut images = writer.members.clone();
            for (index, image) in images.iter_mut().enumerate() {
                image.truncate(byte + if index == member { bytes } else { 512 });
            }
            images
        };
        let volume = mount(&cut(5120)).unwrap();
        assert!(content(&volume, &cut(5120), &named(&volume.directory, b"tail")) == noise(1, 5000));
        let volume = mount(&cut(4096)).unwrap();
        assert_eq!((volume.directory.len(), volume.damaged_entries), (0, 1));
    }
}

#[test]
fn memory_follows_the_objects_and_not_the_slots() {
    let mut shape = Shape::new(1, false, 32768, 32);
    (shape.buckets, shape.bucket_entries) = (4096, 8);
    shape.member_bytes = vec![16 << 20];
    let mut writer = Writer::new(shape);
    for seed in 0..1000 {
        let digest = digest(seed, 32);
        let slot = writer.free_slot(&digest);
        let name = format!("a/rather/long/name/of/an/object/{seed}");
        writer.write_entry(slot, &file_entry(name.as_bytes(), b"text/html", &digest, 0, 300, 0, 1));
    }
    let volume = mount(&writer.members).unwrap();
    assert_eq!(volume.directory.len(), 1000);
    assert!(volume.directory.memory_bytes() < 1000 * 150, "{} bytes", volume.directory.memory_bytes());
}

#[test]
fn hash_functions_have_names() {
    let names: Vec<String> = (1..=5).filter_map(HashFunction::from_disk).map(|function| function.to_string()).collect();
    assert_eq!(names, ["manual", "SHA", "CRC", "MD5", "HAVAL"]);
}
