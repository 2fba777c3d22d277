//! Where a segment goes: to its connection, to a handshake, to TIME_WAIT, or to nobody (RFC 9293 §3.10.7).

use smoltcp::wire::TcpControl;

use super::connection::timestamp_value;
use super::listener::HalfOpen;
use super::receive::Arrival;
use super::reply::Reply;
use super::segment::{ACK, Path, RST};
use super::sequence::Seq;
use super::stack::Stack;
use super::table::{Key, Place};
use super::{Application, CloseReason, RxSegment};

/// The MSS of a peer that names none (RFC 9293 §3.7.1).
const DEFAULT_MSS_BYTES_V4: u16 = 536;
const DEFAULT_MSS_BYTES_V6: u16 = 1220;

/// What a new connection's number is moved on by when its predecessor has run ahead of the clock.
const REUSE_STEP: u32 = 65_537;

/// What a segment occupies of the sequence space.
fn length(segment: &RxSegment<'_>) -> u32 {
    segment.payload_bytes() as u32 + segment.header.control.len() as u32
}

impl<A: Application> Stack<A> {
    /// A segment of an established connection.
    pub(super) fn receive_for_connection(&mut self, index: u32, segment: &RxSegment<'_>, app: &mut A) {
        let now = self.now;
        let Some(mut served) = self.served(index, app) else { return };
        match served.connection.on_segment(segment, served.context, now) {
            Arrival::Refused => {
                if served.connection.ack_now {
                    self.make_ready(index);
                }
            }
            Arrival::Reset => {
                self.context.stats.tcp_resets_received.increment();
                self.end(index, CloseReason::ResetByPeer, app);
            }
            Arrival::Taken { first, skip_bytes, take_bytes, fin } => {
                if take_bytes > 0 {
                    served.on_payload(first, &segment.payload, skip_bytes, take_bytes);
                }
                served.on_fin(fin.then_some(first + take_bytes as u32));
                self.settle(index, app);
            }
        }
    }

    /// A segment of a handshake.
    pub(super) fn receive_for_half_open(&mut self, index: u32, segment: &RxSegment<'_>, app: &mut A) {
        let entry = *self.listener.get(index);
        let header = &segment.header;
        let seq = Seq::from(header.seq_number);
        match header.control {
            TcpControl::Rst => {
                // RFC 5961 §3.2: only the exact number counts.
                if seq == entry.rcv_nxt {
                    self.context.stats.tcp_resets_received.increment();
                    self.remove_half_open(index);
                }
                return;
            }
            TcpControl::Syn if header.ack_number.is_none() => {
                if seq + 1 == entry.rcv_nxt {
                    self.listener.get_mut(index).remote_hardware_address = segment.remote_hardware_address;
                    self.listener.request(index);
                } else {
                    // The peer has begun anew.
                    self.remove_half_open(index);
                    self.receive_for_nobody(entry.key, entry.hash, segment, None);
                }
                return;
            }
            _ => {}
        }
        let Some(ack) = header.ack_number.map(Seq::from) else {
            self.context.stats.tcp_rejected_segments.increment();
            return;
        };
        if ack != entry.iss + 1 || header.control == TcpControl::Syn {
            self.refuse(entry.key, entry.hash, segment);
            return;
        }
        let is_recent = match (entry.timestamp, header.timestamp) {
            (None, _) => true,
            (Some(recent), Some(stamp)) => stamp.tsval.wrapping_sub(recent) as i32 >= 0,
            (Some(_), None) => false,
        };
        let edge = entry.rcv_nxt + self.context.buffers.capacity_bytes() as u32;
        if !is_recent || seq < entry.rcv_nxt || seq > edge {
            self.context.stats.tcp_rejected_segments.increment();
            self.acknowledge_for_half_open(&entry);
            return;
        }
        if let Some(connection) = self.open(index, segment.remote_hardware_address, app) {
            self.make_ready(connection);
            self.receive_for_connection(connection, segment, app);
        } else {
            self.refuse(entry.key, entry.hash, segment);
        }
    }

    /// Tells the peer of a handshake what we expect.
    fn acknowledge_for_half_open(&mut self, entry: &HalfOpen) {
        let offset = self.context.secrets.timestamp_offset(&entry.key);
        let reply = Reply {
            path: Path::new(entry.key, entry.hash, entry.remote_hardware_address),
            seq: entry.iss + 1,
            ack: entry.rcv_nxt,
            flags: ACK,
            window: self.context.buffers.capacity_bytes() as u16,
            timestamp: entry.timestamp.map(|recent| (timestamp_value(offset, self.now), recent)),
        };
        self.context.replies.push_limited(reply, self.now);
    }

