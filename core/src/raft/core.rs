//! One replica of one replication group, as a steppable machine (cluster-and-raft 4.1 to 4.20). It routes; each concern has a
//! room of its own beside it.

use super::assigned::Assigned;
use super::config::{Config, History, Replica};
use super::follow::Follow;
use super::journal::{Journal, Token};
use super::lead::Lead;
use super::log::Log;
use super::message::{Entry, Envelope, Item, Message, RefuseKind, Snapshot};
use super::read::Forwarded;
use super::snapshot::Install;
use super::tail::Tail;
use crate::ids::{Epoch, Incarnation, Position};
use crate::mutants::RaftMutant;
use crate::store::rows::Assignment;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use smallvec::SmallVec;

/// How a group gets its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By votes (node and slot groups).
    Elected,
    /// By the slot state machine, after a fence round (channel groups).
    Assigned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
    /// Lost what it had acknowledged: neither votes nor counts until it is repaired (4.25).
    Damaged,
    /// A write failed: nothing is said any more, the process has to end (P9).
    Failed,
}

/// Times of a group (4.27).
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Shortest time without a leader before an election; the window of every quorum check.
    pub t_min: Duration,
    pub beat_every: Duration,
    /// First repetition of an unanswered request; doubles up to `retry_max`.
    pub retry: Duration,
    pub retry_max: Duration,
    /// How long news of the commit index may wait for company.
    pub hw_news: Duration,
    /// An assigned leader that is idle this long settles.
    pub settle_idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            t_min: Duration::from_secs(1),
            beat_every: Duration::from_millis(100),
            retry: Duration::from_millis(200),
            retry_max: Duration::from_secs(2),
            hw_news: Duration::from_millis(50),
            settle_idle: Duration::from_secs(10),
        }
    }
}

/// Bounds of a group, in bytes unless said otherwise. Beyond them proposals are refused as Busy, or fetching pauses.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// One answer to a fetch; one entry always fits.
    pub fetch: usize,
    /// Entries not committed yet.
    pub uncommitted: usize,
    /// Committed entries kept in memory for followers.
    pub tail: usize,
    /// What a follower received and has not synced.
    pub unsynced: usize,
    /// Reads waiting for their quorum, a count.
    pub reads: usize,
    /// How many entries a learner may be behind when it is promoted.
    pub catch_up: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { fetch: 1 << 20, uncommitted: 64 << 20, tail: 4 << 20, unsynced: 16 << 20, reads: 1024, catch_up: 64 }
    }
}

/// What a replica is told at its start and keeps.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    pub me: Replica,
    pub incarnation: Incarnation,
    pub mode: Mode,
    pub timing: Timing,
    pub bounds: Bounds,
    /// Whether leases are granted and honoured.
    pub lease: bool,
    /// Draws from the lower half of the election jitter.
    pub preferred: bool,
    /// For election jitter and transfer tokens.
    pub seed: u64,
    pub mutant: Option<RaftMutant>,
}

/// What a replica finds on its disk.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Durable promise and vote.
    pub epoch: Epoch,
    pub voted_for: Option<Replica>,
    pub log: Log,
    /// A position known to be committed: a hint, at most the end.
    pub hw: u64,
    /// Committed entries up to here have been handed on, as far as is known.
    pub distributed: u64,
    /// Entries at the end of the log, as far as the owner has read them. An owner whose rows are derived from entries reads
    /// everything above `hw`, so that it can take them back.
    pub tail: Vec<Entry>,
    /// Configs that the log holds, ascending by index, the first at or before the log's base.
    pub configs: Vec<(u64, Arc<Config>)>,
    /// The snapshot below the log's base, if there is one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What was acknowledged is not all there: the log is what is left of it.
    pub damaged: bool,
}

