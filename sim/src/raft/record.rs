//! What a recorded run remembers: every input, what it changed, and what it rests on. A run that is not recorded pays nothing.

use super::cluster::Cluster;
use super::ghost::GroupId;
use super::{GroupNo, NodeNo, node_of};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display, Write};
use wukong_core::ids::{Epoch, Position};
use wukong_core::raft::config::Replica;
use wukong_core::raft::core::{Input, Op, Outcome, Output, Role};
use wukong_core::raft::journal::Token;
use wukong_core::raft::message::{Envelope, Item, Message};
use wukong_core::time::Instant;

/// Number of a fact in the order of the run.
pub type FactId = u32;
/// No fact.
pub const NONE: FactId = u32::MAX;

/// How a fact brought another one about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It sent the message.
    Sent,
    /// It began the write that completed.
    Wrote,
    /// It set the timer that fired.
    Armed,
    /// Its owner did what it asked for.
    Asked,
    /// A fault, a start, or the slot leader at the same moment.
    Led,
    /// It made this replica leader, or candidate.
    Office,
    /// It is the acknowledgement of a node.
    Acknowledged(NodeNo),
    /// It is the vote of a node.
    Voted(NodeNo),
    /// It made what the disk of this replica holds.
    Disk,
    /// It was the last to change this replica's log.
    Log,
    /// It made this replica's promise.
    Promise,
    /// It was the last to move the commit index here.
    Commit,
    /// What the failed check compares with.
    Contradicts(&'static str),
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Fact {
    /// ns.
    pub at: u64,
    /// None: to the world.
    pub node: Option<NodeNo>,
    pub group: Option<GroupNo>,
    pub what: String,
    /// What it changed, in words.
    pub did: String,
    pub causes: Vec<(FactId, Why)>,
    /// It changed what the replica stands for, not only when it wants to be called.
    pub decisive: bool,
}

/// Names a fact by what was done in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// Somebody became leader of this epoch.
    Led(GroupId, u64),
    /// A commit index first covered this entry.
    Covered(GroupId, u64),
    /// A client was told that this entry is stored.
    Told(GroupId, u64),
    /// The last decisive fact of a replica.
    Replica(NodeNo, GroupNo),
}

/// The facts that a replica stands on.
#[derive(Clone, Copy, Debug)]
struct Stands {
    log: FactId,
    disk: FactId,
    promise: FactId,
    office: FactId,
    commit: FactId,
    armed: FactId,
    last: FactId,
}

impl Default for Stands {
    fn default() -> Self {
        Self { log: NONE, disk: NONE, promise: NONE, office: NONE, commit: NONE, armed: NONE, last: NONE }
    }
}

/// A replica as seen from outside, before and after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct View {
    epoch: Epoch,
    voted_for: Option<Replica>,
    role: Role,
    leader: Option<Replica>,
    end: Position,
    durable: Position,
    hw: u64,
    deadline: Instant,
    settled: bool,
    /// What the sender of the message has durably, as a leader knows it.
    peer: Option<Position>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub facts: Vec<Fact>,
    current: FactId,
    stands: BTreeMap<(NodeNo, GroupNo), Stands>,
    writes: BTreeMap<(NodeNo, GroupNo, Token), FactId>,
    acknowledged: BTreeMap<(NodeNo, GroupNo, NodeNo), FactId>,
    voted: BTreeMap<(NodeNo, GroupNo, NodeNo), FactId>,
    deeds: BTreeMap<Deed, FactId>,
    /// The last crash of each node.
    crashed: BTreeMap<NodeNo, FactId>,
    /// For each violation: where it was noticed, and what it contradicts.
    pub failures: Vec<Vec<(FactId, Why)>>,
    before: Option<View>,
    from: Option<Replica>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            facts: Vec::new(),
            current: NONE,
            stands: BTreeMap::new(),
            writes: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            voted: BTreeMap::new(),
            deeds: BTreeMap::new(),
            crashed: BTreeMap::new(),
            failures: Vec::new(),
            before: None,
            from: None,
        }
    }
}

impl Recorder {
    fn add(&mut self, fact: Fact) {
        self.facts.push(fact);
        self.current = (self.facts.len() - 1) as FactId;
    }

    fn fact(&mut self) -> Option<&mut Fact> {
        self.facts.get_mut(self.current as usize)
    }

