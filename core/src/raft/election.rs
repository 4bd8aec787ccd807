//! Votes: pre-vote, election, stickiness (cluster-and-raft 4.7, 4.8).

use super::config::Replica;
use super::core::{GroupCore, Mode, Op, Role};
use super::message::{Message, RefuseKind, TransferToken};
use crate::ids::{Epoch, Position};
use crate::mutants::RaftMutant;
use crate::time::Instant;

impl GroupCore {
    /// Only voters campaign, of the config in force or of one that may yet turn out to be. A replica whose own removal is not
    /// committed can be the only one with a log that wins: who never stands would leave the others without a leader.
    pub(super) fn may_campaign(&self) -> bool {
        self.config.mode == Mode::Elected
            && matches!(self.role, Role::Follower | Role::PreCandidate | Role::Candidate)
            && self.install.is_none()
            && self.history.all().iter().any(|(_, c)| c.is_voter(self.config.me))
    }

    pub(super) fn reset_election(&mut self) {
        let t_min = self.config.timing.t_min;
        let span = t_min.as_nanos() as u64 / if self.config.preferred { 2 } else { 1 };
        let jitter = self.random() % span.max(1);
        self.election_at = self.now + t_min + core::time::Duration::from_nanos(jitter);
    }

    /// Whether a live leader is known, so that nobody else should be helped into office.
    pub(super) fn sticky(&self) -> bool {
        let t_min = self.config.timing.t_min;
        let heard = match self.role {
            Role::Leader => self.quorum_active(),
            _ => self.leader.is_some() && self.follow.contact.is_some_and(|at| self.now.since(at) < t_min),
        };
        // Before the restart this replica may have helped a lease that still runs.
        let booting = self.config.lease
            && self.now.since(self.booted) < t_min
            && !self.bug(RaftMutant::NoBootStickiness)
            && self.members().voters.len() > 1;
        heard || booting
    }

    fn behind(&self, pos: Position) -> bool {
        let mine = self.log.end();
        if self.bug(RaftMutant::ElectionByIndex) { pos.index >= mine.index } else { pos >= mine }
    }

    pub(super) fn pre_campaign(&mut self) {
        if self.self_vote.is_some() && self.role == Role::Candidate {
            // A disk slower than an election: another epoch would only wait behind this one.
            return self.reset_election();
        }
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        self.votes.push((self.config.me, true));
        self.reset_election();
        self.note_role();
        let ask = Message::PreVoteReq { next_epoch: Epoch(self.epoch.0 + 1), pos: self.log.end() };
        self.ask_voters(&ask);
        self.count_votes();
    }

    fn ask_voters(&mut self, message: &Message) {
        for r in self.members().all_voters() {
            if r != self.config.me {
                self.send(r, message.clone());
            }
        }
    }

    pub(super) fn on_pre_vote_req(&mut self, from: Replica, next_epoch: Epoch, pos: Position) {
        if matches!(self.role, Role::Damaged | Role::Failed) {
            return;
        }
        if self.role == Role::Leader && !self.members().is_member(from) && self.removal_committed() {
            return self.send(from, Message::Refuse { kind: RefuseKind::Removed, leader: self.leader });
        }
        let granted = next_epoch > self.epoch && self.behind(pos) && !self.sticky();
        self.send(from, Message::PreVoteResp { next_epoch, granted, leader: self.leader });
    }

    pub(super) fn on_pre_vote_resp(&mut self, from: Replica, next_epoch: Epoch, granted: bool) {
        if self.role == Role::PreCandidate && next_epoch.0 == self.epoch.0 + 1 {
            self.record_vote(from, granted);
        }
    }

