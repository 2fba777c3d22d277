//! Volumes of one to three members, on disks that may be read only or written to.

use testbed::xen::{GUEST, State};

use crate::site::Site;
use crate::volumes::{self, Shape, Writer};
use crate::world::Xen;

/// More than a store lets a guest have transactions at once.
const MANY_DISKS: usize = 14;

#[test]
fn a_guest_mounts_volumes_of_several_disks() {
    let Some(xen) = Xen::boot() else { return };
    let site = Site::new(true);
    let url = format!("http://{GUEST}");
    let address = format!("-i {GUEST}/24");

    // Three members with combined stripes, in another order, one of them writable.
    let mut images = site.members();
    images.rotate_left(1);
    let mut domu = xen.domu("three", &images);
    domu.parameters = address.clone();
    domu.disks[1].writable = true;
    let before = std::fs::read(&images[1]).unwrap();
    let served = xen.serve(&domu);
    served.compare(&site, &url, 8);
    let console = served.guest.console();
    let disk = |number: &str| console.lines().find(|line| line.contains(number) && line.contains("blkfront")).unwrap();
    served.assert(disk("51712").ends_with("read-only") && !disk("51728").ends_with("read-only"), "as xl says");
    served.end("halt", State::Halted);
    drop(served);
    assert!(std::fs::read(&images[1]).unwrap() == before, "nothing is written that nobody asked for");

    // Two members with independent stripes, and many other volumes that are not to be mounted: all are connected at once.
    let mut images = two_members(&site);
    images.insert(1, site.image());
    for number in images.len()..MANY_DISKS {
        images.push(site.path(&format!("copy{number}.img")));
        std::fs::copy(&images[1], &images[number]).unwrap();
    }
    let mut domu = xen.domu("two", &images);
    domu.parameters = format!("{address} -b 51712 -b 51744 -P");
    let served = xen.serve(&domu);
    let connected =
        served.guest.console().lines().filter(|line| line.contains("blkfront") && line.contains("KiB")).count();
    served.assert(connected == MANY_DISKS, &format!("{connected} disks are connected"));
    served.compare(&site, &url, 8);
    served.end("halt", State::Halted);
}

fn two_members(site: &Site) -> Vec<std::path::PathBuf> {
    let mut shape = Shape { buckets: 512, ..Shape::new(2, false, 16_384, 20) };
    let content: usize =
        site.objects.iter().map(|(_, content)| content.len().next_multiple_of(shape.chunk_bytes())).sum();
    let chunks = content / shape.chunk_bytes() + shape.table_chunks() as usize + 8;
    shape.member_bytes = vec![chunks.div_ceil(2) * shape.stripe_bytes + 2 * shape.stripe_bytes; 2];
    let mut writer = Writer::new(shape);
    for (number, (name, content)) in site.objects.iter().enumerate() {
        writer.add(name.as_bytes(), b"", &volumes::digest(number as u64, 20), 0, content);
    }
    let write = |(number, bytes): (usize, &Vec<u8>)| {
        let image = site.path(&format!("half{number}.img"));
        std::fs::write(&image, bytes).unwrap();
        image
    };
    writer.members.iter().enumerate().map(write).collect()
}
