//! The serving TCP as a whole: connections, timers and the ready list, driven by segments and `poll`.
//!
//! Nothing here looks at all connections: a segment finds its own by hash, a timer names its own, and what has something
//! to say is in the ready list, which is gone through in turn, one frame a connection.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use super::connection::Connection;
use super::context::Context;
use super::deadline::Deadline;
use super::listener::Listener;
use super::serve::Served;
use super::table::{Key, Place, Table};
use super::time_wait::TimeWaits;
use super::timers::Wheel;
use super::transmit::{Output, Transmitter};
use super::{Application, CloseReason, Config, ConnectionId, ConnectionInfo, RxSegment};
use crate::rings::{Capabilities, NetQueue, PagePool};
use crate::stats::Stats;

/// A place for a connection.
pub(super) struct Slot<S> {
    /// How often it has been used.
    pub generation: u32,
    /// It is in the ready list (perhaps since an earlier use).
    pub is_ready: bool,
    /// When its entry of the wheel fires, if it has one.
    pub scheduled_at: Deadline,
    /// What lives there.
    pub live: Option<Live<S>>,
}

/// A connection and its session.
pub(super) struct Live<S> {
    pub connection: Connection,
    pub session: S,
}

/// The serving TCP of one appliance.
pub struct Stack<A: Application> {
    pub(super) context: Context,
    pub(super) transmitter: Transmitter,
    pub(super) table: Table,
    pub(super) listener: Listener,
    pub(super) time_waits: TimeWaits,
    /// Boxed, so that the table can grow without moving connections.
    pub(super) slots: Vec<Box<Slot<A::Session>>>,
    pub(super) free: Vec<u32>,
    pub(super) open: usize,
    pub(super) wheel: Wheel,
    pub(super) ready: VecDeque<u32>,
    pub(super) device_is_up: bool,
    /// The device has come up: what was in flight is lost, and the timers have to begin anew.
    pub(super) restart_timers: bool,
    /// The device took no frame when last asked.
    pub(super) is_full: bool,
    /// The latest time that was told.
    pub(super) now: Instant,
}

impl<A: Application> Stack<A> {
    /// A stack without connections. `secret` keys the connection table, initial sequence numbers and timestamps; response
    /// heads are written to pages of `heads`.
    pub fn new(config: Config, secret: [u8; 16], heads: PagePool, stats: Rc<Stats>) -> Self {
        Self {
            listener: Listener::new(config.syn_backlog, config.syn_ack_retries),
            context: Context::new(config, secret, heads, stats),
            transmitter: Transmitter::new(),
            table: Table::default(),
            time_waits: TimeWaits::default(),
            slots: Vec::new(),
            free: Vec::new(),
            open: 0,
            wheel: Wheel::new(),
            ready: VecDeque::new(),
            device_is_up: true,
            restart_timers: false,
            is_full: false,
            now: Instant::ZERO,
        }
    }

    /// Takes a segment in. Nothing is transmitted here; may be called from within [`NetQueue::receive`].
    pub fn receive(&mut self, segment: RxSegment<'_>, now: Instant, app: &mut A) {
        self.now = now;
        self.context.stats.tcp_rx_segments.increment();
        let key = Key::new(&segment);
        let hash = self.context.secrets.hash(&key);
        let place = self.table.find(hash, |place| match place {
            Place::Connection(index) => {
                self.slots[index as usize].live.as_ref().is_some_and(|live| live.connection.path.key == key)
            }
            Place::HalfOpen(index) => self.listener.get(index).key == key,
            Place::TimeWait(index) => self.time_waits.get(index).key == key,
        });
        match place {
            Some(Place::Connection(index)) => self.receive_for_connection(index, &segment, app),
            Some(Place::HalfOpen(index)) => self.receive_for_half_open(index, &segment, app),
            Some(Place::TimeWait(index)) => self.receive_in_time_wait(index, &segment),
            None => self.receive_for_nobody(key, hash, &segment, None),
        }
    }

