//! Bytes to frames: the incremental decoder (specification sections 2.3 to 2.6).

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::body;
use crate::codes::{Flags, FrameKind};
use crate::cursor::{ReadError, Reader};
use crate::frame::Frame;
use crate::{FRAME_BODY_MAX, TEXT_MAX};

/// How a peer broke the framing or the layout. There is no resynchronisation: the connection is to be closed.
///
/// Offsets count from the start of the frame's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The type nibble is 0 or 13 to 15.
    ReservedType {
        /// The nibble.
        nibble: u8,
    },
    /// The Remaining Length does not end with its fourth byte.
    LengthTooLong {
        /// The frame's type.
        kind: FrameKind,
    },
    /// The Remaining Length is above [`FRAME_BODY_MAX`].
    FrameTooLarge {
        /// The frame's type.
        kind: FrameKind,
        /// The Remaining Length.
        len: u32,
    },
    /// The body ends before or inside a required field.
    Truncated {
        /// The frame's type.
        kind: FrameKind,
        /// Where the field begins.
        at: u32,
    },
    /// A text announces more than [`TEXT_MAX`] bytes.
    TextTooLong {
        /// The frame's type.
        kind: FrameKind,
        /// Where the field begins.
        at: u32,
    },
    /// A text is not UTF-8.
    InvalidUtf8 {
        /// The frame's type.
        kind: FrameKind,
        /// Where the field begins.
        at: u32,
    },
}

impl Violation {
    /// A stable word for the cause, for counters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Violation::ReservedType { .. } => "reserved_type",
            Violation::LengthTooLong { .. } => "length_too_long",
            Violation::FrameTooLarge { .. } => "frame_too_large",
            Violation::Truncated { .. } => "truncated",
            Violation::TextTooLong { .. } => "text_too_long",
            Violation::InvalidUtf8 { .. } => "invalid_utf8",
        }
    }

    fn in_body(kind: FrameKind, error: ReadError) -> Violation {
        match error {
            ReadError::Truncated { at } => Violation::Truncated { kind, at },
            ReadError::TextTooLong { at } => Violation::TextTooLong { kind, at },
            ReadError::InvalidUtf8 { at } => Violation::InvalidUtf8 { kind, at },
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::ReservedType { nibble } => write!(f, "frame type {nibble} does not exist"),
            Violation::LengthTooLong { kind } => {
                write!(f, "{kind}: remaining length longer than 4 bytes")
            }
            Violation::FrameTooLarge { kind, len } => {
                write!(f, "{kind}: remaining length {len} above {FRAME_BODY_MAX}")
            }
            Violation::Truncated { kind, at } => {
                write!(f, "{kind}: body ends inside the field at offset {at}")
            }
            Violation::TextTooLong { kind, at } => {
                write!(f, "{kind}: text at body offset {at} announces more than {TEXT_MAX} bytes")
            }
            Violation::InvalidUtf8 { kind, at } => {
                write!(f, "{kind}: text at body offset {at} is not UTF-8")
            }
        }
    }
}

impl core::error::Error for Violation {}

/// A complete fixed header.
#[derive(Clone, Copy)]
struct Header {
    kind: FrameKind,
    flags: Flags,
    /// Bytes of the header itself.
    head: usize,
    /// Bytes of the whole frame.
    total: usize,
}

/// Reads the fixed header (specification sections 2.1 and 2.3); none if `bytes` ends inside it.
fn header(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let Some((&first, lengths)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(kind) = FrameKind::from_nibble(first >> 4) else {
        return Err(Violation::ReservedType { nibble: first >> 4 });
    };
    let flags = Flags(first & 0x0F);
    if matches!(kind, FrameKind::Ping | FrameKind::Pong) {
        return Ok(Some(Header { kind, flags, head: 1, total: 1 }));
    }
    let mut len = 0_usize;
    for (index, &byte) in lengths.iter().take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            if len > FRAME_BODY_MAX {
                return Err(Violation::FrameTooLarge { kind, len: u32::try_from(len).unwrap_or(u32::MAX) });
            }
            let head = index + 2;
            return Ok(Some(Header { kind, flags, head, total: head + len }));
        }
    }
    if lengths.len() >= 4 { Err(Violation::LengthTooLong { kind }) } else { Ok(None) }
}

