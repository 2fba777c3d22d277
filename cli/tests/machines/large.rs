//! A large object over a device with every offload: it leaves in large frames, and nobody copies it.

use testbed::qemu::{Disk, Guest};

use crate::site::Site;
use crate::volumes;
use crate::world::{World, kernel, namespace};

const OBJECT_BYTES: usize = 64 << 20;

#[test]
fn a_large_object_leaves_in_large_frames_and_uncopied() {
    let Some(kernel) = kernel() else { return };
    let Some(namespace) = namespace() else { return };
    let site = Site::of(vec![("large".to_owned(), volumes::noise(1, OBJECT_BYTES))]);
    let mut guest = Guest::new(&kernel);
    guest.disks = vec![Disk::read_only(site.image())];
    guest.memory_mib = 256;
    let world = World::serve(guest, Some(&namespace));
    // What a connection's rate would allow in a frame depends on this machine's mood.
    let said = world.check(world.shell().and_then(|mut shell| shell.run("autosize off")));
    world.assert(!said.contains("usage"), &said);
    world.check(world.compare(&site, &world.url(), 1));
    let counter = |name| world.check(world.counter(name));
    let (mean_bytes, copied_bytes) = (counter("tx_mean_frame_bytes"), counter("copied_bytes"));
    world.assert(copied_bytes == 0, &format!("{copied_bytes} bytes were copied"));
    world.assert(mean_bytes >= 32 << 10, &format!("{mean_bytes} bytes a frame"));
    world.halt();
}
