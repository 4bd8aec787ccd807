//! Changes of an elected group's members (cluster-and-raft 4.16).

use super::config::{Change, Replica};
use super::core::{GroupCore, Mode};
use super::message::{Body, RefuseKind};
use crate::mutants::RaftMutant;
use alloc::sync::Arc;

impl GroupCore {
    pub(super) fn on_propose_config(&mut self, ctx: u64, change: &Change) {
        let kind = match self.refusal() {
            Some(kind) => Some(kind),
            None if self.config.mode == Mode::Assigned => Some(RefuseKind::Version),
            None => self.config_refusal(change),
        };
        if let Some(kind) = kind {
            return self.refuse_proposal(ctx, kind);
        }
        match self.append_config(change) {
            Some(index) => {
                let epoch = self.epoch;
                self.lead_mut().proposals.push_back(super::lead::Proposal { ctx, first: index, last: index, epoch });
            }
            None => self.refuse_proposal(ctx, RefuseKind::Version),
        }
    }

    fn config_refusal(&self, change: &Change) -> Option<RefuseKind> {
        let committed = self.epoch_committed() || self.bug(RaftMutant::ConfigBeforeEpochCommitted);
        // One change at a time, and none before this leader knows what is committed.
        if !committed || self.history.index() > self.hw {
            return Some(RefuseKind::Busy);
        }
        let newcomers_ready = match change {
            Change::Promote(r) => self.caught_up(*r),
            Change::Replace(voters) => voters.iter().all(|r| self.members().is_voter(*r) || self.caught_up(*r)),
            _ => true,
        };
        (!newcomers_ready && !self.bug(RaftMutant::EagerPromote)).then_some(RefuseKind::Busy)
    }

    /// Appends the config after `change`; it is in force at once. None: the step is not legal.
    fn append_config(&mut self, change: &Change) -> Option<u64> {
        let mut next = self.members().after(change)?;
        if self.bug(RaftMutant::OneStepSwap) {
            next.voters_out.clear();
        }
        let next = Arc::new(next);
        let (index, _) = self.append(core::iter::once(Body::Config(Arc::clone(&next))));
        self.history.push(index, next);
        self.refresh_peers();
        // Reads that wait are decided by the config in force, which may need fewer echoes.
        self.reads_echoed();
        Some(index)
    }

    /// A learner that fetched in this epoch and lacks little.
    pub(super) fn caught_up(&self, r: Replica) -> bool {
        let end = self.log.end().index;
        let lead = self.lead.as_ref().and_then(|l| l.peer_ref(r));
        lead.is_some_and(|p| {
            p.durable.epoch == self.epoch && !p.suspect && p.durable.index + self.config.bounds.catch_up >= end
        })
    }

    /// The config in force is committed: leaves joint, or leaves office when it has no place here any more.
    pub(super) fn maintain_members(&mut self) {
        if self.config.mode != Mode::Elected || !self.epoch_committed() || self.history.index() > self.hw {
            return;
        }
        if self.members().is_joint() {
            self.append_config(&Change::LeaveJoint);
            self.try_commit();
        } else if !self.members().is_voter(self.config.me) {
            self.resign();
        }
    }

    /// Whether the config in force is committed, so that strangers may be told that they are out.
    pub(super) fn removal_committed(&self) -> bool {
        self.history.index() <= self.hw
    }
}
