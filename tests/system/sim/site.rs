//! What is served: objects with known bytes, and the SHFS volume that holds them.

use crate::volumes::{Shape, Writer, digest, noise};

/// Bytes of a digest on the volumes made here.
const DIGEST_BYTES: usize = 32;
/// Flag of the default object's entry.
const FLAG_DEFAULT: u8 = 0x08;

/// An object of the site.
pub struct Object {
    /// Its name on the volume.
    pub name: String,
    /// Its digest.
    pub digest: Vec<u8>,
    /// Its bytes.
    pub content: Vec<u8>,
}

impl Object {
    /// The digest as requests name it.
    pub fn digest_hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// How a volume lies on its members.
#[derive(Clone, Copy, Debug)]
pub struct Striping {
    /// Number of members, each a disk.
    pub members: usize,
    /// A chunk is a stripe of every member; otherwise it is one stripe.
    pub combined: bool,
    /// Bytes of a stripe.
    pub stripe_bytes: usize,
}

/// A set of objects.
pub struct Site {
    /// The objects; the first one is the default.
    pub objects: Vec<Object>,
}

impl Site {
    /// Objects of these lengths in bytes, with content that looks random.
    pub fn new(lengths: impl IntoIterator<Item = usize>, seed: u64) -> Self {
        let object = |(index, length): (usize, usize)| Object {
            name: format!("objects/number {index}.bin"),
            digest: digest(index as u64, DIGEST_BYTES),
            content: noise(seed.wrapping_add(index as u64), length),
        };
        Self { objects: lengths.into_iter().enumerate().map(object).collect() }
    }

    /// The members of a volume that holds the site, in order. A link, which nobody asks for, is on it too.
    pub fn members(&self, striping: Striping) -> Vec<Vec<u8>> {
        let link_digest = digest(self.objects.len() as u64, DIGEST_BYTES);
        let mut shape = Shape::new(striping.members, striping.combined, striping.stripe_bytes, DIGEST_BYTES);
        shape.buckets = (self.objects.len() as u32 / 2).max(1);
        let mut fill = vec![0; shape.buckets as usize];
        for digest in self.objects.iter().map(|object| &object.digest).chain([&link_digest]) {
            let value = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
            fill[(value % shape.buckets) as usize] += 1;
        }
        shape.bucket_entries = fill.into_iter().max().unwrap_or(1);
        let chunks_of = |object: &Object| object.content.len().div_ceil(shape.chunk_bytes());
        let chunks = 2 + shape.table_chunks() as usize + self.objects.iter().map(chunks_of).sum::<usize>();
        let stripes = if striping.combined { chunks } else { chunks.div_ceil(striping.members) };
        // Two more: the first of each member holds its label, and the last chunk is never handed out.
        shape.member_bytes = vec![(stripes + 2) * striping.stripe_bytes; striping.members];

        let mut writer = Writer::new(shape);
        for (index, object) in self.objects.iter().enumerate() {
            let flags = if index == 0 { FLAG_DEFAULT } else { 0 };
            writer.add(object.name.as_bytes(), b"application/octet-stream", &object.digest, flags, &object.content);
        }
        writer.add_link(b"elsewhere", &link_digest, (1, &[10, 0, 0, 9]), 80, b"there", 0);
        writer.members
    }
}