/// What enters a group.
#[derive(Clone, Debug)]
pub enum Input {
    Message(Envelope),
    /// `deadline` has passed. An early one does nothing.
    Time,
    /// This write is durable, and all before it: a sync that took several is reported once.
    Persisted(Token),
    PersistFailed(Token),
    /// Answer to [`Output::ReadLog`]; None: the disk could not.
    LogRead {
        request: u64,
        entries: Option<Vec<Entry>>,
    },
    Propose {
        ctx: u64,
        batch: Batch,
    },
    ProposeConfig {
        ctx: u64,
        change: super::config::Change,
    },
    Transfer {
        ctx: u64,
        target: Replica,
    },
    /// A linearizable read.
    Read {
        ctx: u64,
    },
    /// A read by lease; elected leaders only.
    LeaseRead {
        ctx: u64,
    },
    /// The owner made a snapshot; what is before it may be dropped from the log, except `keep` entries.
    Snapshot {
        snapshot: Arc<Snapshot>,
        keep: u64,
    },
    /// The owner needs no entry up to here, and drops them. Of those that a member may lack the last `keep` stay: who lacks more
    /// begins at a snapshot.
    Compact {
        upto: u64,
        keep: u64,
    },
    /// Answer to [`Output::ReadSnapshot`]; None: there is no such snapshot any more.
    SnapshotPart {
        to: Replica,
        id: u64,
        offset: u64,
        part: Option<(Bytes, bool)>,
    },
    /// A chunk was written (`Ok(false)`), the whole snapshot is there and whole (`Ok(true)`), or it is not (`Err`).
    SnapshotWritten {
        id: u64,
        outcome: Result<bool, ()>,
    },
    /// The state machine now stands at the snapshot's base.
    Restored,
    /// Assigned mode: what the slot says.
    Assign(Arc<Assignment>),
    /// Assigned mode: this process leads the assignment's epoch, settled, forgot the replica, and goes on (4.19).
    Resume(Arc<Assignment>),
    /// Assigned mode: give the leadership to `target` (4.18, Handover).
    Handover {
        target: Replica,
    },
    /// A peer is reachable again.
    PeerUp(Replica),
    /// Assigned mode: a peer was found to lack something that this leader may not know of (4.19).
    Rouse(Replica),
}

/// Entries of one proposal.
pub type Batch = SmallVec<[Bytes; 1]>;

/// What one write holds, in this order.
pub type Ops = SmallVec<[Op; 1]>;

/// What one append adds to a log.
pub type Items = SmallVec<[Item; 1]>;

/// A part of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Hard {
        epoch: Epoch,
        voted_for: Option<Replica>,
    },
    Append(Items),
    /// Keep the log up to here.
    Truncate(Position),
    /// The log begins after the snapshot; everything else is gone, unless it continues it (`keep_log`).
    Rebase {
        snapshot: Arc<Snapshot>,
        keep_log: bool,
    },
    /// Drop the log up to here; it is part of the snapshot.
    Compact {
        base: Position,
        config: Arc<Config>,
        config_index: u64,
    },
    Hint {
        hw: u64,
    },
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed {
        first: u64,
        last: u64,
        epoch: Epoch,
    },
    /// It may have been stored or not: retry with the same key.
    Unknown,
    /// Never appended.
    Refused {
        kind: RefuseKind,
        leader: Option<Replica>,
    },
}

/// Something that must not happen, or that an operator has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// A follower claims more of this epoch than its leader has.
    ForeignTail,
    /// A store acknowledged items and lost them.
    LostAck,
    /// A leader's answer would cut what is committed.
    TruncateBelowCommit,
    TwoLeaders,
    BadItems,
}

/// What an assigned leader tells the slot leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The epoch's mark is committed.
    Ready {
        epoch: Epoch,
    },
    JointStable {
        epoch: Epoch,
        config_version: u64,
    },
    /// A learner lacks little enough to become a voter.
    CaughtUp {
        epoch: Epoch,
        learner: Replica,
    },
    /// Fenced itself at this end; the target holds all of it.
    HandoverReady {
        epoch: Epoch,
        end: Position,
        target: Replica,
    },
    /// Fenced itself, and nothing came of it.
    NeedElect {
        epoch: Epoch,
    },
}

