//! The client wire protocol (binary frames) as types that cannot be invalid, parsed once and written once; and in [`peer`] what
//! nodes say to each other.
//!
//! - [`detect()`] chooses the protocol of a connection from its first bytes;
//! - [`Decoder`] turns received chunks into [`Frame`]s without copying them;
//! - [`encode()`] and its per-frame siblings write frames into a buffer of the caller;
//! - [`hello`] is how two nodes of a cluster greet each other;
//! - [`cursor`] holds the big-endian primitives, shared with stored records.
//!
//! Nothing here performs I/O, keeps time, or decides anything about a message. No function panics on bytes from outside.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]
extern crate alloc;

mod body;
pub mod codes;
pub mod cursor;
pub mod decode;
pub mod detect;
pub mod encode;
pub mod frame;
pub mod hello;
pub mod peer;
pub mod text;

pub use codes::{Flags, FrameKind, ReasonCode, Setting};
pub use decode::{Decoder, Violation, decode_one};
pub use detect::{Detection, Protocol, detect};
pub use encode::{
    EncodeError, encode, encode_conn_ack, encode_connect, encode_disconnect, encode_event, encode_ping, encode_pong,
    encode_recv, encode_recv_ack, encode_send, encode_send_ack, encode_sub, encode_sub_ack,
};
pub use frame::{ConnAck, Connect, Disconnect, Event, Frame, Recv, RecvAck, Send, SendAck, StreamFields, Sub, SubAck};
pub use text::{InvalidUtf8, Text};

/// Highest protocol version spoken (specification section 3).
pub const MAX_VERSION: u8 = 6;

/// Largest Remaining Length, inclusive (specification section 2.5).
pub const FRAME_BODY_MAX: usize = 1_048_576;

/// Largest byte count of a length-prefixed text (specification section 2.4).
pub const TEXT_MAX: usize = 32_767;
