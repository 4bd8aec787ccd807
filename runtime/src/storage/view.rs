//! Reading RocksDB through the core's `Snapshot`: everything, or only what memory holds.

use super::rocks::{Rocks, fault_of};
use bytes::Bytes;
use rocksdb::{DB, ErrorKind, ReadOptions, ReadTier, SnapshotWithThreadMode};
use std::cell::Cell;
use wukong_core::error::StoreFault;
use wukong_core::store::{Family, Found, Load, Query, Snapshot, answer};

/// An inline answer holds up its shard: at most this many rows, some 50 µs. A range weighs as much as its rows and its seek.
const INLINE_ROWS_MAX: usize = 64;
const INLINE_SEEK: usize = 4;
const INLINE_BYTES_MAX: usize = 256 * 1024;
/// Deleted rows that an inline range may step over.
const INLINE_SKIPS_MAX: u64 = 256;

/// One consistent view.
struct View<'a> {
    rocks: &'a Rocks,
    /// A single query is consistent by itself; only several need a snapshot.
    snapshot: Option<SnapshotWithThreadMode<'a, DB>>,
    inline: bool,
    /// An inline view met something that is not in memory: the answer is thrown away, so the rest of it is not read.
    incomplete: Cell<bool>,
}

impl View<'_> {
    fn options(&self) -> ReadOptions {
        let mut o = ReadOptions::default();
        if let Some(snapshot) = &self.snapshot {
            o.set_snapshot(snapshot);
        }
        if self.inline {
            o.set_read_tier(ReadTier::BlockCache);
            o.set_max_skippable_internal_keys(INLINE_SKIPS_MAX);
        }
        o
    }

    fn fault(&self, error: &rocksdb::Error) -> StoreFault {
        if self.inline && error.kind() == ErrorKind::Incomplete {
            self.incomplete.set(true);
        } else {
            tracing::error!(%error, "a read from the database failed");
        }
        fault_of(error)
    }
}

impl Snapshot for View<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        if self.incomplete.get() {
            return Err(StoreFault::Io);
        }
        let family = self.rocks.family(family);
        match self.rocks.db().get_pinned_cf_opt(family, key, &self.options()) {
            Ok(value) => Ok(value.map(|v| Bytes::copy_from_slice(&v))),
            Err(e) => Err(self.fault(&e)),
        }
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        if self.incomplete.get() {
            return Err(StoreFault::Io);
        }
        if from >= to {
            return Ok(());
        }
        let mut options = self.options();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut rows = self.rocks.db().raw_iterator_cf_opt(self.rocks.family(family), options);
        if reverse {
            rows.seek_to_last()
        } else {
            rows.seek_to_first()
        }
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            if reverse { rows.prev() } else { rows.next() }
        }
        rows.status().map_err(|e| self.fault(&e))
    }
}

fn view<'a>(rocks: &'a Rocks, load: &Load, inline: bool) -> View<'a> {
    let snapshot = (load.queries.len() > 1).then(|| rocks.db().snapshot());
    View { rocks, snapshot, inline, incomplete: Cell::new(false) }
}

/// Answers from wherever the rows are.
pub fn read(rocks: &Rocks, load: &Load) -> Result<Vec<Found>, StoreFault> {
    answer(&view(rocks, load, false), load)
}

/// Answers from memory only; `None` when that is not enough, or would take long.
pub fn read_inline(rocks: &Rocks, load: &Load) -> Option<Result<Vec<Found>, StoreFault>> {
    if !is_small(load) {
        return None;
    }
    let view = view(rocks, load, true);
    let found = answer(&view, load);
    (!view.incomplete.get()).then_some(found)
}

fn is_small(load: &Load) -> bool {
    let (mut rows, mut bytes) = (0usize, 0usize);
    for query in &load.queries {
        match query {
            Query::Get { .. } => rows += 1,
            Query::Range { rows_max, bytes_max, .. } => {
                rows = rows.saturating_add(*rows_max as usize).saturating_add(INLINE_SEEK);
                bytes = bytes.saturating_add(*bytes_max as usize);
            }
        }
    }
    rows <= INLINE_ROWS_MAX && bytes <= INLINE_BYTES_MAX
}
