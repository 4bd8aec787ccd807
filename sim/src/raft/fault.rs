//! Faults: how episodes begin and end, and how processes die and start again.

use super::cluster::{Cluster, Event};
use super::disk::Durable;
use super::plan::Kind;
use super::slot::SlotState;
use super::{GroupNo, MS, NodeNo, SLOT};
use std::sync::Arc;
use wukong_core::cluster::control::Wish;
use wukong_core::ids::Position;
use wukong_core::raft::config::{Change, Config, Replica};
use wukong_core::raft::core::{Input, Role};
use wukong_core::raft::message::Snapshot;
use wukong_core::time::Instant;

impl Cluster {
    pub fn start(&mut self, n: NodeNo) {
        if self.nodes[n].alive || self.nodes[n].down > 0 {
            return;
        }
        let node = &mut self.nodes[n];
        node.alive = true;
        node.incarnation += 1;
        node.timer_at = u64::MAX;
        node.timer_for = Instant::NEVER;
        node.controls = false;
        node.controllers.clear();
        node.disk.queue.clear();
        node.disk.syncing = 0;
        node.disk.fail_next = false;
        let snapshot = node.durable[SLOT].as_ref().and_then(|d| d.snapshot.as_ref()).map(|s| s.id);
        let base = snapshot.and_then(|id| self.snapshots.get(&id));
        self.nodes[n].slot = base.map_or_else(SlotState::default, |s| SlotState::clone(s));
        for g in 0..=self.plan.channels {
            let Some(mut durable) = self.nodes[n].durable[g].take() else { continue };
            let was = durable.suspect;
            let live = self.revive(n, g, &mut durable);
            if durable.suspect && !was {
                self.cover.hit("damaged");
            }
            self.nodes[n].durable[g] = Some(durable);
            self.nodes[n].deadlines[g] = live.core.deadline();
            self.nodes[n].groups[g] = Some(live);
            self.record_birth(n, g, "starts again");
        }
        let known = self.nodes[n].groups[SLOT].as_ref().map_or(0, |l| l.core.hw());
        self.committed(n, SLOT, known);
        self.say(n, &format_args!("starts, incarnation {}", self.nodes[n].incarnation));
        let life = self.nodes[n].life;
        self.heap.add(self.now + 20 * MS, Event::Ping { node: n as u16, life });
        self.arm(n);
        for g in 0..=self.plan.channels {
            if self.has(n, g) {
                self.step(n, g, Input::Time);
            }
        }
        self.arm(n);
        self.peer_up(n);
    }

    /// The process ends. Of the writes in flight a prefix survives.
    pub fn crash(&mut self, n: NodeNo) {
        if !self.nodes[n].alive {
            return;
        }
        self.cover.hit("crash");
        self.record_node(n, "crashes");
        self.say(n, &"crashes");
        let node = &mut self.nodes[n];
        node.alive = false;
        node.life += 1;
        node.paused_until = 0;
        let writes = std::mem::take(&mut node.disk.queue);
        node.disk.syncing = 0;
        let kept = self.disk.index(writes.len() + 1);
        if kept < writes.len() {
            self.cover.hit("crash lost writes");
        }
        if kept > 0 {
            self.cover.hit("crash kept unsynced writes");
        }
        let node = &mut self.nodes[n];
        for w in writes.into_iter().take(kept) {
            if let Some(d) = node.durable[w.group].as_mut().filter(|d| d.generation == w.generation) {
                d.apply(w.ops);
            }
        }
        node.groups.iter_mut().for_each(|g| *g = None);
        node.deadlines.fill(Instant::NEVER);
        node.controllers.clear();
        node.controls = false;
        // What it sent and what was on its way to it is gone with its connections.
        for other in 0..self.plan.nodes {
            for link in [self.link(n, other), self.link(other, n)] {
                self.links[link].connection += u32::from(self.net.chance(500));
            }
        }
    }

    /// A sync failed: nothing of the batch is known to be there, and the process has to end.
    pub fn sync_failed(&mut self, n: NodeNo) {
        self.cover.hit("sync failed");
        let batch: Vec<_> = self.nodes[n].disk.queue.drain(..).collect();
        for w in batch {
            let current = self.nodes[n].groups[w.group].as_ref().is_some_and(|l| l.generation == w.generation);
            if current {
                self.step(n, w.group, Input::PersistFailed(w.token));
            }
        }
        let failed = self.nodes[n].groups.iter().flatten().any(|l| l.core.role() == Role::Failed);
        if failed {
            self.crash(n);
            self.heap.add(self.now + 300 * MS, Event::Resume { node: n as u16 });
        }
    }

