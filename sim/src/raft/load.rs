//! Clients: they append to groups and read from them, at whatever node they take for the leader, and remember what they were told.

use super::cluster::{Cluster, Event};
use super::ghost::Operation;
use super::record::Deed;
use super::slot::Payload;
use super::{GroupNo, MS, NodeNo, SLOT, node_of};
use crate::rng::Rng;
use wukong_core::cluster::assignment::AssignCommand;
use wukong_core::raft::core::{Input, Outcome};

/// Marks operations that are not a client's: commands of the slot, and what an operator asks for.
pub const COMMAND: u64 = 1 << 40;

/// See the module.
#[derive(Clone, Debug)]
pub struct Client {
    pub rng: Rng,
    /// The operation without an outcome, and when it is given up.
    pub open: Option<(u64, u64)>,
    /// Where it tries next, by group.
    pub hint: Vec<NodeNo>,
    /// Proposals that follow each other without waiting.
    pub train: Option<Train>,
}

/// What is left of a train.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    pub node: NodeNo,
    pub group: GroupNo,
    pub left: u64,
}

impl Client {
    #[must_use]
    pub fn new(seed: u64, n: usize) -> Self {
        Self { rng: Rng::fork(seed, "client", n as u64), open: None, hint: Vec::new(), train: None }
    }
}

impl Cluster {
    pub fn client_turn(&mut self, c: usize) {
        let train = self.clients[c].train.take().filter(|_| self.idle == 0);
        if train.is_some_and(|t| t.left > 1) {
            let next = self.now + self.clients[c].rng.spread(self.plan.latency * 6_000);
            self.heap.add(next, Event::Client(c as u32));
        } else {
            let think = if self.healing { self.plan.think.clamp(20, 100) } else { self.plan.think };
            let next = self.now + self.clients[c].rng.spread(think * MS);
            self.heap.add(next, Event::Client(c as u32));
        }
        if self.idle > 0 {
            return;
        }
        if let Some(t) = train {
            return self.train_goes_on(c, t);
        }
        if let Some((op, until)) = self.clients[c].open {
            if self.now < until {
                return;
            }
            // Given up: what became of it is unknown, for ever.
            self.ghost.operations[op as usize].open = false;
            self.clients[c].open = None;
        }
        let groups = self.plan.channels + 1;
        let (nodes, reads, lease) = (self.plan.nodes, self.plan.reads, self.plan.lease);
        let batch = self.plan.batch;
        let client = &mut self.clients[c];
        client.hint.resize(groups, 0);
        let g = client.rng.index(groups);
        if client.rng.chance(30) {
            client.hint[g] = client.rng.index(nodes);
        }
        let node = client.hint[g];
        let read = client.rng.chance(reads);
        let lease = lease && g == SLOT && read && client.rng.chance(500);
        let entries = if read { 0 } else { 1 + client.rng.below(batch) };
        let train = if read || self.healing { 0 } else { client.rng.below(self.plan.train) };
        if !self.has(node, g) || self.nodes[node].paused_until > self.now {
            self.clients[c].hint[g] = self.clients[c].rng.index(nodes);
            return;
        }
        if !read {
            self.clients[c].train = (train > 0).then_some(Train { node, group: g, left: train + 1 });
            return self.propose(c, node, g, entries);
        }
        let op = self.operation(c, node, g, read, lease, 0);
        self.clients[c].open = Some((op, self.now + 2_000 * MS));
        self.step(node, g, if lease { Input::LeaseRead { ctx: op } } else { Input::Read { ctx: op } });
        self.arm(node);
    }

    pub fn propose(&mut self, c: usize, node: NodeNo, g: GroupNo, entries: u64) {
        let op = self.operation(c, node, g, false, false, entries);
        let key = self.ghost.operations[op as usize].key;
        if let Some(client) = self.clients.get_mut(c) {
            client.open = Some((op, self.now + 2_000 * MS));
        }
        let batch = (key..key + entries).map(|k| Payload::Op(k).to_bytes()).collect();
        self.step(node, g, Input::Propose { ctx: op, batch });
        self.arm(node);
    }

    /// A refusal ends a train (`outcome`): what follows is for another node.
    fn train_goes_on(&mut self, c: usize, train: Train) {
        let Train { node, group, left } = train;
        if self.has(node, group) && self.nodes[node].paused_until <= self.now {
            let entries = 1 + self.clients[c].rng.below(self.plan.batch);
            self.clients[c].train = (left > 1).then_some(Train { left: left - 1, ..train });
            self.propose(c, node, group, entries);
        }
    }

    pub fn operation(&mut self, client: usize, node: NodeNo, g: GroupNo, read: bool, lease: bool, entries: u64) -> u64 {
        let generation = self.nodes[node].groups[g].as_ref().map_or(0, |l| l.generation);
        let group = (g, generation);
        let floor = self.ghost.group(group).acked;
        let life = self.nodes[node].life;
        let key = self.ghost.keys;
        self.ghost.keys += entries;
        self.ghost.operations.push(Operation {
            group,
            client,
            node,
            life,
            read,
            floor,
            lease,
            open: true,
            key,
            entries,
        });
        self.begun += 1;
        self.ghost.operations.len() as u64 - 1
    }

