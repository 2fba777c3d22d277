//! Archives that Linux unpacks when it boots: cpio, format newc (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

/// Type bits of a mode, as in stat(2).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive in the making. The folders in which something lies are made before it.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder, unless it is there.
    pub fn folder(&mut self, path: &str) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER | 0o755, &[]);
        }
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.entry(path, LINK | 0o777, target.as_bytes());
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
        self.entries += 1;
        let length = u32::try_from(content.len()).expect("no file of 4 GiB is put into an archive");
        let name_length = u32::try_from(path.len()).expect("nor a name") + 1;
        // Inode, mode, owner, group, links, time, length, four device numbers, length of the name with its zero, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_headers_names_and_contents_each_aligned() {
        let mut archive = Archive::default();
        archive.file("bin/a", b"hello");
        archive.folder("bin");
        archive.link("b", "bin/a");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap();
        let zeroes = |count: usize| "00000000".repeat(count);
        let folder = format!("07070100000001000041ed{}00000001{}0000000400000000bin\0\0\0", zeroes(2), zeroes(6));
        let file = format!(
            "07070100000002000081ed{}00000001{}00000005{}0000000600000000bin/a\0hello\0\0\0",
            zeroes(2),
            zeroes(1),
            zeroes(4)
        );
        let link = format!(
            "070701000000030000a1ff{}00000001{}00000005{}0000000200000000b\0bin/a\0\0\0",
            zeroes(2),
            zeroes(1),
            zeroes(4)
        );
        let trailer =
            format!("0707010000000400000000{}00000001{}0000000b00000000TRAILER!!!\0\0\0\0", zeroes(2), zeroes(6));
        assert_eq!(text, [folder, file, link, trailer].concat());
    }
}