    /// A pause is over, or a node that fell by itself starts again.
    pub fn resume(&mut self, n: NodeNo) {
        if self.nodes[n].alive {
            self.arm(n);
        } else {
            self.start(n);
        }
    }

    /// Who was slow, silent or cut off is heard again.
    fn are_up(&mut self, nodes: Option<Vec<NodeNo>>) {
        for n in nodes.unwrap_or_else(|| (0..self.plan.nodes).collect()) {
            if self.nodes[n].alive {
                self.peer_up(n);
            }
        }
    }

    /// Others learn that `n` can be reached.
    fn peer_up(&mut self, n: NodeNo) {
        let peer = self.nodes[n].me();
        for other in (0..self.plan.nodes).filter(|o| *o != n) {
            if self.links[self.link(n, other)].is_cut() || self.links[self.link(other, n)].is_cut() {
                continue;
            }
            for g in 0..=self.plan.channels {
                if self.has(other, g) && self.nodes[other].paused_until <= self.now {
                    let knows = |l: &super::node::Live| l.core.is_settled() && l.core.peer_settled(peer);
                    let settled = self.nodes[other].groups[g].as_ref().is_some_and(|l| l.core.is_settled());
                    let aware = self.nodes[other].groups[g].as_ref().is_some_and(knows);
                    self.step(other, g, Input::PeerUp(peer));
                    if settled && self.nodes[other].groups[g].as_ref().is_some_and(|l| !l.core.is_settled()) {
                        self.woken(other, g, peer, aware);
                    }
                }
            }
            self.arm(other);
        }
    }

    /// M35: only what lacks something is woken.
    fn woken(&mut self, n: NodeNo, g: GroupNo, peer: Replica, aware: bool) {
        self.cover.hit("woken");
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        let end = live.core.log().end();
        let complete = self.place(peer).and_then(|p| self.nodes[p].durable[g].as_ref()).is_some_and(|d| {
            d.generation == live.generation && d.items.log.end() == end && d.epoch == live.core.epoch()
        });
        let known = live.core.peer_durable(peer) == Some(end);
        if complete && known && aware && self.mode.oracles {
            self.violation("I30", format!("n{n} wakes g{g} for {peer:?}, which has everything"));
        }
    }

    pub fn begin_episode(&mut self, e: usize) {
        let episode = self.episodes[e];
        if self.healing || !self.allowed(episode.kind) {
            return;
        }
        self.active[e] = true;
        self.record_world(&format_args!("begins: {}", super::text::kind_text(episode.kind)));
        self.say(99, &format_args!("begins: {}", super::text::kind_text(episode.kind)));
        let end = (episode.at + episode.lasts).min(self.plan.lasts) * MS;
        self.heap.add(end.max(self.now), Event::End(e as u32));
        match episode.kind {
            Kind::Reset(n) => self.reset(n),
            Kind::Stall(a, b) => {
                for link in [self.link(a, b), self.link(b, a)] {
                    self.links[link].stalled_until = end;
                }
            }
            Kind::Crash(n) => self.take_down(n),
            Kind::Blackout => (0..self.plan.nodes).for_each(|n| self.take_down(n)),
            Kind::Pause(n) => {
                self.cover.hit("paused");
                // A shorter pause within a longer one ends nothing: what waits was put off to the end of the longer one.
                let until = self.nodes[n].paused_until.max(end);
                self.nodes[n].paused_until = until;
                self.heap.add(end, Event::Resume { node: n as u16 });
            }
            Kind::FailSync(n) => self.nodes[n].disk.fail_next = true,
            Kind::ReadFaults(n, per) => self.nodes[n].disk.read_faults = per,
            Kind::SlowDisk(n, ms) => self.nodes[n].disk.slow = ms * MS,
            Kind::Wipe(n) => self.wipe(n),
            Kind::Damage(n) => self.damage(n),
            Kind::Transfer(n) => self.transfer(n),
            Kind::Members(n) => self.retarget(SLOT, n),
            Kind::Voters(c, n) => self.retarget(c, n),
            Kind::Leader(c, n) => self.wish(c, |me| Wish::Leader(me[n])),
            Kind::Elect(c) => self.elect_anyway(c),
            Kind::Recreate(c) => self.recreate(c),
            Kind::Compact => self.compact(),
            Kind::Idle => self.idle += 1,
            Kind::Cut(..) | Kind::OneWay(..) | Kind::Isolate(_) | Kind::Split(_) => self.cut(episode.kind, true),
            Kind::SlowNet(_) | Kind::Datagrams(_) => self.weigh(),
        }
    }

