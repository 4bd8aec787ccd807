//! Replication groups (cluster-and-raft 4). [`core::GroupCore`] is the whole machine: elections, pull replication, members,
//! transfer, snapshots, reads, assigned leaders. The running server does not use it yet: with one node its slots and channels run
//! on [`Group`], the same rules for voters = {me}: log positions, epoch marks, the durability rule, the commit rule, and
//! promises held until their entry is committed. docs/consensus.md says what is proven, and what is left to do.
//!
//! A group knows positions, not contents: its owner writes the items and keeps the uncommitted tail. Two modes: `Elected` groups
//! (slots) raise their own epoch; `Assigned` groups (channels) are given theirs by the slot machine.

pub mod assigned;
mod commit;
pub mod config;
pub mod core;
mod election;
pub mod follow;
pub mod held;
pub mod journal;
pub mod lead;
pub mod log;
mod member;
pub mod message;
pub mod read;
mod serve;
pub mod snapshot;
pub mod tail;
pub mod transfer;
mod view;

use crate::ids::{Epoch, Position};
use alloc::collections::VecDeque;
pub use held::Held;
pub use log::Log;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Follower,
    Leader,
    /// A write failed; nothing is claimed any more (P9).
    Damaged,
}

/// What a replica finds on its disk.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Durable promise.
    pub epoch: Epoch,
    pub log: Log,
    /// A position known to be committed: a hint, at most the end.
    pub hw: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Group {
    pub epoch: Epoch,
    pub role: Role,
    pub log: Log,
    /// Committed index; never decreases.
    pub hw: u64,
    /// Durable end in the sense of P4: on disk and a prefix of the log in memory.
    durable: Position,
    /// Log ends after each write in flight, in order.
    pending: VecDeque<Position>,
    /// Last index before this epoch's first entry.
    mark_at: u64,
    /// The mark of this epoch is in a write or on disk.
    mark_written: bool,
}

impl Group {
    /// A replica never starts as leader (D6), whatever it led before.
    #[must_use]
    pub fn new(recovered: Recovered) -> Self {
        let end = recovered.log.end();
        assert!(recovered.hw <= end.index, "commit hint beyond the log's end");
        Self {
            epoch: recovered.epoch,
            role: Role::Follower,
            log: recovered.log,
            hw: recovered.hw,
            durable: end,
            pending: VecDeque::new(),
            mark_at: end.index,
            mark_written: false,
        }
    }

    /// Elected mode, sole voter: raises the epoch. The caller persists Hard{epoch, self}; only when that is
    /// durable may it call [`Self::lead`] (P1).
    pub fn campaign(&mut self) -> Epoch {
        assert!(self.role == Role::Follower, "campaign by a {:?}", self.role);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.epoch
    }

    /// Becomes leader of `epoch`: won with a durable vote, or assigned (cluster-and-raft 4.9, 4.18). The mark
    /// rides in the next write.
    pub fn lead(&mut self, epoch: Epoch) {
        assert!(epoch >= self.epoch && epoch > self.log.end().epoch, "an epoch is led once");
        assert!(self.role == Role::Follower, "lead by a {:?}", self.role);
        self.epoch = epoch;
        self.role = Role::Leader;
        self.mark_at = self.log.end().index;
        self.mark_written = false;
    }

    /// Goes on leading the epoch of the last mark: a settled group that was evicted and reloaded by the same
    /// process (cluster-and-raft 4.19).
    pub fn resume(&mut self) {
        assert!(self.role == Role::Follower && self.hw == self.log.end().index, "only a settled group resumes");
        assert!(self.log.end().epoch == self.epoch, "only an epoch with its mark on disk resumes");
        self.role = Role::Leader;
        self.mark_at = self.log.end().index;
        self.mark_written = true;
    }

    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// The mark that must precede what is written next, if this epoch's is not written yet.
    #[must_use]
    pub fn mark_owed(&self) -> Option<(Epoch, u64)> {
        (self.is_leader() && !self.mark_written).then_some((self.epoch, self.mark_at))
    }

    /// Appends `count` entries (0: only the mark, if owed) and returns the first index. The caller writes them,
    /// with the mark if one was owed, in one batch whose completion it reports by [`Self::persisted`].
    pub fn append(&mut self, count: u64) -> u64 {
        assert!(self.is_leader(), "append by a {:?}", self.role);
        if !self.mark_written {
            self.log.mark(self.epoch, self.mark_at);
            self.mark_written = true;
        }
        let first = self.log.end().index + 1;
        self.log.extend(self.epoch, count);
        self.pending.push_back(self.log.end());
        first
    }

