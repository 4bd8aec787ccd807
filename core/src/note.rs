//! Observations for logs and metrics. Dropping one changes no behaviour.

use crate::error::StoreFault;
use crate::ids::{ConnId, SlotId};
use crate::output::CloseReason;
use wukong_proto::{ReasonCode, Text, Violation};

/// Something worth telling an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Hydration ended: slots lead and calls are served.
    Ready,
    ConnectRefused {
        conn: ConnId,
        uid: Text,
        reason: ReasonCode,
    },
    Connected {
        conn: ConnId,
        uid: Text,
    },
    Broken {
        conn: ConnId,
        violation: Violation,
    },
    Closed {
        conn: ConnId,
        reason: CloseReason,
    },
    StoreFailed {
        fault: StoreFault,
    },
    /// The shard ends: a write failed, and what it promised can no longer be kept.
    Halted {
        fault: StoreFault,
    },
    /// A replica noticed what must not happen: an operator has to look at the disks of the slot's members.
    RaftAlarm {
        slot: SlotId,
        alarm: crate::raft::core::Alarm,
    },
    /// A peer sent what cannot be read; its link is reset.
    PeerBroken {
        node: crate::ids::NodeId,
        error: crate::link::FrameError,
    },
    /// A slot took a snapshot of its leader; this is what it has applied now.
    SlotRestored {
        slot: SlotId,
        applied: u64,
        /// The process before this one had begun with it.
        at_boot: bool,
    },
    SlotStopped {
        slot: SlotId,
        why: &'static str,
    },
}
