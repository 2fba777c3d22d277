//! A real network interface: a TAP device of Linux with vnet headers, so that super-frames and unfinished checksums cross it in
//! both directions.
//!
//! A frame to transmit is one `writev`: header, head, slices. The kernel has copied them when it returns, so nothing is ever in
//! flight. Frames are read one by one into the device's own pages and lent from there. Nothing is allocated after the start.
//!
//! What may happen to the interface: administratively down it is a wire that is unplugged, and frames are lost (and counted).
//! Another MTU takes it [`NetEvent::Down`] and up again; it is seen as long as the interface stays in the network namespace that
//! it was opened in. Deleted, it is [`NetEvent::Gone`].
//!
//! - `open`: making or attaching to the interface, and why that fails;
//! - `header`: the vnet header, validated;
//! - `buffer`: the memory that frames are read into;
//! - `link`: the host's side: MTU, what its kernel takes, and news of changes.

mod buffer;
mod header;
mod link;
mod open;

#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;
use rustix::io::Errno;
use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use zerocopy::IntoBytes;

use crate::rings::slice::runs;
use crate::rings::{Capabilities, Full, NetEvent, NetQueue, PAGE_BYTES, RxFrame, TxFrame};
use crate::stats::Stats;

pub use open::TapError;

use buffer::ReceiveBuffer;
use header::Header;
use link::{Link, LinkSocket};

/// Longest head in bytes: an unsegmented frame of the largest usual MTU, 9,000.
const HEAD_BYTES: usize = 9014;

/// Largest MTU in bytes that a TAP interface may have, and the frame that belongs to it.
const LARGEST_MTU_BYTES: u16 = u16::MAX - 14;
const LONGEST_HEAD_BYTES: usize = u16::MAX as usize;

/// Longest super-frame in bytes: what 16 bits count, and what is of use beyond that.
const FRAME_BYTES: usize = u16::MAX as usize;
const BIG_FRAME_BYTES: usize = 256 << 10;

/// Slots of the longest super-frame: its pages where it begins within one, and the head.
const MAX_SLOTS: usize = BIG_FRAME_BYTES / PAGE_BYTES + 2;

/// The interface as its users' event loop sees it, which sleeps on its two descriptors.
///
/// Readiness of [`TapWatch::frames`] needs no answer but another round. That of [`TapWatch::news`] is told to the device with
/// [`TapWatch::set_news`]. Both may be watched edge-triggered: the device reads until there is no more, or [`NetQueue::arm`]
/// says that it has not.
#[derive(Clone)]
pub struct TapWatch {
    signals: Rc<Signals>,
    frames: RawFd,
    news: RawFd,
}

#[derive(Default)]
struct Signals {
    news: Cell<bool>,
    gone: Cell<bool>,
}

impl TapWatch {
    /// Readable when frames have come in. Valid while the [`Tap`] lives.
    pub fn frames(&self) -> RawFd {
        self.frames
    }

    /// Readable when something about the host's interfaces has changed. Valid while the [`Tap`] lives.
    pub fn news(&self) -> RawFd {
        self.news
    }

    /// [`TapWatch::news`] has become readable.
    pub fn set_news(&self) {
        self.signals.news.set(true);
    }

    /// True when the interface has been deleted.
    pub fn is_gone(&self) -> bool {
        self.signals.gone.get()
    }
}

/// A TAP interface.
pub struct Tap {
    device: OwnedFd,
    link: LinkSocket,
    signals: Rc<Signals>,
    /// What the device can do.
    capabilities: Capabilities,
    /// What the last `Up` said; `None` while the device is down.
    announced: Option<Capabilities>,
    told_gone: bool,
    /// It is a wire's end: the interface's MTU does not matter.
    is_wire: bool,
    /// The kernel has refused a frame beyond 64 KiB, or knows none.
    no_big_frames: bool,
    /// The last `receive` stopped at its budget.
    unread: bool,
    buffer: ReceiveBuffer,
    stats: Rc<Stats>,
}

impl Tap {
    /// Makes the interface `name`, which is deleted again when the device is dropped, or attaches to the one that is there.
    /// Our end's hardware address is made from `address_seed`, six random bytes.
    ///
    /// # Errors
    /// Where there is no such interface to be had; they say why, and what to do.
    pub fn open(name: &str, address_seed: [u8; 6], stats: Rc<Stats>) -> Result<Self, TapError> {
        Self::open_as(name, address_seed, stats, false)
    }

    /// As [`Tap::open`], for who carries other hosts' frames: any that an interface of whatever MTU sends. What the host's side
    /// has for an MTU does not matter, and can't be known once the interface is in another network namespace.
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn open_wire(name: &str, address_seed: [u8; 6], stats: Rc<Stats>) -> Result<Self, TapError> {
        Self::open_as(name, address_seed, stats, true)
    }

    fn open_as(name: &str, address_seed: [u8; 6], stats: Rc<Stats>, is_wire: bool) -> Result<Self, TapError> {
        let open::Opened { device, socket, link } = open::open(name)?;
        let capabilities = capabilities(hardware_address(address_seed), link, is_wire, false);
        Ok(Self {
            device,
            link: socket,
            signals: Rc::default(),
            capabilities,
            announced: None,
            told_gone: false,
            is_wire,
            no_big_frames: false,
            unread: false,
            buffer: ReceiveBuffer::new(),
            stats,
        })
    }

    /// What an event loop has to watch.
    pub fn watch(&self) -> TapWatch {
        TapWatch { signals: self.signals.clone(), frames: self.device.as_raw_fd(), news: self.link.as_fd().as_raw_fd() }
    }

