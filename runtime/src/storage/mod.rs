//! The disk: one data directory, one RocksDB, one thread that writes and syncs (architecture section 6).
//!
//! What it promises to the shards is in docs/storage.md, "What the storage thread promises". In short: a `Persist` of
//! class `Sync` completes after one sync that covered it; a `Load` sees every `Persist` that the same shard started before
//! it; after the first failed write or sync nothing is promised any more.
//!
//! Not built under madsim: there the simulator's disk takes its place.

mod check;
mod dir;
mod error;
mod file;
mod floor;
mod options;
mod queue;
mod readers;
mod rocks;
mod shard;
mod stats;
mod thread;
mod view;
mod wal;

#[cfg(test)]
mod tests;

pub use check::{FileLimit, FreeSpace, SelfCheck, SyncLatency, file_limit, free_space, sync_latency};
pub use dir::{ClusterId, DataDir, Identity};
pub use error::OpenError;
pub use options::{Faults, StorageOptions};
pub use rocks::RocksGauges;
pub use shard::ShardStore;
pub use stats::{LATENCY_BUCKETS, LatencySample, StorageSample};
pub use thread::{Sink, Storage};
