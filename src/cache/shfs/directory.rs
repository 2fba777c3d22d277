//! The directory: every object of a volume in memory, found by name or digest in O(1).
//!
//! Built for a million objects: a record of 40 bytes, and name and digest without their padding in one run of bytes. Hashes
//! are keyed with a secret, since names come from the network and the volume from anybody.

use alloc::vec::Vec;
use arrayvec::ArrayVec;
use hashbrown::HashTable;
use siphasher::sip::SipHasher13;

use super::format::FLAG_LINK;
use super::object::{Content, Host, Link, LinkKind, Object};

/// Names an object of one [`Directory`]; the order is the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(u32);

impl ObjectId {
    /// The object's place in the directory, below its length.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Why an object was not taken into a [`Directory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryFull {
    /// The directory would be larger than its limit.
    Limit,
    /// The machine has no more memory.
    OutOfMemory,
}

/// Every object of a volume.
pub struct Directory {
    max_bytes: usize,
    sip: SipHasher13,
    store: Store,
    links: Vec<StoredLink>,
    names: HashTable<u32>,
    digests: HashTable<u32>,
    mimes: HashTable<Span>,
    default_object: Option<ObjectId>,
}

/// Records and the bytes that they refer to; apart from the hash tables, which call back here.
struct Store {
    digest_bytes: usize,
    records: Vec<Record>,
    /// Digest and name of each object, and each MIME type once.
    bytes: Vec<u8>,
}

struct Record {
    created_unix_s: u64,
    /// First chunk, or the place in `links`.
    chunk: u64,
    length_bytes: u64,
    offset_bytes: u32,
    /// Where the digest and, behind it, the name begin in `bytes`.
    digest_at: u32,
    mime: Span,
    name_bytes: u8,
    flags: u8,
}

/// A short run of `bytes`.
#[derive(Clone, Copy)]
struct Span {
    at: u32,
    length: u8,
}

struct StoredLink {
    host: StoredHost,
    port: u16,
    path: ArrayVec<u8, 71>,
    kind: LinkKind,
}

enum StoredHost {
    Name(ArrayVec<u8, 32>),
    Ipv4([u8; 4]),
    Ipv6([u8; 16]),
}

impl Directory {
    /// An empty directory for digests of `digest_bytes`, which refuses to grow beyond `max_bytes` of memory. `secret` keys
    /// its hashes.
    pub fn new(digest_bytes: usize, max_bytes: usize, secret: &[u8; 16]) -> Self {
        Self {
            max_bytes,
            sip: SipHasher13::new_with_key(secret),
            store: Store { digest_bytes, records: Vec::new(), bytes: Vec::new() },
            links: Vec::new(),
            names: HashTable::new(),
            digests: HashTable::new(),
            mimes: HashTable::new(),
            default_object: None,
        }
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.store.records.len()
    }

    /// True for a volume without objects.
    pub fn is_empty(&self) -> bool {
        self.store.records.is_empty()
    }

    /// Bytes of a digest.
    pub fn digest_bytes(&self) -> usize {
        self.store.digest_bytes
    }

    /// The limit that it was made with, in bytes.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Bytes of memory that the directory takes.
    pub fn memory_bytes(&self) -> usize {
        self.store.records.capacity() * size_of::<Record>()
            + self.store.bytes.capacity()
            + self.links.capacity() * size_of::<StoredLink>()
            + self.names.allocation_size()
            + self.digests.allocation_size()
            + self.mimes.allocation_size()
    }

    /// The object with this name; of several the first in table order. The empty name names nothing.
    pub fn by_name(&self, name: &[u8]) -> Option<ObjectId> {
        let found = self.names.find(self.sip.hash(name), |&index| self.store.name(index) == name)?;
        Some(ObjectId(*found))
    }

    /// The object with this digest; of several the first in table order.
    pub fn by_digest(&self, digest: &[u8]) -> Option<ObjectId> {
        let found = self.digests.find(self.sip.hash(digest), |&index| self.store.digest(index) == digest)?;
        Some(ObjectId(*found))
    }

    /// The object that `/` names: the last in table order that has the default flag.
    pub fn default_object(&self) -> Option<ObjectId> {
        self.default_object
    }

