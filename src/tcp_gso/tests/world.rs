//! A stack, an application to serve, and a peer played by hand.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, TcpControl, TcpRepr, TcpSeqNumber, TcpTimestampRepr};

use super::devices::{FakeQueue, Sent, capabilities, read};
use crate::rings::{Capabilities, PAGE_BYTES, Page, PagePool};
use crate::stats::Stats;
use crate::tcp_gso::{Application, CloseReason, Config, ConnectionId, ConnectionInfo, Outbox, Peer, RxSegment, Stack};

pub const CLIENT: IpAddress = IpAddress::v4(10, 0, 0, 2);
pub const SERVER: IpAddress = IpAddress::v4(10, 0, 0, 1);
pub const CLIENT6: IpAddress = IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub const SERVER6: IpAddress = IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1);

/// Pages of the body pattern; the body begins at its start again after so many.
const PATTERN_PAGES: usize = 64;
/// Bytes of a response's head.
pub const HEAD_BYTES: usize = 40;
/// The payload bytes of full segments without options at MTU 1500.
pub const MSS: usize = 1460;

/// That many milliseconds.
pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Payload bytes in all.
pub fn total(sent: &[Sent]) -> usize {
    sent.iter().map(|segment| segment.payload.len()).sum()
}

/// The byte at `offset` of any body.
pub fn body_byte(offset: usize) -> u8 {
    let offset = offset % (PATTERN_PAGES * PAGE_BYTES);
    (offset ^ ((offset >> 8) * 31) ^ ((offset >> 16) * 7)) as u8
}

/// The response to request number `number` for `bytes` bytes.
pub fn response(number: usize, bytes: usize) -> Vec<u8> {
    let mut all = head(number, bytes);
    all.extend((0..bytes).map(body_byte));
    all
}

fn head(number: usize, bytes: usize) -> Vec<u8> {
    let text = alloc::format!("response {number} of {bytes} bytes");
    let mut head = text.into_bytes();
    head.resize(HEAD_BYTES, b' ');
    head
}

/// Answers lines. `N` gets a head and N bytes of body, one line at a time; `Q` ends our direction, `R` resets, `W` waits until
/// it is woken.
pub struct Server {
    pages: Vec<Page>,
    pub pool: PagePool,
    pub refuse: bool,
    /// Ends our direction when the peer has ended its.
    pub polite: bool,
    pub closed: Vec<CloseReason>,
    pub accepted: Vec<(ConnectionId, Peer)>,
    pub writable_calls: usize,
}

#[derive(Default)]
pub struct Session {
    requests: usize,
    /// Body bytes queued, and to queue.
    body: Option<(usize, usize)>,
    pub seen: Vec<u8>,
    pub peer_closed: Option<usize>,
    pub waiting: bool,
    pub woken: bool,
    pub timeouts: Vec<Instant>,
    /// Consume nothing.
    pub stubborn: bool,
    /// Keep what was seen, for tests that look at it.
    pub deadline: Option<Instant>,
}

impl Server {
    pub fn new() -> Self {
        let pool = PagePool::new(PATTERN_PAGES);
        let pages = (0..PATTERN_PAGES)
            .map(|index| {
                let mut page = pool.allocate().unwrap();
                for (i, byte) in page.bytes_mut().unwrap().iter_mut().enumerate() {
                    *byte = body_byte(index * PAGE_BYTES + i);
                }
                page
            })
            .collect();
        Self { pages, pool, refuse: false, polite: true, closed: Vec::new(), accepted: Vec::new(), writable_calls: 0 }
    }

    fn feed(&mut self, session: &mut Session, out: &mut impl Outbox) {
        while let Some((done, total)) = session.body {
            if done == total {
                session.body = None;
                break;
            }
            if out.room_bytes() == 0 {
                break;
            }
            let offset = done % PAGE_BYTES;
            let length = (total - done).min(PAGE_BYTES - offset);
            out.push_body(self.pages[done / PAGE_BYTES % PATTERN_PAGES].slice(offset, length));
            session.body = Some((done + length, total));
        }
        self.close_if_done(session, out);
    }

    fn close_if_done(&self, session: &Session, out: &mut impl Outbox) {
        if self.polite && session.peer_closed == Some(0) && session.body.is_none() && !session.waiting {
            out.close();
        }
    }
}

impl Application for Server {
    type Session = Session;

    fn accept(&mut self, id: ConnectionId, peer: &Peer, _now: Instant) -> Option<Session> {
        self.accepted.push((id, *peer));
        (!self.refuse).then(Session::default)
    }

