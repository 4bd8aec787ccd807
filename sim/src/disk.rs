//! The simulated disk: one write-ahead log for all shards of a node. What is written is visible at once; what is
//! synced survives; a crash keeps a prefix of whole batches (architecture section 6).

use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use wukong_core::error::StoreFault;
use wukong_core::store::{Family, Snapshot, Write, WriteBatch};

/// A stored value and the batch that wrote it.
#[derive(Clone, Debug)]
pub struct Row {
    pub value: Bytes,
    /// Number of the batch, counted from 1.
    pub batch: u64,
}

type Table = BTreeMap<Bytes, Row>;
type Undo = (Family, Bytes, Option<Row>);

/// One store. `Clone` gives an independent disk with the same contents.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    tables: [Table; Family::ALL.len()],
    /// How to take back each batch that is not synced, oldest first.
    undo: VecDeque<Vec<Undo>>,
    /// Batches written since the disk was made, minus those a crash took back.
    written: u64,
    synced: u64,
    /// The most bytes that were unsynced at once.
    pub unsynced_max: usize,
}

impl Disk {
    /// Writes a batch; returns its number.
    pub fn write(&mut self, batch: &WriteBatch) -> u64 {
        self.written += 1;
        let number = self.written;
        let mut undo = Vec::with_capacity(batch.len() as usize);
        for write in batch {
            match write {
                Write::Put { family, key, value } => {
                    let (key, row) =
                        (Bytes::copy_from_slice(key), Row { value: Bytes::copy_from_slice(value), batch: number });
                    let old = self.tables[family as usize].insert(key.clone(), row);
                    undo.push((family, key, old));
                }
                Write::Delete { family, key } => {
                    if let Some((key, old)) = self.tables[family as usize].remove_entry(key) {
                        undo.push((family, key, Some(old)));
                    }
                }
                Write::DeleteRange { family, from, to } => {
                    let table = &mut self.tables[family as usize];
                    let gone: Vec<Bytes> = range(table, from, to).map(|(k, _)| k.clone()).collect();
                    for key in gone {
                        let old = table.remove(&key);
                        undo.push((family, key, old));
                    }
                }
            }
        }
        self.undo.push_back(undo);
        self.unsynced_max = self.unsynced_max.max(self.undo.len());
        number
    }

    /// Everything up to batch `number` is durable from now on.
    pub fn sync(&mut self, number: u64) {
        while self.synced < number.min(self.written) {
            self.synced += 1;
            self.undo.pop_front();
        }
    }

    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Number of the last durable batch.
    #[must_use]
    pub const fn synced(&self) -> u64 {
        self.synced
    }

    /// Power fails: batches above `keep` are gone (synced ones never). What is left is durable.
    pub fn crash(&mut self, keep: u64) {
        let keep = keep.clamp(self.synced, self.written);
        while self.written > keep {
            self.written -= 1;
            for (family, key, old) in self.undo.pop_back().into_iter().flatten().rev() {
                let table = &mut self.tables[family as usize];
                match old {
                    Some(row) => table.insert(key, row),
                    None => table.remove(&key),
                };
            }
        }
        self.sync(self.written);
    }

    #[must_use]
    pub fn row(&self, family: Family, key: &[u8]) -> Option<&Row> {
        self.tables[family as usize].get(key)
    }

    /// What a crash that keeps nothing unsynced would leave of a row.
    #[must_use]
    pub fn durable(&self, family: Family, key: &[u8]) -> Option<&Row> {
        let older = self.undo.iter().flatten().find(|(f, k, _)| *f == family && k == key);
        older.map_or_else(|| self.row(family, key), |(.., row)| row.as_ref())
    }

    /// Rows with `from <= key < to`, in key order.
    pub fn rows<'a>(
        &'a self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Row)> {
        range(&self.tables[family as usize], from, to)
    }

    /// All rows of a family.
    pub fn all(&self, family: Family) -> impl Iterator<Item = (&Bytes, &Row)> {
        self.tables[family as usize].iter()
    }

    /// Hash of the contents, for comparing two runs.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut t = crate::hash::Trace::default();
        for table in &self.tables {
            for (k, row) in table {
                t.bytes(k);
                t.bytes(&row.value);
            }
        }
        t.value()
    }
}

