//! Steps of replicas: what enters them, and where their outputs go.

use super::cluster::{Cluster, Control, Event, Header};
use super::disk::{Durable, Write};
use super::net::Arrivals;
use super::node::Live;
use super::slot::{Payload, SlotState};
use super::{GroupNo, MS, NodeNo, SLOT, node_of};
use std::sync::Arc;
use wukong_core::cluster::control::{Controller, FenceAnswer, Step};
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Bounds, GroupConfig, GroupCore, Input, Mode, Output, Role, Timing};
use wukong_core::raft::message::{Body, Envelope, Message};
use wukong_core::store::rows::Assignment;

impl Cluster {
    /// One input of one replica, and everything that it causes at once.
    pub fn step(&mut self, n: NodeNo, g: GroupNo, input: Input) {
        self.one(n, g, input);
        self.drain_local();
    }

    /// What steps caused on the same node.
    pub fn drain_local(&mut self) {
        let before = self.handled;
        while let Some((n, g, cause, input)) = self.local.pop_front() {
            if self.handled > before + 100_000 {
                self.local.clear();
                return self.violation("storm", format!("n{n} g{g} never comes to rest: {input:?}"));
            }
            if self.has(n, g) {
                self.because(cause);
                self.one(n, g, input);
                self.arm(n);
            }
        }
    }

    /// Input of a replica on the same node, after this step.
    pub fn later(&mut self, n: NodeNo, g: GroupNo, input: Input) {
        let cause = self.cause();
        self.local.push_back((n, g, cause, input));
    }

    fn one(&mut self, n: NodeNo, g: GroupNo, input: Input) {
        if self.nodes[n].groups[g].is_none() {
            return;
        }
        self.record_input(n, g, &input);
        let node = &mut self.nodes[n];
        let local = node.local(self.now);
        let Some(live) = node.groups[g].as_mut() else { return };
        self.handled += 1;
        if self.mode.trace {
            self.trace.num(self.now ^ (n as u64) << 56 ^ (g as u64) << 48);
        }
        let floor = live.core.hw();
        live.floor = floor;
        live.led = live.core.is_leader().then(|| live.core.epoch());
        if self.mode.oracles && g == SLOT {
            live.members = Arc::clone(live.core.members());
        }
        self.answers_fetch = matches!(&input, Input::Message(m) if matches!(m.message, Message::Fetch(_)));
        live.core.step(local, input);
        if live.core.is_leader() {
            // Whoever takes what is committed takes it at once.
            live.core.distribute(live.core.hw());
        }
        node.deadlines[g] = live.core.deadline();
        self.record_change(n, g);
        while let Some(output) = self.nodes[n].groups[g].as_mut().and_then(|l| l.core.poll_output()) {
            self.output(n, g, output);
        }
        if self.mode.oracles {
            self.check_step(n, g);
        }
    }

    fn output(&mut self, n: NodeNo, g: GroupNo, output: Output) {
        if self.printing() && !matches!(output, Output::Persist { .. }) {
            self.say(n, &format_args!("g{g} {}", super::run::brief(&output)));
        }
        self.record_output(n, g, &output);
        if self.mode.oracles {
            self.check_output(n, g, &output);
        }
        match output {
            Output::Send(m) => self.post(n, g, m),
            Output::Persist { token, ops } => {
                let Some(live) = self.nodes[n].groups[g].as_mut() else { return };
                for op in &ops {
                    live.items.apply(op);
                }
                let generation = live.generation;
                self.nodes[n].disk.queue.push_back(Write { group: g, generation, token, ops });
                self.sync(n);
            }
            Output::ReadLog { request, from, to, max_bytes } => {
                let fails = self.nodes[n].disk.read_faults;
                let entries = if self.disk.chance(fails) {
                    self.cover.hit("read fault");
                    None
                } else {
                    self.nodes[n].groups[g].as_ref().map(|l| l.items.range(from, to, max_bytes))
                };
                self.later(n, g, Input::LogRead { request, entries });
            }
            Output::Committed { hw } => self.committed(n, g, hw),
            Output::Outcome { ctx, outcome } => self.outcome(n, g, ctx, outcome),
            Output::ReadReady { ctx, index } => self.read_ready(n, g, ctx, index.map_err(|_| ())),
            Output::Role { role, .. } => self.role(n, g, role),
            Output::ReadSnapshot { to, id, offset } => {
                // A few chunks, so that transfers are interrupted; the content is looked up by the id at the end.
                let part = self.snapshots.contains_key(&id).then(|| {
                    let last = offset + 8 >= SNAPSHOT_BYTES;
                    (bytes::Bytes::from_static(&[0; 8]), last)
                });
                self.later(n, g, Input::SnapshotPart { to, id, offset, part });
            }
            Output::WriteSnapshot { snapshot, offset, last, .. } => {
                if offset > 0 {
                    self.cover.hit("snapshot resumed");
                }
                let corrupt = last && self.nodes[n].disk.read_faults > 0 && self.disk.chance(300);
                let outcome = if corrupt { Err(()) } else { Ok(last) };
                self.later(n, g, Input::SnapshotWritten { id: snapshot.id, outcome });
            }
            Output::Restore { snapshot } => {
                self.cover.hit("rebase");
                if g == SLOT
                    && let Some(state) = self.snapshots.get(&snapshot.id)
                {
                    let state = SlotState::clone(state);
                    self.nodes[n].slot = state;
                }
                self.later(n, g, Input::Restored);
            }
            Output::Report(report) => {
                let me = self.nodes[n].me();
                self.tell_slot(n, g, Control::Report(report, me));
            }
            Output::Settled { .. } => self.cover.hit("settled"),
            Output::SnapshotWanted { .. } => self.cover.hit("snapshot wanted"),
            Output::Alarm(_) => {}
        }
    }

