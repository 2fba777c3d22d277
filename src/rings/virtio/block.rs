//! The disk (virtio 1.2 §5.2): many requests in flight, each straight into the pages of whoever asks.
//!
//! A request of ours becomes one request of the device, or several where the device takes fewer segments at once
//! (`seg_max`; one, if it does not say).

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;

use super::features::{BLK_BLK_SIZE, BLK_FLUSH, BLK_RO, BLK_SEG_MAX, BLK_SIZE_MAX};
use super::life::Life;
use super::queue::{Buffer, MAX_ENTRIES, SplitQueue};
use super::transport::Transport;
use super::{AnyTransport, DeviceKind, VirtioError};
use crate::rings::block_queue::BlockQueue;
use crate::rings::link::LinkEvent;
use crate::rings::shared_memory::SharedMemory;
use crate::rings::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, MAX_REQUEST_PAGES,
    PAGE_BYTES,
};
use crate::stats::Stats;

/// What is used where it is offered.
const WANTED: u64 = BLK_SIZE_MAX | BLK_SEG_MAX | BLK_RO | BLK_BLK_SIZE | BLK_FLUSH;

/// Configuration fields (§5.2.4).
mod field {
    pub const CAPACITY: usize = 0;
    pub const SIZE_MAX: usize = 8;
    pub const SEG_MAX: usize = 12;
    pub const BLK_SIZE: usize = 20;
}

/// The unit of `capacity` and of a request's `sector`, whatever the disk's sectors are.
const UNIT_BYTES: u64 = 512;

/// Request types (§5.2.6).
const TYPE_IN: u64 = 0;
const TYPE_OUT: u64 = 1;
const TYPE_FLUSH: u64 = 4;

/// Status bytes (§5.2.6), and one that no device writes.
const STATUS_OK: u8 = 0;
const STATUS_UNSUPP: u8 = 2;
const STATUS_NONE: u8 = 0xff;

/// Requests of ours that the disk holds.
const DEPTH: usize = 64;

/// Each device request's own memory: header (type, reserved, sector), and the status byte behind it.
const PLACE_BYTES: usize = 32;
const HEADER_BYTES: usize = 16;

/// Most pieces of a device request: header, pages, status.
const MAX_BUFFERS: usize = MAX_REQUEST_PAGES + 2;

/// The only queue used (§5.2.2).
const QUEUE: u16 = 0;

/// A device request on its way, by its id.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    slot: u8,
    /// Bytes that the device has to write, the status byte included.
    written_bytes: u32,
}

/// A virtio disk.
#[derive(Debug)]
pub struct VirtioBlk<T: Transport = AnyTransport> {
    life: Life<T, Geometry>,
    refused: u64,
    features: u64,
    geometry: Geometry,
    segments: usize,
    queue: SplitQueue,
    places: SharedMemory,
    asked: Box<[Asked]>,
    requests: BlockQueue<DEPTH>,
}

impl<T: Transport> VirtioBlk<T> {
    /// Resets the device and starts it, without the features in `refused` (bits of [`super::features`]). All memory, about 150 KiB,
    /// is allocated here; nothing is later.
    ///
    /// # Errors
    /// If the device can't be used; the error says why.
    pub fn new(transport: T, refused: u64, stats: Rc<Stats>) -> Result<Self, VirtioError> {
        let geometry = Geometry { sector_bytes: UNIT_BYTES as u32, sectors: 0, read_only: true };
        let mut disk = Self {
            life: Life::new(transport, DeviceKind::Block, geometry, stats)?,
            refused,
            features: 0,
            geometry,
            segments: 1,
            queue: SplitQueue::new(QUEUE, MAX_BUFFERS),
            places: SharedMemory::new(PLACE_BYTES * usize::from(MAX_ENTRIES)),
            asked: vec![Asked::default(); MAX_ENTRIES.into()].into_boxed_slice(),
            requests: BlockQueue::new(),
        };
        disk.start()?;
        Ok(disk)
    }

    /// The features that were agreed on (bits of [`super::features`]).
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Begins a life of the device, which has been reset.
    fn start(&mut self) -> Result<(), VirtioError> {
        let features = self.life.negotiate(WANTED, self.refused, |_, features| Ok(features))?;
        let (geometry, segments) = read_configuration(&mut self.life.transport, features)?;
        self.queue.start(&mut self.life.transport, features)?;
        self.features = features;
        self.geometry = geometry;
        self.segments = segments.min(self.queue.max_buffers() - 2);
        self.life.start(Some(geometry));
        // It may have changed before the device told of changes.
        self.look_at_geometry();
        Ok(())
    }

    /// Goes on with a reset, and with the life after it.
    fn recover(&mut self) {
        if self.life.has_stopped() {
            self.requests.take_back();
        }
        if self.life.wants_start()
            && let Err(error) = self.start()
        {
            self.life.give_up(Some(error));
        }
    }

    /// The configuration may have changed: the disk may have another size.
    fn look_at_geometry(&mut self) {
        match read_configuration(&mut self.life.transport, self.features) {
            Ok((geometry, _)) if geometry == self.geometry => {}
            Ok(_) => self.life.stop(),
            Err(error) => self.life.fault(error),
        }
    }