    /// Timers, wakes and transmissions. True if anything was done.
    pub fn poll(&mut self, now: Instant, app: &mut A, queue: &mut impl NetQueue) -> bool {
        self.now = now;
        self.transmitter.update(queue.capabilities());
        self.is_full = false;
        let mut worked = self.restart_if_up();
        worked |= self.run_timers(app);
        if self.device_is_up {
            worked |= self.send_answers(queue);
        }
        let mut budget = self.context.config.frames_per_poll.max(1);
        while budget > 0 && !self.is_full {
            let Some(index) = self.ready.pop_front() else { break };
            self.slots[index as usize].is_ready = false;
            if self.slots[index as usize].live.is_some() {
                worked |= self.serve(index, app, queue);
            }
            budget -= 1;
        }
        // Whom the budget left behind has his turn in the next poll.
        worked |= !self.is_full && !self.ready.is_empty();
        if self.device_is_up && !self.is_full {
            // Resets of connections that ended meanwhile.
            worked |= self.send_answers(queue);
        }
        worked
    }

    /// When `poll` has to be called next if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        let pending = !self.ready.is_empty() || self.context.replies.first().is_some() || self.restart_timers;
        let at_once = (pending && self.device_is_up && !self.is_full).then_some(self.now);
        [at_once, self.wheel.next_deadline(), self.listener.next_deadline(), self.time_waits.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Has [`Application::writable`] called in the next poll, if the connection still exists.
    pub fn wake(&mut self, id: ConnectionId) {
        if let Some(live) = self.live_mut(id) {
            live.connection.wants_writable = true;
            self.make_ready(id.index);
        }
    }

    /// The session of a connection that still exists.
    pub fn session_mut(&mut self, id: ConnectionId) -> Option<&mut A::Session> {
        self.live_mut(id).map(|live| &mut live.session)
    }

    /// The device works (again), with these capabilities.
    pub fn device_up(&mut self, capabilities: Capabilities) {
        self.transmitter.update(capabilities);
        self.device_is_up = true;
        self.restart_timers = true;
    }

    /// The device is down: nothing is sent and no retransmission timer counts until [`Stack::device_up`].
    pub fn device_down(&mut self) {
        self.device_is_up = false;
    }

    /// Packets larger than that are not sent: the network says so, of IPv4 and of IPv6, in bytes. `None`: the device's own limit
    /// is the only one.
    pub fn set_mtu_limits(&mut self, v4: Option<u16>, v6: Option<u16>) {
        self.transmitter.set_mtu_limits(v4, v6);
    }

    /// Our addresses are others than before: connections to those that are not ours any more end without a word, and handshakes
    /// begin anew. Looks at all connections.
    pub fn keep_addresses(&mut self, is_ours: impl Fn(IpAddress) -> bool, app: &mut A) {
        for index in 0..self.slots.len() as u32 {
            let lost = self.slots[index as usize]
                .live
                .as_ref()
                .is_some_and(|live| !is_ours(live.connection.path.key.peer().local_address));
            if lost {
                self.end(index, CloseReason::AddressLost, app);
            }
        }
        while let Some(index) = self.listener.oldest() {
            self.remove_half_open(index);
        }
    }

    /// Whether super-frames are sized by their connection's rate ([`Config::autosize_frames`]); off for measurements.
    pub fn set_autosize_frames(&mut self, on: bool) {
        self.context.config.autosize_frames = on;
    }

    /// See [`Stack::set_autosize_frames`].
    pub fn autosizes_frames(&self) -> bool {
        self.context.config.autosize_frames
    }

    /// Memory is short: each send queue takes at most so many bytes. `None` lifts the limit.
    pub fn set_pressure(&mut self, room_limit_bytes: Option<usize>) {
        // Less than this would not let an application push a slice.
        let least = self.context.config.send_queue_min_bytes.min(2 * crate::rings::PAGE_BYTES);
        self.context.pressure_bytes = room_limit_bytes.map(|bytes| bytes.max(least));
    }

    /// Resets the connection whose acknowledged position has stood still longest with data queued. False if there is none.
    ///
    /// This looks at all connections; it is for when memory is short.
    pub fn reset_slowest(&mut self, now: Instant, app: &mut A) -> bool {
        self.now = now;
        let queued = self.lives().filter(|(_, live)| !live.connection.queue.is_empty());
        let slowest = queued.min_by_key(|(index, live)| (live.connection.progress_at, *index)).map(|(index, _)| index);
        if let Some(index) = slowest {
            self.context.stats.connections_reset_slowest.increment();
            self.abort(index, CloseReason::Evicted, app);
        }
        slowest.is_some()
    }

    /// What there is to tell of each connection.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        self.lives().map(|(index, Live { connection, .. })| ConnectionInfo {
            id: ConnectionId { index, generation: self.slots[index as usize].generation },
            peer: connection.path.key.peer(),
            state: connection.state.name(),
            unacknowledged_bytes: connection.unacknowledged_bytes(),
            in_flight_bytes: connection.in_flight_bytes() as usize,
            acknowledged_bytes: connection.acknowledged_bytes,
            unread_bytes: connection.unread_bytes(),
            window_bytes: connection.window_bytes,
            congestion_window_bytes: connection.congestion.window_bytes(),
            slow_start_threshold_bytes: connection.congestion.threshold_bytes(),
            smoothed_rtt: connection.rtt.smoothed(),
            progress_at: connection.progress_at,
        })
    }

    /// Ends all connections with [`CloseReason::Shutdown`]. The next `poll` sends resets to as many as there is room for; who
    /// gets none learns from the answer to its next segment, or from silence.
    pub fn shutdown(&mut self, app: &mut A) {
        for index in 0..self.slots.len() as u32 {
            if self.slots[index as usize].live.is_some() {
                self.abort(index, CloseReason::Shutdown, app);
            }
        }
        while let Some(index) = self.listener.oldest() {
            self.remove_half_open(index);
        }
        while let Some(index) = self.time_waits.oldest() {
            self.remove_time_wait(index);
        }
    }

    /// Receive buffers that nobody owns now.
    #[cfg(test)]
    pub(super) fn buffers_available(&self) -> usize {
        self.context.buffers.available()
    }

    fn lives(&self) -> impl Iterator<Item = (u32, &Live<A::Session>)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as u32, slot.live.as_ref()?)))
    }

    fn live_mut(&mut self, id: ConnectionId) -> Option<&mut Live<A::Session>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation == id.generation { slot.live.as_mut() } else { None }
    }

    /// Puts a connection into the ready list.
    pub(super) fn make_ready(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.is_ready {
            slot.is_ready = true;
            self.ready.push_back(index);
        }
    }

    /// The connection at `index`, to be served.
    pub(super) fn served<'a>(&'a mut self, index: u32, app: &'a mut A) -> Option<Served<'a, A>> {
        let live = self.slots[index as usize].live.as_mut()?;
        Some(Served {
            connection: &mut live.connection,
            session: &mut live.session,
            context: &mut self.context,
            app,
            now: self.now,
        })
    }

    /// A turn of a ready connection: the application is asked for more, and one frame is sent. True if anything was done.
    fn serve(&mut self, index: u32, app: &mut A, queue: &mut impl NetQueue) -> bool {
        let mut worked = false;
        let Some(mut served) = self.served(index, app) else { return false };
        if served.connection.wants_writable {
            served.ask();
            worked = true;
            if served.connection.reset_requested {
                self.abort(index, CloseReason::ResetByApplication, app);
                return true;
            }
        }
        let Some(live) = &mut self.slots[index as usize].live else { return worked };
        let connection = &mut live.connection;
        if self.device_is_up {
            match connection.output(&mut self.transmitter, queue, &self.context, self.now) {
                Output::Sent => {
                    worked = true;
                    if connection.has_work() {
                        self.make_ready(index);
                    }
                }
                Output::Full => {
                    self.is_full = true;
                    self.slots[index as usize].is_ready = true;
                    self.ready.push_front(index);
                }
                Output::Idle => {
                    if connection.ack_pending && !connection.delayed_ack_at.is_set() {
                        connection.delayed_ack_at = Deadline::at(self.now + self.context.config.delayed_ack);
                    }
                    if connection.wants_writable {
                        self.make_ready(index);
                    }
                }
            }
        }
        self.schedule(index);
        worked
    }

    /// Makes sure that the wheel fires at the connection's earliest deadline.
    pub(super) fn schedule(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(live) = &slot.live else { return };
        let deadline = live.connection.next_deadline(&self.context.config);
        if deadline < slot.scheduled_at
            && let Some(at) = deadline.instant()
        {
            slot.scheduled_at = deadline;
            self.wheel.set(index, at);
        }
    }
}
