//! The `raft` crate (raft-rs) as a [`System`]: pre-vote and quorum checks on, as we have them, and storage in memory.

use super::world::{Fate, Packet, System, View};
use raft::eraftpb::{Entry, Message, MessageType};
use raft::storage::MemStorage;
use raft::{Config, RawNode, StateRole, Storage as _};

/// A lease and the interval of quorum checks, in ticks.
const LEASE: usize = 8;
/// No election timeout ever runs out by itself.
const NEVER: usize = 1 << 40;

/// Where and when something was proposed.
struct Proposal {
    node: usize,
    term: u64,
    index: u64,
    fate: Fate,
}

struct Node {
    raft: RawNode<MemStorage>,
    storage: MemStorage,
    applied: Vec<u32>,
}

pub struct Reference {
    nodes: Vec<Node>,
    sent: Vec<Packet<Message>>,
    proposals: Vec<Proposal>,
    truncated: usize,
}

/// Entries without a payload begin a term; we have marks for that.
fn payloads(entries: &[Entry]) -> impl Iterator<Item = u32> + '_ {
    let filled = entries.iter().filter(|e| !e.data.is_empty());
    filled.map(|e| u32::from_le_bytes(e.data[..].try_into().expect("four bytes")))
}

fn stored(storage: &MemStorage, from: u64) -> Vec<Entry> {
    let after = storage.last_index().expect("in memory") + 1;
    if from == after {
        return Vec::new();
    }
    storage.entries(from, after, None, raft::GetEntriesContext::empty(false)).expect("in memory")
}

fn boot(n: usize, storage: MemStorage) -> RawNode<MemStorage> {
    let config = Config {
        id: n as u64 + 1,
        election_tick: LEASE,
        heartbeat_tick: LEASE / 2,
        min_election_tick: NEVER,
        max_election_tick: NEVER + 1,
        max_size_per_msg: raft::NO_LIMIT,
        check_quorum: true,
        pre_vote: true,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&config, storage, &logger).expect("a valid config")
}

impl Reference {
    pub fn new(nodes: usize) -> Self {
        let voters: Vec<u64> = (1..=nodes as u64).collect();
        let node = |n| {
            let storage = MemStorage::new_with_conf_state((voters.clone(), Vec::new()));
            Node { raft: boot(n, storage.clone()), storage, applied: Vec::new() }
        };
        Self { nodes: (0..nodes).map(node).collect(), sent: Vec::new(), proposals: Vec::new(), truncated: 0 }
    }

    fn send(&mut self, messages: Vec<Message>) {
        for mut m in messages {
            let vote = matches!(
                m.get_msg_type(),
                MessageType::MsgRequestVote
                    | MessageType::MsgRequestVoteResponse
                    | MessageType::MsgRequestPreVote
                    | MessageType::MsgRequestPreVoteResponse
            );
            if vote {
                // A hint at what is committed, which Raft does not have: nodes learn it here from leaders only.
                (m.commit, m.commit_term) = (0, 0);
            }
            let replicates = m.get_msg_type() == MessageType::MsgAppend;
            self.sent.push(Packet { from: m.from as usize - 1, to: m.to as usize - 1, message: m, replicates });
        }
    }

    fn append(&mut self, n: usize, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let storage = &self.nodes[n].storage;
        let cut = stored(storage, first.index);
        self.truncated += payloads(&cut).count();
        storage.wl().append(entries).expect("in memory");
    }

    /// Does what the node has ready: writes, sends, applies.
    fn drain(&mut self, n: usize) {
        while self.nodes[n].raft.has_ready() {
            let mut ready = self.nodes[n].raft.ready();
            self.send(ready.take_messages());
            self.nodes[n].applied.extend(payloads(ready.committed_entries()));
            self.append(n, ready.entries());
            if let Some(hard) = ready.hs() {
                self.nodes[n].storage.wl().set_hardstate(hard.clone());
            }
            self.send(ready.take_persisted_messages());
            let node = &mut self.nodes[n];
            let mut light = node.raft.advance(ready);
            if let Some(commit) = light.commit_index() {
                node.storage.wl().mut_hard_state().set_commit(commit);
            }
            node.applied.extend(payloads(light.committed_entries()));
            node.raft.advance_apply();
            self.send(light.take_messages());
        }
        self.judge(n);
    }

    /// What `n` can say now of what was proposed there.
    fn judge(&mut self, n: usize) {
        let raft = &self.nodes[n].raft.raft;
        let (leads, term, committed) = (raft.state == StateRole::Leader, raft.term, raft.raft_log.committed);
        for p in self.proposals.iter_mut().filter(|p| p.node == n && p.fate == Fate::Open) {
            if !leads || term != p.term {
                p.fate = Fate::Unknown;
            } else if p.index <= committed {
                p.fate = Fate::Committed;
            }
        }
    }
}

impl System for Reference {
    type Message = Message;

    fn restart(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.raft = boot(n, node.storage.clone());
        node.applied.clear();
        self.drain(n);
    }

    fn receive(&mut self, to: usize, message: Message) {
        self.nodes[to].raft.step(message).expect("a message of a member");
        self.drain(to);
    }

    fn sent(&mut self) -> Vec<Packet<Message>> {
        core::mem::take(&mut self.sent)
    }

    fn propose(&mut self, n: usize, payload: u32) {
        let node = &mut self.nodes[n].raft;
        node.propose(Vec::new(), payload.to_le_bytes().to_vec()).expect("a leader takes proposals");
        let (term, index) = (node.raft.term, node.raft.raft_log.last_index());
        self.proposals.push(Proposal { node: n, term, index, fate: Fate::Open });
        self.drain(n);
    }

    fn campaign(&mut self, n: usize) {
        self.nodes[n].raft.campaign().expect("never fails");
        self.drain(n);
    }

    fn stride(&mut self, n: usize) {
        for _ in 0..LEASE / 2 {
            self.nodes[n].raft.tick();
            self.drain(n);
        }
    }

    fn beat(&mut self) {
        for n in 0..self.nodes.len() {
            self.nodes[n].raft.ping();
            self.drain(n);
        }
    }

    fn leads(&self, n: usize) -> bool {
        self.nodes[n].raft.raft.state == StateRole::Leader
    }

    fn loyal_in_vain(&self, n: usize) -> bool {
        let raft = &self.nodes[n].raft.raft;
        let Some(leader) = (raft.leader_id as usize).checked_sub(1) else { return false };
        let gone = !self.leads(leader) || self.nodes[leader].raft.raft.term != raft.term;
        gone && raft.election_elapsed < LEASE
    }

    fn view(&self, n: usize) -> View {
        let node = &self.nodes[n];
        let leader = node.raft.raft.leader_id;
        View {
            leads: self.leads(n),
            leader: (leader != raft::INVALID_ID).then(|| leader as usize - 1),
            log: payloads(&stored(&node.storage, 1)).collect(),
            committed: node.applied.len(),
        }
    }

    fn fates(&self) -> Vec<Fate> {
        self.proposals.iter().map(|p| p.fate).collect()
    }

    fn truncated(&self) -> usize {
        self.truncated
    }
}