    fn receive(&mut self, session: &mut Session, data: &[u8], out: &mut impl Outbox) -> usize {
        if session.stubborn || session.body.is_some() || session.waiting {
            return 0;
        }
        let Some(length) = data.iter().position(|byte| *byte == b'\n') else { return 0 };
        let line = &data[..length];
        match line {
            b"Q" => out.close(),
            b"R" => out.reset(),
            b"W" => {
                session.waiting = true;
                session.seen.extend_from_slice(&data[..length + 1]);
                return length + 1;
            }
            _ => {
                if let Ok(bytes) = core::str::from_utf8(line).unwrap_or("").parse() {
                    if !out.push_head(&head(session.requests, bytes)) {
                        return 0;
                    }
                    session.requests += 1;
                    session.body = Some((0, bytes));
                    self.feed(session, out);
                }
            }
        }
        session.seen.extend_from_slice(&data[..length + 1]);
        if let Some(left) = &mut session.peer_closed {
            *left -= length + 1;
            self.close_if_done(session, out);
        }
        length + 1
    }

    fn writable(&mut self, session: &mut Session, out: &mut impl Outbox) {
        self.writable_calls += 1;
        if let Some(deadline) = session.deadline.take() {
            out.set_deadline(Some(deadline));
        }
        if core::mem::take(&mut session.woken) {
            session.waiting = false;
        }
        self.feed(session, out);
    }

    fn peer_closed(&mut self, session: &mut Session, unread: usize, out: &mut impl Outbox) {
        session.peer_closed = Some(unread);
        self.close_if_done(session, out);
    }

    fn timeout(&mut self, session: &mut Session, out: &mut impl Outbox) {
        session.timeouts.push(out.now());
    }

    fn closed(&mut self, _session: Session, reason: CloseReason) {
        self.closed.push(reason);
    }
}

/// A segment that the peer sends.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub port: u16,
    pub control: TcpControl,
    pub seq: u32,
    pub ack: Option<u32>,
    pub window: u16,
    pub window_scale: Option<u8>,
    pub mss: Option<u16>,
    pub sack_permitted: bool,
    pub sack: [Option<(u32, u32)>; 3],
    pub timestamp: Option<(u32, u32)>,
    pub payload: &'a [u8],
    pub hardware_address: [u8; 6],
    pub is_ipv6: bool,
}

pub const SEGMENT: Segment<'_> = Segment {
    port: 50_000,
    control: TcpControl::None,
    seq: 0,
    ack: None,
    window: 0xffff,
    window_scale: None,
    mss: None,
    sack_permitted: false,
    sack: [None; 3],
    timestamp: None,
    payload: &[],
    hardware_address: [2, 0, 0, 0, 0, 2],
    is_ipv6: false,
};

/// The stack with everything around it.
pub struct World {
    pub stack: Stack<Server>,
    pub app: Server,
    pub queue: FakeQueue,
    pub stats: Rc<Stats>,
    pub heads: PagePool,
    pub now: Instant,
}

impl World {
    pub fn new(config: Config, capabilities: Capabilities) -> Self {
        let stats = Rc::new(Stats::default());
        let heads = PagePool::new(64);
        Self {
            stack: Stack::new(config, [7; 16], heads.clone(), stats.clone()),
            app: Server::new(),
            queue: FakeQueue::new(capabilities),
            stats,
            heads,
            now: Instant::from_secs(1000),
        }
    }

    /// The usual limits and a device that can do everything.
    pub fn plain() -> Self {
        Self::new(Config::default(), capabilities())
    }

    /// Hands a segment to the stack, its payload in pieces of at most `piece` bytes.
    pub fn deliver_in_pieces(&mut self, segment: Segment<'_>, piece: usize) {
        let (source, destination) = if segment.is_ipv6 { (CLIENT6, SERVER6) } else { (CLIENT, SERVER) };
        let header = TcpRepr {
            src_port: segment.port,
            dst_port: 80,
            control: segment.control,
            seq_number: TcpSeqNumber(segment.seq as i32),
            ack_number: segment.ack.map(|ack| TcpSeqNumber(ack as i32)),
            window_len: segment.window,
            window_scale: segment.window_scale,
            max_seg_size: segment.mss,
            sack_permitted: segment.sack_permitted,
            sack_ranges: segment.sack,
            timestamp: segment.timestamp.map(|(tsval, tsecr)| TcpTimestampRepr { tsval, tsecr }),
            payload: &[],
        };
        let segment = RxSegment {
            interface: 0,
            remote_hardware_address: segment.hardware_address,
            source,
            destination,
            header,
            payload: segment.payload.chunks(piece).collect::<ArrayVec<_, 19>>(),
        };
        self.stack.receive(segment, self.now, &mut self.app);
    }

    pub fn deliver(&mut self, segment: Segment<'_>) {
        self.deliver_in_pieces(segment, usize::MAX);
    }

    /// Polls until nothing is done any more, and returns what was sent.
    pub fn poll(&mut self) -> Vec<Sent> {
        let mut rounds = 0;
        while self.stack.poll(self.now, &mut self.app, &mut self.queue) {
            rounds += 1;
            assert!(rounds < 100_000, "the stack does not come to rest");
        }
        self.queue.frames.drain(..).map(|frame| read(&frame)).collect()
    }

