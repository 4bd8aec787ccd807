//! Invariants that hold after every step, whatever the script does.

use super::names::{at, name};
use super::print;
use super::world::Node;
use std::collections::BTreeMap;
use wukong_core::ids::{Epoch, Position};
use wukong_core::raft::config::Replica;
use wukong_core::raft::core::{Alarm, Op, Outcome};
use wukong_core::raft::message::{Body, Envelope, Item, Message};
use wukong_core::time::Instant;

/// What is known of the whole group.
#[derive(Debug, Default)]
pub struct Check {
    pub violations: Vec<String>,
    /// Alarms that the script provokes.
    pub allowed: Vec<String>,
    pub alarms: Vec<String>,
    pub outcomes: BTreeMap<String, String>,
    pub reads: BTreeMap<String, Option<u64>>,
    /// Everything up to here is committed.
    pub hw: u64,
    leaders: BTreeMap<u64, (Replica, u64)>,
    items: BTreeMap<Position, Body>,
    marks: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, Epoch>,
    started: BTreeMap<Replica, u64>,
    resolved: BTreeMap<u64, ()>,
    /// What each proposal holds.
    proposals: BTreeMap<u64, Vec<String>>,
    /// What was committed when a read began.
    asked: BTreeMap<u64, u64>,
}

impl Check {
    fn fail(&mut self, text: String) {
        self.violations.push(text);
    }

    pub fn started(&mut self, r: Replica) {
        self.started.insert(r, 0);
    }

    pub fn proposed(&mut self, ctx: u64, batch: Vec<String>) {
        self.proposals.insert(ctx, batch);
    }

    pub fn asked(&mut self, ctx: u64) {
        self.asked.insert(ctx, self.hw);
    }

    pub fn leads(&mut self, r: Replica, incarnation: u64, epoch: u64) {
        let (first, life) = *self.leaders.entry(epoch).or_insert((r, incarnation));
        if (first, life) != (r, incarnation) {
            self.fail(format!(
                "epoch {epoch} is led by {} (process {life}) and {} (process {incarnation})",
                name(first),
                name(r)
            ));
        }
    }

    pub fn written(&mut self, r: Replica, op: &Op) {
        let Op::Append(items) = op else { return };
        for item in items {
            match item {
                Item::Mark { epoch, at } => {
                    let first = *self.marks.entry(epoch.0).or_insert(*at);
                    if first != *at {
                        self.fail(format!("{} writes mark {} at {at}, elsewhere it is at {first}", name(r), epoch.0));
                    }
                }
                Item::Entry(e) => self.known(r, Position { epoch: e.epoch, index: e.index }, &e.body),
            }
        }
    }

    pub fn known(&mut self, r: Replica, p: Position, body: &Body) {
        let first = self.items.entry(p).or_insert_with(|| body.clone());
        if first != body {
            let (a, b) = (print::body(first), print::body(body));
            self.fail(format!("{} has {b} at {}, elsewhere it is {a}", name(r), at(p)));
        }
    }

    /// Promises are durable before anything of their epoch leaves; nothing that is not durable is claimed.
    pub fn sent(&mut self, node: &Node, m: &Envelope) {
        let who = name(node.me);
        if m.epoch > node.disk.epoch {
            self.fail(format!(
                "{who} sends {} of epoch {} but promised {}",
                m.message.name(),
                m.epoch.0,
                node.disk.epoch.0
            ));
        }
        match &m.message {
            Message::VoteResp { granted: true } if node.disk.voted_for != Some(m.to) || node.disk.epoch != m.epoch => {
                self.fail(format!("{who} votes for {} before that is durable", name(m.to)));
            }
            Message::VoteReq { .. } if node.disk.voted_for != Some(node.me) => {
                self.fail(format!("{who} asks for votes before its own is durable"));
            }
            Message::Fetch(f) => self.claimed(node, f.durable),
            Message::FenceResp { durable, .. } => self.claimed(node, *durable),
            _ => {}
        }
    }

    fn claimed(&mut self, node: &Node, p: Position) {
        let below = |d: &super::disk::Disk| d.log.is_below_base(p);
        let holds = |d: &super::disk::Disk| d.log.consistent(p) || below(d);
        if !holds(&node.disk) || !holds(&node.memory) {
            self.fail(format!("{} claims {}, its disk has {}", name(node.me), at(p), print::runs(&node.disk.log)));
        }
    }

