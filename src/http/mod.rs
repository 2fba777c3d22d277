//! Requests, responses, and the session that feeds object pages into a connection.
//!
//! What may enter this room: HTTP (RFC 9110, 9112). It knows connections only as [`crate::tcp_gso::Outbox`]es and disks only
//! through the chunk cache.
//!
//! [`HttpServer`] is what the serving TCP serves, and [`Session`] is one connection of it. A request goes through `request` (the
//! head), `target` (what it names), `conditions` and `range` (how much of it is wanted), `answer` (what is said to it), `response` (the head that says it) and `transfer` (the
//! bytes behind it).
//!
//! # Choices
//! Where the RFCs leave a choice, this server is strict about where a message ends and lenient about what it means:
//!
//! | matter | choice |
//! |---|---|
//! | LF without CR as a line end (RFC 9112 §2.2) | 400, so that no proxy in front can see other lines than we do |
//! | `Content-Length` repeated, as a list, or beside `Transfer-Encoding` (§6.3) | 400, and the connection ends |
//! | white space in the request line (§3) | exactly one space between its parts, else 400 |
//! | empty lines before a request (§2.2) | four are skipped |
//! | bodies of GET, HEAD and OPTIONS | read and dropped up to 64 KiB, with a length or chunked; longer ones end the connection |
//! | bodies of refused requests | 405, FIN, then what arrives is dropped for a while (§9.6) |
//! | a body announced with `Expect: 100-continue` (RFC 9110 §10.1.1) | the final status at once; the connection ends |
//! | OPTIONS (RFC 9110 §9.3.7) | 204 with `Allow` |
//! | unknown methods and transfer codings | 501; known methods that no object supports 405, TRACE and CONNECT among them |
//! | `https:` in an absolute-form target | accepted: something in front ended TLS |
//! | several ranges (RFC 9110 §14.2) | the whole object |
//! | `Last-Modified` in the future (§8.8.2.1) | left out |
//! | no volume mounted, memory short, disk silent | 503 with `Retry-After`; a disk that fails 500 |
//! | links to streams of other servers | 502 |
//! | a head that ends with the connection or takes too long | 400, 408 |

mod access_log;
mod answer;
mod authority;
mod conditions;
mod config;
pub(crate) mod date;
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

pub use access_log::{Access, AccessLog, MAX_LINE_BYTES};
pub use config::Config;
pub use object_stats::{ObjectStats, PROGRESS_STEPS};
pub use response::SERVER;
pub use server::{ChunkRead, HttpServer, Served};
pub use session::Session;