/// Reads the body of `frame`, which is exactly one frame with the given header.
fn parse(frame: &Bytes, header: Header, version: u8) -> Result<Frame, Violation> {
    let mut reader = Reader::after(frame, header.head);
    body::read(header.kind, header.flags, version, &mut reader).map_err(|error| Violation::in_body(header.kind, error))
}

/// Decodes the first frame of `bytes` and how many bytes it takes; none if the frame is incomplete.
pub fn decode_one(bytes: &Bytes, version: u8) -> Result<Option<(Frame, usize)>, Violation> {
    match header(bytes)? {
        Some(header) if bytes.len() >= header.total => {
            let frame = parse(&bytes.slice(..header.total), header, version)?;
            Ok(Some((frame, header.total)))
        }
        _ => Ok(None),
    }
}

/// Decodes a stream of frames delivered in chunks that end anywhere (specification section 2.6).
///
/// `feed` a chunk, then call `next` until it returns `None` or a violation. Frames that lie within one chunk share its
/// memory; only a frame that spans chunks is gathered in a buffer, which grows with what arrived and not with what was
/// announced. With nothing buffered the decoder owns no heap memory.
#[derive(Clone, Debug)]
pub struct Decoder {
    version: u8,
    /// The beginning of a frame that did not end in its chunk. Never a whole frame, except within `next`.
    partial: Vec<u8>,
    /// What follows `partial`: the unread part of a chunk.
    chunk: Bytes,
    /// What follows `chunk`: chunks fed before it was read to the end.
    backlog: Vec<u8>,
    failed: Option<Violation>,
}

impl Decoder {
    /// A decoder for frames in the layout of `version`. CONNECT looks the same at every version.
    #[must_use]
    pub fn new(version: u8) -> Decoder {
        Decoder { version, partial: Vec::new(), chunk: Bytes::new(), backlog: Vec::new(), failed: None }
    }

    /// Changes the layout, from the next frame that `next` returns on, whenever its bytes were fed.
    pub fn set_version(&mut self, version: u8) {
        self.version = version;
    }

