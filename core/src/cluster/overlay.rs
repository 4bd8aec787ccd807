//! Rows of a slot's tables in memory: applied but not yet on disk, needed by queued commands, or recently used.
//!
//! Results do not depend on what is resident (architecture 2.1): a row is kept while anything in flight could
//! otherwise see an older version of it, and only then by choice.

use crate::map::BTreeMap;
use alloc::collections::VecDeque;
use bytes::Bytes;

#[derive(Clone, Debug, Default)]
struct Row {
    /// `None` = not known; `Some(None)` = known to be absent.
    value: Option<Option<Bytes>>,
    /// Queued commands and reads in flight that need it.
    pins: u32,
    /// Persists in flight that carry it.
    dirty: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Overlay {
    rows: BTreeMap<Bytes, Row>,
    /// Rows that were clean and unpinned when they were added here, oldest first.
    idle: VecDeque<Bytes>,
    rows_max: usize,
    /// Planted bug: evict although a load in flight holds an older version.
    careless: bool,
}

impl Overlay {
    #[must_use]
    pub const fn new(rows_max: usize, careless: bool) -> Self {
        Self { rows: BTreeMap::new(), idle: VecDeque::new(), rows_max, careless }
    }

    /// The row, if it is resident: `Some(None)` = known to be absent.
    #[must_use]
    pub fn peek(&self, key: &Bytes) -> Option<Option<Bytes>> {
        self.rows.get(key).and_then(|r| r.value.clone())
    }

    /// Keeps the row from now on; true when it must be loaded.
    pub fn pin(&mut self, key: &Bytes) -> bool {
        let row = self.rows.entry(key.clone()).or_default();
        row.pins += 1;
        row.value.is_none()
    }

    /// A load answered. A version already resident is newer than any loaded one.
    pub fn loaded(&mut self, key: &Bytes, value: Option<Bytes>) {
        if let Some(row) = self.rows.get_mut(key)
            && (row.value.is_none() || (self.careless && row.dirty == 0))
        {
            row.value = Some(value);
        }
    }

    pub fn unpin(&mut self, key: &Bytes) {
        if let Some(row) = self.rows.get_mut(key) {
            assert!(row.pins > 0, "unpin without pin");
            row.pins -= 1;
            self.settle(key);
        }
    }

    /// An applied command wrote the row; its Persist starts with this turn's batch.
    pub fn write(&mut self, key: Bytes, value: Bytes) {
        let row = self.rows.entry(key).or_default();
        row.value = Some(Some(value));
        row.dirty += 1;
    }

    /// One Persist that carried the row is complete.
    pub fn clean(&mut self, key: &Bytes) {
        if let Some(row) = self.rows.get_mut(key) {
            assert!(row.dirty > 0, "clean without write");
            row.dirty -= 1;
            self.settle(key);
        }
    }

    fn settle(&mut self, key: &Bytes) {
        let Some(row) = self.rows.get_mut(key) else {
            return;
        };
        if self.careless && row.dirty == 0 && row.value.is_some() {
            // The bug: forget the newer row although a load in flight still holds the older one.
            if row.pins == 0 {
                self.rows.remove(key);
            } else {
                row.value = None;
            }
            return;
        }
        if row.pins == 0 && row.dirty == 0 {
            self.idle.push_back(key.clone());
            self.evict();
        }
    }

    fn evict(&mut self) {
        while self.idle.len() > self.rows_max {
            let Some(key) = self.idle.pop_front() else {
                return;
            };
            if self.rows.get(&key).is_some_and(|r| r.pins == 0 && r.dirty == 0) {
                self.rows.remove(&key);
            }
        }
    }

    /// Nothing under way needs a row, or writes one.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.rows.values().all(|r| r.pins == 0 && r.dirty == 0)
    }

    /// Forgets everything. Only when it is quiet.
    pub fn clear(&mut self) {
        assert!(self.is_quiet(), "rows that something needs are forgotten");
        self.rows.clear();
        self.idle.clear();
    }

    /// Rows resident.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: Bytes = Bytes::from_static(b"k");
    const NEW: Bytes = Bytes::from_static(b"new");
    const OLD: Bytes = Bytes::from_static(b"old");

    #[test]
    fn a_load_in_flight_never_brings_back_an_older_row() {
        let mut o = Overlay::new(0, false);
        assert!(o.pin(&K));
        o.write(K, NEW);
        o.clean(&K);
        o.loaded(&K, Some(OLD));
        assert_eq!(o.peek(&K), Some(Some(NEW)));
        o.unpin(&K);
        assert_eq!(o.peek(&K), None, "with size 0 nothing idle stays");
    }

    #[test]
    fn idle_rows_leave_oldest_first() {
        let mut o = Overlay::new(1, false);
        for k in [b"a".as_slice(), b"b"] {
            let k = Bytes::from_static(k);
            o.pin(&k);
            o.loaded(&k, None);
            o.unpin(&k);
        }
        assert_eq!(o.peek(&Bytes::from_static(b"a")), None);
        assert_eq!(o.peek(&Bytes::from_static(b"b")), Some(None));
        assert_eq!(o.len(), 1);
    }
}
