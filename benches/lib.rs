//! See the crate's README section in the project's README.