    /// The object named by `id`.
    ///
    /// # Panics
    /// If `id` comes from a larger directory.
    pub fn get(&self, id: ObjectId) -> Object<'_> {
        let record = &self.store.records[id.0 as usize];
        let content = if record.flags & FLAG_LINK == 0 {
            Content::Extent {
                chunk: record.chunk,
                offset_bytes: record.offset_bytes.into(),
                length_bytes: record.length_bytes,
            }
        } else {
            Content::Link(self.links[record.chunk as usize].get())
        };
        Object {
            name: self.store.name(id.0),
            digest: self.store.digest(id.0),
            mime: self.store.span(record.mime),
            created_unix_s: record.created_unix_s,
            flags: record.flags,
            content,
        }
    }

    /// All objects in table order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ObjectId, Object<'_>)> {
        self.iter_from(0)
    }

    /// The objects from the `index`-th in table order on.
    pub fn iter_from(&self, index: usize) -> impl ExactSizeIterator<Item = (ObjectId, Object<'_>)> {
        let end = self.store.records.len() as u32;
        (end.min(index.try_into().unwrap_or(u32::MAX))..end).map(|index| (ObjectId(index), self.get(ObjectId(index))))
    }

    /// Takes in the next object in table order. When there is no room, the directory is as before.
    pub(super) fn push(&mut self, object: &Object<'_>) -> Result<(), DirectoryFull> {
        debug_assert_eq!(object.digest.len(), self.digest_bytes());
        self.reserve(object)?;
        let index = self.store.records.len() as u32;
        let mime = self.intern_mime(object.mime);
        let digest_at = self.store.bytes.len() as u32;
        self.store.bytes.extend_from_slice(object.digest);
        self.store.bytes.extend_from_slice(object.name);
        let (chunk, offset_bytes, length_bytes, link_flag) = match object.content {
            Content::Extent { chunk, offset_bytes, length_bytes } => (chunk, offset_bytes, length_bytes, 0),
            Content::Link(link) => {
                self.links.push(StoredLink::new(&link));
                (self.links.len() as u64 - 1, 0, 0, FLAG_LINK)
            }
        };
        self.store.records.push(Record {
            created_unix_s: object.created_unix_s,
            chunk,
            length_bytes,
            offset_bytes: offset_bytes as u32,
            digest_at,
            mime,
            name_bytes: object.name.len() as u8,
            flags: object.flags & !FLAG_LINK | link_flag,
        });
        if object.is_default() {
            self.default_object = Some(ObjectId(index));
        }
        self.index(index, object);
        Ok(())
    }

    /// Gives back what was reserved for more objects.
    pub(super) fn finish(&mut self) {
        self.store.records.shrink_to_fit();
        self.store.bytes.shrink_to_fit();
        self.links.shrink_to_fit();
    }

    /// Makes sure that `object` fits, so that nothing allocates (and fails) half-way.
    fn reserve(&mut self, object: &Object<'_>) -> Result<(), DirectoryFull> {
        let Self { sip, store, .. } = self;
        let more_bytes = object.digest.len() + object.name.len() + object.mime.len();
        if store.bytes.len() + more_bytes > u32::MAX as usize || store.records.len() >= u32::MAX as usize {
            return Err(DirectoryFull::Limit);
        }
        let done = self.names.try_reserve(1, |&index| sip.hash(store.name(index))).is_ok()
            && self.digests.try_reserve(1, |&index| sip.hash(store.digest(index))).is_ok()
            && self.mimes.try_reserve(1, |&span| sip.hash(store.span(span))).is_ok()
            && store.records.try_reserve(1).is_ok()
            && store.bytes.try_reserve(more_bytes).is_ok()
            && self.links.try_reserve(matches!(object.content, Content::Link(_)).into()).is_ok();
        match done {
            false => Err(DirectoryFull::OutOfMemory),
            true if self.memory_bytes() > self.max_bytes => Err(DirectoryFull::Limit),
            true => Ok(()),
        }
    }

    /// Makes the object findable, unless an earlier one has its digest or name.
    fn index(&mut self, index: u32, object: &Object<'_>) {
        let Self { sip, store, .. } = self;
        let hash = sip.hash(object.digest);
        if self.digests.find(hash, |&other| store.digest(other) == object.digest).is_none() {
            self.digests.insert_unique(hash, index, |&other| sip.hash(store.digest(other)));
        }
        let hash = sip.hash(object.name);
        if !object.name.is_empty() && self.names.find(hash, |&other| store.name(other) == object.name).is_none() {
            self.names.insert_unique(hash, index, |&other| sip.hash(store.name(other)));
        }
    }

    fn intern_mime(&mut self, mime: &[u8]) -> Span {
        let Self { sip, store, .. } = self;
        let hash = sip.hash(mime);
        if let Some(span) = self.mimes.find(hash, |&span| store.span(span) == mime) {
            return *span;
        }
        let span = Span { at: store.bytes.len() as u32, length: mime.len() as u8 };
        store.bytes.extend_from_slice(mime);
        self.mimes.insert_unique(hash, span, |&span| sip.hash(store.span(span)));
        span
    }
}

