//! The follower's side of replication: fetching, appending, cutting what diverged (cluster-and-raft 4.10).

use super::config::Replica;
use super::core::{Alarm, GroupCore, Mode, Op, Role};
use super::lead::Proposal;
use super::message::{Body, Fetch, Item, Message, RefuseKind};
use crate::ids::{Epoch, Position};
use crate::mutants::RaftMutant;
use crate::store::rows::Assignment;
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// What only a follower keeps.
#[derive(Clone, Debug)]
pub struct Follow {
    pub fetch_seq: u64,
    /// When an unanswered fetch is repeated.
    pub retry_at: Instant,
    pub retry_wait: Duration,
    /// Newest beat of this epoch.
    pub beat: u64,
    /// End of the leader's log, as it said last.
    pub leader_last: u64,
    /// End of the log when a leader of this epoch last confirmed it.
    pub validated: Option<Position>,
    /// When the leader was last heard.
    pub contact: Option<Instant>,
    /// Bytes appended and not yet durable.
    pub unsynced: usize,
    /// Damaged: the leader's end that makes this replica whole again, once it is reached.
    pub repair_to: Option<Position>,
    /// First fetch sent after the damage was noticed.
    pub repair_seq: u64,
    /// The durable promise when this process began.
    pub quoted_epoch_floor: Epoch,
    /// For the mutant that matches waiters by index only.
    pub orphans: Vec<Proposal>,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            fetch_seq: 0,
            retry_at: Instant::NEVER,
            retry_wait: Duration::ZERO,
            beat: 0,
            leader_last: 0,
            validated: None,
            contact: None,
            unsynced: 0,
            repair_to: None,
            repair_seq: 0,
            quoted_epoch_floor: Epoch(0),
            orphans: Vec::new(),
        }
    }
}

impl Follow {
    /// What was learned from an older leader counts for nothing.
    pub fn new_epoch(&mut self) {
        self.retry_at = Instant::NEVER;
        self.retry_wait = Duration::ZERO;
        self.beat = 0;
        self.leader_last = 0;
        self.validated = None;
        self.contact = None;
        self.repair_to = None;
    }
}

impl GroupCore {
    /// States this replica's position to the leader.
    pub(super) fn fetch(&mut self) {
        let Some(leader) = self.leader else { return };
        if !matches!(self.role, Role::Follower | Role::Damaged) || self.installing() || leader == self.config.me {
            return;
        }
        self.follow.fetch_seq += 1;
        let fetch = Fetch {
            seq: self.follow.fetch_seq,
            pos: self.log.end(),
            durable: self.claimed(),
            hw: self.hw,
            beat: self.follow.beat,
            answer_now: self.follow.validated.is_none(),
            damaged: self.role == Role::Damaged,
        };
        if fetch.answer_now || self.follow.leader_last > fetch.pos.index || self.awaits_commit() {
            let timing = self.config.timing;
            let wait = self.follow.retry_wait.max(timing.retry);
            self.follow.retry_wait = (wait * 2).min(timing.retry_max);
            self.follow.retry_at = self.now + wait;
        } else {
            self.follow.retry_at = Instant::NEVER;
        }
        if self.role == Role::Damaged && self.follow.repair_seq == 0 {
            self.follow.repair_seq = fetch.seq;
        }
        self.send(leader, Message::Fetch(fetch));
    }

    pub(super) fn follow_time(&mut self) {
        if self.now >= self.follow.retry_at {
            self.follow.retry_at = Instant::NEVER;
            if self.installing() {
                self.resume_install();
            } else {
                self.fetch();
            }
        }
    }

    pub(super) fn on_begin(&mut self, from: Replica, hw: u64, assignment: Option<Arc<Assignment>>) {
        if let Some(a) = assignment {
            self.install_assignment(&a);
        }
        if self.hear(from) {
            self.learn_hw(hw);
            self.fetch();
        }
    }

