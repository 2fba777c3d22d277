//! A writer of small SHFS volumes for tests, written from docs/shfs.md alone: it shares no code and no structure with the
//! program's reader and writer, so that a mistake in those can't hide behind itself.
//!
//! It is naive on purpose (whole members in memory, one byte at a time) and lets tests write nonsense.

/// What a volume is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// One chunk is a stripe of every member.
    pub combined: bool,
    /// Bytes of a stripe.
    pub stripe_bytes: usize,
    /// Bytes of each member.
    pub member_bytes: Vec<usize>,
    /// Buckets of the hash table.
    pub buckets: u32,
    /// Entries of a bucket.
    pub bucket_entries: u32,
    /// `hfunc`.
    pub hash_function: u8,
    /// `hlen`.
    pub digest_bytes: usize,
    /// With a copy of the table behind it.
    pub backup: bool,
}

impl Shape {
    /// A volume of 1 MiB or some chunks more, with a manual table of 64 buckets of 4.
    pub fn new(members: usize, combined: bool, stripe_bytes: usize, digest_bytes: usize) -> Self {
        let chunk_bytes = if combined { stripe_bytes * members } else { stripe_bytes };
        let chunks = (1 << 20) / chunk_bytes + 24;
        let stripes = if combined { chunks } else { chunks / members + 2 };
        Self {
            combined,
            stripe_bytes,
            member_bytes: vec![stripes * stripe_bytes; members],
            buckets: 64,
            bucket_entries: 4,
            hash_function: 1,
            digest_bytes,
            backup: false,
        }
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> usize {
        if self.combined { self.stripe_bytes * self.member_bytes.len() } else { self.stripe_bytes }
    }

    /// Chunks of the hash table.
    pub fn table_chunks(&self) -> u64 {
        (u64::from(self.buckets) * u64::from(self.bucket_entries)).div_ceil(self.chunk_bytes() as u64 / 256)
    }

    /// `vol_size`.
    pub fn vol_size(&self) -> u64 {
        let smallest = *self.member_bytes.iter().min().expect("a member") as u64;
        let (chunk, stripe) = (self.chunk_bytes() as u64, self.stripe_bytes as u64);
        if self.combined {
            (smallest - chunk + stripe) / stripe
        } else {
            (smallest - chunk) / chunk * self.member_bytes.len() as u64
        }
    }

    /// The UUID of a member.
    pub fn member_uuid(&self, member: usize) -> [u8; 16] {
        [0x40 + member as u8; 16]
    }
}

/// A volume that is being written.
#[derive(Clone)]
pub struct Writer {
    /// What it is like.
    pub shape: Shape,
    /// The members' bytes.
    pub members: Vec<Vec<u8>>,
    next_chunk: u64,
}

impl Writer {
    /// A formatted volume without objects.
    pub fn new(shape: Shape) -> Self {
        let members = shape.member_bytes.iter().map(|&bytes| vec![0; bytes]).collect();
        let table_chunks = shape.table_chunks();
        let next_chunk = 2 + table_chunks * if shape.backup { 2 } else { 1 };
        let mut writer = Self { shape, members, next_chunk };
        for member in 0..writer.members.len() {
            writer.write_label(member);
        }
        let mut config = Vec::new();
        config.extend(2_u64.to_le_bytes());
        config.extend(if writer.shape.backup { 2 + table_chunks } else { 0 }.to_le_bytes());
        config.push(writer.shape.hash_function);
        config.push(writer.shape.digest_bytes as u8);
        config.extend(writer.shape.buckets.to_le_bytes());
        config.extend(writer.shape.bucket_entries.to_le_bytes());
        config.push(0);
        assert_eq!(config.len(), 27);
        writer.write(1, 0, &config);
        writer
    }