    /// Asks the device for what has not been asked for, as far as there is room.
    fn issue(&mut self) {
        let Self { queue, places, asked, requests, segments, .. } = self;
        requests.issue(*segments, |part| {
            let pages = part.pages.len();
            let Some(id) = queue.room_for(pages + 2) else { return false };
            let place = usize::from(id) * PLACE_BYTES;
            let (kind, writable) = match part.operation {
                BlockOperation::Read => (TYPE_IN, true),
                BlockOperation::Write => (TYPE_OUT, false),
                BlockOperation::Flush => (TYPE_FLUSH, false),
            };
            places.write64(place, kind);
            places.write64(place + 8, part.start / UNIT_BYTES);
            places.write8(place + HEADER_BYTES, STATUS_NONE);
            let header = Buffer { address: places.address(place), bytes: HEADER_BYTES as u32, writable: false };
            let status = Buffer { address: places.address(place + HEADER_BYTES), bytes: 1, writable: true };
            let list = (0..pages + 2).map(|at| match at.checked_sub(1) {
                None => header,
                Some(at) if at == pages => status,
                Some(at) => {
                    let address = part.pages[at].address() as u64;
                    Buffer { address, bytes: part.page_bytes(at) as u32, writable }
                }
            });
            let added = queue.add(list);
            debug_assert_eq!(added, id);
            let written_bytes = 1 + if writable { part.bytes as u32 } else { 0 };
            asked[usize::from(id)] = Asked { slot: part.slot, written_bytes };
            true
        });
    }

    /// Takes the device's answers.
    fn collect(&mut self) -> Result<(), VirtioError> {
        while let Some(used) = self.queue.pop()? {
            let Asked { slot, written_bytes } = self.asked[usize::from(used.id)];
            let status = self.places.read8(usize::from(used.id) * PLACE_BYTES + HEADER_BYTES);
            self.life.count_work(1);
            self.requests.answered(
                slot,
                match status {
                    // Legacy devices may get the length wrong (§2.7.8.1); others have not written all that was asked for.
                    STATUS_OK if used.bytes < written_bytes && !self.life.transport.is_legacy() => {
                        Err(BlockError::Failed)
                    }
                    STATUS_OK => Ok(()),
                    STATUS_UNSUPP => Err(BlockError::Unsupported),
                    _ => Err(BlockError::Failed),
                },
            );
        }
        Ok(())
    }

    /// First byte and bytes of a request that fits the disk; `None` if there is nothing to do for it.
    fn prepare(&self, request: &mut BlockRequest) -> Result<Option<(u64, usize)>, BlockError> {
        let (start, bytes) = request.prepare(&self.geometry)?;
        // Without a cache every write that has completed is durable.
        let is_done = request.operation == BlockOperation::Flush && self.features & BLK_FLUSH == 0;
        Ok((!is_done).then_some((start, bytes)))
    }
}

/// Geometry, and most segments of a request.
fn read_configuration<T: Transport>(transport: &mut T, features: u64) -> Result<(Geometry, usize), VirtioError> {
    let (capacity, size_max, seg_max, sector_bytes) = Life::<T, Geometry>::configuration(transport, |transport| {
        let low = transport.config32(field::CAPACITY)?;
        let high = transport.config32(field::CAPACITY + 4)?;
        let mut optional = |feature, offset, otherwise| {
            if features & feature == 0 { Ok(otherwise) } else { transport.config32(offset) }
        };
        let size_max = optional(BLK_SIZE_MAX, field::SIZE_MAX, u32::MAX)?;
        let seg_max = optional(BLK_SEG_MAX, field::SEG_MAX, 1)?;
        let sector_bytes = optional(BLK_BLK_SIZE, field::BLK_SIZE, UNIT_BYTES as u32)?;
        Ok((u64::from(high) << 32 | u64::from(low), size_max, seg_max, sector_bytes))
    })?;
    if (size_max as usize) < PAGE_BYTES {
        return Err(VirtioError::BadConfiguration("size_max"));
    }
    if !sector_bytes.is_power_of_two() || !(UNIT_BYTES as u32..=PAGE_BYTES as u32).contains(&sector_bytes) {
        return Err(VirtioError::BadConfiguration("blk_size"));
    }
    let sectors = capacity / (u64::from(sector_bytes) / UNIT_BYTES);
    let segments = (seg_max as usize).clamp(1, MAX_REQUEST_PAGES);
    Ok((Geometry { sector_bytes, sectors, read_only: features & BLK_RO != 0 }, segments))
}

impl<T: Transport> BlockDevice for VirtioBlk<T> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn event(&mut self) -> Option<BlockEvent> {
        self.recover();
        Some(match self.life.event()? {
            LinkEvent::Down => BlockEvent::Down,
            LinkEvent::Up(geometry) => BlockEvent::Up(geometry),
            LinkEvent::Gone => BlockEvent::Gone,
        })
    }

    fn submit(&mut self, mut request: BlockRequest) -> Result<(), BlockRequest> {
        if !self.life.is_up() || !self.requests.has_room() {
            return Err(request);
        }
        let prepared = self.prepare(&mut request);
        self.requests.accept(request, prepared);
        self.issue();
        Ok(())
    }

    fn flush(&mut self) {
        if self.life.is_running() {
            self.life.publish(&mut self.queue);
        }
    }

    fn complete(&mut self, sink: &mut dyn FnMut(BlockCompletion)) -> usize {
        if self.life.is_running() {
            match self.collect() {
                Ok(()) => {
                    self.issue();
                    self.flush();
                }
                Err(error) => self.life.fault(error),
            }
        }
        self.requests.complete(sink)
    }

    fn arm(&mut self) -> bool {
        if self.life.look() {
            self.look_at_geometry();
        }
        let answered = self.life.is_running() && self.queue.arm(0);
        answered || self.requests.has_finished() || self.life.is_due()
    }
}

impl<T: Transport> Drop for VirtioBlk<T> {
    fn drop(&mut self) {
        if !self.life.reset() {
            // It may still use its memory, so nobody else ever does.
            self.queue.abandon();
            self.places.abandon();
            self.requests.abandon();
        }
    }
}
