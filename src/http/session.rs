//! One connection: requests in, responses out, one at a time.
//!
//! A session is in one of three states. In `Head` it takes a request from the front of what has arrived, answers it, and
//! takes the next. In `Body` a response is on its way and no request is taken: what arrives stays with TCP, whose window
//! closes (that is the back-pressure for pipelining). In `Linger` our direction has ended and what arrives is dropped until
//! the peer ends its own (RFC 9112 §9.6).
//!
//! Times are checked lazily: `due` moves with every request, while the connection's timer is set anew only when `due` moved to
//! an earlier time.

use alloc::boxed::Box;
use core::task::Poll;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpAddress;

use super::access_log::Pending;
use super::answer::{Answer, DISK_SILENT, NO_MEMORY, NOT_FOUND, READ_FAILED};
use super::config::{Config, MAX_EMPTY_LINES};
use super::method::Method;
use super::reader::{ReaderWatch, Stalled};
use super::request::{self, HeadSearch, Request, Version};
use super::request_body::RequestBody;
use super::response::Connection;
use super::server::HttpServer;
use super::status::{Refusal, Status};
use super::transfer::{Progress, Renewal, Transfer};
use crate::cache::Waiter;
use crate::rings::BlockError;
use crate::rings::PAGE_BYTES;
use crate::tcp_gso::Outbox;

/// State of one connection.
pub struct Session {
    waiter: Waiter,
    client: IpAddress,
    /// What the access log will say of the response under way.
    access: Option<Box<Pending>>,
    state: State,
    search: HeadSearch,
    /// What is left of the body of the request that was answered last.
    request_body: RequestBody,
    /// Empty lines skipped since the last request.
    empty_lines: u8,
    /// The connection goes on behind the response under way.
    persistent: bool,
    /// A request was shown that could not be answered for want of room: it will be shown again.
    held_back: bool,
    /// The peer has ended its direction, with so many bytes still unread.
    ended: Option<usize>,
    reader: ReaderWatch,
    /// When the state's time limit is to be looked at.
    due: Instant,
    /// When that was looked at last, the peer had something left to read: the limit's time begins when it has not.
    owed: bool,
    /// What the connection's timer is set to.
    armed: Option<Instant>,
}

enum State {
    Head,
    Body(Transfer),
    Linger {
        /// Bytes that may still be dropped.
        left_bytes: u64,
    },
    /// Reset: nothing counts any more.
    Over,
}

impl Session {
    pub(super) fn new(waiter: Waiter, client: IpAddress, now: Instant, config: &Config) -> Self {
        Self {
            waiter,
            client,
            access: None,
            state: State::Head,
            search: HeadSearch::default(),
            request_body: RequestBody::NONE,
            empty_lines: 0,
            persistent: true,
            held_back: false,
            ended: None,
            reader: ReaderWatch::new(now, 0),
            due: now + config.first_request_timeout,
            owed: false,
            armed: None,
        }
    }

    /// Bytes of requests have arrived; returns how many are done with.
    pub(super) fn receive(&mut self, server: &mut HttpServer, data: &[u8], out: &mut impl Outbox) -> usize {
        let consumed = self.consume(server, data, out);
        if self.ended.is_some() {
            self.ended = Some(data.len() - consumed);
            self.end_if_nothing_follows(server, out);
        }
        self.arm(out);
        consumed
    }

    fn consume(&mut self, server: &mut HttpServer, data: &[u8], out: &mut impl Outbox) -> usize {
        let mut at = 0;
        self.held_back = false;
        while at < data.len() {
            let rest = &data[at..];
            match &mut self.state {
                State::Linger { left_bytes } => {
                    match left_bytes.checked_sub(rest.len() as u64) {
                        Some(left) => *left_bytes = left,
                        None => self.reset(out),
                    }
                    return data.len();
                }
                State::Over => return data.len(),
                State::Head | State::Body(_) => {}
            }
            if !self.request_body.is_read() {
                match self.request_body.skip(rest) {
                    Ok(taken) => at += taken,
                    // The answer is out already, or on its way; all that can be done is to end the connection behind it.
                    Err(_) if matches!(self.state, State::Head) => self.close(server, out),
                    Err(_) => {
                        self.persistent = false;
                        self.request_body = RequestBody::NONE;
                        return at;
                    }
                }
                continue;
            }
            if matches!(self.state, State::Body(_)) {
                return at;
            }
            match self.take_request(server, rest, out) {
                0 => return at,
                taken => at += taken,
            }
        }
        at
    }

