//! Commands about the content of single objects: file, cat, df, prefetch.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

use super::{Command, Context, Definition, Output, Step, no_arguments, once, steps};
use crate::cache::shfs::{Content, LinkKind, ObjectId};
use crate::http::{ChunkRead, Served};
use crate::rings::PAGE_BYTES;
use crate::shell::text::{Hex, Name, Size};

/// Chunks that are read ahead of a command.
const AHEAD_CHUNKS: u32 = 8;

/// Pages that a command reads in one step at most, so that what is cached already does not hold up the server.
const PAGES_PER_STEP: usize = 256;

const NO_SUCH_OBJECT: &str = "Could not open: No such file or directory";

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "file",
        arguments: "OBJECT...",
        summary: "type and size of objects (a name, ?DIGEST, or / for the default one)",
        start: |arguments, _| {
            at_least_one(arguments)?;
            let names = arguments.to_vec();
            once(move |context, out| names.iter().fold(0, |code, name| code.min(describe(name, context, out))))
        },
    },
    Definition {
        name: "cat",
        arguments: "OBJECT...",
        summary: "the content of objects",
        start: |arguments, context| {
            at_least_one(arguments)?;
            content(arguments, context, |_, bytes, out| {
                // A NUL means something to telnet behind a CR; nobody can see it.
                bytes.split(|byte| *byte == 0).for_each(|part| out.raw(part));
            })
        },
    },
    Definition {
        name: "df",
        arguments: "OBJECT",
        summary: "a hexdump of an object",
        start: |arguments, context| {
            if arguments.len() != 1 {
                return Err("usage: df OBJECT".into());
            }
            content(arguments, context, hexdump)
        },
    },
    Definition {
        name: "prefetch",
        arguments: "OBJECT...",
        summary: "reads objects into the cache",
        start: |arguments, context| {
            at_least_one(arguments)?;
            content(arguments, context, |_, _, _| ())
        },
    },
    Definition {
        name: "prefetch-all",
        arguments: "",
        summary: "reads all objects into the cache",
        start: |arguments, context| {
            no_arguments(arguments)?;
            let served = context.machine.served().ok_or("No filesystem mounted")?;
            let mut next = 0;
            let mut reader: Option<Reader> = None;
            steps(move |context, out| {
                for _ in 0..PAGES_PER_STEP {
                    if out.is_full() {
                        break;
                    }
                    if let Some(running) = &mut reader {
                        match running.piece(context, out, |_, _, _| ()) {
                            Piece::More => {}
                            Piece::Wait => return Step::Wait,
                            Piece::End | Piece::Failed => reader = None,
                        }
                        continue;
                    }
                    let Some((id, object)) = served.volume.directory.iter_from(next).next() else {
                        return Step::Done(0);
                    };
                    next += 1;
                    if matches!(object.content, Content::Extent { .. }) {
                        let _ = writeln!(out, "Prefetching ?{}...", Hex(object.digest));
                        reader = Reader::new(served.clone(), id);
                    }
                }
                Step::More
            })
        },
    },
];

fn at_least_one(arguments: &[String]) -> Result<(), String> {
    if arguments.is_empty() { Err("name at least one object ('ls' lists them)".into()) } else { Ok(()) }
}

/// Finds an object as a request does: `/` or `?` is the default one, `?HEX` a digest, else a name with or without a slash before it.
fn find(served: &Served, text: &str) -> Option<ObjectId> {
    let directory = &served.volume.directory;
    let name = text.trim_start_matches('/');
    match name.strip_prefix('?') {
        None if name.is_empty() => directory.default_object(),
        None => directory.by_name(name.as_bytes()),
        Some("") => directory.default_object(),
        Some(hex) => {
            let pairs: Option<Vec<u8>> = hex
                .as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2))
                .collect();
            directory.by_digest(&pairs?)
        }
    }
}

fn describe(name: &str, context: &mut Context<'_>, out: &mut Output) -> i32 {
    let served = context.machine.served();
    let found = served.as_ref().and_then(|served| Some((served, find(served, name)?)));
    let Some((served, id)) = found else {
        let _ = writeln!(out, "{name}: {NO_SUCH_OBJECT}");
        return -1;
    };
    let object = served.volume.directory.get(id);
    let _ = match object.content {
        Content::Extent { length_bytes, .. } => {
            let mime = if object.mime.is_empty() { &b"application/octet-stream"[..] } else { object.mime };
            writeln!(out, "{name}: {}, {}", Name(mime), Size(length_bytes))
        }
        Content::Link(link) => {
            let kind = match link.kind {
                LinkKind::Redirect => "redirect",
                LinkKind::Raw => "relative clone (raw)",
                LinkKind::Auto => "relative clone (autodetect)",
            };
            writeln!(out, "{name}: remote link: http://{}:{}/{}, {kind}", link.host, link.port, Name(link.path))
        }
    };
    0
}

