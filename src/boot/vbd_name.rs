//! Names of Xen's disks: what a virtual device number means (Xen's `docs/man/xen-vbd-interface.7`).

use core::fmt::{self, Write};

/// A virtual device number, shown as people write it in a domain's configuration: 51712 is xvda.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VbdName(pub u32);

impl fmt::Display for VbdName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Numbers that have room for more disks and partitions than Linux's old ones.
        const EXTENDED: u32 = 1 << 28;
        let Self(number) = *self;
        let (prefix, disk, partition) = match (number >> 8, number & 0xff) {
            _ if number >> 28 == EXTENDED >> 28 => ("xvd", number >> 8 & 0xf_ffff, number & 0xff),
            (202, minor) => ("xvd", minor >> 4, minor & 0xf),
            (8, minor) => ("sd", minor >> 4, minor & 0xf),
            (3, minor) => ("hd", minor >> 6, minor & 0x3f),
            (22, minor) => ("hd", 2 + (minor >> 6), minor & 0x3f),
            _ => return write!(f, "disk {number}"),
        };
        f.write_str(prefix)?;
        write_letters(f, disk)?;
        if partition > 0 {
            write!(f, "{partition}")?;
        }
        Ok(())
    }
}

/// a to z, then aa, ab and so on.
fn write_letters(f: &mut fmt::Formatter<'_>, disk: u32) -> fmt::Result {
    if disk >= 26 {
        write_letters(f, disk / 26 - 1)?;
    }
    f.write_char(char::from(b'a' + (disk % 26) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn numbers_have_the_names_of_xens_manual() {
        for (number, name) in [
            (51712, "xvda"),
            (51728, "xvdb"),
            (51713, "xvda1"),
            (51952, "xvdp"),
            (1 << 28 | 16 << 8, "xvdq"),
            (1 << 28 | 26 << 8 | 17, "xvdaa17"),
            (1 << 28 | 701 << 8, "xvdzz"),
            (1 << 28 | 702 << 8, "xvdaaa"),
            (2048, "sda"),
            (2065, "sdb1"),
            (768, "hda"),
            (833, "hdb1"),
            (5632, "hdc"),
            (5696, "hdd"),
            (0, "disk 0"),
            (u32::MAX, "disk 4294967295"),
        ] {
            assert_eq!(VbdName(number).to_string(), name);
        }
    }
}
