//! The world: nodes, links, clients, and the heap of what happens next.

use super::cover::Cover;
use super::ghost::Ghost;
use super::load::Client;
use super::net::{Link, Weather};
use super::node::Node;
use super::plan::{Episode, Plan};
use super::record::{Deed, FactId, NONE, Recorder};
use super::slot::SlotState;
use super::{GroupNo, MS, NodeNo, SLOT, node_of};
use crate::hash::Trace;
use crate::heap::Heap;
use crate::history::Violation;
use crate::rng::Rng;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use wukong_core::cluster::assignment::AssignCommand;
use wukong_core::ids::Incarnation;
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Input, Report};
use wukong_core::raft::journal::Token;
use wukong_core::raft::message::Envelope;
use wukong_core::store::rows::Assignment;
use wukong_core::time::Instant;

/// What nodes say to each other beside the groups' own messages.
#[derive(Clone, Debug)]
pub enum Control {
    Assign(Arc<Assignment>),
    Handover(Replica),
    Report(Report, Replica),
    /// A node is alive, in this incarnation.
    Ping(Incarnation),
}

/// Which way something went, and for which group.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub link: u32,
    pub connection: u32,
    pub group: u16,
    /// The fact that sent it, where the run is recorded.
    pub cause: FactId,
    pub generation: u64,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    Message { header: Header, message: Box<Envelope> },
    Control { header: Header, control: Control },
    Synced { node: u16, life: u32 },
    Timer { node: u16, life: u32, at: u64 },
    Resume { node: u16 },
    Client(u32),
    Begin(u32),
    End(u32),
    Ping { node: u16, life: u32 },
    Check,
}

/// How to run a plan.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub mutant: Option<RaftMutant>,
    pub oracles: bool,
    /// Print what happens from this many ms on, to that many.
    pub print: Option<(u64, u64)>,
    /// Keep a hash of everything.
    pub trace: bool,
    /// Remember what happened and why (`explain.rs`).
    pub record: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self { mutant: None, oracles: true, print: None, trace: true, record: false }
    }
}

/// See the module.
#[derive(Clone)]
pub struct Cluster {
    pub plan: Plan,
    pub mode: Mode,
    pub now: u64,
    pub heap: Heap<Event>,
    pub nodes: Vec<Node>,
    pub links: Vec<Link>,
    pub weather: Weather,
    pub net: Rng,
    pub disk: Rng,
    pub choice: Rng,
    pub clients: Vec<Client>,
    pub idle: u32,
    /// Nodes that are to vote: in the slot, and in each channel.
    pub targets: Vec<Vec<NodeNo>>,
    /// Those of the plan, and of its branches that were taken.
    pub episodes: Vec<Episode>,
    /// Episodes in force.
    pub active: Vec<bool>,
    pub taken: usize,
    pub commands: Vec<(GroupNo, AssignCommand)>,
    /// States behind snapshot ids.
    pub snapshots: BTreeMap<u64, Arc<SlotState>>,
    pub ghost: Ghost,
    /// What stores had that are gone: generation and durable end of each group.
    pub graves: BTreeMap<(Replica, GroupNo), (u64, wukong_core::ids::Position)>,
    pub cover: Cover,
    pub trace: Trace,
    pub violations: Vec<Violation>,
    /// Inputs handled by replicas.
    pub handled: u64,
    /// When a second began, and how many had been handled by then.
    pace: (u64, u64),
    /// Of them, messages with entries.
    pub with_entries: u64,
    pub begun: u64,
    /// Inputs of replicas that this step caused on the same node.
    pub local: VecDeque<(NodeNo, GroupNo, FactId, Input)>,
    /// Last write of each group in the sync that completes.
    pub done: Vec<Option<(u64, Token)>>,
    /// The step in progress handles a fetch.
    pub answers_fetch: bool,
    pub healing: bool,
    /// What happened and why, where the run is recorded.
    pub recorder: Option<Box<Recorder>>,
}

