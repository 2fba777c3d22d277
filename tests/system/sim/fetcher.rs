//! An HTTP client over one connection, which believes nothing: every byte of every body is compared, and every way for a
//! response to fail is told apart.

use std::collections::VecDeque;

use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};

use super::site::Site;

/// Longest response head that is accepted, in bytes.
const MAX_HEAD_BYTES: usize = 4096;

/// What a request asks for, and so what the response has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object by its name, by number.
    Name(usize),
    /// An object by its digest.
    Digest(usize),
    /// The default object.
    Root,
    /// A name that the site lacks.
    Missing,
}

/// A request of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// What it asks for.
    pub target: Target,
    /// HEAD instead of GET.
    pub head_only: bool,
}

impl Request {
    fn object(&self) -> Option<usize> {
        match self.target {
            Target::Name(index) | Target::Digest(index) => Some(index),
            Target::Root => Some(0),
            Target::Missing => None,
        }
    }

    fn write(&self, site: &Site, last: bool, out: &mut Vec<u8>) {
        let path = match self.target {
            Target::Name(index) => site.objects[index].name.replace(' ', "%20"),
            Target::Digest(index) => format!("?{}", site.objects[index].digest_hex()),
            Target::Root => String::new(),
            Target::Missing => "no/such/object".into(),
        };
        let method = if self.head_only { "HEAD" } else { "GET" };
        let connection = if last { "Connection: close\r\n" } else { "" };
        out.extend_from_slice(format!("{method} /{path} HTTP/1.1\r\nHost: simulated\r\n{connection}\r\n").as_bytes());
    }
}

/// How a connection is used.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to ask for, in order.
    pub requests: VecDeque<Request>,
    /// Requests sent before the first of their responses is complete: 1 is plain keep-alive.
    pub pipelined: usize,
    /// The last request says `Connection: close`; otherwise this side closes after the last response.
    pub server_closes: bool,
    /// A slow reader: after each read of at most so many bytes it waits for so long.
    pub pause: Option<(usize, Duration)>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Answered as it should be, every byte of a body compared.
    Verified {
        /// Length of the body.
        body_bytes: usize,
    },
    /// Answered with 500 or 503.
    Refused,
    /// The connection was reset after some bytes of the response.
    ResetWithin,
    /// The connection was ended in order before any byte of the response, and no response had announced it: the server had
    /// waited for the request for too long.
    TimedOut,
    /// The connection was reset, or had ended in order, before any byte of the response.
    Unanswered,
}

/// A response under way.
struct Response {
    /// Where the expected bytes are; `None` for a body that is not compared (an error's).
    object: Option<usize>,
    received: usize,
    length: usize,
    outcome: Outcome,
    announces_close: bool,
}

/// A client's side of one connection.
pub struct Fetcher {
    plan: Plan,
    /// Sent (or about to be) and not answered, oldest first.
    unanswered: VecDeque<Request>,
    out: Vec<u8>,
    head: Vec<u8>,
    response: Option<Response>,
    close_announced: bool,
    next_read: Instant,
    done: bool,
}

impl Fetcher {
    /// A client that follows `plan`.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            unanswered: VecDeque::new(),
            out: Vec::new(),
            head: Vec::new(),
            response: None,
            close_announced: false,
            next_read: Instant::ZERO,
            done: false,
        }
    }

    /// True once every request has an outcome. The socket may still be closing.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// When to call [`Fetcher::step`] again although nothing arrives.
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        (!self.done && self.next_read > now).then_some(self.next_read)
    }

    /// Does what can be done with the socket now. Each request that ends is reported to `report`.
    ///
    /// # Panics
    /// When the server's answer is wrong.
    pub fn step(
        &mut self,
        now: Instant,
        socket: &mut Socket<'_>,
        site: &Site,
        report: &mut dyn FnMut(Request, Outcome),
    ) {
        if self.done || matches!(socket.state(), State::SynSent | State::SynReceived) {
            return;
        }
        self.send(socket, site);
        self.read(now, socket, site, report);
        self.send(socket, site);
        if self.plan.requests.is_empty() && self.unanswered.is_empty() {
            self.done = true;
            socket.close();
        } else if socket.state() == State::Closed {
            self.end(report);
        } else if !socket.may_recv() && socket.recv_queue() == 0 {
            // The server ended its direction in order: only between two responses.
            assert!(self.response.is_none() && self.head.is_empty(), "FIN within a response to {:?}", self.unanswered);
            if !self.close_announced
                && let Some(request) = self.unanswered.pop_front()
            {
                report(request, Outcome::TimedOut);
            }
            self.end(report);
            socket.close();
        }
    }

    fn send(&mut self, socket: &mut Socket<'_>, site: &Site) {
        while self.unanswered.len() < self.plan.pipelined && !self.close_announced {
            let Some(request) = self.plan.requests.pop_front() else { break };
            let last = self.plan.requests.is_empty() && self.plan.server_closes;
            request.write(site, last, &mut self.out);
            self.unanswered.push_back(request);
        }
        if socket.can_send() && !self.out.is_empty() {
            let sent = socket.send_slice(&self.out).expect("a socket that can send");
            self.out.drain(..sent);
        }
    }

    fn read(&mut self, now: Instant, socket: &mut Socket<'_>, site: &Site, report: &mut dyn FnMut(Request, Outcome)) {
        let mut budget = usize::MAX;
        if let Some((bytes, pause)) = self.plan.pause {
            if now < self.next_read {
                return;
            }
            if socket.can_recv() {
                self.next_read = now + pause;
            }
            budget = bytes;
        }
        while budget > 0 && socket.can_recv() {
            let read = socket.recv(|bytes| {
                let take = bytes.len().min(budget);
                self.consume(&bytes[..take], site, report);
                (take, take)
            });
            budget -= read.expect("a socket that can receive");
        }
    }

    fn consume(&mut self, mut bytes: &[u8], site: &Site, report: &mut dyn FnMut(Request, Outcome)) {
        while !bytes.is_empty() {
            let Some(response) = &mut self.response else {
                assert!(!self.unanswered.is_empty(), "{} bytes that nobody asked for", bytes.len());
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                assert!(self.head.len() <= MAX_HEAD_BYTES, "an endless response head");
                if self.head.ends_with(b"\r\n\r\n") {
                    self.response = Some(parse(&self.head, &self.unanswered[0], site));
                    self.head.clear();
                    self.finish_if_whole(report);
                }
                continue;
            };
            let take = bytes.len().min(response.length - response.received);
            if let Some(object) = response.object {
                let expected = &site.objects[object].content[response.received..][..take];
                assert!(bytes[..take] == *expected, "object {object} differs after byte {}", response.received);
            }
            response.received += take;
            bytes = &bytes[take..];
            self.finish_if_whole(report);
        }
    }

    fn finish_if_whole(&mut self, report: &mut dyn FnMut(Request, Outcome)) {
        if let Some(response) = self.response.take_if(|response| response.received == response.length) {
            let request = self.unanswered.pop_front().expect("a response answers a request");
            self.close_announced |= response.announces_close;
            report(request, response.outcome);
        }
    }

    /// The connection is over: what was not answered never will be.
    fn end(&mut self, report: &mut dyn FnMut(Request, Outcome)) {
        self.done = true;
        let within = self.response.take().is_some() || !self.head.is_empty();
        for (index, request) in self.unanswered.drain(..).chain(self.plan.requests.drain(..)).enumerate() {
            report(request, if within && index == 0 { Outcome::ResetWithin } else { Outcome::Unanswered });
        }
    }
}

