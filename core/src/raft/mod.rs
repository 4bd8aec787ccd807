//! Replication groups (cluster-and-raft 4): [`core::GroupCore`] is the whole machine, for slots and for channels alike: elections,
//! pull replication, members, transfer, snapshots, reads, assigned leaders. A node alone is a group of one voter on the same path.
//! Each concern has a room; `core` routes. docs/consensus.md says what differs from Raft, and what proves it.
//!
//! A group knows positions, and the entries that are not committed; its owner writes the items. Two modes: `Elected` groups
//! (slots) raise their own epoch; `Assigned` groups (channels) are given theirs by the slot machine.

pub mod assigned;
mod commit;
pub mod config;
pub mod core;
mod election;
pub mod follow;
pub mod held;
pub mod journal;
pub mod lead;
pub mod log;
mod member;
pub mod message;
pub mod read;
mod serve;
pub mod snapshot;
pub mod tail;
pub mod transfer;
mod view;

pub use held::Held;
pub use log::Log;
