//! RocksDB: how it is opened, and how the core's batches become one of its own.

use super::check::file_limit;
use super::options::StorageOptions;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    DBRecoveryMode, Env, ErrorKind, Options, UniversalCompactOptions, WriteOptions,
};
use rustix::process::{Pid, setpriority_process};
use std::fs;
use std::path::Path;
use wukong_core::error::StoreFault;
use wukong_core::store::{Family, Write, WriteBatch};

const MIB: usize = 1 << 20;
/// Values from this size on live in blob files, so that compaction does not copy them.
const BLOB_MIN: u64 = 4 * 1024;

/// An open database.
pub struct Rocks {
    db: DB,
}

/// Gauges of RocksDB itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RocksGauges {
    pub block_cache_bytes: u64,
    pub memtable_bytes: u64,
    /// Size of tables and blobs on disk.
    pub live_bytes: u64,
    /// Not 0: writes wait because compaction is behind.
    pub writes_stopped: u64,
}

/// What a batch held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub rows: u64,
    pub bytes: u64,
}

impl Rocks {
    pub fn open(path: &Path, options: &StorageOptions) -> Result<Self, rocksdb::Error> {
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let families = Family::ALL
            .into_iter()
            .map(|family| ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache)));
        let db = DB::open_cf_descriptors(&db_options(options)?, path, families)?;
        lower_flush_priority();
        Ok(Self { db })
    }

    pub const fn db(&self) -> &DB {
        &self.db
    }

    pub fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("all families were opened")
    }

    /// Writes the batches as one, in order, to the WAL and memory. Not synced.
    pub fn write<'a>(&self, batches: impl Iterator<Item = &'a WriteBatch> + Clone) -> Result<Written, rocksdb::Error> {
        let size: usize = batches.clone().map(|b| b.bytes() + 64).sum();
        let mut merged = rocksdb::WriteBatch::with_capacity_bytes(size);
        let families = Family::ALL.map(|family| self.family(family));
        for write in batches.flat_map(WriteBatch::iter) {
            match write {
                Write::Put { family, key, value } => merged.put_cf(families[family as usize], key, value),
                Write::Delete { family, key } => merged.delete_cf(families[family as usize], key),
                // RocksDB refuses a range whose end comes first, after it has written it to the WAL.
                Write::DeleteRange { from, to, .. } if from >= to => {}
                Write::DeleteRange { family, from, to } => merged.delete_range_cf(families[family as usize], from, to),
            }
        }
        let written = Written { rows: merged.len() as u64, bytes: merged.size_in_bytes() as u64 };
        if written.rows > 0 {
            self.db.write_opt(merged, &WriteOptions::default())?;
        }
        Ok(written)
    }

    /// Makes everything written durable: one fdatasync (two when the WAL file just changed).
    pub fn sync(&self) -> Result<(), rocksdb::Error> {
        self.db.flush_wal(true)
    }

    pub fn latest_seq(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    pub fn gauges(&self) -> RocksGauges {
        // A property that is not there reads as 0: these numbers are for people.
        let of =
            |family, name: &str| self.db.property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0);
        let sum = |name: &str| Family::ALL.into_iter().map(|family| of(family, name)).sum::<u64>();
        RocksGauges {
            block_cache_bytes: of(Family::Log, "rocksdb.block-cache-usage"),
            memtable_bytes: sum("rocksdb.cur-size-all-mem-tables"),
            live_bytes: sum("rocksdb.live-sst-files-size") + sum("rocksdb.live-blob-file-size"),
            writes_stopped: of(Family::Log, "rocksdb.is-write-stopped"),
        }
    }
}

/// What a failure of RocksDB means to the core.
pub fn fault_of(error: &rocksdb::Error) -> StoreFault {
    match error.kind() {
        ErrorKind::Corruption => StoreFault::Corrupt,
        // The kind of an IO error is only in its text.
        _ if ["No space left", "quota exceeded"].iter().any(|t| error.as_ref().contains(t)) => StoreFault::Full,
        _ => StoreFault::Io,
    }
}

/// Lets the reactors go before flushes, but not as far as compaction: a flush takes the processor for a fifth of a second,
/// which every message behind it would feel, yet it has to end before the other memtables are full. RocksDB itself only knows
/// the lowest priority, so this looks its threads up by name.
fn lower_flush_priority() {
    const NICE: i32 = 5;
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
    for task in tasks.flatten() {
        let named = fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "rocksdb:high");
        let pid = task.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        if named && pid.is_some() {
            // It is only about speed: a kernel that refuses changes nothing else.
            let _ = setpriority_process(pid, NICE);
        }
    }
}

fn db_options(options: &StorageOptions) -> Result<Options, rocksdb::Error> {
    let mut env = Env::new()?;
    // Compaction must not take the processor from the reactors. Flushes: see `lower_flush_priority`.
    env.lower_thread_pool_cpu_priority();
    let mut o = Options::default();
    o.set_env(&env);
    o.create_if_missing(true);
    o.create_missing_column_families(true);
    // A record in the middle of the WAL that cannot be read refuses the start. RocksDB's default would end the replay there
    // and drop what was acknowledged behind it.
    o.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A missing or short older WAL file is noticed.
    o.set_track_and_verify_wals_in_manifest(true);
    o.set_max_total_wal_size(options.wal_bytes);
    o.set_db_write_buffer_size(options.write_buffer_bytes);
    // There is one writer.
    o.set_allow_concurrent_memtable_write(false);
    o.set_max_background_jobs(i32::from(options.background_jobs.max(2)));
    // Tables reach the disk while they are written, not all at their end, where the WAL's sync would wait for them.
    o.set_bytes_per_sync(MIB as u64);
    o.set_avoid_unnecessary_blocking_io(true);
    let files = options.open_files.min(file_limit().soft / 4).max(64);
    o.set_max_open_files(i32::try_from(files).unwrap_or(i32::MAX));
    o.set_max_log_file_size(4 * MIB);
    o.set_keep_log_file_num(4);
    o.set_stats_dump_period_sec(0);
    o.set_stats_persist_period_sec(0);
    Ok(o)
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    // Whole keys. Most questions to `index` (dedup) and many to `meta` and `raft` are about keys that do not exist.
    if matches!(family, Family::Meta | Family::Index | Family::Raft | Family::Log) {
        table.set_bloom_filter(10.0, false);
    }
    let mut o = Options::default();
    o.set_compression_type(DBCompressionType::Lz4);
    o.set_write_buffer_size(match family {
        Family::Log => 64 * MIB,
        Family::Index | Family::Meta | Family::Raft => 32 * MIB,
        Family::Marks | Family::Outbox => 8 * MIB,
    });
    // With the default of 2, writes stop while one buffer is full and the other is being flushed. The sum is bounded by
    // `write_buffer_bytes`.
    o.set_max_write_buffer_number(4);
    if family == Family::Log {
        // Written once in order, read little, deleted in ranges: universal compaction copies it least.
        o.set_compaction_style(DBCompactionStyle::Universal);
        let mut universal = UniversalCompactOptions::default();
        universal.set_max_size_amplification_percent(100);
        o.set_universal_compaction_options(&universal);
        o.set_enable_blob_files(true);
        o.set_min_blob_size(BLOB_MIN);
        o.set_blob_compression_type(DBCompressionType::Lz4);
        o.set_enable_blob_gc(true);
    }
    o.set_block_based_table_factory(&table);
    o
}