    fn rests_on(&mut self, cause: FactId, why: Why) {
        let current = self.current;
        if cause == NONE || cause == current {
            return;
        }
        if let Some(f) = self.fact()
            && !f.causes.iter().any(|(c, _)| *c == cause)
        {
            f.causes.push((cause, why));
        }
    }

    fn did(&mut self, decisive: bool, what: std::fmt::Arguments<'_>) {
        if let Some(f) = self.fact() {
            f.decisive |= decisive;
            let comma = if f.did.is_empty() { "" } else { ", " };
            write!(f.did, "{comma}{what}").expect("a string takes all");
        }
    }

    /// The fact in which `deed` was done, if it was.
    #[must_use]
    pub fn deed(&self, deed: Deed) -> Option<FactId> {
        match deed {
            Deed::Replica(n, g) => self.stands.get(&(n, g)).map(|s| s.last).filter(|f| *f != NONE),
            _ => self.deeds.get(&deed).copied(),
        }
    }

    fn stands(&mut self, n: NodeNo, g: GroupNo) -> &mut Stands {
        self.stands.entry((n, g)).or_default()
    }

    /// Acknowledgements of other nodes that a leader holds.
    fn rests_on_acknowledgements(&mut self, n: NodeNo, g: GroupNo) {
        let all: Vec<_> = self.acknowledged.range((n, g, 0)..=(n, g, NodeNo::MAX)).map(|(k, f)| (k.2, *f)).collect();
        for (peer, fact) in all {
            self.rests_on(fact, Why::Acknowledged(peer));
        }
    }
}

/// A message in a few words.
#[must_use]
pub fn told(m: &Envelope) -> String {
    let pos = |p: &Position| format!("{}.{}", p.epoch, p.index);
    let what = match &m.message {
        Message::Items { prev, items, hw, .. } => {
            let marks = items.iter().filter(|i| matches!(i, Item::Mark { .. })).count();
            let entries = items.len() - marks;
            format!("Items after {} +{entries} entries +{marks} marks, hw {hw}", pos(prev))
        }
        Message::Fetch(f) => {
            format!("Fetch #{} at {}, durable {}, beat {}", f.seq, pos(&f.pos), pos(&f.durable), f.beat)
        }
        Message::VoteReq { pos: p, transfer } => {
            format!("VoteReq at {}{}", pos(p), if transfer.is_some() { ", as told to" } else { "" })
        }
        Message::PreVoteReq { next_epoch, pos: p } => format!("PreVoteReq for {next_epoch} at {}", pos(p)),
        Message::PreVoteResp { next_epoch, granted, .. } => format!("PreVoteResp for {next_epoch}: {granted}"),
        Message::VoteResp { granted } => format!("VoteResp: {granted}"),
        Message::FenceResp { durable, damaged, .. } => {
            format!("FenceResp, durable {}{}", pos(durable), if *damaged { ", damaged" } else { "" })
        }
        Message::Beat { seq, hw } => format!("Beat {seq}, hw {hw}"),
        Message::Begin { mark_at, hw, .. } => format!("Begin, mark at {mark_at}, hw {hw}"),
        Message::Refuse { kind, .. } => format!("Refuse {kind:?}"),
        Message::Diverged { req_pos, keep } => format!("Diverged at {}, keep {}", pos(req_pos), pos(keep)),
        other => other.name().to_owned(),
    };
    format!("{what} of epoch {}", m.epoch)
}

