//! What the shell asks of the appliance.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use smoltcp::time::Instant;
use smoltcp::wire::{IpCidr, IpEndpoint};

use crate::http::{ChunkRead, HttpServer, Served};
use crate::net::NetworkStatus;
use crate::platform::{MemoryUse, Power};
use crate::rings::{Capabilities, Geometry};
use crate::stats::Stats;
use crate::tcp_gso::ConnectionInfo;

/// Who uses a session.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// Number of the session.
    pub session: u8,
    /// The client.
    pub peer: IpEndpoint,
    /// When it connected.
    pub since: Instant,
}

/// What a command works with.
pub struct Context<'a> {
    /// The appliance.
    pub machine: &'a mut dyn Machine,
    /// Who is connected.
    pub people: &'a [Person],
    /// Which session the command belongs to.
    pub session: u8,
}

/// The network interface.
#[derive(Clone, Debug)]
pub struct InterfaceInfo {
    /// MAC address.
    pub hardware_address: [u8; 6],
    /// Our addresses.
    pub addresses: Vec<IpCidr>,
    /// What the device can do.
    pub capabilities: Capabilities,
    /// What the network announces.
    pub status: NetworkStatus,
}

/// The state of a ring, as far as its device tells.
#[derive(Clone, Debug)]
pub struct RingInfo {
    /// Which ring.
    pub name: &'static str,
    /// What there is to say: a name and a number each.
    pub numbers: Vec<(&'static str, u64)>,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct BlockInfo {
    /// Its number in the order of probing.
    pub number: usize,
    /// What it is.
    pub geometry: Geometry,
    /// The volume uses it.
    pub in_use: bool,
}

/// A pool of pages.
#[derive(Clone, Copy, Debug)]
pub struct PoolInfo {
    /// Which pool.
    pub name: &'static str,
    /// All its pages, in bytes.
    pub bytes: u64,
    /// Those that are in use, in bytes.
    pub used_bytes: u64,
}

/// How the latest mount went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountState {
    /// Under way.
    Busy,
    /// It is served.
    Done,
    /// Why it isn't.
    Failed(String),
    /// Nothing is mounted, and nobody has tried since.
    Idle,
}

/// The appliance, as the shell sees it.
pub trait Machine {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// When the appliance began.
    fn started_at(&self) -> Instant;
    /// Wall clock in seconds since 1970; 0 if it is not set.
    fn unix_s(&self) -> u64;
    /// Every counter.
    fn stats(&self) -> &Stats;
    /// The HTTP server with its cache.
    fn http(&self) -> &HttpServer;
    /// The volume that is served; it stays readable as long as this is held.
    fn served(&self) -> Option<Rc<Served>>;
    /// Looks up a chunk through the cache, reading up to `ahead_chunks` ahead, for a session.
    fn read(&mut self, session: u8, served: &Served, chunk: u64, ahead_chunks: u32) -> ChunkRead<'_>;
    /// The session waits for no chunk any more.
    fn forget(&mut self, session: u8);
    /// Drops every chunk from the cache that nobody uses; returns how many.
    fn flush_cache(&mut self) -> usize;
    /// At most `most` connections.
    fn connections(&self, most: usize) -> Vec<ConnectionInfo>;
    /// Size limit of the connection table.
    fn max_connections(&self) -> usize;
    /// The network interface.
    fn interface(&self) -> InterfaceInfo;
    /// The rings.
    fn rings(&self) -> Vec<RingInfo>;
    /// The disks.
    fn disks(&self) -> Vec<BlockInfo>;
    /// Begins to mount what is on the disks; `disks` names them by number, empty for all. A volume that is mounted is
    /// replaced when the new one has been read.
    fn mount(&mut self, disks: &[usize]);
    /// How that went.
    fn mount_state(&self) -> MountState;
    /// Serves nothing any more. Without `force` it refuses while objects are open, and says how many.
    fn unmount(&mut self, force: bool) -> Result<(), usize>;
    /// The machine's memory; `None` if the platform does not tell.
    fn memory(&self) -> Option<MemoryUse>;
    /// The pools of pages, which are parts of that memory.
    fn pools(&self) -> Vec<PoolInfo>;
    /// Ends everything in order, and then has the platform act. An error says why it can't be.
    fn power(&mut self, power: Power) -> Result<(), &'static str>;
    /// Whether super-frames are sized by their connection's rate.
    fn autosizes_frames(&self) -> bool;
    /// Switches that.
    fn set_autosize_frames(&mut self, on: bool);
}
