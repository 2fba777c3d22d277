//! What a connection sends next, and the frame that says it (RFC 9293 §3.8.6, RFC 5681, RFC 6675 §5).
//!
//! The payload is described, not copied: slot 0 holds the headers and, when the next bytes are a response head, those too;
//! then come the send queue's slices. Nothing moves in the connection before the device has taken the frame.

use alloc::vec::Vec;
use arrayvec::ArrayVec;
use smoltcp::time::Instant;

use super::Config;
use super::connection::{Connection, State};
use super::context::Context;
use super::deadline::Deadline;
use super::reply::Reply;
use super::segment::{
    ACK, FIN, Fields, MAX_HEADER_BYTES, MAX_SACK_BLOCKS, PSH, Path, header_bytes, sack_bytes, seal, write_headers,
};
use super::send_queue::SendQueue;
use super::sequence::Seq;
use crate::rings::{Capabilities, Full, NetQueue, PageSlice, TxFrame};
use crate::stats::Stats;

/// Most slots of a frame of up to [`FRAME_BYTES`]: what a Xen backend maps without copying.
const SLOTS: usize = 17;
/// Longest frame that every device with segmentation takes, in bytes: a 16-bit size that counts the Ethernet header.
const FRAME_BYTES: usize = u16::MAX as usize;
/// Most slots of a frame over a device that takes longer ones: 256 KiB of pages whose ends are cut.
const MAX_SLOTS: usize = 66;
/// Most bytes of response heads that are copied into slot 0.
const MAX_COPIED_HEAD_BYTES: usize = 1024;
/// A round trip of this many microseconds halves the share of a super-frame that does not depend on the rate (`tso_rtt_log`
/// of Linux).
const RTT_STEP_US: u32 = 512;

/// How an attempt to send ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// A frame was sent; there may be more.
    Sent,
    /// There is nothing to send now.
    Idle,
    /// The device takes no frame now.
    Full,
}

/// The payload of a frame, as a reference to the send queue's pages.
#[derive(Default)]
struct Payload {
    /// Bytes copied behind the headers.
    copied_bytes: usize,
    /// Of those, bytes of objects.
    copied_body_bytes: usize,
    slices: ArrayVec<PageSlice, { MAX_SLOTS - 1 }>,
    /// One bit for each slice that is of an object.
    body_slices: u128,
}

impl Payload {
    /// Describes up to `bytes` bytes from `seq` on. Heads at the front are copied to `head`; with `copy_all` everything is.
    fn collect(
        &mut self,
        queue: &SendQueue,
        seq: Seq,
        bytes: usize,
        head: &mut [u8],
        max_slices: usize,
        copy_all: bool,
    ) {
        let mut left = bytes;
        let (pieces, mut offset) = queue.pieces_from(seq);
        for piece in pieces {
            let mut take = (piece.slice.len() - offset).min(left);
            if self.slices.is_empty() && (copy_all || !piece.is_body) {
                let copy = take.min(head.len() - self.copied_bytes);
                head[self.copied_bytes..][..copy].copy_from_slice(&piece.slice.bytes()[offset..offset + copy]);
                self.copied_bytes += copy;
                self.copied_body_bytes += if piece.is_body { copy } else { 0 };
                offset += copy;
                take -= copy;
                left -= copy;
            }
            if take > 0 {
                if self.slices.len() == max_slices {
                    break;
                }
                self.body_slices |= u128::from(piece.is_body) << self.slices.len();
                self.slices.push(piece.slice.part(offset, take));
                left -= take;
            }
            if left == 0 {
                break;
            }
            offset = 0;
        }
    }

    fn len(&self) -> usize {
        self.copied_bytes + self.slices.iter().map(PageSlice::len).sum::<usize>()
    }

    /// Takes bytes off the end until `bytes` are left.
    fn truncate(&mut self, bytes: usize) {
        let mut excess = self.len() - bytes;
        while excess > 0 {
            match self.slices.pop() {
                Some(slice) if slice.len() > excess => {
                    self.slices.push(slice.part(0, slice.len() - excess));
                    excess = 0;
                }
                Some(slice) => excess -= slice.len(),
                None => {
                    self.copied_bytes -= excess;
                    self.copied_body_bytes = self.copied_body_bytes.min(self.copied_bytes);
                    excess = 0;
                }
            }
        }
    }

    /// Bytes of objects in the slices.
    fn body_bytes(&self) -> usize {
        self.slices.iter().enumerate().filter(|(i, _)| self.body_slices >> i & 1 == 1).map(|(_, s)| s.len()).sum()
    }
}

