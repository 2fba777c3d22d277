//! The client half of one connection: segments of the appliance and bytes of the host client in, segments and bytes out.
//!
//! Before you work on this file, read RFC 9293 §3.10. It is a whole TCP, but a small one: the ring below loses nothing and
//! keeps the order (unless it is told to be bad: see `early`), so there is no congestion control and one coarse timer; a
//! retransmission happens only where the appliance had no buffer for what it was sent. Without I/O: the bridge moves the bytes.
//!
//! ```text
//!  client → appliance                           appliance → client
//!  SND.UNA        SND.NXT       buffered        written     RCV.NXT          written + WINDOW_BYTES
//!     |--in flight--|----unsent----|               |--pending--|----room---------|
//! ```
//! Nothing is acknowledged to the appliance before the host socket has taken it: what the client has not got stays in the
//! appliance's account of pinned memory, and its slowest reader is really the slowest.

mod buffers;
mod early;

use minicache::rings::PageSlice;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{TcpControl, TcpRepr, TcpSeqNumber};

use super::pending::Pending;
use buffers::Buffers;
pub use buffers::SpareBuffers;
use early::EarlySegment;

/// How much the appliance may send beyond what the host socket has taken, in bytes.
pub const WINDOW_BYTES: usize = 256 << 10;

/// Shift of the window field (RFC 7323 §2.2).
const WINDOW_SCALE: u8 = 4;

/// So much written and not yet acknowledged is acknowledged at once; less waits for data to ride on.
const ACKNOWLEDGE_AT_BYTES: usize = WINDOW_BYTES / 4;

/// Most bytes towards the appliance that are kept until it has acknowledged them.
const OUTGOING_MAX_BYTES: usize = 64 << 10;

/// First retransmission timeout; doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_millis(200);

/// Longest time between two retransmissions or two window probes.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Retransmissions of one segment before the appliance counts as dead.
const RETRIES_MAX: u32 = 12;

/// Most acknowledgements that say the same in a row: three tell of a loss (RFC 5681 §3.2).
const MAX_REPEATS: u8 = 3;

/// How long a client may keep its half open after the appliance closed its own.
const LINGER: Duration = Duration::from_secs(60);

/// MSS where the appliance names none (RFC 9293 §3.7.1).
const DEFAULT_MSS_BYTES: usize = 536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The SYN has no answer yet.
    SynSent,
    /// Data may flow.
    Established,
    /// Our side gave up: a reset is to be sent.
    Aborting,
    /// Reset, by either side.
    Reset,
}

/// The FIN towards the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    /// The client may still send.
    Open,
    /// The client ended its direction; the FIN goes out behind its last byte.
    Wanted,
    /// On its way.
    Sent,
    /// The appliance has it.
    Acknowledged,
}

/// Whether the appliance is owed an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    Nothing,
    /// Before the loop sleeps, if nothing carries it earlier.
    Later,
    Now,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// SYN, data or FIN await an acknowledgement.
    Retransmit,
    /// The client has data and the appliance's window is shut.
    Probe,
    /// The appliance has closed; the client has not.
    Linger,
}

/// A segment to send: the header, and which bytes of [`Connection::outgoing`] follow it.
#[derive(Debug)]
pub struct Segment {
    /// The header; its payload is empty.
    pub tcp: TcpRepr<'static>,
    /// First payload byte within [`Connection::outgoing`].
    pub start: usize,
    /// Payload bytes.
    pub bytes: usize,
}

/// The client half of one connection.
pub struct Connection {
    client_port: u16,
    serving_port: u16,
    mss_bytes: usize,
    state: State,

    send_unacknowledged: u32,
    send_next: u32,
    /// One behind the highest sequence number ever sent; `send_next` falls back behind it for a retransmission.
    send_highest: u32,
    send_window_bytes: usize,
    send_window_scale: u8,
    peer_mss_bytes: usize,
    fin: Fin,
    /// A window probe is due.
    probe: bool,
    /// A reset with this sequence number is due, against a connection that the appliance remembers and we don't.
    clear: Option<u32>,

    receive_next: u32,
    /// The last acknowledgement number sent.
    acknowledged: u32,
    owed: Owed,
    /// Acknowledgements that are owed beside that one, all the same.
    repeats: u8,
    /// The appliance has sent its FIN.
    peer_finished: bool,
    /// The host socket has been shut down behind the last byte, so the FIN may be acknowledged.
    shut_down: bool,