/// What leaves a group. FIFO.
#[derive(Clone, Debug)]
pub enum Output {
    Send(Envelope),
    Persist {
        token: Token,
        ops: Ops,
    },
    ReadLog {
        request: u64,
        from: u64,
        to: u64,
        max_bytes: usize,
    },
    /// Everything up to here is committed: apply it, as far as it is durable here.
    Committed {
        hw: u64,
    },
    Outcome {
        ctx: u64,
        outcome: Outcome,
    },
    /// A read may be served once everything up to `index` is applied.
    ReadReady {
        ctx: u64,
        index: Result<u64, RefuseKind>,
    },
    Role {
        epoch: Epoch,
        role: Role,
        leader: Option<Replica>,
    },
    /// A follower must begin at a snapshot, and there is none.
    SnapshotWanted {
        to: Replica,
    },
    ReadSnapshot {
        to: Replica,
        id: u64,
        offset: u64,
    },
    WriteSnapshot {
        snapshot: Arc<Snapshot>,
        offset: u64,
        bytes: Bytes,
        last: bool,
    },
    /// The log was based on this snapshot, durably: bring the state machine there.
    Restore {
        snapshot: Arc<Snapshot>,
    },
    Report(Report),
    /// Nothing is outstanding; the owner may forget this replica after writing the head row. `lagging` voters lack something.
    Settled {
        lagging: Vec<Replica>,
    },
    Alarm(Alarm),
}

/// See the module.
///
/// Fields lie in memory as they stand here: what a leader's every step touches first, so that it is few cache lines.
#[repr(C)]
#[derive(Clone, Debug)]
pub struct GroupCore {
    pub(super) role: Role,
    pub(super) config: Arc<GroupConfig>,
    pub(super) epoch: Epoch,
    pub(super) now: Instant,
    pub(super) hw: u64,
    pub(super) distributed: u64,
    pub(super) lead: Option<alloc::boxed::Box<Lead>>,
    pub(super) log: Log,
    pub(super) journal: Journal,
    pub(super) tail: Tail,
    /// The write of my own vote.
    pub(super) self_vote: Option<Token>,
    pub(super) election_at: Instant,
    pub(super) assigned: Assigned,
    pub(super) forwarded: Forwarded,
    pub(super) out: VecDeque<Output>,
    pub(super) install: Option<Install>,
    pub(super) voted_for: Option<Replica>,
    pub(super) leader: Option<Replica>,
    /// Entries that a truncation took, until the owner asks.
    pub(super) cut: Vec<Entry>,
    pub(super) history: History,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) follow: Follow,
    /// Answers to my vote or pre-vote requests.
    pub(super) votes: Vec<(Replica, bool)>,
    pub(super) transfer: Option<super::message::TransferToken>,
    pub(super) booted: Instant,
    pub(super) rng: u64,
    /// Newest incarnation seen of each store.
    pub(super) incarnations: Vec<(Replica, Incarnation)>,
    pub(super) next_request: u64,
}

impl GroupCore {
    /// A replica never starts as leader (D6), whatever it led before.
    ///
    /// # Panics
    /// `stored` contradicts itself.
    #[must_use]
    pub fn new(config: impl Into<Arc<GroupConfig>>, stored: Stored, now: Instant) -> Self {
        let config = config.into();
        let end = stored.log.end();
        assert!(stored.hw <= end.index || stored.damaged, "commit hint beyond the log's end");
        let rng = config.seed;
        let mut group = Self {
            role: if stored.damaged { Role::Damaged } else { Role::Follower },
            epoch: stored.epoch,
            voted_for: stored.voted_for,
            leader: None,
            hw: stored.hw.min(end.index).max(stored.log.base.index),
            distributed: stored.distributed,
            cut: Vec::new(),
            journal: Journal::recovered(end),
            log: stored.log,
            tail: Tail::of(stored.tail, end.index),
            history: History::new(stored.configs),
            snapshot: stored.snapshot,
            follow: Follow::default(),
            lead: None,
            assigned: Assigned::default(),
            install: None,
            forwarded: Forwarded::default(),
            votes: Vec::new(),
            self_vote: None,
            transfer: None,
            election_at: Instant::NEVER,
            booted: now,
            now,
            rng,
            incarnations: Vec::new(),
            next_request: 1,
            out: VecDeque::new(),
            config,
        };
        group.follow.quoted_epoch_floor = group.epoch;
        group.boot();
        group
    }

