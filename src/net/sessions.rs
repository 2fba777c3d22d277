//! TCP sessions of the control plane: what µShell stands on.
//!
//! A few sockets listen on one port. A client that comes while [`SESSIONS`] sessions are open is told so and sent away; one
//! socket more than there are sessions sees to that.

use alloc::vec;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpEndpoint};

/// How many sessions can be open at once.
pub const SESSIONS: usize = 4;

/// Sockets: one for each session and one to turn the next client away.
const SOCKETS: usize = SESSIONS + 1;

/// Receive buffer of a session in bytes: what a client may send ahead of the service.
pub(super) const RECEIVE_BUFFER_BYTES: usize = 2048;

/// Output buffer of a session in bytes.
const SEND_BUFFER_BYTES: usize = 8192;

/// Most bytes shown to [`ControlService::received`] at once: a command line with room to spare.
const SHOWN_BYTES: usize = 1024;

/// An idle client is probed this often, and given up when it has not answered for [`DEAD_AFTER`].
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const DEAD_AFTER: Duration = Duration::from_secs(180);

/// A handshake, and a closing one, must be over in this time: a socket is not to be held by a stranger.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(20);

/// Names a session while it is open: the lowest number that was free, below [`SESSIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u8);

/// What runs behind the control plane's TCP sessions. One value serves all; what belongs to one session it keeps by
/// [`SessionId`]. No call blocks.
pub trait ControlService {
    /// A client has connected.
    fn opened(&mut self, id: SessionId, peer: IpEndpoint, out: &mut SessionOutput<'_>);

    /// Bytes that arrived: all that are not consumed yet, up to a limit of 1024. Returns how many are consumed. What is not
    /// consumed is shown again when more arrived or output has drained.
    fn received(&mut self, id: SessionId, data: &[u8], out: &mut SessionOutput<'_>) -> usize;

    /// There is room for output: called whenever some has drained, and after [`super::Network::wake_sessions`].
    fn writable(&mut self, id: SessionId, out: &mut SessionOutput<'_>);

    /// The client has ended its direction and everything before it has been consumed. Output still reaches it: close when all
    /// is said.
    fn ended(&mut self, id: SessionId, out: &mut SessionOutput<'_>);

    /// The session is over, whoever ended it; its number may be given to another client.
    fn closed(&mut self, id: SessionId);

    /// All sessions are taken. What is written is sent to the client before it is sent away.
    fn refused(&mut self, peer: IpEndpoint, out: &mut SessionOutput<'_>);
}

/// For an appliance without a shell: nobody is let in.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSessions;

impl ControlService for NoSessions {
    fn opened(&mut self, _: SessionId, _: IpEndpoint, out: &mut SessionOutput<'_>) {
        out.close();
    }

    fn received(&mut self, _: SessionId, data: &[u8], _: &mut SessionOutput<'_>) -> usize {
        data.len()
    }

    fn writable(&mut self, _: SessionId, _: &mut SessionOutput<'_>) {}

    fn ended(&mut self, _: SessionId, out: &mut SessionOutput<'_>) {
        out.close();
    }

    fn closed(&mut self, _: SessionId) {}

    fn refused(&mut self, _: IpEndpoint, _: &mut SessionOutput<'_>) {}
}

/// Where a service writes: a session's bounded output buffer.
pub struct SessionOutput<'a> {
    socket: &'a mut Socket<'static>,
    close: &'a mut bool,
}

impl SessionOutput<'_> {
    /// How many bytes [`SessionOutput::write`] takes now.
    pub fn room_bytes(&self) -> usize {
        if self.socket.may_send() { self.socket.send_capacity() - self.socket.send_queue() } else { 0 }
    }

    /// Queues as many of the bytes as there is room for, and returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.socket.send_slice(bytes).unwrap_or(0)
    }

    /// Ends the session when the queued output has been sent. Nothing more is called for it but
    /// [`ControlService::closed`].
    pub fn close(&mut self) {
        *self.close = true;
    }
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Waiting for a client, or shaking hands with one.
    Listening,
    /// A session, and how many bytes of output were queued when its service last had the word.
    Open { id: SessionId, ended: bool, queued_bytes: usize },
    /// We have closed; the client must do so until then.
    Closing { until: Instant },
}

/// The sockets of one listening port.
pub(super) struct Sessions {
    port: u16,
    slots: [(SocketHandle, Role); SOCKETS],
    /// The service asked for a word with every session.
    woken: bool,
}

impl Sessions {
    /// Sockets that listen on `port`, added to `sockets`.
    pub fn new(port: u16, sockets: &mut SocketSet<'static>) -> Self {
        let slots = core::array::from_fn(|_| {
            let mut socket = new_socket();
            listen(&mut socket, port);
            (sockets.add(socket), Role::Listening)
        });
        Self { port, slots, woken: false }
    }

    pub fn wake(&mut self) {
        self.woken = true;
    }

    pub fn is_woken(&self) -> bool {
        self.woken
    }

    /// True if no client is left.
    pub fn are_over(&self) -> bool {
        self.slots.iter().all(|(_, role)| *role == Role::Listening)
    }

    /// When a closing client's time is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.slots
            .iter()
            .filter_map(|(_, role)| match role {
                Role::Closing { until } => Some(*until),
                _ => None,
            })
            .min()
    }

    /// Forgets connections to addresses that are not ours any more. Nothing is said: the address may be another host's by now.
    pub fn keep(&self, sockets: &mut SocketSet<'static>, is_ours: impl Fn(IpAddress) -> bool) {
        for (handle, _) in &self.slots {
            let socket = sockets.get_mut::<Socket<'static>>(*handle);
            if socket.local_endpoint().is_some_and(|endpoint| !is_ours(endpoint.addr)) {
                *socket = new_socket();
            }
        }
    }

    /// Makes the sockets listen again whose connection has come to its end.
    pub fn listen_again(&mut self, sockets: &mut SocketSet<'static>) {
        for (handle, role) in &self.slots {
            let socket = sockets.get_mut::<Socket<'static>>(*handle);
            if *role == Role::Listening && !socket.is_open() {
                listen(socket, self.port);
            }
        }
    }

    /// Moves bytes between the sockets and the service. True if anything changed.
    pub fn poll(&mut self, now: Instant, sockets: &mut SocketSet<'static>, service: &mut impl ControlService) -> bool {
        let woken = core::mem::take(&mut self.woken);
        let mut moved = false;
        for slot in 0..SOCKETS {
            let (handle, role) = self.slots[slot];
            let socket = sockets.get_mut::<Socket<'static>>(handle);
            let next = match role {
                Role::Listening => self.accept(now, socket, service),
                Role::Open { id, ended, queued_bytes } => serve(now, socket, service, id, ended, queued_bytes, woken),
                Role::Closing { until } => finish(now, socket, until),
            };
            moved |= next != role;
            self.slots[slot].1 = next;
        }
        moved
    }

    /// Lets a client in whose handshake is complete.
    fn accept(&mut self, now: Instant, socket: &mut Socket<'static>, service: &mut impl ControlService) -> Role {
        let (State::Established | State::CloseWait, Some(peer)) = (socket.state(), socket.remote_endpoint()) else {
            return Role::Listening;
        };
        socket.set_timeout(Some(DEAD_AFTER));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        let taken =
            |id| self.slots.iter().any(|(_, role)| matches!(role, Role::Open { id: other, .. } if *other == id));
        let mut close = false;
        let mut out = SessionOutput { socket, close: &mut close };
        let Some(id) = (0..SESSIONS as u8).map(SessionId).find(|id| !taken(*id)) else {
            service.refused(peer, &mut out);
            return close_socket(now, socket);
        };
        service.opened(id, peer, &mut out);
        if close {
            service.closed(id);
            return close_socket(now, socket);
        }
        // The service has not been asked for bytes that came with the handshake; `serve` of the next poll does that.
        self.woken = true;
        Role::Open { id, ended: false, queued_bytes: socket.send_queue() }
    }
}

fn new_socket() -> Socket<'static> {
    Socket::new(SocketBuffer::new(vec![0; RECEIVE_BUFFER_BYTES]), SocketBuffer::new(vec![0; SEND_BUFFER_BYTES]))
}

fn listen(socket: &mut Socket<'static>, port: u16) {
    let listening = socket.listen(port);
    debug_assert!(listening.is_ok(), "a closed socket listens on a port that is not 0");
    socket.set_timeout(Some(HANDSHAKE_LIMIT));
    socket.set_keep_alive(None);
    socket.set_nagle_enabled(false);
}

/// One session's turn.
fn serve(
    now: Instant,
    socket: &mut Socket<'static>,
    service: &mut impl ControlService,
    id: SessionId,
    mut ended: bool,
    queued_bytes: usize,
    woken: bool,
) -> Role {
    if !socket.is_active() || socket.state() == State::TimeWait {
        service.closed(id);
        return Role::Listening;
    }
    let mut close = false;
    let drained = socket.send_queue() < queued_bytes;
    let mut shown = [0; SHOWN_BYTES];
    while !close && let Ok(length @ 1..) = socket.peek_slice(&mut shown) {
        let mut out = SessionOutput { socket, close: &mut close };
        let consumed = service.received(id, &shown[..length], &mut out).min(length);
        // Unlike `recv`, which sees no further than the end of the ring's memory, this takes from both of its ends.
        let taken = socket.recv_slice(&mut shown[..consumed]);
        debug_assert_eq!(taken, Ok(consumed), "bytes were there");
        if consumed == 0 {
            break;
        }
    }
    if !close && (drained || woken) && socket.can_send() {
        service.writable(id, &mut SessionOutput { socket, close: &mut close });
    }
    if !close && !ended && !socket.may_recv() && socket.recv_queue() == 0 {
        ended = true;
        service.ended(id, &mut SessionOutput { socket, close: &mut close });
    }
    if close {
        service.closed(id);
        return close_socket(now, socket);
    }
    Role::Open { id, ended, queued_bytes: socket.send_queue() }
}

fn close_socket(now: Instant, socket: &mut Socket<'static>) -> Role {
    socket.close();
    Role::Closing { until: now + HANDSHAKE_LIMIT }
}

/// Waits for the client's FIN, throwing away what it still says.
fn finish(now: Instant, socket: &mut Socket<'static>, until: Instant) -> Role {
    let over = match socket.state() {
        // The reset that follows an expired limit has been sent, or the connection came to its own end.
        State::Closed => true,
        // Another client must not wait for a stray segment of this one; a socket is too rare.
        State::TimeWait => {
            socket.abort();
            true
        }
        _ => false,
    };
    if over {
        return Role::Listening;
    }
    while socket.can_recv() {
        if socket.recv(|bytes| (bytes.len(), ())).is_err() {
            break;
        }
    }
    if now >= until {
        socket.abort();
    }
    Role::Closing { until }
}