    fn post(&mut self, n: NodeNo, g: GroupNo, m: Envelope) {
        let to = node_of(m.to);
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        let generation = live.generation;
        self.post_message(n, to, g, generation, m);
    }

    fn post_message(&mut self, from: NodeNo, to: NodeNo, g: GroupNo, generation: u64, message: Envelope) {
        let (header, arrivals) = self.route(from, to, g, generation);
        let Some(at) = arrivals.first else { return };
        let message = Box::new(message);
        let copy = arrivals.second.map(|at| (at, message.clone()));
        self.heap.add(at, Event::Message { header, message });
        if let Some((at, message)) = copy {
            self.heap.add(at, Event::Message { header, message });
        }
    }

    /// When what leaves now arrives, if it does, and under which header.
    fn route(&mut self, from: NodeNo, to: NodeNo, g: GroupNo, generation: u64) -> (Header, Arrivals) {
        let link = self.link(from, to);
        let arrivals = if from == to {
            Arrivals { first: Some(self.now + 1_000), second: None }
        } else {
            self.links[link].send(self.now, &self.weather, &mut self.net)
        };
        let connection = self.links[link].connection;
        let header = Header { link: link as u32, connection, group: g as u16, cause: self.cause(), generation };
        (header, arrivals)
    }

    pub fn arrive(&mut self, header: Header, message: Box<Envelope>) {
        let Header { connection, generation, cause, .. } = header;
        let (link, g) = (header.link as usize, usize::from(header.group));
        let n = link % self.plan.nodes;
        if self.links[link].connection != connection || !self.nodes[n].alive {
            return;
        }
        if self.nodes[n].paused_until > self.now {
            return self.heap.add(self.nodes[n].paused_until, Event::Message { header, message });
        }
        self.because(cause);
        if let Message::FenceResp { durable, damaged, .. } = message.message
            && g != SLOT
        {
            let answer = FenceAnswer {
                from: message.from,
                incarnation: message.from_incarnation,
                epoch: message.epoch,
                durable,
                damaged,
            };
            self.record_control(n, g, &answer);
            if let Some(c) = self.nodes[n].controllers.get_mut(&g)
                && c.assignment.generation == generation
            {
                c.on_fence_answer(answer);
                self.drain_controller(n, g);
            }
            return;
        }
        if matches!(message.message, Message::Fence | Message::Begin { .. }) {
            self.ensure(n, g, generation);
        }
        let shared = self.mode.mutant == Some(wukong_core::mutants::RaftMutant::GenerationShared);
        let current = self.nodes[n].groups[g].as_ref().is_some_and(|l| l.generation == generation || shared);
        if current {
            if matches!(&message.message, Message::Items { items, .. } if !items.is_empty()) {
                self.with_entries += 1;
            }
            let for_me = message.to == self.nodes[n].me();
            let leads = for_me
                && matches!(message.message, Message::Begin { .. } | Message::Beat { .. } | Message::Items { .. });
            let epoch = message.epoch;
            self.step(n, g, Input::Message(*message));
            self.arm(n);
            let stubborn = |l: &Live| l.core.epoch() == epoch && l.core.role() == Role::Candidate;
            if leads && self.mode.oracles && self.nodes[n].groups[g].as_ref().is_some_and(stubborn) {
                self.violation("liveness", format!("n{n} g{g} goes on campaigning in an epoch that has a leader"));
            }
        }
    }

