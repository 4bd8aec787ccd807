//! Frames: decoding what a client sends, and the heads of what the server sends.

use super::utf8::Utf8;

pub const CLOSE_NORMAL: u16 = 1000;
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_NOT_UTF8: u16 = 1007;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Longest head of a client's frame: 2 bytes, 8 of length, 4 of mask.
const HEAD_MAX: usize = 14;
/// Longest payload of a control frame.
const CONTROL_MAX: usize = 125;

/// Head of a frame that the server sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; 10],
    len: u8,
}

impl Head {
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

fn head(opcode: u8, len: usize) -> Head {
    let mut bytes = [0; 10];
    bytes[0] = FIN | opcode;
    let used = match len {
        0..=125 => {
            bytes[1] = len as u8;
            2
        }
        126..=0xFFFF => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    Head { bytes, len: used }
}

/// Head of a binary message in one frame.
#[must_use]
pub fn binary_head(len: usize) -> Head {
    head(BINARY, len)
}

/// Head of a pong, or of a close frame.
#[must_use]
pub fn control_head(pong: bool, len: usize) -> Head {
    debug_assert!(len <= CONTROL_MAX);
    head(if pong { PONG } else { CLOSE }, len)
}

/// Payload of a close frame; none when the peer gave no code.
#[must_use]
pub fn close_payload(code: Option<u16>) -> Vec<u8> {
    code.map(|c| c.to_be_bytes().to_vec()).unwrap_or_default()
}

/// What a received chunk held.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Payload of a data message, or a part of it, unmasked. Never empty.
    Data(&'a [u8]),
    /// A ping to be answered with the same payload.
    Ping(Vec<u8>),
    /// A pong. Nothing to do, but the peer lives.
    Pong,
    /// The peer closes; answer with the same code.
    Close(Option<u16>),
    /// The peer broke the protocol: close with this code.
    Violation(u16),
}

/// Decodes the frames of one client. After `Close` or `Violation` it must not be fed again.
#[derive(Debug, Default)]
pub struct Decoder {
    head: [u8; HEAD_MAX],
    head_len: u8,
    /// Inside the payload of a frame.
    in_payload: bool,
    opcode: u8,
    fin: bool,
    mask: [u8; 4],
    /// How far the mask has been used, modulo 4.
    phase: u8,
    remaining: u64,
    /// Opcode of the data message whose frames are arriving; 0 between messages.
    message: u8,
    utf8: Utf8,
    control: Vec<u8>,
}

impl Decoder {
    /// Takes bytes from the front of `chunk` until something happened. Returns how many, and what.
    /// Call again with the rest until it is empty.
    pub fn next<'a>(&mut self, chunk: &'a mut [u8]) -> (usize, Option<Event<'a>>) {
        let mut used = 0;
        while !self.in_payload {
            let Some(&byte) = chunk.get(used) else { return (used, None) };
            used += 1;
            self.head[usize::from(self.head_len)] = byte;
            self.head_len += 1;
            match self.head_done() {
                Ok(false) => {}
                Ok(true) => self.in_payload = true,
                Err(code) => return (used, Some(Event::Violation(code))),
            }
        }
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(chunk.len() - used);
        let part = &mut chunk[used..used + n];
        unmask(part, self.mask, &mut self.phase);
        self.remaining -= n as u64;
        let part = &*part;
        let ended = self.remaining == 0;
        if ended {
            self.in_payload = false;
            self.head_len = 0;
        }
        (used + n, self.payload(part, ended))
    }

    /// Whether the head is complete; checks each part of it as soon as it is there.
    fn head_done(&mut self) -> Result<bool, u16> {
        let len = usize::from(self.head_len);
        let first = self.head[0];
        if len == 1 {
            return self.check_first(first).map(|()| false);
        }
        let second = self.head[1];
        let short = second & !MASKED;
        if len == 2 {
            let control = first & 0x8 != 0;
            if second & MASKED == 0 || (control && usize::from(short) > CONTROL_MAX) {
                return Err(CLOSE_PROTOCOL);
            }
        }
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if len < 2 + wide + 4 {
            return Ok(false);
        }
        let length = match wide {
            0 => u64::from(short),
            2 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            _ => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(eight)
            }
        };
        if length >> 63 != 0 {
            return Err(CLOSE_PROTOCOL);
        }
        self.mask.copy_from_slice(&self.head[2 + wide..2 + wide + 4]);
        self.phase = 0;
        self.remaining = length;
        self.fin = first & FIN != 0;
        self.opcode = first & 0x0F;
        if matches!(self.opcode, TEXT | BINARY) {
            self.message = self.opcode;
        }
        Ok(true)
    }

    fn check_first(&self, first: u8) -> Result<(), u16> {
        let open = self.message != 0;
        let legal = match first & 0x0F {
            CONTINUATION => open,
            TEXT | BINARY => !open,
            CLOSE | PING | PONG => first & FIN != 0,
            _ => false,
        };
        if legal && first & RESERVED == 0 { Ok(()) } else { Err(CLOSE_PROTOCOL) }
    }

