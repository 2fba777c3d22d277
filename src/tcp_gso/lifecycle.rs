//! How connections begin and end, what their timers do, and what is sent for those that are not (yet, or any more) in the
//! table.

use alloc::boxed::Box;

use super::connection::{Connection, State, timestamp_value};
use super::deadline::Deadline;
use super::reply::Reply;
use super::segment::{ACK, Fields, Handshake, Path, RST, SYN};
use super::stack::{Live, Slot, Stack};
use super::table::Place;
use super::{Application, CloseReason, ConnectionId};
use crate::rings::NetQueue;

impl<A: Application> Stack<A> {
    /// A handshake is complete. `None` if there is no place for the connection or the application refuses it.
    pub(super) fn open(&mut self, half_open: u32, remote_hardware_address: [u8; 6], app: &mut A) -> Option<u32> {
        let mut entry = *self.listener.get(half_open);
        entry.remote_hardware_address = remote_hardware_address;
        let Some(index) = self.free_slot() else {
            self.context.stats.connections_refused.increment();
            self.remove_half_open(half_open);
            return None;
        };
        let slot = &mut self.slots[index as usize];
        let id = ConnectionId { index, generation: slot.generation };
        let Some(session) = app.accept(id, &entry.key.peer(), self.now) else {
            self.free.push(index);
            self.remove_half_open(half_open);
            return None;
        };
        slot.live = Some(Live { connection: Connection::new(&entry, &self.context, self.now), session });
        self.listener.remove(half_open);
        self.table.relocate(entry.hash, Place::HalfOpen(half_open), Place::Connection(index));
        self.open += 1;
        self.context.stats.connections_accepted.increment();
        self.context.stats.connections_open.set(self.open as u64);
        Some(index)
    }

    /// A slot that nothing lives in.
    fn free_slot(&mut self) -> Option<u32> {
        if self.open >= self.context.config.max_connections {
            return None;
        }
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        self.slots.push(Box::new(Slot { generation: 0, is_ready: false, scheduled_at: Deadline::NEVER, live: None }));
        self.wheel.grow(self.slots.len());
        // The lists that a connection may be in grow with the table, not when it is served.
        self.free.reserve(self.slots.len() - self.free.len());
        self.ready.reserve(self.slots.len() - self.ready.len());
        Some(self.slots.len() as u32 - 1)
    }

    /// Draws the consequences of what a segment, a timer or the application did to a connection.
    pub(super) fn settle(&mut self, index: u32, app: &mut A) {
        let Some(live) = &self.slots[index as usize].live else { return };
        if live.connection.reset_requested {
            self.abort(index, CloseReason::ResetByApplication, app);
            return;
        }
        match live.connection.state {
            State::TimeWait => self.enter_time_wait(index, app),
            State::Closed => self.end(index, CloseReason::Finished, app),
            _ => {
                if live.connection.has_work() {
                    self.make_ready(index);
                }
                self.schedule(index);
            }
        }
    }

    /// Ends a connection with a reset.
    pub(super) fn abort(&mut self, index: u32, reason: CloseReason, app: &mut A) {
        if let Some(live) = &self.slots[index as usize].live {
            let reply = self.reply_for(&live.connection, RST | ACK);
            self.context.replies.push(reply);
        }
        self.end(index, reason, app);
    }

    /// A segment without payload from a connection.
    fn reply_for(&self, connection: &Connection, flags: u8) -> Reply {
        Reply {
            path: connection.path,
            seq: connection.nxt,
            ack: connection.rcv_nxt,
            flags,
            window: connection.rcv_edge.bytes_past(connection.rcv_nxt) as u16,
            timestamp: connection.timestamps.map(|timestamps| (timestamps.value(self.now), timestamps.recent)),
        }
    }

    /// Both directions have ended, ours first: a compact entry remembers the connection.
    fn enter_time_wait(&mut self, index: u32, app: &mut A) {
        let Some(live) = &self.slots[index as usize].live else { return };
        let entry = live.connection.time_wait(self.now, &self.context.config);
        let reply = self.reply_for(&live.connection, ACK);
        self.context.replies.push(reply);
        if self.time_waits.len() >= self.context.config.time_wait_entries.max(1)
            && let Some(oldest) = self.time_waits.oldest()
        {
            self.remove_time_wait(oldest);
        }
        let place = Place::TimeWait(self.time_waits.insert(entry));
        self.table.relocate(entry.hash, Place::Connection(index), place);
        self.context.stats.time_wait.set(self.time_waits.len() as u64);
        self.vacate(index, CloseReason::Finished, app);
    }

    /// A connection is over.
    pub(super) fn end(&mut self, index: u32, reason: CloseReason, app: &mut A) {
        if let Some(live) = &self.slots[index as usize].live {
            self.table.remove(live.connection.hash, Place::Connection(index));
            self.vacate(index, reason, app);
        }
    }

    /// Gives back everything that a connection held.
    fn vacate(&mut self, index: u32, reason: CloseReason, app: &mut A) {
        let slot = &mut self.slots[index as usize];
        let Some(Live { mut connection, session }) = slot.live.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        slot.scheduled_at = Deadline::NEVER;
        self.wheel.cancel(index);
        self.free.push(index);
        connection.queue.clear();
        self.context.storages.extend(connection.queue.take_storage());
        if let Some(buffer) = connection.buffer.take() {
            self.context.buffers.give_back(buffer);
        }
        self.context.scoreboards.extend(connection.recovery.take_scoreboard());
        self.open -= 1;
        self.context.stats.connections_open.set(self.open as u64);
        if self.open == 0 {
            self.context.heads.release();
        }
        app.closed(session, reason);
    }

