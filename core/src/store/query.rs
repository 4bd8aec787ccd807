//! `Load`: a closed list of bounded queries, answered from one consistent snapshot (architecture 2.1).

use super::batch::Family;
use crate::error::StoreFault;
use alloc::vec::Vec;
use bytes::Bytes;

/// One bounded question to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The value of one key.
    Get { family: Family, key: Bytes },
    /// Rows with `from <= key < to`, at most `rows_max` of them and (after the first) `bytes_max` bytes;
    /// the last ones first when `reverse`. The page says whether more rows were left.
    Range { family: Family, from: Bytes, to: Bytes, rows_max: u32, bytes_max: u32, reverse: bool },
}

/// Queries answered together. The answer sees every `Persist` that the same shard started before it, unless
/// [`Load::needs_only_durable`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub queries: Vec<Query>,
}

impl Load {
    /// A load of nothing but index rows need not see writes in flight: the core keeps the keys of entries that are not committed
    /// in memory, and while committed ones are not durable here it asks for another row too. Everything else sees every earlier
    /// write of its shard.
    #[must_use]
    pub fn needs_only_durable(&self) -> bool {
        self.queries.iter().all(|q| matches!(q, Query::Get { family: Family::Index, .. }))
    }
}

/// Answer to one query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Point(Option<Bytes>),
    Page {
        rows: Vec<(Bytes, Bytes)>,
        more: bool,
    },
    /// This query failed; the others of the load stand.
    Unreadable(StoreFault),
}

/// A consistent view of a store; the simulated disk and RocksDB both implement it.
pub trait Snapshot {
    /// # Errors
    /// The store could not be read.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault>;

    /// Visits rows of `[from, to)` in key order (or against it) until `visit` returns false.
    ///
    /// # Errors
    /// The store could not be read.
    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault>;
}

/// Answers a load: the one definition of what each query means.
///
/// # Errors
/// The first read that failed.
pub fn answer<S: Snapshot + ?Sized>(snapshot: &S, load: &Load) -> Result<Vec<Found>, StoreFault> {
    Ok(load.queries.iter().map(|q| answer_one(snapshot, q).unwrap_or_else(Found::Unreadable)).collect())
}

fn answer_one<S: Snapshot + ?Sized>(snapshot: &S, query: &Query) -> Result<Found, StoreFault> {
    match query {
        Query::Get { family, key } => snapshot.get(*family, key).map(Found::Point),
        Query::Range { family, from, to, rows_max, bytes_max, reverse } => {
            let mut rows = Vec::new();
            let (mut size, mut more) = (0usize, false);
            snapshot.scan(*family, from, to, *reverse, &mut |k, v| {
                size += k.len() + v.len();
                if rows.len() >= *rows_max as usize || (!rows.is_empty() && size > *bytes_max as usize) {
                    more = true;
                    return false;
                }
                rows.push((Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
                true
            })?;
            Ok(Found::Page { rows, more })
        }
    }
}
