//! The only crate that touches the world: sockets, disk, clock, HTTP; and the `wukongim` command.
//!
//! - [`reactor`]: one thread per shard drives the pure core with what arrives, and carries out what it asks for;
//! - [`peers`]: links to the other nodes of the cluster;
//! - [`storage`]: one thread writes and syncs for all shards;
//! - [`http`]: the API for back ends; [`node`] puts these together, [`cli`] is what a person types;
//! - [`client`], [`chat`], [`load`]: the other side of the wire.

pub mod chat;
#[cfg(not(madsim))]
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(not(madsim))]
pub mod http;
pub mod load;
#[cfg(not(madsim))]
pub mod node;
pub mod peers;
pub mod reactor;
#[cfg(not(madsim))]
pub mod recorder;
#[cfg(not(madsim))]
pub mod storage;