fn range<'a>(
    table: &'a Table,
    from: &[u8],
    to: &[u8],
) -> impl DoubleEndedIterator<Item = (&'a Bytes, &'a Row)> + use<'a> {
    let empty = from >= to;
    let (from, to) = if empty { (from, from) } else { (from, to) };
    let (lo, hi) = (Bound::Included(from), if empty { Bound::Included(from) } else { Bound::Excluded(to) });
    table.range::<[u8], _>((lo, hi)).filter(move |_| !empty)
}

/// A disk without what is not synced; point reads only.
pub struct Synced<'a>(pub &'a Disk);

impl Snapshot for Synced<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.durable(family, key).map(|r| r.value.clone()))
    }

    fn scan(
        &self,
        _: Family,
        _: &[u8],
        _: &[u8],
        _: bool,
        _: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        Err(StoreFault::Io)
    }
}

impl Snapshot for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.row(family, key).map(|r| r.value.clone()))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        let mut rows = self.rows(family, from, to);
        while let Some((k, r)) = if reverse { rows.next_back() } else { rows.next() } {
            if !visit(k, &r.value) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wukong_core::store::{Found, Load, Query, answer};

    fn put(pairs: &[(&[u8], &[u8])]) -> WriteBatch {
        let mut b = WriteBatch::new();
        pairs.iter().for_each(|(k, v)| b.put(Family::Log, k, v));
        b
    }

    fn value(d: &Disk, key: &[u8]) -> Option<Vec<u8>> {
        d.row(Family::Log, key).map(|r| r.value.to_vec())
    }

    #[test]
    fn a_crash_keeps_a_prefix_of_whole_batches() {
        let mut d = Disk::default();
        d.write(&put(&[(b"a", b"1"), (b"b", b"1")]));
        d.sync(1);
        d.write(&put(&[(b"a", b"2"), (b"c", b"2")]));
        let mut b = WriteBatch::new();
        b.delete(Family::Log, b"b");
        b.delete_range(Family::Log, b"a", b"c");
        b.put(Family::Log, b"d", b"3");
        d.write(&b);
        assert_eq!((value(&d, b"a"), value(&d, b"c")), (None, Some(b"2".to_vec())));
        let durable = |key: &[u8]| d.durable(Family::Log, key).map(|r| r.value.to_vec());
        assert_eq!((durable(b"a"), durable(b"c"), durable(b"d")), (Some(b"1".to_vec()), None, None));

        for (keep, expected) in [(3, "c=2 d=3"), (2, "a=2 b=1 c=2"), (0, "a=1 b=1")] {
            let mut d = d.clone();
            d.crash(keep);
            let text: Vec<String> = d
                .all(Family::Log)
                .map(|(k, r)| format!("{}={}", String::from_utf8_lossy(k), String::from_utf8_lossy(&r.value)))
                .collect();
            assert_eq!(text.join(" "), expected, "keep {keep}");
            assert_eq!(d.synced(), d.written());
        }
    }

    #[test]
    fn ranges_are_bounded_and_reversible() {
        let mut d = Disk::default();
        d.write(&put(&[(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]));
        let ask = |from: &'static [u8], to: &'static [u8], reverse, rows_max| {
            let query = Query::Range {
                family: Family::Log,
                from: Bytes::from_static(from),
                to: Bytes::from_static(to),
                rows_max,
                bytes_max: 100,
                reverse,
            };
            match answer(&d, &Load { queries: vec![query] }).unwrap().remove(0) {
                Found::Page { rows, more } => (rows.iter().map(|(k, _)| k[0] as char).collect::<String>(), more),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(ask(b"b", b"d", false, 9), ("bc".into(), false));
        assert_eq!(ask(b"a", b"e", true, 3), ("dcb".into(), true));
        assert_eq!(ask(b"d", b"b", false, 9), (String::new(), false));
        assert_eq!(ask(b"b", b"b", false, 9), (String::new(), false));
    }
}