    pub(super) fn on_beat(&mut self, from: Replica, seq: u64, hw: u64) {
        if self.hear(from) {
            self.follow.beat = self.follow.beat.max(seq);
            self.learn_hw(hw);
            self.fetch();
        }
    }

    /// The leader's commit index counts as far as this log is known to be the leader's.
    fn learn_hw(&mut self, hw: u64) {
        let known = if self.bug(RaftMutant::HwUnvalidated) { Some(self.log.end()) } else { self.follow.validated };
        if let Some(validated) = known {
            self.raise_hw(hw.min(validated.index));
            self.orphans_committed();
        }
    }

    pub(super) fn on_items(
        &mut self,
        from: Replica,
        prev: Position,
        items: Vec<Item>,
        hw: u64,
        leader_last: u64,
        fetch_seq: u64,
    ) {
        let settled = self.assigned.settled;
        if !self.hear(from) {
            return;
        }
        // Late news from before the group settled wakes nobody.
        let end = self.log.end();
        self.assigned.settled = settled && self.follow.validated == Some(end) && leader_last <= end.index;
        self.follow.leader_last = self.follow.leader_last.max(leader_last);
        if self.installing() {
            return;
        }
        if prev != self.log.end() {
            // Late; or the leader does not know the position, because this replica restarted, or its word was lost.
            let repeated = !items.is_empty() && prev < self.log.end() && !self.assigned.settled;
            if self.follow.retry_at == Instant::NEVER && (self.follow.validated.is_none() || repeated) {
                self.fetch();
            }
            return;
        }
        // A new leader has the entries: no snapshot is needed.
        self.install = None;
        if self.follow.unsynced > self.config.bounds.unsynced {
            // Not taken, so that memory stays bounded; fetched again when the disk caught up.
            return;
        }
        let some = !items.is_empty();
        if !self.fits(&items) {
            self.alarm(Alarm::BadItems);
            return self.send(from, Message::Refuse { kind: RefuseKind::Version, leader: self.leader });
        }
        if some {
            self.take_items(items);
        }
        self.follow.validated = Some(self.log.end());
        self.follow.retry_wait = Duration::ZERO;
        self.raise_hw(hw.min(self.log.end().index));
        self.orphans_committed();
        self.quote_repair(leader_last, fetch_seq);
        if some || self.follow.leader_last > self.log.end().index {
            self.fetch();
        } else if !self.awaits_commit() {
            self.follow.retry_at = Instant::NEVER;
        }
    }

    /// It has what is not known to be committed: its word that it is durable may have been lost, and where nobody beats nothing
    /// else would ask for it again.
    fn awaits_commit(&self) -> bool {
        self.config.mode == Mode::Assigned && self.hw < self.log.end().index
    }

    /// Epochs do not fall, each begins with its mark, indexes follow each other.
    fn fits(&self, items: &[Item]) -> bool {
        let mut end = self.log.end();
        items.iter().all(|item| match item {
            Item::Mark { epoch, at } => {
                let fits = *epoch > end.epoch && *epoch <= self.epoch && *at == end.index;
                end.epoch = *epoch;
                fits
            }
            Item::Entry(e) => {
                end.index += 1;
                e.index == end.index && e.epoch == end.epoch
            }
        })
    }

    fn take_items(&mut self, items: Vec<Item>) {
        let mut marked = false;
        for item in &items {
            match item {
                Item::Mark { epoch, at } => {
                    if self.bug(RaftMutant::LostEpoch) && marked {
                        continue;
                    }
                    marked = true;
                    self.log.mark(*epoch, *at);
                }
                Item::Entry(e) => {
                    let epoch = if self.bug(RaftMutant::LostEpoch) { self.log.end().epoch } else { e.epoch };
                    self.log.extend(epoch, 1);
                    self.follow.unsynced += e.size();
                    if let Body::Config(c) = &e.body {
                        self.history.push(e.index, Arc::clone(c));
                    }
                    self.tail.push(e.clone());
                }
            }
        }
        self.persist([Op::Append(items.into())]);
    }

