//! A store in memory, for scripts.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use wukong_core::error::StoreFault;
use wukong_core::store::{Family, Snapshot, Write, WriteBatch};

/// Rows by family and key.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    rows: BTreeMap<(Family, Vec<u8>), Vec<u8>>,
}

impl Disk {
    /// Executes a batch.
    pub fn write(&mut self, batch: &WriteBatch) {
        for write in batch {
            match write {
                Write::Put { family, key, value } => {
                    self.rows.insert((family, key.to_vec()), value.to_vec());
                }
                Write::Delete { family, key } => {
                    self.rows.remove(&(family, key.to_vec()));
                }
                Write::DeleteRange { family, from, to } => {
                    let doomed: Vec<_> = self.range(family, from, to).map(|(key, _)| key.clone()).collect();
                    for key in doomed {
                        self.rows.remove(&key);
                    }
                }
            }
        }
    }

    /// Keys and values of all rows, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|((_, key), value)| key.len() + value.len()).sum()
    }

    fn range<'a>(
        &'a self,
        family: Family,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = (&'a (Family, Vec<u8>), &'a Vec<u8>)> + use<'a> {
        let (from, to) = ((family, from.to_vec()), (family, to.to_vec()));
        // An empty range may be asked for, also one that ends before it begins.
        let to = if to < from { from.clone() } else { to };
        self.rows.range((Bound::Included(from), Bound::Excluded(to)))
    }
}

impl Snapshot for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.rows.get(&(family, key.to_vec())).map(|value| Bytes::copy_from_slice(value)))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        let mut rows = self.range(family, from, to);
        while let Some(((_, key), value)) = if reverse { rows.next_back() } else { rows.next() } {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}
