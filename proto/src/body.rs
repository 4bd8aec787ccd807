//! The layout of every body at every version (specification sections 3 and 4): one reader and one writer per frame.

use bytes::Bytes;

use crate::codes::{Flags, FrameKind, ReasonCode, Setting};
use crate::cursor::{ReadError, Reader};
use crate::frame::{
    ConnAck, Connect, Disconnect, Event, Frame, Recv, RecvAck, Send, SendAck, StreamFields, Sub, SubAck,
};
use crate::text::Text;

/// Bit 0 of the header of CONNACK: a ServerVersion byte opens the body.
pub(crate) const HAS_SERVER_VERSION: u8 = 0x01;

fn has_node_id(version: u8) -> bool {
    version >= 4
}

fn has_expire(version: u8) -> bool {
    version >= 3
}

fn has_wide_seq(version: u8) -> bool {
    version >= 6
}

fn has_stream_fields(version: u8) -> bool {
    (2..=4).contains(&version)
}

/// The oldest codecs mark StreamNo of SEND with the legacy bit.
fn has_send_stream(version: u8, setting: Setting) -> bool {
    has_stream_fields(version) && (setting.stream() || setting.legacy_stream())
}

/// In RECV the legacy bit is no sign of stream fields: servers forward it from old senders without any.
fn has_recv_stream(version: u8, setting: Setting) -> bool {
    has_stream_fields(version) && setting.stream()
}