    /// Takes an empty line or a request from the front of `data`, which is not empty, and returns its length; 0 if there is no
    /// complete one or it can't be answered now.
    fn take_request(&mut self, server: &mut HttpServer, data: &[u8], out: &mut impl Outbox) -> usize {
        if out.room_bytes() == 0 {
            self.held_back = true;
            return 0;
        }
        if data.starts_with(b"\r\n") && !self.search.line_checked() {
            // Some clients send one behind a body (RFC 9112 §2.2).
            self.search = HeadSearch::default();
            if self.empty_lines == MAX_EMPTY_LINES {
                return self.refuse_and_close(server, &TOO_MANY_EMPTY_LINES, false, data, out);
            }
            self.empty_lines += 1;
            return 2;
        }
        let begun = self.search.begun();
        match request::parse(data, &mut self.search, &server.config) {
            Poll::Pending => {
                if !begun {
                    self.due = out.now() + server.config.head_timeout;
                }
                0
            }
            Poll::Ready(Err(refused)) => {
                self.refuse_and_close(server, &refused.refusal, refused.without_body, data, out)
            }
            Poll::Ready(Ok((request, length))) => {
                if self.start(server, &request, data, out) {
                    length
                } else {
                    self.held_back = true;
                    0
                }
            }
        }
    }

    /// Begins to answer a request. False if nothing could be queued; then it has to be shown again.
    fn start(&mut self, server: &mut HttpServer, request: &Request<'_>, data: &[u8], out: &mut impl Outbox) -> bool {
        let body = RequestBody::new(request.framing, server.config.max_body_bytes);
        let refused = matches!(request.method, Method::Connect | Method::Refused);
        // A client that waits for "100 Continue" may or may not send the body after another answer, so none is awaited.
        let body_follows = body.is_read() || !(refused || request.expects_continue || body.is_too_long());
        let persistent = request.keep_alive && request.method != Method::Connect && body_follows && !server.draining;
        let connection = match (persistent, request.version) {
            (false, _) => Connection::Close,
            (true, Version::Http11) => Connection::Persists,
            (true, Version::Http10) => Connection::KeepAlive,
        };
        self.watch(out);
        let answer = server.answer(request, connection, out);
        if matches!(answer, Answer::NoHeadPages) {
            return false;
        }
        self.empty_lines = 0;
        self.persistent = persistent;
        self.request_body = if body_follows { body } else { RequestBody::NONE };
        let access = server.log_begin(data);
        if let Answer::Body(transfer) = answer {
            self.access = access;
            self.state = State::Body(transfer);
            self.feed(server, out);
        } else {
            server.log_answered(self.client, access);
            self.finish(server, out);
        }
        true
    }

    /// A response is completely queued.
    fn finish(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        if self.persistent {
            self.state = State::Head;
            self.due = out.now() + self.limit(&server.config);
            // What is queued now may take most of that time to be read, which nobody tells us. A page is not worth a thought.
            self.owed = out.unacknowledged_bytes() > PAGE_BYTES;
        } else {
            self.close(server, out);
        }
    }

