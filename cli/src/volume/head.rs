//! The bytes of a volume before its first extent: label, configuration and table.

use std::path::Path;

use anyhow::ensure;
use minicache::cache::shfs::format::{
    BYTE_ORDER_LITTLE, CONFIG_CHUNK, Config, ENTRY_BYTES, LABEL_OFFSET, Label, MAGIC, STRIPE_MODE_INDEPENDENT, VERSION,
};
use zerocopy::{FromZeros, IntoBytes};

use super::digest::{DIGEST_BYTES, ObjectDigest, uuid_of};
use super::layout::Layout;
use super::table::{PlacedObject, Table};

/// A volume's name: at most 16 bytes, zero padded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeName([u8; 16]);

impl VolumeName {
    /// The name that was asked for.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        ensure!(!name.is_empty(), "a volume's name can't be empty");
        ensure!(!name.contains('\0'), "a volume's name can't hold a NUL byte");
        let bytes = name.len();
        ensure!(bytes <= 16, "the volume's name {name:?} has {bytes} bytes, SHFS holds 16; choose a shorter one");
        Ok(Self::cut(name))
    }

    /// The name of the volume of a folder: the folder's, cut between characters.
    pub fn of_folder(folder: &Path) -> Self {
        let name = folder.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Self::cut(name.as_deref().unwrap_or("unnamed"))
    }

    fn cut(name: &str) -> Self {
        let kept = &name.as_bytes()[..name.floor_char_boundary(16)];
        let mut bytes = [0; 16];
        bytes[..kept.len()].copy_from_slice(kept);
        Self(bytes)
    }
}

/// What label, configuration and table are made of.
#[derive(Debug)]
pub struct Head<'a> {
    /// Volume name.
    pub name: VolumeName,
    /// Unix time in seconds.
    pub created_unix_s: u64,
    /// `HASH_…`: how digests are made.
    pub hash_function: u8,
    /// Chunks and the table's room.
    pub layout: Layout,
    /// The first chunk that nothing occupies.
    pub end_chunk: u64,
    /// The objects.
    pub objects: &'a [PlacedObject],
}

impl Head<'_> {
    /// Hands each piece to `write` with the byte that it begins at, ascending; between them all bytes are zero.
    pub fn write<E>(&self, mut write: impl FnMut(u64, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let digests: Vec<ObjectDigest> = self.objects.iter().map(|object| object.digest).collect();
        let table = Table::place(&digests, self.layout.slots());
        let chunk_bytes = u64::from(self.layout.chunk_bytes());

        let mut config = Config::new_zeroed();
        config.htable_ref = self.layout.table_chunk().into();
        config.hfunc = self.hash_function;
        config.hlen = DIGEST_BYTES as u8;
        config.htable_bucket_count = table.bucket_count.into();
        config.htable_entries_per_bucket = table.entries_per_bucket.into();

        let mut by_slot: Vec<(u32, usize)> = table.slots.iter().copied().zip(0..).collect();
        by_slot.sort_unstable();

        let label = self.label(&config, &by_slot);
        write(LABEL_OFFSET as u64, label.as_bytes())?;
        write(CONFIG_CHUNK * chunk_bytes, config.as_bytes())?;
        let table_byte = self.layout.table_chunk() * chunk_bytes;
        for (slot, index) in by_slot {
            write(table_byte + u64::from(slot) * ENTRY_BYTES as u64, self.objects[index].entry().as_bytes())?;
        }
        Ok(())
    }

    /// The label, with UUIDs made of everything else: the digests in the table stand for the contents.
    fn label(&self, config: &Config, by_slot: &[(u32, usize)]) -> Label {
        let mut label = Label::new_zeroed();
        label.magic = MAGIC;
        label.version = VERSION;
        label.vol_name = self.name.0;
        label.vol_byteorder = BYTE_ORDER_LITTLE;
        label.vol_size = self.end_chunk.into();
        label.vol_ts_creation = self.created_unix_s.into();
        label.member_stripemode = STRIPE_MODE_INDEPENDENT;
        label.member_stripesize = self.layout.chunk_bytes().into();
        label.member_count = 1;

        let mut entries = uuid_of(&[b"table"]);
        for (slot, index) in by_slot {
            entries = uuid_of(&[&entries, &slot.to_le_bytes(), self.objects[*index].entry().as_bytes()]);
        }
        label.vol_uuid = uuid_of(&[b"volume", label.as_bytes(), config.as_bytes(), &entries]);
        label.member_uuid = uuid_of(&[b"member", &label.vol_uuid]);
        label.members[0] = label.member_uuid;
        label
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_cut_between_characters() {
        assert_eq!(&VolumeName::cut("0123456789abcdef").0, b"0123456789abcdef");
        assert_eq!(&VolumeName::cut("0123456789abcde\u{e9}").0, b"0123456789abcde\0");
        assert_eq!(&VolumeName::cut("site").0[..5], b"site\0");
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(VolumeName::new("0123456789abcdef").is_ok());
        for (name, complaint) in [("0123456789abcdefg", "16"), ("", "empty"), ("a\0b", "NUL")] {
            assert!(VolumeName::new(name).unwrap_err().to_string().contains(complaint), "{name:?}");
        }
    }
}
