//! Clusters of real shards: nodes with a disk, a clock and links to each other, whose shards replicate slots and channels, and
//! clients that talk to whoever serves them. docs/simulation.md, "Clusters of shards".

pub mod clients;
pub mod conns;
pub mod eras;
pub mod external;
pub mod fault;
pub mod judge;
pub mod node;
pub mod plan;
pub mod quiet;
pub mod rows;
pub mod run;
pub mod script;
pub mod shell;
pub mod storage;
pub mod tap;
pub mod tokens;
pub mod wires;
pub mod world;

use wukong_core::ids::{NodeId, StoreId};
use wukong_core::raft::config::Replica;

/// Of every cluster here.
pub const CLUSTER: u128 = 42;

/// The replica that a node is, counted from 0.
#[must_use]
pub fn replica(node: usize) -> Replica {
    Replica { node: NodeId(node as u16 + 1), store: StoreId((1 << 64) | (node as u128 + 1)) }
}

/// The node of an id.
#[must_use]
pub fn node_of(id: NodeId) -> usize {
    usize::from(id.0) - 1
}
