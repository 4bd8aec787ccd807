//! The channel pool and the channel machine.

pub mod id;
