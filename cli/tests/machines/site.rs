//! What the machines serve: demofs and noise of critical lengths, as one image and as a volume of three disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use testbed::files;

use crate::volumes::{self, Shape, Writer};

/// Lengths around which something changes: nothing, one segment (with and without timestamps), a page, a chunk, a super-frame, and
/// some chunks.
const CRITICAL_BYTES: &[usize] = &[
    0, 1, 1447, 1448, 1449, 1460, 1461, 4095, 4096, 4097, 32_767, 32_768, 32_769, 65_160, 65_483, 65_535, 65_536,
    65_537, 1_048_575, 1_048_577, 3_000_017,
];

/// A folder's files, and where its images are.
pub struct Site {
    dir: TempDir,
    /// The objects: name and content, in order.
    pub objects: Vec<(String, Vec<u8>)>,
}

impl Site {
    /// demofs alone, or with noise.
    pub fn new(with_noise: bool) -> Self {
        let mut objects = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../demofs")).unwrap();
        if with_noise {
            let noise =
                CRITICAL_BYTES.iter().map(|&length| (format!("noise/{length}"), volumes::noise(length as u64, length)));
            objects.extend(noise);
        }
        objects.sort();
        Self { dir: tempfile::tempdir().unwrap(), objects }
    }

    /// These objects alone.
    pub fn of(objects: Vec<(String, Vec<u8>)>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), objects }
    }

    /// A path in a folder that goes with the site.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An object's content.
    pub fn content(&self, name: &str) -> &[u8] {
        &self.objects.iter().find(|(other, _)| other == name).unwrap().1
    }

    /// The folder with these files.
    pub fn folder(&self) -> PathBuf {
        let folder = self.path("folder");
        for (name, content) in &self.objects {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    /// An image as `minicache pack` makes it.
    pub fn image(&self) -> PathBuf {
        let image = self.path("site.img");
        let output =
            Command::new(env!("CARGO_BIN_EXE_minicache")).arg("pack").arg(self.folder()).arg(&image).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        image
    }

    /// The images of a volume's three members, whose chunks take a stripe of each.
    pub fn members(&self) -> Vec<PathBuf> {
        let mut shape = Shape { buckets: 512, ..Shape::new(3, true, 8192, 32) };
        let content: usize =
            self.objects.iter().map(|(_, content)| content.len().next_multiple_of(shape.chunk_bytes())).sum();
        let chunks = content / shape.chunk_bytes() + shape.table_chunks() as usize + 8;
        shape.member_bytes = vec![chunks * shape.stripe_bytes; 3];
        let mut writer = Writer::new(shape);
        for (number, (name, content)) in self.objects.iter().enumerate() {
            const DEFAULT: u8 = 0x08;
            let flags = if name == "index.html" { DEFAULT } else { 0 };
            writer.add(name.as_bytes(), b"", &volumes::digest(number as u64, 32), flags, content);
        }
        let write = |(number, bytes): (usize, &Vec<u8>)| {
            let image = self.path(&format!("member{number}.img"));
            fs::write(&image, bytes).unwrap();
            image
        };
        writer.members.iter().enumerate().map(write).collect()
    }
}
