//! The disk: one data directory, one RocksDB, one thread that writes and syncs (architecture section 6).
//!
//! What it promises to the shards is in docs/storage.md, "What the storage thread promises". In short: a `Persist` of
//! class `Sync` completes after one sync that covered it; a `Load` sees every `Persist` that the same shard started before
//! it; after the first failed write or sync nothing is promised any more.

#[cfg(not(madsim))]
mod check;
#[cfg(not(madsim))]
mod dir;
#[cfg(not(madsim))]
mod error;
#[cfg(not(madsim))]
mod file;
#[cfg(not(madsim))]
mod floor;
#[cfg(not(madsim))]
mod options;
#[cfg(not(madsim))]
mod queue;
#[cfg(not(madsim))]
mod readers;
#[cfg(not(madsim))]
mod rocks;
#[cfg(not(madsim))]
mod shard;
#[cfg(not(madsim))]
mod stats;
#[cfg(not(madsim))]
mod thread;
#[cfg(not(madsim))]
mod view;
#[cfg(not(madsim))]
mod wal;

#[cfg(all(test, not(madsim)))]
mod tests;

#[cfg(not(madsim))]
pub use check::{FileLimit, FreeSpace, SelfCheck, SyncLatency, file_limit, free_space, sync_latency};
#[cfg(not(madsim))]
pub use dir::{ClusterId, DataDir, Identity};
#[cfg(not(madsim))]
pub use error::OpenError;
#[cfg(not(madsim))]
pub use options::{Faults, StorageOptions};
#[cfg(not(madsim))]
pub use shard::ShardStore;
#[cfg(not(madsim))]
pub use stats::{LATENCY_BUCKETS, Latency, StorageStats};
#[cfg(not(madsim))]
pub use thread::{Sink, Storage};

use wukong_core::ids::OpId;
use wukong_core::input::Completion;
use wukong_core::output::PersistClass;
use wukong_core::store::{Load, WriteBatch};

/// What a reactor asks of the disk. RocksDB is behind it ([`ShardStore`]), and under madsim the simulator's disk.
pub trait Store: Send {
    /// Starts a write. Never blocks; the completion goes to the sink, in the order of the calls.
    fn persist(&mut self, op: OpId, batch: WriteBatch, class: PersistClass);

    /// Starts a read that sees every `persist` called before. When memory holds the answer it is returned at once and
    /// the sink is not called; otherwise the sink gets it.
    #[must_use = "an inline answer is not sent to the sink"]
    fn load(&mut self, op: OpId, load: Load) -> Option<Completion>;
}
