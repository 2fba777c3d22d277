//! What a command is: a line of words, and a state machine that writes its output step by step.
//!
//! Output goes into a bounded buffer, so a command that has much to say stops when the buffer is full and goes on when the
//! client has taken some of it. Nothing here blocks.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use smoltcp::time::Instant;

use super::Context;

/// Most words of a line.
pub const MAX_WORDS: usize = 96;

/// How deep commands that run commands may nest.
const MAX_DEPTH: usize = 8;

/// Text of a session that waits for its client.
#[derive(Debug, Default)]
pub struct Output {
    text: Vec<u8>,
}

impl Output {
    /// Beyond this a command stops and waits; one step may write past it by what it writes at once.
    const LIMIT_BYTES: usize = 8 << 10;

    /// Beyond this nothing is taken from a client that does not read. More than a step writes at once.
    const FLOOD_BYTES: usize = 64 << 10;

    /// True when a command should stop for now.
    pub fn is_full(&self) -> bool {
        self.text.len() >= Self::LIMIT_BYTES
    }

    /// True when not even answers to telnet commands have room.
    pub fn is_flooded(&self) -> bool {
        self.text.len() >= Self::FLOOD_BYTES
    }

    /// What is there to be sent.
    pub fn pending(&self) -> &[u8] {
        &self.text
    }

    /// Takes off what has been sent.
    pub fn consume(&mut self, bytes: usize) {
        self.text.drain(..bytes);
    }

    /// Drops what has not been sent.
    pub fn clear(&mut self) {
        self.text.clear();
    }

    /// Appends bytes as they are (telnet's 0xff excepted, which is doubled).
    pub fn raw(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.text.push(*byte);
            if *byte == 0xff {
                self.text.push(0xff);
            }
        }
    }

    /// Appends bytes that are telnet commands.
    pub fn command(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
    }
}

/// Lines end in CR LF, as RFC 854 has it.
impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                self.text.extend_from_slice(b"\r\n");
            }
            self.raw(line.as_bytes());
        }
        Ok(())
    }
}

/// Where a command stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is over, with this return code: 0 is well, below 0 is told to the client.
    Done(i32),
    /// It has more to write when the output has drained.
    More,
    /// It waits for a disk.
    Wait,
    /// It waits until then.
    Until(Instant),
    /// It ends its session.
    Exit,
}

/// A command that runs.
pub trait Command {
    /// Goes on. Called again after `More`, `Wait` and `Until`.
    fn step(&mut self, context: &mut Context<'_>, out: &mut Output) -> Step;
}

/// How a command begins: from its arguments, its name not among them.
pub type Start = fn(&[String], &mut Context<'_>) -> Result<Box<dyn Command>, String>;

/// A command as `help` lists it.
#[derive(Clone, Copy)]
pub struct Definition {
    /// What is typed.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// Begins it.
    pub start: Start,
}

/// Splits a line into words: blanks separate, quotes (`'` and `"`) keep them together, a backslash takes the next character as
/// it is (not within single quotes).
///
/// # Errors
/// An open quote, a trailing backslash, or more than [`MAX_WORDS`] words, in words.
pub fn words(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next =
                    characters.next().ok_or("a backslash at the end of the line: there is nothing to take as it is")?;
                word.get_or_insert_default().push(next);
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    if words.len() > MAX_WORDS {
        return Err("more than 96 words on a line");
    }
    Ok(words)
}

/// Begins the command that `words` say.
///
/// # Errors
/// The sentence to show instead.
pub fn start(words: &[String], context: &mut Context<'_>, depth: usize) -> Result<Box<dyn Command>, String> {
    let (name, arguments) = words.split_first().ok_or_else(|| String::from("there is no command"))?;
    if depth > MAX_DEPTH {
        return Err(alloc::format!("{name}: commands are nested too deeply"));
    }
    if let Some(nesting) = super::commands::nesting(name) {
        return nesting(arguments, context, depth);
    }
    let definition = super::commands::find(name).ok_or_else(|| alloc::format!("{name}: command not found"))?;
    (definition.start)(arguments, context).map_err(|error| alloc::format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use core::fmt::Write as _;

    use super::*;

    #[test]
    fn lines_are_split_like_a_shell_does() {
        assert_eq!(words("  cat  a\\ b 'c d' \"e\\\"f\" ''g '' ").unwrap(), ["cat", "a b", "c d", "e\"f", "g", ""]);
        assert_eq!(words("").unwrap(), [""; 0]);
        assert!(words("echo 'x").is_err() && words("echo x\\").is_err());
        assert!(words(&"x ".repeat(97)).is_err() && words(&"x ".repeat(96)).is_ok());
    }

    #[test]
    fn output_is_what_telnet_wants() {
        let mut out = Output::default();
        write!(out, "a\nb\n").unwrap();
        out.raw(&[0xff, b'\n']);
        assert_eq!(out.pending(), b"a\r\nb\r\n\xff\xff\n");
        out.consume(3);
        assert_eq!(out.pending(), b"b\r\n\xff\xff\n");
    }
}