fn input_text(input: &Input) -> (String, Why) {
    match input {
        Input::Message(m) => (format!("<- n{} {}", node_of(m.from), told(m)), Why::Sent),
        Input::Time => ("its timer fires".into(), Why::Armed),
        Input::Persisted(token) => (format!("write {} is durable", token.0), Why::Wrote),
        Input::PersistFailed(token) => (format!("write {} failed", token.0), Why::Wrote),
        Input::LogRead { entries, .. } => {
            (format!("read of the log: {:?} entries", entries.as_ref().map(Vec::len)), Why::Asked)
        }
        Input::Propose { ctx, batch } if *ctx < super::load::COMMAND => {
            (format!("operation {ctx}: append {}", batch.len()), Why::Led)
        }
        Input::Propose { .. } => ("command of the slot leader".into(), Why::Led),
        Input::Read { ctx } => (format!("operation {ctx}: read"), Why::Led),
        Input::LeaseRead { ctx } => (format!("operation {ctx}: read by lease"), Why::Led),
        Input::Assign(a) => {
            let leader = a.leader.map_or_else(|| "nobody".into(), |(r, _)| format!("n{}", node_of(r)));
            (format!("told: epoch {}, led by {leader}, {} voters", a.epoch, a.voters.len()), Why::Sent)
        }
        Input::Handover { target } => (format!("told: hand over to n{}", node_of(*target)), Why::Sent),
        Input::Transfer { target, .. } => (format!("asked: transfer to n{}", node_of(*target)), Why::Led),
        Input::PeerUp(r) => (format!("n{} can be reached again", node_of(*r)), Why::Led),
        Input::ProposeConfig { change, .. } => (format!("asked: {}", short(change, 60)), Why::Led),
        other => (short(other, 60), Why::Asked),
    }
}

fn short(what: &dyn Debug, chars: usize) -> String {
    format!("{what:?}").chars().take(chars).collect()
}

impl Cluster {
    /// What happens next follows from this fact.
    pub fn because(&mut self, cause: FactId) {
        if let Some(r) = self.recorder.as_mut() {
            r.current = cause;
        }
    }

    #[must_use]
    pub fn cause(&self) -> FactId {
        self.recorder.as_ref().map_or(NONE, |r| r.current)
    }

    pub fn because_written(&mut self, n: NodeNo, g: GroupNo, token: Token) {
        if let Some(r) = self.recorder.as_mut() {
            r.current = r.writes.get(&(n, g, token)).copied().unwrap_or(NONE);
        }
    }

    pub fn because_armed(&mut self, n: NodeNo, g: GroupNo) {
        if let Some(r) = self.recorder.as_mut() {
            r.current = r.stands.get(&(n, g)).map_or(NONE, |s| s.armed);
        }
    }

    fn view(&self, n: NodeNo, g: GroupNo, from: Option<Replica>) -> Option<View> {
        let core = &self.nodes[n].groups[g].as_ref()?.core;
        Some(View {
            epoch: core.epoch(),
            voted_for: core.voted_for(),
            role: core.role(),
            leader: core.leader(),
            end: core.log().end(),
            durable: core.durable(),
            hw: core.hw(),
            deadline: core.deadline(),
            settled: core.is_settled(),
            peer: from.and_then(|r| core.peer_durable(r)),
        })
    }

    fn record(&mut self, node: Option<NodeNo>, group: Option<GroupNo>, what: String, why: Why) {
        let at = self.now;
        let Some(r) = self.recorder.as_mut() else { return };
        let causes = if r.current == NONE { Vec::new() } else { vec![(r.current, why)] };
        r.add(Fact { at, node, group, what, did: String::new(), causes, decisive: node.is_none() });
    }

    pub fn record_world(&mut self, what: &dyn Display) {
        if self.recorder.is_some() {
            self.record(None, None, what.to_string(), Why::Led);
        }
    }

    pub fn record_node(&mut self, n: NodeNo, what: &str) {
        self.record(Some(n), None, what.to_owned(), Why::Led);
        if let Some(r) = self.recorder.as_mut() {
            r.crashed.insert(n, r.current);
        }
    }

    /// A replica begins to run: it stands on what its disk holds.
    pub fn record_birth(&mut self, n: NodeNo, g: GroupNo, how: &str) {
        let Some(view) = self.recorder.as_ref().and_then(|_| self.view(n, g, None)) else { return };
        let before = self.cause();
        let what = format!("{how}, incarnation {}", self.nodes[n].incarnation);
        self.record(Some(n), Some(g), what, Why::Led);
        let Some(r) = self.recorder.as_mut() else { return };
        let now = r.current;
        let crash = r.crashed.get(&n).copied().unwrap_or(NONE);
        let old = *r.stands(n, g);
        r.rests_on(crash, Why::Led);
        r.rests_on(old.disk, Why::Disk);
        r.rests_on(old.promise, Why::Promise);
        let (e, end) = (view.epoch, view.end);
        r.did(true, format_args!("{:?}, log ends at {}.{}, promised {e}", view.role, end.epoch, end.index));
        *r.stands(n, g) = Stands { log: now, disk: now, promise: now, office: now, commit: now, armed: now, last: now };
        r.acknowledged.retain(|k, _| (k.0, k.1) != (n, g));
        r.voted.retain(|k, _| (k.0, k.1) != (n, g));
        r.current = before;
    }

