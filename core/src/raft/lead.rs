//! What only a leader keeps: how far each peer is, beats, quorum checks (cluster-and-raft 4.5, 4.8, 4.9).

use super::config::Replica;
use super::core::{GroupCore, Mode, Op, Outcome, Report, Role};
use super::message::{Body, Item, Message, RefuseKind};
use super::read::Read;
use super::transfer::Transfer;
use crate::ids::{Epoch, Incarnation, NodeId, Position};
use crate::mutants::RaftMutant;
use crate::store::rows::Assignment;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use smallvec::smallvec;

/// A proposal in the log that is not committed.
#[derive(Clone, Copy, Debug)]
pub struct Proposal {
    pub ctx: u64,
    pub first: u64,
    pub last: u64,
    pub epoch: Epoch,
}

/// How far one peer is.
#[derive(Clone, Debug)]
pub struct Progress {
    pub peer: Replica,
    pub incarnation: Incarnation,
    pub fetch_seq: u64,
    /// End of its log, once it is known to be a prefix of mine.
    pub pos: Option<Position>,
    /// What it has durably, of my epoch.
    pub durable: Position,
    /// The most it ever acknowledged in my epoch.
    pub claimed: Position,
    /// Lost what it had acknowledged: not counted until it has it again.
    pub suspect: bool,
    /// Items are on their way to it, up to here, until then.
    pub flight: Option<(Position, Instant)>,
    pub flight_wait: Duration,
    /// Entries for it are being read.
    pub reading: Option<u64>,
    pub hw_sent: u64,
    pub answer_now: bool,
    pub beat: u64,
    pub seen: Option<Instant>,
    /// When `Begin` is repeated; NEVER once it fetched.
    pub begin_at: Instant,
    pub begin_wait: Duration,
    pub settle_acked: bool,
    /// For the mutant that checks only once.
    pub repaired: bool,
}

/// See the module.
///
/// Fields lie in memory as they stand here: what every entry touches first.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct Lead {
    pub mark_at: u64,
    pub epoch_committed: bool,
    /// A read waits for a new beat: sent at the end of the step.
    pub beat_wanted: bool,
    pub settle_tries: u32,
    pub peers: Vec<Progress>,
    /// Bytes of entries above the commit index, and each entry's share.
    pub uncommitted: usize,
    /// When something was last committed, or began to wait for that.
    pub waiting: Instant,
    /// When an idle group settles, or asks again those that did not answer.
    pub settle_at: Instant,
    pub hw_news_at: Instant,
    pub beat_at: Instant,
    pub proposals: VecDeque<Proposal>,
    pub reads: VecDeque<Read>,
    pub transfer: Option<Transfer>,
    pub beat_seq: u64,
    /// Send times of the beats that are not yet echoed by a quorum.
    pub beats: VecDeque<(u64, Instant)>,
    pub lease_until: Instant,
    /// No lease for the rest of the epoch.
    pub lease_off: bool,
    pub check_at: Instant,
    /// Nodes that take no more data for the time being.
    pub paused: Vec<NodeId>,
}

impl Progress {
    #[must_use]
    pub const fn new(peer: Replica, now: Instant, retry: Duration) -> Self {
        const ZERO: Position = Position { epoch: Epoch(0), index: 0 };
        Self {
            peer,
            incarnation: Incarnation(0),
            fetch_seq: 0,
            pos: None,
            durable: ZERO,
            claimed: ZERO,
            suspect: false,
            flight: None,
            flight_wait: retry,
            reading: None,
            hw_sent: 0,
            answer_now: false,
            beat: 0,
            seen: None,
            begin_at: now,
            begin_wait: retry,
            settle_acked: false,
            repaired: false,
        }
    }
}

impl Progress {
    /// The newest fetch: it rises with each.
    #[must_use]
    pub const fn last_heard(&self) -> (Incarnation, u64) {
        (self.incarnation, self.fetch_seq)
    }
}

