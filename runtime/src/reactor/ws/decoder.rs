//! What a client sends: tungstenite's context over the chunks that the reactor read.

use bytes::Bytes;
use std::io::{self, Cursor, Read, Write};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, OpCode};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Error, Message};
use wukong_core::limits;

/// What the context takes of a chunk at a time, and what it keeps room for.
const READ_SIZE: usize = 1024;
/// A context whose buffer grew for a longer frame is not used again: the buffer never shrinks.
const REUSED_MAX: u64 = 64 * 1024;
/// Longest head of a client's frame: 2 bytes, 8 of length, 4 of mask.
const HEAD_MAX: usize = 14;

/// What a received chunk held.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The payload of a text or binary message; it shares the decoder's buffer.
    Data(Bytes),
    /// A ping, and the pong frame to be written.
    Ping(Vec<u8>),
    /// A pong. Nothing to do, but the peer lives.
    Pong,
    /// The peer closes; this close frame answers it.
    Close(Vec<u8>),
    /// The peer broke the protocol: close with this code.
    Violation(CloseCode),
}

/// Decodes the frames of one client, or of several in turn: between messages it holds nothing of any.
#[derive(Debug)]
pub struct Decoder {
    context: WebSocketContext,
    place: Place,
}

impl Default for Decoder {
    fn default() -> Self {
        // A message that the machine would refuse for its length is not put together.
        let max = Some(limits::INBOUND_BYTES_MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_SIZE)
            .write_buffer_size(0)
            .max_message_size(max)
            .max_frame_size(max);
        Self { context: WebSocketContext::new(Role::Server, Some(config)), place: Place::default() }
    }
}

impl Decoder {
    /// What `bytes` completes; to be taken to its end. After `Close` or `Violation` the decoder is of no further use.
    pub fn decode<'a>(&'a mut self, bytes: &'a [u8]) -> impl Iterator<Item = Event> + 'a {
        self.place.pass(bytes);
        let mut chunk = Chunk { unread: bytes, answer: Vec::new() };
        std::iter::from_fn(move || next(&mut self.context, &mut chunk))
    }

    /// Whether the last chunk ended where a message ended: dropping the decoder loses nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.place.remaining == 0 && self.place.head_len == 0 && !self.place.in_message
    }

    /// Whether the decoder is small enough to be kept for the next chunk of any client.
    #[must_use]
    pub fn is_reusable(&self) -> bool {
        self.is_idle() && self.place.longest <= REUSED_MAX
    }
}

fn next(context: &mut WebSocketContext, chunk: &mut Chunk<'_>) -> Option<Event> {
    let event = match context.read(chunk) {
        Ok(message @ (Message::Text(_) | Message::Binary(_))) => Event::Data(message.into_data()),
        Ok(Message::Ping(_)) => match context.flush(chunk) {
            Ok(()) => Event::Ping(std::mem::take(&mut chunk.answer)),
            Err(e) => Event::Violation(close_code(&e)),
        },
        // Single frames are written only, never read.
        Ok(Message::Pong(_) | Message::Frame(_)) => Event::Pong,
        Ok(Message::Close(_)) => match context.flush(chunk) {
            Ok(()) | Err(Error::ConnectionClosed) => Event::Close(std::mem::take(&mut chunk.answer)),
            Err(e) => Event::Violation(close_code(&e)),
        },
        Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => return None,
        Err(e) => Event::Violation(close_code(&e)),
    };
    Some(event)
}

fn close_code(error: &Error) -> CloseCode {
    match error {
        Error::Utf8(_) => CloseCode::Invalid,
        Error::Capacity(_) => CloseCode::Size,
        _ => CloseCode::Protocol,
    }
}

/// The socket as the context sees it: gives what was read, and keeps the context's answers.
struct Chunk<'a> {
    unread: &'a [u8],
    answer: Vec<u8>,
}

impl Read for Chunk<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.unread.read(buf) }
    }
}

impl Write for Chunk<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.answer.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where in the stream of frames the chunks have come to. The context does not tell whether it holds a part of a
/// message, and a connection that keeps one for nothing pays for its buffer.
#[derive(Debug, Default)]
struct Place {
    head: [u8; HEAD_MAX],
    head_len: usize,
    /// Bytes of the current frame's payload that have not arrived.
    remaining: u64,
    /// The last data frame was not the last one of its message.
    in_message: bool,
    longest: u64,
}

impl Place {
    fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
            self.remaining -= skipped as u64;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let before = self.head_len;
            let taken = bytes.len().min(HEAD_MAX - before);
            self.head_len += taken;
            self.head[before..self.head_len].copy_from_slice(&bytes[..taken]);
            let mut head = Cursor::new(&self.head[..self.head_len]);
            // An incomplete head has taken all bytes; a wrong one is refused by the context.
            let Ok(Some((header, len))) = FrameHeader::parse(&mut head) else { return };
            bytes = &bytes[head.position() as usize - before..];
            self.head_len = 0;
            self.remaining = len;
            self.longest = self.longest.max(len);
            if let OpCode::Data(_) = header.opcode {
                self.in_message = !header.is_final;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::ws::binary_head;

    const FIN: u8 = 0x80;
    const TEXT: u8 = 0x1;
    const BINARY: u8 = 0x2;
    const CLOSE: u8 = 0x8;
    const PING: u8 = 0x9;
    const PONG: u8 = 0xA;
    const MASKED: u8 = 0x80;

    /// A masked client frame.
    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = binary_head(payload.len()).as_bytes().to_vec();
        out[0] = first;
        out[1] |= MASKED;
        let mask = [0xA1, 0x02, 0x73, 0x44];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    /// All events up to the first that ends the connection.
    fn decode(bytes: &[u8], cut: usize) -> Vec<Event> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for part in bytes.chunks(cut) {
            for event in decoder.decode(part) {
                let ended = matches!(event, Event::Close(_) | Event::Violation(_));
                events.push(event);
                if ended {
                    return events;
                }
            }
        }
        events
    }

