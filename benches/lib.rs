//! What a message costs, counted: allocations, syncs, writes and bytes of a shard under a scripted load.
//!
//! Counts do not depend on the machine or on who else uses it, so tests may bound them (`gates.rs`); times are printed
//! by `cargo bench -p wukong-benches` and never asserted.

pub mod counting;
pub mod disk;
pub mod world;