    /// A part of the current frame's payload arrived, or its end.
    fn payload<'a>(&mut self, part: &'a [u8], ended: bool) -> Option<Event<'a>> {
        match self.opcode {
            PING | CLOSE => {
                self.control.extend_from_slice(part);
                ended.then(|| self.control_ended())
            }
            PONG => ended.then_some(Event::Pong),
            _ => {
                let message_ended = ended && self.fin;
                if self.message == TEXT && !(self.utf8.feed(part) && (!message_ended || self.utf8.end())) {
                    return Some(Event::Violation(CLOSE_NOT_UTF8));
                }
                if message_ended {
                    self.message = 0;
                }
                (!part.is_empty()).then_some(Event::Data(part))
            }
        }
    }

    fn control_ended<'a>(&mut self) -> Event<'a> {
        let payload = std::mem::take(&mut self.control);
        if self.opcode == PING {
            return Event::Ping(payload);
        }
        match payload.as_slice() {
            [] => Event::Close(None),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    Event::Violation(CLOSE_PROTOCOL)
                } else if std::str::from_utf8(reason).is_err() {
                    Event::Violation(CLOSE_NOT_UTF8)
                } else {
                    Event::Close(Some(code))
                }
            }
            [_] => Event::Violation(CLOSE_PROTOCOL),
        }
    }
}

/// XORs the mask over `bytes`, going on where the last part of the frame ended.
fn unmask(bytes: &mut [u8], mask: [u8; 4], phase: &mut u8) {
    let mut turned = mask;
    turned.rotate_left(usize::from(*phase));
    let word = u32::from_ne_bytes(turned);
    let (words, tail) = bytes.as_chunks_mut::<4>();
    for chunk in words {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, m) in tail.iter_mut().zip(turned) {
        *byte ^= m;
    }
    *phase = ((usize::from(*phase) + bytes.len()) % 4) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked client frame.
    fn client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = head(0, payload.len()).as_bytes().to_vec();
        out[0] = first;
        out[1] |= MASKED;
        let mask = [0xA1, 0x02, 0x73, 0x44];
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        data: Vec<u8>,
        pings: Vec<Vec<u8>>,
        pongs: usize,
        end: Option<Result<Option<u16>, u16>>,
    }

    fn decode(bytes: &[u8], cut: usize) -> Seen {
        let (mut decoder, mut seen) = (Decoder::default(), Seen::default());
        for part in bytes.chunks(cut) {
            let mut part = part.to_vec();
            let mut at = 0;
            while at < part.len() {
                let (used, event) = decoder.next(&mut part[at..]);
                assert!(used > 0);
                at += used;
                match event {
                    None => {}
                    Some(Event::Data(d)) => seen.data.extend_from_slice(d),
                    Some(Event::Ping(p)) => seen.pings.push(p),
                    Some(Event::Pong) => seen.pongs += 1,
                    Some(Event::Close(code)) => seen.end = Some(Ok(code)),
                    Some(Event::Violation(code)) => seen.end = Some(Err(code)),
                }
                if seen.end.is_some() {
                    return seen;
                }
            }
        }
        seen
    }

    fn end_of(frames: &[Vec<u8>]) -> Option<Result<Option<u16>, u16>> {
        let bytes = frames.concat();
        let whole = decode(&bytes, bytes.len());
        assert_eq!(whole, decode(&bytes, 1));
        assert_eq!(whole, decode(&bytes, 3));
        whole.end
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
            let seen = decode(&bytes, cut);
            let expected = [b"one", "群".as_bytes(), &big, &big[..300]].concat();
            assert!(seen.data == expected, "cut {cut}");
            assert_eq!(seen.pings, [b"are you there".to_vec()]);
            assert_eq!((seen.pongs, seen.end), (1, Some(Ok(Some(1000)))));
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_refused() {
        let mut unmasked = client(FIN | BINARY, b"x");
        unmasked[1] &= !MASKED;
        let too_long = [0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4].to_vec();
        let cases: &[&[Vec<u8>]] = &[
            &[unmasked],
            &[too_long],
            &[client(FIN | 0x40 | BINARY, b"x")],
            &[client(FIN | 0x3, b"x")],
            &[client(FIN | 0xB, b"x")],
            &[client(PING, b"x")],
            &[client(FIN | PING, &[0; 126])],
            &[client(FIN, b"x")],
            &[client(BINARY, b"x"), client(FIN | TEXT, b"y")],
            &[client(FIN | CLOSE, b"x")],
            &[client(FIN | CLOSE, &1005_u16.to_be_bytes())],
        ];
        for frames in cases {
            assert_eq!(end_of(frames), Some(Err(CLOSE_PROTOCOL)), "{frames:x?}");
        }
        assert_eq!(end_of(&[client(FIN | TEXT, b"\xff")]), Some(Err(CLOSE_NOT_UTF8)));
        assert_eq!(end_of(&[client(TEXT, b"\xe7"), client(FIN, b"")]), Some(Err(CLOSE_NOT_UTF8)));
        assert_eq!(end_of(&[client(FIN | CLOSE, b"\x03\xe8\xff")]), Some(Err(CLOSE_NOT_UTF8)));
        assert_eq!(end_of(&[client(FIN | CLOSE, b"")]), Some(Ok(None)));
    }

    #[test]
    fn heads_have_the_shortest_length() {
        for (len, expected) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(binary_head(len).as_bytes().len(), expected);
        }
        assert_eq!(binary_head(300).as_bytes(), [0x82, 126, 1, 44]);
        assert_eq!(control_head(false, 2).as_bytes(), [0x88, 2]);
        assert_eq!(control_head(true, 0).as_bytes(), [0x8A, 0]);
    }
}
