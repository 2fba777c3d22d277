//! A device at the end of a bad wire.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::iter;
use smoltcp::time::Instant;

use super::config::{Impairment, Impairments};
use super::link::{Link, LinkCounts};
use super::rng::Rng;
use crate::rings::wire::{self, Malformed};
use crate::rings::{
    Capabilities, Full, MAX_RX_SLICES, NetEvent, NetQueue, Offload, PAGE_BYTES, PagePool, PageSlice, RxChecksum,
    RxFrame, RxGso, TxFrame,
};
use crate::stats::Stats;

/// Tells the time: the same that the owner of the device goes by.
pub type Clock = Box<dyn Fn() -> Instant>;

/// Pages for frames on the way to the inner device that don't fit its slot 0.
const TX_PAGES: usize = 256;

/// Bytes of a frame that is passed on whole which go to slot 0; the rest goes to pages.
const WHOLE_HEAD_BYTES: usize = 256;

/// What has happened on both directions of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImpairedCounts {
    /// On the way to us.
    pub rx: LinkCounts,
    /// On the way from us.
    pub tx: LinkCounts,
    /// Frames that were dropped since they could not be taken apart into segments.
    pub malformed: u64,
}

/// One direction that is not perfect.
struct Direction {
    link: Link,
    /// Frames are sent as the segments that a wire would see.
    cut: bool,
    malformed: u64,
    /// The frame that is being sent, in one piece.
    buffer: Vec<u8>,
}

impl Direction {
    /// `None` where nothing goes wrong.
    fn new(impairment: Impairment, seed: u64) -> Option<Self> {
        let cut = impairment.needs_segments();
        let direction = Self { link: Link::new(impairment, seed), cut, malformed: 0, buffer: Vec::new() };
        (!impairment.is_none()).then_some(direction)
    }

    /// Sends a frame, as segments if `cut`.
    fn send<'a>(&mut self, now: Instant, parts: impl Iterator<Item = &'a [u8]>, offload: Offload, cut: bool) {
        wire::gather(parts, &mut self.buffer);
        let link = &mut self.link;
        if !cut {
            return link.send_unfinished(now, &self.buffer, offload);
        }
        if let Err(Malformed) = wire::wire_frames(&mut self.buffer, offload, &mut |segment| link.send(now, segment)) {
            self.malformed += 1;
        }
    }
}

/// A device whose wire is bad, in one direction or both.
///
/// What is transmitted is cut into the segments that a wire would see, their checksums are completed, and only then does
/// something happen to them; what is left of them goes on to the inner device. The same is done to what the inner device
/// receives. So the capabilities stay the inner device's, and who sends goes on to build super-frames. A wire with nothing but a
/// constant delay takes super-frames as they are. A direction in which nothing goes wrong costs nothing.
///
/// `receive` and `flush` hand on what has arrived meanwhile: [`NetQueue::next_deadline`] says when to call them. Slices that
/// are copied count as [`Stats::copied_bytes`].
pub struct Impaired<N> {
    inner: N,
    clock: Clock,
    rx: Option<Direction>,
    tx: Option<Direction>,
    tx_pages: PagePool,
    rx_pages: PagePool,
    /// The inner device took no more of what has arrived at its end.
    tx_stalled: bool,
    /// It took more again after whoever transmits had last looked.
    tx_resumed: bool,
    stats: Rc<Stats>,
}

impl<N: NetQueue> Impaired<N> {
    /// Puts a wire in front of `inner`.
    pub fn new(inner: N, impairments: Impairments, clock: Clock, stats: Rc<Stats>) -> Self {
        let mut seeds = Rng::new(impairments.seed);
        let (rx_seed, tx_seed) = (seeds.next(), seeds.next());
        let rx = Direction::new(impairments.rx, rx_seed);
        let tx = Direction::new(impairments.tx, tx_seed);
        // One page is as few as a pool may have.
        let tx_pages = PagePool::new(tx.as_ref().map_or(1, |_| TX_PAGES));
        let rx_pages = PagePool::new(rx.as_ref().map_or(1, |_| MAX_RX_SLICES));
        Self { inner, clock, rx, tx, tx_pages, rx_pages, tx_stalled: false, tx_resumed: false, stats }
    }

    /// The device at the other end of the wire.
    pub fn inner(&self) -> &N {
        &self.inner
    }

    /// The device at the other end of the wire, to be told what it is told beside its queue.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.inner
    }

    /// What has happened on the wire.
    pub fn counts(&self) -> ImpairedCounts {
        let of = |direction: &Option<Direction>| direction.as_ref().map(|it| it.link.counts()).unwrap_or_default();
        let malformed = [&self.rx, &self.tx].into_iter().flatten().map(|it| it.malformed).sum();
        ImpairedCounts { rx: of(&self.rx), tx: of(&self.tx), malformed }
    }

    /// Hands what has arrived at the inner device's end to it.
    fn pass_on(&mut self) {
        let Some(direction) = &mut self.tx else { return };
        let (inner, pages) = (&mut self.inner, &self.tx_pages);
        let capabilities = inner.capabilities();
        let mut stalled = false;
        direction.link.deliver((self.clock)(), &mut |frame, offload| {
            stalled = transmit(inner, &capabilities, pages, frame, offload).is_err();
            !stalled
        });
        self.tx_stalled = stalled;
    }
}

