//! One client session on one connection, as bytes in and bytes out: handshake, encryption, signatures. No I/O.

use std::fmt;

use bytes::{Bytes, BytesMut};
use wukong_proto::{
    ConnAck, Connect, Decoder, EncodeError, Flags, Frame, FrameKind, ReasonCode, Recv, RecvAck, Send, SendAck, Setting,
    Text, Violation, encode_connect, encode_ping, encode_recv_ack, encode_send,
};
use x25519_dalek::StaticSecret;

use super::crypto::{KeyError, Keys, public_key};

/// Who connects, and how.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// The user.
    pub uid: String,
    /// The token stored with POST /user/token; empty where the server asks for none.
    pub token: String,
    /// 0 app, 1 web, 2 PC.
    pub device_flag: u8,
    /// Names this device; a second connection with the same name replaces the first.
    pub device_id: String,
    /// The protocol version to offer, 1 to [`wukong_proto::MAX_VERSION`].
    pub version: u8,
}

impl Login {
    /// A login of `uid` at the newest version, as an app, without a token.
    #[must_use]
    pub fn new(uid: &str) -> Login {
        Login { uid: uid.to_owned(), version: wukong_proto::MAX_VERSION, ..Login::default() }
    }
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Repeated in the SENDACK.
    pub client_seq: u32,
    /// Names the message for ever: sent again with the same one it is stored once.
    pub client_msg_no: &'a Text,
    /// For person channels the peer's uid.
    pub channel_id: &'a Text,
    /// 1 person, 2 group.
    pub channel_type: u8,
    /// Red dot, sync once, no persist, and the mark of a resend.
    pub flags: Flags,
    /// In clear.
    pub payload: &'a [u8],
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// CONNECT was accepted; messages may be sent.
    Open {
        /// The negotiated version.
        version: u8,
        /// The node that holds the connection; 0 below version 4.
        node: u64,
        /// Whether payloads are encrypted.
        encrypted: bool,
    },
    /// CONNECT was refused; the server closes.
    Refused(ReasonCode),
    /// The outcome of a SEND.
    SendAck(SendAck),
    /// A message, its signature verified and its payload in clear.
    Recv(Recv),
    /// The answer to a ping.
    Pong,
    /// The server ends the session.
    Disconnect {
        /// 12 when kicked.
        reason: ReasonCode,
        /// For humans; may be empty.
        text: Text,
    },
    /// SUBACK or EVENT.
    Other(Frame),
}

/// The server broke the protocol. The session is of no further use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that are no frame.
    Malformed(Violation),
    /// A frame that does not belong here.
    Unexpected(FrameKind),
    /// CONNACK carries no usable key or salt.
    Keys(KeyError),
    /// CONNACK announces a version higher than the one offered.
    Version(u8),
    /// The signature of a RECV does not match.
    Forged {
        /// The message.
        message_id: i64,
    },
    /// The payload of a RECV cannot be decrypted.
    Undecryptable {
        /// The message.
        message_id: i64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(violation) => {
                write!(f, "the server sent bytes that are no frame: {violation}")
            }
            Fault::Unexpected(kind) => write!(f, "the server sent {kind} where it has no place"),
            Fault::Keys(error) => write!(f, "the server's CONNACK is unusable: {error}"),
            Fault::Version(version) => write!(f, "the server chose version {version}, higher than the one offered"),
            Fault::Forged { message_id } => {
                write!(f, "the signature of message {message_id} does not match")
            }
            Fault::Undecryptable { message_id } => {
                write!(f, "the payload of message {message_id} cannot be decrypted")
            }
        }
    }
}

impl std::error::Error for Fault {}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Refused,
    Broken(Fault),
}

/// A client session.
#[derive(Clone)]
pub struct Session {
    state: State,
    secret: StaticSecret,
    keys: Option<Keys>,
    decoder: Decoder,
}

impl Session {
    /// Begins a session: appends CONNECT to `out`. `secret` is 32 random bytes, used for this session only.
    ///
    /// # Errors
    /// A field of `login` is too long for the wire.
    pub fn begin(login: &Login, secret: [u8; 32], now_ms: i64, out: &mut BytesMut) -> Result<Session, EncodeError> {
        let secret = StaticSecret::from(secret);
        let connect = Connect {
            flags: Flags::default(),
            version: login.version,
            device_flag: login.device_flag,
            device_id: login.device_id.as_str().into(),
            uid: login.uid.as_str().into(),
            token: login.token.as_str().into(),
            client_timestamp: now_ms,
            client_key: public_key(&secret).into(),
        };
        encode_connect(&connect, out)?;
        Ok(Session { state: State::Connecting, secret, keys: None, decoder: Decoder::new(login.version) })
    }

    /// Hands in received bytes.
    pub fn feed(&mut self, bytes: Bytes) {
        self.decoder.feed(bytes);
    }

    /// The next event; none if more bytes are needed.
    ///
    /// # Errors
    /// The server broke the protocol; every later call says so again.
    pub fn poll(&mut self) -> Result<Option<Event>, Fault> {
        if let State::Broken(fault) = &self.state {
            return Err(fault.clone());
        }
        let polled = match self.decoder.next() {
            Ok(None) => Ok(None),
            Ok(Some(frame)) => self.on_frame(frame).map(Some),
            Err(violation) => Err(Fault::Malformed(violation)),
        };
        if let Err(fault) = &polled {
            self.state = State::Broken(fault.clone());
        }
        polled
    }