    /// Forgets a handshake.
    pub(super) fn remove_half_open(&mut self, index: u32) {
        let entry = self.listener.remove(index);
        self.table.remove(entry.hash, Place::HalfOpen(index));
    }

    /// Forgets a connection that has ended.
    pub(super) fn remove_time_wait(&mut self, index: u32) {
        let entry = self.time_waits.remove(index);
        self.table.remove(entry.hash, Place::TimeWait(index));
        self.context.stats.time_wait.set(self.time_waits.len() as u64);
    }

    /// Lets everything fire that is due. True if something did.
    pub(super) fn run_timers(&mut self, app: &mut A) -> bool {
        let mut worked = false;
        while let Some(index) = self.wheel.next_due(self.now) {
            self.slots[index as usize].scheduled_at = Deadline::NEVER;
            worked |= self.fire(index, app);
        }
        while let Some(index) = self.listener.next_expired(self.now) {
            self.context.stats.connections_half_open_expired.increment();
            self.remove_half_open(index);
            worked = true;
        }
        while let Some(index) = self.time_waits.oldest() {
            if self.time_waits.get(index).expires_at > self.now {
                break;
            }
            self.remove_time_wait(index);
            worked = true;
        }
        worked
    }

    /// The wheel named a connection: acts on what is due, and sets the wheel for what is not.
    fn fire(&mut self, index: u32, app: &mut A) -> bool {
        let (now, device_is_up) = (self.now, self.device_is_up);
        let Some(mut served) = self.served(index, app) else { return false };
        let connection = &mut *served.connection;
        let mut worked = false;
        if !device_is_up && connection.is_outstanding() {
            connection.progress_at = now;
        }
        let stalled = connection.stalls_at(&served.context.config).is_due(now);
        if stalled || connection.fin_wait_at.is_due(now) {
            if stalled {
                served.context.stats.connections_reset_stalled.increment();
            }
            self.abort(index, CloseReason::TimedOut, app);
            return true;
        }
        if connection.rto_at.is_due(now) {
            if device_is_up {
                connection.on_retransmission_timeout(served.context, now);
                worked = true;
            } else {
                connection.rto_at = Deadline::at(now + connection.rto(&served.context.config));
            }
        }
        if connection.delayed_ack_at.is_due(now) {
            connection.delayed_ack_at = Deadline::NEVER;
            connection.ack_now = connection.ack_pending;
            worked = true;
        }
        if connection.retry_at.is_due(now) {
            connection.retry_at = Deadline::NEVER;
            connection.wants_writable = true;
            worked = true;
        }
        if connection.application_at.is_due(now) {
            served.on_deadline();
            worked = true;
        }
        self.settle(index, app);
        worked
    }

    /// After the device came up: what was in flight is lost, and its timers begin anew. Looks at all connections.
    pub(super) fn restart_if_up(&mut self) -> bool {
        if !self.restart_timers {
            return false;
        }
        self.restart_timers = false;
        for index in 0..self.slots.len() as u32 {
            let Some(live) = &mut self.slots[index as usize].live else { continue };
            let connection = &mut live.connection;
            connection.progress_at = self.now;
            connection.rtt.forget_backoff();
            connection.timed = None;
            if connection.nxt != connection.una {
                connection.rto_at = Deadline::at(self.now + connection.rto(&self.context.config));
            }
            if connection.has_work() {
                self.make_ready(index);
            }
            self.schedule(index);
        }
        true
    }

    /// Sends SYN-ACKs and the answers that belong to no connection. True if any went out.
    pub(super) fn send_answers(&mut self, queue: &mut impl NetQueue) -> bool {
        let mut worked = false;
        while let Some(index) = self.listener.next_pending() {
            if !self.send_syn_ack(index, queue) {
                self.is_full = true;
                return worked;
            }
            self.listener.sent(index, self.now);
            worked = true;
        }
        while let Some(reply) = self.context.replies.first() {
            if self.transmitter.send_reply(queue, reply, &self.context.stats).is_err() {
                self.is_full = true;
                return worked;
            }
            if reply.flags & RST != 0 {
                self.context.stats.tcp_resets_sent.increment();
            }
            self.context.replies.sent();
            worked = true;
        }
        worked
    }

    fn send_syn_ack(&mut self, index: u32, queue: &mut impl NetQueue) -> bool {
        let entry = self.listener.get(index);
        let path = Path::new(entry.key, entry.hash, entry.remote_hardware_address);
        let offset = self.context.secrets.timestamp_offset(&entry.key);
        let handshake = Handshake {
            mss_bytes: path.mss_bytes(self.transmitter.mtu_bytes(&path)),
            // Our windows are small; the option lets the peer scale its own.
            window_scale: entry.window_scale.map(|_| 0),
            sack_permitted: entry.sack_permitted,
        };
        let fields = Fields {
            seq: entry.iss,
            ack: entry.rcv_nxt,
            flags: SYN | ACK,
            window: self.context.buffers.capacity_bytes() as u16,
            timestamp: entry.timestamp.map(|recent| (timestamp_value(offset, self.now), recent)),
            sack: &[],
            handshake: Some(handshake),
        };
        self.transmitter.send_bare(queue, &path, &fields, &self.context.stats).is_ok()
    }
}