    /// A segment of a connection that has ended.
    pub(super) fn receive_in_time_wait(&mut self, index: u32, segment: &RxSegment<'_>) {
        let entry = *self.time_waits.get(index);
        let header = &segment.header;
        let seq = Seq::from(header.seq_number);
        match header.control {
            // RFC 1337: a reset must not cut the wait short.
            TcpControl::Rst => return,
            TcpControl::Syn if header.ack_number.is_none() => {
                let timestamp = header.timestamp.map(|stamp| stamp.tsval);
                if entry.may_be_reused_by(seq, timestamp) {
                    self.remove_time_wait(index);
                    self.receive_for_nobody(entry.key, entry.hash, segment, Some(entry.snd_nxt));
                    return;
                }
            }
            TcpControl::Fin if seq + length(segment) == entry.rcv_nxt => {
                self.time_waits.restart(index, self.now, self.context.config.time_wait);
            }
            _ if seq == entry.rcv_nxt && length(segment) == 0 => return,
            _ => {}
        }
        let reply = Reply {
            path: Path::new(entry.key, entry.hash, segment.remote_hardware_address),
            seq: entry.snd_nxt,
            ack: entry.rcv_nxt,
            flags: ACK,
            window: 0,
            timestamp: entry.timestamps.map(|(recent, offset)| (timestamp_value(offset, self.now), recent)),
        };
        self.context.replies.push_limited(reply, self.now);
    }

    /// A segment of no connection that we know. A SYN begins one, whose first number then lies beyond `after`.
    pub(super) fn receive_for_nobody(&mut self, key: Key, hash: u32, segment: &RxSegment<'_>, after: Option<Seq>) {
        let header = &segment.header;
        let is_syn = header.control == TcpControl::Syn && header.ack_number.is_none();
        if !is_syn {
            self.refuse(key, hash, segment);
            return;
        }
        if !segment.source.is_unicast() || !segment.destination.is_unicast() {
            self.context.stats.tcp_rejected_segments.increment();
            return;
        }
        if self.open >= self.context.config.max_connections {
            self.context.stats.connections_refused.increment();
            return;
        }
        if self.listener.is_full()
            && let Some(oldest) = self.listener.oldest()
        {
            self.context.stats.connections_half_open_expired.increment();
            self.remove_half_open(oldest);
        }
        let mut iss = self.context.secrets.initial_sequence(&key, self.now);
        if let Some(after) = after
            && iss <= after
        {
            iss = after + REUSE_STEP;
        }
        let rcv_nxt = Seq::from(header.seq_number) + 1;
        let default_mss_bytes = if key.is_ipv6 { DEFAULT_MSS_BYTES_V6 } else { DEFAULT_MSS_BYTES_V4 };
        let mut entry = HalfOpen::new(key, hash, segment.remote_hardware_address, iss, rcv_nxt, self.now);
        entry.peer_mss_bytes = header.max_seg_size.unwrap_or(default_mss_bytes);
        entry.window_scale = header.window_scale;
        entry.sack_permitted = header.sack_permitted;
        entry.timestamp = header.timestamp.map(|stamp| stamp.tsval);
        let index = self.listener.insert(entry);
        self.table.insert(hash, Place::HalfOpen(index));
    }

    /// Answers a segment that fits nothing with a reset (RFC 9293 §3.10.7.1), unless it is one.
    pub(super) fn refuse(&mut self, key: Key, hash: u32, segment: &RxSegment<'_>) {
        self.context.stats.tcp_rejected_segments.increment();
        if segment.header.control == TcpControl::Rst || !segment.source.is_unicast() {
            return;
        }
        let (seq, ack, flags) = match segment.header.ack_number {
            Some(ack) => (Seq::from(ack), Seq(0), RST),
            None => (Seq(0), Seq::from(segment.header.seq_number) + length(segment), RST | ACK),
        };
        let path = Path::new(key, hash, segment.remote_hardware_address);
        self.context.replies.push_limited(Reply { path, seq, ack, flags, window: 0, timestamp: None }, self.now);
    }
}
