//! Sizes and times of the storage, and the faults that tests switch on.

use std::path::PathBuf;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// How the storage uses memory, files and time.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    /// Cache of blocks, indexes and filters, shared by all families.
    pub block_cache_bytes: usize,
    /// Rows not yet in tables, all families together; beyond it the fullest family is flushed.
    pub write_buffer_bytes: usize,
    /// Size of the WAL beyond which its oldest families are flushed: bounds the time of a start after a crash.
    pub wal_bytes: u64,
    /// Table files that RocksDB keeps open; cut to a quarter of what the process may open.
    pub open_files: u64,
    /// Threads of RocksDB that flush and compact, with low priority.
    pub background_jobs: u8,
    /// Threads that answer loads which memory cannot answer.
    pub reader_threads: u8,
    /// How long a lazy write may wait for another write to be synced with.
    pub lazy_hold: Duration,
    /// Writes that may wait. The core bounds what it starts, so beyond this there is a bug, and memory would grow without
    /// end: the process is stopped.
    pub queue_ops_max: usize,
    /// The same in bytes.
    pub queue_bytes_max: usize,
    pub faults: Faults,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 * MIB,
            write_buffer_bytes: 256 * MIB,
            wal_bytes: 256 * MIB as u64,
            open_files: 2048,
            background_jobs: 2,
            reader_threads: 2,
            lazy_hold: Duration::from_secs(1),
            queue_ops_max: 1 << 20,
            queue_bytes_max: 1 << 30,
            faults: Faults::default(),
        }
    }
}

/// Faults for tests of the whole server, set from hidden flags. None of them is on by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Complete without syncing. The control of the power-cut test: with it, that test must find lost messages. The floor
    /// stays true: it does not move.
    pub unsafe_no_sync: bool,
    /// While this file exists no sync begins: a stalled disk.
    pub stall: Option<PathBuf>,
    /// Each sync takes this much longer: a slow disk.
    pub sync_delay: Duration,
    /// While this file exists a sync fails: a broken disk.
    pub fail_sync: Option<PathBuf>,
}