    /// What is committed never changes, and a leader commits only what a quorum has on its disks.
    pub fn committed(&mut self, nodes: &[Node], r: Replica, hw: u64) {
        let node = nodes.iter().find(|n| n.me == r).expect("it commits");
        let core = node.core.as_ref().expect("it commits");
        let log = &node.memory.log;
        if hw > log.end().index {
            self.fail(format!("{} commits {hw} beyond its end {}", name(r), at(log.end())));
        }
        for index in 1..=hw {
            let epoch = log.epoch_of(index);
            match self.committed.get(&index) {
                // Not judged where the log no longer holds it.
                Some(first) if index > log.base.index && *first != epoch => {
                    let text =
                        format!("{} commits {}.{index}, epoch {} was committed there", name(r), epoch.0, first.0);
                    self.fail(text);
                }
                None if index > log.base.index => {
                    self.committed.insert(index, epoch);
                }
                _ => {}
            }
        }
        if core.is_leader() {
            let p = Position { epoch: core.epoch(), index: hw };
            // What was damaged since, or went into a snapshot, was there.
            let gone = |d: &super::disk::Disk| d.damaged || d.log.is_below_base(p);
            let holds = |r: Replica| nodes.iter().any(|n| n.me == r && (gone(&n.disk) || n.disk.log.consistent(p)));
            if !core.members().quorum(holds) {
                self.fail(format!("{} commits {} which no quorum has on disk", name(r), at(p)));
            }
            self.hw = self.hw.max(hw);
        }
    }

    pub fn resolved(&mut self, ctx: u64, label: &str, outcome: &Outcome) {
        if self.resolved.insert(ctx, ()).is_some() {
            self.fail(format!("{label} has two outcomes"));
        }
        let kind = match outcome {
            Outcome::Committed { .. } => "committed",
            Outcome::Unknown => "unknown",
            Outcome::Refused { .. } => "refused",
        };
        self.outcomes.insert(label.to_owned(), kind.to_owned());
        let (Outcome::Committed { first, last, .. }, Some(batch)) = (outcome, self.proposals.get(&ctx)) else { return };
        let found: Vec<String> = (*first..=*last)
            .filter_map(|i| self.items.get(&Position { epoch: *self.committed.get(&i)?, index: i }))
            .map(print::body)
            .collect();
        if found != *batch {
            let text = format!("{label} is acknowledged at {first}..{last}, where {found:?} is committed");
            self.fail(text);
        }
    }

    pub fn read(&mut self, ctx: u64, label: &str, index: Option<u64>) {
        if self.reads.insert(label.to_owned(), index).is_some() {
            self.fail(format!("{label} has two answers"));
        }
        let asked = self.asked.get(&ctx).copied().unwrap_or(0);
        if index.is_some_and(|i| i < asked) {
            self.fail(format!("{label} is served at {index:?}, {asked} was committed before it was asked"));
        }
    }

    pub fn alarmed(&mut self, r: Replica, alarm: Alarm) {
        let text = format!("{alarm:?}");
        if !self.allowed.contains(&text) {
            self.fail(format!("{} raises {text}", name(r)));
        }
        self.alarms.push(text);
    }

    pub fn stepped(&mut self, node: &Node, now: Instant, timed: bool) {
        let Some(core) = &node.core else { return };
        let who = name(node.me);
        if timed && core.deadline() <= now {
            self.fail(format!("{who} wants to be woken at {:?}, it is {now:?}: a busy loop", core.deadline()));
        }
        let before = self.started.insert(node.me, core.hw()).unwrap_or(0);
        if core.hw() < before {
            self.fail(format!("{who} takes back its commit index, {before} to {}", core.hw()));
        }
        if core.log() != &node.memory.log {
            self.fail(format!("{who} has {:?} in memory and wrote {:?}", core.log(), node.memory.log));
        }
        if core.epoch() != node.memory.epoch || core.voted_for() != node.memory.voted_for {
            self.fail(format!("{who} keeps another promise than it wrote"));
        }
        let current = node.memory.configs.last().expect("a group has a config");
        let elected = core.config_index() > 0 || core.members().version == current.1.version;
        if elected && core.config_index() != current.0 {
            self.fail(format!("{who} has the config of {} in force, its log says {}", core.config_index(), current.0));
        }
    }
}