    /// Hands a segment in and returns what is sent at once.
    pub fn exchange(&mut self, segment: Segment<'_>) -> Vec<Sent> {
        self.deliver(segment);
        self.poll()
    }

    /// Lets time pass, polling at each deadline, and returns what was sent, each with its delay in milliseconds.
    pub fn run(&mut self, duration: Duration) -> Vec<(u64, Sent)> {
        let (begin, end) = (self.now, self.now + duration);
        let mut sent: Vec<(u64, Sent)> = self.poll().into_iter().map(|sent| (0, sent)).collect();
        while let Some(deadline) = self.stack.next_deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now, "a deadline that is over keeps the loop awake");
            self.now = deadline;
            let delay_ms = (self.now - begin).total_millis();
            sent.extend(self.poll().into_iter().map(|sent| (delay_ms, sent)));
        }
        self.now = end;
        sent
    }

    /// The only connection.
    pub fn info(&self) -> ConnectionInfo {
        let mut all = self.stack.connections();
        let first = all.next().expect("there is a connection");
        assert!(all.next().is_none(), "there is more than one connection");
        first
    }

    pub fn session(&mut self) -> &mut Session {
        let id = self.info().id;
        self.stack.session_mut(id).unwrap()
    }

    /// Opens a connection.
    pub fn connect(&mut self, syn: Segment<'_>) -> Client {
        self.connect_over(syn, Duration::ZERO)
    }

    /// Opens a connection over a path with this round-trip time.
    pub fn connect_over(&mut self, syn: Segment<'_>, rtt: Duration) -> Client {
        let replies = self.exchange(Segment { control: TcpControl::Syn, ..syn });
        let [reply] = &replies[..] else { panic!("{replies:?}") };
        assert!(reply.is(TcpControl::Syn) && reply.ack == Some(syn.seq.wrapping_add(1)), "{reply:?}");
        let client = Client {
            seq: syn.seq.wrapping_add(1),
            ack: reply.seq.wrapping_add(1),
            template: Segment {
                mss: None,
                window_scale: None,
                sack_permitted: false,
                timestamp: syn.timestamp.map(|(value, _)| (value, reply.timestamp.unwrap().0)),
                payload: &[],
                ..syn
            },
        };
        self.now += rtt;
        let replies = self.exchange(client.segment());
        assert!(replies.is_empty(), "{replies:?}");
        client
    }

    /// As [`World::connect`] with the usual options: MSS 1460 and SACK.
    pub fn connected() -> (Self, Client) {
        let mut world = Self::plain();
        let client = world.connect(Segment { seq: 1000, mss: Some(1460), sack_permitted: true, ..SEGMENT });
        (world, client)
    }

    /// Asserts that nothing is left over.
    pub fn assert_clean(&self) {
        assert_eq!(self.stack.connections().count(), 0);
        assert_eq!((self.heads.in_use(), self.app.pool.shared()), (0, 0), "pages are held");
        assert_eq!(self.stack.buffers_available(), Config::default().receive_buffers);
        assert_eq!(self.stats.copied_bytes.get(), 0);
    }
}

/// The peer's side of a connection: what it would send next.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its SND.NXT.
    pub seq: u32,
    /// Its RCV.NXT.
    pub ack: u32,
    pub template: Segment<'static>,
}

impl Client {
    /// An acknowledgement of everything seen.
    pub fn segment(&self) -> Segment<'static> {
        Segment { seq: self.seq, ack: Some(self.ack), ..self.template }
    }

    /// Payload, which moves the number on.
    pub fn data<'a>(&mut self, payload: &'a [u8]) -> Segment<'a> {
        let segment = Segment { payload, ..self.segment() };
        self.seq = self.seq.wrapping_add(payload.len() as u32);
        segment
    }

    /// FIN, which moves the number on.
    pub fn fin(&mut self) -> Segment<'static> {
        let segment = Segment { control: TcpControl::Fin, ..self.segment() };
        self.seq = self.seq.wrapping_add(1);
        segment
    }

    /// Takes in order what was sent and returns its payload; FIN counts.
    pub fn take(&mut self, sent: &[Sent]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for segment in sent {
            assert_eq!(segment.seq, self.ack, "out of order: {segment:?}");
            bytes.extend_from_slice(&segment.payload);
            self.ack = self.ack.wrapping_add(segment.len() + u32::from(segment.is(TcpControl::Fin)));
        }
        bytes
    }

    /// Takes everything that the stack sends while it is acknowledged at once, without time passing.
    pub fn drain(&mut self, world: &mut World) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut sent: VecDeque<Sent> = world.poll().into();
        while !sent.is_empty() {
            let batch: Vec<Sent> = sent.drain(..).collect();
            let before = self.ack;
            bytes.extend(self.take(&batch));
            if self.ack != before {
                sent.extend(world.exchange(self.segment()));
            }
        }
        bytes
    }
}
