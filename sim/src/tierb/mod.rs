//! Tier B: the production shell (reactor, inboxes, links between nodes) under the madsim executor, over the simulator's disk.
//!
//! Compiled with `--cfg madsim` only. docs/simulation.md says how to run it and what it can see.

mod chat;
mod check;
pub mod compare;
mod counter;
mod node;
pub mod plan;
pub mod runs;
mod stage;
mod store;
mod tape;
mod watch;
mod world;
