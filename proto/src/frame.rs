//! The frames clients and server exchange (specification section 4), independent of their layout at each version.
//!
//! A field that a version does not carry is its default after decoding and is not written by encoding.

use bytes::Bytes;

use crate::codes::{Flags, FrameKind, ReasonCode, Setting};
use crate::text::Text;

/// Any frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the struct of the same name")]
pub enum Frame {
    Connect(Connect),
    ConnAck(ConnAck),
    Send(Send),
    SendAck(SendAck),
    Recv(Recv),
    RecvAck(RecvAck),
    Ping,
    Pong,
    Disconnect(Disconnect),
    Sub(Sub),
    SubAck(SubAck),
    Event(Event),
}

impl Frame {
    /// Which frame this is.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Frame::Connect(_) => FrameKind::Connect,
            Frame::ConnAck(_) => FrameKind::ConnAck,
            Frame::Send(_) => FrameKind::Send,
            Frame::SendAck(_) => FrameKind::SendAck,
            Frame::Recv(_) => FrameKind::Recv,
            Frame::RecvAck(_) => FrameKind::RecvAck,
            Frame::Ping => FrameKind::Ping,
            Frame::Pong => FrameKind::Pong,
            Frame::Disconnect(_) => FrameKind::Disconnect,
            Frame::Sub(_) => FrameKind::Sub,
            Frame::SubAck(_) => FrameKind::SubAck,
            Frame::Event(_) => FrameKind::Event,
        }
    }
}

/// CONNECT, client to server: opens a session (specification section 4.1). Same layout at every version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connect {
    /// Header flags; without meaning here.
    pub flags: Flags,
    /// Protocol version the client wants.
    pub version: u8,
    /// Kind of device: 0 app, 1 web, 2 PC, 99 system; any value is accepted.
    pub device_flag: u8,
    /// Unique per device; may be empty.
    pub device_id: Text,
    /// The user.
    pub uid: Text,
    /// The user's token; may be empty.
    pub token: Text,
    /// The client's clock in milliseconds; some clients send seconds.
    pub client_timestamp: i64,
    /// Base64 of the client's X25519 public key.
    pub client_key: Text,
}

/// CONNACK, server to client: the answer to CONNECT (specification section 4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnAck {
    /// The negotiated version; its presence is header bit 0, which the server sets if and only if the client's version
    /// is at least 4.
    pub server_version: Option<u8>,
    /// Server milliseconds minus the client's timestamp; 0 on failure.
    pub time_diff: i64,
    /// 1 on success.
    pub reason: ReasonCode,
    /// Base64 of the server's X25519 public key; empty on failure or without encryption.
    pub server_key: Text,
    /// 16 ASCII characters, the initialisation vector; empty as `server_key`.
    pub salt: Text,
    /// The node that holds the connection; on the wire from version 4.
    pub node_id: u64,
}

/// SEND, client to server: a message (specification section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Send {
    /// Header flags.
    pub flags: Flags,
    /// Setting bits.
    pub setting: Setting,
    /// Client counter, echoed in SENDACK; not monotonic on a connection.
    pub client_seq: u32,
    /// The idempotency key; may be empty.
    pub client_msg_no: Text,
    /// On the wire at versions 2 to 4 if a stream bit, new or legacy, is set.
    pub stream_no: Text,
    /// For person channels the peer's uid.
    pub channel_id: Text,
    /// Specification section 6.4.
    pub channel_type: u8,
    /// Seconds, 0 for never; on the wire from version 3.
    pub expire: u32,
    /// The signature; empty without encryption.
    pub msg_key: Text,
    /// On the wire if the topic bit is set.
    pub topic: Text,
    /// Opaque here.
    pub payload: Bytes,
}

/// SENDACK, server to client: the outcome of a SEND (specification section 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SendAck {
    /// Header flags, mirrored from the SEND.
    pub flags: Flags,
    /// The server's id of the message.
    pub message_id: i64,
    /// Echo.
    pub client_seq: u32,
    /// Position in the channel; 0 when refused or not stored. Up to `u32::MAX` below version 6.
    pub message_seq: u64,
    /// 1 if accepted.
    pub reason: ReasonCode,
    /// Echo; on the wire from version 6, if not empty.
    pub client_msg_no: Text,
}

/// RECV, server to client: a message (specification section 4.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recv {
    /// Header flags.
    pub flags: Flags,
    /// Setting bits; see [`Setting::for_recv`].
    pub setting: Setting,
    /// The signature; empty without encryption.
    pub msg_key: Text,
    /// The sender; empty for the built-in system account.
    pub from_uid: Text,
    /// For person channels the peer as this recipient sees it.
    pub channel_id: Text,
    /// Specification section 6.4.
    pub channel_type: u8,
    /// Seconds, 0 for never; on the wire from version 3.
    pub expire: u32,
    /// The sender's idempotency key.
    pub client_msg_no: Text,
    /// On the wire at versions 2 to 4 if the stream bit is set.
    pub stream: Option<StreamFields>,
    /// The server's id of the message.
    pub message_id: i64,
    /// Position in the channel. Up to `u32::MAX` below version 6.
    pub message_seq: u64,
    /// Seconds since the epoch.
    pub timestamp: i32,
    /// On the wire if the topic bit is set.
    pub topic: Text,
    /// Opaque here.
    pub payload: Bytes,
}

/// The stream fields of RECV at versions 2 to 4 (specification section 4.5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamFields {
    /// 0 start, 1 middle, 2 end.
    pub flag: u8,
    /// Which stream.
    pub no: Text,
    /// Position in the stream.
    pub id: u64,
}

/// RECVACK, client to server: a RECV was handled (specification section 4.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecvAck {
    /// Header flags; some clients repeat those of the RECV.
    pub flags: Flags,
    /// The message.
    pub message_id: i64,
    /// Its position. Up to `u32::MAX` below version 6.
    pub message_seq: u64,
}

/// DISCONNECT, usually server to client: the session ends (specification section 4.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// Header flags; without meaning here.
    pub flags: Flags,
    /// 12 when kicked.
    pub reason: ReasonCode,
    /// For humans; may be empty.
    pub text: Text,
}

/// SUB, client to server: (un)subscribes a data channel (specification section 4.9).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sub {
    /// Header flags; without meaning here.
    pub flags: Flags,
    /// Setting bits; without effect on the layout here.
    pub setting: Setting,
    /// Echoed in SUBACK; may be empty.
    pub sub_no: Text,
    /// The channel, possibly with a `?query`.
    pub channel_id: Text,
    /// Specification section 6.4.
    pub channel_type: u8,
    /// 0 subscribe, 1 unsubscribe.
    pub action: u8,
    /// JSON object text, or empty.
    pub param: Text,
}

/// SUBACK, server to client: the outcome of a SUB (specification section 4.10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubAck {
    /// Header flags; without meaning here.
    pub flags: Flags,
    /// Echo.
    pub sub_no: Text,
    /// Echo, without the query.
    pub channel_id: Text,
    /// Echo.
    pub channel_type: u8,
    /// Echo.
    pub action: u8,
    /// 1 on success.
    pub reason: ReasonCode,
}

/// EVENT, server to client: something happened in a stream or application (specification section 4.11).
///
/// For connections at version 5 or later; older codecs fail on it (specification section 8.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Header flags; without meaning here.
    pub flags: Flags,
    /// May be empty.
    pub id: Text,
    /// The Type field, such as `stream.delta`.
    pub kind: Text,
    /// Milliseconds as the producer gave them.
    pub timestamp: i64,
    /// JSON text, never encrypted; opaque here.
    pub data: Bytes,
}
