//! The sending half of a connection, as it is lent to the application.

use smoltcp::time::Instant;

use super::Outbox;
use super::connection::{Connection, HEAD_RETRY};
use super::context::Context;
use super::deadline::Deadline;
use crate::rings::PageSlice;

/// Most bytes that any queue may hold: sequence arithmetic needs everything within 2³¹. An application that goes by
/// `room_bytes` never comes near.
const MAX_QUEUE_BYTES: usize = 1 << 30;

/// Lends a connection's sending half for one call of the application.
pub(super) struct Sender<'a> {
    /// The connection.
    pub connection: &'a mut Connection,
    /// What it shares with others.
    pub context: &'a mut Context,
    /// Time of the call.
    pub now: Instant,
}

impl Sender<'_> {
    fn push(&mut self, slice: PageSlice, is_body: bool) {
        let connection = &mut *self.connection;
        assert!(connection.unacknowledged_bytes() < MAX_QUEUE_BYTES, "the application overfills the send queue");
        connection.note_outstanding(self.now);
        if connection.queue.needs_storage()
            && let Some(storage) = self.context.storages.pop()
        {
            connection.queue.set_storage(storage);
        }
        connection.queue.push(slice, is_body);
    }

    fn is_over(&self) -> bool {
        self.connection.closing || self.connection.reset_requested
    }
}

impl Outbox for Sender<'_> {
    fn now(&self) -> Instant {
        self.now
    }

    fn room_bytes(&self) -> usize {
        if self.is_over() { 0 } else { self.connection.room_bytes(self.context) }
    }

    fn push_head(&mut self, bytes: &[u8]) -> bool {
        if self.is_over() || bytes.is_empty() {
            return true;
        }
        let Some(slice) = self.context.heads.write(bytes) else {
            // Another connection's acknowledgement will free pages; nobody tells us.
            self.connection.retry_at = Deadline::at(self.now + HEAD_RETRY);
            return false;
        };
        self.push(slice, false);
        true
    }

    fn push_body(&mut self, slice: PageSlice) {
        if !self.is_over() {
            self.push(slice, true);
        }
    }

    fn close(&mut self) {
        if !self.is_over() {
            self.connection.note_outstanding(self.now);
            self.connection.closing = true;
        }
    }

    fn reset(&mut self) {
        self.connection.reset_requested = true;
    }

    fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.connection.application_at = deadline.into();
    }

    fn unacknowledged_bytes(&self) -> usize {
        self.connection.unacknowledged_bytes()
    }

    fn acknowledged_bytes(&self) -> u64 {
        self.connection.acknowledged_bytes
    }
}