    pub fn end_episode(&mut self, e: usize) {
        if !std::mem::take(&mut self.active[e]) {
            return;
        }
        let kind = self.episodes[e].kind;
        self.record_world(&format_args!("ends: {}", super::text::kind_text(kind)));
        self.say(99, &format_args!("ends: {}", super::text::kind_text(kind)));
        match kind {
            Kind::Crash(n) | Kind::Wipe(n) | Kind::Damage(n) => self.bring_up(n),
            Kind::Blackout => (0..self.plan.nodes).for_each(|n| self.bring_up(n)),
            Kind::FailSync(n) => self.nodes[n].disk.fail_next = false,
            Kind::ReadFaults(n, _) => self.nodes[n].disk.read_faults = 0,
            Kind::SlowDisk(n, _) => self.nodes[n].disk.slow = 0,
            Kind::Idle => self.idle -= 1,
            Kind::Cut(..) | Kind::OneWay(..) | Kind::Isolate(_) | Kind::Split(_) => {
                self.cut(kind, false);
                self.are_up(super::text::touches(kind));
            }
            Kind::SlowNet(_) | Kind::Datagrams(_) => {
                self.weigh();
                self.are_up(None);
            }
            Kind::Stall(..) | Kind::Pause(_) => self.are_up(super::text::touches(kind)),
            _ => {}
        }
    }

    /// The law: never is so much lost at once that a quorum of some group could lack what was acknowledged.
    fn allowed(&self, kind: Kind) -> bool {
        let (Kind::Wipe(n) | Kind::Damage(n)) = kind else { return true };
        let bad = |r: &Replica| {
            self.place(*r).is_none_or(|p| {
                p == n || self.nodes[p].durable.iter().flatten().any(|d| d.suspect || d.damaged_at.is_some())
            })
        };
        let minority = |set: &[Replica]| set.iter().filter(|r| bad(r)).count() * 2 < set.len().max(1);
        let config_ok = |c: &Config| minority(&c.voters) && (c.voters_out.is_empty() || minority(&c.voters_out));
        let slots = self.nodes.iter().filter_map(|x| x.groups[SLOT].as_ref()).all(|l| config_ok(l.core.members()));
        let channels = self
            .nodes
            .iter()
            .flat_map(|x| x.slot.table.values())
            .all(|a| minority(&a.voters) && (a.voters_out.is_empty() || minority(&a.voters_out)));
        // A node that is down may hold an older config; then it is left alone.
        slots && channels && self.nodes.iter().all(|x| x.alive) && self.targets_met()
    }

    fn take_down(&mut self, n: NodeNo) {
        self.nodes[n].down += 1;
        self.crash(n);
    }

    fn bring_up(&mut self, n: NodeNo) {
        self.nodes[n].down = self.nodes[n].down.saturating_sub(1);
        self.start(n);
    }

    fn reset(&mut self, n: NodeNo) {
        for other in 0..self.plan.nodes {
            for link in [self.link(n, other), self.link(other, n)] {
                self.links[link].connection += 1;
            }
        }
    }

    fn cut(&mut self, kind: Kind, begin: bool) {
        for from in 0..self.plan.nodes {
            for to in 0..self.plan.nodes {
                let hit = from != to
                    && match kind {
                        Kind::Cut(a, b) => (from, to) == (a, b) || (from, to) == (b, a),
                        Kind::OneWay(a, b) => (from, to) == (a, b),
                        Kind::Isolate(a) => from == a || to == a,
                        Kind::Split(k) => (from < k) != (to < k),
                        _ => false,
                    };
                if hit {
                    let link = self.link(from, to);
                    let l = &mut self.links[link];
                    l.cuts = if begin { l.cuts + 1 } else { l.cuts - 1 };
                    l.connection += u32::from(begin && self.net.chance(500));
                }
            }
        }
    }

    /// The weather that the episodes in force make.
    fn weigh(&mut self) {
        let kinds = self.episodes.iter().zip(&self.active).filter(|(_, a)| **a).map(|(e, _)| e.kind);
        let mut w = self.weather;
        (w.latency, w.loss, w.double, w.reorder) = (self.plan.latency * 1_000, 0, 0, false);
        for kind in kinds {
            match kind {
                Kind::SlowNet(x) => w.latency = (w.latency * x).min(300 * MS),
                Kind::Datagrams(x) => (w.loss, w.double, w.reorder) = (x, x / 2, true),
                _ => {}
            }
        }
        self.weather = w;
    }

