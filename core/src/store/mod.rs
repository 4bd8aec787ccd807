//! What is on disk: key layouts, row formats, write batches and bounded reads. docs/storage.md is their description.

pub mod batch;
pub mod keys;
pub mod query;
pub mod record;
pub mod rows;

pub use batch::{Family, Write, WriteBatch};
pub use query::{Found, Load, Query, Snapshot, answer};
pub use record::Record;
