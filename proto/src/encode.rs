//! Frames to bytes: measured first, then written once into the caller's buffer (specification sections 2.1 to 2.5).

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::body::{Body, Sink};
use crate::codes::FrameKind;
use crate::frame::{ConnAck, Connect, Disconnect, Event, Frame, Recv, RecvAck, Send, SendAck, Sub, SubAck};
use crate::text::Text;
use crate::{FRAME_BODY_MAX, TEXT_MAX};

/// Why a frame cannot be written at this version. Nothing was appended to the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EncodeError {
    /// A text is longer than [`TEXT_MAX`] bytes.
    TextTooLong {
        /// Which field of the frame.
        field: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// The body is larger than [`FRAME_BODY_MAX`].
    BodyTooLarge {
        /// Its length in bytes.
        len: usize,
    },
    /// The sequence number is above `u32::MAX` and the version is below 6: do not deliver (specification section 4.5).
    SeqTooLarge {
        /// The sequence number.
        seq: u64,
    },
    /// The setting has the stream bit at a version that puts stream fields on the wire, and there are none.
    StreamMissing,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::TextTooLong { field, len } => {
                write!(f, "{field}: {len} bytes, {TEXT_MAX} are allowed")
            }
            EncodeError::BodyTooLarge { len } => {
                write!(f, "body of {len} bytes, {FRAME_BODY_MAX} are allowed")
            }
            EncodeError::SeqTooLarge { seq } => {
                write!(f, "sequence number {seq} needs protocol version 6")
            }
            EncodeError::StreamMissing => f.write_str("the stream bit is set and there are no stream fields"),
        }
    }
}

impl core::error::Error for EncodeError {}

/// Appends `frame` in the layout of `version`; on refusal appends nothing.
pub fn encode(frame: &Frame, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    match frame {
        Frame::Connect(body) => emit(body, version, out),
        Frame::ConnAck(body) => emit(body, version, out),
        Frame::Send(body) => emit(body, version, out),
        Frame::SendAck(body) => emit(body, version, out),
        Frame::Recv(body) => emit(body, version, out),
        Frame::RecvAck(body) => emit(body, version, out),
        Frame::Ping => {
            encode_ping(out);
            Ok(())
        }
        Frame::Pong => {
            encode_pong(out);
            Ok(())
        }
        Frame::Disconnect(body) => emit(body, version, out),
        Frame::Sub(body) => emit(body, version, out),
        Frame::SubAck(body) => emit(body, version, out),
        Frame::Event(body) => emit(body, version, out),
    }
}

/// Appends a CONNECT; the layout is the same at every version.
pub fn encode_connect(frame: &Connect, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, 0, out)
}

/// Appends a CONNACK in the layout of the negotiated version.
pub fn encode_conn_ack(frame: &ConnAck, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, version, out)
}

/// Appends a SEND.
pub fn encode_send(frame: &Send, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, version, out)
}

/// Appends a SENDACK.
pub fn encode_send_ack(frame: &SendAck, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, version, out)
}

/// Appends a RECV with the setting as given: the caller masks it with [`Setting::for_recv`](crate::Setting::for_recv).
pub fn encode_recv(frame: &Recv, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, version, out)
}

/// Appends a RECVACK.
pub fn encode_recv_ack(frame: &RecvAck, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, version, out)
}

/// Appends a PING. Never to a client: some take it for a frame with a length (specification section 4.7).
pub fn encode_ping(out: &mut BytesMut) {
    out.put_u8((FrameKind::Ping as u8) << 4);
}

/// Appends a PONG.
pub fn encode_pong(out: &mut BytesMut) {
    out.put_u8((FrameKind::Pong as u8) << 4);
}

/// Appends a DISCONNECT; the layout is the same at every version.
pub fn encode_disconnect(frame: &Disconnect, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, 0, out)
}

/// Appends a SUB; the layout is the same at every version.
pub fn encode_sub(frame: &Sub, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, 0, out)
}

/// Appends a SUBACK; the layout is the same at every version.
pub fn encode_sub_ack(frame: &SubAck, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, 0, out)
}

/// Appends an EVENT; the layout is the same at every version, and clients below 5 do not know it.
pub fn encode_event(frame: &Event, out: &mut BytesMut) -> Result<(), EncodeError> {
    emit(frame, 0, out)
}

fn emit<B: Body>(frame: &B, version: u8, out: &mut BytesMut) -> Result<(), EncodeError> {
    let mut measure = Measure::default();
    frame.write(version, &mut measure);
    if let Some(refusal) = measure.refusal {
        return Err(refusal);
    }
    if measure.len > FRAME_BODY_MAX {
        return Err(EncodeError::BodyTooLarge { len: measure.len });
    }
    out.reserve(5 + measure.len);
    out.put_u8((B::KIND as u8) << 4 | frame.nibble() & 0x0F);
    put_length(measure.len, out);
    let body = out.len();
    frame.write(version, out);
    debug_assert_eq!(out.len() - body, measure.len);
    Ok(())
}

