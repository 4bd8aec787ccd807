//! The server side of WebSocket (RFC 6455) without IO: bytes in, events out, by tungstenite.
//!
//! The reactor reads and writes the sockets. A [`Decoder`] owns buffers, so a connection has one only while a part of a
//! message is there; an idle connection holds no bytes. What the server sends needs no state: a head goes in front of
//! the machine's bytes, which are not copied.

mod decoder;
mod frame;
mod handshake;

pub use decoder::{Decoder, Event};
pub use frame::{Head, binary_head, close_frame};
pub use handshake::{Accepted, Handshake, Progress};
pub use tungstenite::protocol::frame::coding::CloseCode;
