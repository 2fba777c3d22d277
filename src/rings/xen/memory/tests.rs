//! The imitation, driven by hand as a guest would: so that the front ends' judge is judged too.

mod block;
mod hand;
mod net;
mod store;
