//! The serving TCP as a whole: connections, timers and the ready list, driven by segments and `poll`.

use alloc::rc::Rc;
use core::marker::PhantomData;
use smoltcp::time::{Duration, Instant};

use super::{Application, Config, ConnectionId, Peer, RxSegment};
use crate::rings::{Capabilities, NetQueue, PagePool};
use crate::stats::Stats;

/// What is told of a connection to `netstat` and to tests.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// The connection's name.
    pub id: ConnectionId,
    /// Its two ends.
    pub peer: Peer,
    /// Its state's name in RFC 9293.
    pub state: &'static str,
    /// Bytes queued or in flight that the peer has not acknowledged.
    pub unacknowledged_bytes: usize,
    /// Bytes sent that the peer has not acknowledged.
    pub in_flight_bytes: usize,
    /// Bytes acknowledged since the connection began.
    pub acknowledged_bytes: u64,
    /// Received bytes that the application has not consumed.
    pub unread_bytes: usize,
    /// The peer's window in bytes.
    pub window_bytes: u32,
    /// Congestion window in bytes.
    pub congestion_window_bytes: u32,
    /// Slow start threshold in bytes.
    pub slow_start_threshold_bytes: u32,
    /// Smoothed round-trip time, once measured.
    pub smoothed_rtt: Option<Duration>,
    /// When the peer last acknowledged something new.
    pub progress_at: Instant,
}

/// The serving TCP of one appliance.
pub struct Stack<A: Application> {
    config: Config,
    application: PhantomData<A>,
}

impl<A: Application> Stack<A> {
    /// A stack without connections. `secret` keys the connection table, initial sequence numbers and timestamps; response
    /// heads are written to pages of `heads`.
    pub fn new(config: Config, secret: [u8; 16], heads: PagePool, stats: Rc<Stats>) -> Self {
        let _ = (secret, heads, stats);
        Self { config, application: PhantomData }
    }

    /// Takes a segment in. Nothing is transmitted here; may be called from within [`NetQueue::receive`].
    pub fn receive(&mut self, segment: RxSegment<'_>, now: Instant, app: &mut A) {
        let _ = (segment, now, app);
    }

    /// Timers, wakes and transmissions. True if anything was done.
    pub fn poll(&mut self, now: Instant, app: &mut A, queue: &mut impl NetQueue) -> bool {
        let _ = (now, app, queue, &self.config);
        false
    }

    /// When `poll` has to be called next if nothing else happens.
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Has [`Application::writable`] called in the next poll, if the connection still exists.
    pub fn wake(&mut self, id: ConnectionId) {
        let _ = id;
    }

    /// The session of a connection that still exists.
    pub fn session_mut(&mut self, id: ConnectionId) -> Option<&mut A::Session> {
        let _ = id;
        None
    }

    /// The device works (again), with these capabilities.
    pub fn device_up(&mut self, capabilities: Capabilities) {
        let _ = capabilities;
    }

    /// The device is down: nothing is sent and no retransmission timer counts until [`Stack::device_up`].
    pub fn device_down(&mut self) {}

    /// Memory is short: each send queue takes at most so many bytes. `None` lifts the limit.
    pub fn set_pressure(&mut self, room_limit_bytes: Option<usize>) {
        let _ = room_limit_bytes;
    }

    /// Resets the connection whose acknowledged position has stood still longest with data queued. False if there is none.
    pub fn reset_slowest(&mut self, now: Instant, app: &mut A) -> bool {
        let _ = (now, app);
        false
    }

    /// What there is to tell of each connection.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> + '_ {
        core::iter::empty()
    }

    /// Ends all connections with [`super::CloseReason::Shutdown`], each with a reset that the next `poll` sends.
    pub fn shutdown(&mut self, app: &mut A) {
        let _ = app;
    }
}