/// Checks a response head against the request.
fn parse(head: &[u8], request: &Request, site: &Site) -> Response {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut parsed = httparse::Response::new(&mut headers);
    assert!(parsed.parse(head).is_ok_and(|status| status.is_complete()), "{}", String::from_utf8_lossy(head));
    let status = parsed.code.expect("a complete head has a status");
    let value = |name: &str| {
        let mut matching = parsed.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = matching.next().map(|header| std::str::from_utf8(header.value).expect("ASCII"));
        assert!(matching.next().is_none(), "{name} twice");
        value
    };
    let content_length: usize =
        value("Content-Length").expect("every response says its length").parse().expect("a number");
    let announces_close = value("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length = if request.head_only { 0 } else { content_length };
    let (object, outcome) = match (status, request.object()) {
        (200, Some(index)) => {
            let expected = site.objects[index].content.len();
            assert_eq!(content_length, expected, "Content-Length of object {index}");
            assert!(value("ETag").is_some_and(|tag| tag.starts_with('"')), "a strong ETag");
            (Some(index), Outcome::Verified { body_bytes: length })
        }
        (404, None) => (None, Outcome::Verified { body_bytes: length }),
        (500 | 503, Some(_)) => (None, Outcome::Refused),
        _ => panic!("status {status} for {request:?}"),
    };
    Response { object, received: 0, length, outcome, announces_close }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: &[u8] = b"0123456789";

    /// Shows `bytes` to a client that has asked for the only object `requests` times.
    fn outcomes(requests: usize, bytes: &[u8]) -> Vec<Outcome> {
        let mut site = Site::new([0], 1);
        site.objects[0].content = CONTENT.to_vec();
        let plan = Plan { requests: VecDeque::new(), pipelined: 1, server_closes: false, pause: None };
        let mut fetcher = Fetcher::new(plan);
        let request = Request { target: Target::Name(0), head_only: false };
        fetcher.unanswered.extend(std::iter::repeat_n(request, requests));
        let mut outcomes = Vec::new();
        // In pieces, so that they end within heads and bodies.
        bytes.chunks(7).for_each(|piece| fetcher.consume(piece, &site, &mut |_, outcome| outcomes.push(outcome)));
        fetcher.end(&mut |_, outcome| outcomes.push(outcome));
        outcomes
    }

    fn response(status: &str, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"e\"\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn right_answers_are_verified_and_the_rest_told_apart() {
        let right = response("200 OK", CONTENT);
        let verified = Outcome::Verified { body_bytes: 10 };
        assert_eq!(outcomes(2, &[&right[..], &right].concat()), [verified; 2]);
        assert_eq!(outcomes(2, &right), [verified, Outcome::Unanswered]);
        assert_eq!(outcomes(2, &right[..right.len() - 1]), [Outcome::ResetWithin, Outcome::Unanswered]);
        assert_eq!(outcomes(1, &right[..5]), [Outcome::ResetWithin]);
        assert_eq!(outcomes(1, &response("500 Internal Server Error", b"sorry")), [Outcome::Refused]);
    }

    #[test]
    #[should_panic(expected = "object 0 differs")]
    fn a_wrong_byte_is_seen() {
        outcomes(1, &response("200 OK", b"012345678x"));
    }

    #[test]
    #[should_panic(expected = "Content-Length of object 0")]
    fn a_short_body_that_looks_whole_is_seen() {
        outcomes(1, &response("200 OK", &CONTENT[..9]));
    }

    #[test]
    #[should_panic(expected = "nobody asked for")]
    fn bytes_behind_a_body_are_seen() {
        outcomes(1, &[&response("200 OK", CONTENT)[..], b"\r\n"].concat());
    }

    #[test]
    #[should_panic(expected = "status 404")]
    fn a_lost_object_is_seen() {
        outcomes(1, &response("404 Not Found", b""));
    }
}
