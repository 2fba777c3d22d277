//! The simulated world around the appliance: what is on the other side of its rings, on virtual time, from one seed.

pub mod devices;
pub mod fetcher;
pub mod host;
pub mod in_memory;
pub mod link;
pub mod nic;
pub mod on_xen;
pub mod population;
pub mod script;
pub mod site;
pub mod world;
