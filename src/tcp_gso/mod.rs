//! The TCP that serves: passive open, small receive, large zero-copy send with segmentation offload.
//!
//! What may enter this room: TCP (RFC 9293 and its companions, one duty a file) over page slices. It knows no HTTP and no
//! disk; it calls an [`Application`], which answers into an [`Outbox`]. Sans-I/O: segments and time in, segments out.

mod application;
mod config;
mod segment;
mod stack;

pub use application::{Application, CloseReason, ConnectionId, Outbox, Peer};
pub use config::Config;
pub use segment::RxSegment;
pub use stack::{ConnectionInfo, Stack};
