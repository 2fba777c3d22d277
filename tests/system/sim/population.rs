//! Many clients that fetch objects until enough have been verified.

use std::rc::Rc;

use fastrand::Rng;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};

use super::fetcher::{Fetcher, Outcome, Plan, Request, Target};
use super::host::{Host, SocketOptions};
use super::site::Site;
use super::world::{Clients, SERVER, SERVING_PORT};

/// How long a client waits for the end of its connection before it forgets it.
const LINGER: Duration = Duration::from_secs(30);

/// What came of all requests so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Requests whose answer was right.
    pub verified: u64,
    /// Body bytes compared in them.
    pub verified_bytes: u64,
    /// Requests answered with 500 or 503.
    pub refused: u64,
    /// Requests whose response was cut off by a reset.
    pub reset_within: u64,
    /// Requests that came too late for the server.
    pub timed_out: u64,
    /// Requests without an answer.
    pub unanswered: u64,
    /// Connections that ended with a reset while requests were open.
    pub resets: u64,
    /// Connections begun.
    pub connections: u64,
}

/// How the clients behave.
#[derive(Clone, Copy, Debug)]
pub struct Behaviour {
    /// Requests to be verified in all; what fails is asked for again.
    pub requests: u64,
    /// Connections of each machine at a time.
    pub connections_each: usize,
    /// Every fifth connection pipelines and every twentieth reads slowly; otherwise all are plain.
    pub mixed: bool,
}

struct Connection {
    handle: SocketHandle,
    fetcher: Fetcher,
    /// When a finished connection is forgotten, whatever its state.
    forget_at: Option<Instant>,
}

/// The clients on all machines.
pub struct Population {
    /// What came of all requests so far.
    pub tally: Tally,
    site: Rc<Site>,
    behaviour: Behaviour,
    /// Requests not yet handed to a connection.
    left: u64,
    machines: Vec<Vec<Connection>>,
    rng: Rng,
}

impl Population {
    /// Clients on `machines` machines.
    pub fn new(site: Rc<Site>, machines: usize, behaviour: Behaviour, seed: u64) -> Self {
        Self {
            tally: Tally::default(),
            site,
            behaviour,
            left: behaviour.requests,
            machines: (0..machines).map(|_| Vec::new()).collect(),
            rng: Rng::with_seed(seed),
        }
    }

    /// True once every request has been verified and every connection is gone.
    pub fn is_done(&self) -> bool {
        self.left == 0 && self.machines.iter().all(Vec::is_empty)
    }

    fn plan(&mut self) -> Plan {
        let requests = self.rng.u64(1..=12).min(self.left);
        self.left -= requests;
        let mixed = self.behaviour.mixed;
        Plan {
            requests: (0..requests).map(|_| self.request()).collect(),
            pipelined: if mixed && self.rng.u8(..5) == 0 { self.rng.usize(2..=6) } else { 1 },
            server_closes: self.rng.bool(),
            pause: (mixed && self.rng.u8(..20) == 0)
                .then(|| (self.rng.usize(500..=20_000), Duration::from_millis(self.rng.u64(1..=50)))),
        }
    }

    fn request(&mut self) -> Request {
        let object = self.rng.usize(..self.site.objects.len());
        let target = match self.rng.u8(..50) {
            0 => Target::Missing,
            1 => Target::Root,
            2..10 => Target::Digest(object),
            _ => Target::Name(object),
        };
        Request { target, head_only: self.rng.u8(..30) == 0 }
    }

    fn connect(&mut self, host: &mut Host) -> Connection {
        let plan = self.plan();
        let server = SERVER[self.rng.usize(..SERVER.len())];
        let options = SocketOptions { receive_bytes: 1 << self.rng.u32(13..=18), timestamps: self.rng.bool() };
        let handle = host.connect((server, SERVING_PORT), options);
        self.tally.connections += 1;
        Connection { handle, fetcher: Fetcher::new(plan), forget_at: None }
    }
}

impl Clients for Population {
    fn step(&mut self, index: usize, host: &mut Host, now: Instant) -> Option<Instant> {
        let mut connections = std::mem::take(&mut self.machines[index]);
        let mut deadline = None;
        connections.retain_mut(|connection| {
            let socket = host.socket(connection.handle);
            let (tally, left) = (&mut self.tally, &mut self.left);
            let mut reset = false;
            connection.fetcher.step(now, socket, &self.site, &mut |_, outcome| match outcome {
                Outcome::Verified { body_bytes } => {
                    tally.verified += 1;
                    tally.verified_bytes += body_bytes as u64;
                }
                failure => {
                    *left += 1;
                    match failure {
                        Outcome::Refused => tally.refused += 1,
                        Outcome::ResetWithin => tally.reset_within += 1,
                        Outcome::TimedOut => tally.timed_out += 1,
                        _ => tally.unanswered += 1,
                    }
                    reset |= matches!(failure, Outcome::ResetWithin | Outcome::Unanswered);
                }
            });
            let socket = host.socket(connection.handle);
            if reset && socket.state() == State::Closed {
                self.tally.resets += 1;
            }
            let mut wanted = connection.fetcher.next_deadline(now);
            if connection.fetcher.is_done() {
                let forget_at = *connection.forget_at.get_or_insert(now + LINGER);
                if forget_at <= now || matches!(socket.state(), State::Closed | State::TimeWait) {
                    host.remove(connection.handle);
                    return false;
                }
                wanted = Some(forget_at);
            }
            deadline = deadline.into_iter().chain(wanted).min();
            true
        });
        while self.left > 0 && connections.len() < self.behaviour.connections_each {
            connections.push(self.connect(host));
        }
        self.machines[index] = connections;
        deadline
    }
}