    /// The oldest write in flight is durable. Returns true when the commit index moved, or the epoch committed.
    pub fn persisted(&mut self) -> bool {
        let end = self.pending.pop_front().expect("a completion without a write");
        // P4: what was truncated while in flight is not claimed.
        let end = end.min(self.log.end());
        self.durable = self.durable.max(end);
        self.try_commit()
    }

    /// The commit rule for voters = {me} (4.11): my own durable position, in the current epoch.
    fn try_commit(&mut self) -> bool {
        if !self.is_leader() || self.durable.epoch != self.epoch {
            return false;
        }
        assert!(self.durable.index >= self.hw, "durable end below the commit index");
        let moved = self.durable.index > self.hw;
        self.hw = self.durable.index;
        moved || self.durable.index == self.mark_at
    }

    /// The leader's own mark, hence everything before it, is committed.
    #[must_use]
    pub fn epoch_committed(&self) -> bool {
        self.is_leader() && self.durable.epoch == self.epoch && self.hw >= self.mark_at
    }

    /// No write is in flight.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.pending.is_empty()
    }

    #[must_use]
    pub const fn durable(&self) -> Position {
        self.durable
    }

    /// Divergence repair (4.10): keeps the items up to `keep`. Entries after it must be deleted by the caller,
    /// index and dedup rows included. `None` when that would remove a committed entry: the caller must stop.
    pub fn truncate(&mut self, keep: Position) -> Option<u64> {
        if keep.index < self.hw || self.is_leader() {
            return None;
        }
        self.log.cut(keep);
        let end = self.log.end();
        self.durable = self.durable.min(end);
        for p in &mut self.pending {
            *p = (*p).min(end);
        }
        Some(end.index)
    }

    /// A write failed: no further claim, for ever (P9).
    pub fn fail(&mut self) {
        self.role = Role::Damaged;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pos(epoch: u64, index: u64) -> Position {
        Position { epoch: Epoch(epoch), index }
    }

    #[test]
    fn nothing_commits_before_it_is_durable_in_the_current_epoch() {
        let mut log = Log::default();
        log.mark(Epoch(1), 0);
        log.extend(Epoch(1), 3);
        let mut g = Group::new(Recovered { epoch: Epoch(1), log, hw: 1 });
        assert!(!g.is_leader());
        let e = g.campaign();
        g.lead(e);
        assert_eq!(g.mark_owed(), Some((Epoch(2), 3)));
        assert_eq!(g.hw, 1, "entries of an older epoch commit only with the new mark");
        assert_eq!(g.append(2), 4);
        assert_eq!(g.append(1), 6);
        assert_eq!((g.hw, g.mark_owed()), (1, None));
        assert!(g.persisted());
        assert_eq!(g.hw, 5);
        assert!(g.persisted());
        assert_eq!((g.hw, g.durable()), (6, pos(2, 6)));
    }

    #[test]
    fn a_mark_alone_commits_what_was_before_it() {
        let mut log = Log::default();
        log.mark(Epoch(1), 0);
        log.extend(Epoch(1), 3);
        let mut g = Group::new(Recovered { epoch: Epoch(4), log, hw: 0 });
        g.lead(Epoch(5));
        assert_eq!(g.append(0), 4);
        assert!(!g.epoch_committed());
        assert!(g.persisted());
        assert!(g.epoch_committed());
        assert_eq!(g.hw, 3);
    }

    #[test]
    fn truncation_lowers_what_writes_in_flight_may_claim() {
        let mut log = Log::default();
        log.mark(Epoch(1), 0);
        log.extend(Epoch(1), 2);
        let mut g = Group::new(Recovered { epoch: Epoch(1), log, hw: 1 });
        g.lead(Epoch(2));
        g.append(3);
        g.role = Role::Follower;
        assert_eq!(g.truncate(pos(1, 2)), Some(2));
        assert!(!g.persisted());
        assert_eq!(g.durable(), pos(1, 2));
        assert_eq!(g.truncate(pos(0, 0)), None, "committed entries are never cut");
    }

    #[test]
    #[should_panic(expected = "an epoch is led once")]
    fn an_epoch_is_led_once() {
        let mut log = Log::default();
        log.mark(Epoch(3), 0);
        let mut g = Group::new(Recovered { epoch: Epoch(3), log, hw: 0 });
        g.lead(Epoch(3));
    }
}
