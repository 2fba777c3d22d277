//! The front ends on an imitation of Xen: what they do when all is well, and when the other side is late, gone or lies.

mod block;
mod hostile_block;
mod hostile_net;
mod hostile_store;
mod net;
