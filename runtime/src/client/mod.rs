//! The client's side of the binary protocol: what `wukongim chat`, `wukongim bench` and the end-to-end tests speak.
//!
//! [`session`] performs no I/O, so that blocking sockets and the load generator's event loop drive the same code;
//! [`tcp`] is the blocking client; [`ws`] is the framing of WebSocket connections; [`http`] is as much of HTTP as the
//! management API needs. Written against the specification, not against the server: an independent witness of it.

pub mod crypto;
pub mod http;
pub mod session;
pub mod tcp;
pub mod ws;

pub use session::{Event, Fault, Login, Outgoing, Session};
pub use tcp::{Client, ConnectError};

/// Fills an array from the operating system's entropy.
///
/// # Panics
/// The operating system has none to give, which no supported system does.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives entropy");
    bytes
}

/// A fresh `client_msg_no`: 32 hexadecimal digits.
#[must_use]
pub fn fresh_msg_no() -> String {
    format!("{:032x}", u128::from_be_bytes(random()))
}

/// Milliseconds since the epoch.
#[must_use]
pub fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