    fn wipe(&mut self, n: NodeNo) {
        self.cover.hit("wiped");
        self.take_down(n);
        let me = self.nodes[n].me();
        for (g, d) in self.nodes[n].durable.iter().enumerate() {
            if let Some(d) = d {
                // What damage took before counts too: it was acknowledged.
                let end = d.items.log.end();
                self.graves.insert((me, g), (d.generation, d.lost.map_or(end, |lost| lost.max(end))));
            }
        }
        let node = &mut self.nodes[n];
        node.wipes += 1;
        node.incarnation = 0;
        node.durable.iter_mut().for_each(|d| *d = None);
        // It knows the cluster's first members from its configuration; it is none of them any more.
        let first: Vec<Replica> = (0..self.plan.voters).map(|v| super::replica(v, 0)).collect();
        self.nodes[n].durable[SLOT] = Some(Durable::new(0, Arc::new(Config::of(first))));
    }

    fn damage(&mut self, n: NodeNo) {
        self.take_down(n);
        let choice = self.choice.u64();
        let with_log: Vec<GroupNo> = (0..=self.plan.channels)
            .filter(|g| {
                self.nodes[n].durable[*g].as_ref().is_some_and(|d| d.items.log.end().index > d.items.log.base.index)
            })
            .collect();
        if with_log.is_empty() {
            return;
        }
        let g = with_log[choice as usize % with_log.len()];
        if let Some(d) = self.nodes[n].durable[g].as_mut() {
            let (base, end) = (d.items.log.base.index, d.items.log.end().index);
            d.damaged_at = Some(base + 1 + (choice >> 20) % (end - base));
        }
    }

    fn slot_leader(&self) -> Option<NodeNo> {
        (0..self.plan.nodes)
            .find(|n| self.nodes[*n].alive && self.nodes[*n].controls && self.nodes[*n].paused_until <= self.now)
    }

    fn transfer(&mut self, to: NodeNo) {
        if let Some(n) = self.slot_leader() {
            let target = self.nodes[to].me();
            self.step(n, SLOT, Input::Transfer { ctx: super::load::COMMAND - 1, target });
            self.arm(n);
        }
    }

    fn retarget(&mut self, g: GroupNo, without: NodeNo) {
        let keep: Vec<NodeNo> = (0..self.plan.nodes).filter(|n| *n != without).take(self.plan.voters).collect();
        self.targets[g] = keep;
    }

    fn wish(&mut self, g: GroupNo, wish: impl Fn(&[Replica]) -> Wish) {
        let Some(n) = self.slot_leader() else { return };
        let all: Vec<Replica> = self.nodes.iter().map(super::node::Node::me).collect();
        let local = self.nodes[n].local(self.now);
        if let Some(c) = self.nodes[n].controllers.get_mut(&g) {
            c.on_wish(local, wish(&all));
        }
        self.drain_controller(n, g);
    }

    fn elect_anyway(&mut self, g: GroupNo) {
        let Some(n) = self.slot_leader() else { return };
        let local = self.nodes[n].local(self.now);
        if let Some(c) = self.nodes[n].controllers.get_mut(&g) {
            c.elect(local);
        }
        self.drain_controller(n, g);
    }

    fn recreate(&mut self, g: GroupNo) {
        let Some(n) = self.slot_leader() else { return };
        let Some(a) = self.nodes[n].slot.table.get(&g).cloned() else { return };
        self.cover.hit("recreated");
        let last_seq = self.ghost.group((g, a.generation)).committed.len() as u64;
        let command = wukong_core::cluster::assignment::AssignCommand::Delete { generation: a.generation, last_seq };
        self.propose_command(n, g, command);
    }