impl Lead {
    pub fn peer(&mut self, r: Replica) -> Option<&mut Progress> {
        self.peers.iter_mut().find(|p| p.peer == r)
    }

    #[must_use]
    pub fn peer_ref(&self, r: Replica) -> Option<&Progress> {
        self.peers.iter().find(|p| p.peer == r)
    }
}

impl GroupCore {
    /// Won, or assigned. The mark rides in the next write; nothing of this or an older epoch commits before a quorum has it.
    pub(super) fn become_leader(&mut self) {
        let mark_at = self.log.end().index;
        self.role = Role::Leader;
        self.leader = Some(self.config.me);
        self.follow.new_epoch();
        self.votes.clear();
        self.assigned.led = self.epoch;
        self.assigned.settled = false;
        self.install = None;
        self.forwarded_lost();
        if self.log.end().epoch < self.epoch {
            self.log.mark(self.epoch, mark_at);
            self.persist([Op::Append(smallvec![Item::Mark { epoch: self.epoch, at: mark_at }])]);
        }
        let timing = self.config.timing;
        self.lead = Some(Box::new(Lead {
            mark_at,
            epoch_committed: false,
            peers: Vec::new(),
            proposals: VecDeque::new(),
            uncommitted: 0,
            beat_seq: 0,
            beat_at: self.now,
            beat_wanted: false,
            beats: VecDeque::new(),
            lease_until: Instant(0),
            lease_off: false,
            check_at: self.now + timing.t_min,
            waiting: self.now,
            reads: VecDeque::new(),
            transfer: None,
            hw_news_at: Instant::NEVER,
            settle_at: self.now + timing.settle_idle,
            settle_tries: 0,
            paused: Vec::new(),
        }));
        self.note_role();
        self.refresh_peers();
    }

    /// The same leader in the next epoch of its assignment: what it holds open stays open.
    pub(super) fn advance_epoch(&mut self, a: &Arc<Assignment>) {
        self.epoch = a.epoch;
        self.voted_for = None;
        let mark_at = self.log.end().index;
        self.log.mark(self.epoch, mark_at);
        self.persist([
            Op::Hard { epoch: self.epoch, voted_for: None },
            Op::Append(smallvec![Item::Mark { epoch: self.epoch, at: mark_at }]),
        ]);
        self.assigned.led = self.epoch;
        let (now, retry) = (self.now, self.config.timing.retry);
        self.assigned.settled = false;
        let lead = self.lead.as_mut().expect("a leader leads");
        lead.mark_at = mark_at;
        lead.epoch_committed = false;
        for p in &mut lead.peers {
            let (incarnation, fetch_seq, seen) = (p.incarnation, p.fetch_seq, p.seen);
            *p = Progress { incarnation, fetch_seq, seen, ..Progress::new(p.peer, now, retry) };
        }
        self.stir();
        self.note_role();
    }

    /// One progress for each member but myself; those who left are kept until they learned it.
    pub(super) fn refresh_peers(&mut self) {
        let (now, retry, me) = (self.now, self.config.timing.retry, self.config.me);
        let members = self.members().members();
        let Some(lead) = self.lead.as_mut() else { return };
        let before = lead.peers.len();
        for r in members {
            if r != me && lead.peer(r).is_none() {
                lead.peers.push(Progress::new(r, now, retry));
            }
        }
        if lead.peers.len() > before {
            self.stir();
        }
    }

    /// Stops leading, in this or for a higher epoch.
    pub(super) fn step_down(&mut self) {
        self.abandon_promises();
        self.lead = None;
        self.role = Role::Follower;
        self.leader = None;
        if self.config.mode == Mode::Elected {
            self.reset_election();
        }
        self.note_role();
    }

