//! The sessions of µShell: keys in, output out, one running command each.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt::Write as _;
use smoltcp::time::Instant;
use smoltcp::wire::IpEndpoint;

use super::command::{self, Command, Output, Step};
use super::editor::{Editor, Key};
use super::telnet::{self, Event, Telnet};
use super::unattended::Unattended;
use super::{Context, Machine, Person};
use crate::net::{ControlService, SESSIONS, SessionId, SessionOutput};

/// Keys that a session keeps while its command runs.
const TYPED_BYTES: usize = 1024;

/// Most steps of commands in one round, so that the server goes on serving.
const STEPS_PER_ROUND: usize = 16;

struct Session {
    person: Person,
    telnet: Telnet,
    editor: Editor,
    /// Keys that wait for the command to end.
    typed: Vec<u8>,
    running: Option<Box<dyn Command>>,
    name: String,
    wait: Option<Wait>,
    out: Output,
    /// The client has said all it wants to.
    ended: bool,
    /// Close when the output is out.
    closing: bool,
    /// What was waited for is of no interest any more.
    forget: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Output,
    Disk,
    Until(Instant),
}

/// All sessions of one appliance.
pub struct Shell {
    sessions: [Option<Session>; SESSIONS],
    /// What runs for nobody.
    unattended: Option<Unattended>,
    now: Instant,
    /// Some session has something to do without being asked again.
    due: bool,
    /// The appliance ends: what it does.
    going_down: Option<&'static str>,
}

impl Default for Shell {
    fn default() -> Self {
        Self {
            sessions: [const { None }; SESSIONS],
            unattended: None,
            now: Instant::ZERO,
            due: false,
            going_down: None,
        }
    }
}

impl Shell {
    /// True if [`Shell::run`] could have something to do.
    pub fn is_due(&self) -> bool {
        self.due || self.unattended.is_some() || self.sessions.iter().flatten().any(|session| session.wait.is_some())
    }

    /// Tells the time, at the beginning of a round.
    pub fn tick(&mut self, now: Instant) {
        self.now = now;
    }

    /// Runs what the sessions have to run. True if anything was done: then let the control plane take the output.
    pub fn run(&mut self, machine: &mut dyn Machine) -> bool {
        self.due = false;
        let people: ArrayVec<Person, SESSIONS> = self.people().collect();
        let mut context = Context { machine, people: &people, session: 0 };
        let mut busy = false;
        for session in self.sessions.iter_mut().flatten() {
            context.session = session.person.session;
            if core::mem::take(&mut session.forget) {
                context.machine.forget(context.session);
            }
            for _ in 0..STEPS_PER_ROUND {
                let advanced = session.advance(self.now, &mut context);
                busy |= advanced;
                if !advanced {
                    break;
                }
            }
            self.due |= session.has_work();
        }
        if let Some(command) = &mut self.unattended {
            busy |= command.run(self.now, &mut context, STEPS_PER_ROUND);
            self.due |= command.has_work();
            if command.is_over() {
                self.unattended = None;
            }
        }
        busy
    }

    /// Runs a command of these words that nobody reads. It takes the place of an earlier one.
    pub fn run_unattended(&mut self, words: &'static [&'static str]) {
        self.unattended = Some(Unattended::new(words));
        self.due = true;
    }

    /// Tells all clients that the appliance ends (`what` it does: "halts"), and ends their sessions. Who comes later is told too.
    pub fn go_down(&mut self, what: &'static str) {
        self.going_down = Some(what);
        if let Some(command) = &mut self.unattended {
            command.stop();
        }
        for session in self.sessions.iter_mut().flatten() {
            session.go_down(what);
        }
    }

    /// When [`Shell::run`] has something to do though nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waits = self.sessions.iter().flatten().filter_map(|session| match session.wait {
            Some(Wait::Until(at)) => Some(at),
            _ => None,
        });
        let unattended = self.unattended.as_ref().and_then(Unattended::next_deadline);
        if self.due { Some(self.now) } else { waits.chain(unattended).min() }
    }

    /// Who is connected.
    pub fn people(&self) -> impl Iterator<Item = Person> + '_ {
        self.sessions.iter().flatten().map(|session| session.person)
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(usize::from(id.0))?.as_mut()
    }
}

impl Session {
    fn new(person: Person) -> Self {
        Self {
            person,
            telnet: Telnet::default(),
            editor: Editor::default(),
            typed: Vec::with_capacity(TYPED_BYTES),
            running: None,
            name: String::new(),
            wait: None,
            out: Output::default(),
            ended: false,
            closing: false,
            // Whoever had this number before may have left while a chunk was read for him.
            forget: true,
        }
    }

    fn prompt(&mut self) {
        let prompt = if self.telnet.echoes() { "\x1b[01;31mmc\x1b[00m# " } else { "mc# " };
        let _ = self.out.write_str(prompt);
    }

    /// True if a further step would do something at once.
    fn has_work(&self) -> bool {
        !self.closing
            && match (&self.running, self.wait) {
                (Some(_), wait) => wait.is_none(),
                (None, _) => !self.out.is_full() && (!self.typed.is_empty() || self.ended),
            }
    }

    /// One step: of the command that runs, or of the line that is typed. False if there is nothing to do now.
    fn advance(&mut self, now: Instant, context: &mut Context<'_>) -> bool {
        if self.closing {
            return false;
        }
        if let Some(command) = &mut self.running {
            match self.wait {
                Some(Wait::Until(at)) if now < at => return false,
                _ if self.out.is_full() => {
                    self.wait = Some(Wait::Output);
                    return false;
                }
                _ => {}
            }
            let before = self.out.pending().len();
            let step = command.step(context, &mut self.out);
            return self.stepped(step, before);
        }
        if self.out.is_full() {
            return false;
        }
        if self.typed.is_empty() {
            if self.ended && !self.editor.is_empty() {
                // A last line without its end counts, as it does in a script.
                self.typed.push(b'\n');
                return true;
            }
            self.closing = self.ended;
            return self.ended;
        }
        let keys = core::mem::take(&mut self.typed);
        let used = self.edit(&keys, context);
        self.typed = keys;
        self.typed.drain(..used);
        true
    }