    /// An owner that forgets a replica and loads it again in the same process: leaders take its fetches for old ones unless their
    /// numbers go on. `from` is at least the number of fetches of this process so far.
    pub fn number_fetches(&mut self, from: u64) {
        self.follow.fetch_seq = from;
    }

    fn boot(&mut self) {
        if self.config.mode == Mode::Elected {
            self.reset_election();
            if self.members().voters == [self.config.me] {
                // Nobody to wait for.
                self.election_at = self.now;
            }
            if self.bug(RaftMutant::SameEpochRestart) && self.voted_for == Some(self.config.me) && self.epoch.0 > 0 {
                self.become_leader();
            }
        }
    }

    /// Total: never fails, whatever peers send. Panics only where the owner breaks its contract.
    pub fn step(&mut self, now: Instant, input: Input) {
        self.now = self.now.max(now);
        if self.role == Role::Failed {
            return self.turn_away(&input);
        }
        match input {
            Input::Message(m) => self.on_message(m),
            Input::Time => self.on_time(),
            Input::Persisted(token) => self.on_persisted(token),
            Input::PersistFailed(token) => self.on_persist_failed(token),
            Input::LogRead { request, entries } => self.on_log_read(request, entries),
            Input::Propose { ctx, batch } => self.on_propose(ctx, batch),
            Input::ProposeConfig { ctx, change } => self.on_propose_config(ctx, &change),
            Input::Transfer { ctx, target } => self.on_transfer(ctx, target),
            Input::Read { ctx } => self.on_read(ctx),
            Input::LeaseRead { ctx } => self.on_lease_read(ctx),
            Input::Snapshot { snapshot, keep } => self.on_snapshot_taken(snapshot, keep),
            Input::Compact { upto, keep } => self.on_compact(upto, keep),
            Input::SnapshotPart { to, id, offset, part } => self.on_snapshot_part(to, id, offset, part),
            Input::SnapshotWritten { id, outcome } => self.on_snapshot_written(id, outcome),
            Input::Restored => self.on_restored(),
            Input::Assign(a) => self.on_assign(a),
            Input::Resume(a) => self.on_resume(a),
            Input::Handover { target } => self.on_handover(target),
            Input::PeerUp(peer) => self.on_peer_up(peer),
            Input::Rouse(peer) => self.on_rouse(peer),
        }
        self.pump();
        self.release_held();
    }

    /// After a failed write: only those who ask are answered.
    fn turn_away(&mut self, input: &Input) {
        match *input {
            Input::Propose { ctx, .. } | Input::ProposeConfig { ctx, .. } | Input::Transfer { ctx, .. } => {
                self.refuse_proposal(ctx, RefuseKind::NotLeader);
            }
            Input::Read { ctx } | Input::LeaseRead { ctx } => self.refuse(ctx, RefuseKind::NotLeader),
            _ => {}
        }
    }

    /// The same for an owner of many groups: outputs go into its queue, so that a quiet group keeps no memory for them.
    pub fn step_into(&mut self, now: Instant, input: Input, out: &mut VecDeque<Output>) {
        core::mem::swap(&mut self.out, out);
        self.step(now, input);
        core::mem::swap(&mut self.out, out);
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When it next wants [`Input::Time`]; NEVER while nothing is outstanding.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let election = if self.may_campaign() { self.election_at } else { Instant::NEVER };
        let own = match self.role {
            Role::Leader => self.lead_deadline(),
            Role::Failed => return Instant::NEVER,
            _ => election.min(self.follow.retry_at),
        };
        own.min(self.forwarded.deadline()).min(self.handover_deadline())
    }

    /// The config in force here.
    #[must_use]
    pub fn members(&self) -> &Arc<Config> {
        match self.config.mode {
            Mode::Elected => self.history.current(),
            Mode::Assigned => &self.assigned.config,
        }
    }

