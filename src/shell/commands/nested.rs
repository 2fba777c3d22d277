//! Commands that run other commands.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use smoltcp::time::{Duration, Instant};

use super::{Command, Context, Nesting, Output, Step};
use crate::shell::command::start;

pub(super) const COMMANDS: [(&str, Nesting); 3] = [("xargs", xargs), ("time", time), ("repeat", repeat)];

pub(super) const SUMMARIES: [(&str, &str); 3] = [
    ("xargs", "runs a command once for each argument"),
    ("time", "runs a command and tells how long it took"),
    ("repeat", "runs a command several times"),
];

pub(super) const USAGES: [(&str, &str); 3] = [
    ("xargs", "xargs COMMAND [ARGUMENT]...  (stops at the first error)"),
    ("time", "time COMMAND [ARGUMENT]..."),
    (
        "repeat",
        "repeat TIMES PAUSE_MS SCREENFUL COMMAND [ARGUMENT]...  (clears the screen each SCREENFUL runs, never if 0; ^C ends it)",
    ),
];

fn usage(name: &str) -> String {
    let (_, usage) = USAGES.iter().find(|(nested, _)| *nested == name).expect("each nesting command has a usage");
    alloc::format!("usage: {usage}")
}

/// Goes on with what runs inside. `Some` is what its caller returns in turn; `None` means that it ended well.
fn inner(command: &mut Option<Box<dyn Command>>, context: &mut Context<'_>, out: &mut Output) -> Result<i32, Step> {
    let Some(running) = command else { return Ok(0) };
    match running.step(context, out) {
        Step::Done(code) => {
            *command = None;
            Ok(code)
        }
        step => Err(step),
    }
}

fn xargs(arguments: &[String], context: &mut Context<'_>, depth: usize) -> Result<Box<dyn Command>, String> {
    let Some((name, rest)) = arguments.split_first() else { return Err(usage("xargs")) };
    let mut runs: Vec<Vec<String>> = rest.iter().map(|argument| [name.clone(), argument.clone()].into()).collect();
    if runs.is_empty() {
        runs.push([name.clone()].into());
    }
    runs.reverse();
    // An unknown command is told at once.
    let first = runs.pop().map(|words| start(&words, context, depth + 1)).transpose()?;
    let mut running = first;
    super::steps(move |context, out| {
        match inner(&mut running, context, out) {
            Ok(0) => {}
            Ok(code) => return Step::Done(code),
            Err(step) => return step,
        }
        let Some(words) = runs.pop() else { return Step::Done(0) };
        match start(&words, context, depth + 1) {
            Ok(next) => running = Some(next),
            Err(error) => {
                let _ = writeln!(out, "{error}");
                return Step::Done(-1);
            }
        }
        Step::More
    })
}

fn time(arguments: &[String], context: &mut Context<'_>, depth: usize) -> Result<Box<dyn Command>, String> {
    let Some(name) = arguments.first().cloned() else { return Err(usage("time")) };
    let mut running = Some(start(arguments, context, depth + 1)?);
    let begun = context.machine.now();
    super::steps(move |context, out| match inner(&mut running, context, out) {
        Ok(code) => {
            let took = context.machine.now() - begun;
            let (minutes, micros) = (took.secs() / 60, took.total_micros() % 60_000_000);
            let _ =
                writeln!(out, "{name}: command runtime {minutes}m{}.{:06}s", micros / 1_000_000, micros % 1_000_000);
            Step::Done(code)
        }
        Err(step) => step,
    })
}

fn repeat(arguments: &[String], context: &mut Context<'_>, depth: usize) -> Result<Box<dyn Command>, String> {
    let [times, pause_ms, screenful, words @ ..] = arguments else { return Err(usage("repeat")) };
    let number = |text: &String| {
        text.parse::<u32>().map_err(|_| alloc::format!("'{text}' is not a number\n{}", usage("repeat")))
    };
    let (times, pause_ms, screenful) = (number(times)?, number(pause_ms)?, number(screenful)?);
    if words.is_empty() {
        return Err(usage("repeat"));
    }
    let words = words.to_vec();
    // An unknown command is told at once.
    let mut running = if times > 0 { Some(start(&words, context, depth + 1)?) } else { None };
    let mut run = 0;
    let mut next_at: Option<Instant> = None;
    super::steps(move |context, out| {
        if let Some(at) = next_at {
            if context.machine.now() < at {
                return Step::Until(at);
            }
            next_at = None;
            match start(&words, context, depth + 1) {
                Ok(next) => running = Some(next),
                Err(error) => {
                    let _ = writeln!(out, "{error}");
                    return Step::Done(-1);
                }
            }
            if screenful > 0 && run % screenful == 0 {
                out.raw(b"\x1b[H\x1b[J");
            }
        }
        match inner(&mut running, context, out) {
            Ok(code) if code < 0 => return Step::Done(code),
            Ok(_) => {}
            Err(step) => return step,
        }
        run += 1;
        if run >= times {
            return Step::Done(0);
        }
        let at = context.machine.now() + Duration::from_millis(pause_ms.into());
        next_at = Some(at);
        Step::Until(at)
    })
}