    /// A channel's replica is made when something of its generation is first heard; an older generation goes.
    pub fn ensure(&mut self, n: NodeNo, g: GroupNo, generation: u64) {
        let known = self.nodes[n].groups[g].as_ref().map(|l| l.generation);
        if g == SLOT || known.is_some_and(|k| k >= generation) {
            return;
        }
        let shared = self.mode.mutant == Some(wukong_core::mutants::RaftMutant::GenerationShared);
        if known.is_some() && shared {
            return;
        }
        let mut durable = Durable::new(generation, Arc::new(Config::default()));
        let live = self.revive(n, g, &mut durable);
        self.nodes[n].disk.queue.retain(|w| w.group != g);
        let syncing = self.nodes[n].disk.syncing.min(self.nodes[n].disk.queue.len());
        self.nodes[n].disk.syncing = syncing;
        self.nodes[n].durable[g] = Some(durable);
        self.nodes[n].deadlines[g] = live.core.deadline();
        self.nodes[n].groups[g] = Some(live);
        self.record_birth(n, g, "is made");
    }

    /// A replica from what the disk holds.
    pub fn revive(&mut self, n: NodeNo, g: GroupNo, durable: &mut Durable) -> Live {
        let node = &self.nodes[n];
        let timing = Timing { settle_idle: std::time::Duration::from_millis(self.plan.settle), ..Timing::default() };
        let config = GroupConfig {
            me: node.me(),
            incarnation: node.incarnation(),
            mode: if g == SLOT { Mode::Elected } else { Mode::Assigned },
            timing,
            bounds: Bounds { fetch: 2_000, tail: 4_000, uncommitted: 60_000, catch_up: CATCH_UP, ..Bounds::default() },
            lease: self.plan.lease && g == SLOT,
            preferred: n == 0,
            seed: self.plan.seed ^ (n as u64) << 40 ^ (g as u64) << 32 ^ node.incarnation,
            mutant: self.mode.mutant,
        };
        let stored = durable.recover();
        let hw = stored.hw;
        let core = GroupCore::new(config, stored, node.local(self.now));
        Live {
            generation: durable.generation,
            core,
            items: durable.items.clone(),
            hw,
            floor: hw,
            led: None,
            members: Arc::default(),
            alone_since: None,
            seen: 0,
            cut_in: None,
        }
    }

    /// Starts a batch of the node's disk, unless one runs.
    pub fn sync(&mut self, n: NodeNo) {
        let disk = &mut self.nodes[n].disk;
        if disk.syncing > 0 || disk.queue.is_empty() {
            return;
        }
        disk.syncing = disk.queue.len();
        let takes = self.disk.spread(self.plan.sync * 1_000) + disk.slow;
        let life = self.nodes[n].life;
        self.heap.add(self.now + takes, Event::Synced { node: n as u16, life });
    }

    pub fn synced(&mut self, n: NodeNo, life: u32) {
        if !self.nodes[n].alive || self.nodes[n].life != life {
            return;
        }
        if self.deferred(n, || Event::Synced { node: n as u16, life }) {
            return;
        }
        let count = std::mem::take(&mut self.nodes[n].disk.syncing);
        if std::mem::take(&mut self.nodes[n].disk.fail_next) {
            return self.sync_failed(n);
        }
        // One completion for each group: that of its last write speaks for all before it.
        let mut done = std::mem::take(&mut self.done);
        done.clear();
        done.resize(self.nodes[n].groups.len(), None);
        let node = &mut self.nodes[n];
        for w in node.disk.queue.drain(..count) {
            if let Some(d) = node.durable[w.group].as_mut().filter(|d| d.generation == w.generation) {
                d.apply(w.ops);
            }
            done[w.group] = Some((w.generation, w.token));
        }
        for (g, last) in done.iter().enumerate() {
            let Some((generation, token)) = *last else { continue };
            let current = self.nodes[n].groups[g].as_ref().is_some_and(|l| l.generation == generation);
            if current && self.nodes[n].life == life {
                self.because_written(n, g, token);
                self.step(n, g, Input::Persisted(token));
            }
        }
        self.done = done;
        self.sync(n);
        self.arm(n);
    }

