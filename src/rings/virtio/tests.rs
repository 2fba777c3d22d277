//! The drivers against a device in memory that stands behind memory-mapped registers: first an honest one, then one that lies.

mod block;
mod fake;
mod hostile;
mod net;
