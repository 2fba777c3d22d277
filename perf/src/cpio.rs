//! Archives that Linux unpacks when it boots: cpio, format newc (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

/// Type bits of a mode, as in stat(2).
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;

/// An archive in the making. Folders must come before what lies in them.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER | 0o755, &[]);
    }

    /// Adds a file that may be executed.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, FILE | 0o755, content);
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
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
        archive.folder("bin");
        archive.file("bin/a", b"hello");
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
        let trailer =
            format!("0707010000000300000000{}00000001{}0000000b00000000TRAILER!!!\0\0\0\0", zeroes(2), zeroes(6));
        assert_eq!(text, [folder, file, trailer].concat());
    }
}