    /// Entries are committed here: the slot's are applied.
    pub fn committed(&mut self, n: NodeNo, g: GroupNo, hw: u64) {
        if g != SLOT {
            return;
        }
        let mut changed = Vec::new();
        for index in self.nodes[n].slot.applied + 1..=hw {
            let node = &mut self.nodes[n];
            let Some(live) = node.groups[SLOT].as_ref() else { return };
            let Some(entry) = live.items.get(index) else { return };
            let payload = match &entry.body {
                Body::Data(bytes) => Payload::parse(bytes),
                Body::Config(_) => None,
            };
            let Some(group) = node.slot.apply(index, payload, &self.commands) else { continue };
            changed.push(group);
            if self.mode.oracles
                && index > self.ghost.applied
                && let Some(Payload::Command(number)) = payload
            {
                let command = self.commands[number as usize].1.clone();
                let a = self.nodes[n].slot.table.get(&group).cloned();
                self.check_assignment(group, a.as_deref(), &command);
                if let Some(a) = a {
                    self.ghost.table.insert(group, a);
                }
            }
            self.ghost.applied = self.ghost.applied.max(index);
        }
        if self.mode.oracles {
            let (applied, hash) = (self.nodes[n].slot.applied, self.nodes[n].slot.hash);
            self.check_state(n, applied, hash);
        }
        let leads = self.nodes[n].leads_slot();
        for group in changed {
            let Some(a) = self.nodes[n].slot.table.get(&group).cloned() else { continue };
            if leads {
                let local = self.nodes[n].local(self.now);
                if let Some(c) = self.nodes[n].controllers.get_mut(&group) {
                    c.on_record(local, a);
                } else if self.nodes[n].controls {
                    self.nodes[n].controllers.insert(group, Controller::new(local, a, self.mode.mutant));
                }
                self.drain_controller(n, group);
            }
        }
        self.take_charge(n);
    }

    /// A slot leader that has applied everything takes charge of the channels.
    fn take_charge(&mut self, n: NodeNo) {
        let leads = self.nodes[n].leads_slot();
        if !leads || self.nodes[n].controls {
            return;
        }
        self.nodes[n].controls = true;
        let now = self.now;
        self.nodes[n].heard.iter_mut().for_each(|(at, _)| *at = now);
        let local = self.nodes[n].local(now);
        let table: Vec<(GroupNo, Arc<Assignment>)> =
            self.nodes[n].slot.table.iter().map(|(g, a)| (*g, Arc::clone(a))).collect();
        for (g, a) in table {
            if a.leader.is_none() {
                self.cover.hit("slot leader changed while electing");
            }
            self.nodes[n].controllers.insert(g, Controller::new(local, a, self.mode.mutant));
            self.drain_controller(n, g);
        }
        self.create_missing(n);
    }

    fn role(&mut self, n: NodeNo, g: GroupNo, role: Role) {
        if role == Role::Follower
            && let Some(d) = self.nodes[n].durable[g].as_mut()
            && std::mem::take(&mut d.suspect)
        {
            self.cover.hit("repaired");
        }
        if g == SLOT && role != Role::Leader && self.nodes[n].controls {
            self.nodes[n].controls = false;
            self.nodes[n].controllers.clear();
        }
    }

    pub fn controllers_time(&mut self, n: NodeNo) {
        let local = self.nodes[n].local(self.now);
        let due: Vec<GroupNo> =
            self.nodes[n].controllers.iter().filter(|(_, c)| c.deadline() <= local).map(|(g, _)| *g).collect();
        for g in due {
            if let Some(c) = self.nodes[n].controllers.get_mut(&g) {
                c.on_time(local);
            }
            self.drain_controller(n, g);
        }
    }

    pub fn drain_controller(&mut self, n: NodeNo, g: GroupNo) {
        while let Some(step) = self.nodes[n].controllers.get_mut(&g).and_then(Controller::poll) {
            let Some(c) = self.nodes[n].controllers.get(&g) else { return };
            let generation = c.assignment.generation;
            match step {
                Step::Propose(command) => self.propose_command(n, g, command),
                Step::Fence { to, epoch } => {
                    self.cover.hit("fence");
                    let message = Envelope {
                        from: self.nodes[n].me(),
                        to,
                        from_incarnation: self.nodes[n].incarnation(),
                        epoch,
                        message: Message::Fence,
                    };
                    self.post_message(n, node_of(to), g, generation, message);
                }
                Step::Assign { to, assignment } => {
                    self.send_control(n, node_of(to), g, generation, &Control::Assign(assignment));
                }
                Step::Handover { leader, target } => {
                    self.send_control(n, node_of(leader), g, generation, &Control::Handover(target));
                }
            }
        }
        self.arm(n);
    }

