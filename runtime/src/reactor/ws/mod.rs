//! The server side of WebSocket (RFC 6455) without IO and without buffers of its own: bytes in, events out.
//!
//! The machine wants the payloads of data messages as one byte stream (wire-protocol 1.4), so messages are not put
//! together here: what is in a received chunk is unmasked in place and handed on. An idle connection holds no bytes.

mod frame;
mod handshake;
mod utf8;

pub use frame::{CLOSE_NORMAL, Decoder, Event, Head, binary_head, close_payload, control_head};
pub use handshake::{Accepted, Handshake, Progress};
