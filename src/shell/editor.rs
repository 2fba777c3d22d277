//! Line editing and history for a session.
//!
//! Keys go in one byte at a time; what the terminal has to show comes out through a callback, and is nothing where the client
//! echoes by itself. The usual keys work: backspace and delete, arrows, Home and End, and ^A ^B ^C ^D ^E ^F ^K ^N ^P ^U ^W.
//! (The no_std editors that exist either block on their reads or ask the terminal for its cursor, which a script never answers.)

use alloc::collections::VecDeque;
use alloc::string::String;

/// Longest line in bytes; keys beyond it are not taken.
pub const MAX_LINE_BYTES: usize = 255;

/// Lines that a session remembers.
const HISTORY_LINES: usize = 32;

/// What a key led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The line goes on.
    Editing,
    /// The line is complete: [`Editor::take`] gives it.
    Enter,
    /// ^C: the line is dropped, and so is what runs.
    Interrupt,
    /// ^D on an empty line: the session is to end.
    EndOfInput,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// ESC has come.
    Begun,
    /// Within a control sequence, with its numeric parameter so far.
    Sequence(u8),
}

/// The line under way and those before it.
#[derive(Debug, Default)]
pub struct Editor {
    line: String,
    /// Byte position, always at a character boundary.
    cursor: usize,
    history: VecDeque<String>,
    /// How far back in the history the line shown is; 0 is the line under way.
    recalled: usize,
    /// The line under way while an older one is shown.
    draft: String,
    escape: Escape,
    after_cr: bool,
    /// Bytes of a character that is not complete yet.
    partial: arrayvec::ArrayVec<u8, 4>,
}

impl Editor {
    /// Takes one byte; `show` gets what the terminal has to be sent.
    pub fn key(&mut self, byte: u8, show: &mut dyn FnMut(&[u8])) -> Key {
        let after_cr = core::mem::replace(&mut self.after_cr, byte == b'\r');
        match core::mem::take(&mut self.escape) {
            Escape::Begun if byte == b'[' || byte == b'O' => {
                self.escape = Escape::Sequence(0);
                return Key::Editing;
            }
            Escape::Sequence(parameter) => {
                self.sequence(byte, parameter, show);
                return Key::Editing;
            }
            Escape::Begun | Escape::None => {}
        }
        match byte {
            // Telnet ends a line with CR LF or CR NUL, a script with LF.
            b'\n' | 0 if after_cr => {}
            b'\r' | b'\n' => {
                show(b"\r\n");
                return Key::Enter;
            }
            0x01 => self.move_to(0, show),
            0x02 => self.move_to(self.before(), show),
            0x03 => {
                self.reset();
                show(b"^C\r\n");
                return Key::Interrupt;
            }
            0x04 if self.line.is_empty() => return Key::EndOfInput,
            0x04 => self.delete(self.cursor, self.after(), show),
            0x05 => self.move_to(self.line.len(), show),
            0x06 => self.move_to(self.after(), show),
            0x08 | 0x7f => self.delete(self.before(), self.cursor, show),
            0x0b => self.delete(self.cursor, self.line.len(), show),
            0x0e => self.recall(self.recalled.saturating_sub(1), show),
            0x10 => self.recall(self.recalled + 1, show),
            0x15 => self.delete(0, self.cursor, show),
            0x17 => {
                let head = self.line[..self.cursor].trim_end_matches(' ');
                self.delete(head.rfind(' ').map_or(0, |blank| blank + 1), self.cursor, show);
            }
            0x1b => self.escape = Escape::Begun,
            0x20.. => self.insert(byte, show),
            _ => {}
        }
        Key::Editing
    }

    /// True if nothing of a line has been typed.
    pub fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// The completed line, which also enters the history; the editor begins a new one.
    pub fn take(&mut self) -> String {
        let line = core::mem::take(&mut self.line);
        self.reset();
        if !line.trim().is_empty() && self.history.front() != Some(&line) {
            self.history.truncate(HISTORY_LINES - 1);
            self.history.push_front(line.clone());
        }
        line
    }

