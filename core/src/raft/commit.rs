//! The commit rule, proposals and their outcomes (cluster-and-raft 4.11, 4.12).

use super::config::Replica;
use super::core::{Batch, GroupCore, Mode, Outcome, Output, Report, Role};
use super::message::{Body, RefuseKind};
use crate::mutants::RaftMutant;
use alloc::vec::Vec;

impl GroupCore {
    /// What replica `r` has durably of the leader's log, if it counts.
    fn counted(&self, r: Replica) -> Option<u64> {
        let by_count = self.bug(RaftMutant::CommitByCount);
        if r == self.config.me {
            let mine = self.claimed();
            return (mine.epoch == self.epoch || by_count).then_some(mine.index);
        }
        let p = self.lead.as_ref()?.peer_ref(r)?;
        let pos = if by_count { p.pos.unwrap_or_default().index } else { p.durable.index };
        ((p.durable.epoch == self.epoch || by_count) && !p.suspect).then_some(pos)
    }

    /// Moves the commit index to what a quorum has durably, in this epoch.
    pub(super) fn try_commit(&mut self) {
        let Some(lead) = self.lead.as_ref() else { return };
        let (mark_at, alone) = (lead.mark_at, lead.peers.is_empty());
        let reached = if self.bug(RaftMutant::LearnerCounted) {
            let mut all = (**self.members()).clone();
            all.learners.clear();
            let need = all.voters.len() / 2;
            let mut reached: Vec<u64> = self.members().members().iter().filter_map(|r| self.counted(*r)).collect();
            reached.sort_unstable_by(|a, b| b.cmp(a));
            reached.get(need).copied()
        } else if alone {
            // A leader has a peer for every other member.
            let mine = self.counted(self.config.me);
            debug_assert_eq!(mine, self.members().quorum_value(|r| self.counted(r)), "nobody else takes part");
            mine
        } else {
            self.members().quorum_value(|r| self.counted(r))
        };
        let floor = if self.bug(RaftMutant::CommitByCount) { self.hw } else { self.hw.max(mark_at) };
        // After a config change the value may be below what is committed already: then nothing moves.
        let Some(reached) = reached.filter(|n| *n >= floor) else { return };
        let first = !core::mem::replace(&mut self.lead_mut().epoch_committed, true);
        let moved = self.raise_hw(reached.min(self.log.end().index));
        if first && self.config.mode == Mode::Assigned {
            self.epoch_stable();
        }
        if first || moved {
            self.resolve();
            self.maintain_members();
        }
    }

    /// Outcomes up to the commit index, and news of it to the followers.
    fn resolve(&mut self) {
        let (hw, now, wait) = (self.hw, self.now, self.config.timing.hw_news);
        let Some(lead) = self.lead.as_mut() else { return };
        while let Some(p) = lead.proposals.front().copied().filter(|p| p.last <= hw) {
            lead.proposals.pop_front();
            let outcome = Outcome::Committed { first: p.first, last: p.last, epoch: p.epoch };
            self.out.push_back(Output::Outcome { ctx: p.ctx, outcome });
        }
        lead.waiting = now;
        if hw >= self.log.end().index {
            lead.uncommitted = 0;
        } else {
            lead.uncommitted = (hw + 1..=self.log.end().index).filter_map(|i| self.tail.get(i)).map(|e| e.size()).sum();
        }
        if lead.peers.iter().any(|p| p.pos.is_some() && p.hw_sent < hw) {
            lead.hw_news_at = lead.hw_news_at.min(now + wait);
        }
    }

    /// Assigned mode: the epoch's mark is committed.
    pub(super) fn epoch_stable(&mut self) {
        let epoch = self.epoch;
        self.report(Report::Ready { epoch });
        if self.members().is_joint() {
            let config_version = self.members().version;
            self.report(Report::JointStable { epoch, config_version });
        }
    }

    /// Why nothing is admitted now, if so.
    pub(super) fn refusal(&self) -> Option<RefuseKind> {
        let Some(lead) = self.lead.as_ref() else { return Some(RefuseKind::NotLeader) };
        let stopped = lead.transfer.is_some()
            || (self.assigned.handover.is_some() && !self.bug(RaftMutant::HandoverKeepsWriting));
        let full = lead.uncommitted >= self.config.bounds.uncommitted;
        // An assigned leader has no vote to lose; it must not queue for ever what nobody will ever hold with it.
        let alone = self.config.mode == Mode::Assigned
            && self.now.since(lead.waiting) > self.config.timing.t_min
            && lead.uncommitted > 0
            && !self.quorum_active();
        (stopped || full || alone).then_some(RefuseKind::Busy)
    }

    pub(super) fn on_propose(&mut self, ctx: u64, batch: Batch) {
        let refusal = if batch.is_empty() { Some(RefuseKind::Version) } else { self.refusal() };
        if let Some(kind) = refusal {
            return self.refuse_proposal(ctx, kind);
        }
        let (first, last) = self.append(batch.into_iter().map(Body::Data));
        let epoch = self.epoch;
        self.lead_mut().proposals.push_back(super::lead::Proposal { ctx, first, last, epoch });
    }

    pub(super) fn refuse_proposal(&mut self, ctx: u64, kind: RefuseKind) {
        let leader = self.leader.filter(|_| self.role != Role::Leader);
        self.out.push_back(Output::Outcome { ctx, outcome: Outcome::Refused { kind, leader } });
    }
}
