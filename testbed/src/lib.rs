//! What tests and measurements build around the product: network namespaces, joined by virtual Ethernet.
//!
//! What may enter: what more than one of the tests, the measurements and the chores needs of the machine around them. Nothing of
//! the product itself.
#![forbid(unsafe_code)]

mod namespace;

pub use namespace::{Namespace, join, obstacle};
