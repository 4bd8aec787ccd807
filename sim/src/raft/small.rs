//! Small worlds, exhaustively: three replicas of one group, a few epochs and entries, one crash; every order in which messages
//! arrive, writes complete, timers fire and processes die. All oracles that look at a state look at each. A message that never
//! arrives is lost; time passes only where a timer fires.

use super::cluster::{Cluster, Control, Event, Mode};
use super::cover::Cover;
use super::plan::Plan;
use super::{GroupNo, NodeNo, SLOT, replica};
use crate::hash::Trace;
use crate::history::Violation;
use std::collections::{HashSet, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use wukong_core::cluster::assignment::{AssignCommand, reduce};
use wukong_core::cluster::control::Controller;
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::core::{Input, Role};
use wukong_core::raft::message::Message;
use wukong_core::store::rows::Assignment;
use wukong_core::time::Instant;

/// Replicas.
const N: usize = 3;
/// Where the slot's decisions come from, in an assigned world: a node of its own, that never fails.
const AUTHORITY: NodeNo = N;
/// More worlds than this do not wait: then the youngest is looked at first.
const WAITING: usize = 60_000;

/// How much may happen in one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    pub epochs: u64,
    pub entries: u8,
    pub crashes: u8,
    /// Elections that begin: timeouts, or the slot's decision.
    pub elections: u8,
    /// Other timers that fire: beats, repetitions, settling.
    pub ticks: u8,
    pub reads: u8,
    /// It begins with n0 leading epoch 1, and everything said; else before anything happened.
    pub led: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { epochs: 2, entries: 1, crashes: 1, elections: 1, ticks: 0, reads: 0, led: true }
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A message under way arrives.
    Deliver(u16),
    /// The oldest write of a node is durable.
    Sync(u8),
    /// A node's timer fires.
    Fire(u8),
    Propose(u8),
    Read(u8),
    /// A process dies, of its writes in flight so many survive, and another one starts.
    Crash(u8, u8),
    /// The slot elects.
    Elect,
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub states: u64,
    pub steps: u64,
    pub depth: u32,
    /// Every state within the bounds was looked at.
    pub complete: bool,
    /// The first broken rule, and how to get there.
    pub violation: Option<(Violation, Vec<String>)>,
}

/// A state.
#[derive(Clone)]
struct World {
    cluster: Cluster,
    group: GroupNo,
    flight: Vec<(u64, Event)>,
    limits: Bounds,
    left: Bounds,
    /// Commands that the authority applied.
    applied: usize,
    digests: [u64; N],
}

fn plan(assigned: bool) -> Plan {
    let plan = Plan::generate(1, 0);
    let (nodes, channels) = if assigned { (N + 1, 1) } else { (N, 0) };
    Plan { nodes, voters: N, channels, clients: 0, lease: false, drift: 0, episodes: Vec::new(), ..plan }
}

/// Text without what differs between histories that are alike: times only count as far past, near, or never.
fn digest(text: &str, now: u64) -> u64 {
    const T_MIN: u64 = 1_000 * super::MS;
    let mut trace = Trace::default();
    let random = text.find("rng: ").map_or(text.len(), |at| at + 5);
    let (head, tail) = text.split_at(random);
    for mut rest in [head, tail.trim_start_matches(|c: char| c.is_ascii_digit())] {
        while let Some(at) = rest.find("Instant(").map(|at| at + 8) {
            trace.bytes(&rest.as_bytes()[..at]);
            let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
            let time: u64 = rest[at..at + digits].parse().unwrap_or(0);
            trace.num(match time {
                u64::MAX => 0,
                t if t > now + T_MIN => 1,
                t if t > now => 2,
                t if t + T_MIN > now => 3,
                _ => 4,
            });
            rest = &rest[at + digits..];
        }
        trace.bytes(rest.as_bytes());
    }
    trace.value()
}

impl World {
    fn new(assigned: bool, left: Bounds, mutant: Option<RaftMutant>) -> Self {
        let mut cluster = Cluster::new(plan(assigned), Mode { mutant, trace: false, ..Mode::default() });
        let group = usize::from(assigned);
        if assigned {
            for node in &mut cluster.nodes {
                (node.durable[SLOT], node.groups[SLOT]) = (None, None);
                node.deadlines[SLOT] = Instant::NEVER;
                node.disk.queue.clear();
            }
            let voters = (0..N).map(|n| replica(n, 0)).collect();
            let create =
                AssignCommand::Create { voters, leader: replica(0, 0), incarnation: cluster.nodes[0].incarnation() };
            cluster.nodes[AUTHORITY].controls = true;
            cluster.commands.push((group, create));
        }
        let mut world = Self { cluster, group, flight: Vec::new(), limits: left, left, applied: 0, digests: [0; N] };
        world.decide();
        world.collect();
        (0..N).for_each(|n| world.look(n));
        if left.led {
            world.settle_down();
        }
        world
    }