    /// As [`TapWatch::frames`], borrowed.
    pub fn frames(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// As [`TapWatch::news`], borrowed.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// Looks at the host's side again.
    fn refresh(&mut self) {
        match self.link.ask() {
            Ok(Some(link)) => {
                let address = self.capabilities.hardware_address;
                self.capabilities = capabilities(address, link, self.is_wire, self.no_big_frames);
            }
            // Not in this namespace: deleted, or moved to another one, where it works as before.
            Ok(None) if open::is_deleted(self.device.as_fd()) => self.signals.gone.set(true),
            Ok(None) => {}
            Err(error) => debug!("can't look at the interface again, and take it as it was: {}", error),
        }
    }

    fn is_gone(&self) -> bool {
        self.signals.gone.get()
    }

    fn is_up(&self) -> bool {
        !self.is_gone() && self.announced == Some(self.capabilities)
    }

    /// What becomes of a frame that the kernel did not take.
    fn refused(&mut self, frame_bytes: usize, error: Errno) -> Result<(), Full> {
        match error {
            Errno::AGAIN | Errno::INTR => Err(Full),
            Errno::BADFD => {
                self.signals.gone.set(true);
                Err(Full)
            }
            // Administratively down.
            Errno::IO => Ok(()),
            error if frame_bytes > FRAME_BYTES => {
                info!(
                    "the kernel takes no frame of {} bytes ({}): none beyond {} from now on",
                    frame_bytes, error, FRAME_BYTES
                );
                self.no_big_frames = true;
                self.capabilities.max_frame_bytes = FRAME_BYTES;
                Err(Full)
            }
            error => {
                debug!("the kernel lost a frame of {} bytes: {}", frame_bytes, error);
                Ok(())
            }
        }
    }
}

/// An address of our own (locally administered, of a single host).
fn hardware_address(mut seed: [u8; 6]) -> [u8; 6] {
    seed[0] = seed[0] & 0xfc | 0x02;
    seed
}

fn capabilities(hardware_address: [u8; 6], link: Link, is_wire: bool, no_big_frames: bool) -> Capabilities {
    let big = link.big_ipv4 && !no_big_frames;
    Capabilities {
        hardware_address,
        mtu_bytes: if is_wire { LARGEST_MTU_BYTES } else { link.mtu_bytes },
        max_slots: MAX_SLOTS,
        max_frame_bytes: if big { BIG_FRAME_BYTES } else { FRAME_BYTES },
        head_bytes: if is_wire { LONGEST_HEAD_BYTES } else { HEAD_BYTES },
        checksum: true,
        tso4: true,
        tso6: true,
    }
}

impl NetQueue for Tap {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn event(&mut self) -> Option<NetEvent> {
        if self.signals.news.take() && !self.is_gone() {
            self.refresh();
        }
        if self.is_gone() {
            let told = std::mem::replace(&mut self.told_gone, true);
            return (!told).then_some(NetEvent::Gone);
        }
        match self.announced {
            Some(announced) if announced == self.capabilities => None,
            Some(_) => {
                self.announced = None;
                Some(NetEvent::Down)
            }
            None => {
                self.announced = Some(self.capabilities);
                Some(NetEvent::Up(self.capabilities))
            }
        }
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(&RxFrame)) -> usize {
        self.unread = !self.is_gone();
        let mut frames = 0;
        while frames < budget && self.unread {
            match rustix::io::read(&self.device, self.buffer.bytes_mut()) {
                Ok(bytes) => {
                    frames += 1;
                    if let Some(frame) = self.buffer.frame(bytes) {
                        self.stats.rx_frames.increment();
                        self.stats.rx_bytes.add(frame.len() as u64);
                        sink(frame);
                    } else {
                        self.stats.rx_malformed.increment();
                    }
                    self.buffer.recover();
                }
                Err(Errno::AGAIN) => self.unread = false,
                Err(Errno::BADFD) => {
                    self.signals.gone.set(true);
                    self.unread = false;
                }
                // The kernel took the frame away, but could not hand it over.
                Err(_) => {
                    frames += 1;
                    self.stats.rx_malformed.increment();
                }
            }
        }
        frames
    }

    fn transmit(&mut self, frame: &TxFrame<'_>) -> Result<(), Full> {
        frame.debug_check(&self.capabilities);
        if !self.is_up() {
            self.stats.tx_full.increment();
            return Err(Full);
        }
        let header = Header::of(frame);
        let mut parts: ArrayVec<IoSlice<'_>, { MAX_SLOTS + 1 }> = ArrayVec::new();
        parts.push(IoSlice::new(header.as_bytes()));
        parts.push(IoSlice::new(frame.head));
        parts.extend(runs(frame.slices).map(IoSlice::new));
        let frame_bytes = frame.len();
        match rustix::io::writev(&self.device, &parts) {
            Ok(_) => {
                self.stats.tx_frames.increment();
                self.stats.tx_bytes.add(frame_bytes as u64);
                self.stats.tx_slots.add(frame.slots() as u64);
                Ok(())
            }
            Err(error) => {
                let outcome = self.refused(frame_bytes, error);
                let counter = if outcome.is_ok() { &self.stats.tx_lost } else { &self.stats.tx_full };
                counter.increment();
                outcome
            }
        }
    }

    fn flush(&mut self) {}

    fn reclaim(&mut self) -> usize {
        0
    }

    /// Frames that come from now on make the descriptor readable; so no system call has to ask for those that just came.
    fn arm(&mut self) -> bool {
        let gone_untold = self.is_gone() && !self.told_gone;
        gone_untold || !self.is_gone() && (self.unread || self.signals.news.get() || !self.is_up())
    }
}