/// How reading went on.
enum Piece {
    More,
    Wait,
    End,
    Failed,
}

/// Reads an object page by page through the cache.
struct Reader {
    served: Rc<Served>,
    /// Next byte, counted from the start of the first chunk.
    position: u64,
    end: u64,
    first_chunk: u64,
    start: u64,
}

impl Reader {
    /// `None` for a link.
    fn new(served: Rc<Served>, id: ObjectId) -> Option<Self> {
        match served.volume.directory.get(id).content {
            Content::Extent { chunk, offset_bytes, length_bytes } => Some(Self {
                served,
                position: offset_bytes,
                end: offset_bytes.saturating_add(length_bytes),
                first_chunk: chunk,
                start: offset_bytes,
            }),
            Content::Link(_) => None,
        }
    }

    /// Shows the bytes of the next page (with their place in the object) to `show`.
    fn piece(
        &mut self,
        context: &mut Context<'_>,
        out: &mut Output,
        mut show: impl FnMut(u64, &[u8], &mut Output),
    ) -> Piece {
        if self.position >= self.end {
            return Piece::End;
        }
        let chunk_bytes = u64::from(self.served.volume.chunk_bytes);
        let (chunk, within) = (self.position / chunk_bytes, self.position % chunk_bytes);
        let chunks_left = (self.end - 1) / chunk_bytes - chunk;
        let ahead = chunks_left.min(AHEAD_CHUNKS.into()) as u32;
        match context.machine.read(context.session, &self.served, self.first_chunk + chunk, ahead) {
            ChunkRead::Ready(pages) => {
                let (page, offset) = (within as usize / PAGE_BYTES, within as usize % PAGE_BYTES);
                let length = (PAGE_BYTES - offset).min((self.end - self.position) as usize);
                let bytes = &pages[page].bytes()[offset..offset + length];
                show(self.position - self.start, bytes, out);
                self.position += length as u64;
                Piece::More
            }
            ChunkRead::Pending => Piece::Wait,
            ChunkRead::Failed => {
                let _ = writeln!(out, "chunk {} could not be read", self.first_chunk + chunk);
                Piece::Failed
            }
        }
    }
}

/// Reads several objects one after the other.
fn content(
    names: &[String],
    context: &mut Context<'_>,
    show: fn(u64, &[u8], &mut Output),
) -> Result<Box<dyn Command>, String> {
    let served = context.machine.served().ok_or("No filesystem mounted")?;
    let mut names: Vec<String> = names.iter().rev().cloned().collect();
    let mut reader: Option<Reader> = None;
    steps(move |context, out| {
        for _ in 0..PAGES_PER_STEP {
            if out.is_full() {
                break;
            }
            if let Some(running) = &mut reader {
                match running.piece(context, out, show) {
                    Piece::More => continue,
                    Piece::Wait => return Step::Wait,
                    Piece::Failed => return Step::Done(-5),
                    Piece::End => reader = None,
                }
            }
            let Some(name) = names.pop() else { return Step::Done(0) };
            let Some(id) = find(&served, &name) else {
                let _ = writeln!(out, "{name}: {NO_SUCH_OBJECT}");
                return Step::Done(-1);
            };
            reader = Reader::new(served.clone(), id);
        }
        Step::More
    })
}

/// 16 bytes a line, in groups of four, with their text beside them.
fn hexdump(at: u64, bytes: &[u8], out: &mut Output) {
    for (i, line) in bytes.chunks(16).enumerate() {
        let _ = write!(out, "{:08x}: ", at + i as u64 * 16);
        for column in 0..16 {
            match line.get(column) {
                Some(byte) => {
                    let _ = write!(out, "{byte:02x}");
                }
                None => {
                    let _ = write!(out, "  ");
                }
            }
            if column % 4 == 3 {
                let _ = write!(out, " ");
            }
        }
        let _ = write!(out, " ");
        for (column, byte) in line.iter().enumerate() {
            let shown = if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
            let _ = write!(out, "{shown}");
            if column % 4 == 3 && column < 15 {
                let _ = write!(out, " ");
            }
        }
        let _ = writeln!(out);
    }
}
