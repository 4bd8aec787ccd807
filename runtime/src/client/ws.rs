//! The client's side of WebSocket (RFC 6455) without I/O: as much as binary messages need.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};

const HEAD_MAX: usize = 16 * 1024;
const MESSAGE_MAX: u64 = 2 * 1024 * 1024;

/// Why the connection is of no further use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsFault {
    /// The upgrade was not answered with 101; the text is the status line.
    Upgrade(String),
    /// The server broke the protocol.
    Protocol(&'static str),
    /// The server closed, with this code (1005 if it gave none).
    Closed(u16),
}

impl fmt::Display for WsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WsFault::Upgrade(line) => write!(f, "no WebSocket server: it answered '{line}'"),
            WsFault::Protocol(what) => write!(f, "the server broke the WebSocket protocol: {what}"),
            WsFault::Closed(code) => write!(f, "the server closed the WebSocket with code {code}"),
        }
    }
}

impl std::error::Error for WsFault {}

/// Where the bytes of a WebSocket are turned into payloads and back.
#[derive(Clone, Debug, Default)]
pub struct Ws {
    received: BytesMut,
    upgraded: bool,
}

impl Ws {
    /// Begins: appends the upgrade request to `out`. `nonce` is random.
    #[must_use]
    pub fn begin(host: &str, nonce: [u8; 16], out: &mut BytesMut) -> Ws {
        let key = STANDARD.encode(nonce);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
        Ws::default()
    }

    /// Appends `payload` to `out` as one binary message. May follow the upgrade request at once only with servers that
    /// read on; wait for [`is_open`](Ws::is_open) otherwise.
    pub fn write(payload: &[u8], mask: [u8; 4], out: &mut BytesMut) {
        frame(0x82, payload, mask, out);
    }

    /// Whether the server answered the upgrade.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.upgraded
    }

    /// Hands in received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// The payload of the next data frame; none if more bytes are needed. Answers to the server's pings go to `out`.
    ///
    /// # Errors
    /// The connection is of no further use.
    pub fn poll(&mut self, out: &mut BytesMut) -> Result<Option<Bytes>, WsFault> {
        if !self.upgraded && !self.upgrade()? {
            return Ok(None);
        }
        while let Some((opcode, payload)) = self.next_frame()? {
            match opcode {
                0x0..=0x2 => return Ok(Some(payload)),
                0x8 => {
                    let code = payload.first_chunk().map_or(1005, |c| u16::from_be_bytes(*c));
                    return Err(WsFault::Closed(code));
                }
                0x9 => frame(0x8A, &payload, [0; 4], out),
                0xA => {}
                _ => return Err(WsFault::Protocol("unknown opcode")),
            }
        }
        Ok(None)
    }

    fn upgrade(&mut self) -> Result<bool, WsFault> {
        let Some(end) = self.received.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if self.received.len() > HEAD_MAX { Err(WsFault::Protocol("endless answer")) } else { Ok(false) };
        };
        let head = self.received.split_to(end + 4);
        if !head.starts_with(b"HTTP/1.1 101") {
            let line = head[..].split(|b: &u8| *b == b'\r').next().unwrap_or_default();
            return Err(WsFault::Upgrade(String::from_utf8_lossy(line).into_owned()));
        }
        self.upgraded = true;
        Ok(true)
    }

    fn next_frame(&mut self) -> Result<Option<(u8, Bytes)>, WsFault> {
        let [first, second, rest @ ..] = &self.received[..] else {
            return Ok(None);
        };
        if first & 0x70 != 0 || second & 0x80 != 0 {
            return Err(WsFault::Protocol("reserved bits, or a masked frame"));
        }
        let (len, head) = match second & 0x7F {
            126 => match rest.first_chunk() {
                Some(len) => (u64::from(u16::from_be_bytes(*len)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk() {
                Some(len) => (u64::from_be_bytes(*len), 10),
                None => return Ok(None),
            },
            len => (u64::from(len), 2),
        };
        if len > MESSAGE_MAX {
            return Err(WsFault::Protocol("frame larger than any of this protocol"));
        }
        let (opcode, len) = (first & 0x0F, len as usize);
        if self.received.len() < head + len {
            return Ok(None);
        }
        let mut frame = self.received.split_to(head + len);
        let payload = frame.split_off(head).freeze();
        Ok(Some((opcode, payload)))
    }
}

fn frame(first: u8, payload: &[u8], mask: [u8; 4], out: &mut BytesMut) {
    out.put_u8(first);
    match payload.len() {
        len @ 0..=125 => out.put_u8(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.put_u8(0x80 | 126);
            out.put_u16(len as u16);
        }
        len => {
            out.put_u8(0x80 | 127);
            out.put_u64(len as u64);
        }
    }
    out.put_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_then_frames_in_any_chunks() {
        let mut wire = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n".to_vec();
        wire.extend_from_slice(&[0x82, 2, b'h', b'i', 0x89, 1, b'p', 0x8A, 0, 0x82, 126, 1, 0]);
        wire.extend_from_slice(&[7; 256]);
        for size in [1, 3, 50, 1000] {
            let mut out = BytesMut::new();
            let mut ws = Ws::begin("h:1", [1; 16], &mut out);
            assert!(out.starts_with(b"GET / HTTP/1.1\r\nHost: h:1\r\n") && out.ends_with(b"\r\n\r\n"));
            out.clear();
            let mut payloads = Vec::new();
            for chunk in wire.chunks(size) {
                ws.feed(chunk);
                while let Some(payload) = ws.poll(&mut out).unwrap() {
                    payloads.push(payload);
                }
            }
            assert_eq!(payloads, [Bytes::from_static(b"hi"), Bytes::from(vec![7; 256])]);
            assert_eq!(out[..], [0x8A, 0x81, 0, 0, 0, 0, b'p']);
        }
    }

    #[test]
    fn messages_are_masked() {
        let mut out = BytesMut::new();
        Ws::write(&[1, 2, 3, 4, 5], [0xF0, 0, 0, 0x0F], &mut out);
        assert_eq!(out[..], [0x82, 0x85, 0xF0, 0, 0, 0x0F, 0xF1, 2, 3, 0x0B, 0xF5]);
        out.clear();
        Ws::write(&[0; 70_000], [0; 4], &mut out);
        assert_eq!(out[..10], [0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0x11, 0x70]);
    }

    #[test]
    fn refusals() {
        let poll = |wire: &[u8]| {
            let mut ws = Ws::default();
            ws.feed(wire);
            ws.poll(&mut BytesMut::new())
        };
        let head = b"HTTP/1.1 101 x\r\n\r\n";
        assert_eq!(poll(b"HTTP/1.1 404 Not Found\r\n\r\n"), Err(WsFault::Upgrade("HTTP/1.1 404 Not Found".into())));
        assert_eq!(poll(&[&head[..], &[0x88, 2, 3, 0xE8]].concat()), Err(WsFault::Closed(1000)));
        assert_eq!(poll(&[&head[..], &[0x88, 0]].concat()), Err(WsFault::Closed(1005)));
        assert!(matches!(poll(&[&head[..], &[0x82, 0x80]].concat()), Err(WsFault::Protocol(_))));
        assert!(matches!(poll(&[&head[..], &[0x82, 127, 1, 0, 0, 0, 0, 0, 0, 0]].concat()), Err(WsFault::Protocol(_))));
        assert_eq!(poll(&head[..9]), Ok(None));
    }
}
