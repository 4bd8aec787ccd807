//! Streams of messages between two nodes: one gRPC method in production, framed TCP under the simulator.
//!
//! The simulator's stand-in for the RPC library hands over objects, not bytes. So under `cfg(madsim)` messages travel with
//! their length in front over the simulated TCP, and everything above this module is the same source.

#[cfg(madsim)]
mod tcp;
#[cfg(not(madsim))]
mod tonic;

#[cfg(madsim)]
pub(super) use self::tcp::{Incoming, dial, serve};
#[cfg(not(madsim))]
pub(super) use self::tonic::{Incoming, dial, serve};

use super::queue::OutQueue;
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;

/// The listening socket of the peers, for [`serve`].
#[cfg(not(madsim))]
pub type Listener = std::net::TcpListener;
#[cfg(madsim)]
pub type Listener = ::tokio::net::TcpListener;

/// Takes each stream that was opened to this node.
pub(super) type Accepted = Arc<dyn Fn(Wire) + Send + Sync>;

/// One stream, both ways.
pub(super) struct Wire {
    pub out: Arc<OutQueue>,
    pub incoming: Incoming,
}

impl Incoming {
    /// The next message. None: the stream ended.
    ///
    /// # Errors
    /// The stream broke; says how.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        poll_fn(|cx| self.poll_next(cx)).await.transpose()
    }
}