    fn reset(&mut self) {
        self.line.clear();
        self.draft.clear();
        self.partial.clear();
        self.cursor = 0;
        self.recalled = 0;
    }

    fn sequence(&mut self, byte: u8, parameter: u8, show: &mut dyn FnMut(&[u8])) {
        match byte {
            b'0'..=b'9' => self.escape = Escape::Sequence(parameter.saturating_mul(10).saturating_add(byte - b'0')),
            // Intermediate bytes and further parameters belong to a sequence that is none of ours.
            0x20..=0x3f => self.escape = Escape::Sequence(u8::MAX),
            b'A' => self.recall(self.recalled + 1, show),
            b'B' => self.recall(self.recalled.saturating_sub(1), show),
            b'C' => self.move_to(self.after(), show),
            b'D' => self.move_to(self.before(), show),
            b'H' => self.move_to(0, show),
            b'F' => self.move_to(self.line.len(), show),
            b'~' => match parameter {
                1 | 7 => self.move_to(0, show),
                3 => self.delete(self.cursor, self.after(), show),
                4 | 8 => self.move_to(self.line.len(), show),
                _ => {}
            },
            _ => {}
        }
    }

    /// Start of the character before the cursor.
    fn before(&self) -> usize {
        self.line[..self.cursor].char_indices().next_back().map_or(0, |(at, _)| at)
    }

    /// End of the character behind the cursor.
    fn after(&self) -> usize {
        self.cursor + self.line[self.cursor..].chars().next().map_or(0, char::len_utf8)
    }

    fn insert(&mut self, byte: u8, show: &mut dyn FnMut(&[u8])) {
        if byte.is_ascii() {
            self.partial.clear();
        }
        if self.partial.try_push(byte).is_err() {
            self.partial.clear();
            return;
        }
        let character = match core::str::from_utf8(&self.partial) {
            Ok(text) => text.chars().next(),
            Err(error) if error.error_len().is_none() => return,
            Err(_) => None,
        };
        self.partial.clear();
        let Some(character) = character else { return };
        if character.is_control() || self.line.len() + character.len_utf8() > MAX_LINE_BYTES {
            return;
        }
        self.line.insert(self.cursor, character);
        let start = self.cursor;
        self.cursor += character.len_utf8();
        show(&self.line.as_bytes()[start..]);
        back(self.line[self.cursor..].chars().count(), show);
    }

    fn move_to(&mut self, to: usize, show: &mut dyn FnMut(&[u8])) {
        if to < self.cursor {
            back(self.line[to..self.cursor].chars().count(), show);
        } else if to > self.cursor {
            show(&self.line.as_bytes()[self.cursor..to]);
        }
        self.cursor = to;
    }

    fn delete(&mut self, from: usize, to: usize, show: &mut dyn FnMut(&[u8])) {
        if from == to {
            return;
        }
        self.move_to(from, show);
        self.line.drain(from..to);
        show(&self.line.as_bytes()[from..]);
        show(b"\x1b[K");
        back(self.line[from..].chars().count(), show);
    }

    fn recall(&mut self, recalled: usize, show: &mut dyn FnMut(&[u8])) {
        if recalled == self.recalled || recalled > self.history.len() {
            return;
        }
        if self.recalled == 0 {
            self.draft.clone_from(&self.line);
        }
        self.move_to(0, show);
        let line = recalled.checked_sub(1).map_or(&self.draft, |at| &self.history[at]);
        self.line.clone_from(line);
        self.cursor = self.line.len();
        self.recalled = recalled;
        show(self.line.as_bytes());
        show(b"\x1b[K");
    }
}

