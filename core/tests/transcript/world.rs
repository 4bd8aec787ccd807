//! Replicas, the network between them, and their disks, all under the script's control.

use super::check::Check;
use super::disk::Disk;
use super::names::{name, names};
use super::print;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use wukong_core::ids::Incarnation;
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Bounds, GroupConfig, GroupCore, Input, Mode, Ops, Output, Report, Role, Timing};
use wukong_core::raft::journal::Token;
use wukong_core::raft::message::{Envelope, Snapshot};
use wukong_core::time::Instant;

/// One replica's process and its disk.
#[derive(Debug)]
pub struct Node {
    pub me: Replica,
    /// None while it is down.
    pub core: Option<GroupCore>,
    pub incarnation: u64,
    pub paused: bool,
    /// Writes wait for `disk .. complete`.
    pub hold: bool,
    pub writes: VecDeque<(Token, Ops)>,
    pub disk: Disk,
    /// Its log in memory.
    pub memory: Disk,
    /// Snapshots that it has whole.
    pub snapshots: Vec<Arc<Snapshot>>,
    /// How many reads of its log fail from now on.
    pub failing_reads: u64,
    /// How many snapshots arrive damaged from now on.
    pub bad_snapshots: u64,
    role: Option<(u64, Role, Option<Replica>)>,
}

/// What becomes of the messages that match.
#[derive(Debug)]
pub struct Rule {
    pub from: Replica,
    pub to: Replica,
    pub kind: Option<String>,
    /// Lost; else kept until the rule is gone.
    pub lost: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct World {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub net: VecDeque<Envelope>,
    pub rules: Vec<Rule>,
    pub check: Check,
    pub out: Vec<String>,
    pub show_messages: bool,
    pub stamp: bool,
    pub settings: Settings,
    /// A planted bug, in every cluster of the script.
    pub mutant: Option<RaftMutant>,
    /// What the slot leader was told.
    pub answers: Vec<Envelope>,
    pub reports: Vec<(Replica, Report)>,
    pending: VecDeque<(Replica, Input)>,
    labels: BTreeMap<u64, String>,
}

/// What `cluster` said.
#[derive(Debug, Default)]
pub struct Settings {
    pub config: Arc<Config>,
    pub assigned: bool,
    pub lease: bool,
    pub seed: u64,
    pub timing: Timing,
    pub bounds: Bounds,
    pub preferred: Vec<Replica>,
}

impl World {
    pub fn planted(mutant: Option<RaftMutant>) -> Self {
        Self { mutant, ..Self::default() }
    }

    pub fn add(&mut self, me: Replica) {
        let disk = Disk::empty(Arc::clone(&self.settings.config));
        self.nodes.push(Node {
            me,
            core: None,
            incarnation: 0,
            paused: false,
            hold: false,
            writes: VecDeque::new(),
            memory: disk.clone(),
            disk,
            snapshots: Vec::new(),
            failing_reads: 0,
            bad_snapshots: 0,
            role: None,
        });
        self.start(me);
    }

    /// A new process on what the disk holds.
    pub fn start(&mut self, me: Replica) {
        let s = &self.settings;
        let mut config = GroupConfig {
            me,
            incarnation: Incarnation(0),
            mode: if s.assigned { Mode::Assigned } else { Mode::Elected },
            timing: s.timing,
            bounds: s.bounds,
            lease: s.lease,
            preferred: s.preferred.contains(&me),
            seed: 0,
            mutant: self.mutant,
        };
        let (now, seed) = (self.now, s.seed);
        let node = self.node_mut(me);
        node.incarnation += 1;
        node.memory = node.disk.clone();
        node.writes.clear();
        node.role = None;
        node.paused = false;
        config.incarnation = Incarnation(node.incarnation);
        config.seed = seed ^ (u64::from(me.node.0) << 32) ^ (me.store.0 as u64) << 16 ^ node.incarnation;
        node.core = Some(GroupCore::new(config, node.disk.stored(), now));
        self.check.started(me);
    }

    pub fn crash(&mut self, me: Replica, keep: usize) {
        let node = self.node_mut(me);
        for (_, ops) in node.writes.drain(..).take(keep).collect::<Vec<_>>() {
            ops.iter().for_each(|op| node.disk.apply(op));
        }
        node.core = None;
    }

    pub fn node(&self, r: Replica) -> &Node {
        self.nodes.iter().find(|n| n.me == r).unwrap_or_else(|| panic!("no replica {}", name(r)))
    }