    pub fn send_control(&mut self, from: NodeNo, to: NodeNo, g: GroupNo, generation: u64, control: &Control) {
        let (header, arrivals) = self.route(from, to, g, generation);
        for at in [arrivals.first, arrivals.second].into_iter().flatten() {
            self.heap.add(at, Event::Control { header, control: control.clone() });
        }
    }

    /// To whoever leads the slot.
    fn tell_slot(&mut self, n: NodeNo, g: GroupNo, control: Control) {
        // A node outside the slot's members does not know who leads it: it tells all.
        let generation = self.nodes[n].groups[g].as_ref().map_or(0, |l| l.generation);
        for to in 0..self.plan.nodes {
            self.send_control(n, to, g, generation, &control);
        }
    }

    pub fn control_arrives(&mut self, header: Header, control: Control) {
        let Header { connection, generation, cause, .. } = header;
        let (link, g) = (header.link as usize, usize::from(header.group));
        let n = link % self.plan.nodes;
        if self.links[link].connection != connection || !self.nodes[n].alive {
            return;
        }
        if self.nodes[n].paused_until > self.now {
            return self.heap.add(self.nodes[n].paused_until, Event::Control { header, control });
        }
        self.because(cause);
        let local = self.nodes[n].local(self.now);
        match control {
            Control::Assign(a) => {
                let me = self.nodes[n].me();
                let member = a.voters.contains(&me) || a.voters_out.contains(&me) || a.learners.contains(&me);
                if member {
                    self.ensure(n, g, generation);
                }
                if self.nodes[n].groups[g].as_ref().is_some_and(|l| l.generation == generation) {
                    self.step(n, g, Input::Assign(a));
                    self.arm(n);
                }
            }
            Control::Handover(target) => {
                if self.nodes[n].groups[g].as_ref().is_some_and(|l| l.generation == generation) {
                    self.step(n, g, Input::Handover { target });
                    self.arm(n);
                }
            }
            Control::Report(report, from) => {
                if self.nodes[n].controls {
                    self.record_control(n, g, &report);
                }
                let lives: Vec<(Replica, wukong_core::ids::Incarnation)> = self.nodes[n]
                    .heard
                    .iter()
                    .enumerate()
                    .map(|(i, (_, inc))| (self.nodes[i].me(), wukong_core::ids::Incarnation(*inc)))
                    .collect();
                if let Some(c) = self.nodes[n].controllers.get_mut(&g)
                    && c.assignment.generation == generation
                {
                    let incarnation = |r| lives.iter().find(|(x, inc)| *x == r && inc.0 > 0).map(|(_, inc)| *inc);
                    c.on_report(local, from, incarnation, report);
                    self.drain_controller(n, g);
                }
            }
            Control::Ping(incarnation) => {
                let from = link / self.plan.nodes;
                self.nodes[n].heard[from] = (self.now, incarnation.0);
                self.watch_leaders(n);
            }
        }
    }

    /// The slot leader looks after the channels whose leader is silent, or is another process now.
    fn watch_leaders(&mut self, n: NodeNo) {
        if !self.nodes[n].controls {
            return;
        }
        let local = self.nodes[n].local(self.now);
        let channels: Vec<GroupNo> = self.nodes[n].controllers.keys().copied().collect();
        for g in channels {
            let node = &self.nodes[n];
            let Some(a) = node.controllers.get(&g).map(|c| Arc::clone(&c.assignment)) else { continue };
            let Some((leader, incarnation)) = a.leader else { continue };
            let l = node_of(leader);
            let (at, seen) = node.heard[l];
            let gone = self.nodes[l].me() != leader || (seen > 0 && seen > incarnation.0) || self.now - at > 1_500 * MS;
            if gone {
                if let Some(c) = self.nodes[n].controllers.get_mut(&g) {
                    c.elect(local);
                }
                self.drain_controller(n, g);
            }
        }
    }

    pub fn ping(&mut self, n: NodeNo, life: u32) {
        if !self.nodes[n].alive || self.nodes[n].life != life {
            return;
        }
        if self.deferred(n, || Event::Ping { node: n as u16, life }) {
            return;
        }
        let incarnation = self.nodes[n].incarnation();
        self.tell_slot(n, SLOT, Control::Ping(incarnation));
        self.heap.add(self.now + 300 * MS, Event::Ping { node: n as u16, life });
    }
}

/// How many entries a learner may lack when it becomes a voter.
pub const CATCH_UP: u64 = 8;

/// Size that a snapshot pretends to have: four chunks.
pub const SNAPSHOT_BYTES: u64 = 32;
