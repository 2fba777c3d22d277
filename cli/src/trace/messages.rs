//! Whole messages in the bytes of a trace.

use minicache::boot::trace::Dump;

/// Longest encoded message that is looked at, in bytes; the kernel's are far shorter. A longer one is cut off, and thus nonsense.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Something in a trace.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// An encoded message, without the zero behind it.
    Message(Vec<u8>),
    /// Messages were overwritten before they were read.
    Lost {
        /// How many bytes.
        bytes: u64,
    },
    /// The machine was started again.
    Restart,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Messages {
    /// Which start of the machine this is about.
    start: Option<u32>,
    /// The next byte's position.
    position: u64,
    /// A message whose end has not been seen.
    partial: Vec<u8>,
    /// The beginning of what is next is missing: go on behind the next zero.
    is_cut: bool,
}

impl Messages {
    /// What is new in this copy. `written` bytes had been written when it was complete.
    pub fn take(&mut self, dump: &Dump<'_>, written: u64) -> Vec<Found> {
        let mut found = Vec::new();
        if self.start != Some(dump.start()) {
            found.extend(self.start.map(|_| Found::Restart));
            *self = Self { start: Some(dump.start()), ..Self::default() };
        }
        let first = self.position.max(dump.oldest(written.max(dump.written())));
        if first > self.position {
            found.push(Found::Lost { bytes: first - self.position });
            self.partial.clear();
            self.is_cut = true;
        }
        for byte in dump.from(first) {
            if byte != 0 {
                if self.partial.len() < MAX_MESSAGE_BYTES {
                    self.partial.push(byte);
                }
                continue;
            }
            let message = std::mem::take(&mut self.partial);
            if !std::mem::take(&mut self.is_cut) && !message.is_empty() {
                found.push(Found::Message(message));
            }
        }
        self.position = dump.written().max(first);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minicache::boot::trace::HEADER_BYTES;
    use proptest::prelude::*;

    /// The memory of a ring of this capacity into which all of `bytes` were written.
    fn memory(bytes: &[u8], capacity: usize, start: u32) -> Vec<u8> {
        let mut memory = b"MC trace\x01\0\0\0".to_vec();
        memory.extend((capacity as u32).to_le_bytes());
        memory.extend((bytes.len() as u64).to_le_bytes());
        memory.resize(HEADER_BYTES - 4, 0);
        memory.extend(start.to_le_bytes());
        memory.resize(HEADER_BYTES + capacity, 0);
        for (position, byte) in bytes.iter().enumerate() {
            memory[HEADER_BYTES + position % capacity] = *byte;
        }
        memory
    }

    fn take(messages: &mut Messages, bytes: &[u8], later: u64) -> Vec<Found> {
        take_of_start(messages, bytes, later, 1)
    }

    fn take_of_start(messages: &mut Messages, bytes: &[u8], later: u64, start: u32) -> Vec<Found> {
        let memory = memory(bytes, 16, start);
        let dump = Dump::parse(&memory).unwrap();
        messages.take(&dump, dump.written() + later)
    }

    fn message(text: &str) -> Found {
        Found::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn messages_are_found_when_they_are_whole() {
        let mut messages = Messages::default();
        assert_eq!(take(&mut messages, b"\0one\0tw", 0), [message("one")]);
        assert_eq!(take(&mut messages, b"\0one\0tw", 0), []);
        assert_eq!(take(&mut messages, b"\0one\0two\0three\0", 0), [message("two"), message("three")]);
        let overwritten = [Found::Lost { bytes: 2 }, message("five")];
        assert_eq!(take(&mut messages, b"\0one\0two\0three\0xxx.and four\0five\0", 0), overwritten);
        assert_eq!(take_of_start(&mut messages, b"\0one\0", 0, 2), [Found::Restart, message("one")]);
    }

    #[test]
    fn what_was_overwritten_while_it_was_copied_is_left_out() {
        let bytes = b"\0abc\0def\0ghi\0jkl";
        let whole = [message("abc"), message("def"), message("ghi")];
        assert_eq!(take(&mut Messages::default(), bytes, 0), whole);
        let rest = [Found::Lost { bytes: 3 }, message("def"), message("ghi")];
        assert_eq!(take(&mut Messages::default(), bytes, 3), rest);
        assert_eq!(take(&mut Messages::default(), bytes, 99), [Found::Lost { bytes: 99 }]);
    }

    proptest! {
        #[test]
        fn whatever_the_memory_says_there_is_an_end(
            mut bytes in proptest::collection::vec(any::<u8>(), HEADER_BYTES + 16),
            counters in proptest::collection::vec(any::<(u64, u64)>(), 1..8),
        ) {
            let mut messages = Messages::default();
            bytes[..16].copy_from_slice(&memory(b"", 16, 0)[..16]);
            for (written, later) in counters {
                bytes[16..24].copy_from_slice(&written.to_le_bytes());
                let found = messages.take(&Dump::parse(&bytes).unwrap(), later);
                prop_assert!(found.len() <= 18);
            }
        }
    }
}
