//! The volume that the tests ask.

use std::sync::OnceLock;

use crate::volumes::{Shape, Writer, digest, noise};

/// `Last-Modified` of every object that has one.
pub const MODIFIED: &str = "Tue, 14 Nov 2023 22:13:21 GMT";
/// A name as long as a name can be.
pub const LONG_NAME: &str = "0123456789012345678901234567890123456789012345678901234567890.ab";
/// Bytes of `big.bin`.
pub const BIG_BYTES: usize = 300_001;

const DIGEST_BYTES: usize = 8;
const FLAG_DEFAULT: u8 = 8;

/// What `big.bin` holds.
pub fn big() -> Vec<u8> {
    noise(77, BIG_BYTES)
}

/// The digest of the object that was stored as number `seed`, in hexadecimal.
pub fn hex_digest(seed: u64) -> String {
    digest(seed, DIGEST_BYTES).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The entity tag of the object that was stored as number `seed`.
pub fn etag(seed: u64, length: usize) -> String {
    format!("\"{}-{length:x}-{:x}\"", hex_digest(seed), 1_700_000_001)
}

/// The disk of a volume with chunks of 8 KiB, so that `big.bin` has many.
pub fn disk() -> Vec<u8> {
    static DISK: OnceLock<Vec<u8>> = OnceLock::new();
    DISK.get_or_init(write_disk).clone()
}

fn write_disk() -> Vec<u8> {
    let mut site = Writer::new(Shape::new(1, false, 8192, DIGEST_BYTES));
    let mut seed = 0;
    let mut add = |site: &mut Writer, name: &str, mime: &str, flags: u8, content: &[u8]| {
        seed += 1;
        site.add(name.as_bytes(), mime.as_bytes(), &digest(seed, DIGEST_BYTES), flags, content)
    };
    add(&mut site, "hello.txt", "text/plain", 0, b"hello shfs\n");
    add(&mut site, "start.html", "text/html", FLAG_DEFAULT, b"<p>start</p>");
    add(&mut site, "index.html", "text/html", 0, b"<p>index</p>");
    add(&mut site, "docs/index.html", "text/html", 0, b"<p>docs</p>");
    add(&mut site, "empty", "text/plain", 0, b"");
    add(&mut site, "untyped", "", 0, b"?");
    add(&mut site, "a b.txt", "text/plain; charset=utf-8", 0, b"space");
    add(&mut site, "100%.txt", "text/plain", 0, b"percent");
    add(&mut site, "why?.txt", "text/plain", 0, b"question");
    add(&mut site, "\u{fc}.txt", "text/plain", 0, b"umlaut");
    add(&mut site, LONG_NAME, "text/plain", 0, b"long");
    add(&mut site, "dir/", "text/html", 0, b"<p>dir</p>");
    add(&mut site, "a b/index.html", "text/html", 0, b"<p>a b</p>");
    let undated = add(&mut site, "undated", "text/plain", 0, b"old");
    let future = add(&mut site, "future", "text/plain", 0, b"new");
    set_created(&mut site, undated, 0);
    set_created(&mut site, future, crate::world::NOW_UNIX_S + 1);
    let slot = site.add_at(b"big.bin", b"application/x-big", &digest(100, DIGEST_BYTES), 0, 5000, &big());
    assert_ne!(slot, undated);
    site.add_link(b"go", &digest(101, DIGEST_BYTES), (0, b"example.org"), 80, b"x/y?z=1", 0);
    site.add_link(b"go81", &digest(102, DIGEST_BYTES), (1, &[192, 168, 7, 9]), 81, b"", 0);
    site.add_link(b"stream", &digest(103, DIGEST_BYTES), (0, b"example.org"), 80, b"radio", 1);
    site.members.remove(0)
}

fn set_created(site: &mut Writer, slot: u32, unix_s: u64) {
    let mut entry = site.read_entry(slot);
    entry[172..180].copy_from_slice(&unix_s.to_le_bytes());
    site.write_entry(slot, &entry);
}
