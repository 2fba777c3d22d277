//! The border between the serving TCP and what it serves.
//!
//! It is pull-based: the connection calls [`Application::receive`] with bytes that arrived and [`Application::writable`] when
//! its send queue has room; the application answers into the [`Outbox`] it is lent. `Outbox` is a trait, so that another
//! layer (TLS one day) can stand between.

use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use crate::rings::PageSlice;

/// Names a connection for as long as it lives; never reused while somebody could still hold it (it carries a generation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Place in the connection table.
    pub index: u32,
    /// How often that place had been used before.
    pub generation: u32,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other side's address.
    pub address: IpAddress,
    /// The other side's port.
    pub port: u16,
    /// Our address.
    pub local_address: IpAddress,
    /// Our port.
    pub local_port: u16,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Both sides sent FIN and ours was acknowledged.
    Finished,
    /// The peer sent a reset.
    ResetByPeer,
    /// We reset it: the application asked to.
    ResetByApplication,
    /// We reset it: the peer stopped answering (retransmissions exhausted, or its window stayed shut too long).
    TimedOut,
    /// We reset it: memory was short and this was the slowest reader.
    Evicted,
    /// The address that the peer talked to is not ours any more: nothing was sent, since it may be another host's.
    AddressLost,
    /// The stack is being shut down, or the device has gone.
    Shutdown,
}

/// Where an application puts its answer: the sending half of one connection. After `close` or `reset` nothing more is queued.
pub trait Outbox {
    /// Time of this call.
    fn now(&self) -> Instant;

    /// How many more bytes the send queue takes now. Advice for `push_body`; heads are always taken while the pool of head
    /// pages lasts.
    fn room_bytes(&self) -> usize;

    /// Queues bytes that the application made (a response head, an error page): they are copied to a head page. At most a
    /// page. False, and nothing queued, when the head pages are exhausted: `writable` is called once there are some again.
    fn push_head(&mut self, bytes: &[u8]) -> bool;

    /// Queues bytes of an object, by reference.
    fn push_body(&mut self, slice: PageSlice);

    /// Ends our direction (FIN) behind what is queued. Received bytes are still delivered until the peer ends its own.
    fn close(&mut self);

    /// Ends the connection at once (RST) and drops what is queued.
    fn reset(&mut self);

    /// Asks for [`Application::timeout`] at that time; replaces an earlier request. `None` asks for nothing.
    fn set_deadline(&mut self, deadline: Option<Instant>);

    /// Bytes queued or in flight that the peer has not acknowledged.
    fn unacknowledged_bytes(&self) -> usize;

    /// Bytes that the peer has acknowledged since the connection began.
    fn acknowledged_bytes(&self) -> u64;
}

/// What the serving TCP serves. One value serves all connections; what belongs to one is its `Session`.
///
/// No call blocks. A session that waits for a disk returns from `writable` without queueing and is called again when somebody
/// wakes its connection (`Stack::wake`).
pub trait Application {
    /// State of one connection.
    type Session;

    /// A connection has been established. `None` refuses it with a reset. [`Application::writable`] is called next, so that
    /// the session can set its first deadline.
    fn accept(&mut self, id: ConnectionId, peer: &Peer, now: Instant) -> Option<Self::Session>;

    /// In-order bytes that arrived: all that are not consumed yet, so a call may show old bytes again with new ones behind.
    /// Returns how many are consumed. What is not consumed is kept and shrinks the window, and is shown again when more
    /// arrived and after each call of `writable`, also when the peer has ended its direction meanwhile.
    fn receive(&mut self, session: &mut Self::Session, data: &[u8], out: &mut impl Outbox) -> usize;

    /// The send queue has room, or somebody woke the connection ([`super::Stack::wake`]).
    ///
    /// It is called after `accept`, after bytes have arrived, again as long as that leads to something, and, when the queue was
    /// left with less than a page of room, once a good part of it has been acknowledged. Who leaves room for a page and queues
    /// nothing is not asked again before the next of these. Not called after [`Outbox::close`].
    fn writable(&mut self, session: &mut Self::Session, out: &mut impl Outbox);

    /// The peer ended its direction; everything before has been shown to `receive`, and `unread` bytes of it were not consumed.
    fn peer_closed(&mut self, session: &mut Self::Session, unread: usize, out: &mut impl Outbox);

    /// The deadline set with [`Outbox::set_deadline`] has passed.
    fn timeout(&mut self, session: &mut Self::Session, out: &mut impl Outbox);

    /// The connection has ended; nothing more is called for it.
    fn closed(&mut self, session: Self::Session, reason: CloseReason);
}