    fn write_label(&mut self, member: usize) {
        let shape = &self.shape;
        let mut label = b"SHFS\x02\x01".to_vec();
        label.extend([0x11; 16]);
        label.extend(b"golden\0\0\0\0\0\0\0\0\0\0");
        label.extend([0, 0]);
        label.extend(shape.vol_size().to_le_bytes());
        label.extend(1_700_000_000_u64.to_le_bytes());
        label.push(shape.combined.into());
        label.extend((shape.stripe_bytes as u32).to_le_bytes());
        label.extend(shape.member_uuid(member));
        label.push(shape.member_bytes.len() as u8);
        for other in 0..16 {
            label.extend(if other < shape.member_bytes.len() { shape.member_uuid(other) } else { [0; 16] });
        }
        assert_eq!(label.len(), 334);
        self.members[member][1024..1024 + 334].copy_from_slice(&label);
    }

    /// Member and byte of a chunk's byte.
    pub fn place(&self, chunk: u64, byte: usize) -> (usize, usize) {
        let (count, stripe_bytes) = (self.members.len() as u64, self.shape.stripe_bytes);
        let stripe = if self.shape.combined { chunk * count + (byte / stripe_bytes) as u64 } else { chunk + count - 1 };
        ((stripe % count) as usize, (stripe / count) as usize * stripe_bytes + byte % stripe_bytes)
    }

    /// Writes bytes from a place in a chunk on, also into the chunks behind it.
    pub fn write(&mut self, chunk: u64, offset: usize, bytes: &[u8]) {
        let chunk_bytes = self.shape.chunk_bytes();
        for (index, &byte) in bytes.iter().enumerate() {
            let at = offset + index;
            let (member, place) = self.place(chunk + (at / chunk_bytes) as u64, at % chunk_bytes);
            self.members[member][place] = byte;
        }
    }

    /// Writes an entry's 256 bytes into a slot of the table and of its copy.
    pub fn write_entry(&mut self, slot: u32, entry: &[u8; 256]) {
        let in_chunk = self.shape.chunk_bytes() as u32 / 256;
        let (chunk, offset) = (2 + u64::from(slot / in_chunk), (slot % in_chunk) as usize * 256);
        self.write(chunk, offset, entry);
        if self.shape.backup {
            self.write(chunk + self.shape.table_chunks(), offset, entry);
        }
    }

    /// An entry's bytes.
    pub fn read_entry(&self, slot: u32) -> [u8; 256] {
        let in_chunk = self.shape.chunk_bytes() as u32 / 256;
        let (chunk, offset) = (2 + u64::from(slot / in_chunk), (slot % in_chunk) as usize * 256);
        std::array::from_fn(|index| {
            let (member, place) = self.place(chunk, offset + index);
            self.members[member][place]
        })
    }

    /// The first free slot of a digest's bucket.
    pub fn free_slot(&self, digest: &[u8]) -> u32 {
        let mut value = [0; 4];
        let bytes = digest.len().min(4);
        value[..bytes].copy_from_slice(&digest[..bytes]);
        let bucket = u32::from_le_bytes(value) % self.shape.buckets;
        let first = bucket * self.shape.bucket_entries;
        (first..first + self.shape.bucket_entries)
            .find(|&slot| self.read_entry(slot)[..self.shape.digest_bytes].iter().all(|&byte| byte == 0))
            .expect("the bucket is full")
    }

    /// Stores an object in the next chunks and returns its slot.
    pub fn add(&mut self, name: &[u8], mime: &[u8], digest: &[u8], flags: u8, content: &[u8]) -> u32 {
        self.add_at(name, mime, digest, flags, 0, content)
    }

    /// As [`Writer::add`], but the object begins `offset` bytes into its first chunk.
    pub fn add_at(&mut self, name: &[u8], mime: &[u8], digest: &[u8], flags: u8, offset: usize, content: &[u8]) -> u32 {
        let chunk = self.next_chunk;
        self.next_chunk += ((offset + content.len()).div_ceil(self.shape.chunk_bytes())) as u64;
        assert!(self.next_chunk <= self.shape.vol_size(), "the volume is full");
        self.write(chunk, offset, content);
        let slot = self.free_slot(digest);
        self.write_entry(slot, &file_entry(name, mime, digest, flags, chunk, offset as u64, content.len() as u64));
        slot
    }

