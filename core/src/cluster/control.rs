//! What the slot leader does for one channel group: elections by fence-then-lead, handover, change of members
//! (cluster-and-raft 4.18). It derives everything from the committed record, so a new slot leader continues where the old one was.

use super::assignment::AssignCommand;
use crate::ids::{Epoch, Incarnation, Position};
use crate::mutants::RaftMutant;
use crate::raft::core::Report;
use crate::store::rows::{Assignment, Replica};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

/// What the controller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Propose(AssignCommand),
    /// Ask `to` to promise the epoch, and for what it has.
    Fence {
        to: Replica,
        epoch: Epoch,
    },
    /// Tell a replica what is committed.
    Assign {
        to: Replica,
        assignment: Arc<Assignment>,
    },
    /// Ask the leader to give way.
    Handover {
        leader: Replica,
        target: Replica,
    },
}

/// What a replica answered to a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceAnswer {
    pub from: Replica,
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub durable: Position,
    pub damaged: bool,
}

/// A goal of the operator or of placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// These voters, by way of learners and a joint config.
    Voters(Vec<Replica>),
    /// This leader, by handover.
    Leader(Replica),
    /// The channel is deleted: by a fence round that nobody wins, so that nothing is committed after it.
    Gone,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Controller {
    pub assignment: Arc<Assignment>,
    answers: Vec<FenceAnswer>,
    /// Epoch in which the leader said that its mark is committed.
    ready: Epoch,
    /// Learners that caught up in the current epoch.
    caught_up: Vec<Replica>,
    pub wish: Option<Wish>,
    retry_at: Instant,
    retry_wait: Duration,
    /// A proposal is in the slot's log; another one would only be stale.
    proposed: bool,
    out: VecDeque<Step>,
    mutant: Option<RaftMutant>,
}

const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

impl Controller {
    /// Takes charge of a channel whose record is committed and applied here.
    #[must_use]
    pub fn new(now: Instant, assignment: Arc<Assignment>, mutant: Option<RaftMutant>) -> Self {
        let mut c = Self {
            assignment: Arc::clone(&assignment),
            answers: Vec::new(),
            ready: Epoch(0),
            caught_up: Vec::new(),
            wish: None,
            retry_at: Instant::NEVER,
            retry_wait: RETRY,
            proposed: false,
            out: VecDeque::new(),
            mutant,
        };
        c.on_record(now, assignment);
        c
    }

    /// For reports: what it waits for.
    #[must_use]
    pub fn told(&self) -> (&Option<Wish>, Epoch, &[Replica], bool) {
        (&self.wish, self.ready, &self.caught_up, self.proposed)
    }

