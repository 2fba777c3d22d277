//! Whole volumes: what the test writer writes, the program mounts, finds and reads; what is damaged, it reports.

mod volumes;

use std::task::Poll;

use minicache::cache::shfs::{
    Content, Directory, EntryDamage, HashFunction, Host, LinkKind, Mount, MountConfig, MountError, Object, SkipReason,
    Volume,
};
use minicache::rings::BlockError;
use minicache::rings::memory::{MemoryDisk, Pace};
use proptest::prelude::*;
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

fn error(images: &[Vec<u8>]) -> (MountError, String) {
    let error = mount(images).err().expect("this can't be mounted");
    let text = error.to_string();
    (error, text)
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

/// A volume of every shape with objects of lengths around its chunk's, and a content for each name.
fn golden(shape: Shape) -> (Writer, Vec<(String, Vec<u8>, Vec<u8>)>) {
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
        let geometry = |image: &Vec<u8>| minicache::rings::Geometry {
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
fn a_damaged_entry_costs_one_object() {
    let mut writer = Writer::new(Shape::new(2, false, 8192, 4));
    writer.add(b"good", b"text/plain", &digest(0, 4), 0, b"good");
    writer.add(b"mime", b"text/html\r\nX: y", &digest(1, 4), 0, b"mime");
    let (chunk, vol_size) = (8192, writer.shape.vol_size());
    let bad = [
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),
        (1 + writer.shape.table_chunks(), 0, 1),
        (1, chunk - 1, 2),
        (vol_size + 1, 0, 1),
        (vol_size, 0, chunk + 1),
        (u64::MAX, 0, 1),
        (20, u64::MAX, 2),
        (20, 0, u64::MAX),
        (u64::MAX, u64::MAX, u64::MAX),
        (20, chunk * vol_size, 1),
    ];
    let mut slots = Vec::new();
    for (seed, (chunk, offset, length)) in bad.into_iter().enumerate() {
        let digest = digest(100 + seed as u64, 4);
        let slot = writer.free_slot(&digest);
        writer.write_entry(slot, &file_entry(b"bad", b"", &digest, 0x08, chunk, offset, length));
        slots.push(slot);
    }
    // Nothing is read of what has no bytes; the last chunk of the volume may be read.
    for (seed, chunk, length) in [(200, 0, 0), (201, u64::MAX, 0), (202, vol_size, 8192)] {
        let digest = digest(seed, 4);
        let slot = writer.free_slot(&digest);
        writer.write_entry(slot, &file_entry(format!("{seed}").as_bytes(), b"", &digest, 0, chunk, 0, length));
    }
    let volume = mount(&writer.members).unwrap();
    assert_eq!(volume.directory.len(), 5);
    assert_eq!(volume.damaged_entries, 1 + bad.len() as u64);
    assert!(slots.iter().all(|slot| volume.damages.iter().any(|entry| entry.slot == *slot)));
    assert_eq!(volume.directory.by_name(b"bad"), None);
    assert_eq!(volume.directory.default_object(), None);
    assert_eq!(named(&volume.directory, b"good").mime, b"text/plain");
    assert_eq!(named(&volume.directory, b"mime").mime, b"");
    let texts: Vec<String> = volume.damages.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("chunk 1 and its extent overlap")), "{texts:#?}");
    assert!(texts.iter().any(|text| text.contains("chunk 20, offset 0, len 18446744073709551615 reach")), "{texts:#?}");
}

#[test]
fn many_damaged_entries_are_counted_and_not_all_described() {
    let mut writer = Writer::new(Shape::new(1, false, 4096, 2));
    for slot in 0..256 {
        writer.write_entry(slot, &file_entry(b"x", b"", &[1, 1], 0, 0, 0, 1));
    }
    let volume = mount(&writer.members).unwrap();
    assert_eq!((volume.damaged_entries, volume.damages.len(), volume.directory.len()), (256, 32, 0));
}

#[test]
fn what_is_no_volume_says_so() {
    assert_eq!(mount(&[]).err(), Some(MountError::DiskCount(0)));
    assert_eq!(mount(&vec![vec![0; 512]; 65]).err(), Some(MountError::DiskCount(65)));
    let (_, text) = error(&[vec![0; 8192], Vec::new(), vec![1; 100]]);
    assert_eq!(
        text,
        "no disk holds an SHFS volume that can be read; disk 0 is not used: it has no SHFS label; disk 1 is not used: it \
         has no SHFS label; disk 2 is not used: it has no SHFS label"
    );
    let mut image = Writer::new(Shape::new(1, false, 4096, 4)).members.remove(0);
    image[1024 + 38] = 1;
    let (_, text) = error(&[image]);
    assert!(text.contains("disk 0 is not used: label: vol_byteorder says big-endian"), "{text}");
}