    /// The layout in use.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Bytes fed and not yet returned as frames.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.partial.len() + self.chunk.len() + self.backlog.len()
    }

    /// Appends received bytes. Copies only if earlier bytes still wait to be read by `next`; ignored after a violation.
    pub fn feed(&mut self, bytes: Bytes) {
        if self.failed.is_some() {
            return;
        }
        if self.chunk.is_empty() && self.backlog.is_empty() {
            self.chunk = bytes;
        } else {
            self.backlog.extend_from_slice(&bytes);
        }
    }

    /// The next frame; none if more bytes are needed. A violation is final: every later call returns it again.
    #[allow(clippy::should_implement_trait, reason = "an iterator would have to end, this one resumes after `feed`")]
    pub fn next(&mut self) -> Result<Option<Frame>, Violation> {
        if let Some(violation) = self.failed {
            return Err(violation);
        }
        let result = self.advance();
        if let Err(violation) = result {
            *self = Decoder { failed: Some(violation), ..Decoder::new(self.version) };
        }
        result
    }

    fn advance(&mut self) -> Result<Option<Frame>, Violation> {
        loop {
            if self.chunk.is_empty() {
                self.chunk = Bytes::from(core::mem::take(&mut self.backlog));
                if self.chunk.is_empty() {
                    return Ok(None);
                }
            }
            if self.partial.is_empty() {
                match header(&self.chunk)? {
                    Some(header) if self.chunk.len() >= header.total => {
                        let frame = self.take_chunk(header.total);
                        return parse(&frame, header, self.version).map(Some);
                    }
                    header => self.gather(self.chunk.len(), header),
                }
            } else {
                let header = header(&self.partial)?;
                // A header is completed byte by byte: how long it is shows only at its last byte.
                let missing = header.map_or(1, |header| header.total - self.partial.len());
                self.gather(missing.min(self.chunk.len()), header);
            }
            match header(&self.partial)? {
                Some(header) if self.partial.len() == header.total => {
                    let frame = Bytes::from(core::mem::take(&mut self.partial));
                    return parse(&frame, header, self.version).map(Some);
                }
                _ => {}
            }
        }
    }

    /// Takes the first `len` bytes of the chunk, and lets go of the chunk if that is all of it.
    fn take_chunk(&mut self, len: usize) -> Bytes {
        if len == self.chunk.len() { core::mem::take(&mut self.chunk) } else { self.chunk.split_to(len) }
    }

    /// Moves `len` bytes of the chunk to the end of the partial frame, whose room is at most twice what it holds.
    fn gather(&mut self, len: usize, header: Option<Header>) {
        let taken = self.take_chunk(len);
        let needed = self.partial.len() + taken.len();
        if needed > self.partial.capacity() {
            let total = header.map_or(needed, |header| header.total);
            self.partial.reserve_exact(total.min(2 * needed) - self.partial.len());
        }
        self.partial.extend_from_slice(&taken);
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec;

    use super::*;

    fn drain(decoder: &mut Decoder) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next().unwrap() {
            frames.push(frame);
        }
        frames
    }

    fn heap_free(decoder: &Decoder) -> bool {
        decoder.partial.capacity() == 0 && decoder.backlog.capacity() == 0 && decoder.chunk.is_empty()
    }

    const RECVACK: [u8; 14] = [0x62, 12, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 42];

    #[test]
    fn whole_frames_share_the_chunk() {
        let mut bytes = vec![0x70];
        bytes.extend_from_slice(&[0xC0, 16, 0, 1, b'i', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'{', b' ', b'}']);
        let chunk = Bytes::from(bytes);
        let mut decoder = Decoder::new(5);
        decoder.feed(chunk.clone());
        let frames = drain(&mut decoder);
        let [Frame::Ping, Frame::Event(event)] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(event.id.as_bytes().as_ptr(), chunk[5..].as_ptr());
        assert_eq!(event.data.as_ptr(), chunk[16..].as_ptr());
        assert!(heap_free(&decoder));
        drop(frames);
        assert!(chunk.is_unique(), "the decoder lets go of the chunk");
    }

    #[test]
    fn a_gathered_frame_leaves_nothing_behind() {
        let mut decoder = Decoder::new(5);
        for (index, byte) in RECVACK.iter().enumerate() {
            assert_eq!(decoder.buffered(), index);
            decoder.feed(Bytes::copy_from_slice(&[*byte]));
            let frames = drain(&mut decoder);
            assert_eq!(frames.len(), usize::from(index + 1 == RECVACK.len()));
        }
        assert!(heap_free(&decoder));
    }

    #[test]
    fn an_announced_size_is_not_allocated() {
        let mut decoder = Decoder::new(5);
        decoder.feed(Bytes::from_static(&[0x30, 0x80, 0x80, 0x40, 1, 2, 3]));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.partial.capacity(), 14);
        for fed in 8..100_000_usize {
            decoder.feed(Bytes::from_static(&[0]));
            assert_eq!(decoder.next(), Ok(None));
            assert!(decoder.buffered() == fed && decoder.partial.capacity() <= 2 * fed);
        }
        decoder.feed(Bytes::from(vec![0; FRAME_BODY_MAX + 4 - decoder.buffered() - 1]));
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.partial.capacity(), FRAME_BODY_MAX + 4);
        decoder.feed(Bytes::from_static(&[0, 0x70]));
        assert!(matches!(decoder.next(), Ok(Some(Frame::Send(_)))));
        assert_eq!(decoder.next(), Ok(Some(Frame::Ping)));
        assert!(heap_free(&decoder));
    }

    #[test]
    fn chunks_may_be_fed_ahead_of_reading() {
        let mut decoder = Decoder::new(5);
        let stream = [&RECVACK[..], &[0x70], &RECVACK[..]].concat();
        for chunk in stream.chunks(3) {
            decoder.feed(Bytes::copy_from_slice(chunk));
        }
        assert_eq!(decoder.buffered(), stream.len());
        let kinds: Vec<_> = drain(&mut decoder).iter().map(Frame::kind).collect();
        assert_eq!(kinds, [FrameKind::RecvAck, FrameKind::Ping, FrameKind::RecvAck]);
        assert!(heap_free(&decoder));
    }

    #[test]
    fn a_reader_that_pauses_loses_no_order() {
        let mut decoder = Decoder::new(5);
        let stream = [&[0x70, 0x80], &RECVACK[..], &[0x80, 0x70]].concat();
        let mut kinds = Vec::new();
        for chunk in stream.chunks(4) {
            decoder.feed(Bytes::copy_from_slice(chunk));
            kinds.extend(decoder.next().unwrap().iter().map(Frame::kind));
        }
        kinds.extend(drain(&mut decoder).iter().map(Frame::kind));
        use FrameKind::{Ping, Pong, RecvAck};
        assert_eq!(kinds, [Ping, Pong, RecvAck, Pong, Ping]);
        assert!(heap_free(&decoder));

        // Here the chunk ends with a frame while later bytes already wait behind it.
        decoder.feed(Bytes::from_static(&[0x70]));
        decoder.feed(Bytes::from_static(&[0x80]));
        assert_eq!(decoder.next(), Ok(Some(Frame::Ping)));
        decoder.feed(Bytes::from_static(&[0x70]));
        assert_eq!(drain(&mut decoder), [Frame::Pong, Frame::Ping]);
    }

    #[test]
    fn a_split_header_takes_nothing_from_what_follows() {
        let truncated = Violation::Truncated { kind: FrameKind::Disconnect, at: 0 };
        let mut decoder = Decoder::new(5);
        decoder.feed(Bytes::from_static(&[0x70, 0x90]));
        assert_eq!(decoder.next(), Ok(Some(Frame::Ping)));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(Bytes::from_static(&[0x00, 0x70, 0x70]));
        assert_eq!(decoder.next(), Err(truncated));
    }

    #[test]
    fn a_violation_is_final_and_comes_after_the_frames_before_it() {
        let mut decoder = Decoder::new(5);
        decoder.feed(Bytes::from_static(&[0x7F, 0x80, 0x00, 0x70]));
        assert_eq!(decoder.next(), Ok(Some(Frame::Ping)));
        assert_eq!(decoder.next(), Ok(Some(Frame::Pong)));
        let violation = Violation::ReservedType { nibble: 0 };
        assert_eq!(decoder.next(), Err(violation));
        decoder.feed(Bytes::from_static(&[0x70]));
        assert_eq!(decoder.next(), Err(violation));
        assert_eq!((decoder.buffered(), decoder.version()), (0, 5));
        assert!(heap_free(&decoder));
        assert_eq!(violation.to_string(), "frame type 0 does not exist");
    }

    #[test]
    fn the_version_applies_to_frames_not_yet_returned() {
        let mut decoder = Decoder::new(5);
        let mut long = RECVACK.to_vec();
        long[1] = 16;
        long.extend_from_slice(&[0, 0, 0, 7]);
        decoder.feed(Bytes::from([&RECVACK[..], &long[..]].concat()));
        let Ok(Some(Frame::RecvAck(first))) = decoder.next() else { panic!("no frame") };
        decoder.set_version(6);
        let Ok(Some(Frame::RecvAck(second))) = decoder.next() else { panic!("no frame") };
        assert_eq!((first.message_seq, second.message_seq), (42, (42 << 32) | 7));
    }

    #[test]
    fn lengths() {
        let kind = FrameKind::Send;
        let one = |bytes: &'static [u8]| decode_one(&Bytes::from_static(bytes), 5);
        assert_eq!(one(&[]), Ok(None));
        assert_eq!(one(&[0x30, 0x80, 0x80, 0x80]), Ok(None));
        assert_eq!(one(&[0x30, 0x80, 0x80, 0x80, 0x80]), Err(Violation::LengthTooLong { kind }));
        assert_eq!(one(&[0x30, 0x81, 0x80, 0x40]), Err(Violation::FrameTooLarge { kind, len: 1_048_577 }));
        assert_eq!(one(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]), Err(Violation::FrameTooLarge { kind, len: 268_435_455 }));
        assert_eq!(one(&[0x30, 0x80, 0x80, 0xC0, 0x00]), Ok(None));
        assert_eq!(one(&[0x30, 0x00]), Err(Violation::Truncated { kind, at: 0 }));
    }
}
