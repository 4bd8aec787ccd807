//! Frames that the server sends.

use std::io::Cursor;
use tungstenite::Utf8Bytes;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// Longest head of a frame without a mask: 2 bytes and 8 of length.
const HEAD_MAX: usize = 10;

/// Head of a frame that the server sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: u8,
}

impl Head {
    /// The bytes to write; none for the default.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Head of a binary message in one frame.
#[must_use]
pub fn binary_head(len: usize) -> Head {
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    let mut head = Cursor::new([0; HEAD_MAX]);
    header.format(len as u64, &mut head).expect("there is room for the longest head");
    Head { len: head.position() as u8, bytes: head.into_inner() }
}

/// A close frame that says no more than its code.
#[must_use]
pub fn close_frame(code: CloseCode) -> Vec<u8> {
    let mut out = Vec::new();
    let frame = Frame::close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
    frame.format(&mut out).expect("a vector takes all bytes");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_the_shortest_length() {
        for (len, expected) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(binary_head(len).as_bytes().len(), expected);
        }
        assert_eq!(binary_head(300).as_bytes(), [0x82, 126, 1, 44]);
        assert_eq!(binary_head(70_000).as_bytes(), [0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
        assert_eq!(Head::default().as_bytes(), [0; 0]);
    }

    #[test]
    fn a_close_frame_holds_its_code() {
        assert_eq!(close_frame(CloseCode::Normal), [0x88, 2, 0x03, 0xE8]);
    }
}
