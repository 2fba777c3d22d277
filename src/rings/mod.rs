//! Bytes across a shared-memory ring: pages and page slices, the [`NetQueue`] and [`BlockDevice`] traits, and the
//! devices that implement them.
//!
//! What may enter this room: memory that another party can read or write, and the code that hands it over and takes it
//! back. It knows frames and sectors, and no TCP, HTTP or SHFS. With `boot` it is the only room that may say `unsafe`.
//!
//! Invariants that every device keeps:
//! - A page that the other side may write is owned by the device alone (its `Page` has been moved in), so no reference to
//!   its bytes exists meanwhile.
//! - A page that the other side may read is held by a counted reference until the other side has let go of it, so it can't
//!   be reused or written ([`Page::bytes_mut`] refuses shared pages).
//! - Every index, length and identifier that the other side writes is copied once and checked before use.

mod block_device;
mod block_queue;
mod frame;
mod free_map;
mod head_page;
mod link;
mod net_queue;
mod page;
mod shared_memory;
mod slice;

#[cfg(feature = "std")]
pub mod host;
pub mod impair;
pub mod memory;
pub mod virtio;
pub mod wire;
pub mod xen;

pub use block_device::{
    BlockCompletion, BlockDevice, BlockError, BlockEvent, BlockOperation, BlockRequest, Geometry, MAX_REQUEST_PAGES,
    PageVec,
};
pub use frame::{Family, MAX_RX_SLICES, Offload, PartialChecksum, RxChecksum, RxFrame, RxGso, TxFrame};
pub use head_page::HeadPages;
pub use net_queue::{Capabilities, Full, NetEvent, NetQueue};
pub use page::{PAGE_BYTES, Page, PagePool};
pub use slice::PageSlice;
