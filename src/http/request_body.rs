//! Request bodies: read and dropped, so that the next request on the connection is found (RFC 9112 §6, §7.1).

use super::request::Framing;

/// The body can't be followed to its end: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The chunked coding is malformed.
    Malformed,
    /// The body, with its chunk headers and trailer, is longer than the limit.
    TooLong,
}

/// What is left to come of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBody {
    state: State,
    /// How many more bytes may come.
    allowed_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    End,
    /// Content that is left, of a body with a length.
    Content {
        left_bytes: u64,
    },
    /// In the digits of a chunk's size.
    Size {
        size_bytes: u64,
        digits: u8,
    },
    /// Between size and the end of its line.
    Extension {
        size_bytes: u64,
    },
    /// The LF of the size's line.
    SizeEnd {
        size_bytes: u64,
    },
    /// Content of a chunk that is left.
    Chunk {
        left_bytes: u64,
    },
    /// The CR behind a chunk.
    ChunkCr,
    /// The LF behind a chunk.
    ChunkLf,
    /// At the start of a line of the trailer section.
    TrailerStart,
    /// Within a line of it.
    TrailerLine,
    /// The LF of such a line.
    TrailerLf,
    /// The LF of the empty line.
    LastLf,
}

impl RequestBody {
    /// No body, or one that has been read.
    pub const NONE: Self = Self { state: State::End, allowed_bytes: 0 };

    /// The body of a request; `limit_bytes` bounds all of it.
    pub fn new(framing: Framing, limit_bytes: u64) -> Self {
        let state = match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Content { left_bytes: length },
            Framing::Chunked => State::Size { size_bytes: 0, digits: 0 },
        };
        Self { state, allowed_bytes: limit_bytes }
    }

    /// True when all of it has been read.
    pub fn is_read(&self) -> bool {
        self.state == State::End
    }

    /// True if it is known already to be longer than the limit.
    pub fn is_too_long(&self) -> bool {
        matches!(self.state, State::Content { left_bytes } if left_bytes > self.allowed_bytes)
    }

    /// Reads from the front of `data` and returns how many bytes belong to the body.
    pub fn skip(&mut self, data: &[u8]) -> Result<usize, BodyError> {
        let mut at = 0;
        while at < data.len() && self.state != State::End {
            let taken = match &mut self.state {
                State::Content { left_bytes } | State::Chunk { left_bytes } => {
                    let taken = usize::try_from(*left_bytes).map_or(data.len() - at, |left| left.min(data.len() - at));
                    *left_bytes -= taken as u64;
                    taken
                }
                _ => {
                    self.state = self.state.after(data[at]).ok_or(BodyError::Malformed)?;
                    1
                }
            };
            self.state = match self.state {
                State::Content { left_bytes: 0 } => State::End,
                State::Chunk { left_bytes: 0 } => State::ChunkCr,
                state => state,
            };
            self.allowed_bytes = self.allowed_bytes.checked_sub(taken as u64).ok_or(BodyError::TooLong)?;
            at += taken;
        }
        Ok(at)
    }
}

impl State {
    /// The state behind one byte of framing; `None` if the byte has no place there.
    fn after(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Size { size_bytes, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = (byte as char).to_digit(16)?;
                Self::Size { size_bytes: size_bytes << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { size_bytes, digits: 1.. }, b'\r') => Self::SizeEnd { size_bytes },
            (Self::Size { size_bytes, digits: 1.. }, b';' | b' ' | b'\t') => Self::Extension { size_bytes },
            (Self::Extension { size_bytes }, b'\r') => Self::SizeEnd { size_bytes },
            (Self::Extension { .. }, byte) if is_text(byte) => self,
            (Self::SizeEnd { size_bytes: 0 }, b'\n') => Self::TrailerStart,
            (Self::SizeEnd { size_bytes }, b'\n') => Self::Chunk { left_bytes: size_bytes },
            (Self::ChunkCr, b'\r') => Self::ChunkLf,
            (Self::ChunkLf, b'\n') => Self::Size { size_bytes: 0, digits: 0 },
            (Self::TrailerStart, b'\r') => Self::LastLf,
            (Self::TrailerStart | Self::TrailerLine, byte) if is_text(byte) => Self::TrailerLine,
            (Self::TrailerLine, b'\r') => Self::TrailerLf,
            (Self::TrailerLf, b'\n') => Self::TrailerStart,
            (Self::LastLf, b'\n') => Self::End,
            _ => return None,
        })
    }
}

/// True for a byte that may stand in a line.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT_BYTES: u64 = 1000;

    fn skip(framing: Framing, data: &[u8]) -> Result<(usize, bool), BodyError> {
        let mut body = RequestBody::new(framing, LIMIT_BYTES);
        body.skip(data).map(|taken| (taken, body.is_read()))
    }

    #[test]
    fn bodies_end_where_they_say() {
        for (framing, data, taken) in [
            (Framing::Length(0), "GET", 0),
            (Framing::Length(5), "helloGET", 5),
            (Framing::Chunked, "0\r\n\r\nGET", 5),
            (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\nGET", 15),
            (Framing::Chunked, "A;name=\"value\"\r\n0123456789\r\n000\r\nTrailer: x\r\nB: y\r\n\r\nGET", 53),
            (Framing::Chunked, "1 ; a\r\nx\r\n0\t\r\n\r\n", 16),
        ] {
            assert_eq!(skip(framing, data.as_bytes()), Ok((taken, true)), "{data:?}");
        }
        assert_eq!(skip(Framing::Length(5), b"hell"), Ok((4, false)));
        assert_eq!(skip(Framing::Chunked, b"5\r\nhello\r\n0\r\n"), Ok((13, false)));
    }

    #[test]
    fn malformed_chunks() {
        for data in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\n",
            "1\nx",
            "1\rx",
            " 1\r\n",
            "1\r\nxy",
            "1\r\nx\n",
            "1\r\nx\r\r",
            ";a\r\n",
            "0\r\n\n",
            "0\r\na\n",
            "1;\0\r\n",
            "10000000000000000\r\n",
            "1;\n",
            "0\r\n\rx",
        ] {
            assert_eq!(skip(Framing::Chunked, data.as_bytes()), Err(BodyError::Malformed), "{data:?}");
        }
    }

    #[test]
    fn the_limit_counts_every_byte() {
        assert!(RequestBody::new(Framing::Length(LIMIT_BYTES + 1), LIMIT_BYTES).is_too_long());
        assert!(!RequestBody::new(Framing::Length(LIMIT_BYTES), LIMIT_BYTES).is_too_long());
        let mut endless = b"1;".to_vec();
        endless.resize(1001, b'x');
        assert_eq!(skip(Framing::Chunked, &endless), Err(BodyError::TooLong));
        assert_eq!(skip(Framing::Chunked, b"ffffffffffffffff\r\nx"), Ok((19, false)));
    }

    proptest! {
        #[test]
        fn pieces_are_read_as_the_whole(data in "[0-3a;\r\n x]{0,60}", cut in 0usize..60) {
            let data = data.as_bytes();
            let cut = cut.min(data.len());
            let mut whole = RequestBody::new(Framing::Chunked, LIMIT_BYTES);
            let at_once = whole.skip(data);
            let mut parts = RequestBody::new(Framing::Chunked, LIMIT_BYTES);
            let in_two = parts.skip(&data[..cut]).and_then(|first| Ok(first + parts.skip(&data[first.max(cut)..])?));
            prop_assert_eq!(at_once, in_two);
            if at_once.is_ok() {
                prop_assert_eq!(whole, parts);
            }
        }
    }
}