    pub fn record_input(&mut self, n: NodeNo, g: GroupNo, input: &Input) {
        if self.recorder.is_none() {
            return;
        }
        let from = if let Input::Message(m) = input { Some(m.from) } else { None };
        let granted = matches!(input, Input::Message(m) if matches!(m.message, Message::VoteResp { granted: true }));
        let before = self.view(n, g, from);
        let (what, why) = input_text(input);
        self.record(Some(n), Some(g), what, why);
        let Some(r) = self.recorder.as_mut() else { return };
        (r.before, r.from) = (before, from);
        if let (true, Some(from)) = (granted, from) {
            r.voted.insert((n, g, node_of(from)), r.current);
        }
    }

    /// A step is over: what is different now, and what that rests on.
    pub fn record_change(&mut self, n: NodeNo, g: GroupNo) {
        let Some(from) = self.recorder.as_ref().map(|r| r.from) else { return };
        let Some(now) = self.view(n, g, from) else { return };
        let Some(r) = self.recorder.as_mut() else { return };
        let Some(was) = r.before.take() else { return };
        let fact = r.current;
        let old = *r.stands(n, g);
        let mut new = Stands { last: old.last, ..old };
        if let (Some(from), true) = (from, now.peer != was.peer) {
            r.acknowledged.insert((n, g, node_of(from)), fact);
            r.did(false, format_args!("n{} has {}", node_of(from), now.peer.map_or(0, |p| p.index)));
        }
        if (now.epoch, now.voted_for) != (was.epoch, was.voted_for) {
            new.promise = fact;
            r.did(true, format_args!("epoch {}", now.epoch));
        }
        if (now.role, now.leader) != (was.role, was.leader) {
            new.office = fact;
            r.rests_on(old.office, Why::Office);
            let leader = now.leader.map_or_else(|| "nobody".into(), |l| format!("n{}", node_of(l)));
            r.did(true, format_args!("{:?}, led by {leader}", now.role));
        }
        if now.end != was.end {
            new.log = fact;
            r.did(true, format_args!("log {}.{} -> {}.{}", was.end.epoch, was.end.index, now.end.epoch, now.end.index));
            if was.role == Role::Leader {
                r.rests_on(old.office, Why::Office);
            }
            if now.end < was.end {
                r.rests_on(old.log, Why::Log);
            }
        }
        if now.durable != was.durable {
            new.disk = fact;
            r.did(true, format_args!("durable {}.{}", now.durable.epoch, now.durable.index));
        }
        if now.hw != was.hw {
            new.commit = fact;
            r.rests_on(old.log, Why::Log);
        }
        if now.settled != was.settled {
            r.did(true, format_args!("{}", if now.settled { "settled" } else { "awake" }));
        }
        if now.deadline != was.deadline {
            new.armed = fact;
        }
        if r.fact().is_some_and(|f| f.decisive) {
            new.last = fact;
        }
        *r.stands(n, g) = new;
    }