    pub fn poll(&mut self) -> Option<Step> {
        self.out.pop_front()
    }

    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.retry_at
    }

    fn bug(&self, mutant: RaftMutant) -> bool {
        cfg!(feature = "mutants") && self.mutant == Some(mutant)
    }

    /// The record changed, or a proposal turned out to be stale.
    pub fn on_record(&mut self, now: Instant, assignment: Arc<Assignment>) {
        if assignment.epoch != self.assignment.epoch || assignment.generation != self.assignment.generation {
            self.answers.clear();
            self.caught_up.clear();
        }
        if assignment.generation != self.assignment.generation {
            self.ready = Epoch(0);
        }
        self.assignment = assignment;
        self.proposed = false;
        self.retry_wait = RETRY;
        self.act(now);
    }

    /// The leader is gone, or useless: the next epoch.
    pub fn elect(&mut self, now: Instant) {
        let a = &self.assignment;
        if !self.proposed && a.leader.is_some() && !a.deleted {
            self.proposed = true;
            self.out.push_back(Step::Propose(AssignCommand::Elect { generation: a.generation, epoch: a.epoch }));
            self.arm(now);
        }
    }

    pub fn on_wish(&mut self, now: Instant, wish: Wish) {
        self.wish = Some(wish);
        self.act(now);
    }

    pub fn on_time(&mut self, now: Instant) {
        if now >= self.retry_at {
            self.proposed = false;
            self.act(now);
        }
    }

    /// A promise of the epoch being elected.
    pub fn on_fence_answer(&mut self, answer: FenceAnswer) {
        if self.assignment.leader.is_some() || answer.epoch != self.assignment.epoch {
            return;
        }
        match self.answers.iter_mut().find(|a| a.from == answer.from) {
            Some(old) => *old = answer,
            None => self.answers.push(answer),
        }
        self.try_lead();
    }

    pub fn on_report(
        &mut self,
        now: Instant,
        from: Replica,
        incarnation: impl Fn(Replica) -> Option<Incarnation>,
        report: Report,
    ) {
        let a = &self.assignment;
        let (generation, epoch) = (a.generation, a.epoch);
        let current = a.leader.is_some_and(|(r, _)| r == from);
        let mut news = false;
        let propose = match report {
            Report::Ready { epoch: e } if e == epoch => {
                news = self.ready != e;
                self.ready = e;
                None
            }
            Report::CaughtUp { epoch: e, learner } if e == epoch && current => {
                if !self.caught_up.contains(&learner) {
                    self.caught_up.push(learner);
                    news = true;
                }
                None
            }
            Report::JointStable { epoch: e, .. } if e == epoch && current => {
                Some(AssignCommand::LeaveJoint { generation, epoch })
            }
            Report::HandoverReady { epoch: e, end, target } if e == epoch && current => incarnation(target)
                .map(|incarnation| AssignCommand::Handover { generation, epoch, from, end, to: target, incarnation }),
            Report::NeedElect { epoch: e } if e == epoch && current => Some(AssignCommand::Elect { generation, epoch }),
            _ => None,
        };
        if let Some(command) = propose {
            self.proposed = true;
            self.out.push_back(Step::Propose(command));
            self.arm(now);
        } else if news {
            // Not `act`: what it sends would be answered by the same reports.
            if self.toward_wish() {
                self.arm(now);
            }
        }
    }

    fn arm(&mut self, now: Instant) {
        self.retry_at = now + self.retry_wait;
        self.retry_wait = (self.retry_wait * 2).min(RETRY_MAX);
    }

    fn members(&self) -> Vec<Replica> {
        let a = &self.assignment;
        let mut all = a.voters.clone();
        for r in a.voters_out.iter().chain(&a.learners) {
            if !all.contains(r) {
                all.push(*r);
            }
        }
        all
    }

    /// One look at the record: what is missing is asked for, or asked for again.
    fn act(&mut self, now: Instant) {
        self.retry_at = Instant::NEVER;
        if self.assignment.deleted {
            return;
        }
        if self.assignment.leader.is_none() {
            self.fence();
            self.arm(now);
            return;
        }
        if self.wish == Some(Wish::Gone) {
            self.elect(now);
            return self.arm(now);
        }
        let leader = self.assignment.leader.map(|(r, _)| r);
        if self.assignment.voters_out.is_empty() && leader.is_some_and(|r| !self.assignment.voters.contains(&r)) {
            // It led the others into this config, and has no place in it.
            return self.elect(now);
        }
        let toward = self.toward_wish();
        if self.ready != self.assignment.epoch || toward {
            // The leader repeats what it has to report.
            for to in self.members() {
                self.out.push_back(Step::Assign { to, assignment: Arc::clone(&self.assignment) });
            }
            self.arm(now);
        }
    }

    fn fence(&mut self) {
        let epoch = self.assignment.epoch;
        if self.bug(RaftMutant::FenceSkipped) {
            return self.lead_any();
        }
        for to in self.members() {
            if !self.answers.iter().any(|a| a.from == to) && !self.assignment.learners.contains(&to) {
                self.out.push_back(Step::Fence { to, epoch });
            }
        }
        self.try_lead();
    }

    /// A quorum promised: the one of them that has most leads, unless the channel has to go.
    fn try_lead(&mut self) {
        let a = &self.assignment;
        let answered = |r: &Replica| self.answers.iter().any(|x| x.from == *r && !x.damaged);
        let half = |set: &[Replica]| set.is_empty() || set.iter().filter(|r| answered(r)).count() > set.len() / 2;
        let enough = half(&a.voters) && half(&a.voters_out);
        let minority = self.bug(RaftMutant::FenceMinority) && self.answers.iter().any(|x| !x.damaged);
        if self.proposed || !(enough || minority) {
            return;
        }
        let by_index = self.bug(RaftMutant::ElectionByIndex);
        let voters = |r: &Replica| a.voters.contains(r) || a.voters_out.contains(r);
        let key = |x: &FenceAnswer| {
            let pos = if by_index { Position { epoch: Epoch(0), index: x.durable.index } } else { x.durable };
            // Ties: a voter of the new half first, then the lowest node.
            (pos, a.voters.contains(&x.from), core::cmp::Reverse(x.from.node))
        };
        let best = self.answers.iter().filter(|x| !x.damaged && voters(&x.from)).max_by_key(|x| key(x));
        if let Some(best) = best {
            let (generation, epoch) = (a.generation, a.epoch);
            let command = if self.wish == Some(Wish::Gone) {
                AssignCommand::Delete { generation, last_seq: best.durable.index }
            } else {
                AssignCommand::Lead { generation, epoch, leader: best.from, incarnation: best.incarnation }
            };
            self.proposed = true;
            self.out.push_back(Step::Propose(command));
        }
    }

    /// The planted bug M19: anybody leads, nobody was asked.
    fn lead_any(&mut self) {
        let a = &self.assignment;
        let n = a.epoch.0 as usize % a.voters.len();
        let command = AssignCommand::Lead {
            generation: a.generation,
            epoch: a.epoch,
            leader: a.voters[n],
            incarnation: Incarnation(1),
        };
        self.out.push_back(Step::Propose(command));
    }

    fn propose(&mut self, command: AssignCommand) {
        if !core::mem::replace(&mut self.proposed, true) {
            self.out.push_back(Step::Propose(command));
        }
    }

    /// The next step toward what is wished; true while there is something to wait for.
    fn toward_wish(&mut self) -> bool {
        let a = Arc::clone(&self.assignment);
        let (generation, epoch) = (a.generation, a.epoch);
        if self.bug(RaftMutant::LeaveJointEarly) && !a.voters_out.is_empty() {
            self.propose(AssignCommand::LeaveJoint { generation, epoch });
            return true;
        }
        match self.wish.clone() {
            None => !a.voters_out.is_empty(),
            Some(Wish::Gone) => true,
            Some(Wish::Leader(target)) => {
                let leader = a.leader.map(|(r, _)| r);
                if leader == Some(target) || !a.voters.contains(&target) {
                    self.wish = None;
                    // A joint config is left whatever else is wished.
                    return !a.voters_out.is_empty();
                }
                if let (Some(leader), true) = (leader, self.ready == epoch) {
                    self.out.push_back(Step::Handover { leader, target });
                }
                true
            }
            Some(Wish::Voters(voters)) => {
                if !a.voters_out.is_empty() {
                    return true;
                }
                if let Some(learner) = a.learners.iter().find(|r| !voters.contains(r)) {
                    self.propose(AssignCommand::DropLearner { generation, epoch, learner: *learner });
                    return true;
                }
                if a.voters == voters {
                    self.wish = None;
                    return false;
                }
                let newcomers: Vec<Replica> = voters.iter().filter(|r| !a.voters.contains(r)).copied().collect();
                if let Some(learner) = newcomers.iter().find(|r| !a.learners.contains(r)) {
                    self.propose(AssignCommand::AddLearner { generation, epoch, learner: *learner });
                } else if newcomers.iter().all(|r| self.caught_up.contains(r)) {
                    self.propose(AssignCommand::EnterJoint { generation, epoch, voters });
                }
                true
            }
        }
    }
}