    /// Queues what can be queued of the response's body.
    fn feed(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        let State::Body(transfer) = &mut self.state else { return };
        // A failure is forgotten when nothing is waited for: it belongs to an earlier wait.
        if let Some(error) = server.take_failure(self.waiter)
            && transfer.waiting().is_some()
        {
            if error != BlockError::Changed || !transfer.await_volume(server, self.waiter, out.now()) {
                return self.fail(server, &READ_FAILED, out);
            }
            self.due = self.body_due(server, out);
            return;
        }
        match transfer.renew(server) {
            Renewal::None => {}
            Renewal::Awaited => return,
            Renewal::Missing => return self.fail(server, &NOT_FOUND, out),
        }
        if out.unacknowledged_bytes() == 0 {
            self.reader = ReaderWatch::new(out.now(), out.acknowledged_bytes());
        }
        match transfer.feed(server, self.waiter, out) {
            Progress::Done => {
                self.log_transfer(server);
                self.finish(server, out);
            }
            Progress::Failed => self.fail(server, &READ_FAILED, out),
            Progress::Resting => self.due = self.body_due(server, out),
        }
    }

    /// When a resting response is to be looked at.
    fn body_due(&self, server: &HttpServer, out: &impl Outbox) -> Instant {
        match &self.state {
            State::Body(transfer) => match transfer.waiting() {
                Some(waiting) if waiting.starved => waiting.since + server.config.starved_timeout,
                Some(waiting) => waiting.since + server.config.read_timeout,
                None => out.now() + server.config.stall_timeout,
            },
            _ => self.due,
        }
    }

    /// Gives up the response under way: with an error page while its head has not been queued, else with a reset, since the
    /// body would look whole if the connection just ended.
    fn fail(&mut self, server: &mut HttpServer, refusal: &Refusal, out: &mut impl Outbox) {
        let State::Body(transfer) = &self.state else { return };
        server.forget(self.waiter);
        let connection = transfer.pending_head().map(|head| head.connection);
        match connection.map(|connection| server.refuse(refusal, false, connection, out)) {
            Some(Answer::Sent) => {
                server.log_answered(self.client, self.access.take());
                self.finish(server, out);
            }
            _ => {
                self.log_transfer(server);
                server.stats.http_aborted.increment();
                self.reset(out);
            }
        }
    }

    /// Refuses what can't be followed by another request. Returns `data`'s length, or 0 if there was no room for the answer.
    fn refuse_and_close(
        &mut self,
        server: &mut HttpServer,
        refusal: &Refusal,
        without_body: bool,
        data: &[u8],
        out: &mut impl Outbox,
    ) -> usize {
        self.watch(out);
        match server.refuse(refusal, without_body, Connection::Close, out) {
            Answer::Sent => {
                let access = server.log_begin(data);
                server.log_answered(self.client, access);
                self.close(server, out);
                data.len()
            }
            _ => {
                self.held_back = true;
                0
            }
        }
    }

    /// Tells the log how far the response under way got.
    fn log_transfer(&mut self, server: &mut HttpServer) {
        if let State::Body(transfer) = &self.state {
            server.log_end(self.client, self.access.take(), transfer.status_sent(), transfer.sent_bytes());
        }
    }

    /// Starts to watch a peer that owed nothing so far.
    fn watch(&mut self, out: &impl Outbox) {
        if out.unacknowledged_bytes() == 0 {
            self.reader = ReaderWatch::new(out.now(), out.acknowledged_bytes());
        }
    }

    /// Ends our direction behind what is queued.
    fn close(&mut self, server: &HttpServer, out: &mut impl Outbox) {
        out.close();
        self.state = State::Linger { left_bytes: server.config.linger_bytes };
        self.due = out.now() + server.config.linger_timeout;
        self.owed = true;
    }

    fn reset(&mut self, out: &mut impl Outbox) {
        out.reset();
        self.state = State::Over;
    }

    /// The send queue has room, a chunk has arrived or failed, or the connection is new.
    pub(super) fn writable(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        self.feed(server, out);
        let at_rest = !self.search.begun() && self.request_body.is_read() && !self.held_back;
        if self.ended == Some(0) || server.draining && at_rest {
            self.end_if_nothing_follows(server, out);
        }
        self.arm(out);
    }

