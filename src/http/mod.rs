//! Requests, responses, and the session that feeds object pages into a connection.
//!
//! What may enter this room: HTTP (RFC 9110, 9112). It knows connections only as [`crate::tcp_gso::Outbox`]es and disks only
//! through the chunk cache.