/// Appends a Remaining Length in its minimal form (specification section 2.3).
fn put_length(mut len: usize, out: &mut BytesMut) {
    while len > 0x7F {
        out.put_u8((len & 0x7F) as u8 | 0x80);
        len >>= 7;
    }
    out.put_u8(len as u8);
}

/// Counts what a frame would write, and keeps the first reason why it must not.
#[derive(Default)]
struct Measure {
    len: usize,
    refusal: Option<EncodeError>,
}

impl Sink for Measure {
    fn u8(&mut self, _: u8) {
        self.len += 1;
    }

    fn u32(&mut self, _: u32) {
        self.len += 4;
    }

    fn u64(&mut self, _: u64) {
        self.len += 8;
    }

    fn str16(&mut self, field: &'static str, text: &Text) {
        self.len += 2 + text.len();
        if text.len() > TEXT_MAX {
            self.refusal.get_or_insert(EncodeError::TextTooLong { field, len: text.len() });
        }
    }

    fn rest(&mut self, bytes: &Bytes) {
        self.len += bytes.len();
    }

    fn narrow_seq(&mut self, seq: u64) {
        self.len += 4;
        if seq > u64::from(u32::MAX) {
            self.refusal.get_or_insert(EncodeError::SeqTooLarge { seq });
        }
    }

    fn stream_missing(&mut self) {
        self.refusal.get_or_insert(EncodeError::StreamMissing);
    }
}

/// Writes what was measured before; every number fits.
impl Sink for BytesMut {
    fn u8(&mut self, value: u8) {
        self.put_u8(value);
    }

    fn u32(&mut self, value: u32) {
        self.put_u32(value);
    }

    fn u64(&mut self, value: u64) {
        self.put_u64(value);
    }

    fn str16(&mut self, _: &'static str, text: &Text) {
        self.put_u16(text.len() as u16);
        self.put_slice(text.as_bytes());
    }

    fn rest(&mut self, bytes: &Bytes) {
        self.put_slice(bytes);
    }

    fn narrow_seq(&mut self, seq: u64) {
        self.put_u32(seq as u32);
    }

    fn stream_missing(&mut self) {}
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::codes::Setting;
    use crate::frame::StreamFields;

    fn text(len: usize) -> Text {
        Text::try_from(Bytes::from(vec![b'x'; len])).unwrap()
    }

    #[test]
    fn limits_are_inclusive_and_a_refusal_writes_nothing() {
        let mut out = BytesMut::from(&b"kept"[..]);
        let refused = encode_disconnect(&Disconnect { text: text(TEXT_MAX + 1), ..Default::default() }, &mut out);
        assert_eq!(refused, Err(EncodeError::TextTooLong { field: "text", len: TEXT_MAX + 1 }));

        let fixed = 30;
        let mut recv = Recv { payload: Bytes::from(vec![0; FRAME_BODY_MAX - fixed + 1]), ..Default::default() };
        let too_large = EncodeError::BodyTooLarge { len: FRAME_BODY_MAX + 1 };
        assert_eq!(encode_recv(&recv, 5, &mut out), Err(too_large));
        recv.message_seq = 1 << 32;
        assert_eq!(encode_recv(&recv, 5, &mut out), Err(EncodeError::SeqTooLarge { seq: 1 << 32 }));
        let ack = SendAck { message_seq: 1 << 32, ..Default::default() };
        assert_eq!(encode_send_ack(&ack, 5, &mut out), Err(EncodeError::SeqTooLarge { seq: 1 << 32 }));
        assert_eq!(out, "kept");

        encode_send_ack(&ack, 6, &mut out).unwrap();
        let before = out.len();
        recv.message_seq = 1;
        recv.payload.truncate(FRAME_BODY_MAX - fixed);
        encode_recv(&recv, 5, &mut out).unwrap();
        assert!(out[before..].starts_with(&[0x50, 0x80, 0x80, 0x40]));
        assert_eq!(out.len() - before, FRAME_BODY_MAX + 4);
    }

    #[test]
    fn stream_fields_follow_the_bit_and_the_version() {
        let mut out = BytesMut::new();
        let mut recv = Recv { setting: Setting::STREAM, ..Default::default() };
        encode_recv(&recv, 1, &mut out).unwrap();
        encode_recv(&recv, 5, &mut out).unwrap();
        out.clear();
        assert_eq!(encode_recv(&recv, 4, &mut out), Err(EncodeError::StreamMissing));
        assert!(out.is_empty());
        recv.stream = Some(StreamFields::default());
        encode_recv(&recv, 4, &mut out).unwrap();
        let with = out.split().len();
        recv.setting = Setting::LEGACY_STREAM;
        encode_recv(&recv, 4, &mut out).unwrap();
        assert_eq!(with - out.len(), 11);
    }

    #[test]
    fn lengths_are_minimal() {
        for (len, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7F]),
            (128, &[0x80, 0x01]),
            (321, &[0xC1, 0x02]),
            (16_383, &[0xFF, 0x7F]),
            (16_384, &[0x80, 0x80, 0x01]),
            (FRAME_BODY_MAX, &[0x80, 0x80, 0x40]),
        ] {
            let mut out = BytesMut::new();
            put_length(len, &mut out);
            assert_eq!(out, bytes);
        }
    }
}
