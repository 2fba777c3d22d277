//! One client that follows one plan, over one connection.

use std::rc::Rc;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;

use super::fetcher::{Fetcher, Outcome, Plan, Request};
use super::host::{Host, SocketOptions};
use super::site::Site;
use super::world::{Clients, SERVER, SERVING_PORT};

/// Plain requests one after the other; the client closes.
pub fn plain(requests: impl IntoIterator<Item = Request>) -> Plan {
    Plan { requests: requests.into_iter().collect(), pipelined: 1, server_closes: false, pause: None }
}

/// One client.
pub struct Script {
    /// How each request ended, in order.
    pub outcomes: Vec<(Request, Outcome)>,
    site: Rc<Site>,
    /// Which of the server's addresses it connects to.
    version: usize,
    fetcher: Fetcher,
    socket: Option<SocketHandle>,
    closed: bool,
}

impl Script {
    /// A client that connects to `SERVER[version]`.
    pub fn new(site: Rc<Site>, version: usize, plan: Plan) -> Self {
        Self { outcomes: Vec::new(), site, version, fetcher: Fetcher::new(plan), socket: None, closed: false }
    }

    /// True once every request has an outcome and the connection has ended.
    pub fn is_done(&self) -> bool {
        self.closed
    }
}

impl Clients for Script {
    fn step(&mut self, _: usize, host: &mut Host, now: Instant) -> Option<Instant> {
        let handle = *self.socket.get_or_insert_with(|| {
            host.connect(
                (SERVER[self.version], SERVING_PORT),
                SocketOptions { receive_bytes: 65_536, timestamps: false },
            )
        });
        let (socket, outcomes) = (host.socket(handle), &mut self.outcomes);
        self.fetcher.step(now, socket, &self.site, &mut |request, outcome| outcomes.push((request, outcome)));
        self.closed = self.fetcher.is_done() && matches!(socket.state(), State::Closed | State::TimeWait);
        self.fetcher.next_deadline(now)
    }
}