    /// The peer has ended its direction.
    pub(super) fn peer_closed(&mut self, server: &mut HttpServer, unread_bytes: usize, out: &mut impl Outbox) {
        self.ended = Some(unread_bytes);
        self.end_if_nothing_follows(server, out);
        self.arm(out);
    }

    /// Ends our direction too, once every complete request has been answered.
    fn end_if_nothing_follows(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        if !matches!(self.state, State::Head) || self.held_back {
            return;
        }
        match self.ended {
            Some(1..) if self.request_body.is_read() => {
                if self.refuse_and_close(server, &INCOMPLETE, false, b"", out) == 0 && self.held_back {
                    self.close(server, out);
                }
            }
            _ => self.close(server, out),
        }
    }

    /// The timer that was set has run out.
    pub(super) fn timeout(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        self.armed = None;
        self.check_times(server, out);
        self.arm(out);
    }

    fn check_times(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        let now = out.now();
        let waiting = match &self.state {
            State::Body(transfer) => transfer.waiting(),
            _ => None,
        };
        if out.unacknowledged_bytes() > 0 {
            match self.reader.check(now, out.acknowledged_bytes(), &server.config) {
                Err(Stalled) => {
                    server.stats.http_timeouts.increment();
                    return self.give_up(server, out);
                }
                // While the peer has something to read, only its reading counts.
                Ok(next) if waiting.is_none() => {
                    self.due = next;
                    self.owed = true;
                    return;
                }
                Ok(_) => {}
            }
        }
        if now < self.due {
            return;
        }
        if core::mem::take(&mut self.owed) {
            self.due = now + self.limit(&server.config);
            return;
        }
        match (&self.state, waiting) {
            (State::Body(_), Some(waiting)) => {
                self.fail(server, if waiting.starved { &NO_MEMORY } else { &DISK_SILENT }, out);
            }
            // Everything is acknowledged: TCP is about to call `writable`.
            (State::Body(_), None) => self.due = now + server.config.stall_timeout,
            (State::Head, _) => {
                server.stats.http_timeouts.increment();
                if self.search.begun() {
                    self.refuse_and_close(server, &HEAD_TOO_SLOW, false, b"", out);
                }
                if matches!(self.state, State::Head) {
                    self.close(server, out);
                }
            }
            (State::Linger { .. }, _) => self.reset(out),
            (State::Over, _) => {}
        }
    }

    /// How long the state may last without the peer doing anything.
    fn limit(&self, config: &Config) -> Duration {
        match self.state {
            State::Head if self.search.begun() || !self.request_body.is_read() => config.head_timeout,
            State::Head => config.idle_timeout,
            State::Body(_) => config.stall_timeout,
            State::Linger { .. } | State::Over => config.linger_timeout,
        }
    }

    fn give_up(&mut self, server: &mut HttpServer, out: &mut impl Outbox) {
        if matches!(self.state, State::Body(_)) {
            server.forget(self.waiter);
        }
        self.log_transfer(server);
        self.reset(out);
    }

    fn arm(&mut self, out: &mut impl Outbox) {
        if !matches!(self.state, State::Over) && self.armed.is_none_or(|armed| self.due < armed) {
            out.set_deadline(Some(self.due));
            self.armed = Some(self.due);
        }
    }

    /// The connection has ended.
    pub(super) fn closed(mut self, server: &mut HttpServer) {
        self.log_transfer(server);
        if matches!(self.state, State::Body(_)) {
            server.forget(self.waiter);
        }
    }
}

const TOO_MANY_EMPTY_LINES: Refusal = Refusal::bad("There are too many empty lines where a request should be.");
const INCOMPLETE: Refusal = Refusal::bad("The connection ended within the request's head.");
const HEAD_TOO_SLOW: Refusal = Refusal::new(Status::RequestTimeout, "The request's head took too long to arrive.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        // Ten thousand resting connections shall not cost more than a few megabytes.
        assert!(size_of::<Session>() <= 320, "{} bytes", size_of::<Session>());
    }
}
