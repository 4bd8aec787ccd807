//! The network between the nodes of either system, and what of them is compared. It knows neither.
//!
//! What a network may do to both alike: each link delivers in order or not at all, for a whole round. Messages that replicate
//! entries need the way back too: raft-rs pushes entries to whoever once acknowledged, we send them to whoever asked, so over
//! a link with one direction they are lost for both. To starved nodes they are always lost, while votes and beats arrive.

use super::script::{Rng, Round, Script};
use std::collections::VecDeque;

/// Campaigns in a round. The first may only teach the campaigner a newer term.
const ATTEMPTS: usize = 3;
/// Enough for a follower to be asked, repaired, and told what is committed.
const BEATS: usize = 4;
/// Three leases: one that was just renewed runs out, and two quorum checks find nobody.
const STRIDES: usize = 6;
/// Messages until a round is given up.
const PATIENCE: usize = 5_000;

#[derive(Debug)]
pub struct Packet<M> {
    pub from: usize,
    pub to: usize,
    pub message: M,
    /// From a leader, about a follower's log.
    pub replicates: bool,
}

/// What the node where it was proposed says of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Open,
    Committed,
    /// That node stopped leading before it was committed.
    Unknown,
}

/// What is compared of a node once nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub leads: bool,
    /// Whom it takes for the leader, if it is in touch with one. What the others last heard depends on who tells deposed
    /// leaders' followers of newer terms: our answer to a stale request does, that of raft-rs does not.
    pub leader: Option<usize>,
    /// Payloads in its log, and how many of them it knows to be committed.
    pub log: Vec<u32>,
    pub committed: usize,
}

/// One of the two systems. Nodes count from 0.
pub trait System {
    type Message;

    fn restart(&mut self, node: usize);
    fn receive(&mut self, to: usize, message: Self::Message);
    /// What was sent since this was asked last.
    fn sent(&mut self) -> Vec<Packet<Self::Message>>;
    fn propose(&mut self, node: usize, payload: u32);
    /// Its election timeout runs out; a leader has none.
    fn campaign(&mut self, node: usize);
    /// Half of what a lease lasts passes for `node`. Nobody's election timeout runs out.
    fn stride(&mut self, node: usize);
    /// All leaders send a beat; no time to speak of passes.
    fn beat(&mut self);
    fn leads(&self, node: usize) -> bool;
    /// Whether it would help nobody into office for the sake of a leader that does not lead any more.
    fn loyal_in_vain(&self, node: usize) -> bool;
    fn view(&self, node: usize) -> View;
    /// Of all proposals, in order.
    fn fates(&self) -> Vec<Fate>;
    /// Proposed entries that were cut from some log.
    fn truncated(&self) -> usize;
}

/// What is compared after a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    pub nodes: Vec<View>,
    pub fates: Vec<Fate>,
}

#[derive(Debug)]
pub struct Trace {
    pub rounds: Vec<After>,
    pub truncated: usize,
    /// Someone in touch with a campaigner was loyal in vain: then it depends on who told it of the newer term.
    pub vain_loyalty: bool,
    /// A node that restarted heard what is committed before its log was confirmed anew. Raft-rs goes by what the leader remembers
    /// of the node, ours by what the node had confirmed in its life.
    pub hearsay: bool,
}

/// Messages went on and on.
#[derive(Debug)]
pub struct Restless;

struct World<S: System> {
    system: S,
    queue: VecDeque<Packet<S::Message>>,
    order: Order,
    proposed: u32,
    vain_loyalty: bool,
    hearsay: bool,
    /// Restarted, and its log not confirmed by a leader since.
    forgetful: Vec<bool>,
    nodes: usize,
}

/// When messages arrive, apart from the order on one link.
#[derive(Clone, Debug)]
pub enum Order {
    /// First in, first out.
    AsSent,
    /// The links differ in speed.
    Mixed(Rng),
    /// And beats come at any time, as clocks would have it.
    Loose(Rng),
}