    fn on_message(&mut self, m: Envelope) {
        if m.to != self.config.me || !self.current_incarnation(m.from, m.from_incarnation) {
            return;
        }
        match m.message {
            Message::PreVoteReq { next_epoch, pos } => return self.on_pre_vote_req(m.from, next_epoch, pos),
            Message::PreVoteResp { next_epoch, granted, .. } if granted || m.epoch <= self.epoch => {
                return self.on_pre_vote_resp(m.from, next_epoch, granted);
            }
            Message::PreVoteResp { .. } if self.bug(RaftMutant::PreVoteRefusalIgnored) => return,
            _ => {}
        }
        if m.epoch > self.epoch {
            if let Message::VoteReq { transfer, .. } = m.message
                && self.sticky()
                && !self.valid_transfer(m.epoch, transfer)
            {
                return self.send(m.from, Message::VoteResp { granted: false });
            }
            self.adopt(m.epoch);
        }
        if m.epoch < self.epoch {
            if m.message.expects_answer() {
                self.send(m.from, Message::Refuse { kind: RefuseKind::Fenced, leader: self.leader });
            }
            return;
        }
        self.dispatch(m);
    }

    fn dispatch(&mut self, m: Envelope) {
        let from = m.from;
        match m.message {
            Message::PreVoteReq { .. } | Message::PreVoteResp { .. } => {}
            Message::VoteReq { pos, .. } => self.on_vote_req(from, pos),
            Message::VoteResp { granted } => self.on_vote_resp(from, granted),
            Message::Begin { mark_at: _, hw, assignment } => self.on_begin(from, hw, assignment),
            Message::Beat { seq, hw } => self.on_beat(from, seq, hw),
            Message::Fetch(f) => self.on_fetch(from, m.from_incarnation, &f),
            Message::Items { prev, items, hw, distributed, leader_last, fetch_seq } => {
                self.on_items(from, prev, items, hw, leader_last, fetch_seq);
                self.distribute(distributed);
            }
            Message::Diverged { req_pos, keep } => self.on_diverged(from, req_pos, keep),
            Message::NeedBase { snapshot } => self.on_need_base(from, snapshot),
            Message::SnapshotFetch { id, offset } => self.on_snapshot_fetch(from, id, offset),
            Message::SnapshotChunk { id, offset, bytes, last } => self.on_snapshot_chunk(from, id, offset, bytes, last),
            Message::Refuse { kind, .. } => self.on_refuse(from, kind),
            Message::EndEpoch { successors } => self.on_end_epoch(from, &successors),
            Message::TransferNow { token } => self.on_transfer_now(from, token),
            Message::ReadReq { ctx } => self.on_read_req(from, ctx),
            Message::ReadResp { ctx, index } => self.on_read_resp(ctx, index),
            Message::Fence => self.on_fence(from),
            Message::FenceResp { .. } => {}
            Message::Settle { pos, hw } => self.on_settle(from, pos, hw),
            Message::SettleAck { pos } => self.on_settle_ack(from, pos),
            Message::Wake => self.on_wake(from),
        }
    }

    fn current_incarnation(&mut self, from: Replica, incarnation: Incarnation) -> bool {
        match self.incarnations.iter_mut().find(|(r, _)| *r == from) {
            Some((_, known)) if *known > incarnation => false,
            Some((_, known)) => {
                *known = incarnation;
                true
            }
            None => {
                // Only members and those who join are ever heard of.
                self.incarnations.push((from, incarnation));
                true
            }
        }
    }

    fn on_time(&mut self) {
        match self.role {
            Role::Leader => self.lead_time(),
            Role::Failed => {}
            _ => {
                if self.may_campaign() && self.now >= self.election_at {
                    self.pre_campaign();
                }
                self.follow_time();
            }
        }
        self.forwarded_time();
        self.handover_time();
    }

    fn on_persisted(&mut self, token: Token) {
        let followed = (self.role != Role::Leader).then(|| self.journal.durable());
        self.journal.complete(token);
        self.vote_persisted();
        self.install_persisted(token);
        if self.role == Role::Leader {
            self.try_commit();
        } else if Some(self.journal.durable()) != followed {
            self.follow_durable();
        }
    }

    /// Nothing is claimed any more, ever: what the disk has is unknown.
    fn on_persist_failed(&mut self, token: Token) {
        if self.bug(RaftMutant::SyncErrorIgnored) {
            return self.on_persisted(token);
        }
        self.abandon_promises();
        self.forwarded_lost();
        self.role = Role::Failed;
        self.leader = None;
        self.journal.discard(|_| true);
        self.lead = None;
        self.note_role();
    }