/// Reads the body of a frame. Bytes after the last known field are ignored.
pub(crate) fn read(kind: FrameKind, flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<Frame, ReadError> {
    Ok(match kind {
        FrameKind::Connect => Frame::Connect(read_connect(flags, from)?),
        FrameKind::ConnAck => Frame::ConnAck(read_conn_ack(flags, version, from)?),
        FrameKind::Send => Frame::Send(read_send(flags, version, from)?),
        FrameKind::SendAck => Frame::SendAck(read_send_ack(flags, version, from)?),
        FrameKind::Recv => Frame::Recv(read_recv(flags, version, from)?),
        FrameKind::RecvAck => Frame::RecvAck(read_recv_ack(flags, version, from)?),
        FrameKind::Ping => Frame::Ping,
        FrameKind::Pong => Frame::Pong,
        FrameKind::Disconnect => Frame::Disconnect(read_disconnect(flags, from)?),
        FrameKind::Sub => Frame::Sub(read_sub(flags, from)?),
        FrameKind::SubAck => Frame::SubAck(read_sub_ack(flags, from)?),
        FrameKind::Event => Frame::Event(read_event(flags, from)?),
    })
}

fn read_seq(version: u8, from: &mut Reader<'_>) -> Result<u64, ReadError> {
    if has_wide_seq(version) { from.u64() } else { from.u32().map(u64::from) }
}

fn read_if<T: Default>(present: bool, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
    if present { read() } else { Ok(T::default()) }
}

fn read_connect(flags: Flags, from: &mut Reader<'_>) -> Result<Connect, ReadError> {
    Ok(Connect {
        flags,
        version: from.u8()?,
        device_flag: from.u8()?,
        device_id: from.str16()?,
        uid: from.str16()?,
        token: from.str16()?,
        client_timestamp: from.i64()?,
        client_key: from.str16()?,
    })
}

fn read_conn_ack(flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<ConnAck, ReadError> {
    let versioned = flags.0 & HAS_SERVER_VERSION != 0;
    Ok(ConnAck {
        server_version: if versioned { Some(from.u8()?) } else { None },
        time_diff: from.i64()?,
        reason: ReasonCode(from.u8()?),
        server_key: from.str16()?,
        salt: from.str16()?,
        node_id: read_if(has_node_id(version), || from.u64())?,
    })
}

fn read_send(flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<Send, ReadError> {
    let setting = Setting(from.u8()?);
    Ok(Send {
        flags,
        setting,
        client_seq: from.u32()?,
        client_msg_no: from.str16()?,
        stream_no: read_if(has_send_stream(version, setting), || from.str16())?,
        channel_id: from.str16()?,
        channel_type: from.u8()?,
        expire: read_if(has_expire(version), || from.u32())?,
        msg_key: from.str16()?,
        topic: read_if(setting.topic(), || from.str16())?,
        payload: from.rest(),
    })
}

fn read_send_ack(flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<SendAck, ReadError> {
    Ok(SendAck {
        flags,
        message_id: from.i64()?,
        client_seq: from.u32()?,
        message_seq: read_seq(version, from)?,
        reason: ReasonCode(from.u8()?),
        client_msg_no: read_if(has_wide_seq(version) && !from.is_empty(), || from.str16())?,
    })
}

fn read_recv(flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<Recv, ReadError> {
    let setting = Setting(from.u8()?);
    Ok(Recv {
        flags,
        setting,
        msg_key: from.str16()?,
        from_uid: from.str16()?,
        channel_id: from.str16()?,
        channel_type: from.u8()?,
        expire: read_if(has_expire(version), || from.u32())?,
        client_msg_no: from.str16()?,
        stream: read_if(has_recv_stream(version, setting), || {
            Ok(Some(StreamFields { flag: from.u8()?, no: from.str16()?, id: from.u64()? }))
        })?,
        message_id: from.i64()?,
        message_seq: read_seq(version, from)?,
        timestamp: from.i32()?,
        topic: read_if(setting.topic(), || from.str16())?,
        payload: from.rest(),
    })
}

fn read_recv_ack(flags: Flags, version: u8, from: &mut Reader<'_>) -> Result<RecvAck, ReadError> {
    Ok(RecvAck { flags, message_id: from.i64()?, message_seq: read_seq(version, from)? })
}

fn read_disconnect(flags: Flags, from: &mut Reader<'_>) -> Result<Disconnect, ReadError> {
    Ok(Disconnect { flags, reason: ReasonCode(from.u8()?), text: from.str16()? })
}

fn read_sub(flags: Flags, from: &mut Reader<'_>) -> Result<Sub, ReadError> {
    Ok(Sub {
        flags,
        setting: Setting(from.u8()?),
        sub_no: from.str16()?,
        channel_id: from.str16()?,
        channel_type: from.u8()?,
        action: from.u8()?,
        param: from.str16()?,
    })
}

fn read_sub_ack(flags: Flags, from: &mut Reader<'_>) -> Result<SubAck, ReadError> {
    Ok(SubAck {
        flags,
        sub_no: from.str16()?,
        channel_id: from.str16()?,
        channel_type: from.u8()?,
        action: from.u8()?,
        reason: ReasonCode(from.u8()?),
    })
}

fn read_event(flags: Flags, from: &mut Reader<'_>) -> Result<Event, ReadError> {
    Ok(Event { flags, id: from.str16()?, kind: from.str16()?, timestamp: from.i64()?, data: from.rest() })
}

/// Where a writer below puts its fields: into a buffer, or only into the measure of the body.
pub(crate) trait Sink {
    fn u8(&mut self, value: u8);
    fn u32(&mut self, value: u32);
    fn u64(&mut self, value: u64);
    /// `name` is what a refusal calls the field.
    fn str16(&mut self, name: &'static str, text: &Text);
    fn rest(&mut self, bytes: &Bytes);
    /// A sequence number in four bytes.
    fn narrow_seq(&mut self, seq: u64);
    /// The setting announces stream fields that the frame does not have.
    fn stream_missing(&mut self);

    fn seq(&mut self, version: u8, seq: u64) {
        if has_wide_seq(version) { self.u64(seq) } else { self.narrow_seq(seq) }
    }

    fn i64(&mut self, value: i64) {
        self.u64(value.cast_unsigned());
    }
}

/// A frame with a body.
pub(crate) trait Body {
    const KIND: FrameKind;
    /// The low nibble of the header.
    fn nibble(&self) -> u8;
    /// Writes the fields in order.
    fn write<S: Sink>(&self, version: u8, to: &mut S);
}

impl Body for Connect {
    const KIND: FrameKind = FrameKind::Connect;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, _: u8, to: &mut S) {
        to.u8(self.version);
        to.u8(self.device_flag);
        to.str16("device_id", &self.device_id);
        to.str16("uid", &self.uid);
        to.str16("token", &self.token);
        to.i64(self.client_timestamp);
        to.str16("client_key", &self.client_key);
    }
}

impl Body for ConnAck {
    const KIND: FrameKind = FrameKind::ConnAck;

    fn nibble(&self) -> u8 {
        if self.server_version.is_some() { HAS_SERVER_VERSION } else { 0 }
    }

    fn write<S: Sink>(&self, version: u8, to: &mut S) {
        if let Some(server_version) = self.server_version {
            to.u8(server_version);
        }
        to.i64(self.time_diff);
        to.u8(self.reason.0);
        to.str16("server_key", &self.server_key);
        to.str16("salt", &self.salt);
        if has_node_id(version) {
            to.u64(self.node_id);
        }
    }
}

impl Body for Send {
    const KIND: FrameKind = FrameKind::Send;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, version: u8, to: &mut S) {
        to.u8(self.setting.0);
        to.u32(self.client_seq);
        to.str16("client_msg_no", &self.client_msg_no);
        if has_send_stream(version, self.setting) {
            to.str16("stream_no", &self.stream_no);
        }
        to.str16("channel_id", &self.channel_id);
        to.u8(self.channel_type);
        if has_expire(version) {
            to.u32(self.expire);
        }
        to.str16("msg_key", &self.msg_key);
        if self.setting.topic() {
            to.str16("topic", &self.topic);
        }
        to.rest(&self.payload);
    }
}

impl Body for SendAck {
    const KIND: FrameKind = FrameKind::SendAck;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, version: u8, to: &mut S) {
        to.i64(self.message_id);
        to.u32(self.client_seq);
        to.seq(version, self.message_seq);
        to.u8(self.reason.0);
        if has_wide_seq(version) && !self.client_msg_no.is_empty() {
            to.str16("client_msg_no", &self.client_msg_no);
        }
    }
}

impl Body for Recv {
    const KIND: FrameKind = FrameKind::Recv;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, version: u8, to: &mut S) {
        to.u8(self.setting.0);
        to.str16("msg_key", &self.msg_key);
        to.str16("from_uid", &self.from_uid);
        to.str16("channel_id", &self.channel_id);
        to.u8(self.channel_type);
        if has_expire(version) {
            to.u32(self.expire);
        }
        to.str16("client_msg_no", &self.client_msg_no);
        if has_recv_stream(version, self.setting) {
            match &self.stream {
                Some(stream) => {
                    to.u8(stream.flag);
                    to.str16("stream.no", &stream.no);
                    to.u64(stream.id);
                }
                None => to.stream_missing(),
            }
        }
        to.i64(self.message_id);
        to.seq(version, self.message_seq);
        to.u32(self.timestamp.cast_unsigned());
        if self.setting.topic() {
            to.str16("topic", &self.topic);
        }
        to.rest(&self.payload);
    }
}

impl Body for RecvAck {
    const KIND: FrameKind = FrameKind::RecvAck;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, version: u8, to: &mut S) {
        to.i64(self.message_id);
        to.seq(version, self.message_seq);
    }
}

impl Body for Disconnect {
    const KIND: FrameKind = FrameKind::Disconnect;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, _: u8, to: &mut S) {
        to.u8(self.reason.0);
        to.str16("text", &self.text);
    }
}

impl Body for Sub {
    const KIND: FrameKind = FrameKind::Sub;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, _: u8, to: &mut S) {
        to.u8(self.setting.0);
        to.str16("sub_no", &self.sub_no);
        to.str16("channel_id", &self.channel_id);
        to.u8(self.channel_type);
        to.u8(self.action);
        to.str16("param", &self.param);
    }
}

impl Body for SubAck {
    const KIND: FrameKind = FrameKind::SubAck;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, _: u8, to: &mut S) {
        to.str16("sub_no", &self.sub_no);
        to.str16("channel_id", &self.channel_id);
        to.u8(self.channel_type);
        to.u8(self.action);
        to.u8(self.reason.0);
    }
}

impl Body for Event {
    const KIND: FrameKind = FrameKind::Event;

    fn nibble(&self) -> u8 {
        self.flags.0
    }

    fn write<S: Sink>(&self, _: u8, to: &mut S) {
        to.str16("id", &self.id);
        to.str16("kind", &self.kind);
        to.i64(self.timestamp);
        to.rest(&self.data);
    }
}