impl Cluster {
    #[must_use]
    pub fn new(plan: Plan, mode: Mode) -> Self {
        let groups = plan.channels + 1;
        let mut choice = Rng::fork(plan.seed, "choice", 0);
        let nodes: Vec<Node> = (0..plan.nodes)
            .map(|n| {
                let drift = choice.between(0, 2 * plan.drift) as i64 - plan.drift as i64;
                Node::new(n, plan.nodes, groups, drift)
            })
            .collect();
        let mut world = Self {
            now: MS,
            heap: Heap::default(),
            links: vec![Link::default(); plan.nodes * plan.nodes],
            weather: Weather { latency: plan.latency * 1_000, loss: 0, double: 0, reorder: false },
            net: Rng::fork(plan.seed, "net", 0),
            disk: Rng::fork(plan.seed, "disk", 0),
            choice,
            clients: (0..plan.clients).map(|n| Client::new(plan.seed, n)).collect(),
            idle: 0,
            targets: vec![(0..plan.voters).collect(); groups],
            episodes: Vec::new(),
            active: Vec::new(),
            taken: 0,
            commands: Vec::new(),
            snapshots: BTreeMap::new(),
            ghost: Ghost::default(),
            graves: BTreeMap::new(),
            cover: Cover::default(),
            trace: Trace::default(),
            violations: Vec::new(),
            handled: 0,
            pace: (0, 0),
            with_entries: 0,
            begun: 0,
            local: VecDeque::new(),
            done: Vec::new(),
            answers_fetch: false,
            healing: false,
            recorder: mode.record.then(Box::default),
            nodes,
            mode,
            plan,
        };
        world.boot();
        world
    }

    fn boot(&mut self) {
        let voters: Vec<Replica> = (0..self.plan.voters).map(|n| self.nodes[n].me()).collect();
        let config = Arc::new(Config::of(voters));
        for n in 0..self.plan.nodes {
            self.nodes[n].durable[SLOT] = Some(super::disk::Durable::new(0, Arc::clone(&config)));
            self.start(n);
        }
        for c in 0..self.plan.clients {
            let at = self.now + self.choice.spread(self.plan.think * MS);
            self.heap.add(at, Event::Client(c as u32));
        }
        self.schedule(self.plan.episodes.clone());
        self.heap.add(250 * MS, Event::Check);
    }

    fn schedule(&mut self, episodes: Vec<Episode>) {
        for e in episodes {
            self.heap.add((e.at * MS).max(self.now), Event::Begin(self.episodes.len() as u32));
            self.episodes.push(e);
            self.active.push(false);
        }
    }

    /// Takes the branches of the plan that are due: from here on draws are others, and there are more faults.
    fn branch(&mut self) {
        while let Some(b) = self.plan.branches.get(self.taken).filter(|b| b.event <= self.handled).cloned() {
            self.taken += 1;
            self.net = Rng::fork(b.seed, "net", 1);
            self.disk = Rng::fork(b.seed, "disk", 1);
            self.choice = Rng::fork(b.seed, "choice", 1);
            for (n, c) in self.clients.iter_mut().enumerate() {
                c.rng = Rng::fork(b.seed, "client", n as u64);
            }
            self.schedule(b.episodes);
        }
    }

    #[must_use]
    pub const fn link(&self, from: NodeNo, to: NodeNo) -> usize {
        from * self.plan.nodes + to
    }

    pub fn violation(&mut self, invariant: &'static str, what: String) {
        self.violation_about(invariant, what, &[]);
    }

    /// The same, and whose deeds contradict each other.
    pub fn violation_about(&mut self, invariant: &'static str, what: String, about: &[Deed]) {
        if self.violations.len() < 16 {
            self.record_failure(about);
            self.violations.push(Violation { at: self.now, invariant, what });
        }
    }

    pub fn printing(&self) -> bool {
        self.mode.print.is_some_and(|(from, to)| (from..=to).contains(&(self.now / MS)))
    }

    pub fn say(&self, node: NodeNo, what: &dyn std::fmt::Display) {
        if self.printing() {
            println!("{:>10.3} n{node} {what}", self.now as f64 / MS as f64);
        }
    }

