//! The event loop on an interface's descriptor.
//!
//! Frames are found by reading, so epoll is asked only before a sleep, and now and then for signals.

use std::io;
use std::mem;
use std::time;

use anyhow::Context;
use minicache::platform::Platform;
use minicache::rings::host::TapWatch;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use smoltcp::time::{Duration, Instant};

use super::super::live::Wake;
use super::super::world::{Common, World};
use super::spin::Spin;

const FRAMES: Token = Token(0);
const NEWS: Token = Token(1);
const SIGNALS: Token = Token(2);
const WAKER: Token = Token(3);

/// Events taken from epoll at a time: one of each source.
const EVENTS: usize = 4;

/// Time between two looks at signals while there is no time to sleep.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// An interface, signals and the system's clocks.
pub struct TapWorld {
    name: String,
    watch: TapWatch,
    poll: Poll,
    events: Events,
    common: Common,
    spin: Spin,
    /// Rounds of the appliance since it last had nothing (more) to do: all but the last have done something.
    rounds: u32,
    look_at: Instant,
}

impl TapWorld {
    /// A world that sleeps on `watch`, the interface `name`, and what wakes it from another thread.
    pub fn new(name: &str, watch: TapWatch) -> anyhow::Result<(Self, Wake)> {
        let poll = Poll::new().context("can't have an epoll")?;
        for (descriptor, token) in [(watch.frames(), FRAMES), (watch.news(), NEWS)] {
            let registered = poll.registry().register(&mut SourceFd(&descriptor), token, Interest::READABLE);
            registered.context("can't watch the interface with epoll")?;
        }
        let common = Common::new(poll.registry(), SIGNALS).context("can't watch signals with epoll")?;
        let waker = super::super::disk_waker(poll.registry(), WAKER)?;
        let world = Self {
            name: name.to_owned(),
            watch,
            poll,
            events: Events::with_capacity(EVENTS),
            common,
            spin: Spin::new(),
            rounds: 0,
            look_at: Instant::ZERO,
        };
        Ok((world, waker))
    }

    /// Waits for events, at most that long.
    fn look(&mut self, timeout: Option<time::Duration>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            if event.token() == NEWS {
                self.watch.set_news();
            }
            self.common.ready(event.token());
        }
        Ok(())
    }
}

impl World for TapWorld {
    fn common(&mut self) -> &mut Common {
        &mut self.common
    }
}

impl Platform for TapWorld {
    type Error = io::Error;

    fn now(&self) -> Instant {
        self.common.now()
    }

    fn unix_s(&self) -> u64 {
        self.common.unix_s()
    }

    fn work(&mut self) -> io::Result<bool> {
        self.rounds += 1;
        if self.watch.is_gone() {
            let name = &self.name;
            return Err(io::Error::other(format!(
                "the interface {name} has been deleted, and nobody can be served without it: start again to make it anew"
            )));
        }
        Ok(false)
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let now = self.now();
        if mem::take(&mut self.rounds) > 1 {
            self.spin.worked();
        }
        let busy = deadline.is_some_and(|deadline| deadline <= now);
        if busy || self.common.is_stopping() || self.spin.is_worth_it(now) {
            if now >= self.look_at {
                self.look_at = now + LOOK_INTERVAL;
                self.look(Some(time::Duration::ZERO))?;
            }
            return Ok(());
        }
        self.look(self.common.patience(deadline))?;
        let now = self.now();
        self.spin.slept(now);
        Ok(())
    }
}
