//! `GroupCore` as a [`System`]: instant disks, a clock for each node.

use super::world::{Fate, Packet, System, View};
use bytes::Bytes;
use core::time::Duration;
use std::sync::Arc;
use wukong_core::ids::{Epoch, Incarnation, NodeId, Position, StoreId};
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::Log;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{
    Alarm, Bounds, GroupConfig, GroupCore, Input, Mode, Op, Outcome, Output, Stored, Timing,
};
use wukong_core::raft::message::{Body, Entry, Envelope, Item, Message};
use wukong_core::time::Instant;

const T_MIN: Duration = Duration::from_secs(1_000);
const BEAT: Duration = Duration::from_millis(1);

fn replica(n: usize) -> Replica {
    Replica { node: NodeId(n as u16), store: StoreId(n as u128) }
}

fn index(r: Replica) -> usize {
    usize::from(r.node.0)
}

fn payload(entry: &Entry) -> u32 {
    match &entry.body {
        Body::Data(b) => u32::from_le_bytes(b[..].try_into().expect("four bytes")),
        Body::Config(_) => unreachable!("members do not change here"),
    }
}

#[derive(Clone, Default)]
struct Disk {
    epoch: Epoch,
    voted_for: Option<Replica>,
    marks: Vec<(Epoch, u64)>,
    entries: Vec<Entry>,
    hw: u64,
}

impl Disk {
    fn stored(&self, members: &Arc<Config>) -> Stored {
        Stored {
            epoch: self.epoch,
            voted_for: self.voted_for,
            log: Log::recovered(Position::default(), self.marks.clone(), self.entries.len() as u64),
            hw: self.hw,
            distributed: 0,
            tail: Vec::new(),
            configs: vec![(0, Arc::clone(members))],
            snapshot: None,
            damaged: false,
        }
    }

    /// Returns how many entries were cut.
    fn write(&mut self, op: Op) -> usize {
        match op {
            Op::Hard { epoch, voted_for } => (self.epoch, self.voted_for) = (epoch, voted_for),
            Op::Append(items) => {
                for item in items {
                    match item {
                        Item::Mark { epoch, at } => self.marks.push((epoch, at)),
                        Item::Entry(e) => {
                            assert_eq!(e.index, self.entries.len() as u64 + 1, "entries follow each other on disk");
                            self.entries.push(e);
                        }
                    }
                }
            }
            Op::Truncate(Position { epoch, index }) => {
                assert!(index >= self.hw, "committed entries were cut");
                let before = self.entries.len();
                self.entries.truncate(index as usize);
                self.marks.retain(|(e, _)| *e <= epoch);
                return before - self.entries.len();
            }
            Op::Hint { hw } => self.hw = hw,
            Op::Rebase { .. } | Op::Compact { .. } => unreachable!("there are no snapshots here"),
        }
        0
    }
}

struct Node {
    config: GroupConfig,
    group: GroupCore,
    disk: Disk,
    now: Instant,
}

pub struct Ours {
    nodes: Vec<Node>,
    members: Arc<Config>,
    sent: Vec<Packet<Envelope>>,
    /// Where each was proposed, and what became of it.
    proposals: Vec<(usize, Fate)>,
    truncated: usize,
}

impl Ours {
    pub fn new(nodes: usize, mutant: Option<RaftMutant>) -> Self {
        let members = Arc::new(Config::of((0..nodes).map(replica).collect()));
        let timing =
            Timing { t_min: T_MIN, beat_every: BEAT, retry: BEAT, retry_max: BEAT, hw_news: BEAT, ..Timing::default() };
        let node = |n| {
            let config = GroupConfig {
                me: replica(n),
                incarnation: Incarnation(1),
                mode: Mode::Elected,
                timing,
                bounds: Bounds::default(),
                lease: false,
                preferred: false,
                seed: n as u64,
                mutant,
            };
            let (disk, now) = (Disk::default(), Instant(0));
            Node { group: GroupCore::new(config.clone(), disk.stored(&members), now), config, disk, now }
        };
        let nodes = (0..nodes).map(node).collect();
        Self { nodes, members: Arc::clone(&members), sent: Vec::new(), proposals: Vec::new(), truncated: 0 }
    }

    fn step(&mut self, n: usize, input: Input) {
        let node = &mut self.nodes[n];
        node.group.step(node.now, input);
        while let Some(output) = self.nodes[n].group.poll_output() {
            self.on_output(n, output);
        }
    }