    /// n0 becomes leader, and everything that follows from that happens.
    fn settle_down(&mut self) {
        if self.group == SLOT {
            self.left.elections += 1;
            self.take(Choice::Fire(0));
        }
        loop {
            let waits = (0..N).find(|n| !self.cluster.nodes[*n].disk.queue.is_empty());
            let next = if self.flight.is_empty() { None } else { Some(Choice::Deliver(0)) };
            let Some(choice) = waits.map(|n| Choice::Sync(n as u8)).or(next) else { break };
            self.take(choice);
        }
        assert!(self.leads(0), "n0 leads");
        self.left = self.limits;
    }

    /// The authority applies what it was asked for, at once.
    fn decide(&mut self) {
        while let Some((group, command)) = self.cluster.commands.get(self.applied).cloned() {
            self.applied += 1;
            let old = self.cluster.nodes[AUTHORITY].slot.table.get(&group).cloned();
            let next = reduce(old.as_deref(), &command, self.applied as u64).map(Arc::new);
            let Some(a) = next.clone().or(old) else { continue };
            if next.is_some() {
                self.cluster.check_assignment(group, Some(&a), &command);
                self.cluster.ghost.table.insert(group, Arc::clone(&a));
                self.cluster.nodes[AUTHORITY].slot.table.insert(group, Arc::clone(&a));
            }
            self.tell(group, a);
        }
    }

    fn tell(&mut self, group: GroupNo, a: Arc<Assignment>) {
        let local = self.cluster.nodes[AUTHORITY].local(self.cluster.now);
        let mutant = self.cluster.mode.mutant;
        match self.cluster.nodes[AUTHORITY].controllers.get_mut(&group) {
            Some(c) => c.on_record(local, a),
            None => {
                let c = Controller::new(local, a, mutant);
                self.cluster.nodes[AUTHORITY].controllers.insert(group, c);
            }
        }
        self.cluster.drain_controller(AUTHORITY, group);
    }

    /// What was sent is under way; the world has no other clock.
    fn collect(&mut self) {
        self.cluster.drain_local();
        while let Some((_, event)) = self.cluster.heap.take() {
            let text = match &event {
                Event::Message { header, message } => format!("{}{message:?}", header.link),
                Event::Control { header, control } => {
                    let report = matches!(control, Control::Report(..));
                    if matches!(control, Control::Ping(_)) || report && header.link as usize % (N + 1) != AUTHORITY {
                        continue;
                    }
                    format!("{}{control:?}", header.link)
                }
                _ => continue,
            };
            let hash = digest(&text, self.cluster.now);
            // Two of a kind do what one does, twice.
            if !self.flight.iter().any(|(h, _)| *h == hash) {
                self.flight.push((hash, event));
            }
        }
        self.cluster.cover = Cover::default();
        let mut flight = std::mem::take(&mut self.flight);
        flight.retain(|(_, event)| !self.is_void(event));
        self.flight = flight;
    }

    /// Whatever happens, this will change nothing: its receiver is past it, durably.
    fn is_void(&self, event: &Event) -> bool {
        let Event::Message { message: m, .. } = event else { return false };
        let of = |r| {
            let n = super::node_of(r);
            self.cluster
                .nodes
                .get(n)
                .and_then(|x| Some((x.durable[self.group].as_ref()?, x.groups[self.group].as_ref()?)))
        };
        let Some((disk, live)) = of(m.to) else { return false };
        match &m.message {
            Message::PreVoteResp { next_epoch, granted: true, .. } => *next_epoch <= disk.epoch,
            Message::PreVoteResp { next_epoch, .. } => *next_epoch <= disk.epoch && m.epoch <= disk.epoch,
            Message::PreVoteReq { next_epoch, .. } => {
                // Its sender is past it, and would learn nothing.
                of(m.from).is_some_and(|(asked, _)| *next_epoch <= asked.epoch && disk.epoch <= asked.epoch)
            }
            Message::VoteResp { .. } if m.epoch == live.core.epoch() && disk.epoch == m.epoch => {
                live.core.role() != Role::Candidate
            }
            other => m.epoch < disk.epoch && !other.expects_answer(),
        }
    }

    /// Takes notice of how node `n` stands now.
    fn look(&mut self, n: NodeNo) {
        let node = &self.cluster.nodes[n];
        let g = self.group;
        let mut text = String::with_capacity(4_096);
        let core = node.groups[g].as_ref().map(|l| (l.generation, &l.core));
        write!(text, "{} {core:?} {:?} {:?}", node.incarnation, node.durable[g], node.disk.queue).expect("a string");
        self.digests[n] = digest(&text, self.cluster.now);
    }

