//! Segments that came before their turn, where the wire may lose or reorder some.

use smoltcp::wire::TcpControl;

use super::{WINDOW_BYTES, ahead};

/// A segment that waits for what comes before it.
pub struct EarlySegment {
    /// Its first byte.
    pub sequence: u32,
    /// FIN, or nothing.
    pub control: TcpControl,
    /// Its payload.
    pub bytes: Vec<u8>,
}

/// Segments that wait, no more than a window of bytes.
#[derive(Default)]
pub struct Early {
    segments: Vec<EarlySegment>,
    bytes: usize,
}

impl Early {
    /// Most segments that wait.
    const MAX: usize = 1024;

    /// Keeps a segment, unless it is there already or there is no room (then it will be sent again).
    pub fn put(&mut self, segment: EarlySegment) {
        let length = segment.bytes.len();
        let is_known = self.segments.iter().any(|it| it.sequence == segment.sequence && it.bytes.len() >= length);
        if !is_known && self.segments.len() < Self::MAX && self.bytes + length <= WINDOW_BYTES {
            self.bytes += length;
            self.segments.push(segment);
        }
    }

    /// Takes a segment whose turn has come: it begins at `next` or before.
    pub fn take(&mut self, next: u32) -> Option<EarlySegment> {
        let index = self.segments.iter().position(|it| ahead(it.sequence, next) <= 0)?;
        let segment = self.segments.swap_remove(index);
        self.bytes -= segment.bytes.len();
        Some(segment)
    }

    /// True if nothing waits.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}