/// What stands between connections and the device: its capabilities, and memory for the heads of frames.
pub(super) struct Transmitter {
    capabilities: Capabilities,
    /// The largest IPv4 and IPv6 packets in bytes that the network says it carries.
    mtu_limits: (Option<u16>, Option<u16>),
    head: Vec<u8>,
}

impl Transmitter {
    /// A transmitter for a device of which nothing is known yet.
    pub fn new() -> Self {
        let capabilities = Capabilities {
            hardware_address: [0; 6],
            mtu_bytes: 1500,
            max_slots: 1,
            max_frame_bytes: 1514,
            head_bytes: 1514,
            checksum: false,
            tso4: false,
            tso6: false,
        };
        Self { capabilities, mtu_limits: (None, None), head: Vec::new() }
    }

    /// Takes note of what the device can do.
    pub fn update(&mut self, capabilities: Capabilities) {
        let bytes = capabilities.head_bytes.clamp(MAX_HEADER_BYTES, FRAME_BYTES);
        if self.head.len() < bytes {
            self.head.resize(bytes, 0);
        }
        self.capabilities = capabilities;
    }

    /// Takes note of what the network carries, IPv4 and IPv6, in bytes.
    pub fn set_mtu_limits(&mut self, v4: Option<u16>, v6: Option<u16>) {
        self.mtu_limits = (v4, v6);
    }

    /// The largest packet of this path that device and network carry, in bytes.
    pub fn mtu_bytes(&self, path: &Path) -> u16 {
        let limit = if path.key.is_ipv6 { self.mtu_limits.1 } else { self.mtu_limits.0 };
        limit.map_or(self.capabilities.mtu_bytes, |bytes| bytes.min(self.capabilities.mtu_bytes))
    }

    /// True if the device segments frames of this path's family.
    fn segments(&self, path: &Path) -> bool {
        let capabilities = &self.capabilities;
        capabilities.checksum && if path.key.is_ipv6 { capabilities.tso6 } else { capabilities.tso4 }
    }

    /// Sends a segment without payload.
    pub fn send_bare(
        &mut self,
        queue: &mut impl NetQueue,
        path: &Path,
        fields: &Fields<'_>,
        stats: &Stats,
    ) -> Result<(), Full> {
        self.send(queue, path, fields, &Payload::default(), None, stats)
    }

    /// Sends an answer that belongs to no connection.
    pub fn send_reply(&mut self, queue: &mut impl NetQueue, reply: &Reply, stats: &Stats) -> Result<(), Full> {
        let fields = Fields {
            seq: reply.seq,
            ack: reply.ack,
            flags: reply.flags,
            window: reply.window,
            timestamp: reply.timestamp,
            sack: &[],
            handshake: None,
        };
        self.send_bare(queue, &reply.path, &fields, stats)
    }

    fn send(
        &mut self,
        queue: &mut impl NetQueue,
        path: &Path,
        fields: &Fields<'_>,
        payload: &Payload,
        segment_mss_bytes: Option<u16>,
        stats: &Stats,
    ) -> Result<(), Full> {
        let offload = self.capabilities.checksum;
        let head = &mut self.head[..header_bytes(path, fields) + payload.copied_bytes];
        write_headers(head, self.capabilities.hardware_address, path, fields, payload.len());
        let offload_left = seal(head, &payload.slices, path, offload, segment_mss_bytes);
        queue.transmit(&TxFrame { head, slices: &payload.slices, offload: offload_left })?;
        stats.tcp_tx_segments.increment();
        stats.tcp_tx_bytes.add(payload.len() as u64);
        let touched = payload.copied_body_bytes + if offload { 0 } else { payload.body_bytes() };
        stats.copied_bytes.add(touched as u64);
        Ok(())
    }
}

/// Why bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// For the first time: SND.NXT moves.
    New,
    /// They count as lost.
    Again,
    /// To make a peer whose window is shut say something.
    Probe,
}

/// What to send next.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seq: Seq,
    bytes: u32,
    fin: bool,
    cause: Cause,
}

/// The sizes that a plan keeps to.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Payload of a full segment.
    segment_bytes: u32,
    /// Payload of the longest frame, a multiple of `segment_bytes`.
    frame_bytes: u32,
}

impl Sizes {
    /// As many whole segments as fit both `allowed` and a frame.
    fn whole_segments(&self, allowed: u32) -> u32 {
        let bytes = allowed.min(self.frame_bytes);
        bytes - bytes % self.segment_bytes
    }
}