    fn hash(&self) -> u64 {
        let mut trace = Trace::default();
        self.digests.iter().for_each(|d| trace.num(*d));
        // In whatever order they left.
        trace.num(self.flight.iter().fold(0, |sum: u64, (h, _)| sum.wrapping_add(h.wrapping_mul(h | 1))));
        let left = &self.left;
        trace.num(u64::from(left.entries) | u64::from(left.crashes) << 8 | u64::from(left.elections) << 16);
        trace.num(u64::from(left.ticks) | u64::from(left.reads) << 8);
        let mut text = String::with_capacity(1_024);
        write!(text, "{:?}", self.cluster.ghost.groups).expect("a string");
        if self.group != SLOT {
            write!(text, "{:?}", self.cluster.nodes[AUTHORITY].controllers).expect("a string");
        }
        trace.num(digest(&text, self.cluster.now));
        trace.value()
    }

    fn leads(&self, n: NodeNo) -> bool {
        self.cluster.nodes[n].groups[self.group].as_ref().is_some_and(|l| l.core.role() == Role::Leader)
    }

    fn choices(&self) -> Vec<Choice> {
        let mut all: Vec<Choice> = (0..self.flight.len()).map(|i| Choice::Deliver(i as u16)).collect();
        for n in 0..N {
            let node = &self.cluster.nodes[n];
            let writes = node.disk.queue.len();
            let has = node.groups[self.group].is_some();
            if writes > 0 {
                all.push(Choice::Sync(n as u8));
            }
            if self.left.crashes > 0 && has {
                all.extend((0..=writes).map(|kept| Choice::Crash(n as u8, kept as u8)));
            }
            // All nodes being equal, n0 is the first to stand; of two that follow it, n1.
            let first = self.group == SLOT && self.left.elections == self.limits.elections;
            let may_be_first = n == 0 || self.limits.led && n == 1;
            let timers = if self.leads(n) { self.left.ticks } else { self.left.ticks + self.left.elections };
            if node.deadlines[self.group] != Instant::NEVER && timers > 0 && (may_be_first || !first) {
                all.push(Choice::Fire(n as u8));
            }
            if self.left.entries > 0 && self.leads(n) {
                all.push(Choice::Propose(n as u8));
            }
            if self.left.reads > 0 && self.leads(n) {
                all.push(Choice::Read(n as u8));
            }
        }
        if self.group != SLOT && self.left.elections > 0 {
            all.push(Choice::Elect);
        }
        all
    }

    /// False: that goes beyond the bounds.
    fn take(&mut self, choice: Choice) -> bool {
        let g = self.group;
        let touched = match choice {
            Choice::Deliver(i) => {
                let (_, event) = self.flight.remove(usize::from(i));
                match event {
                    Event::Message { header, message } => {
                        let to = header.link as usize % self.cluster.plan.nodes;
                        self.cluster.arrive(header, message);
                        to
                    }
                    Event::Control { header, control } => {
                        let to = header.link as usize % self.cluster.plan.nodes;
                        self.cluster.control_arrives(header, control);
                        to
                    }
                    _ => return false,
                }
            }
            Choice::Sync(n) => {
                let n = usize::from(n);
                self.cluster.nodes[n].disk.syncing = 1;
                let life = self.cluster.nodes[n].life;
                self.cluster.synced(n, life);
                self.cluster.nodes[n].disk.syncing = 0;
                n
            }
            Choice::Fire(n) => {
                if !self.fire(usize::from(n)) {
                    return false;
                }
                usize::from(n)
            }
            Choice::Propose(n) => {
                self.left.entries -= 1;
                self.cluster.propose(usize::MAX, usize::from(n), g, 1);
                usize::from(n)
            }
            Choice::Read(n) => {
                self.left.reads -= 1;
                let op = self.cluster.operation(usize::MAX, usize::from(n), g, true, false, 0);
                self.cluster.step(usize::from(n), g, Input::Read { ctx: op });
                usize::from(n)
            }
            Choice::Crash(n, kept) => {
                self.left.crashes -= 1;
                self.crash(usize::from(n), usize::from(kept));
                usize::from(n)
            }
            Choice::Elect => {
                self.left.elections -= 1;
                let local = self.cluster.nodes[AUTHORITY].local(self.cluster.now);
                if let Some(c) = self.cluster.nodes[AUTHORITY].controllers.get_mut(&g) {
                    c.elect(local);
                }
                self.cluster.drain_controller(AUTHORITY, g);
                AUTHORITY
            }
        };
        self.decide();
        self.collect();
        let epoch = |n: &super::node::Node| n.groups[g].as_ref().map_or(0, |l| l.core.epoch().0);
        if self.cluster.nodes.iter().map(epoch).max() > Some(self.left.epochs) {
            return false;
        }
        if matches!(choice, Choice::Fire(_) | Choice::Crash(..)) {
            (0..N).for_each(|n| self.look(n));
        } else if touched < N {
            self.look(touched);
        }
        self.cluster.check_state_of(g);
        true
    }