#[test]
fn missing_foreign_and_doubled_members_are_told_apart() {
    let writer = Writer::new(Shape::new(2, false, 4096, 4));
    let [first, second] = &writer.members[..] else { panic!() };
    let mut foreign = Writer::new(Shape::new(1, false, 4096, 4)).members.remove(0);
    foreign[1024 + 61..1024 + 77].fill(9);
    foreign[1024 + 78..1024 + 94].fill(9);

    let volume = mount(&[second.clone(), foreign.clone(), first.clone()]).unwrap();
    assert!(matches!(&volume.skipped_disks[..], [skipped] if skipped.disk == 1
        && matches!(&skipped.reason, SkipReason::NotAMember { vol_name, .. } if vol_name == "golden")));
    let (found, text) = error(&[second.clone(), foreign]);
    assert!(matches!(found, MountError::MissingMember { member: 0, members: 2, .. }), "{found:?}");
    assert!(text.contains("member 0 (40404040-4040-4040-4040-404040404040) is not among the disks"), "{text}");
    assert!(text.contains("disk 1 is not used: it belongs to another volume, \"golden\""), "{text}");
    let (found, text) = error(&[first.clone(), second.clone(), first.clone()]);
    assert!(matches!(found, MountError::DuplicateMember { member: 0, disk: 0, duplicate: 2, .. }), "{text}");
    let mut stale = second.clone();
    stale[1024 + 57..1024 + 61].copy_from_slice(&8192_u32.to_le_bytes());
    let (found, text) = error(&[first.clone(), stale]);
    assert_eq!(found, MountError::Disagreement { field: "member_stripesize", disk: 0, other: 1 }, "{text}");
    let (found, text) = error(&[first.clone(), second[..second.len() / 2].to_vec()]);
    assert!(matches!(found, MountError::DiskTooSmall { disk: 1, member: 1, .. }), "{text}");
}

