//! Assigned mode: channel groups, whose epochs and leaders come from the slot (cluster-and-raft 4.18, 4.19).

use super::config::{Config, Replica};
use super::core::{GroupCore, Mode, Op, Output, Report, Role};
use super::lead::Progress;
use super::message::Message;
use crate::ids::{Epoch, Incarnation, Position};
use crate::mutants::RaftMutant;
use crate::store::rows::Assignment;
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A leader that was asked to give way.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    pub target: Replica,
    /// What was heard of the target before is not enough: it may have restarted, and lost something, since.
    pub heard: (Incarnation, u64),
    pub until: Instant,
    /// It told the slot that it is done, and never resumes this epoch.
    pub fenced: bool,
}

/// `Settle`s without an answer before a peer counts as unreachable.
const SETTLE_TRIES: u32 = 5;

/// See the module.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub assignment: Option<Arc<Assignment>>,
    pub config: Arc<Config>,
    /// Newest epoch that this process led.
    pub led: Epoch,
    pub handover: Option<Handover>,
    pub settled: bool,
}

impl Default for Assigned {
    fn default() -> Self {
        Self { assignment: None, config: Arc::new(Config::default()), led: Epoch(0), handover: None, settled: false }
    }
}

impl GroupCore {
    /// The slot decided. Only committed assignments are ever sent.
    pub(super) fn on_assign(&mut self, a: Arc<Assignment>) {
        if self.config.mode != Mode::Assigned || a.epoch < self.epoch {
            return;
        }
        let me = self.config.me;
        let mine = a.leader.is_some_and(|(r, incarnation)| {
            r == me && (incarnation == self.config.incarnation || self.bug(RaftMutant::SameEpochRestart))
        });
        if a.epoch > self.epoch {
            if mine && self.role == Role::Leader && self.assigned.handover.is_none() {
                self.install_assignment(&a);
                self.advance_epoch(&a);
                return self.refresh_peers();
            }
            self.adopt(a.epoch);
        }
        self.install_assignment(&a);
        let unled =
            self.assigned.led < a.epoch && (self.log.end().epoch < a.epoch || self.bug(RaftMutant::SameEpochRestart));
        match a.leader {
            Some(_) if mine && unled && self.role == Role::Follower => {
                self.assigned.handover = None;
                self.become_leader();
            }
            Some(_) if mine && self.role == Role::Leader => self.restate(),
            // It led this epoch, and its owner forgot it when there was still something to do.
            Some(_) if mine && self.role == Role::Follower && self.assigned.led < a.epoch => {
                self.report(Report::NeedElect { epoch: a.epoch });
            }
            Some(_) if mine && self.role == Role::Damaged => self.report(Report::NeedElect { epoch: a.epoch }),
            Some((leader, _)) if leader != me && self.role != Role::Leader && self.hear(leader) => self.fetch(),
            _ => {}
        }
    }

    /// Settled, forgotten and loaded again by the same process: its epoch goes on, without another mark.
    pub(super) fn on_resume(&mut self, a: Arc<Assignment>) {
        let me = (self.config.me, self.config.incarnation);
        let fit = self.config.mode == Mode::Assigned
            && self.role == Role::Follower
            // Whoever led it in this memory and stopped did so for good: it may have told the slot.
            && self.assigned.led < a.epoch
            && a.leader == Some(me)
            && a.epoch == self.epoch
            && self.log.end().epoch == a.epoch
            && self.hw == self.log.end().index;
        self.install_assignment(&a);
        if fit {
            self.become_leader();
            self.try_commit();
        }
    }

    /// The owner of a leader handed on the committed entries up to here: what followers hear, and what settling waits for.
    pub fn distribute(&mut self, upto: u64) {
        self.distributed = self.distributed.max(upto.min(self.hw));
    }

    /// The slot asks: everything that it may have missed is reported again.
    fn restate(&mut self) {
        if self.epoch_committed() {
            self.epoch_stable();
        }
        self.handover_progress();
        let epoch = self.epoch;
        let learners = self.members().learners.clone();
        for learner in learners {
            if self.caught_up(learner) {
                self.report(Report::CaughtUp { epoch, learner });
            }
        }
    }

