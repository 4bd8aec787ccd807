//! Links between nodes: what the replication groups of a shard say to a peer is packed into frames, and unpacked there
//! (cluster-and-raft 4.20, 4.21, 4.26).
//!
//! [`Links`] is the machine of a shard. Nothing here is reliable, and nothing has to be: a link delivers each item at most once,
//! and in order within a group and class, or not at all; replication repeats what matters.

mod lane;
mod links;
mod pack;
mod read;
mod wire;

pub use links::Links;
pub use wukong_proto::peer::FrameError;

use crate::audit;
use crate::counters::counters;
use crate::ids::{ChannelKey, Incarnation, LinkClass, NodeId, SlotId};
use crate::raft::config::Replica;
use crate::raft::core::Report;
use crate::raft::message::{Envelope, Item as LogItem, Message};
use crate::store::rows::Assignment;
use alloc::sync::Arc;
use bytes::Bytes;

/// Name of a replication group among nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Slot(SlotId),
    /// A channel made anew has another generation, and is another group.
    Channel {
        channel: ChannelKey,
        generation: u64,
    },
}

/// One thing said to a shard of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Group {
        group: Group,
        envelope: Envelope,
    },
    /// Slot leader to a replica of a channel: what is committed about it. The generation is the assignment's.
    Assign {
        channel: ChannelKey,
        assignment: Arc<Assignment>,
    },
    /// Slot leader to a channel's leader: give way to `target`.
    Handover {
        channel: ChannelKey,
        generation: u64,
        target: Replica,
    },
    /// A channel's leader to whoever leads the slot.
    Report {
        channel: ChannelKey,
        generation: u64,
        from: Replica,
        report: Report,
    },
    /// Between the leader of a slot and a member: their settled channels are compared.
    Audit {
        slot: SlotId,
        from: Replica,
        /// Number of the comparison, given by the slot's leader.
        scan: u64,
        said: audit::Said,
    },
    Ping(Ping),
}

/// How a process fares. Which process it is the frame says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ping {
    /// The sender's calendar clock, milliseconds.
    pub clock_ms: u64,
    pub load: u32,
    /// Rises as long as the sender's shards make progress.
    pub progress: u64,
}

/// The newest version of items that is spoken here (4.26).
pub const WIRE: u16 = 1;

impl Item {
    /// The class that it travels by.
    #[must_use]
    pub fn class(&self) -> LinkClass {
        match self {
            Self::Group { envelope, .. } => match &envelope.message {
                Message::Items { items, .. } if !items.is_empty() => LinkClass::Data,
                Message::SnapshotChunk { .. } => LinkClass::Bulk,
                _ => LinkClass::Control,
            },
            Self::Audit { .. } => LinkClass::Bulk,
            _ => LinkClass::Control,
        }
    }

    /// The version since which it exists: a link that speaks an older one does not carry it.
    #[must_use]
    pub const fn wire(&self) -> u16 {
        match self {
            Self::Group { .. }
            | Self::Assign { .. }
            | Self::Handover { .. }
            | Self::Report { .. }
            | Self::Audit { .. }
            | Self::Ping(_) => 1,
        }
    }

    /// About how many bytes it takes.
    #[must_use]
    pub fn weight(&self) -> usize {
        const SMALL: usize = 64;
        const REPLICA: usize = 24;
        match self {
            Self::Group { envelope, .. } => match &envelope.message {
                Message::Items { items, .. } => SMALL + items.iter().map(log_weight).sum::<usize>(),
                Message::SnapshotChunk { bytes, .. } => SMALL + bytes.len(),
                Message::EndEpoch { successors } => SMALL + REPLICA * successors.len(),
                Message::Begin { assignment: Some(a), .. } => SMALL + assignment_weight(a),
                _ => SMALL,
            },
            Self::Assign { assignment, .. } => SMALL + assignment_weight(assignment),
            Self::Audit { said: audit::Said::Sums(sums), .. } => SMALL + 16 * sums.len(),
            Self::Audit { said: audit::Said::Rows { rows, .. }, .. } => {
                SMALL + rows.iter().map(|r| SMALL + r.channel.id.len()).sum::<usize>()
            }
            Self::Audit { .. } => 4 * SMALL,
            _ => SMALL,
        }
    }
}

fn log_weight(item: &LogItem) -> usize {
    match item {
        LogItem::Mark { .. } => 16,
        LogItem::Entry(e) => e.size(),
    }
}

fn assignment_weight(a: &Assignment) -> usize {
    64 + 24 * (a.voters.len() + a.voters_out.len() + a.learners.len())
}

/// What leaves [`Links`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A frame for a shard of `to`; the shard is in its header.
    Frame { to: NodeId, class: LinkClass, frame: Bytes },
    /// The link to this process is of no use: close it and open another one.
    Reset { node: NodeId, incarnation: Incarnation },
}

counters! {
    /// What the links of a shard did since it started.
    LinkCounters:
    frames_out,
    frames_in,
    bytes_out,
    bytes_in,
    /// Rows of packs included; the same for `items_in`.
    items_out,
    items_in,
    /// Beats and fetches that went as rows of a pack.
    rows_packed,
    /// Packs received that referred to a list which is here.
    digests_hit,
    digests_missed,
    lists_offered,
    /// Times at which a class began to wait for credit.
    credit_waits,
    /// So much data waited for a peer that groups stopped making more.
    data_pauses,
    resets,
    /// Items not sent: there is no link to the node.
    dropped_not_up,
    /// Of a version that the link does not speak.
    dropped_version,
    /// Not from this process, or not to that node.
    dropped_foreign,
    dropped_too_large,
    /// The oldest of a full queue.
    dropped_full,
    /// They waited when the link ended.
    dropped_reset,
    /// Frames not read: of another cluster.
    frames_other_cluster,
    /// For another process or shard than this.
    frames_misrouted,
    /// From a process that is over.
    frames_old_sender,
    /// From a process that no link is open to.
    frames_not_up,
    /// Of an older link, repeated, or overtaken.
    frames_stale,
    /// They cannot be decoded, or hold what is unknown here: the link is reset.
    frames_refused,
}
