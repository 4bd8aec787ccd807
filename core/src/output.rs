//! Everything that can leave a shard. FIFO within a lane, no order across lanes.

use crate::api::ApiAnswer;
use crate::event::mail::Mail;
use crate::ids::{CallId, ConnId, Incarnation, LinkClass, NodeId, OpId, ShardId};
use crate::note::Note;
use crate::store::{Load, WriteBatch};
use bytes::Bytes;
use smallvec::SmallVec;

/// Encoded frames of one connection, in order; each is one WebSocket message.
pub type Frames = SmallVec<[Bytes; 2]>;

/// Why the core closes a connection. Shown in logs and counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseReason {
    /// The peer broke the protocol.
    Violation,
    /// CONNECT was refused; the CONNACK precedes the close.
    ConnectRefused,
    /// A transient fault: closed without CONNACK, so that clients come back (architecture section 9).
    ConnectUnavailable,
    FirstFrameTimeout,
    AuthTimeout,
    Idle,
    /// Replaced by another login, or kicked.
    Kicked,
    /// The peer sent DISCONNECT.
    PeerDisconnect,
    /// Too many bytes waited to be written.
    SlowReader,
    /// JSON-RPC is not served by this version.
    JsonRpcUnsupported,
    /// Too many connections.
    TooMany,
    Stopping,
}

/// When a persist is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistClass {
    /// Completes after it is synced.
    Sync,
    /// May wait for company for a short while; completes with the sync that covers it.
    Lazy,
}

/// Work for the shell.
#[derive(Clone, Debug)]
pub enum Effect {
    Persist { batch: WriteBatch, class: PersistClass },
    Load(Load),
}

/// An output of the shard (architecture section 2).
#[derive(Clone, Debug)]
pub enum Output {
    Write {
        conn: ConnId,
        frames: Frames,
    },
    /// Write what was handed over before, then close.
    Close {
        conn: ConnId,
        reason: CloseReason,
    },
    Mail {
        to: ShardId,
        mail: Mail,
    },
    Start {
        op: OpId,
        effect: Effect,
    },
    Answer {
        call: CallId,
        answer: ApiAnswer,
    },
    /// A frame for a shard of another node. May be lost; never told.
    PeerFrame {
        to: NodeId,
        class: LinkClass,
        frame: Bytes,
    },
    /// The link to this process is of no use: close it, and open another one.
    PeerReset {
        to: NodeId,
        incarnation: Incarnation,
    },
    Note(Note),
}

/// Outputs of one lane keep their order; lanes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    Conn(ConnId),
    Mail(ShardId),
    Persist,
    Load,
    Answer,
    Peer(NodeId, LinkClass),
    Note,
}

impl Output {
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Write { conn, .. } | Self::Close { conn, .. } => Lane::Conn(*conn),
            Self::Mail { to, .. } => Lane::Mail(*to),
            Self::Start { effect: Effect::Persist { .. }, .. } => Lane::Persist,
            Self::Start { effect: Effect::Load(_), .. } => Lane::Load,
            Self::Answer { .. } => Lane::Answer,
            Self::PeerFrame { to, class, .. } => Lane::Peer(*to, *class),
            Self::PeerReset { to, .. } => Lane::Peer(*to, LinkClass::Control),
            Self::Note(_) => Lane::Note,
        }
    }
}