    /// More of the log is durable: the leader hears of it at once.
    pub(super) fn follow_durable(&mut self) {
        if self.journal.idle() {
            self.follow.unsynced = 0;
        }
        self.repaired();
        self.fetch();
    }

    pub(super) fn on_diverged(&mut self, from: Replica, req_pos: Position, keep: Position) {
        if !self.hear(from) || req_pos != self.log.end() || self.installing() {
            return;
        }
        let mut cut = self.log.cut_end(keep);
        if self.bug(RaftMutant::SingleRoundRepair) {
            cut.index = cut.index.max(self.log.end().index.min(keep.index));
        }
        if cut.index < self.hw {
            if self.role != Role::Damaged {
                self.alarm(Alarm::TruncateBelowCommit);
                // One of the two lost what was committed; this one must not help to decide which.
                self.role = Role::Damaged;
                self.note_role();
            }
            return;
        }
        if cut == self.log.end() {
            return self.fetch();
        }
        self.cut(keep);
        self.fetch();
    }

    fn cut(&mut self, keep: Position) {
        let old_epoch = self.log.end().epoch;
        self.log.cut(keep);
        if self.bug(RaftMutant::EpochStale) {
            self.log.forget_cut(old_epoch);
        }
        let end = self.log.end();
        self.cut.clear();
        self.tail.cut(end.index, &mut self.cut);
        self.history.rolled_back(end.index);
        self.follow.validated = None;
        // What they claim is about to go.
        self.journal.discard(|m| matches!(m.message, Message::Fetch(_)));
        self.persist([Op::Truncate(end)]);
    }

    pub(super) fn on_refuse(&mut self, from: Replica, kind: RefuseKind) {
        match kind {
            RefuseKind::NotLeader if self.leader == Some(from) && self.role == Role::Follower => {
                self.leader = None;
                self.follow.retry_at = Instant::NEVER;
                self.note_role();
            }
            // Nobody needs this replica's votes; if that changes, a leader will call.
            RefuseKind::Removed if self.config.mode == Mode::Elected => {
                self.election_at = self.now + self.config.timing.t_min * 60;
                if matches!(self.role, Role::PreCandidate | Role::Candidate) {
                    self.role = Role::Follower;
                }
                self.follow.retry_at = Instant::NEVER;
            }
            // A repetition is armed already.
            _ => {}
        }
    }

    /// Damaged: what has to be reached before this replica counts again (4.25).
    fn quote_repair(&mut self, leader_last: u64, fetch_seq: u64) {
        if self.role != Role::Damaged || self.follow.repair_to.is_some() {
            return;
        }
        let since = self.follow.repair_seq;
        if since > 0 && fetch_seq >= since && self.epoch >= self.follow.quoted_epoch_floor {
            self.follow.repair_to = Some(Position { epoch: self.epoch, index: leader_last });
            self.repaired();
        }
    }

    fn repaired(&mut self) {
        if self.role == Role::Damaged
            && let Some(to) = self.follow.repair_to
            && self.journal.durable() >= to
            && self.follow.validated.is_some()
        {
            self.role = Role::Follower;
            self.follow.repair_to = None;
            self.follow.repair_seq = 0;
            self.note_role();
        }
    }

    /// The planted bug M13: whoever waits at an index is content with any entry there.
    fn orphans_committed(&mut self) {
        let hw = self.hw;
        while let Some(i) = self.follow.orphans.iter().position(|p| p.last <= hw) {
            let p = self.follow.orphans.remove(i);
            let outcome = super::core::Outcome::Committed { first: p.first, last: p.last, epoch: p.epoch };
            self.out.push_back(super::core::Output::Outcome { ctx: p.ctx, outcome });
        }
    }
}