    fn record_vote(&mut self, from: Replica, granted: bool) {
        if !self.votes.iter().any(|(r, _)| *r == from) {
            self.votes.push((from, granted));
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let voted = |r: Replica, yes: bool| self.votes.iter().any(|(v, granted)| *v == r && *granted == yes);
        let won = self.members().quorum(|r| voted(r, true));
        let lost = !self.members().can_win(|r| voted(r, false));
        match self.role {
            Role::PreCandidate if won => self.campaign(None),
            Role::Candidate if won => self.become_leader(),
            Role::PreCandidate | Role::Candidate if lost => {
                // The deadline that runs brings the next attempt.
                self.role = Role::PreCandidate;
                self.votes.clear();
            }
            _ => {}
        }
    }

    /// Votes for itself in a new epoch. The vote counts, and requests leave, once it is durable (P1).
    pub(super) fn campaign(&mut self, transfer: Option<TransferToken>) {
        self.journal.discard(|_| true);
        self.epoch = Epoch(self.epoch.0 + 1);
        self.role = Role::Candidate;
        self.leader = None;
        self.voted_for = Some(self.config.me);
        self.votes.clear();
        self.transfer = None;
        self.follow.new_epoch();
        self.reset_election();
        self.note_role();
        let hard = Op::Hard { epoch: self.epoch, voted_for: self.voted_for };
        self.self_vote = Some(self.persist([hard]));
        let ask = Message::VoteReq { pos: self.log.end(), transfer };
        self.ask_voters(&ask);
    }

    /// A write completed: perhaps the one of my own vote.
    pub(super) fn vote_persisted(&mut self) {
        if self.self_vote.is_some_and(|token| self.journal.is_done(token)) {
            self.self_vote = None;
            if self.role == Role::Candidate {
                self.record_vote(self.config.me, true);
            }
        }
    }

    /// A request of my own epoch.
    pub(super) fn on_vote_req(&mut self, from: Replica, pos: Position) {
        if matches!(self.role, Role::Damaged | Role::Failed) {
            return;
        }
        let free = self.voted_for == Some(from)
            || (self.voted_for.is_none() && self.leader.is_none())
            || self.bug(RaftMutant::VoteForgotten);
        let granted = self.role == Role::Follower && self.behind(pos) && free;
        if granted {
            if self.voted_for != Some(from) {
                self.voted_for = Some(from);
                self.persist([Op::Hard { epoch: self.epoch, voted_for: self.voted_for }]);
            }
            self.reset_election();
        }
        self.send(from, Message::VoteResp { granted });
    }

    pub(super) fn on_vote_resp(&mut self, from: Replica, granted: bool) {
        if self.role == Role::Candidate {
            self.record_vote(from, granted);
        }
    }

    /// The leader stops. Its best successor does not wait.
    pub(super) fn on_end_epoch(&mut self, from: Replica, successors: &[Replica]) {
        if self.leader != Some(from) || self.role != Role::Follower {
            return;
        }
        self.leader = None;
        self.follow.contact = None;
        self.note_role();
        self.reset_election();
        if self.config.mode == Mode::Elected && successors.first() == Some(&self.config.me) {
            self.election_at = self.now;
            if self.may_campaign() {
                self.pre_campaign();
            }
        }
    }

    /// Something of the current leader arrived.
    pub(super) fn hear(&mut self, leader: Replica) -> bool {
        match self.role {
            Role::Leader => {
                if leader != self.config.me {
                    self.alarm(super::core::Alarm::TwoLeaders);
                }
                return false;
            }
            Role::Candidate | Role::PreCandidate => {
                if self.bug(RaftMutant::CandidateIgnoresWinner) && self.role == Role::Candidate {
                    return false;
                }
                self.role = Role::Follower;
                self.votes.clear();
            }
            Role::Follower | Role::Damaged => {}
            Role::Failed => return false,
        }
        if self.leader != Some(leader) {
            self.leader = Some(leader);
            self.note_role();
        }
        self.follow.contact = Some(self.now);
        if self.config.mode == Mode::Elected {
            self.reset_election();
        } else {
            self.election_at = Instant::NEVER;
        }
        self.assigned.settled = false;
        true
    }
}