    /// Proposals and reads of a leader that ends.
    pub(super) fn abandon_promises(&mut self) {
        let Some(lead) = self.lead.as_mut() else { return };
        if cfg!(feature = "mutants") && self.config.mutant == Some(RaftMutant::WaiterByIndex) {
            self.follow.orphans.extend(lead.proposals.drain(..));
        }
        for p in lead.proposals.drain(..) {
            self.out.push_back(super::core::Output::Outcome { ctx: p.ctx, outcome: Outcome::Unknown });
        }
        if let Some(t) = lead.transfer.take() {
            // Perhaps to the target: the new role shows it.
            self.out.push_back(super::core::Output::Outcome { ctx: t.ctx, outcome: Outcome::Unknown });
        }
        let reads = core::mem::take(&mut lead.reads);
        for read in reads {
            self.refuse_read(&read, RefuseKind::NotLeader);
        }
        self.forwarded_lost();
    }

    /// A quorum was heard of within the window.
    pub(super) fn quorum_active(&self) -> bool {
        let Some(lead) = self.lead.as_ref() else { return false };
        let (me, t_min) = (self.config.me, self.config.timing.t_min);
        let seen = |r| lead.peer_ref(r).and_then(|p| p.seen).is_some_and(|at| self.now.since(at) <= t_min);
        self.members().quorum(|r| r == me || seen(r))
    }

    pub(super) fn lead_deadline(&self) -> Instant {
        let Some(lead) = self.lead.as_ref() else { return Instant::NEVER };
        let mut at = lead.hw_news_at;
        if self.config.mode == Mode::Elected && self.has_peers() {
            at = at.min(lead.beat_at).min(lead.check_at);
        }
        if !lead.reads.is_empty() {
            at = at.min(lead.beat_at);
        }
        if let Some(t) = &lead.transfer {
            at = at.min(t.until);
        }
        let end = self.log.end();
        for p in &lead.peers {
            at = at.min(p.begin_at);
            if let (Some(pos), Some((_, until))) = (p.pos, p.flight)
                && pos != end
            {
                at = at.min(until);
            }
        }
        if self.config.mode == Mode::Assigned && !self.assigned.settled {
            at = at.min(lead.settle_at);
        }
        at
    }

    pub(super) fn has_peers(&self) -> bool {
        self.lead.as_ref().is_some_and(|l| !l.peers.is_empty())
    }

    pub(super) fn lead_time(&mut self) {
        let now = self.now;
        let elected = self.config.mode == Mode::Elected;
        let Some(lead) = self.lead.as_mut() else { return };
        if elected && !lead.peers.is_empty() && now >= lead.check_at {
            lead.check_at = now + self.config.timing.t_min;
            if !self.quorum_active() && !self.bug(RaftMutant::NoCheckQuorum) {
                return self.resign();
            }
        }
        let Some(lead) = self.lead.as_mut() else { return };
        let beats_due = (elected || !lead.reads.is_empty()) && now >= lead.beat_at;
        if beats_due && !lead.peers.is_empty() {
            lead.beat_wanted = true;
        }
        if now >= lead.hw_news_at {
            lead.hw_news_at = Instant::NEVER;
            for p in &mut lead.peers {
                p.answer_now |= p.pos.is_some() && p.hw_sent < self.hw && p.flight.is_none();
            }
        }
        for p in &mut lead.peers {
            if let Some((_, until)) = p.flight
                && now >= until
            {
                p.flight = None;
                // A follower that is reachable again has everything within about t_min.
                p.flight_wait = (p.flight_wait * 2).min(self.config.timing.t_min).min(self.config.timing.retry_max);
            }
        }
        self.send_begins();
        self.transfer_time();
        self.settle_time();
    }

    /// `Begin` to every member that has not fetched in this epoch.
    fn send_begins(&mut self) {
        let (now, hw, retry_max) = (self.now, self.hw, self.config.timing.retry_max);
        let assignment = self.assigned.assignment.clone();
        let members = Arc::clone(self.members());
        let Some(lead) = self.lead.as_mut() else { return };
        let mark_at = lead.mark_at;
        let mut due = Vec::new();
        for p in &mut lead.peers {
            if now >= p.begin_at && !members.is_member(p.peer) {
                // Left before it ever fetched.
                p.begin_at = Instant::NEVER;
            }
            if now >= p.begin_at {
                p.begin_at = now + p.begin_wait;
                p.begin_wait = (p.begin_wait * 2).min(retry_max);
                due.push(p.peer);
            }
        }
        for r in due {
            self.send(r, Message::Begin { mark_at, hw, assignment: assignment.clone() });
        }
    }

