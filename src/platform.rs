//! What an appliance asks of the world under it: what time it is, and to sleep.
//!
//! A process answers with the system's clocks and epoll; a kernel will with its timer and the halt instruction. The simulator
//! needs none: it calls [`crate::appliance::Appliance::poll`] with its virtual time. Static dispatch: a world is one type.

use smoltcp::time::Instant;

/// What is asked of the world when an appliance has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch the machine off; end the process.
    Halt,
    /// Start the machine anew.
    Reboot,
}

/// How a machine's memory is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// All memory that the machine was given, in bytes.
    pub total_bytes: u64,
    /// What the heap manages, in bytes.
    pub heap_bytes: u64,
    /// What of that is allocated, in bytes.
    pub heap_used_bytes: u64,
    /// Most that ever was, in bytes; `None` if nobody keeps count.
    pub heap_peak_bytes: Option<u64>,
    /// Allocations that have not been given back.
    pub allocations: u64,
}

/// The world under an appliance.
pub trait Platform {
    /// Why the world can't go on. [`core::convert::Infallible`] where it always can.
    type Error;

    /// Monotonic time since some moment before the first call.
    fn now(&self) -> Instant;

    /// Wall clock in seconds since 1970; 0 while it is not known.
    fn unix_s(&self) -> u64;

    /// What the world itself has to do between two rounds of the event loop: the other sides of devices that live in the same
    /// program. True if anything was done.
    ///
    /// # Errors
    /// If the world can't go on.
    fn work(&mut self) -> Result<bool, Self::Error>;

    /// Takes in what has happened meanwhile, and where that is nothing sleeps until a device wakes us or `deadline` comes
    /// (`None`: only the former). A deadline that has passed forbids to sleep. It may return early: whoever calls it looks again.
    ///
    /// # Errors
    /// If the world can't go on.
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<(), Self::Error>;
}