impl Connection {
    /// Sends the next frame, if there is something to send and leave to do so.
    pub fn output(
        &mut self,
        transmitter: &mut Transmitter,
        queue: &mut impl NetQueue,
        context: &Context,
        now: Instant,
    ) -> Output {
        self.mss_bytes = self.full_segment_bytes(transmitter.mtu_bytes(&self.path));
        let held = self.buffer.as_ref().map_or(&[][..], |buffer| buffer.held());
        let blocks = held.len().min(if self.recovery.uses_sack() { MAX_SACK_BLOCKS } else { 0 });
        let sizes = self.sizes(transmitter, blocks, &context.config);
        let Some(plan) = self.plan(sizes, &context.config, now) else {
            return self.output_acknowledgement(transmitter, queue, context, now);
        };

        let edge = self.next_edge(context);
        let held = self.buffer.as_ref().map_or(&[][..], |buffer| buffer.held());
        let mut fields = Fields {
            seq: plan.seq,
            ack: self.rcv_nxt,
            flags: ACK,
            window: edge.bytes_past(self.rcv_nxt) as u16,
            timestamp: self.timestamps.map(|timestamps| (timestamps.value(now), timestamps.recent)),
            sack: &held[..blocks],
            handshake: None,
        };
        let capabilities = &transmitter.capabilities;
        let headers = header_bytes(&self.path, &fields);
        let copy_all = capabilities.max_slots <= 1;
        let head_end = transmitter.head.len().min(capabilities.head_bytes);
        let head_end = if copy_all { head_end } else { head_end.min(headers + MAX_COPIED_HEAD_BYTES) };
        let most_slots = if sizes.frame_bytes as usize > FRAME_BYTES { MAX_SLOTS } else { SLOTS };
        let max_slices = capabilities.max_slots.min(most_slots).saturating_sub(1);
        let mut payload = Payload::default();
        if plan.bytes > 0 {
            let head = &mut transmitter.head[headers..head_end.max(headers)];
            payload.collect(&self.queue, plan.seq, plan.bytes as usize, head, max_slices, copy_all);
            let bytes = payload.len();
            if bytes < plan.bytes as usize && bytes > sizes.segment_bytes as usize {
                // The slots did not suffice: a whole number of segments all the same.
                payload.truncate(bytes - bytes % sizes.segment_bytes as usize);
            }
        }
        let bytes = payload.len() as u32;
        if bytes == 0 && plan.bytes > 0 {
            return Output::Idle;
        }
        let end = plan.seq + bytes;
        let fin = plan.fin && bytes == plan.bytes;
        fields.flags |= if fin { FIN } else { 0 } | if bytes > 0 && end == self.queue.end() { PSH } else { 0 };
        let segment_mss_bytes = (bytes > sizes.segment_bytes).then_some(sizes.segment_bytes as u16);
        let sent = transmitter.send(queue, &self.path, &fields, &payload, segment_mss_bytes, &context.stats);
        if sent.is_err() {
            return Output::Full;
        }
        self.on_acknowledgement_sent(edge);
        self.on_sent(Plan { bytes, fin, ..plan }, context, now);
        Output::Sent
    }

    /// Sends an acknowledgement without payload, if one is due.
    fn output_acknowledgement(
        &mut self,
        transmitter: &mut Transmitter,
        queue: &mut impl NetQueue,
        context: &Context,
        now: Instant,
    ) -> Output {
        if !self.ack_now {
            return Output::Idle;
        }
        let edge = self.next_edge(context);
        let held = self.buffer.as_ref().map_or(&[][..], |buffer| buffer.held());
        let blocks = held.len().min(if self.recovery.uses_sack() { MAX_SACK_BLOCKS } else { 0 });
        let fields = Fields {
            seq: self.nxt,
            ack: self.rcv_nxt,
            flags: ACK,
            window: edge.bytes_past(self.rcv_nxt) as u16,
            timestamp: self.timestamps.map(|timestamps| (timestamps.value(now), timestamps.recent)),
            sack: &held[..blocks],
            handshake: None,
        };
        if transmitter.send_bare(queue, &self.path, &fields, &context.stats).is_err() {
            return Output::Full;
        }
        self.on_acknowledgement_sent(edge);
        Output::Sent
    }