    /// Tells the followers that this epoch ends, best successor first, and steps down.
    pub(super) fn resign(&mut self) {
        let me = self.config.me;
        let voters = self.members().voters.clone();
        let Some(lead) = self.lead.as_ref() else { return };
        let mut successors: Vec<(Position, Replica)> =
            lead.peers.iter().filter(|p| voters.contains(&p.peer)).map(|p| (p.durable, p.peer)).collect();
        successors.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.node.cmp(&b.1.node)));
        let successors: Vec<Replica> = successors.into_iter().map(|(_, r)| r).collect();
        for r in self.members().members() {
            if r != me {
                self.send(r, Message::EndEpoch { successors: successors.clone() });
            }
        }
        self.step_down();
    }

    /// When the leader last heard a peer; None: not in this epoch, or it does not lead.
    #[must_use]
    pub fn heard(&self, peer: Replica) -> Option<Instant> {
        self.lead.as_ref()?.peer_ref(peer)?.seen
    }

    /// The links to these nodes are full of data: their replicas of this group get none until they take what waits (4.21).
    pub fn pause(&mut self, nodes: &[NodeId]) {
        if let Some(lead) = self.lead.as_mut().filter(|l| l.paused != nodes) {
            lead.paused = nodes.to_vec();
        }
    }

    /// End of a step: what the leader owes its peers by now.
    pub(super) fn pump(&mut self) {
        if self.role != Role::Leader {
            return;
        }
        if self.lead.as_ref().is_some_and(|l| l.peers.iter().any(|p| p.begin_at <= self.now)) {
            self.send_begins();
        }
        self.send_beat();
        for i in 0..self.lead.as_ref().map_or(0, |l| l.peers.len()) {
            self.serve(i);
        }
    }

    fn send_beat(&mut self) {
        let (now, hw, every) = (self.now, self.hw, self.config.timing.beat_every);
        let Some(lead) = self.lead.as_mut() else { return };
        if !core::mem::take(&mut lead.beat_wanted) {
            return;
        }
        lead.beat_seq += 1;
        // On a grid: the beats of all groups of a shard leave in one frame (4.20).
        let grid = every.as_nanos().max(1) as u64;
        lead.beat_at = Instant((now.0 / grid + 1) * grid);
        let seq = lead.beat_seq;
        if self.config.lease {
            lead.beats.push_back((seq, now));
        }
        let peers: Vec<Replica> = lead.peers.iter().map(|p| p.peer).collect();
        for r in peers {
            self.send(r, Message::Beat { seq, hw });
        }
    }

    /// Appends entries of this epoch; returns the first and last index.
    pub(super) fn append(&mut self, bodies: impl ExactSizeIterator<Item = Body>) -> (u64, u64) {
        let first = self.log.end().index + 1;
        let mut items = super::core::Items::with_capacity(bodies.len());
        let mut bytes = 0;
        for (index, body) in (first..).zip(bodies) {
            let entry = super::message::Entry { index, epoch: self.epoch, body };
            bytes += entry.size();
            self.tail.push(entry.clone());
            items.push(Item::Entry(entry));
        }
        self.log.extend(self.epoch, items.len() as u64);
        self.persist([Op::Append(items)]);
        self.stir();
        let now = self.now;
        let lead = self.lead_mut();
        if lead.uncommitted == 0 {
            lead.waiting = now;
        }
        lead.uncommitted += bytes;
        (first, self.log.end().index)
    }

    pub(super) fn report(&mut self, report: Report) {
        self.out.push_back(super::core::Output::Report(report));
    }
}