    fn last_of(frames: &[Vec<u8>]) -> Option<Event> {
        let bytes = frames.concat();
        let mut whole = decode(&bytes, bytes.len());
        assert_eq!(whole, decode(&bytes, 1));
        assert_eq!(whole, decode(&bytes, 3));
        whole.pop()
    }

    #[test]
    fn messages_come_through_however_they_are_cut() {
        let big = vec![7_u8; 70_000];
        let bytes = [
            client(FIN | BINARY, b"one"),
            client(TEXT, "群".as_bytes().split_at(1).0),
            client(FIN | PING, b"are you there"),
            client(FIN, "群".as_bytes().split_at(1).1),
            client(FIN | BINARY, b""),
            client(FIN | PONG, b""),
            client(FIN | BINARY, &big),
            client(FIN | BINARY, &big[..300]),
            client(FIN | CLOSE, &[0x03, 0xE8, b'x']),
        ]
        .concat();
        for cut in [1, 2, 3, 7, 64, 4_096, bytes.len()] {
            let expected = [
                Event::Data(Bytes::from_static(b"one")),
                Event::Ping([b"\x8A\x0D".as_slice(), b"are you there"].concat()),
                Event::Data("群".into()),
                Event::Data(Bytes::new()),
                Event::Pong,
                Event::Data(big.clone().into()),
                Event::Data(big[..300].to_vec().into()),
                Event::Close(b"\x88\x03\x03\xE8x".to_vec()),
            ];
            assert!(decode(&bytes, cut) == expected, "cut {cut}");
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let mut unmasked = client(FIN | BINARY, b"x");
        unmasked[1] &= !MASKED;
        let cases: &[&[Vec<u8>]] = &[
            &[unmasked],
            &[client(FIN | 0x40 | BINARY, b"x")],
            &[client(FIN | 0x3, b"x")],
            &[client(FIN | 0xB, b"x")],
            &[client(PING, b"x")],
            &[client(FIN | PING, &[0; 126])],
            &[client(FIN, b"x")],
            &[client(BINARY, b"x"), client(FIN | TEXT, b"y")],
            &[client(FIN | CLOSE, b"x")],
        ];
        for frames in cases {
            assert_eq!(last_of(frames), Some(Event::Violation(CloseCode::Protocol)), "{frames:x?}");
        }
        let invalid = Some(Event::Violation(CloseCode::Invalid));
        assert_eq!(last_of(&[client(FIN | TEXT, b"\xff")]), invalid);
        assert_eq!(last_of(&[client(TEXT, b"\xe7"), client(FIN, b"")]), invalid);
        assert_eq!(last_of(&[client(FIN | CLOSE, b"\x03\xe8\xff")]), invalid);
        assert_eq!(last_of(&[client(FIN | CLOSE, b"")]), Some(Event::Close(vec![0x88, 0])));
        // A code that no peer may send.
        let Some(Event::Close(answer)) = last_of(&[client(FIN | CLOSE, &1005_u16.to_be_bytes())]) else { panic!() };
        assert_eq!((answer[0], &answer[2..4]), (0x88, &1002_u16.to_be_bytes()[..]));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_there() {
        let max = limits::INBOUND_BYTES_MAX;
        let too_long = |len: u64| [&[0x82, 0xFF], &len.to_be_bytes()[..], &[1, 2, 3, 4]].concat();
        let refused = Some(Event::Violation(CloseCode::Size));
        assert_eq!(last_of(&[too_long(max as u64 + 1)]), refused);
        assert_eq!(last_of(&[too_long(u64::MAX)]), refused);
        let half = vec![0; max / 2 + 1];
        let bytes = [client(BINARY, &half), client(FIN, &half)].concat();
        assert_eq!(decode(&bytes, 65_536), [Event::Violation(CloseCode::Size)]);
        let longest = vec![5; max];
        assert!(decode(&client(FIN | BINARY, &longest), 65_536) == [Event::Data(longest.into())]);
    }

    #[test]
    fn it_is_idle_between_messages_only() {
        let messages = [
            client(FIN | BINARY, &[1; 200]),
            [client(TEXT, b"a"), client(FIN | PING, b""), client(0, b"b"), client(FIN, b"c")].concat(),
            client(FIN | BINARY, b""),
        ];
        let mut decoder = Decoder::default();
        for message in &messages {
            for (at, byte) in message.iter().enumerate() {
                decoder.decode(&[*byte]).for_each(drop);
                assert_eq!(decoder.is_idle(), at + 1 == message.len(), "byte {at} of {message:x?}");
            }
        }
        assert!(decoder.is_reusable());
        decoder.decode(&client(FIN | BINARY, &vec![1; REUSED_MAX as usize + 1])).for_each(drop);
        assert!(decoder.is_idle() && !decoder.is_reusable());
    }
}
