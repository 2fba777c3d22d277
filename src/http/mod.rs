//! Requests, responses, and the session that feeds object pages into a connection.
//!
//! What may enter this room: HTTP (RFC 9110, 9112). It knows connections only as [`crate::tcp_gso::Outbox`]es and disks only
//! through the chunk cache.
//!
//! [`HttpServer`] is what the serving TCP serves, and [`Session`] is one connection of it. A request goes through `request` (the
//! head), `target` (what it names), `conditions` and `range` (how much of it is wanted), `answer` (what is said to it), `response` (the head that says it) and `transfer` (the
//! bytes behind it).

mod answer;
mod authority;
mod conditions;
mod config;
mod date;
mod etag;
mod method;
mod object_stats;
mod range;
mod reader;
mod request;
mod request_body;
mod response;
mod server;
mod session;
mod status;
mod target;
mod transfer;

pub use config::Config;
pub use object_stats::{ObjectStats, PROGRESS_STEPS};
pub use response::SERVER;
pub use server::{ChunkRead, HttpServer, Served};
pub use session::Session;