pub fn play<S: System>(system: S, script: &Script, order: Order) -> Result<Trace, Restless> {
    let nodes = script.nodes;
    let mut world = World {
        system,
        queue: VecDeque::new(),
        order,
        proposed: 0,
        vain_loyalty: false,
        hearsay: false,
        forgetful: vec![false; nodes],
        nodes,
    };
    let mut rounds = Vec::new();
    for round in &script.rounds {
        let before: Vec<usize> = (0..nodes).map(|n| world.system.view(n).committed).collect();
        world.round(round)?;
        let views = (0..nodes).map(|n| world.view(round, n)).collect::<Vec<_>>();
        for n in 0..nodes {
            world.forgetful[n] &= !world.in_touch(round, n) || round.starved.has(n);
            world.hearsay |= world.forgetful[n] && views[n].committed > before[n];
        }
        rounds.push(After { nodes: views, fates: world.system.fates() });
    }
    let World { system, vain_loyalty, hearsay, .. } = world;
    Ok(Trace { rounds, truncated: system.truncated(), vain_loyalty, hearsay })
}

impl<S: System> World<S> {
    fn round(&mut self, round: &Round) -> Result<(), Restless> {
        if let Some(n) = round.restart {
            self.system.restart(n);
            self.forgetful[n] = true;
        }
        self.propose(round, round.early)?;
        for _ in 0..STRIDES {
            for n in (0..self.nodes).filter(|n| round.waits.has(*n)) {
                self.system.stride(n);
            }
            self.settle(round)?;
        }
        if let Some(n) = round.campaigner {
            let in_touch = |m: &usize| *m != n && round.both_ways(n, *m);
            self.vain_loyalty |= (0..self.nodes).filter(in_touch).any(|m| self.system.loyal_in_vain(m));
            for _ in 0..ATTEMPTS {
                if !self.system.leads(n) {
                    self.system.campaign(n);
                    self.settle(round)?;
                }
            }
        }
        self.beats(round)?;
        self.propose(round, round.late)
    }

    fn view(&self, round: &Round, n: usize) -> View {
        let mut view = self.system.view(n);
        if !self.in_touch(round, n) {
            view.leader = None;
        }
        view
    }

    /// Whether it and someone who leads hear each other.
    fn in_touch(&self, round: &Round, n: usize) -> bool {
        (0..self.nodes).any(|l| self.system.leads(l) && round.both_ways(n, l))
    }

    fn propose(&mut self, round: &Round, count: usize) -> Result<(), Restless> {
        for n in 0..self.nodes {
            if self.system.leads(n) {
                for _ in 0..count {
                    self.system.propose(n, self.proposed);
                    self.proposed += 1;
                }
            }
        }
        self.settle(round)?;
        self.beats(round)
    }

    fn beats(&mut self, round: &Round) -> Result<(), Restless> {
        for _ in 0..BEATS {
            self.system.beat();
            self.settle(round)?;
        }
        Ok(())
    }

    /// Delivers until nothing is under way.
    fn settle(&mut self, round: &Round) -> Result<(), Restless> {
        let reaches = |from: usize, to: usize| from == to || round.reach[from].has(to);
        let mut beats = BEATS;
        for _ in 0..PATIENCE {
            if let Order::Loose(rng) = &mut self.order
                && beats > 0
                && rng.below(4) == 0
            {
                beats -= 1;
                self.system.beat();
            }
            for packet in self.system.sent() {
                let (from, to) = (packet.from, packet.to);
                let arrives = !packet.replicates || (reaches(to, from) && !round.starved.has(to));
                if reaches(from, to) && arrives {
                    self.queue.push_back(packet);
                }
            }
            let Some(packet) = self.next() else { return Ok(()) };
            self.system.receive(packet.to, packet.message);
        }
        Err(Restless)
    }

    fn next(&mut self) -> Option<Packet<S::Message>> {
        let mut at = 0;
        if let Order::Mixed(rng) | Order::Loose(rng) = &mut self.order
            && self.queue.len() > 1
        {
            let any = rng.below(self.queue.len());
            let link = |p: &Packet<S::Message>| (p.from, p.to);
            let chosen = link(&self.queue[any]);
            at = self.queue.iter().position(|p| link(p) == chosen)?;
        }
        self.queue.remove(at)
    }
}