    /// Sizes of segments and frames over this device, now.
    fn sizes(&self, transmitter: &Transmitter, sack_blocks: usize, config: &Config) -> Sizes {
        let segment_bytes = self.mss_bytes - sack_bytes(sack_blocks) as u32;
        if !transmitter.segments(&self.path) {
            return Sizes { segment_bytes, frame_bytes: segment_bytes };
        }
        let mut limit = config.max_frame_bytes.min(transmitter.capabilities.max_frame_bytes);
        if self.path.key.is_ipv6 || self.recovery.is_active() || self.timed_out {
            // IPv6 has no name for a longer packet, and what got lost goes out as every path is sure to take it.
            limit = limit.min(FRAME_BYTES);
        }
        let mut frame_bytes = limit.saturating_sub(MAX_HEADER_BYTES) as u32;
        if transmitter.capabilities.max_slots <= 1 {
            frame_bytes = frame_bytes.min(transmitter.head.len().saturating_sub(MAX_HEADER_BYTES) as u32);
        }
        if config.autosize_frames {
            frame_bytes = self.autosize(frame_bytes, segment_bytes);
        }
        Sizes { segment_bytes, frame_bytes: (frame_bytes - frame_bytes % segment_bytes).max(segment_bytes) }
    }

    /// About a millisecond of the rate, and a share that shrinks with the path's length, at least two segments
    /// (`tcp_tso_autosize` of Linux).
    fn autosize(&self, most_bytes: u32, segment_bytes: u32) -> u32 {
        let steps = self.rtt.min_us().unwrap_or(0) / RTT_STEP_US;
        let (Some(rtt), 1..) = (self.rtt.smoothed(), steps) else { return most_bytes };
        // Twice the window a round trip in slow start, 1.2 times afterwards (`tcp_pacing_ss_ratio`, `tcp_pacing_ca_ratio`).
        let gain_percent = if self.congestion.in_slow_start() { 200 } else { 120 };
        let millisecond = u64::from(self.congestion.window_bytes()) * gain_percent * 10 / rtt.total_micros();
        let share = u64::from(most_bytes.checked_shr(steps).unwrap_or(0));
        ((millisecond + share).min(most_bytes.into()) as u32).max(2 * segment_bytes).min(most_bytes)
    }

    /// What to send next, if anything.
    fn plan(&mut self, sizes: Sizes, config: &Config, now: Instant) -> Option<Plan> {
        if self.probe_due {
            self.probe_due = false;
            if let Some(plan) = self.plan_probe(sizes) {
                return Some(plan);
            }
        }
        let in_flight_bytes = self.in_flight_bytes();
        if in_flight_bytes == 0 && now > self.last_sent_at + self.rto(config) {
            self.congestion.on_idle(self.initial_window_bytes(config));
        }
        let flight = self.flight();
        let pipe_bytes = self.recovery.pipe_bytes(flight);
        let mut room = self.congestion.window_bytes().saturating_sub(pipe_bytes);
        if let Some((from, to, forced)) = self.recovery.next_lost(flight) {
            return self.plan_again(from, to, if forced { room.max(sizes.segment_bytes) } else { room }, sizes);
        }
        if in_flight_bytes == 0 {
            room = room.max(sizes.segment_bytes);
        }
        if let Some(plan) = self.plan_new(room, sizes) {
            return Some(plan);
        }
        if in_flight_bytes == 0 && !self.queue.is_empty() && !self.rto_at.is_set() {
            // Only the peer's window can be in the way, and its opening may get lost.
            self.rto_at = Deadline::at(now + self.rto(config));
        }
        let (from, to) = self.recovery.next_suspect(flight)?;
        self.plan_again(from, to, room, sizes)
    }

    /// One byte that the peer has no room for, or what it has room for although that is little (RFC 9293 §3.8.6.1,
    /// §3.8.6.2.1).
    fn plan_probe(&self, sizes: Sizes) -> Option<Plan> {
        let unsent = self.queue.end().bytes_past(self.nxt);
        if self.nxt == self.una && self.window_bytes > 0 {
            let bytes = unsent.min(self.window_bytes).min(sizes.segment_bytes);
            let fin = self.closing && bytes == unsent;
            return (bytes > 0).then_some(Plan { seq: self.nxt, bytes, fin, cause: Cause::New });
        }
        if self.queue.end() > self.una {
            return Some(Plan { seq: self.una, bytes: 1, fin: false, cause: Cause::Probe });
        }
        (self.nxt != self.una).then_some(Plan { seq: self.una, bytes: 0, fin: true, cause: Cause::Again })
    }

