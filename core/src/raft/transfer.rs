//! Planned change of an elected leader (cluster-and-raft 4.17).

use super::config::Replica;
use super::core::{GroupCore, Mode, Outcome, Output, Role};
use super::message::{Message, RefuseKind, TransferToken};
use crate::ids::Epoch;
use crate::mutants::RaftMutant;
use crate::time::Instant;

/// A transfer that was asked for. Until it ends nothing new is admitted.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    pub ctx: u64,
    pub target: Replica,
    pub until: Instant,
    pub sent: bool,
}

impl GroupCore {
    pub(super) fn on_transfer(&mut self, ctx: u64, target: Replica) {
        let until = self.now + self.config.timing.t_min;
        let fit = target != self.config.me && self.members().voters.contains(&target);
        match self.lead.as_mut() {
            Some(_) if !fit || self.config.mode == Mode::Assigned => self.refuse_proposal(ctx, RefuseKind::Version),
            Some(lead) if lead.transfer.is_some() => self.refuse_proposal(ctx, RefuseKind::Busy),
            Some(lead) if lead.peer_ref(target).is_none() => self.refuse_proposal(ctx, RefuseKind::Busy),
            Some(lead) => {
                lead.transfer = Some(Transfer { ctx, target, until, sent: false });
                // A late TransferNow may depose this leader at any time from now on.
                lead.lease_off = true;
                self.transfer_progress();
            }
            None => self.refuse_proposal(ctx, RefuseKind::NotLeader),
        }
    }

    /// The target may have caught up.
    pub(super) fn transfer_progress(&mut self) {
        let end = self.log.end();
        let nonce = self.random();
        let epoch = self.epoch;
        let Some(lead) = self.lead.as_mut() else { return };
        let Some(t) = lead.transfer.filter(|t| !t.sent) else { return };
        if lead.peer(t.target).is_some_and(|p| p.durable == end) {
            lead.transfer = Some(Transfer { sent: true, ..t });
            self.send(t.target, Message::TransferNow { token: TransferToken { epoch, nonce } });
        }
    }

    pub(super) fn transfer_time(&mut self) {
        let (now, stuck) = (self.now, self.bug(RaftMutant::TransferStuck));
        let Some(lead) = self.lead.as_mut() else { return };
        if let Some(t) = lead.transfer
            && now >= t.until
        {
            if stuck {
                lead.transfer = Some(Transfer { until: Instant::NEVER, ..t });
                return;
            }
            // Still leading: service goes on. A late TransferNow may yet cause an election, which is safe.
            lead.transfer = None;
            let outcome = Outcome::Refused { kind: RefuseKind::Busy, leader: None };
            self.out.push_back(Output::Outcome { ctx: t.ctx, outcome });
        }
    }

    pub(super) fn on_transfer_now(&mut self, from: Replica, token: TransferToken) {
        let follows = self.role == Role::Follower && self.leader == Some(from) && token.epoch == self.epoch;
        if follows && self.may_campaign() {
            self.campaign(Some(token));
        }
    }

    /// A vote request that a leader of my epoch asked for.
    pub(super) fn valid_transfer(&self, epoch: Epoch, token: Option<TransferToken>) -> bool {
        token.is_some_and(|t| t.epoch == self.epoch && epoch.0 == self.epoch.0 + 1)
    }
}
