//! Volumes with wrong bytes: each mistake is named, none costs more than it must, and none breaks the reader.

use std::task::Poll;

use minicache::cache::shfs::{Content, Mount, MountConfig, MountError, SkipReason};
use proptest::prelude::*;

use crate::volumes::{Shape, Writer, digest, file_entry, noise};
use crate::{CONFIG, disks, golden, mount, named};

fn error(images: &[Vec<u8>]) -> (MountError, String) {
    let error = mount(images).err().expect("this can't be mounted");
    let text = error.to_string();
    (error, text)
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