/// Gives a frame in one piece to `inner`: what does not fit slot 0 in pages.
fn transmit(
    inner: &mut impl NetQueue,
    capabilities: &Capabilities,
    pages: &PagePool,
    frame: &[u8],
    offload: Offload,
) -> Result<(), Full> {
    let in_head = match offload {
        Offload::None if frame.len() <= capabilities.head_bytes => frame.len(),
        _ => frame.len().min(capabilities.head_bytes).min(WHOLE_HEAD_BYTES),
    };
    let (head, rest) = frame.split_at(in_head);
    let slices = in_pages(rest, pages).ok_or(Full)?;
    inner.transmit(&TxFrame { head, slices: &slices, offload })
}

/// `bytes`, copied into pages; `None` if there are too few.
fn in_pages(bytes: &[u8], pages: &PagePool) -> Option<Vec<PageSlice>> {
    bytes.chunks(PAGE_BYTES).map(|chunk| in_page(chunk, pages)).collect()
}

/// At most a page of bytes, copied into one.
fn in_page(bytes: &[u8], pages: &PagePool) -> Option<PageSlice> {
    let mut page = pages.allocate()?;
    page.bytes_mut()?[..bytes.len()].copy_from_slice(bytes);
    Some(page.slice(0, bytes.len()))
}

/// Whether `inner` takes a frame of so many bytes as it is, packed into pages.
fn fits_whole(bytes: usize, capabilities: &Capabilities) -> bool {
    let in_head = capabilities.head_bytes.min(WHOLE_HEAD_BYTES);
    bytes.saturating_sub(in_head).div_ceil(PAGE_BYTES) < capabilities.max_slots
        && bytes <= TX_PAGES * PAGE_BYTES
        && bytes <= capabilities.max_frame_bytes
}

impl<N: NetQueue> NetQueue for Impaired<N> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn event(&mut self) -> Option<NetEvent> {
        let event = self.inner.event()?;
        if matches!(event, NetEvent::Down | NetEvent::Gone) {
            [&mut self.rx, &mut self.tx].into_iter().flatten().for_each(|direction| direction.link.clear());
            self.tx_stalled = false;
        }
        Some(event)
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        let Some(direction) = &mut self.rx else { return self.inner.receive(budget, sink) };
        let now = (self.clock)();
        self.inner.receive(budget, &mut |frame| {
            let offload = wire::offload_of(frame);
            let cut = direction.cut
                || matches!((frame.gso, frame.checksum), (Some(_), RxChecksum::Unknown | RxChecksum::Verified));
            direction.send(now, frame.slices.iter().map(PageSlice::bytes), offload, cut);
        });
        let pages = &self.rx_pages;
        let mut lent = 0;
        direction.link.deliver(now, &mut |frame, offload| {
            if lent == budget {
                return false;
            }
            lent += 1;
            let (checksum, gso) = match offload {
                Offload::None => (RxChecksum::Unknown, None),
                Offload::Checksum(partial) => (RxChecksum::Partial(partial), None),
                Offload::Segment { checksum, family, mss_bytes } => {
                    (RxChecksum::Partial(checksum), Some(RxGso { family, mss_bytes }))
                }
            };
            let slices: Option<ArrayVec<PageSlice, MAX_RX_SLICES>> =
                frame.chunks(PAGE_BYTES).map(|chunk| in_page(chunk, pages)).collect();
            // No slices: the sink keeps pages that it should not, and loses frames for it.
            if let Some(slices) = slices {
                sink(&RxFrame { slices, checksum, gso });
            }
            true
        });
        lent
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        let Some(direction) = &mut self.tx else { return self.inner.transmit(frame) };
        if self.tx_stalled {
            return Err(Full);
        }
        let slices_bytes: usize = frame.slices.iter().map(PageSlice::len).sum();
        self.stats.copied_bytes.add(slices_bytes as u64);
        let cut = direction.cut || !fits_whole(frame.len(), &self.inner.capabilities());
        let parts = iter::once(frame.head).chain(frame.slices.iter().map(PageSlice::bytes));
        direction.send((self.clock)(), parts, frame.offload, cut);
        Ok(())
    }

    fn flush(&mut self) {
        let stalled = self.tx_stalled;
        self.pass_on();
        self.tx_resumed = stalled && !self.tx_stalled;
        self.inner.flush();
    }

    fn reclaim(&mut self) -> usize {
        let frames = self.inner.reclaim();
        if self.tx_stalled {
            self.pass_on();
        }
        frames
    }

    fn arm(&mut self) -> bool {
        self.inner.arm() || core::mem::take(&mut self.tx_resumed)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let rx = self.rx.as_ref().and_then(|direction| direction.link.next_deadline());
        // While the inner device is full, it is its wake-up that counts.
        let tx = self.tx.as_ref().filter(|_| !self.tx_stalled).and_then(|direction| direction.link.next_deadline());
        [self.inner.next_deadline(), rx, tx].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