    fn stepped(&mut self, step: Step, before: usize) -> bool {
        self.wait = match step {
            Step::Done(code) => {
                self.running = None;
                if code < 0 {
                    let _ = writeln!(self.out, "{}: command returned {code}", self.name);
                }
                self.prompt();
                None
            }
            Step::Exit => {
                self.running = None;
                let _ = writeln!(self.out, "logout");
                self.closing = true;
                None
            }
            Step::More => None,
            Step::Wait => Some(Wait::Disk),
            Step::Until(at) => Some(Wait::Until(at)),
        };
        step != Step::Wait || self.out.pending().len() > before
    }

    /// Feeds keys to the editor up to the end of a line, and begins that line's command. Returns the keys used.
    fn edit(&mut self, keys: &[u8], context: &mut Context<'_>) -> usize {
        for (i, byte) in keys.iter().enumerate() {
            let (out, echo) = (&mut self.out, self.telnet.echoes());
            let key = self.editor.key(*byte, &mut |bytes| {
                if echo {
                    out.raw(bytes);
                }
            });
            match key {
                Key::Editing => continue,
                Key::Interrupt => self.prompt(),
                Key::EndOfInput => {
                    let _ = writeln!(self.out, "logout");
                    self.closing = true;
                }
                Key::Enter => {
                    let line = self.editor.take();
                    self.begin(&line, context);
                }
            }
            return i + 1;
        }
        keys.len()
    }

    fn begin(&mut self, line: &str, context: &mut Context<'_>) {
        let words = match command::words(line) {
            Ok(words) => words,
            Err(error) => {
                let _ = writeln!(self.out, "{error}");
                return self.prompt();
            }
        };
        let Some(name) = words.first() else { return self.prompt() };
        self.name.clone_from(name);
        match command::start(&words, context, 0) {
            Ok(command) => {
                self.running = Some(command);
                self.wait = None;
            }
            Err(error) => {
                let _ = writeln!(self.out, "{error}");
                self.prompt();
            }
        }
    }

    fn go_down(&mut self, what: &str) {
        self.running = None;
        self.wait = None;
        self.forget = true;
        if !self.closing {
            let _ = writeln!(self.out, "\nThe system {what} now.\nlogout");
        }
        self.closing = true;
    }

    fn interrupt(&mut self) {
        self.typed.clear();
        if self.running.take().is_some() {
            self.wait = None;
            self.forget = true;
            self.out.clear();
            let _ = writeln!(self.out, "^C");
            self.prompt();
        }
    }

    fn send(&mut self, to: &mut SessionOutput<'_>) {
        let sent = to.write(self.out.pending());
        self.out.consume(sent);
        if self.wait == Some(Wait::Output) && !self.out.is_full() {
            self.wait = None;
        }
        if self.closing && self.out.pending().is_empty() {
            to.close();
        }
    }
}

impl ControlService for Shell {
    fn opened(&mut self, id: SessionId, peer: IpEndpoint, out: &mut SessionOutput<'_>) {
        let Some(slot) = self.sessions.get_mut(usize::from(id.0)) else { return out.close() };
        let mut session = Session::new(Person { session: id.0, peer, since: self.now });
        session.out.command(&telnet::OFFER);
        let _ = write!(
            session.out,
            "\nMiniCache {}\n\nType 'help' to get an overview of available commands\n",
            env!("CARGO_PKG_VERSION")
        );
        match self.going_down {
            Some(what) => session.go_down(what),
            None => session.prompt(),
        }
        session.send(out);
        *slot = Some(session);
    }

    fn received(&mut self, id: SessionId, data: &[u8], out: &mut SessionOutput<'_>) -> usize {
        let Some(session) = self.session(id) else { return data.len() };
        let mut used = 0;
        for byte in data {
            // Full output is no reason not to see ^C, which may be meant for it.
            if session.typed.len() >= TYPED_BYTES || session.out.is_flooded() {
                break;
            }
            used += 1;
            match session.telnet.decode(*byte) {
                Event::Data(0x03) if session.running.is_some() => session.interrupt(),
                Event::Data(byte) => session.typed.push(byte),
                Event::Reply(reply) => session.out.command(&reply),
                Event::AreYouThere => {
                    let _ = writeln!(session.out, "\n[MiniCache: yes]");
                }
                Event::Nothing => {}
            }
        }
        session.send(out);
        self.due = true;
        used
    }

    fn writable(&mut self, id: SessionId, out: &mut SessionOutput<'_>) {
        if let Some(session) = self.session(id) {
            session.send(out);
            let work = session.has_work();
            self.due |= work;
        }
    }

    fn ended(&mut self, id: SessionId, out: &mut SessionOutput<'_>) {
        match self.session(id) {
            Some(session) => {
                session.ended = true;
                self.due = true;
            }
            None => out.close(),
        }
    }

    fn closed(&mut self, id: SessionId) {
        if let Some(slot) = self.sessions.get_mut(usize::from(id.0)) {
            *slot = None;
        }
    }

    fn refused(&mut self, _: IpEndpoint, out: &mut SessionOutput<'_>) {
        out.write(b"All 4 sessions of this shell are taken; try again when one has ended.\r\n");
    }
}