    buffers: Option<Box<Buffers>>,
    retries: u32,
    timer: Option<(Timer, Instant)>,
}

/// How far `a` lies ahead of `b` in sequence space; negative behind it.
fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

impl Connection {
    /// A connection whose SYN is the next segment. `mss_bytes` is what we take in a segment.
    pub fn new(client_port: u16, serving_port: u16, mss_bytes: usize, initial_sequence: u32) -> Self {
        Self {
            client_port,
            serving_port,
            mss_bytes,
            state: State::SynSent,
            send_unacknowledged: initial_sequence,
            send_next: initial_sequence,
            send_highest: initial_sequence,
            send_window_bytes: 0,
            send_window_scale: 0,
            peer_mss_bytes: DEFAULT_MSS_BYTES,
            fin: Fin::Open,
            probe: false,
            clear: None,
            receive_next: 0,
            acknowledged: 0,
            owed: Owed::Nothing,
            repeats: 0,
            peer_finished: false,
            shut_down: false,
            buffers: None,
            retries: 0,
            timer: None,
        }
    }

    // ---- from the appliance

    /// Processes a segment of the appliance. `slices` is the payload behind `tcp.payload`.
    pub fn receive(&mut self, tcp: &TcpRepr<'_>, slices: &[PageSlice], spare: &mut SpareBuffers) {
        match self.state {
            State::SynSent => self.receive_handshake(tcp),
            State::Established => self.receive_established(tcp, slices, spare),
            State::Aborting | State::Reset => {}
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn receive_handshake(&mut self, tcp: &TcpRepr<'_>) {
        let Some(ack) = tcp.ack_number.map(|number| number.0 as u32) else { return };
        if self.send_highest == self.send_unacknowledged || ack != self.send_highest {
            if tcp.control != TcpControl::Rst {
                // Left over from an earlier connection of these ports: a reset clears it away, the timer sends the SYN again.
                self.clear = Some(ack);
            }
            return;
        }
        match tcp.control {
            TcpControl::Rst => self.state = State::Reset,
            TcpControl::Syn => {
                self.state = State::Established;
                self.send_unacknowledged = ack;
                self.send_next = ack;
                self.clear = None;
                self.receive_next = (tcp.seq_number.0 as u32).wrapping_add(1);
                self.acknowledged = self.receive_next;
                self.send_window_bytes = tcp.window_len.into();
                self.send_window_scale = tcp.window_scale.unwrap_or(0).min(14);
                self.peer_mss_bytes = tcp.max_seg_size.map_or(DEFAULT_MSS_BYTES, |mss| usize::from(mss.max(64)));
                self.owed = Owed::Now;
                self.retries = 0;
                self.timer = None;
            }
            _ => {}
        }
    }

    /// RFC 9293 §3.10.7.4.
    fn receive_established(&mut self, tcp: &TcpRepr<'_>, slices: &[PageSlice], spare: &mut SpareBuffers) {
        let sequence = tcp.seq_number.0 as u32;
        match tcp.control {
            TcpControl::Rst => {
                let position = ahead(sequence, self.acknowledgement());
                if position >= 0 && position as usize <= WINDOW_BYTES {
                    self.state = State::Reset;
                }
                return;
            }
            TcpControl::Syn => {
                self.owed = Owed::Now;
                return;
            }
            _ => {}
        }
        let Some(ack) = tcp.ack_number.map(|number| number.0 as u32) else { return };
        let acknowledged = ahead(ack, self.send_unacknowledged);
        if acknowledged > ahead(self.send_highest, self.send_unacknowledged) {
            self.owed = Owed::Now;
            return;
        }
        if acknowledged >= 0 {
            self.send_window_bytes = usize::from(tcp.window_len) << self.send_window_scale;
            if self.send_window_bytes > 0 && matches!(self.timer, Some((Timer::Probe, _))) {
                (self.timer, self.retries) = (None, 0);
            }
        }
        if acknowledged > 0 {
            self.acknowledge(ack, acknowledged as usize);
        }
        self.receive_payload(tcp, sequence, slices, spare);
        while let Some(early) = self.buffers.as_mut().and_then(|buffers| buffers.early.take(self.receive_next)) {
            let tcp = TcpRepr { control: early.control, payload: &early.bytes, ..*tcp };
            self.receive_payload(&tcp, early.sequence, &[], spare);
        }
    }

    fn acknowledge(&mut self, ack: u32, bytes: usize) {
        let outgoing_bytes = self.outgoing().len();
        if let Some(buffers) = &mut self.buffers {
            if bytes >= outgoing_bytes {
                buffers.outgoing.clear();
            } else {
                buffers.outgoing.drain(..bytes);
            }
        }
        if bytes > outgoing_bytes {
            self.fin = Fin::Acknowledged;
        }
        self.send_unacknowledged = ack;
        if ahead(self.send_next, ack) < 0 {
            self.send_next = ack;
        }
        self.retries = 0;
        self.timer = None;
    }

    fn receive_payload(&mut self, tcp: &TcpRepr<'_>, sequence: u32, slices: &[PageSlice], spare: &mut SpareBuffers) {
        let bytes = tcp.payload.len() + slices.iter().map(PageSlice::len).sum::<usize>();
        let fin = usize::from(tcp.control == TcpControl::Fin);
        let known = ahead(self.receive_next, sequence);
        if known == 0 && bytes + fin == 0 {
            return;
        }
        if known < 0 || self.peer_finished || known as usize >= bytes + fin {
            // A hole, a duplicate or a probe: what we have is the answer, once for each (RFC 5681 §4.2).
            self.repeats += u8::from(self.owed == Owed::Now && self.repeats < MAX_REPEATS);
            self.owed = Owed::Now;
            if known < 0 && slices.is_empty() && !self.peer_finished && known.unsigned_abs() as usize <= WINDOW_BYTES {
                let early = EarlySegment { sequence, control: tcp.control, bytes: tcp.payload.to_vec() };
                self.buffers.get_or_insert_with(|| spare.take()).early.put(early);
            }
            return;
        }
        let known = known as usize;
        let room = WINDOW_BYTES - self.pending_bytes();
        let fresh = (bytes - known.min(bytes)).min(room);
        if fresh > 0 {
            let pending = &mut self.buffers.get_or_insert_with(|| spare.take()).pending;
            let (mut skip, mut left) = (known, fresh);
            let head = &tcp.payload[skip.min(tcp.payload.len())..];
            skip -= tcp.payload.len() - head.len();
            let head = &head[..left.min(head.len())];
            pending.push_copy(head);
            left -= head.len();
            for slice in slices {
                if left == 0 {
                    break;
                }
                if skip >= slice.len() {
                    skip -= slice.len();
                    continue;
                }
                let length = left.min(slice.len() - skip);
                if length == slice.len() {
                    pending.push_slice(slice.clone());
                } else {
                    pending.push_slice(slice.part(skip, length));
                }
                skip = 0;
                left -= length;
            }
            self.receive_next = self.receive_next.wrapping_add(fresh as u32);
        }
        if known + fresh < bytes {
            self.owed = Owed::Now;
        } else if fin == 1 {
            self.peer_finished = true;
            self.receive_next = self.receive_next.wrapping_add(1);
        }
    }

    // ---- towards the host socket

    /// Bytes that wait for the host socket.
    pub fn pending(&self) -> Option<&Pending> {
        self.buffers.as_ref().map(|buffers| &buffers.pending).filter(|pending| !pending.is_empty())
    }

    fn pending_bytes(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers.pending.len())
    }

    /// The host socket took `bytes` bytes of [`Connection::pending`].
    pub fn written(&mut self, bytes: usize) {
        self.buffers.as_mut().expect("something was pending").pending.advance(bytes);
        let unacknowledged = ahead(self.acknowledgement(), self.acknowledged) as usize;
        let owed = if unacknowledged >= ACKNOWLEDGE_AT_BYTES { Owed::Now } else { Owed::Later };
        self.owed = self.owed.max(owed);
    }

    /// The host socket is to be shut down for writing: the appliance has ended its direction and all of it is written.
    pub fn wants_shutdown(&self) -> bool {
        self.state == State::Established && self.peer_finished && !self.shut_down && self.pending_bytes() == 0
    }

    /// The host socket has been shut down for writing.
    pub fn shut_down(&mut self) {
        debug_assert!(self.wants_shutdown());
        self.shut_down = true;
        self.owed = Owed::Now;
    }

    // ---- from the host socket

    /// How many bytes the connection takes from the host client now.
    pub fn room_bytes(&self) -> usize {
        if self.state != State::Established || self.fin != Fin::Open {
            return 0;
        }
        self.send_window_bytes.min(OUTGOING_MAX_BYTES).saturating_sub(self.outgoing().len())
    }

    /// Queues bytes of the host client, at most [`Connection::room_bytes`].
    pub fn push(&mut self, bytes: &[u8], spare: &mut SpareBuffers) {
        debug_assert!(bytes.len() <= self.room_bytes());
        self.buffers.get_or_insert_with(|| spare.take()).outgoing.extend_from_slice(bytes);
    }

    /// The host client ended its direction.
    pub fn finish(&mut self) {
        if self.fin == Fin::Open {
            self.fin = Fin::Wanted;
        }
    }

    /// The connection of the host client is dead: reset it towards the appliance, too.
    pub fn abort(&mut self) {
        if self.state != State::Reset {
            self.state = State::Aborting;
        }
    }

    // ---- towards the appliance

    /// Bytes of the client that the appliance has not acknowledged.
    pub fn outgoing(&self) -> &[u8] {
        self.buffers.as_ref().map_or(&[], |buffers| &buffers.outgoing)
    }

    /// The acknowledgement number: what the host socket has taken.
    fn acknowledgement(&self) -> u32 {
        let unacknowledged_fin = u32::from(self.peer_finished && !self.shut_down);
        self.receive_next.wrapping_sub(self.pending_bytes() as u32).wrapping_sub(unacknowledged_fin)
    }

    /// The next segment to send, if one is due. `flush` makes an acknowledgement due that could wait for company.
    /// [`Connection::sent`] follows when the ring took it.
    pub fn next_segment(&self, flush: bool) -> Option<Segment> {
        if let Some(sequence) = self.clear {
            let mut segment = self.segment(TcpControl::Rst, sequence, 0, 0);
            segment.tcp.ack_number = None;
            return Some(segment);
        }
        match self.state {
            State::SynSent if self.send_next == self.send_unacknowledged => {
                let mut segment = self.segment(TcpControl::Syn, self.send_next, 0, 0);
                segment.tcp.ack_number = None;
                segment.tcp.window_len = WINDOW_BYTES.min(usize::from(u16::MAX)) as u16;
                segment.tcp.window_scale = Some(WINDOW_SCALE);
                segment.tcp.max_seg_size = Some(self.mss_bytes as u16);
                Some(segment)
            }
            State::SynSent | State::Reset => None,
            State::Aborting => Some(self.segment(TcpControl::Rst, self.send_highest, 0, 0)),
            State::Established => {
                let in_flight = ahead(self.send_next, self.send_unacknowledged) as usize;
                let unsent = self.outgoing().len().saturating_sub(in_flight);
                let window = self.send_window_bytes.saturating_sub(in_flight);
                let bytes = unsent.min(window).min(self.peer_mss_bytes).min(self.mss_bytes);
                if bytes > 0 {
                    Some(self.segment(TcpControl::Psh, self.send_next, in_flight, bytes))
                } else if self.fin == Fin::Wanted && unsent == 0 {
                    Some(self.segment(TcpControl::Fin, self.send_next, 0, 0))
                } else if self.probe {
                    // An old sequence number: the appliance answers with its window (as Linux probes).
                    Some(self.segment(TcpControl::None, self.send_unacknowledged.wrapping_sub(1), 0, 0))
                } else if self.owed == Owed::Now || (flush && self.owed == Owed::Later) {
                    Some(self.segment(TcpControl::None, self.send_next, 0, 0))
                } else {
                    None
                }
            }
        }
    }

    fn segment(&self, control: TcpControl, sequence: u32, start: usize, bytes: usize) -> Segment {
        let tcp = TcpRepr {
            src_port: self.client_port,
            dst_port: self.serving_port,
            control,
            seq_number: TcpSeqNumber(sequence as i32),
            ack_number: Some(TcpSeqNumber(self.acknowledgement() as i32)),
            window_len: (WINDOW_BYTES >> WINDOW_SCALE) as u16,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        Segment { tcp, start, bytes }
    }

    /// The ring took `segment`, which [`Connection::next_segment`] gave.
    pub fn sent(&mut self, segment: &Segment) {
        match segment.tcp.control {
            TcpControl::Rst if self.clear.take().is_some() => return,
            TcpControl::Rst => {
                self.state = State::Reset;
                return;
            }
            TcpControl::Fin => self.fin = Fin::Sent,
            TcpControl::None => self.probe = false,
            TcpControl::Syn | TcpControl::Psh => {}
        }
        let length = segment.bytes + segment.tcp.control.len();
        self.send_next = self.send_next.wrapping_add(length as u32);
        if ahead(self.send_next, self.send_highest) > 0 {
            self.send_highest = self.send_next;
        }
        if segment.tcp.ack_number.is_some() {
            self.acknowledged = self.acknowledgement();
            self.owed = if self.repeats > 0 { Owed::Now } else { Owed::Nothing };
            self.repeats = self.repeats.saturating_sub(1);
        }
    }

    /// True if an acknowledgement waits for company.
    pub fn owes_later(&self) -> bool {
        self.state == State::Established && self.owed == Owed::Later
    }

    // ---- time

    /// Chooses the timer for what the connection waits for, and returns its time. `client_waits`: the host client has bytes
    /// that found no room.
    pub fn schedule(&mut self, now: Instant, client_waits: bool) -> Option<Instant> {
        let in_flight = self.send_next != self.send_unacknowledged;
        let wanted = match self.state {
            State::SynSent if in_flight => Some(Timer::Retransmit),
            State::Established if in_flight => Some(Timer::Retransmit),
            State::Established if self.send_window_bytes == 0 && (client_waits || !self.outgoing().is_empty()) => {
                Some(Timer::Probe)
            }
            State::Established if self.shut_down && self.fin == Fin::Open => Some(Timer::Linger),
            _ => None,
        };
        if self.timer.map(|(timer, _)| timer) != wanted {
            self.timer = wanted.map(|timer| (timer, now + self.timeout(timer)));
        }
        self.timer.map(|(_, at)| at)
    }

    fn timeout(&self, timer: Timer) -> Duration {
        match timer {
            Timer::Retransmit | Timer::Probe => (RETRY * (1 << self.retries.min(8))).min(RETRY_MAX),
            Timer::Linger => LINGER,
        }
    }

    /// Does what is due by `now`.
    pub fn expire(&mut self, now: Instant) {
        let Some((timer, at)) = self.timer else { return };
        if at > now {
            return;
        }
        self.timer = None;
        self.retries += 1;
        match timer {
            Timer::Retransmit if self.retries > RETRIES_MAX => self.abort(),
            Timer::Retransmit => {
                self.send_next = self.send_unacknowledged;
                if self.fin == Fin::Sent {
                    self.fin = Fin::Wanted;
                }
            }
            Timer::Probe => self.probe = true,
            Timer::Linger => self.abort(),
        }
    }

    // ---- the end

    /// True while the handshake is under way.
    pub fn is_opening(&self) -> bool {
        self.state == State::SynSent
    }

    /// True once the connection was reset by either side: the host socket is to be closed with a reset, too.
    pub fn is_reset(&self) -> bool {
        self.state == State::Reset
    }

    /// True once the connection has been given up from this side; the reset may still have to be sent.
    pub fn is_aborting(&self) -> bool {
        self.state == State::Aborting
    }

    /// True when both directions are closed and acknowledged.
    pub fn is_finished(&self) -> bool {
        self.fin == Fin::Acknowledged && self.shut_down && self.owed == Owed::Nothing
    }

    /// The sequence number behind everything that was sent: a later connection of the same ports begins beyond it.
    pub fn sequence_end(&self) -> u32 {
        self.send_highest
    }

    /// Gives the buffers back if nothing is in them (or, with `all`, anyway).
    pub fn release_buffers(&mut self, spare: &mut SpareBuffers, all: bool) {
        if let Some(buffers) =
            self.buffers.take_if(|b| all || (b.pending.is_empty() && b.outgoing.is_empty() && b.early.is_empty()))
        {
            spare.put(buffers);
        }
    }
}

#[cfg(test)]
mod tests;
