//! Commands that list the objects of the volume.

use alloc::rc::Rc;
use alloc::string::String;
use core::fmt::Write as _;

use super::network::{derived, group};
use super::{Definition, Output, Step, no_arguments, steps};
use crate::cache::shfs::{Content, LinkKind, Object, ObjectId};
use crate::http::{ObjectStats, Served};
use crate::shell::text::{Date, Hex, Name};

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "ls",
        arguments: "",
        summary: "the objects, in table order",
        start: |arguments, context| {
            no_arguments(arguments)?;
            each_object(context.machine.served(), |_, served, _, object, out| {
                write_object(served, object, out);
            })
        },
    },
    Definition {
        name: "lsof",
        arguments: "",
        summary: "the objects that are being sent, and to how many",
        start: |arguments, context| {
            no_arguments(arguments)?;
            each_object(context.machine.served(), |_, served, id, object, out| {
                let open = served.object_stats(id).open();
                if open > 0 {
                    let _ = writeln!(out, "?{} {open:12}  {}", Hex(object.digest), Name(object.name));
                }
            })
        },
    },
    Definition {
        name: "stats",
        arguments: "[objects|counters]",
        summary: "requests of each object (hits, completed, progress by fifths), and every counter",
        start: |arguments, context| {
            let (objects, counters) = match arguments {
                [] => (true, true),
                [what] if what == "objects" => (true, false),
                [what] if what == "counters" => (false, true),
                _ => return Err("usage: stats [objects|counters]".into()),
            };
            let served = context.machine.served().filter(|_| objects);
            let mut next = 0;
            steps(move |context, out| {
                if let Some(served) = &served {
                    for (id, object) in served.volume.directory.iter_from(next) {
                        if out.is_full() {
                            return Step::More;
                        }
                        next += 1;
                        write_stats(served.object_stats(id), object, out);
                    }
                }
                if counters {
                    group(context.machine.stats(), out, "");
                    derived(context.machine.stats(), out);
                }
                Step::Done(0)
            })
        },
    },
];

fn each_object(
    served: Option<Rc<Served>>,
    mut write: impl FnMut(&mut super::Context<'_>, &Served, ObjectId, Object<'_>, &mut Output) + 'static,
) -> Result<alloc::boxed::Box<dyn super::Command>, String> {
    let served = served.ok_or("No filesystem mounted")?;
    let mut next = 0;
    steps(move |context, out| {
        for (id, object) in served.volume.directory.iter_from(next) {
            if out.is_full() {
                return Step::More;
            }
            next += 1;
            write(context, &served, id, object, out);
        }
        Step::Done(0)
    })
}

/// As the original's tools list an entry, with a `?` before the digest.
fn write_object(served: &Served, object: Object<'_>, out: &mut Output) {
    let digest = alloc::format!("{}", Hex(object.digest));
    let width = served.volume.digest_bytes.next_multiple_of(16) * 2;
    let _ = write!(out, "?{digest:<width$} ");
    let flag = |on, letter| if on { letter } else { '-' };
    let is_link = matches!(object.content, Content::Link(_));
    match object.content {
        Content::Extent { chunk, offset_bytes, length_bytes } => {
            let chunks = offset_bytes.saturating_add(length_bytes).div_ceil(served.volume.chunk_bytes.into());
            let _ = write!(out, "{chunk:12} {chunks:12} ");
        }
        Content::Link(_) => {
            let _ = write!(out, "{:26}", "");
        }
    }
    let _ = write!(out, "  {}{}{} ", flag(is_link, 'L'), flag(object.is_default(), 'D'), flag(object.is_hidden(), 'H'));
    let kind = match object.content {
        Content::Link(link) => match link.kind {
            LinkKind::Redirect => "redir",
            LinkKind::Raw => "raw",
            LinkKind::Auto => "auto",
        },
        Content::Extent { .. } => "",
    };
    let mime = alloc::format!("{}", Name(object.mime));
    let date = alloc::format!("{}", Date(object.created_unix_s));
    let _ = writeln!(out, "{kind:>5} {mime:<24} {date:<18} {}", Name(object.name));
}

fn write_stats(stats: &ObjectStats, object: Object<'_>, out: &mut Output) {
    if stats.last_access_unix_s() == 0 {
        return;
    }
    let _ = write!(out, "?{} {:6} [ {:6} |", Hex(object.digest), stats.hits(), stats.completed());
    for progress in stats.progress() {
        let _ = write!(out, " {progress:6}");
    }
    let _ = writeln!(out, " ] {}  {}", Date(stats.last_access_unix_s()), Name(object.name));
}