    /// Bytes that are sent for the first time, and FIN behind the last.
    fn plan_new(&mut self, room: u32, sizes: Sizes) -> Option<Plan> {
        if self.fin_sent() {
            return None;
        }
        let unsent = self.queue.end() - self.nxt;
        let window_room = (self.una + self.window_bytes).bytes_past(self.nxt);
        self.congestion_limited = room < unsent && room <= window_room;
        if unsent == 0 {
            return self.closing.then_some(Plan { seq: self.nxt, bytes: 0, fin: true, cause: Cause::New });
        }
        let allowed = room.min(window_room);
        let mut bytes = if unsent <= allowed.min(sizes.frame_bytes) { unsent } else { sizes.whole_segments(allowed) };
        if bytes == 0 && window_room <= room && window_room >= (self.max_window_bytes / 2).max(1) {
            // The peer's window never grows to a segment (RFC 9293 §3.8.6.2.1 (3)).
            bytes = window_room.min(unsent);
        }
        let fin = self.closing && bytes == unsent;
        (bytes > 0).then_some(Plan { seq: self.nxt, bytes, fin, cause: Cause::New })
    }

    /// Bytes of a hole, as far as there is room.
    fn plan_again(&self, from: Seq, to: Seq, room: u32, sizes: Sizes) -> Option<Plan> {
        let hole = self.queue.end().min(to).bytes_past(from);
        let fits = hole <= room.min(sizes.frame_bytes);
        let bytes = if fits { hole } else { sizes.whole_segments(room) };
        let fin = fits && to > self.queue.end();
        (bytes > 0 || (fin && room > 0)).then_some(Plan { seq: from, bytes, fin, cause: Cause::Again })
    }

    /// The device has taken what was planned.
    fn on_sent(&mut self, plan: Plan, context: &Context, now: Instant) {
        let end = plan.seq + plan.bytes + u32::from(plan.fin);
        let idle = self.nxt == self.una;
        match plan.cause {
            Cause::New => {
                debug_assert_eq!(plan.seq, self.nxt);
                self.nxt = end;
                self.queue.advance_cursor(end);
                self.probing = false;
                self.last_sent_at = now;
                if self.timed.is_none() && !self.recovery.is_active() {
                    self.timed = Some((end, now));
                }
                if plan.fin {
                    self.state = if self.state == State::CloseWait { State::LastAck } else { State::FinWait1 };
                }
            }
            Cause::Again => {
                self.recovery.on_retransmitted(end);
                self.timed = None;
                context.stats.tcp_retransmitted_bytes.add(plan.bytes.into());
            }
            Cause::Probe => {
                self.probing = idle;
                context.stats.tcp_window_probes.increment();
                return;
            }
        }
        if idle || !self.rto_at.is_set() {
            self.rto_at = Deadline::at(now + self.rto(&context.config));
        }
    }

    /// The right edge of the window to advertise: what can be held, but not moved for less than a segment's worth (RFC 9293
    /// §3.8.6.2.2).
    fn next_edge(&self, context: &Context) -> Seq {
        let current = self.rcv_edge.max(self.rcv_nxt);
        let gain_bytes = self.window_gain_bytes(context);
        if gain_bytes >= self.mss_bytes.min(context.buffers.capacity_bytes() as u32 / 2) {
            current + gain_bytes
        } else {
            current
        }
    }

    /// How much further than advertised the window could reach.
    fn window_gain_bytes(&self, context: &Context) -> u32 {
        let edge = self.rcv_nxt - self.unread_bytes() as u32 + context.buffers.capacity_bytes() as u32;
        edge.bytes_past(self.rcv_edge.max(self.rcv_nxt))
    }

    /// True if the application's reading has opened the window by so much that the peer should know: when it was (nearly) shut,
    /// and when it has grown by half a buffer.
    pub fn owes_window_update(&self, context: &Context) -> bool {
        let half_bytes = context.buffers.capacity_bytes() as u32 / 2;
        let shown_bytes = self.rcv_edge.bytes_past(self.rcv_nxt);
        let worth_bytes = if shown_bytes < self.mss_bytes { self.mss_bytes.min(half_bytes) } else { half_bytes };
        self.is_receiving() && self.window_gain_bytes(context) >= worth_bytes
    }

    fn on_acknowledgement_sent(&mut self, edge: Seq) {
        self.rcv_edge = edge;
        self.last_ack_sent = self.rcv_nxt;
        self.ack_pending = false;
        self.ack_now = false;
        self.delayed_ack_at = Deadline::NEVER;
    }
}