    /// The members of an epoch are what its assignment says.
    pub(super) fn install_assignment(&mut self, a: &Arc<Assignment>) {
        let newer = self.assigned.assignment.as_ref().is_none_or(|old| {
            (a.epoch, a.config_version) > (old.epoch, old.config_version)
                || (a.epoch == old.epoch && old.leader.is_none())
        });
        if self.config.mode != Mode::Assigned || !newer {
            return;
        }
        self.assigned.config = Arc::new(Config {
            version: a.config_version,
            voters: a.voters.clone(),
            voters_out: a.voters_out.clone(),
            learners: a.learners.clone(),
        });
        self.assigned.assignment = Some(Arc::clone(a));
        if self.role == Role::Leader && a.epoch == self.epoch {
            self.refresh_peers();
            self.try_commit();
        }
    }

    /// The promise of this epoch is durable before the answer leaves; from then on nothing older is acknowledged (P3).
    pub(super) fn on_fence(&mut self, from: Replica) {
        self.send(from, Message::FenceResp { durable: Position::default(), hw: 0, damaged: false });
    }

    pub(super) fn on_handover(&mut self, target: Replica) {
        let fit = self.members().voters.contains(&target) && target != self.config.me;
        if self.config.mode != Mode::Assigned || self.role != Role::Leader || !fit || self.assigned.handover.is_some() {
            return;
        }
        let until = self.now + self.config.timing.t_min;
        let heard =
            self.lead.as_ref().and_then(|l| l.peer_ref(target)).map_or_else(Default::default, Progress::last_heard);
        self.assigned.handover = Some(Handover { target, heard, until, fenced: false });
        // Its answer says what it has now.
        self.wake_peer(target);
    }

    /// Once the target holds everything, this leader fences itself and says so.
    pub(super) fn handover_progress(&mut self) {
        let end = self.log.end();
        let until = self.now + self.config.timing.t_min;
        let Some(h) = self.assigned.handover.filter(|h| !h.fenced) else { return };
        let holds = self
            .lead
            .as_ref()
            .and_then(|l| l.peer_ref(h.target))
            .is_some_and(|p| p.durable == end && !p.suspect && p.last_heard() > h.heard);
        if holds && end.epoch == self.epoch {
            self.report(Report::HandoverReady { epoch: self.epoch, end, target: h.target });
            if !self.bug(RaftMutant::HandoverKeepsWriting) {
                self.step_down();
            }
            self.assigned.handover = Some(Handover { until, fenced: true, ..h });
        }
    }

    pub(super) fn handover_deadline(&self) -> Instant {
        self.assigned.handover.map_or(Instant::NEVER, |h| h.until)
    }

    pub(super) fn handover_time(&mut self) {
        let Some(h) = self.assigned.handover.filter(|h| self.now >= h.until) else { return };
        let epoch = self.epoch;
        if h.fenced {
            // Nothing came of it. It does not resume; the slot has to elect.
            let until = self.now + self.config.timing.retry_max;
            self.assigned.handover = (self.assigned.led == epoch).then_some(Handover { until, ..h });
            if self.assigned.led == epoch {
                self.report(Report::NeedElect { epoch });
            }
        } else if !self.bug(RaftMutant::TransferStuck) {
            self.assigned.handover = None;
        } else {
            self.assigned.handover = Some(Handover { until: Instant::NEVER, ..h });
        }
    }

    /// Idle for long enough, everything committed: says so to those that have everything, and falls silent when they know.
    pub(super) fn settle_time(&mut self) {
        let timing = self.config.timing;
        let (now, end) = (self.now, self.log.end());
        if self.config.mode != Mode::Assigned || self.assigned.settled {
            return;
        }
        if self.lead.as_ref().is_none_or(|l| now < l.settle_at) {
            return;
        }
        // Who left does not keep anybody awake.
        let members = Arc::clone(self.members());
        self.lead_mut().peers.retain(|p| members.is_member(p.peer));
        let ready = self.may_settle();
        let lead = self.lead_mut();
        if !ready {
            lead.settle_tries = 0;
            lead.settle_at = now + timing.settle_idle;
            return;
        }
        let unaware = |p: &&super::lead::Progress| p.durable == end && !p.settle_acked;
        let ask: Vec<Replica> = lead.peers.iter().filter(unaware).map(|p| p.peer).collect();
        if ask.is_empty() || lead.settle_tries >= SETTLE_TRIES {
            return self.settled();
        }
        lead.settle_tries += 1;
        lead.settle_at = now + timing.retry_max.min(timing.retry * lead.settle_tries);
        let hw = self.hw;
        for r in ask {
            self.send(r, Message::Settle { pos: end, hw });
        }
    }

