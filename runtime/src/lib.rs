//! The runtime shell.
pub mod chat;
pub mod client;
pub mod load;
