//! The kernel's ELF, as far as its trace is concerned: where that lies in memory, which build it is, and the messages' texts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use defmt_decoder::Table;
use minicache::boot::trace::{BUILD_ID_BYTES, Dump, HEADER_BYTES, MAX_CAPACITY, SYMBOL};
use object::{Object, ObjectSymbol};

use crate::terminal::printable;

/// A kernel's ELF.
pub struct Image {
    path: PathBuf,
    /// Address of the trace in the machine's memory.
    pub trace_address: u64,
    /// Its bytes.
    pub trace_bytes: u64,
    build_id: [u8; BUILD_ID_BYTES],
    texts: Table,
}

impl Image {
    /// Reads the ELF.
    ///
    /// # Errors
    /// If it is no kernel that writes a trace.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let elf = fs::read(path).with_context(|| format!("can't read {path:?}"))?;
        Self::parse(&elf, path).with_context(|| {
            format!("{path:?} is no kernel of MiniCache that has a trace (`cargo xtask kernel` builds one; it must not be stripped)")
        })
    }

    fn parse(elf: &[u8], path: &Path) -> anyhow::Result<Self> {
        let texts = Table::parse(elf)?.context("it has no section .defmt, where the texts of log messages are")?;
        let file = object::File::parse(elf)?;
        let symbol = file.symbols().find(|symbol| symbol.name() == Ok(SYMBOL));
        let symbol = symbol.with_context(|| format!("it has no symbol {SYMBOL}"))?;
        let (trace_address, trace_bytes) = (symbol.address(), symbol.size());
        let sizes = HEADER_BYTES as u64..=HEADER_BYTES as u64 + u64::from(MAX_CAPACITY);
        ensure!(sizes.contains(&trace_bytes), "its symbol {SYMBOL} has {trace_bytes} bytes");
        let build_id = file.build_id()?.and_then(|id| id.try_into().ok()).context("it has no build ID")?;
        Ok(Self { path: path.to_owned(), trace_address, trace_bytes, build_id, texts })
    }

    /// Fails if another build has written this trace.
    pub fn check(&self, dump: &Dump<'_>) -> anyhow::Result<()> {
        ensure!(
            dump.build_id() == self.build_id,
            "the machine runs another build than {:?}: name the ELF that it has booted with --kernel",
            self.path
        );
        Ok(())
    }

    /// The line that an encoded message stands for.
    pub fn line(&self, message: &[u8]) -> String {
        let mut decoder = self.texts.new_stream_decoder();
        decoder.received(message);
        decoder.received(&[0]);
        let frame = match decoder.decode() {
            Ok(frame) => frame,
            Err(error) => return format!("(a message of {} bytes can't be decoded: {error})", message.len()),
        };
        let time = frame.display_timestamp().map(|time| time.to_string()).unwrap_or_default();
        let level = frame.level().map_or("", |level| level.as_str());
        let text = frame.display_message().to_string();
        // The text is made of what comes from disks and networks.
        format!("{time:>12} {level:<5} {}", printable(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", Image::read(path).err().expect("it is no kernel"))
    }

    #[test]
    fn files_that_are_no_kernels_are_refused() {
        let other = tempfile::NamedTempFile::new().unwrap();
        assert!(refusal(other.path()).contains("is no kernel of MiniCache"));
        fs::write(other.path(), "no ELF").unwrap();
        assert!(refusal(other.path()).contains("is no kernel of MiniCache"));
        let own = refusal(&std::env::current_exe().unwrap());
        assert!(own.contains("no section .defmt"), "{own}");
        assert!(refusal(Path::new("/no/such/file")).contains("can't read"));
    }
}
