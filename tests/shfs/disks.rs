//! Disks that are late, answer out of order, fail and go away while a volume is being mounted.

use std::task::Poll;

use minicache::cache::shfs::{Mount, MountError};
use minicache::rings::memory::{MemoryDisk, Pace};
use minicache::rings::{BlockError, Geometry};

use crate::volumes::Shape;
use crate::{CONFIG, disks, golden, mount, mount_disks};

#[test]
fn late_and_disorderly_disks_are_mounted() {
    for seed in 0..20 {
        let (writer, objects) = golden(Shape::new(5, seed % 2 == 0, 4096, 20));
        let mut disks: Vec<MemoryDisk> = Vec::new();
        for image in &writer.members {
            let geometry = Geometry { sector_bytes: 512, sectors: image.len() as u64 / 512, read_only: true };
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