    /// A higher epoch: promised before anything of it leaves (P6).
    pub(super) fn adopt(&mut self, epoch: Epoch) {
        debug_assert!(epoch > self.epoch, "epochs rise");
        self.journal.discard(|m| m.epoch < epoch);
        if self.role == Role::Leader {
            self.step_down();
        }
        self.epoch = epoch;
        self.voted_for = None;
        self.self_vote = None;
        self.votes.clear();
        if self.role != Role::Damaged {
            self.role = Role::Follower;
        }
        self.leader = None;
        self.transfer = None;
        self.forwarded_lost();
        self.assigned.settled = false;
        self.follow.new_epoch();
        self.persist([Op::Hard { epoch, voted_for: None }]);
        if self.election_at == Instant::NEVER {
            self.reset_election();
        }
        self.note_role();
    }

    pub(super) fn persist(&mut self, ops: impl IntoIterator<Item = Op>) -> Token {
        let ops: Ops = ops.into_iter().collect();
        let hard = ops.iter().any(|op| matches!(op, Op::Hard { .. }));
        let token = self.journal.begin(self.log.end(), hard);
        self.out.push_back(Output::Persist { token, ops });
        token
    }

    /// Sends now, or as soon as the newest promise is durable (P1, P2, P3, P6).
    pub(super) fn send(&mut self, to: Replica, message: Message) {
        let envelope = Envelope {
            from: self.config.me,
            to,
            from_incarnation: self.config.incarnation,
            epoch: self.epoch,
            message,
        };
        let early = (self.bug(RaftMutant::VoteBeforeHard) && matches!(envelope.message, Message::VoteResp { .. }))
            || (self.bug(RaftMutant::PromiseVolatile) && matches!(envelope.message, Message::FenceResp { .. }));
        if early || (self.journal.promised() && self.journal.held() == 0) {
            self.out.push_back(Output::Send(self.stamped(envelope)));
        } else {
            self.journal.hold(envelope);
        }
    }

    pub(super) fn release_held(&mut self) {
        while let Some(m) = self.journal.release() {
            let m = self.stamped(m);
            self.out.push_back(Output::Send(m));
        }
    }

    /// What a fence is told is true at the moment it leaves (P3).
    fn stamped(&self, mut m: Envelope) -> Envelope {
        if let Message::FenceResp { durable, hw, damaged } = &mut m.message {
            (*durable, *hw) = (self.claimed(), self.hw);
            *damaged = self.role == Role::Damaged;
        }
        m
    }

    /// The durable end that this replica claims (P4).
    pub(super) fn claimed(&self) -> Position {
        if self.bug(RaftMutant::DurableIsEnd) {
            self.log.end()
        } else if self.bug(RaftMutant::LateCompletion) {
            self.journal.last_completed().min(self.log.end())
        } else {
            self.journal.durable()
        }
    }

    pub(super) fn note_role(&mut self) {
        self.out.push_back(Output::Role { epoch: self.epoch, role: self.role, leader: self.leader });
    }

    pub(super) fn alarm(&mut self, alarm: Alarm) {
        self.out.push_back(Output::Alarm(alarm));
    }

    /// The commit index moves; it never moves back.
    pub(super) fn raise_hw(&mut self, hw: u64) -> bool {
        if hw <= self.hw {
            return false;
        }
        self.hw = hw;
        if self.config.mode == Mode::Elected {
            self.history.committed(hw);
        }
        // Who has nobody to serve keeps nothing: entries may hold the whole frame in memory that they came in.
        let serves = self.lead.as_ref().is_some_and(|l| !l.peers.is_empty());
        self.tail.trim(hw, if serves { self.config.bounds.tail } else { 0 });
        self.out.push_back(Output::Committed { hw });
        true
    }

    /// SplitMix64.
    pub(super) fn random(&mut self) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.rng ^ (self.rng >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn bug(&self, mutant: RaftMutant) -> bool {
        cfg!(feature = "mutants") && self.config.mutant == Some(mutant)
    }
}
