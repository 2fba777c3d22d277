//! The world that a server runs in: what the appliance asks of it ([`Platform`]), and what the server itself does.
//!
//! There are two: host sockets behind a user-mode network ([`super::sockets`]), and a network interface ([`super::tap`]).

use std::io;
use std::mem;
use std::time::{self, SystemTime};

use minicache::platform::Platform;
use minicache::rings::impair::Clock;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use smoltcp::time::Instant;

use crate::volume;

/// A world that a server can run in.
pub trait World: Platform<Error = io::Error> {
    /// What all worlds have.
    fn common(&mut self) -> &mut Common;

    /// Lets clients in: before there is a volume they wait outside, where the world can make them.
    fn open(&mut self) {}

    /// Lets nobody in any more.
    fn drain(&mut self) {}

    /// True when everybody who was in has left, or at least the appliance's shutdown is complete (`is_stopped`).
    fn is_drained(&self, is_stopped: bool) -> bool {
        is_stopped
    }

    /// Turns those away that are left.
    fn close(&mut self) {}
}

/// What all worlds have: the system's clocks, signals, and somebody who wants to be woken at a time.
pub struct Common {
    signals: Signals,
    token: Token,
    /// A signal has come that nobody has heeded yet.
    stop: bool,
    /// Nobody sleeps for longer than that.
    pub limit: Option<Instant>,
    started: time::Instant,
}

impl Common {
    /// Signals are told with `token` from now on.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Self { signals, token, stop: false, limit: None, started: time::Instant::now() })
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Instant {
        since(self.started)
    }

    /// The same, for whoever wants to ask by himself.
    pub fn clock(&self) -> Clock {
        let started = self.started;
        Box::new(move || since(started))
    }

    /// The wall clock.
    pub fn unix_s(&self) -> u64 {
        volume::unix_s(SystemTime::now())
    }

    /// Takes in what epoll says about `token`.
    pub fn ready(&mut self, token: Token) {
        self.stop |= token == self.token && self.signals.pending().next().is_some();
    }

    /// True if a signal has come.
    pub fn is_stopping(&self) -> bool {
        self.stop
    }

    /// True if a signal has come since the last call.
    pub fn take_stop(&mut self) -> bool {
        mem::take(&mut self.stop)
    }

    /// How long to sleep where `deadlines` and the limit allow it; `None`: until something happens.
    pub fn patience(&self, deadlines: impl IntoIterator<Item = Instant>) -> Option<time::Duration> {
        let now = self.now();
        let earliest = deadlines.into_iter().chain(self.limit).min();
        earliest.map(|at| if at > now { (at - now).into() } else { time::Duration::ZERO })
    }
}

fn since(started: time::Instant) -> Instant {
    Instant::from_micros(started.elapsed().as_micros() as i64)
}
