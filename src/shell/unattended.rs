//! A command that nobody typed and nobody reads: what a machine is told to do at its start.

use alloc::boxed::Box;
use smoltcp::time::Instant;

use super::Context;
use super::command::{self, Command, Output, Step};
use crate::net::SESSIONS;

/// The number under which it reads: behind those of the sessions.
const NUMBER: u8 = SESSIONS as u8;

/// A command on its way. What it says is dropped.
pub struct Unattended {
    state: State,
    out: Output,
}

enum State {
    /// To be begun with these words.
    Asked(&'static [&'static str]),
    Running(Box<dyn Command>, Pause),
    /// It is over, and its last read of no interest.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pause {
    None,
    Disk,
    Until(Instant),
}

impl Unattended {
    /// The command of these words, to be begun.
    pub fn new(words: &'static [&'static str]) -> Self {
        Self { state: State::Asked(words), out: Output::default() }
    }

    /// Goes on, at most so many steps. True if anything was done.
    pub fn run(&mut self, now: Instant, context: &mut Context<'_>, steps: usize) -> bool {
        context.session = NUMBER;
        let mut busy = false;
        for _ in 0..steps {
            match &mut self.state {
                State::Asked(words) => {
                    let words: alloc::vec::Vec<_> = words.iter().map(|&word| word.into()).collect();
                    // Nobody would read why it can't be begun.
                    self.state = command::start(&words, context, 0)
                        .map_or(State::Over, |command| State::Running(command, Pause::None));
                }
                State::Running(_, Pause::Until(at)) if now < *at => break,
                State::Running(command, pause) => {
                    let step = command.step(context, &mut self.out);
                    self.out.clear();
                    match step {
                        Step::More => *pause = Pause::None,
                        Step::Until(at) => *pause = Pause::Until(at),
                        Step::Wait => {
                            *pause = Pause::Disk;
                            break;
                        }
                        Step::Done(_) | Step::Exit => self.state = State::Over,
                    }
                }
                State::Over => break,
            }
            busy = true;
        }
        if self.is_over() {
            context.machine.forget(NUMBER);
        }
        busy
    }

    /// Ends it where it is; a last [`Unattended::run`] lets go of what it waits for.
    pub fn stop(&mut self) {
        self.state = State::Over;
    }

    /// True if there is nothing left to do.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// True if a further step would do something at once.
    pub fn has_work(&self) -> bool {
        matches!(self.state, State::Asked(_) | State::Running(_, Pause::None))
    }

    /// When it goes on though nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Running(_, Pause::Until(at)) => Some(at),
            _ => None,
        }
    }
}
