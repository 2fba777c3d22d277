//! The TCP that serves: passive open, small receive, large zero-copy send with segmentation offload.
//!
//! What may enter this room: TCP (RFC 9293 and its companions, one duty a file) over page slices. It knows no HTTP and no
//! disk; it calls an [`Application`], which answers into an [`Outbox`]. Sans-I/O: segments and time in, segments out.

//!
//! | file | duty |
//! |---|---|
//! | `application` | the border to what is served |
//! | `stack`, `arrivals`, `lifecycle` | `poll` and the ready list; where a segment goes; beginnings, ends and timers |
//! | `table`, `listener`, `time_wait` | finding connections; handshakes; ended ones |
//! | `connection`, `receive`, `acknowledge`, `transmit` | one connection: variables, acceptability, acknowledgements, what to send |
//! | `serve`, `outbox` | the application's calls |
//! | `send_queue`, `receive_buffer` | bytes that wait |
//! | `scoreboard`, `recovery`, `congestion`, `rtt` | losses, rates, times |
//! | `segment`, `checksum`, `reply` | headers on the way out; answers that belong to no connection |
//! | `sequence`, `links`, `timers`, `deadline`, `context`, `config`, `info` | small parts |

mod acknowledge;
mod application;
mod arrivals;
mod checksum;
mod config;
mod congestion;
mod connection;
mod context;
mod deadline;
mod info;
mod lifecycle;
mod links;
mod listener;
mod outbox;
mod receive;
mod receive_buffer;
mod recovery;
mod reply;
mod rtt;
mod scoreboard;
mod segment;
mod send_queue;
mod sequence;
mod serve;
mod stack;
mod table;
mod time_wait;
mod timers;
mod transmit;

#[cfg(test)]
mod tests;

pub use application::{Application, CloseReason, ConnectionId, Outbox, Peer};
pub use config::Config;
pub use info::ConnectionInfo;
pub use segment::RxSegment;
pub use stack::Stack;