    /// Runs until `until`, or until something is violated.
    pub fn run_to(&mut self, until: u64) {
        if self.run_until(until, u64::MAX) {
            self.now = self.now.max(until);
        }
    }

    /// Runs until `until`, or so many inputs were handled, or something is violated. True: `until` it is.
    pub fn run_until(&mut self, until: u64, events: u64) -> bool {
        while self.violations.is_empty() && self.heap.next_at().is_some_and(|at| at <= until) {
            if self.handled >= events {
                return false;
            }
            if self.taken < self.plan.branches.len() {
                self.branch();
            }
            let (at, event) = self.heap.take().expect("just seen");
            // Messages that breed messages: nothing legal handles so much in so little time.
            let (since, handled) = self.pace;
            if at > since + 1_000 * MS {
                self.pace = (at, self.handled);
            } else if self.handled > handled + 400_000 {
                self.violation("storm", format!("{} inputs within a second", self.handled - handled));
            }
            self.now = at;
            self.happen(event);
            self.drain_local();
        }
        true
    }

    fn happen(&mut self, event: Event) {
        self.because(NONE);
        match event {
            Event::Message { header, message } => self.arrive(header, message),
            Event::Control { header, control } => self.control_arrives(header, control),
            Event::Synced { node, life } => self.synced(usize::from(node), life),
            Event::Timer { node, life, at } => self.timer(usize::from(node), life, at),
            Event::Resume { node } => self.resume(usize::from(node)),
            Event::Client(c) => self.client_turn(c as usize),
            Event::Begin(e) => self.begin_episode(e as usize),
            Event::End(e) => self.end_episode(e as usize),
            Event::Ping { node, life } => self.ping(usize::from(node), life),
            Event::Check => {
                self.check_all();
                self.operate();
                self.heap.add(self.now + 250 * MS, Event::Check);
            }
        }
    }

    /// A process does nothing while it is paused: what comes waits.
    pub fn deferred(&mut self, node: NodeNo, event: impl FnOnce() -> Event) -> bool {
        let until = self.nodes[node].paused_until;
        if until > self.now {
            self.heap.add(until, event());
            return true;
        }
        false
    }

    fn timer(&mut self, n: NodeNo, life: u32, at: u64) {
        if !self.nodes[n].alive || self.nodes[n].life != life || self.nodes[n].timer_at != at {
            return;
        }
        if self.deferred(n, || Event::Timer { node: n as u16, life, at }) {
            return;
        }
        self.nodes[n].timer_at = u64::MAX;
        self.nodes[n].timer_for = Instant::NEVER;
        let local = self.nodes[n].local(self.now);
        for g in 0..self.nodes[n].groups.len() {
            if self.nodes[n].deadlines[g] <= local {
                self.because_armed(n, g);
                self.step(n, g, Input::Time);
                self.check_deadline(n, g, local);
            }
        }
        self.controllers_time(n);
        self.arm(n);
    }

    /// Schedules the node's next timer.
    pub fn arm(&mut self, n: NodeNo) {
        let node = &self.nodes[n];
        if !node.alive {
            return;
        }
        let wanted = node.deadline();
        if wanted >= node.timer_for {
            return;
        }
        let at = node.world(wanted).max(self.now + 1);
        if at < node.timer_at {
            let life = node.life;
            self.nodes[n].timer_at = at;
            self.nodes[n].timer_for = wanted;
            self.heap.add(at, Event::Timer { node: n as u16, life, at });
        }
    }

    /// The node on which a replica lives now; None: that store is gone.
    #[must_use]
    pub fn place(&self, r: Replica) -> Option<NodeNo> {
        let n = node_of(r);
        (n < self.nodes.len() && self.nodes[n].me() == r).then_some(n)
    }

    /// Whether something of group `g` runs at node `n`.
    #[must_use]
    pub fn has(&self, n: NodeNo, g: GroupNo) -> bool {
        self.nodes[n].alive && self.nodes[n].groups[g].is_some()
    }
}