    fn close(&mut self, ctx: u64) -> Option<Operation> {
        let op = self.ghost.operations.get_mut(ctx as usize)?;
        if !std::mem::take(&mut op.open) {
            return None;
        }
        let op = *op;
        if let Some(client) = self.clients.get_mut(op.client)
            && client.open.is_some_and(|(n, _)| n == ctx)
        {
            client.open = None;
        }
        Some(op)
    }

    /// I13, I26: what is said to be committed is; each proposal has one outcome.
    pub fn outcome(&mut self, n: NodeNo, g: GroupNo, ctx: u64, outcome: Outcome) {
        if ctx >= COMMAND {
            return;
        }
        if let (Outcome::Refused { leader: Some(leader), .. }, Some(op)) =
            (outcome, self.ghost.operations.get(ctx as usize))
            && let Some(client) = self.clients.get_mut(op.client)
        {
            client.hint[g] = node_of(leader);
        } else if matches!(outcome, Outcome::Refused { .. })
            && let Some(op) = self.ghost.operations.get(ctx as usize)
            && let Some(client) = self.clients.get_mut(op.client)
        {
            client.hint[g] = client.rng.index(self.plan.nodes);
        }
        let Some(op) = self.ghost.operations.get(ctx as usize).copied() else { return };
        let Outcome::Committed { first, last, epoch } = outcome else {
            if let Some(client) = self.clients.get_mut(op.client) {
                client.train = None;
            }
            self.close(ctx);
            return;
        };
        let ghost = self.ghost.groups.entry(op.group).or_default();
        let wrong = (first..=last).zip(op.key..).find(|(i, key)| {
            ghost.committed.get(*i as usize - 1).is_none_or(|c| (c.epoch, c.content) != (epoch.0, *key))
        });
        if self.mode.oracles
            && let Some((i, _)) = wrong
        {
            let there = ghost.committed.get(i as usize - 1).copied();
            let what = format!("n{n} g{g} operation {ctx} is told index {i} epoch {epoch}; there is {there:?}");
            return self.violation_about("I13", what, &[Deed::Covered(op.group, i)]);
        }
        ghost.acked = ghost.acked.max(last);
        ghost.acks.push((last, epoch.0, ctx));
        self.ghost.acked += 1;
        if self.mode.oracles && last + 1 - first != op.entries {
            self.violation(
                "I26",
                format!("operation {ctx} wrote {} entries and is told {first} to {last}", op.entries),
            );
        }
        self.close(ctx);
    }

    /// I21, I22: a read sees everything that was acknowledged before it began.
    pub fn read_ready(&mut self, n: NodeNo, g: GroupNo, ctx: u64, index: Result<u64, ()>) {
        let Some(op) = self.close(ctx) else { return };
        let Ok(index) = index else {
            self.cover.hit("read refused");
            let nodes = self.plan.nodes;
            if let Some(client) = self.clients.get_mut(op.client) {
                client.hint[g] = client.rng.index(nodes);
            }
            return;
        };
        self.cover.hit(if op.lease { "lease read" } else { "read ready" });
        if !self.mode.oracles {
            return;
        }
        self.check_visible(n, g, index);
        if index < op.floor {
            let what = format!("n{n} g{g} read {ctx} returns {index}; {} was acknowledged before it began", op.floor);
            return self.violation_about("I21", what, &[Deed::Told(op.group, op.floor)]);
        }
        if op.lease {
            let epoch = self.nodes[n].groups[g].as_ref().map_or(0, |l| l.core.epoch().0);
            let newest = self.ghost.group(op.group).epoch;
            if newest > epoch {
                let what = format!("n{n} g{g} serves a lease read in epoch {epoch}; epoch {newest} has committed");
                let last = self.ghost.group(op.group).committed.len() as u64;
                let about = [Deed::Led(op.group, newest), Deed::Covered(op.group, last)];
                self.violation_about("I22", what, &about);
            }
        }
    }

    /// A command of the slot, proposed where its leader should be.
    pub fn propose_command(&mut self, n: NodeNo, g: GroupNo, command: AssignCommand) {
        self.say(n, &format_args!("g{g} proposes {command:?}"));
        let number = self.commands.len() as u64;
        self.commands.push((g, command));
        let batch = [Payload::Command(number).to_bytes()].into_iter().collect();
        self.later(n, SLOT, Input::Propose { ctx: COMMAND + number, batch });
    }

    /// Channels that the slot does not know yet, or that were deleted.
    pub fn create_missing(&mut self, n: NodeNo) {
        for g in 1..=self.plan.channels {
            if self.nodes[n].slot.table.get(&g).is_none_or(|a| a.deleted) {
                let Some(live) = self.nodes[n].groups[SLOT].as_ref() else { return };
                let config = std::sync::Arc::clone(live.core.members());
                let known: Vec<_> = config
                    .voters
                    .iter()
                    .copied()
                    .filter(|r| self.place(*r).is_some_and(|p| self.nodes[p].alive))
                    .collect();
                if known.len() <= self.plan.voters / 2 {
                    continue;
                }
                let at = (g + self.commands.len()) % known.len();
                let leader = known[at];
                let incarnation = self.nodes[node_of(leader)].incarnation();
                self.propose_command(
                    n,
                    g,
                    AssignCommand::Create { voters: config.voters.clone(), leader, incarnation },
                );
            }
        }
    }
}
