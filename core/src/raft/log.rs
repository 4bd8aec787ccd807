//! Positions of a group's log: entries have an index, marks have none (cluster-and-raft 4.3).

use crate::ids::{Epoch, Position};
use alloc::vec::Vec;

/// The shape of a log: where each epoch starts, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Everything up to here was removed (retention or snapshot).
    pub base: Position,
    /// (epoch, last index before it), ascending, above the base.
    marks: Vec<(Epoch, u64)>,
    end: Position,
}

impl Log {
    /// A log as found on disk. `marks` ascending; `last` = index of the last entry (the base's if none).
    #[must_use]
    pub fn recovered(base: Position, marks: Vec<(Epoch, u64)>, last: u64) -> Self {
        let epoch = marks.last().map_or(base.epoch, |(e, _)| *e).max(base.epoch);
        Self { base, marks, end: Position { epoch, index: last.max(base.index) } }
    }

    #[must_use]
    pub const fn end(&self) -> Position {
        self.end
    }

    /// Starts an epoch at `at` = the current last index. An epoch that turns out to have no entries keeps its mark: a replica that
    /// cut it would end at an older epoch than what it helped to commit, and could be outbid by a log that lacks it.
    pub fn mark(&mut self, epoch: Epoch, at: u64) {
        assert!(epoch > self.end.epoch && at == self.end.index, "a mark extends the log");
        self.marks.push((epoch, at));
        self.end.epoch = epoch;
    }

    /// Marks of epochs after `epoch`, ascending.
    pub fn marks_after(&self, epoch: Epoch) -> impl Iterator<Item = (Epoch, u64)> + '_ {
        self.marks[self.marks.partition_point(|(e, _)| *e <= epoch)..].iter().copied()
    }

    #[must_use]
    pub fn marks(&self) -> &[(Epoch, u64)] {
        &self.marks
    }

    /// Whether what came before `p` is gone: its place cannot be judged any more.
    #[must_use]
    pub fn is_below_base(&self, p: Position) -> bool {
        p.index < self.base.index || (p.index > 0 && p.epoch < self.base.epoch)
    }

    /// Where the log would end after [`Self::cut`].
    #[must_use]
    pub fn cut_end(&self, keep: Position) -> Position {
        let end = self.epoch_end(keep.epoch);
        let index = end.index.min(keep.index).max(self.base.index);
        let kept = self.marks.iter().rev().find(|(e, at)| *e <= keep.epoch && *at <= keep.index);
        Position { epoch: kept.map_or(self.base.epoch, |(e, _)| *e), index }
    }

    /// Adds `count` entries of the current epoch.
    pub fn extend(&mut self, epoch: Epoch, count: u64) {
        assert!(epoch == self.end.epoch || count == 0, "entries belong to the epoch of the last mark");
        self.end.index += count;
    }

    /// `epoch_end(L, e)`: the largest epoch ≤ e, and its last index.
    #[must_use]
    pub fn epoch_end(&self, epoch: Epoch) -> Position {
        let n = self.marks.partition_point(|(e, _)| *e <= epoch);
        let found = if n == 0 { self.base.epoch } else { self.marks[n - 1].0 };
        let index = self.marks.get(n).map_or(self.end.index, |(_, at)| *at);
        Position { epoch: found, index }
    }

    /// The epoch of the entry at `index`.
    #[must_use]
    pub fn epoch_of(&self, index: u64) -> Epoch {
        let n = self.marks.partition_point(|(_, at)| *at < index);
        if n == 0 { self.base.epoch } else { self.marks[n - 1].0 }
    }

    /// Whether `p` is a position of this log.
    #[must_use]
    pub fn consistent(&self, p: Position) -> bool {
        let end = self.epoch_end(p.epoch);
        p == Position::default() || (end.epoch == p.epoch && p.index <= end.index)
    }

    /// `cut(L, keep)`: the longest prefix with epochs ≤ keep.epoch and indexes ≤ keep.index.
    pub fn cut(&mut self, keep: Position) {
        self.end = self.cut_end(keep);
        self.marks.retain(|(e, at)| *e <= keep.epoch && *at <= keep.index);
    }

    /// For the planted bug M8: the end goes on claiming the epoch that was cut.
    pub(super) fn forget_cut(&mut self, epoch: Epoch) {
        self.end.epoch = self.end.epoch.max(epoch);
    }

    /// Forgets everything up to `base`, which is a position of this log.
    pub fn rebase(&mut self, base: Position) {
        self.marks.retain(|(e, _)| *e > base.epoch);
        self.base = base;
    }

    /// Empty, beginning after `base`.
    #[must_use]
    pub const fn starting_at(base: Position) -> Self {
        Self { base, marks: Vec::new(), end: base }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pos(epoch: u64, index: u64) -> Position {
        Position { epoch: Epoch(epoch), index }
    }

    fn sample() -> Log {
        let mut l = Log::default();
        l.mark(Epoch(1), 0);
        l.extend(Epoch(1), 4);
        l.mark(Epoch(3), 4);
        l.extend(Epoch(3), 2);
        l
    }

    #[test]
    fn epochs_end_where_the_next_begins() {
        let l = sample();
        assert_eq!(l.end(), pos(3, 6));
        assert_eq!(l.epoch_end(Epoch(1)), pos(1, 4));
        assert_eq!(l.epoch_end(Epoch(2)), pos(1, 4));
        assert_eq!(l.epoch_end(Epoch(9)), pos(3, 6));
        assert!(l.consistent(pos(1, 4)) && l.consistent(pos(3, 5)) && l.consistent(pos(0, 0)));
        assert!(!l.consistent(pos(1, 5)) && !l.consistent(pos(2, 4)));
    }

    #[test]
    fn cutting_keeps_the_shared_prefix() {
        let mut l = sample();
        l.cut(pos(2, 9));
        assert_eq!(l.end(), pos(1, 4));
        let mut l = sample();
        l.cut(pos(3, 5));
        assert_eq!(l.end(), pos(3, 5));
        let mut l = sample();
        l.cut(pos(0, 0));
        assert_eq!(l.end(), pos(0, 0));
    }

    #[test]
    fn an_epoch_without_entries_keeps_its_mark() {
        let mut l = sample();
        l.mark(Epoch(5), 6);
        l.mark(Epoch(8), 6);
        assert_eq!(l.end(), pos(8, 6));
        assert_eq!(l.epoch_end(Epoch(6)), pos(5, 6));
    }
}