    fn compact(&mut self) {
        for n in 0..self.plan.nodes {
            if !self.nodes[n].alive || self.nodes[n].paused_until > self.now || self.choice.chance(300) {
                continue;
            }
            for g in 0..=self.plan.channels {
                let Some(live) = self.nodes[n].groups[g].as_ref() else { continue };
                let index = if g == SLOT { self.nodes[n].slot.applied } else { live.core.hw() };
                if index <= live.items.log.base.index || index > live.core.durable().index {
                    continue;
                }
                let base = Position { epoch: live.items.log.epoch_of(index), index };
                let state = Arc::new(self.nodes[n].slot.clone());
                let config = Arc::clone(live.core.members());
                let config_index = live.core.config_index();
                if g == SLOT && config_index > index {
                    continue;
                }
                let (id, size) = if g == SLOT {
                    (state.hash ^ index.rotate_left(32) | 1, super::deliver::SNAPSHOT_BYTES)
                } else {
                    (index, 0)
                };
                if g == SLOT {
                    self.snapshots.insert(id, state);
                }
                let snapshot = Arc::new(Snapshot { id, base, config, config_index, size });
                if let Some(d) = self.nodes[n].durable[g].as_mut() {
                    d.snapshot = Some(Arc::clone(&snapshot));
                }
                let keep = self.choice.below(8);
                self.step(n, g, Input::Snapshot { snapshot, keep });
            }
            self.arm(n);
        }
    }

    /// Whether all groups have the voters that they should have.
    pub fn targets_met(&self) -> bool {
        let Some(n) = self.slot_leader() else { return false };
        let want = |g: GroupNo| -> Vec<Replica> { self.targets[g].iter().map(|t| self.nodes[*t].me()).collect() };
        let same =
            |have: &[Replica], g: GroupNo| have.len() == want(g).len() && want(g).iter().all(|r| have.contains(r));
        let slot = self.nodes[n].groups[SLOT].as_ref().is_some_and(|l| {
            let c = l.core.members();
            !c.is_joint() && same(&c.voters, SLOT) && l.core.config_index() <= l.core.hw()
        });
        slot && (1..=self.plan.channels).all(|g| {
            self.nodes[n]
                .slot
                .table
                .get(&g)
                .is_some_and(|a| !a.deleted && a.voters_out.is_empty() && same(&a.voters, g))
        })
    }

    /// The operator: brings members toward what is wanted, one legal step at a time, and makes channels that are missing.
    pub fn operate(&mut self) {
        // The operator does not know whether a leader is the right one, or has committed anything yet.
        for n in 0..self.plan.nodes {
            let leads = self.nodes[n].alive
                && self.nodes[n].paused_until <= self.now
                && self.nodes[n].groups[SLOT].as_ref().is_some_and(|l| l.core.is_leader());
            if leads {
                self.change_members(n);
            }
        }
        let Some(n) = self.slot_leader() else { return };
        self.create_missing(n);
        for g in 1..=self.plan.channels {
            let want: Vec<Replica> = self.targets[g].iter().map(|t| self.nodes[*t].me()).collect();
            let local = self.nodes[n].local(self.now);
            let voters = self.nodes[n].controllers.get(&g).map(|c| c.assignment.voters.clone()).unwrap_or_default();
            let gone: Vec<Replica> = voters.into_iter().filter(|r| self.place(*r).is_none()).collect();
            if let Some(c) = self.nodes[n].controllers.get_mut(&g)
                && c.wish.as_ref().is_none_or(|w| match w {
                    Wish::Voters(old) => *old != want,
                    Wish::Leader(target) => gone.contains(target),
                    Wish::Gone => false,
                })
                && c.assignment.voters_out.is_empty()
                && !(c.assignment.voters.len() == want.len()
                    && c.assignment.learners.is_empty()
                    && want.iter().all(|r| c.assignment.voters.contains(r)))
            {
                c.on_wish(local, Wish::Voters(want));
                self.drain_controller(n, g);
            }
        }
        self.drain_local();
    }

    fn change_members(&mut self, n: NodeNo) {
        let want: Vec<Replica> = self.targets[SLOT].iter().map(|t| self.nodes[*t].me()).collect();
        if let Some(live) = self.nodes[n].groups[SLOT].as_ref() {
            let config = Arc::clone(live.core.members());
            let same = config.voters.len() == want.len() && want.iter().all(|r| config.voters.contains(r));
            let stranger = want.iter().copied().find(|r| !config.is_member(*r));
            let gone = config.learners.iter().copied().find(|r| self.place(*r).is_none() || !want.contains(r));
            let change = match (same, stranger, gone) {
                _ if config.is_joint() => None,
                (_, _, Some(gone)) => Some(Change::DropLearner(gone)),
                (true, ..) => None,
                (_, Some(r), _) => Some(Change::AddLearner(r)),
                _ => Some(Change::Replace(want)),
            };
            if let Some(change) = change {
                self.step(n, SLOT, Input::ProposeConfig { ctx: super::load::COMMAND - 2, change });
                self.arm(n);
            }
        }
    }
}