impl Store {
    fn digest(&self, index: u32) -> &[u8] {
        &self.bytes[self.records[index as usize].digest_at as usize..][..self.digest_bytes]
    }

    fn name(&self, index: u32) -> &[u8] {
        let record = &self.records[index as usize];
        &self.bytes[record.digest_at as usize + self.digest_bytes..][..record.name_bytes.into()]
    }

    fn span(&self, span: Span) -> &[u8] {
        &self.bytes[span.at as usize..][..span.length.into()]
    }
}

impl StoredLink {
    fn new(link: &Link<'_>) -> Self {
        let host = match link.host {
            Host::Name(name) => StoredHost::Name(name.try_into().expect("host names are validated")),
            Host::Ipv4(address) => StoredHost::Ipv4(address),
            Host::Ipv6(address) => StoredHost::Ipv6(address),
        };
        let path = link.path.try_into().expect("paths are validated");
        Self { host, port: link.port, path, kind: link.kind }
    }

    fn get(&self) -> Link<'_> {
        let host = match &self.host {
            StoredHost::Name(name) => Host::Name(name),
            StoredHost::Ipv4(address) => Host::Ipv4(*address),
            StoredHost::Ipv6(address) => Host::Ipv6(*address),
        };
        Link { host, port: self.port, path: &self.path, kind: self.kind }
    }
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::*;

    fn object<'a>(name: &'a [u8], digest: &'a [u8], flags: u8) -> Object<'a> {
        let content = Content::Extent { chunk: 1 << 40, offset_bytes: 4095, length_bytes: u64::MAX };
        Object { name, digest, mime: b"text/html", created_unix_s: u64::MAX, flags, content }
    }

    #[test]
    fn a_hundred_thousand_objects_are_found_in_little_memory() {
        let mut directory = Directory::new(32, usize::MAX, &[1; 16]);
        let digest = |index: u32| {
            let mut digest = [0xaa; 32];
            digest[28..].copy_from_slice(&index.to_be_bytes());
            digest
        };
        for index in 0..100_000 {
            let name = alloc::format!("a/path/of/forty/bytes/on/average/{index}");
            directory.push(&object(name.as_bytes(), &digest(index), 0)).unwrap();
        }
        directory.finish();
        assert_eq!(directory.len(), 100_000);
        for index in (0..100_000).step_by(997) {
            let name = alloc::format!("a/path/of/forty/bytes/on/average/{index}");
            let id = directory.by_name(name.as_bytes()).unwrap();
            assert_eq!(directory.by_digest(&digest(index)), Some(id));
            assert_eq!(directory.get(id), object(name.as_bytes(), &digest(index), 0));
        }
        assert_eq!(directory.by_name(b"a/path/of/forty/bytes/on/average/100000"), None);
        assert!(directory.memory_bytes() < 150 * 100_000, "{} bytes", directory.memory_bytes());
    }

    #[test]
    fn the_first_of_a_name_or_digest_is_found_and_no_name_is_none() {
        let mut directory = Directory::new(2, usize::MAX, &[1; 16]);
        for (name, digest) in [(&b"a"[..], b"11"), (b"b", b"22"), (b"a", b"33"), (b"c", b"22"), (b"", b"44")] {
            directory.push(&object(name, digest, 0)).unwrap();
        }
        assert_eq!(directory.by_name(b"a"), Some(ObjectId(0)));
        assert_eq!(directory.by_digest(b"22"), Some(ObjectId(1)));
        assert_eq!(directory.by_digest(b"33"), Some(ObjectId(2)));
        assert_eq!(directory.by_name(b"c"), Some(ObjectId(3)));
        assert_eq!((directory.by_name(b""), directory.by_digest(b"44")), (None, Some(ObjectId(4))));
        assert_eq!(
            (directory.by_digest(b"4"), directory.by_digest(b""), directory.by_digest(b"444")),
            (None, None, None)
        );
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let mut directory = Directory::new(2, 2000, &[1; 16]);
        let fitted = (0..1000_u16).find(|index| {
            let digest = index.to_be_bytes();
            directory.push(&object(&digest, &digest, format::FLAG_DEFAULT)).is_err()
        });
        let fitted = fitted.unwrap();
        assert_eq!(directory.push(&object(b"x", b"xx", 0)), Err(DirectoryFull::Limit));
        assert_eq!(directory.len(), usize::from(fitted));
        assert_eq!(directory.by_name(&fitted.to_be_bytes()), None);
        assert_eq!(directory.default_object(), directory.by_name(&(fitted - 1).to_be_bytes()));
    }
}
