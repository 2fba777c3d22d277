//! What all connections of a stack share: limits, counters, pools and secrets.

use alloc::rc::Rc;
use alloc::vec::Vec;

use super::Config;
use super::receive_buffer::ReceiveBuffers;
use super::reply::Replies;
use super::scoreboard::Scoreboard;
use super::send_queue::Storage;
use super::table::Secrets;
use crate::rings::{HeadPages, PAGE_BYTES, PagePool};
use crate::stats::Stats;

/// The shared part of a stack, lent to connections with each call.
pub(super) struct Context {
    /// Limits.
    pub config: Config,
    /// Counters.
    pub stats: Rc<Stats>,
    /// Keyed functions of connections' names.
    pub secrets: Secrets,
    /// Where response heads are written.
    pub heads: HeadPages,
    /// Buffers for what can't be handed on at once.
    pub buffers: ReceiveBuffers,
    /// Memory of send queues that nobody uses now.
    pub storages: Vec<Storage>,
    /// Memory of scoreboards that nobody uses now.
    pub scoreboards: Vec<Scoreboard>,
    /// Answers that belong to no connection.
    pub replies: Replies,
    /// Memory is short: no send queue takes more than this.
    pub pressure_bytes: Option<usize>,
}

impl Context {
    /// A context with its pools filled. Limits that can't be are corrected.
    pub fn new(mut config: Config, secret: [u8; 16], heads: PagePool, stats: Rc<Stats>) -> Self {
        config.receive_buffer_bytes = config.receive_buffer_bytes.clamp(PAGE_BYTES, u16::MAX.into());
        config.send_queue_min_bytes = config.send_queue_min_bytes.max(2 * PAGE_BYTES);
        config.max_connections = config.max_connections.min(1 << 24);
        Self {
            secrets: Secrets::new(secret),
            heads: HeadPages::new(heads),
            buffers: ReceiveBuffers::new(config.receive_buffers, config.receive_buffer_bytes),
            storages: Vec::new(),
            scoreboards: Vec::new(),
            replies: Replies::new(config.stateless_replies_per_s),
            pressure_bytes: None,
            config,
            stats,
        }
    }
}