    /// Nothing is open, and no voter that can be reached lacks anything.
    fn may_settle(&self) -> bool {
        if self.bug(RaftMutant::SettleEarly) {
            return true;
        }
        let end = self.log.end();
        let Some(lead) = self.lead.as_ref() else { return false };
        let window = self.config.timing.settle_idle.max(self.config.timing.retry_max * 3);
        let behind =
            |p: &super::lead::Progress| p.durable != end && p.seen.is_some_and(|at| self.now.since(at) < window);
        self.assigned.handover.is_none()
            && lead.epoch_committed
            && self.hw == end.index
            && self.distributed == self.hw
            && self.claimed() == end
            && lead.reads.is_empty()
            && !lead.peers.iter().any(behind)
    }

    fn settled(&mut self) {
        let (hw, end) = (self.hw, self.log.end());
        let Some(lead) = self.lead.as_mut() else { return };
        lead.hw_news_at = Instant::NEVER;
        for p in &mut lead.peers {
            p.begin_at = Instant::NEVER;
            p.flight = None;
            if p.durable != end {
                // Not served while the group sleeps; its return, or the next entry, wakes it.
                p.pos = None;
            }
        }
        let lagging = lead.peers.iter().filter(|p| !p.settle_acked).map(|p| p.peer).collect();
        self.persist([Op::Hint { hw }]);
        self.assigned.settled = true;
        self.out.push_back(Output::Settled { lagging });
    }

    pub(super) fn on_settle(&mut self, from: Replica, pos: Position, hw: u64) {
        if !self.hear(from) || pos != self.log.end() {
            return;
        }
        self.follow.validated = Some(pos);
        self.raise_hw(hw.min(pos.index));
        // Only what was handed on to the last entry settles.
        self.distribute(self.hw);
        self.follow.retry_at = Instant::NEVER;
        self.persist([Op::Hint { hw: self.hw }]);
        self.assigned.settled = true;
        self.send(from, Message::SettleAck { pos });
    }

    pub(super) fn on_settle_ack(&mut self, from: Replica, pos: Position) {
        let end = self.log.end();
        let Some(lead) = self.lead.as_mut() else { return };
        if let Some(p) = lead.peer(from) {
            p.settle_acked = pos == end;
        }
        if lead.settle_tries > 0 && lead.peers.iter().all(|p| p.settle_acked || p.durable != end) {
            lead.settle_at = self.now;
            self.settle_time();
        }
    }

    pub(super) fn on_wake(&mut self, from: Replica) {
        self.assigned.settled = false;
        if self.role == Role::Leader {
            self.wake_peer(from);
        } else {
            self.fetch();
        }
    }

    /// A peer came back: woken only if it lacks something.
    pub(super) fn on_peer_up(&mut self, peer: Replica) {
        if self.role != Role::Leader {
            return;
        }
        let end = self.log.end();
        let storm = self.bug(RaftMutant::WakeStorm);
        let lags =
            self.lead.as_ref().and_then(|l| l.peer_ref(peer)).is_some_and(|p| p.durable != end || !p.settle_acked);
        if lags || storm {
            self.wake_peer(peer);
        }
    }

    pub(super) fn on_rouse(&mut self, peer: Replica) {
        if self.config.mode == Mode::Assigned && self.role == Role::Leader {
            self.wake_peer(peer);
        }
    }

    /// A leader has something to do: not settled any more, and not before another idle while. Those that lagged when it settled
    /// have not heard of it since, and are called.
    pub(super) fn stir(&mut self) {
        let (now, retry) = (self.now, self.config.timing.retry);
        let settled = core::mem::take(&mut self.assigned.settled);
        let at = now + self.config.timing.settle_idle;
        let Some(lead) = self.lead.as_mut() else { return };
        lead.settle_at = at;
        lead.settle_tries = 0;
        for p in &mut lead.peers {
            p.settle_acked = false;
            if settled && p.pos.is_none() {
                p.begin_at = p.begin_at.min(now);
                p.begin_wait = retry;
            }
        }
    }

    fn wake_peer(&mut self, peer: Replica) {
        let (now, retry) = (self.now, self.config.timing.retry);
        self.stir();
        let Some(lead) = self.lead.as_mut() else { return };
        if let Some(p) = lead.peer(peer) {
            p.begin_at = now;
            p.begin_wait = retry;
        }
    }
}