    fn on_output(&mut self, n: usize, output: Output) {
        let node = &mut self.nodes[n];
        match output {
            // A leader that resigns names a successor, who campaigns: raft-rs has no such message. It is lost.
            Output::Send(Envelope { message: Message::EndEpoch { .. }, .. }) => {}
            Output::Send(m) => {
                let replicates = matches!(m.message, Message::Items { .. } | Message::Diverged { .. });
                self.sent.push(Packet { from: n, to: index(m.to), message: m, replicates });
            }
            Output::Persist { token, ops } => {
                self.truncated += ops.into_iter().map(|op| node.disk.write(op)).sum::<usize>();
                node.group.step(node.now, Input::Persisted(token));
            }
            Output::ReadLog { request, from, to, .. } => {
                let entries = Some(node.disk.entries[from as usize - 1..to as usize].to_vec());
                node.group.step(node.now, Input::LogRead { request, entries });
            }
            // As raft-rs, which stores its commit index with each write.
            Output::Committed { hw } => node.disk.hw = hw,
            Output::Outcome { ctx, outcome } => {
                let fate = match outcome {
                    Outcome::Committed { first, last, epoch } => {
                        let e = &node.disk.entries[first as usize - 1];
                        assert_eq!((first, epoch, u64::from(payload(e))), (last, e.epoch, ctx), "another entry");
                        Fate::Committed
                    }
                    Outcome::Unknown => Fate::Unknown,
                    Outcome::Refused { .. } => panic!("a leader refused {ctx}: {outcome:?}"),
                };
                let proposal = &mut self.proposals[ctx as usize];
                assert_eq!(*proposal, (n, Fate::Open), "a second outcome: {outcome:?}");
                proposal.1 = fate;
            }
            Output::Alarm(
                alarm @ (Alarm::TwoLeaders
                | Alarm::TruncateBelowCommit
                | Alarm::ForeignTail
                | Alarm::LostAck
                | Alarm::BadItems),
            ) => {
                panic!("node {n}: {alarm:?}");
            }
            Output::Role { .. } => {}
            other => panic!("node {n}: {other:?}"),
        }
    }
}

impl System for Ours {
    type Message = Envelope;

    fn restart(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.config.incarnation.0 += 1;
        node.group = GroupCore::new(node.config.clone(), node.disk.stored(&self.members), node.now);
        for (_, fate) in self.proposals.iter_mut().filter(|p| **p == (n, Fate::Open)) {
            *fate = Fate::Unknown;
        }
    }

    fn receive(&mut self, to: usize, message: Envelope) {
        self.step(to, Input::Message(message));
    }

    fn sent(&mut self) -> Vec<Packet<Envelope>> {
        core::mem::take(&mut self.sent)
    }

    fn propose(&mut self, n: usize, payload: u32) {
        self.proposals.push((n, Fate::Open));
        let batch = [Bytes::copy_from_slice(&payload.to_le_bytes())].into_iter().collect();
        self.step(n, Input::Propose { ctx: u64::from(payload), batch });
    }

    fn campaign(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.now = node.now + T_MIN * 2;
        self.step(n, Input::Time);
    }

    fn stride(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.now = node.now + T_MIN / 2;
        if node.group.is_leader() {
            self.step(n, Input::Time);
        }
    }

    fn beat(&mut self) {
        for n in 0..self.nodes.len() {
            if self.nodes[n].group.is_leader() {
                self.nodes[n].now = self.nodes[n].now + BEAT;
                self.step(n, Input::Time);
            }
        }
    }

    fn leads(&self, n: usize) -> bool {
        self.nodes[n].group.is_leader()
    }

    /// Judged by raft-rs alone.
    fn loyal_in_vain(&self, _: usize) -> bool {
        false
    }

    fn view(&self, n: usize) -> View {
        let node = &self.nodes[n];
        assert_eq!(node.group.log().end().index, node.disk.entries.len() as u64, "all is written");
        View {
            leads: self.leads(n),
            leader: node.group.leader().map(index),
            log: node.disk.entries.iter().map(payload).collect(),
            committed: node.group.hw() as usize,
        }
    }

    fn fates(&self) -> Vec<Fate> {
        self.proposals.iter().map(|p| p.1).collect()
    }

    fn truncated(&self) -> usize {
        self.truncated
    }
}
