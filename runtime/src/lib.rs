//! The runtime shell.