    pub fn node_mut(&mut self, r: Replica) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.me == r).unwrap_or_else(|| panic!("no replica {}", name(r)))
    }

    pub fn say(&mut self, line: impl AsRef<str>) {
        let stamp = if self.stamp { format!("{:>7}ms ", self.now.0 / 1_000_000) } else { String::new() };
        self.out.push(format!("{stamp}{}", line.as_ref()));
    }

    /// Numbers a request by its name; a second one of the same name gets a prime.
    pub fn label(&mut self, text: &str) -> u64 {
        let mut text = text.to_owned();
        while self.labels.values().any(|l| *l == text) {
            text.push('\'');
        }
        let ctx = self.labels.len() as u64 + 1;
        self.labels.insert(ctx, text);
        ctx
    }

    pub fn knows(&self, label: &str) -> bool {
        self.labels.values().any(|l| l == label)
    }

    pub fn label_of(&self, ctx: u64) -> &str {
        self.labels.get(&ctx).map_or("?", |l| l)
    }

    pub fn step(&mut self, r: Replica, input: Input) {
        let now = self.now;
        let timed = matches!(input, Input::Time);
        let Some(core) = self.node_mut(r).core.as_mut() else { return };
        core.step(now, input);
        if core.is_leader() {
            core.distribute(core.hw());
        }
        while let Some(output) = self.node_mut(r).core.as_mut().and_then(GroupCore::poll_output) {
            self.output(r, output);
        }
        let node = self.nodes.iter().find(|n| n.me == r).expect("just stepped");
        self.check.stepped(node, now, timed);
    }

    fn output(&mut self, r: Replica, output: Output) {
        let who = name(r);
        match output {
            Output::Send(m) => {
                let node = self.nodes.iter().find(|n| n.me == r).expect("it sends");
                self.check.sent(node, &m);
                if self.nodes.iter().any(|n| n.me == m.to) {
                    self.net.push_back(m);
                } else {
                    self.say(print::envelope(&m));
                    self.answers.push(m);
                }
            }
            Output::Persist { token, ops } => {
                for op in &ops {
                    self.check.written(r, op);
                    self.node_mut(r).memory.apply(op);
                    if let Some(line) = print::op(op) {
                        self.say(format!("{who} {line}"));
                    }
                }
                self.node_mut(r).writes.push_back((token, ops));
            }
            Output::ReadLog { request, from, to, max_bytes } => {
                let node = self.node_mut(r);
                let fails = node.failing_reads > 0;
                node.failing_reads = node.failing_reads.saturating_sub(1);
                let entries = if fails { None } else { node.memory.read(from, to, max_bytes) };
                let outcome = entries.as_ref().map_or("fails".to_owned(), |e| format!("finds {}", e.len()));
                self.say(format!("{who} reads its log {from}..{to}: {outcome}"));
                self.pending.push_back((r, Input::LogRead { request, entries }));
            }
            Output::Committed { hw } => {
                let nodes = std::mem::take(&mut self.nodes);
                self.check.committed(&nodes, r, hw);
                self.nodes = nodes;
                self.say(format!("{who} commits {hw}"));
            }
            Output::Outcome { ctx, outcome } => {
                let label = self.label_of(ctx).to_owned();
                self.say(format!("{who} {label}: {}", print::outcome(&outcome)));
                self.check.resolved(ctx, &label, &outcome);
            }
            Output::ReadReady { ctx, index } => {
                let label = self.label_of(ctx).to_owned();
                let text = index.map_or_else(|kind| format!("refused {kind:?}"), |i| format!("served at {i}"));
                self.say(format!("{who} {label}: {text}"));
                self.check.read(ctx, &label, index.ok());
            }
            Output::Role { epoch, role, leader } => self.role(r, epoch.0, role, leader),
            Output::Report(report) => {
                self.say(format!("{who} reports {}", print::report(&report)));
                self.reports.push((r, report));
            }
            Output::Settled { lagging } => {
                let lagging = if lagging.is_empty() { "none".to_owned() } else { names(&lagging) };
                self.say(format!("{who} settles, lagging: {lagging}"));
            }
            Output::Alarm(alarm) => {
                self.say(format!("{who} ALARM {alarm:?}"));
                self.check.alarmed(r, alarm);
            }
            other => self.snapshot_output(r, other),
        }
    }

    fn snapshot_output(&mut self, r: Replica, output: Output) {
        const CHUNK: u64 = 4;
        match output {
            Output::ReadSnapshot { to, id, offset } => {
                let found = self.node(r).snapshots.iter().find(|s| s.id == id);
                let part = found.map(|s| {
                    let len = CHUNK.min(s.size - offset.min(s.size));
                    (vec![b'.'; len as usize].into(), offset + len == s.size)
                });
                self.pending.push_back((r, Input::SnapshotPart { to, id, offset, part }));
            }
            Output::WriteSnapshot { snapshot, last, .. } => {
                let node = self.node_mut(r);
                let bad = last && node.bad_snapshots > 0;
                if bad {
                    node.bad_snapshots -= 1;
                } else if last {
                    node.snapshots.push(Arc::clone(&snapshot));
                }
                let outcome = if bad { Err(()) } else { Ok(last) };
                if last {
                    self.say(format!("{} has its snapshot, {}", name(r), if bad { "damaged" } else { "whole" }));
                }
                self.pending.push_back((r, Input::SnapshotWritten { id: snapshot.id, outcome }));
            }
            Output::Restore { snapshot } => {
                self.say(format!("{} restores {}", name(r), snapshot.base.index));
                self.node_mut(r).memory.restored = snapshot.base.index;
                self.pending.push_back((r, Input::Restored));
            }
            _ => unreachable!("not of a snapshot"),
        }
    }

    fn role(&mut self, r: Replica, epoch: u64, role: Role, leader: Option<Replica>) {
        if role == Role::Leader {
            self.check.leads(r, self.node(r).incarnation, epoch);
        }
        let now = Some((epoch, role, leader));
        if std::mem::replace(&mut self.node_mut(r).role, now) == now {
            return;
        }
        // Whole again, and it stays so.
        self.node_mut(r).disk.damaged &= role == Role::Damaged;
        let of = leader.filter(|_| role != Role::Leader).map_or(String::new(), |l| format!(" of {}", name(l)));
        self.say(format!("{} {} e{epoch}{of}", name(r), print::role(role)));
    }

    /// Completes what the disks of those that do not hold have to do, and answers what was asked of owners.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            if let Some((r, input)) = self.pending.pop_front() {
                self.step(r, input);
                continue;
            }
            let ready = |n: &&Node| !n.hold && !n.paused && n.core.is_some() && !n.writes.is_empty();
            let Some(r) = self.nodes.iter().find(ready).map(|n| n.me) else { return };
            self.complete(r);
        }
        self.check.violations.push("disks never come to rest".to_owned());
    }

    /// The oldest write of `r` becomes durable.
    pub fn complete(&mut self, r: Replica) {
        let node = self.node_mut(r);
        let Some((token, ops)) = node.writes.pop_front() else { return };
        ops.iter().for_each(|op| node.disk.apply(op));
        self.step(r, Input::Persisted(token));
    }

    fn ruled(&self, m: &Envelope) -> Option<&Rule> {
        let fits =
            |r: &&Rule| r.from == m.from && r.to == m.to && r.kind.as_deref().is_none_or(|k| k == m.message.name());
        self.rules.iter().find(fits)
    }

    pub fn is_lost(&self, m: &Envelope) -> bool {
        self.ruled(m).is_some_and(|r| r.lost)
    }

    /// Delivers everything, also what that brings about, until nothing is on the way that may arrive.
    pub fn run(&mut self) {
        for _ in 0..50_000 {
            self.settle();
            self.net =
                std::mem::take(&mut self.net).into_iter().filter(|m| !self.ruled(m).is_some_and(|r| r.lost)).collect();
            let next = self.net.iter().position(|m| self.ruled(m).is_none() && !self.node(m.to).paused);
            let Some(m) = next.and_then(|i| self.net.remove(i)) else { return };
            self.deliver(m);
        }
        self.check.violations.push("messages never come to rest".to_owned());
    }

    pub fn deliver(&mut self, m: Envelope) {
        if self.show_messages {
            self.say(print::envelope(&m));
        }
        self.step(m.to, Input::Message(m));
        self.settle();
    }

    /// Goes to the deadline of `r` and fires it; other deadlines on the way are left for later.
    pub fn time_out(&mut self, r: Replica) {
        let due = self.node(r).core.as_ref().map_or(Instant::NEVER, GroupCore::deadline);
        assert!(due < Instant::NEVER, "{} waits for nothing", name(r));
        self.now = self.now.max(due);
        self.step(r, Input::Time);
        self.settle();
    }

    /// Lets time pass; deadlines fire in order.
    pub fn pass(&mut self, duration: core::time::Duration) {
        let end = self.now + duration;
        self.run();
        loop {
            let due = |n: &Node| n.core.as_ref().filter(|_| !n.paused).map_or(Instant::NEVER, GroupCore::deadline);
            let Some((at, r)) = self.nodes.iter().map(|n| (due(n), n.me)).min_by_key(|(at, _)| *at) else { break };
            if at > end || !self.check.violations.is_empty() {
                break;
            }
            self.now = self.now.max(at);
            self.step(r, Input::Time);
            self.run();
        }
        self.now = end;
    }
}
