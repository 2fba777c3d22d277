//! The memory of connections that move bytes.

use super::super::pending::Pending;
use super::early::Early;

/// Memory of a connection that moves bytes; an idle one has none.
#[derive(Default)]
pub struct Buffers {
    /// Towards the host socket.
    pub pending: Pending,
    /// Towards the appliance, until it has acknowledged them.
    pub outgoing: Vec<u8>,
    /// Segments that came before their turn.
    pub early: Early,
}

/// Buffers that no connection uses now.
#[expect(clippy::vec_box, reason = "they are passed on with every request, as one pointer")]
#[derive(Default)]
pub struct SpareBuffers(Vec<Box<Buffers>>);

impl SpareBuffers {
    /// Most spare buffers: what is beyond is given back to the allocator.
    const MAX: usize = 256;

    /// Buffers, with nothing in them.
    pub fn take(&mut self) -> Box<Buffers> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes buffers back.
    pub fn put(&mut self, mut buffers: Box<Buffers>) {
        if self.0.len() < Self::MAX {
            buffers.pending.clear();
            buffers.outgoing.clear();
            buffers.early = Early::default();
            self.0.push(buffers);
        }
    }
}
