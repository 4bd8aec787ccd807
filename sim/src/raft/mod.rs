//! Clusters of replication groups: one elected group (the slot), whose state machine assigns leaders to channel groups, on
//! machines with failing networks, disks, clocks and processes. docs/consensus.md says what is proven here.

pub mod cluster;
pub mod cover;
pub mod deliver;
pub mod disk;
pub mod explain;
pub mod explore;
pub mod fault;
pub mod ghost;
pub mod judge;
pub mod load;
pub mod net;
pub mod node;
pub mod plan;
pub mod quiet;
pub mod record;
pub mod run;
pub mod slot;
pub mod small;
pub mod text;
pub mod visible;
pub mod voices;

use wukong_core::ids::{NodeId, StoreId};
use wukong_core::raft::config::Replica;

/// A node of the cluster, counted from 0.
pub type NodeNo = usize;
/// A group: 0 is the slot, the others are channels.
pub type GroupNo = usize;
/// The elected group.
pub const SLOT: GroupNo = 0;

pub const MS: u64 = 1_000_000;

/// The replica that a store of a node is. `wipes` = how often that node lost its disk.
#[must_use]
pub fn replica(node: NodeNo, wipes: u32) -> Replica {
    Replica { node: NodeId(node as u16 + 1), store: StoreId(((node as u128 + 1) << 32) | u128::from(wipes)) }
}

/// The node of a replica.
#[must_use]
pub fn node_of(r: Replica) -> NodeNo {
    usize::from(r.node.0) - 1
}
