//! Events that travel between machines.

pub mod mail;