#[test]
fn a_broken_label_is_a_hint_when_its_member_is_missed() {
    let writer = Writer::new(Shape::new(2, false, 4096, 4));
    let mut images = writer.members.clone();
    images[0][1024 + 4] = 3;
    let (_, text) = error(&images);
    assert!(text.contains("disk 0 is not used: label: SHFS version is 3.1, but only 2.1 can be read"), "{text}");
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
fn a_table_that_is_not_there_is_refused_before_memory_is_reserved() {
    let writer = Writer::new(Shape::new(1, false, 4096, 4));
    let mut image = writer.members[0].clone();
    image[4096 + 18..4096 + 26].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    let (_, text) = error(&[image.clone()]);
    assert!(text.contains("htable_ref is chunk 2 and the table has 268435456 chunks"), "{text}");
    // A label that claims a huge volume does not help.
    image[1024 + 40..1024 + 48].copy_from_slice(&u64::MAX.to_le_bytes());
    let (found, text) = error(&[image]);
    assert!(matches!(found, MountError::DiskTooSmall { needed_bytes: u64::MAX, .. }), "{text}");
}

#[test]
fn the_directory_keeps_to_its_limit() {
    let (writer, objects) = golden(Shape::new(1, false, 4096, 32));
    let config = MountConfig { directory_max_bytes: 500, ..CONFIG };
    let result = Mount::new(config).poll(&mut disks(&writer.members));
    let Poll::Ready(Err(MountError::DirectoryTooLarge { max_bytes: 500, objects: fitted })) = result else { panic!() };
    assert!(fitted > 0 && fitted < objects.len());
}

#[test]
fn late_and_disorderly_disks_are_mounted() {
    for seed in 0..20 {
        let (writer, objects) = golden(Shape::new(5, seed % 2 == 0, 4096, 20));
        let mut disks: Vec<MemoryDisk> = Vec::new();
        for image in &writer.members {
            let geometry =
                minicache::rings::Geometry { sector_bytes: 512, sectors: image.len() as u64 / 512, read_only: true };
            let disk = MemoryDisk::new(image.clone(), geometry, seed);
            disk.control().set_queue_depth(1 + seed as usize % 3);
            disk.control().set_pace(Pace::Delayed { most_polls: 9 });
            disks.push(disk);
        }
        let volume = mount_disks(&mut disks).unwrap();
        assert_eq!(volume.directory.len(), objects.len());
        let names: Vec<&[u8]> = volume.directory.iter().map(|(_, object)| object.name).collect();
        let orderly = mount(&writer.members).unwrap();
        assert!(names.into_iter().eq(orderly.directory.iter().map(|(_, object)| object.name)), "seed {seed}");
    }
}

#[test]
fn read_errors_name_disk_and_position() {
    let (writer, _) = golden(Shape::new(2, false, 4096, 20));
    let with_failing = |disk: usize, sectors: std::ops::Range<u64>| {
        let mut disks = disks(&writer.members);
        disks[disk].control().fail_sectors(sectors);
        mount_disks(&mut disks).err().map(|error| (error.to_string(), error)).unwrap()
    };
    let (text, error) = with_failing(0, 8..9);
    assert_eq!(error, MountError::Read { disk: 0, byte: 4096, what: "configuration", error: BlockError::Failed });
    assert_eq!(text, "disk 0: could not read the configuration at byte 4096: the disk reported an error");
    let (text, error) = with_failing(1, 24..25);
    assert_eq!(
        error,
        MountError::Read { disk: 1, byte: 12288, what: "hash table", error: BlockError::Failed },
        "{text}"
    );
    let (text, error) = with_failing(1, 0..1);
    assert!(matches!(error, MountError::MissingMember { member: 1, .. }));
    assert!(text.contains("disk 1 is not used: its label (byte 0) could not be read: the disk reported"), "{text}");
}

#[test]
fn a_disk_that_goes_away_ends_the_mount() {
    let (writer, _) = golden(Shape::new(2, true, 4096, 20));
    for released in 0..9 {
        let mut disks = disks(&writer.members);
        let controls: Vec<_> = disks.iter().map(MemoryDisk::control).collect();
        controls.iter().for_each(|control| control.set_pace(Pace::Held));
        let mut mount = Mount::new(CONFIG);
        for _ in 0..released {
            assert!(mount.poll(&mut disks).is_pending());
            for control in &controls {
                control.release(1);
            }
        }
        assert!(mount.poll(&mut disks).is_pending());
        controls[1].down();
        let mut result = mount.poll(&mut disks);
        while result.is_pending() {
            assert_ne!(controls[0].release(1), 0, "waits for nothing");
            result = mount.poll(&mut disks);
        }
        assert!(matches!(result, Poll::Ready(Err(_))), "after {released}");
        assert_eq!(controls[0].in_flight(), 0);
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

/// What a mount may do with any bytes: end, with an error or with a directory within its limit, whose objects lie on the
/// volume.
fn check_sane(images: &[Vec<u8>]) {
    let Ok(volume) = mount(images) else { return };
    assert!(volume.directory.memory_bytes() <= CONFIG.directory_max_bytes);
    assert!(volume.damages.len() <= volume.damaged_entries as usize);
    for (id, object) in volume.directory.iter() {
        assert!(volume.directory.by_digest(object.digest).is_some_and(|first| first <= id));
        assert!(object.name.is_empty() || volume.directory.by_name(object.name).is_some_and(|first| first <= id));
        assert!(object.mime.iter().all(|byte| (0x20..0x7f).contains(byte)));
        if let Content::Extent { chunk, offset_bytes, length_bytes } = object.content
            && length_bytes > 0
        {
            let last = chunk + (offset_bytes + length_bytes - 1) / u64::from(volume.chunk_bytes);
            assert!(chunk > 0 && last <= volume.layout.last_chunk());
            assert!(volume.layout.holds_extent(chunk, offset_bytes, length_bytes));
            assert!(!volume.table.is_metadata(chunk, last));
            // The first and the last byte can be read from the disks.
            let end = (offset_bytes + length_bytes - 1) % u64::from(volume.chunk_bytes);
            for (chunk, byte) in [(chunk, offset_bytes), (last, end)] {
                let run = volume.layout.run(chunk, byte as usize / 4096).expect("the page is on a disk");
                assert!(run.byte + byte % 4096 < images[run.disk].len().next_multiple_of(512) as u64);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_breaks_the_reader(
        members in 1_usize..4,
        combined: bool,
        flips in prop::collection::vec((0_usize..4, prop_oneof![
            1024_usize..1360,
            Just(4096).prop_flat_map(|start: usize| start..start + 27),
            8192_usize..40960,
        ], any::<u8>()), 0..40),
        cut in prop::option::of(0_usize..1 << 20),
    ) {
        let (writer, _) = golden(Shape::new(members, combined, 4096, 4));
        let mut images = writer.members;
        for (image, byte, value) in flips {
            let image = image % images.len();
            images[image][byte] = value;
        }
        if let Some(cut) = cut {
            images[0].truncate(cut);
        }
        check_sane(&images);
    }

    #[test]
    fn no_table_breaks_the_reader(entries in prop::collection::vec((0_u32..256, prop::array::uniform32(any::<u8>()), any::<[u64; 3]>(), any::<u8>(), any::<[u8; 2]>()), 1..60)) {
        let mut writer = Writer::new(Shape::new(2, true, 4096, 4));
        for (slot, bytes, [chunk, offset, length], flags, shift) in entries {
            let mut entry = [0; 256];
            for (index, byte) in entry.iter_mut().enumerate() {
                *byte = bytes[index % 32] >> (index / 32 % 8);
            }
            entry[64..72].copy_from_slice(&(chunk >> (shift[0] % 64)).to_le_bytes());
            entry[72..80].copy_from_slice(&(offset >> (shift[1] % 64)).to_le_bytes());
            entry[80..88].copy_from_slice(&(length >> (shift[0].wrapping_add(shift[1]) % 64)).to_le_bytes());
            entry[180] = flags;
            writer.write_entry(slot, &entry);
        }
        check_sane(&writer.members);
    }

    #[test]
    fn no_noise_breaks_the_reader(seed: u64, length in 0_usize..20000) {
        let mut image = noise(seed, length);
        if length > 1030 {
            image[1024..1030].copy_from_slice(b"SHFS\x02\x01");
        }
        check_sane(&[image]);
    }
}

#[test]
fn hash_functions_have_names() {
    let names: Vec<String> = (1..=5).filter_map(HashFunction::from_disk).map(|function| function.to_string()).collect();
    assert_eq!(names, ["manual", "SHA", "CRC", "MD5", "HAVAL"]);
}

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
