//! What replicas of a group say to each other (cluster-and-raft 4.6).

use super::config::{Config, Replica};
use crate::ids::{Epoch, Incarnation, Position};
use crate::store::rows::Assignment;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

/// One item of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Start of an epoch; `at` is the last index before it. Takes no index itself.
    Mark {
        epoch: Epoch,
        at: u64,
    },
    Entry(Entry),
}

/// A log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub index: u64,
    pub epoch: Epoch,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Data(Bytes),
    /// Members of an elected group from this entry on.
    Config(Arc<Config>),
}

impl Entry {
    /// Bytes that it counts for in limits.
    #[must_use]
    pub fn size(&self) -> usize {
        32 + match &self.body {
            Body::Data(b) => b.len(),
            Body::Config(c) => 20 * (c.voters.len() + c.voters_out.len() + c.learners.len()),
        }
    }
}

/// Names a leadership transfer: only the follower it was sent to in that epoch may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferToken {
    pub epoch: Epoch,
    pub nonce: u64,
}

/// State that a follower installs instead of entries which no longer exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Derived from its content, so that it can be resumed from another leader.
    pub id: u64,
    /// Position of the last entry that it contains.
    pub base: Position,
    pub config: Arc<Config>,
    pub config_index: u64,
    /// Bytes to fetch. 0: there are none, the log merely begins later (a channel whose prefix was retained away).
    pub size: u64,
}

/// Why a request was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseKind {
    NotLeader,
    /// The sender's epoch is over.
    Fenced,
    Busy,
    /// The sender is not a member any more.
    Removed,
    /// Something in it is unknown here.
    Version,
}

/// A message with its header. The router above adds group and generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub from: Replica,
    pub to: Replica,
    /// Incarnation of the sender's process.
    pub from_incarnation: Incarnation,
    /// What the sender has promised, durably (P6).
    pub epoch: Epoch,
    pub message: Message,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    PreVoteReq {
        next_epoch: Epoch,
        pos: Position,
    },
    PreVoteResp {
        next_epoch: Epoch,
        granted: bool,
        leader: Option<Replica>,
    },
    VoteReq {
        pos: Position,
        transfer: Option<TransferToken>,
    },
    VoteResp {
        granted: bool,
    },
    /// "I lead this epoch." Repeated until the first `Fetch` of the epoch.
    Begin {
        mark_at: u64,
        hw: u64,
        assignment: Option<Arc<Assignment>>,
    },
    Beat {
        seq: u64,
        hw: u64,
    },
    Fetch(Fetch),
    Items {
        prev: Position,
        items: Vec<Item>,
        hw: u64,
        /// What the leader's owner has handed on of what is committed.
        distributed: u64,
        leader_last: u64,
        fetch_seq: u64,
    },
    Diverged {
        req_pos: Position,
        keep: Position,
    },
    NeedBase {
        snapshot: Arc<Snapshot>,
    },
    SnapshotFetch {
        id: u64,
        offset: u64,
    },
    SnapshotChunk {
        id: u64,
        offset: u64,
        bytes: Bytes,
        last: bool,
    },
    Refuse {
        kind: RefuseKind,
        leader: Option<Replica>,
    },
    /// The leader stops; successors in order of what they have durably.
    EndEpoch {
        successors: Vec<Replica>,
    },
    TransferNow {
        token: TransferToken,
    },
    ReadReq {
        ctx: u64,
    },
    /// None: refused.
    ReadResp {
        ctx: u64,
        index: Option<u64>,
    },
    /// Assigned mode: the header's epoch is the one to promise.
    Fence,
    FenceResp {
        durable: Position,
        hw: u64,
        damaged: bool,
    },
    Settle {
        pos: Position,
        hw: u64,
    },
    SettleAck {
        pos: Position,
    },
    Wake,
}

/// A follower's position and what it has durably.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetch {
    /// Rises within an incarnation; a newer one replaces an older one.
    pub seq: u64,
    /// End of the log in memory.
    pub pos: Position,
    /// End of what is on disk and in the log.
    pub durable: Position,
    pub hw: u64,
    /// Newest beat that was heard.
    pub beat: u64,
    /// Answer even if there is nothing: the position is not confirmed in this epoch yet.
    pub answer_now: bool,
    /// The sender lost what it had acknowledged; it is served, not counted.
    pub damaged: bool,
}

impl Message {
    /// Whether a stale sender is told that its epoch is over.
    #[must_use]
    pub const fn expects_answer(&self) -> bool {
        matches!(
            self,
            Self::VoteReq { .. }
                | Self::Begin { .. }
                | Self::Beat { .. }
                | Self::Fetch(_)
                | Self::SnapshotFetch { .. }
                | Self::ReadReq { .. }
                | Self::Fence
                | Self::Settle { .. }
        )
    }

    /// Name for traces and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PreVoteReq { .. } => "PreVoteReq",
            Self::PreVoteResp { .. } => "PreVoteResp",
            Self::VoteReq { .. } => "VoteReq",
            Self::VoteResp { .. } => "VoteResp",
            Self::Begin { .. } => "Begin",
            Self::Beat { .. } => "Beat",
            Self::Fetch(_) => "Fetch",
            Self::Items { .. } => "Items",
            Self::Diverged { .. } => "Diverged",
            Self::NeedBase { .. } => "NeedBase",
            Self::SnapshotFetch { .. } => "SnapshotFetch",
            Self::SnapshotChunk { .. } => "SnapshotChunk",
            Self::Refuse { .. } => "Refuse",
            Self::EndEpoch { .. } => "EndEpoch",
            Self::TransferNow { .. } => "TransferNow",
            Self::ReadReq { .. } => "ReadReq",
            Self::ReadResp { .. } => "ReadResp",
            Self::Fence => "Fence",
            Self::FenceResp { .. } => "FenceResp",
            Self::Settle { .. } => "Settle",
            Self::SettleAck { .. } => "SettleAck",
            Self::Wake => "Wake",
        }
    }
}