/// Moves the terminal's cursor back.
fn back(characters: usize, show: &mut dyn FnMut(&[u8])) {
    for _ in 0..characters {
        show(b"\x08");
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// A terminal of one line that understands what the editor sends.
    #[derive(Default)]
    struct Screen {
        cells: Vec<char>,
        cursor: usize,
    }

    impl Screen {
        fn show(&mut self, bytes: &[u8]) {
            let text = core::str::from_utf8(bytes).unwrap().replace("\x1b[K", "\0");
            for character in text.chars() {
                match character {
                    '\r' => self.cursor = 0,
                    '\n' => self.cells.clear(),
                    '\x08' => self.cursor -= 1,
                    '\0' => self.cells.truncate(self.cursor),
                    _ => {
                        self.cells.truncate(self.cells.len().max(self.cursor));
                        if self.cursor < self.cells.len() {
                            self.cells[self.cursor] = character;
                        } else {
                            self.cells.push(character);
                        }
                        self.cursor += 1;
                    }
                }
            }
        }
    }

    fn lines(keys: &[u8]) -> Vec<String> {
        let (mut editor, mut screen, mut lines) = (Editor::default(), Screen::default(), vec![]);
        for byte in keys {
            if editor.key(*byte, &mut |bytes| screen.show(bytes)) == Key::Enter {
                lines.push(editor.take());
            } else {
                assert_eq!(screen.cells.iter().collect::<String>(), editor.line, "screen after {byte:#x}");
                assert_eq!(screen.cursor, editor.line[..editor.cursor].chars().count());
            }
        }
        lines
    }

    #[test]
    fn every_kind_of_line_end_is_one() {
        assert_eq!(lines(b"a\nb\r\nc\r\0d\re\r\n\r\n"), ["a", "b", "c", "d", "e", ""]);
    }

    #[test]
    fn keys_edit() {
        assert_eq!(lines(b"hexp\x7f\x08lpo\n"), ["helpo"]);
        assert_eq!(lines(b"ello\x01h\x05!\n"), ["hello!"]);
        assert_eq!(lines(b"abc\x1b[D\x1b[D\x1b[3~X\x1b[C\x1b[Cd\n"), ["aXcd"]);
        assert_eq!(lines(b"cat one two\x17three\x1b[H\x0bls\n"), ["ls"]);
        assert_eq!(lines("gr\u{fc}n\u{2713}\x08e\n".as_bytes()), ["gr\u{fc}ne"]);
        assert_eq!(lines(b"x\xff\xc3\x28\x1by\n").len(), 1);
    }

    #[test]
    fn history_goes_back_and_forth() {
        let up = b"\x1b[A";
        let down = b"\x1b[B";
        let keys = [&b"one\ntwo\ntwo\ndraft"[..], up, up, up, down, b"!\n", up, up, up, up, down, down, down, b"z\n"];
        assert_eq!(lines(&keys.concat()), ["one", "two", "two", "two!", "z"]);
    }

    #[test]
    fn lines_and_history_are_bounded() {
        let long = vec![b'x'; 1000];
        assert_eq!(lines(&[&long[..], b"\n"].concat())[0].len(), MAX_LINE_BYTES);
        let mut editor = Editor::default();
        for i in 0..100 {
            editor.line = alloc::format!("line {i}");
            editor.take();
        }
        assert_eq!(editor.history.len(), HISTORY_LINES);
        assert_eq!(editor.history[0], "line 99");
    }

    #[test]
    fn control_c_and_d() {
        let mut editor = Editor::default();
        assert_eq!(editor.key(0x04, &mut |_| ()), Key::EndOfInput);
        editor.key(b'x', &mut |_| ());
        assert_eq!(editor.key(0x04, &mut |_| ()), Key::Editing);
        assert_eq!(editor.key(0x03, &mut |_| ()), Key::Interrupt);
        assert_eq!(editor.line, "");
    }

    proptest::proptest! {
        #[test]
        fn any_keys_keep_screen_and_line_equal(keys in proptest::collection::vec(proptest::prop_oneof![
            proptest::prelude::any::<u8>().boxed(),
            proptest::sample::select(vec![0x1bu8, b'[', b'A', b'B', b'C', b'D', 0x7f, 0x17, 0x15, 0x0b, 0x01]).boxed(),
        ], 0..200)) {
            lines(&keys);
        }
    }

    use proptest::prelude::Strategy as _;
}
