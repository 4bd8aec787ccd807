//! Everything that can enter a shard. All values are owned, so a run can be recorded and replayed.

use crate::api::ApiRequest;
use crate::error::StoreFault;
use crate::event::mail::Mail;
use crate::ids::{CallId, ConnId, Incarnation, NodeId, OpId, PeerProcess, ShardId};
use crate::store::Found;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

/// How the bytes of a connection travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Tcp,
    /// The shell frames; each `ConnReceived` carries the payload of one data message (or a part of it).
    WebSocket,
}

/// How a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// The peer closed, or the connection broke.
    Peer,
    /// The core asked for it.
    Asked,
    /// The peer broke the transport's own protocol (WebSocket).
    Transport,
}

/// An input of the shard (architecture section 2).
#[derive(Clone, Debug)]
pub enum Input {
    ConnOpened {
        conn: ConnId,
        transport: Transport,
        peer: SocketAddr,
    },
    ConnReceived {
        conn: ConnId,
        bytes: Bytes,
    },
    /// Write credit: `bytes` of what was written left for the kernel.
    ConnDrained {
        conn: ConnId,
        bytes: u32,
    },
    ConnClosed {
        conn: ConnId,
        cause: CloseCause,
    },
    Mail {
        from: ShardId,
        mail: Mail,
    },
    Completed {
        op: OpId,
        completion: Completion,
    },
    Call {
        call: CallId,
        request: ApiRequest,
    },
    /// A link to a process of the cluster is open; what was sent on an older one may be lost.
    PeerUp {
        peer: PeerProcess,
    },
    /// The link to that process is closed.
    PeerDown {
        node: NodeId,
        incarnation: Incarnation,
    },
    /// A frame for this shard, from the process that the link was opened to.
    PeerFrame {
        node: NodeId,
        incarnation: Incarnation,
        frame: Bytes,
    },
    /// `poll_timeout` has passed. An early one does nothing.
    Deadline,
    /// Graceful stop: finish what is owed, close connections, accept nothing new.
    Stop,
}

impl Input {
    /// New work waits while `wants_input()` is false; completions, credits, mail and deadlines never do.
    #[must_use]
    pub const fn is_new_work(&self) -> bool {
        matches!(self, Self::ConnReceived { .. } | Self::Call { .. } | Self::ConnOpened { .. })
    }
}

/// Answer to an effect; each effect completes exactly once.
#[derive(Clone, Debug)]
pub enum Completion {
    /// The batch, and everything this shard persisted before it, is durable (class `Sync`),
    /// or became durable with a later sync (class `Lazy`).
    Persisted(Result<(), StoreFault>),
    Loaded(Result<Vec<Found>, StoreFault>),
}
