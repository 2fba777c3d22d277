//! One client: its host socket and the client half of its connection, joined.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::net::TcpStream;
use smoltcp::time::Instant;

use super::connection::{Connection, SpareBuffers};
use super::frame::{FromAppliance, Route};

/// Times that one turn writes to or reads from a socket before it is another client's turn.
const ROUNDS: usize = 2;

/// Reads that throw away what a client still sent when its socket is closed.
const CLOSING_READS: usize = 16;

/// A client.
pub struct Client {
    /// Which listening socket it came in by.
    pub listener: u8,
    /// Its address, an IPv4-mapped one as IPv4, and without an IPv6 scope: as the appliance sees it.
    pub address: SocketAddr,
    /// The two ends on the virtual wire.
    pub route: Route,
    /// The client half.
    pub connection: Connection,
    /// Waits in the queue of clients with something to do.
    pub queued: bool,
    /// Waits in the queue of acknowledgements that can wait.
    pub owes_later: bool,
    /// The time of its newest entry in the timer heap.
    pub timer_at: Option<Instant>,
    stream: TcpStream,
    /// A read may find something: epoll said so, and nothing since has shown the contrary.
    readable: bool,
    writable: bool,
    /// epoll has announced the end of the client's direction: only a read of nothing is the end of reading.
    end_announced: bool,
    /// The end of the client's direction has been read.
    ended: bool,
    /// Nothing new is taken: what the client has sent so far is its last.
    draining: bool,
}

impl Client {
    /// A client that was just accepted.
    pub fn new(listener: u8, address: SocketAddr, route: Route, connection: Connection, stream: TcpStream) -> Self {
        Self {
            listener,
            address,
            route,
            connection,
            queued: false,
            owes_later: false,
            timer_at: None,
            stream,
            readable: false,
            writable: true,
            end_announced: false,
            ended: false,
            draining: false,
        }
    }

    /// True if `segment` is meant for this client.
    pub fn is_at(&self, segment: &FromAppliance<'_>) -> bool {
        segment.client == self.route.client
            && segment.appliance == self.route.appliance
            && segment.tcp.dst_port == self.address.port()
    }

    /// Takes note of what epoll reports.
    pub fn ready(&mut self, event: &mio::event::Event) {
        if event.is_error() {
            self.connection.abort();
            return;
        }
        self.readable |= event.is_readable();
        self.writable |= event.is_writable();
        self.end_announced |= event.is_read_closed();
    }

    /// Takes nothing more from the client than what has arrived; the connection ends when the appliance has answered that.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Moves what can be moved between the socket and the client half. True if there is more to move at once.
    pub fn exchange(&mut self, scratch: &mut [u8], spare: &mut SpareBuffers) -> bool {
        if self.connection.is_reset() || self.connection.is_aborting() {
            return false;
        }
        let result = self.write().and_then(|more| Ok(self.read(scratch, spare)? | more));
        result.unwrap_or_else(|_| {
            // The client is gone (ECONNRESET, EPIPE, ETIMEDOUT …): whatever the reason, the appliance gets a reset.
            self.connection.abort();
            false
        })
    }

    fn write(&mut self) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            let Some(pending) = self.connection.pending().filter(|_| self.writable) else { break };
            match pending.write_to(&mut self.stream) {
                Ok((written, all)) => {
                    self.connection.written(written);
                    // A short write means a full socket: epoll will tell of room (epoll(7)).
                    self.writable = all;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.connection.wants_shutdown() {
            self.stream.shutdown(Shutdown::Write)?;
            self.connection.shut_down();
        }
        Ok(self.writable && self.connection.pending().is_some())
    }

    fn read(&mut self, scratch: &mut [u8], spare: &mut SpareBuffers) -> io::Result<bool> {
        let mut room = self.connection.room_bytes();
        for _ in 0..ROUNDS {
            let length = room.min(scratch.len());
            if !self.readable || length == 0 {
                break;
            }
            match self.stream.read(&mut scratch[..length]) {
                Ok(0) => {
                    self.readable = false;
                    self.ended = true;
                    self.connection.finish();
                }
                Ok(bytes) => {
                    self.connection.push(&scratch[..bytes], spare);
                    // A short read means an empty socket (epoll(7)), unless the end lies behind it.
                    self.readable = bytes == length || self.end_announced;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            room = self.connection.room_bytes();
        }
        if self.draining && !self.readable && !self.connection.is_opening() {
            self.connection.finish();
        }
        Ok(self.readable && room > 0)
    }

    /// True if the client has sent something, or ended, that found no room yet.
    pub fn waits(&self) -> bool {
        self.readable
    }

    /// Closes the socket: with a reset if the connection was reset, else in order.
    pub fn close(mut self, scratch: &mut [u8]) {
        if self.connection.is_reset() || self.connection.is_aborting() {
            // Without this the client would take a cut-off answer for a whole one. It can't fail on an open TCP socket, and
            // nothing better could be done.
            let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        } else if !self.ended {
            // Unread bytes would turn the close into a reset, which may overtake the answer's end.
            for _ in 0..CLOSING_READS {
                if !matches!(self.stream.read(scratch), Ok(1..)) {
                    break;
                }
            }
        }
    }
}