    pub fn record_output(&mut self, n: NodeNo, g: GroupNo, output: &Output) {
        let id = (g, self.nodes[n].groups[g].as_ref().map_or(0, |l| l.generation));
        let leads = self.nodes[n].groups[g].as_ref().is_some_and(|l| l.core.is_leader());
        let hw = self.nodes[n].groups[g].as_ref().map_or(0, |l| l.hw);
        let Some(r) = self.recorder.as_mut() else { return };
        let (fact, old) = (r.current, *r.stands(n, g));
        match output {
            Output::Persist { token, ops } => {
                r.writes.insert((n, g, *token), fact);
                for op in ops {
                    match op {
                        Op::Truncate(keep) => r.did(true, format_args!("cuts to {}.{}", keep.epoch, keep.index)),
                        Op::Rebase { snapshot, .. } => r.did(true, format_args!("log begins at {:?}", snapshot.base)),
                        _ => {}
                    }
                }
            }
            Output::Role { role: Role::Leader, epoch, .. } => {
                r.deeds.entry(Deed::Led(id, epoch.0)).or_insert(fact);
                let votes: Vec<_> = r.voted.range((n, g, 0)..=(n, g, NodeNo::MAX)).map(|(k, f)| (k.2, *f)).collect();
                for (peer, vote) in votes {
                    r.rests_on(vote, Why::Voted(peer));
                }
                r.voted.retain(|k, _| (k.0, k.1) != (n, g));
                r.rests_on(old.promise, Why::Promise);
                r.rests_on(old.log, Why::Log);
                r.acknowledged.retain(|k, _| (k.0, k.1) != (n, g));
            }
            Output::Committed { hw: now } => {
                r.did(true, format_args!("commits {now}"));
                for index in hw + 1..=*now {
                    r.deeds.entry(Deed::Covered(id, index)).or_insert(fact);
                }
                if leads {
                    r.rests_on_acknowledgements(n, g);
                    r.rests_on(old.disk, Why::Disk);
                    r.rests_on(old.office, Why::Office);
                }
            }
            Output::Outcome { ctx, outcome: Outcome::Committed { first, last, .. } } => {
                r.did(false, format_args!("operation {ctx} is told {first}..{last}"));
                for index in *first..=*last {
                    r.deeds.insert(Deed::Told(id, index), fact);
                }
            }
            Output::Outcome { ctx, outcome } => r.did(false, format_args!("operation {ctx}: {}", short(outcome, 40))),
            Output::ReadReady { ctx, index } => {
                r.did(index.is_ok(), format_args!("read {ctx} returns {index:?}"));
                if index.is_ok() {
                    r.rests_on(old.commit, Why::Commit);
                    r.rests_on(old.office, Why::Office);
                    r.rests_on_acknowledgements(n, g);
                }
            }
            Output::Send(m) => match &m.message {
                Message::VoteResp { granted: true } => {
                    r.did(true, format_args!("votes for n{}", node_of(m.to)));
                    r.rests_on(old.log, Why::Log);
                    r.rests_on(old.promise, Why::Promise);
                }
                Message::PreVoteResp { granted, .. } => {
                    r.did(false, format_args!("pre-vote {}", if *granted { "granted" } else { "refused" }));
                    r.rests_on(old.log, Why::Log);
                }
                Message::FenceResp { .. } => {
                    r.did(true, format_args!("promises n{}", node_of(m.to)));
                    r.rests_on(old.disk, Why::Disk);
                }
                Message::Fetch(_) => r.rests_on(old.disk, Why::Disk),
                Message::Refuse { kind, .. } => r.did(false, format_args!("refuses n{}: {kind:?}", node_of(m.to))),
                Message::TransferNow { .. } | Message::EndEpoch { .. } | Message::Diverged { .. } => {
                    r.did(true, format_args!("sends n{} {}", node_of(m.to), m.message.name()));
                }
                _ => {}
            },
            Output::Report(report) => r.did(true, format_args!("reports {}", short(report, 60))),
            Output::Alarm(alarm) => r.did(true, format_args!("ALARM {alarm:?}")),
            _ => {}
        }
        if r.fact().is_some_and(|f| f.decisive) {
            r.stands(n, g).last = fact;
        }
    }

    /// The slot leader's controller of a channel hears something.
    pub fn record_control(&mut self, n: NodeNo, g: GroupNo, what: &dyn Debug) {
        if self.recorder.is_some() {
            self.record(Some(n), Some(g), format!("slot leader hears {}", short(what, 70)), Why::Sent);
        }
    }

    /// A check fails at the current fact.
    pub fn record_failure(&mut self, about: &[Deed]) {
        let Some(r) = self.recorder.as_mut() else { return };
        let mut roots: Vec<(FactId, Why)> = Vec::new();
        if r.current != NONE {
            roots.push((r.current, Why::Failed));
        }
        for deed in about {
            let why = Why::Contradicts(match deed {
                Deed::Led(..) => "who led that epoch",
                Deed::Covered(..) => "what was committed there",
                Deed::Told(..) => "what a client was told",
                Deed::Replica(..) => "how the replica stands",
            });
            if let Some(fact) = r.deed(*deed).filter(|f| !roots.iter().any(|(x, _)| x == f)) {
                roots.push((fact, why));
            }
        }
        r.failures.push(roots);
    }
}