    /// Stores a link and returns its slot. `host` is the type and up to 32 bytes.
    pub fn add_link(&mut self, name: &[u8], digest: &[u8], host: (u8, &[u8]), port: u16, path: &[u8], kind: u8) -> u32 {
        let mut entry = [0; 256];
        entry[..digest.len()].copy_from_slice(digest);
        entry[64] = host.0;
        entry[65..97].fill(0xa5);
        entry[65..65 + host.1.len()].copy_from_slice(host.1);
        if host.0 == 0 && host.1.len() < 32 {
            entry[65 + host.1.len()] = 0;
        }
        entry[97] = 0x5a;
        entry[98..100].copy_from_slice(&port.to_le_bytes());
        entry[100..100 + path.len()].copy_from_slice(path);
        entry[171] = kind;
        entry[172..180].copy_from_slice(&1_700_000_002_u64.to_le_bytes());
        entry[180] = 0x04;
        entry[181..181 + name.len()].copy_from_slice(name);
        let slot = self.free_slot(digest);
        self.write_entry(slot, &entry);
        slot
    }
}

/// The entry of a file.
pub fn file_entry(
    name: &[u8],
    mime: &[u8],
    digest: &[u8],
    flags: u8,
    chunk: u64,
    offset: u64,
    length: u64,
) -> [u8; 256] {
    let mut entry = [0; 256];
    entry[..digest.len()].copy_from_slice(digest);
    entry[64..72].copy_from_slice(&chunk.to_le_bytes());
    entry[72..80].copy_from_slice(&offset.to_le_bytes());
    entry[80..88].copy_from_slice(&length.to_le_bytes());
    entry[88..88 + mime.len()].copy_from_slice(mime);
    entry[172..180].copy_from_slice(&1_700_000_001_u64.to_le_bytes());
    entry[180] = flags;
    entry[181..181 + name.len()].copy_from_slice(name);
    entry
}

/// Bytes that look random and are the same every time.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A digest of `length` bytes that differs for each seed and is not all zero.
pub fn digest(seed: u64, length: usize) -> Vec<u8> {
    let mut digest = noise(seed ^ 0xd16e_5700, length);
    let seed = (seed + 1).to_le_bytes();
    let count = length.min(2);
    digest[..count].copy_from_slice(&seed[..count]);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Byte for byte what docs/shfs.md shows.
    #[test]
    fn the_writer_follows_the_documents_example() {
        let mut writer = Writer::new(Shape { hash_function: 2, ..Shape::new(1, false, 4096, 32) });
        let mut digest = digest(0, 32);
        digest[..8].copy_from_slice(&[0x1e, 0x83, 0x3c, 0x10, 0x40, 0x0f, 0xd4, 0xcd]);
        assert_eq!(writer.add(b"index.html", b"text/html", &digest, 0x08, &noise(1, 1984)), 120);
        assert_eq!(writer.add_link(b"radio", &[9; 32], (1, &[192, 168, 7, 9]), 81, b"x/y", 0), 36);
        assert_eq!(writer.add_at(b"second", b"", &[7; 32], 0, 5, b"hello"), 28);
        let image = &writer.members[0];
        assert_eq!(image[0x400..0x406], *b"SHFS\x02\x01");
        assert_eq!(image[0x438..0x43d], [0, 0, 0x10, 0, 0]);
        assert_eq!(image[0x44d], 1);
        assert_eq!(image[0x1000..0x1008], [2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(image[0x1010..0x101b], [2, 0x20, 0x40, 0, 0, 0, 4, 0, 0, 0, 0]);
        assert_eq!(image[0x9800..0x9808], digest[..8]);
        assert_eq!(image[0x9840..0x9848], [0x12, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(image[0x9850..0x9861], *b"\xc0\x07\0\0\0\0\0\0text/html");
        assert_eq!(image[0x98b4..0x98c0], *b"\x08index.html\0");
        assert_eq!(image[0x12000..0x12000 + 1984], noise(1, 1984));
        assert_eq!(image[0x13005..0x1300a], *b"hello");
        let link = writer.read_entry(36);
        assert_eq!((link[64], &link[65..69]), (1, &[192, 168, 7, 9][..]));
        assert_eq!(link[98..103], *b"\x51\0x/y");
        assert_eq!((link[171], link[180]), (0, 4));
        assert_eq!(writer.place(18, 7), (0, 0x12007));
    }
}
