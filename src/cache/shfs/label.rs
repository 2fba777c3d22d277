//! The label of a member, checked.

use alloc::string::String;
use arrayvec::ArrayVec;
use core::fmt;
use uuid::Uuid;
use zerocopy::FromBytes;

use super::format::{self, BYTE_ORDER_BIG, BYTE_ORDER_LITTLE, LABEL_OFFSET, MAGIC, MAX_MEMBERS, VERSION};
use super::geometry::{StripeMode, Striping};

/// What a label says, every field checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The volume's name; what is no printable UTF-8 has been replaced.
    pub vol_name: String,
    /// The volume.
    pub vol_uuid: Uuid,
    /// Chunks below this number are handed out to objects. Never 0.
    pub vol_size: u64,
    /// Unix time in seconds at which the volume was made.
    pub created_unix_s: u64,
    /// Stripe size, mode and number of members.
    pub striping: Striping,
    /// The member whose label this is.
    pub member_uuid: Uuid,
    /// All members in order, each once, and `member_uuid` among them.
    pub members: ArrayVec<Uuid, MAX_MEMBERS>,
}

/// What is wrong with a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelError {
    /// Another version of the format.
    Version([u8; 2]),
    /// A volume in big-endian byte order.
    BigEndian,
    /// `vol_byteorder` is neither.
    ByteOrder(u8),
    /// `vol_size` is 0.
    NoChunks,
    /// `member_stripemode` is unknown.
    StripeMode(u8),
    /// `member_stripesize` is no power of two from 4096 to 32768.
    StripeBytes(u32),
    /// `member_count` is not from 1 to 16.
    MemberCount(u8),
    /// Two members with the same UUID.
    SameMember(usize, usize),
    /// `member_uuid` is not among the members.
    Stranger(Uuid),
}

impl fmt::Display for LabelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version([major, minor]) => {
                write!(f, "label: SHFS version is {major}.{minor}, but only {}.{} can be read", VERSION[0], VERSION[1])
            }
            Self::BigEndian => {
                f.write_str("label: vol_byteorder says big-endian; only little-endian volumes can be read")
            }
            Self::ByteOrder(value) => {
                write!(f, "label: vol_byteorder is {value}, but must be {BYTE_ORDER_LITTLE} (little-endian)")
            }
            Self::NoChunks => f.write_str("label: vol_size is 0, but a volume has at least one chunk"),
            Self::StripeMode(value) => {
                write!(f, "label: member_stripemode is {value}, but must be 0 (independent) or 1 (combined)")
            }
            Self::StripeBytes(value) => {
                write!(f, "label: member_stripesize is {value} bytes, but must be 4096, 8192, 16384 or 32768")
            }
            Self::MemberCount(value) => {
                write!(f, "label: member_count is {value}, but must be from 1 to {MAX_MEMBERS}")
            }
            Self::SameMember(a, b) => write!(f, "label: members {a} and {b} have the same UUID"),
            Self::Stranger(uuid) => write!(f, "label: member_uuid {uuid} is not in the label's own list of members"),
        }
    }
}

impl core::error::Error for LabelError {}

impl Label {
    /// Reads the label from the first [`format::LABEL_BLOCK_BYTES`] of a disk. `None` if there is none.
    pub fn parse(block: &[u8]) -> Option<Result<Self, LabelError>> {
        let (raw, _) = format::Label::ref_from_prefix(block.get(LABEL_OFFSET..)?).ok()?;
        (raw.magic == MAGIC).then(|| Self::check(raw))
    }

    fn check(raw: &format::Label) -> Result<Self, LabelError> {
        if raw.version != VERSION {
            return Err(LabelError::Version(raw.version));
        }
        match raw.vol_byteorder {
            BYTE_ORDER_LITTLE => {}
            BYTE_ORDER_BIG => return Err(LabelError::BigEndian),
            other => return Err(LabelError::ByteOrder(other)),
        }
        let count = usize::from(raw.member_count);
        if !(1..=MAX_MEMBERS).contains(&count) {
            return Err(LabelError::MemberCount(raw.member_count));
        }
        let mode = StripeMode::from_disk(raw.member_stripemode).ok_or(LabelError::StripeMode(raw.member_stripemode))?;
        let stripe_bytes = raw.member_stripesize.get();
        let striping = Striping::new(mode, stripe_bytes, count).ok_or(LabelError::StripeBytes(stripe_bytes))?;
        if raw.vol_size.get() == 0 {
            return Err(LabelError::NoChunks);
        }
        let members: ArrayVec<Uuid, MAX_MEMBERS> =
            raw.members[..count].iter().map(|bytes| Uuid::from_bytes(*bytes)).collect();
        for (b, uuid) in members.iter().enumerate() {
            if let Some(a) = members[..b].iter().position(|earlier| earlier == uuid) {
                return Err(LabelError::SameMember(a, b));
            }
        }
        let member_uuid = Uuid::from_bytes(raw.member_uuid);
        if !members.contains(&member_uuid) {
            return Err(LabelError::Stranger(member_uuid));
        }
        Ok(Self {
            vol_name: printable(until_nul(&raw.vol_name)),
            vol_uuid: Uuid::from_bytes(raw.vol_uuid),
            vol_size: raw.vol_size.get(),
            created_unix_s: raw.vol_ts_creation.get(),
            striping,
            member_uuid,
            members,
        })
    }

