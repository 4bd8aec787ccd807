//! Every decision of the server, as pure machines: no IO, clock, entropy, threads or async.
//!
//! A driver owns a [`Shard`] and repeats: hand it inputs while it wants them, drain its outputs (each lane in
//! order), sleep until its timeout or the next input. The production runtime and the simulator are two such drivers.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod api;
pub mod audit;
mod call;
pub mod channel;
pub mod cluster;
pub mod conn;
pub mod counters;
mod ctx;
pub mod error;
pub mod event;
pub mod flight;
pub mod ids;
pub mod input;
pub mod limits;
pub mod link;
pub mod map;
pub mod mutants;
pub mod note;
pub mod output;
pub mod pusher;
pub mod raft;
pub mod rng;
pub mod shard;
pub mod store;
pub mod time;
pub mod user;

pub use input::{CloseCause, Completion, Input, Transport};
pub use output::{CloseReason, Effect, Frames, Lane, Output, PersistClass};
pub use shard::{Boot, Shard, ShardConfig, ShardView, TimerKind};
