//! Commands about the machine under the appliance: its memory, and its end.

use core::fmt;
use core::fmt::Write as _;

use super::{Definition, Output, Step, no_arguments, once, steps};
use crate::platform::Power;
use crate::rings::PAGE_BYTES;
use crate::shell::text::Size;

const NOT_TOLD: &str = "(this platform does not tell of its own memory)";

pub(super) const COMMANDS: &[Definition] = &[
    Definition {
        name: "free",
        arguments: "[-u|-k|-m|-g|-p]",
        summary: "memory, in all and of each pool (in bytes, KiB, MiB, GiB or pages)",
        start: |arguments, _| {
            let unit = match arguments {
                [] => None,
                [flag] => Some(unit(flag).ok_or("usage: free [-u|-k|-m|-g|-p]")?),
                _ => return Err("usage: free [-u|-k|-m|-g|-p]".into()),
            };
            once(move |context, out| {
                let _ = writeln!(out, "{:<10} {:>14} {:>14} {:>14}", "", "total", "used", "free");
                let memory = context.machine.memory();
                if let Some(memory) = memory {
                    // What is not the heap's is the program itself, its stacks and tables.
                    let free = memory.heap_bytes.saturating_sub(memory.heap_used_bytes);
                    row(out, unit, "memory", memory.total_bytes, memory.total_bytes.saturating_sub(free));
                    row(out, unit, "heap", memory.heap_bytes, memory.heap_used_bytes);
                }
                for pool in context.machine.pools() {
                    row(out, unit, pool.name, pool.bytes, pool.used_bytes);
                }
                if memory.is_none() {
                    let _ = writeln!(out, "{NOT_TOLD}");
                }
                0
            })
        },
    },
    Definition {
        name: "mallinfo",
        arguments: "",
        summary: "the heap",
        start: |arguments, _| {
            no_arguments(arguments)?;
            once(|context, out| {
                let Some(memory) = context.machine.memory() else {
                    let _ = writeln!(out, "{NOT_TOLD}");
                    return -1;
                };
                let free = memory.heap_bytes.saturating_sub(memory.heap_used_bytes);
                for (name, bytes) in [
                    ("heap", Some(memory.heap_bytes)),
                    ("used", Some(memory.heap_used_bytes)),
                    ("free", Some(free)),
                    ("most used", memory.heap_peak_bytes),
                ] {
                    if let Some(bytes) = bytes {
                        let _ = writeln!(out, "{name:<28} {bytes:>14}");
                    }
                }
                let _ = writeln!(out, "{:<28} {:>14}", "allocations", memory.allocations);
                0
            })
        },
    },
    Definition {
        name: "halt",
        arguments: "",
        summary: "ends everything in order, and switches the machine off (or ends the process)",
        start: |arguments, context| {
            no_arguments(arguments)?;
            context.machine.power(Power::Halt)?;
            // The appliance ends this session with all others.
            steps(|_, _| Step::Wait)
        },
    },
    Definition {
        name: "reboot",
        arguments: "",
        summary: "ends everything in order, and starts the machine anew",
        start: |arguments, context| {
            no_arguments(arguments)?;
            context.machine.power(Power::Reboot)?;
            steps(|_, _| Step::Wait)
        },
    },
];

/// Bytes of the unit that a flag of `free` stands for.
fn unit(flag: &str) -> Option<u64> {
    match flag {
        "-u" => Some(1),
        "-k" => Some(1 << 10),
        "-m" => Some(1 << 20),
        "-g" => Some(1 << 30),
        "-p" => Some(PAGE_BYTES as u64),
        _ => None,
    }
}

fn row(out: &mut Output, unit: Option<u64>, name: &str, total_bytes: u64, used_bytes: u64) {
    let free_bytes = total_bytes.saturating_sub(used_bytes);
    let _ = write!(out, "{name:<10}");
    for bytes in [total_bytes, used_bytes, free_bytes] {
        let amount = Amount { bytes, unit };
        let _ = write!(out, " {:>14}", alloc::format!("{amount}"));
    }
    let _ = writeln!(out);
}

/// Bytes in a unit, or in that which suits them.
struct Amount {
    bytes: u64,
    unit: Option<u64>,
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Some(unit) => (self.bytes / unit).fmt(f),
            None => Size(self.bytes).fmt(f),
        }
    }
}
