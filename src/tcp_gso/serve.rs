//! Between a connection and the application: bytes in order go up, and the application is asked for more.

use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::Application;
use super::connection::Connection;
use super::context::Context;
use super::deadline::Deadline;
use super::outbox::Sender;
use super::sequence::Seq;
use crate::rings::{MAX_RX_SLICES, PAGE_BYTES};

/// How often in a row one connection's application is called before others have their turn.
const MAX_TURNS: usize = 8;

/// One connection with its session, lent for a call.
pub(super) struct Served<'a, A: Application> {
    /// The connection.
    pub connection: &'a mut Connection,
    /// Its session.
    pub session: &'a mut A::Session,
    /// What connections share.
    pub context: &'a mut Context,
    /// Whom it serves.
    pub app: &'a mut A,
    /// Time of the call.
    pub now: Instant,
}

impl<A: Application> Served<'_, A> {
    /// Calls the application with the session and the sending half, and notes whether it filled the send queue.
    fn call<R>(&mut self, f: impl FnOnce(&mut A, &mut A::Session, &mut Sender<'_>) -> R) -> R {
        let mut sender = Sender { connection: self.connection, context: self.context, now: self.now };
        let result = f(self.app, self.session, &mut sender);
        // A slice is at most a page: who leaves that much room had nothing more to say.
        self.connection.blocked = !self.connection.closing && self.connection.room_bytes(self.context) < PAGE_BYTES;
        result
    }

    /// Payload has arrived: `first` is the number of its first byte, at or behind RCV.NXT and within the window.
    pub fn on_payload(&mut self, first: Seq, payload: &[&[u8]], skip_bytes: usize, take_bytes: usize) {
        match payload {
            [whole] => self.on_parts(first, &[&whole[skip_bytes..skip_bytes + take_bytes]]),
            parts => self.on_parts(first, &cut(parts, skip_bytes, take_bytes)),
        }
        // At least every second full segment is acknowledged at once (RFC 5681 §4.2).
        let connection = &mut *self.connection;
        connection.ack_now |= connection.rcv_nxt.bytes_past(connection.last_ack_sent) >= 2 * connection.mss_bytes;
        if self.connection.buffer.as_ref().is_some_and(|buffer| buffer.is_empty()) {
            self.context.buffers.give_back(self.connection.buffer.take().expect("it was just looked at"));
        }
    }

    fn on_parts(&mut self, first: Seq, parts: &[&[u8]]) {
        if first == self.connection.rcv_nxt {
            self.on_in_order(parts);
        } else {
            self.hold(first, parts);
        }
    }

    /// The peer has ended its direction at `fin_at`; acts on it once everything before has come.
    pub fn on_fin(&mut self, fin_at: Option<Seq>) {
        let fin_at = *self.connection.fin_at.insert(match (self.connection.fin_at, fin_at) {
            (Some(known), _) => known,
            (None, Some(new)) => new,
            (None, None) => return,
        });
        if !self.connection.is_receiving() || self.connection.rcv_nxt != fin_at {
            return;
        }
        self.connection.on_peer_fin();
        let unread = self.connection.unread_bytes();
        self.call(|app, session, out| app.peer_closed(session, unread, out));
        self.connection.wants_writable = true;
    }

    /// Hands bytes on that continue what was received before: straight from where they lie, as long as the application
    /// consumes them.
    fn on_in_order(&mut self, parts: &[&[u8]]) {
        let mut parts = parts.iter();
        if self.connection.buffer.is_none() {
            loop {
                let Some(part) = parts.next() else { return };
                let consumed = self.offer(part);
                self.connection.rcv_nxt += consumed as u32;
                let rest = &part[consumed..];
                if !rest.is_empty() {
                    let Some(mut buffer) = self.context.buffers.lend(self.connection.rcv_nxt) else {
                        // Not acknowledged, so it will come again.
                        self.context.stats.tcp_no_receive_buffer.increment();
                        return;
                    };
                    buffer.keep(self.connection.rcv_nxt, rest);
                    self.connection.rcv_nxt = buffer.next();
                    self.connection.buffer = Some(buffer);
                    break;
                }
            }
            if parts.len() == 0 {
                return;
            }
        }
        let Some(buffer) = &mut self.connection.buffer else { return };
        let mut at = self.connection.rcv_nxt;
        for part in parts {
            // What was held may reach into this part already.
            let known = buffer.next().bytes_past(at).min(part.len() as u32);
            buffer.keep(buffer.next().max(at), &part[known as usize..]);
            at += part.len() as u32;
        }
        // Filling a gap may have joined what was held behind it.
        self.connection.ack_now |= buffer.next() != self.connection.rcv_nxt && !buffer.held().is_empty();
        self.connection.rcv_nxt = buffer.next();
        self.offer_unread();
    }

    /// Keeps bytes that came before their turn.
    fn hold(&mut self, first: Seq, parts: &[&[u8]]) {
        let connection = &mut *self.connection;
        if connection.buffer.is_none() {
            connection.buffer = self.context.buffers.lend(connection.rcv_nxt);
        }
        let mut at = first;
        for part in parts {
            if !connection.buffer.as_mut().is_some_and(|buffer| buffer.keep(at, part)) {
                self.context.stats.tcp_no_receive_buffer.increment();
                return;
            }
            at += part.len() as u32;
        }
        self.context.stats.tcp_out_of_order.increment();
    }

    /// Shows the application everything that it has not consumed, in one piece. True if that led to something.
    fn offer_unread(&mut self) -> bool {
        let Some(mut buffer) = self.connection.buffer.take() else { return false };
        let queued = self.connection.queue.end();
        let consumed = self.offer(buffer.unread());
        buffer.consume(consumed);
        if buffer.is_empty() {
            self.context.buffers.give_back(buffer);
        } else {
            self.connection.buffer = Some(buffer);
        }
        consumed > 0 || queued != self.connection.queue.end()
    }

    /// Shows bytes to the application and returns how many it consumed.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() || self.connection.reset_requested {
            return bytes.len();
        }
        self.connection.wants_writable = true;
        self.call(|app, session, out| app.receive(session, bytes, out)).min(bytes.len())
    }

    /// Asks the application for more to send, and shows it again what it left unread, as long as that leads to something.
    pub fn ask(&mut self) {
        for _ in 0..MAX_TURNS {
            if self.connection.reset_requested {
                return;
            }
            let queued = self.connection.queue.end();
            if !self.connection.closing {
                self.call(|app, session, out| app.writable(session, out));
            }
            let mut progress = queued != self.connection.queue.end();
            if self.connection.unread_bytes() > 0 {
                progress |= self.offer_unread();
            }
            if !progress || self.connection.blocked {
                self.connection.wants_writable = false;
                break;
            }
        }
        if self.connection.owes_window_update(self.context) {
            self.connection.ack_now = true;
        }
    }

    /// The application's deadline has passed.
    pub fn on_deadline(&mut self) {
        self.connection.application_at = Deadline::NEVER;
        self.call(|app, session, out| app.timeout(session, out));
        self.connection.wants_writable = true;
    }
}

/// The parts of `payload` without the first `skip` bytes, `take` bytes in all.
fn cut<'a>(payload: &[&'a [u8]], mut skip: usize, mut take: usize) -> ArrayVec<&'a [u8], MAX_RX_SLICES> {
    let mut parts = ArrayVec::new();
    for part in payload {
        let begin = skip.min(part.len());
        let end = part.len().min(begin.saturating_add(take));
        skip -= begin;
        if begin < end {
            parts.push(&part[begin..end]);
            take -= end - begin;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_cut_across_its_parts() {
        let payload: [&[u8]; 3] = [b"abc", b"", b"defg"];
        let cut = |skip, take| cut(&payload, skip, take).concat();
        assert_eq!(cut(0, 7), b"abcdefg");
        assert_eq!(cut(2, 3), b"cde");
        assert_eq!(cut(3, 1), b"d");
        assert_eq!(cut(1, 0), b"");
        assert_eq!(cut(7, 5), b"");
    }
}
