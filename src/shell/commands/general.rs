//! Commands about the shell itself and the machine as a whole.

use alloc::string::String;
use core::fmt::Write as _;

use super::{Definition, Step, nested, no_arguments, once, steps};
use crate::shell::text::{LongDate, Uptime};

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "help",
        arguments: "[COMMAND]",
        summary: "lists the commands, or tells of one",
        start: |arguments, _| match arguments {
            [] => once(|_, out| {
                for definition in super::all() {
                    let _ = writeln!(out, " {:<14} {}", definition.name, definition.summary);
                }
                for (name, summary) in nested::SUMMARIES {
                    let _ = writeln!(out, " {name:<14} {summary}");
                }
                0
            }),
            [name] => {
                let definition = super::find(name);
                let nested = nested::USAGES.iter().find(|(nested, _)| nested == name);
                if definition.is_none() && nested.is_none() {
                    return Err(alloc::format!("there is no command '{name}'; 'help' lists them"));
                }
                once(move |_, out| {
                    if let Some(definition) = definition {
                        let _ = writeln!(out, "usage: {} {}", definition.name, definition.arguments);
                        let _ = writeln!(out, "{}", definition.summary);
                    }
                    if let Some((_, usage)) = nested {
                        let _ = writeln!(out, "usage: {usage}");
                    }
                    0
                })
            }
            _ => Err("usage: help [COMMAND]".into()),
        },
    },
    Definition {
        name: "info",
        arguments: "",
        summary: "version",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|_, out| {
                let architecture = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
                let _ = writeln!(out, "MiniCache/{}/{architecture}", env!("CARGO_PKG_VERSION"));
                let _ = writeln!(out, "{}", env!("CARGO_PKG_DESCRIPTION"));
                0
            })
        },
    },
    Definition {
        name: "exit",
        arguments: "",
        summary: "ends this session",
        start: |arguments, _| {
            no_arguments(arguments)?;
            steps(|_, _| Step::Exit)
        },
    },
    Definition {
        name: "clear",
        arguments: "",
        summary: "clears the screen",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|_, out| {
                out.raw(b"\x1b[H\x1b[J");
                0
            })
        },
    },
    Definition {
        name: "echo",
        arguments: "[WORD]...",
        summary: "says the words",
        start: |arguments, _| {
            let text: String = arguments.join(" ");
            once(move |_, out| {
                let _ = writeln!(out, "{text}");
                0
            })
        },
    },
    Definition {
        name: "who",
        arguments: "",
        summary: "who uses this shell",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let now = context.machine.now();
                for person in context.people {
                    let _ =
                        writeln!(out, " rsh{}: up {} from {}", person.session, Uptime(now - person.since), person.peer);
                }
                0
            })
        },
    },
    Definition {
        name: "uptime",
        arguments: "",
        summary: "how long the appliance has been up",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let _ = writeln!(out, "up {}", Uptime(context.machine.now() - context.machine.started_at()));
                0
            })
        },
    },
    Definition {
        name: "date",
        arguments: "",
        summary: "date and time (UTC)",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| match context.machine.unix_s() {
                0 => {
                    let _ = writeln!(out, "the clock is not set");
                    -1
                }
                unix_s => {
                    let _ = writeln!(out, "{}", LongDate(unix_s));
                    0
                }
            })
        },
    },
];