    /// Name of the first field in which the label of another member of the same volume differs, though only `member_uuid`
    /// may.
    pub fn difference(&self, other: &Label) -> Option<&'static str> {
        let fields = [
            ("vol_uuid", self.vol_uuid == other.vol_uuid),
            ("vol_name", self.vol_name == other.vol_name),
            ("vol_size", self.vol_size == other.vol_size),
            ("vol_ts_creation", self.created_unix_s == other.created_unix_s),
            ("member_stripemode", self.striping.mode() == other.striping.mode()),
            ("member_stripesize", self.striping.stripe_bytes() == other.striping.stripe_bytes()),
            ("member_count", self.members.len() == other.members.len()),
            ("members", self.members == other.members),
        ];
        fields.into_iter().find_map(|(name, same)| (!same).then_some(name))
    }
}

/// A field that is zero padded, but not necessarily terminated.
pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let length = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..length]
}

/// Text that may go to a terminal.
fn printable(bytes: &[u8]) -> String {
    let replace = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(bytes).chars().map(replace).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;
    use zerocopy::{FromZeros, IntoBytes};

    fn raw() -> format::Label {
        let mut raw = format::Label::new_zeroed();
        raw.magic = MAGIC;
        raw.version = VERSION;
        raw.vol_name = *b"sixteen bytes ok";
        raw.vol_size = 100.into();
        raw.member_stripemode = 1;
        raw.member_stripesize = 4096.into();
        raw.member_count = 3;
        raw.members[0] = [1; 16];
        raw.members[1] = [2; 16];
        raw.members[2] = [3; 16];
        raw.member_uuid = [2; 16];
        raw
    }

    fn block(raw: &format::Label) -> Vec<u8> {
        let mut block = vec![0; format::LABEL_BLOCK_BYTES];
        block[LABEL_OFFSET..][..raw.as_bytes().len()].copy_from_slice(raw.as_bytes());
        block
    }

    #[test]
    fn a_sound_label_is_read() {
        let label = Label::parse(&block(&raw())).unwrap().unwrap();
        assert_eq!(label.vol_name, "sixteen bytes ok");
        assert_eq!(label.striping.chunk_bytes(), 12288);
        assert_eq!(label.members.len(), 3);
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        let mut raw = raw();
        raw.vol_name = *b"a\x1b[2J\xff\0zzzzzzzzz";
        assert_eq!(Label::parse(&block(&raw)).unwrap().unwrap().vol_name, "a\u{fffd}[2J\u{fffd}");
    }

    #[test]
    fn what_is_no_label_is_none() {
        assert!(Label::parse(&[0; 4096]).is_none());
        assert!(Label::parse(b"SHFS").is_none());
        assert!(Label::parse(&[]).is_none());
    }

    #[test]
    fn each_bad_field_is_named() {
        type Damage = fn(&mut format::Label);
        let cases: [(Damage, &str); 11] = [
            (|l| l.version = [2, 2], "version is 2.2"),
            (|l| l.vol_byteorder = 1, "big-endian"),
            (|l| l.vol_byteorder = 7, "vol_byteorder is 7"),
            (|l| l.vol_size = 0.into(), "vol_size is 0"),
            (|l| l.member_stripemode = 2, "member_stripemode is 2"),
            (|l| l.member_stripesize = 65536.into(), "member_stripesize is 65536"),
            (|l| l.member_stripesize = 5000.into(), "member_stripesize is 5000"),
            (|l| l.member_count = 0, "member_count is 0"),
            (|l| l.member_count = 17, "member_count is 17"),
            (|l| l.members[2] = [1; 16], "members 0 and 2"),
            (|l| l.member_uuid = [9; 16], "member_uuid 09090909-0909-0909-0909-090909090909"),
        ];
        for (damage, expected) in cases {
            let mut raw = raw();
            damage(&mut raw);
            let error = Label::parse(&block(&raw)).unwrap().unwrap_err();
            assert!(error.to_string().contains(expected), "{error} lacks {expected:?}");
        }
    }

    #[test]
    fn differences_between_members_are_named() {
        let label = Label::parse(&block(&raw())).unwrap().unwrap();
        let mut other = raw();
        other.member_uuid = [3; 16];
        assert_eq!(label.difference(&Label::parse(&block(&other)).unwrap().unwrap()), None);
        other.vol_ts_creation = 5.into();
        assert_eq!(label.difference(&Label::parse(&block(&other)).unwrap().unwrap()), Some("vol_ts_creation"));
    }
}
