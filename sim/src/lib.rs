//! The simulator: worlds in which the same core runs through crashes, lost writes and clock trouble, and the oracles
//! that judge what clients saw. docs/simulation.md is its manual.
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod hash;
pub mod heap;
pub mod history;
pub mod machine;
pub mod oracle;
pub mod raft;
pub mod report;
pub mod rng;
pub mod run;
pub mod scenario;
pub mod sometimes;
#[cfg(madsim)]
pub mod tierb;
pub mod toy;
pub mod world;