    fn on_frame(&mut self, frame: Frame) -> Result<Event, Fault> {
        match (frame, &self.state) {
            (Frame::ConnAck(ack), State::Connecting) => self.on_conn_ack(&ack),
            (Frame::SendAck(ack), State::Open) => Ok(Event::SendAck(ack)),
            (Frame::Recv(recv), State::Open) => self.on_recv(recv),
            (Frame::Pong, State::Open) => Ok(Event::Pong),
            (Frame::Disconnect(d), _) => Ok(Event::Disconnect { reason: d.reason, text: d.text.detached() }),
            (frame @ (Frame::SubAck(_) | Frame::Event(_)), State::Open) => Ok(Event::Other(frame)),
            (frame, _) => Err(Fault::Unexpected(frame.kind())),
        }
    }

    fn on_conn_ack(&mut self, ack: &ConnAck) -> Result<Event, Fault> {
        if ack.reason != ReasonCode::SUCCESS {
            self.state = State::Refused;
            return Ok(Event::Refused(ack.reason));
        }
        let offered = self.decoder.version();
        let version = ack.server_version.unwrap_or(offered);
        if version > offered {
            return Err(Fault::Version(version));
        }
        self.decoder.set_version(version);
        if !ack.server_key.is_empty() || !ack.salt.is_empty() {
            self.keys = Some(Keys::derive(&self.secret, &ack.server_key, &ack.salt).map_err(Fault::Keys)?);
        }
        self.state = State::Open;
        Ok(Event::Open { version, node: ack.node_id, encrypted: self.keys.is_some() })
    }

    fn on_recv(&mut self, mut recv: Recv) -> Result<Event, Fault> {
        // A server that honours NoEncrypt in RECV says so in the setting and leaves the signature empty.
        let clear = recv.setting.no_encrypt() && recv.msg_key.is_empty();
        if let (Some(keys), false) = (&self.keys, clear) {
            if recv.msg_key.as_bytes() != recv_signature(keys, &recv) {
                return Err(Fault::Forged { message_id: recv.message_id });
            }
            let undecryptable = Fault::Undecryptable { message_id: recv.message_id };
            recv.payload = keys.decrypt(&recv.payload).map_err(|_| undecryptable)?.into();
        }
        Ok(Event::Recv(recv))
    }

    /// Whether messages may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// The version in use.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.decoder.version()
    }

    /// Appends a SEND to `out`, encrypted and signed where the session has keys. To be called once the session is open.
    ///
    /// # Errors
    /// A text or the payload is too long for the wire; nothing was appended.
    pub fn send(&self, message: &Outgoing<'_>, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut frame = Send {
            flags: message.flags,
            setting: Setting::default(),
            client_seq: message.client_seq,
            client_msg_no: message.client_msg_no.clone(),
            channel_id: message.channel_id.clone(),
            channel_type: message.channel_type,
            ..Send::default()
        };
        if let Some(keys) = &self.keys {
            frame.payload = keys.encrypt(message.payload).into();
            frame.msg_key = hex_text(send_signature(keys, &frame));
        } else {
            frame.payload = Bytes::copy_from_slice(message.payload);
        }
        encode_send(&frame, self.version(), out)
    }

    /// Appends the RECVACK of `recv` to `out`, with the flags that the published SDK repeats.
    ///
    /// # Errors
    /// The sequence number does not fit the version, which no received one does.
    pub fn recv_ack(&self, recv: &Recv, out: &mut BytesMut) -> Result<(), EncodeError> {
        let flags = recv.flags.without(Flags::DUP);
        let ack = RecvAck { flags, message_id: recv.message_id, message_seq: recv.message_seq };
        encode_recv_ack(&ack, self.version(), out)
    }

    /// Appends a PING to `out`.
    pub fn ping(&self, out: &mut BytesMut) {
        encode_ping(out);
    }
}

fn hex_text(hex: [u8; 32]) -> Text {
    Text::try_from(Bytes::copy_from_slice(&hex)).expect("hexadecimal digits are UTF-8")
}

/// The signature of a SEND whose payload is as on the wire.
#[must_use]
pub fn send_signature(keys: &Keys, send: &Send) -> [u8; 32] {
    let (seq, kind) = (send.client_seq.to_string(), send.channel_type.to_string());
    keys.sign(&[
        seq.as_bytes(),
        send.client_msg_no.as_bytes(),
        send.channel_id.as_bytes(),
        kind.as_bytes(),
        &send.payload,
    ])
}

/// The signature of a RECV whose payload is as on the wire.
#[must_use]
pub fn recv_signature(keys: &Keys, recv: &Recv) -> [u8; 32] {
    let (id, seq) = (recv.message_id.to_string(), recv.message_seq.to_string());
    let (time, kind) = (recv.timestamp.to_string(), recv.channel_type.to_string());
    keys.sign(&[
        id.as_bytes(),
        seq.as_bytes(),
        recv.client_msg_no.as_bytes(),
        time.as_bytes(),
        recv.from_uid.as_bytes(),
        recv.channel_id.as_bytes(),
        kind.as_bytes(),
        &recv.payload,
    ])
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