    fn fire(&mut self, n: NodeNo) -> bool {
        let led = self.leads(n);
        let due = self.cluster.nodes[n].deadlines[self.group];
        self.cluster.now = self.cluster.now.max(self.cluster.nodes[n].world(due));
        self.cluster.step(n, self.group, Input::Time);
        let stands = |l: &super::node::Live| matches!(l.core.role(), Role::PreCandidate | Role::Candidate);
        let stood = !led && self.cluster.nodes[n].groups[self.group].as_ref().is_some_and(stands);
        let budget = if stood { &mut self.left.elections } else { &mut self.left.ticks };
        let fits = *budget > 0;
        *budget = budget.saturating_sub(1);
        fits
    }

    fn crash(&mut self, n: NodeNo, kept: usize) {
        let links = self.cluster.links.clone();
        let node = &mut self.cluster.nodes[n];
        let writes = std::mem::take(&mut node.disk.queue);
        for w in writes.into_iter().take(kept) {
            if let Some(d) = node.durable[w.group].as_mut().filter(|d| d.generation == w.generation) {
                d.apply(w.ops);
            }
        }
        self.cluster.crash(n);
        self.cluster.links = links;
        self.cluster.start(n);
        if self.group != SLOT {
            // A node tells the slot's leader which process it is.
            self.cluster.nodes[AUTHORITY].heard[n] = (self.cluster.now, self.cluster.nodes[n].incarnation);
        }
    }

    fn told(&self, choice: Choice) -> String {
        match choice {
            Choice::Deliver(i) => match &self.flight[usize::from(i)].1 {
                Event::Message { message, .. } => {
                    let (from, to) = (super::node_of(message.from), super::node_of(message.to));
                    format!("n{to} <- n{from} {}", super::record::told(message))
                }
                Event::Control { header, control } => {
                    let to = header.link as usize % self.cluster.plan.nodes;
                    let what: String = format!("{control:?}").chars().take(70).collect();
                    format!("n{to} <- {what}")
                }
                _ => String::new(),
            },
            Choice::Sync(n) => format!("n{n} its oldest write is durable"),
            Choice::Fire(n) => format!("n{n} its timer fires"),
            Choice::Propose(n) => format!("n{n} an append"),
            Choice::Read(n) => format!("n{n} a read"),
            Choice::Crash(n, kept) => format!("n{n} dies, {kept} writes in flight survive, and starts again"),
            Choice::Elect => "the slot elects".to_owned(),
        }
    }
}

/// Looks at every state within the bounds, or at `most` of them, breadth first.
#[must_use]
pub fn search(assigned: bool, bounds: Bounds, mutant: Option<RaftMutant>, most: u64) -> Seen {
    let root = World::new(assigned, bounds, mutant);
    let start = root.clone();
    let mut known: HashSet<u64> = HashSet::from([root.hash()]);
    // How each state was reached: from which one, by which choice.
    let mut paths: Vec<(u32, Choice)> = vec![(0, Choice::Elect)];
    let mut waiting: VecDeque<(u32, u32, World)> = VecDeque::from([(0, 0, root)]);
    let mut seen = Seen { states: 1, complete: true, ..Seen::default() };
    while let Some((id, depth, world)) = if waiting.len() > WAITING { waiting.pop_back() } else { waiting.pop_front() }
    {
        seen.depth = seen.depth.max(depth);
        for choice in world.choices() {
            let mut next = world.clone();
            seen.steps += 1;
            if !next.take(choice) {
                continue;
            }
            if let Some(v) = next.cluster.violations.first() {
                paths.push((id, choice));
                seen.violation = Some((v.clone(), retell(start, &paths)));
                return seen;
            }
            if !known.insert(next.hash()) {
                continue;
            }
            if seen.states >= most {
                seen.complete = false;
                return seen;
            }
            seen.states += 1;
            paths.push((id, choice));
            waiting.push_back((paths.len() as u32 - 1, depth + 1, next));
        }
    }
    seen
}

/// The choices that led to the last path.
fn retell(mut world: World, paths: &[(u32, Choice)]) -> Vec<String> {
    let mut choices = Vec::new();
    let mut at = paths.len() - 1;
    while at > 0 {
        choices.push(paths[at].1);
        at = paths[at].0 as usize;
    }
    let mut told = Vec::new();
    for choice in choices.into_iter().rev() {
        told.push(world.told(choice));
        world.take(choice);
    }
    told
}
