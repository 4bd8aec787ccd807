//! The entries at the end of a log that are kept in memory, to be sent and committed without reading the disk.

use super::message::Entry;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Entries `first ..= end` of the log; older ones are on disk only.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Tail {
    /// What was read of a log that ends at `end`.
    ///
    /// # Panics
    /// A gap, or another end.
    #[must_use]
    pub fn of(entries: Vec<Entry>, end: u64) -> Self {
        assert!(entries.last().is_none_or(|last| last.index == end), "the tail ends where the log ends");
        let mut tail = Self::default();
        entries.into_iter().for_each(|e| tail.push(e));
        tail
    }

    /// Index of the oldest entry in memory, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.entries.front().map(|e| e.index)
    }

    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// # Panics
    /// A gap.
    pub fn push(&mut self, entry: Entry) {
        assert!(self.entries.back().is_none_or(|last| last.index + 1 == entry.index), "entries follow each other");
        self.bytes += entry.size();
        self.entries.push_back(entry);
    }

    /// Entries from `from` on, as many as fit into `max_bytes`, at least one. None: they are not in memory.
    #[must_use]
    pub fn from(&self, from: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.first().filter(|first| *first <= from)?;
        let mut bytes = 0;
        let entries = self.entries.iter().skip((from - first) as usize);
        Some(
            entries
                .take_while(|e| {
                    let fits = bytes == 0 || bytes + e.size() <= max_bytes;
                    bytes += e.size();
                    fits
                })
                .cloned()
                .collect(),
        )
    }

    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.first()?;
        self.entries.get(index.checked_sub(first)? as usize)
    }

    /// Removes entries above `index`, and gives them to `into`, last first.
    pub fn cut(&mut self, index: u64, into: &mut Vec<Entry>) {
        while self.entries.back().is_some_and(|e| e.index > index) {
            let entry = self.entries.pop_back().expect("just seen");
            self.bytes -= entry.size();
            into.push(entry);
        }
    }

    /// Lets entries up to `index` go, oldest first, while more than `keep_bytes` are held.
    pub fn trim(&mut self, index: u64, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.entries.front().is_some_and(|e| e.index <= index) {
            let entry = self.entries.pop_front().expect("just seen");
            self.bytes -= entry.size();
        }
    }
}
