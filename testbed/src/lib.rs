//! What tests and measurements build around the product: network namespaces, joined by virtual Ethernet, virtual machines, a Xen
//! host, small Linux systems, and what lies in folders.
//!
//! What may enter: what more than one of the tests, the measurements and the chores needs of the machine around them. Nothing of
//! the product itself.
#![forbid(unsafe_code)]

mod console;
pub mod cpio;
pub mod debian;
mod files;
pub mod linux;
mod namespace;
pub mod qemu;
mod telnet;
pub mod xen;

pub use files::files;
pub use namespace::{Namespace, join, obstacle};
pub use telnet::Telnet;
