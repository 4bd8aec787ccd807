//! Slots: their replication groups, and the state machine whose tables hold all metadata.

pub mod assignment;
pub mod boot;
pub mod command;
pub mod control;
mod group;
mod install;
pub mod overlay;
pub mod slot;
mod snapshot;

pub use command::{Command, Outcome};
pub use slot::{Slots, Waiter};
