//! Two nodes with one shard each, and what lies between them.

use bytes::Bytes;
use wukong_core::ids::{Epoch, Incarnation, LinkClass, NodeId, PeerProcess, ShardId, SlotId, StoreId};
use wukong_core::link::{Group, Item, Links, Output, WIRE};
use wukong_core::raft::config::Replica;
use wukong_core::raft::message::{Envelope, Fetch, Message};
use wukong_core::time::Instant;

pub const A: NodeId = NodeId(1);
pub const B: NodeId = NodeId(2);
pub const CLUSTER: u128 = 0xC0FF_EE00_0000_0000_0000_0000_0000_0001;
pub const MS: u64 = 1_000_000;

pub fn replica(node: NodeId) -> Replica {
    Replica { node, store: StoreId(u128::from(node.0) << 100 | 7) }
}

pub fn process(node: NodeId, incarnation: u64, shards: u8) -> PeerProcess {
    let Replica { node, store } = replica(node);
    PeerProcess { node, store, incarnation: Incarnation(incarnation), shards, wire: WIRE }
}

pub fn links(node: NodeId, incarnation: u64) -> Links {
    Links::new(replica(node), Incarnation(incarnation), CLUSTER, 1, ShardId(0))
}

/// From A's first process to B's, or the other way.
pub fn envelope(from: NodeId, message: Message) -> Envelope {
    let to = if from == A { B } else { A };
    Envelope { from: replica(from), to: replica(to), from_incarnation: Incarnation(1), epoch: Epoch(3), message }
}

pub fn said(from: NodeId, slot: u16, message: Message) -> Item {
    Item::Group { group: Group::Slot(SlotId(slot)), envelope: envelope(from, message) }
}

pub fn beat(slot: u16, seq: u64, hw: u64) -> Item {
    said(A, slot, Message::Beat { seq, hw })
}

pub fn fetch(slot: u16, seq: u64) -> Item {
    said(B, slot, Message::Fetch(Fetch { seq, beat: seq, ..Fetch::default() }))
}

/// A chunk of a snapshot: class Bulk.
pub fn chunk(slot: u16, id: u64, bytes: usize) -> Item {
    said(A, slot, Message::SnapshotChunk { id, offset: 0, bytes: Bytes::from(vec![7; bytes]), last: false })
}

/// Both ends of a link that loses nothing.
pub struct Pair {
    pub now: Instant,
    pub a: Links,
    pub b: Links,
}

impl Pair {
    pub fn new() -> Self {
        let (mut a, mut b) = (links(A, 1), links(B, 1));
        a.up(process(B, 1, 1));
        b.up(process(A, 1, 1));
        Self { now: Instant(0), a, b }
    }

    pub fn send(&mut self, items: impl IntoIterator<Item = Item>) {
        items.into_iter().for_each(|item| self.a.send(B, SlotId(0), item));
    }

    /// Frames of A, each with its class.
    pub fn frames_of_a(&mut self) -> Vec<(LinkClass, Bytes)> {
        frames(&mut self.a, self.now)
    }

    pub fn frames_of_b(&mut self) -> Vec<(LinkClass, Bytes)> {
        frames(&mut self.b, self.now)
    }

    pub fn b_gets(&mut self, frame: &Bytes) -> Vec<Item> {
        let mut items = Vec::new();
        self.b.receive(A, Incarnation(1), frame, &mut items).expect("a frame of our own");
        items
    }

    pub fn a_gets(&mut self, frame: &Bytes) -> Vec<Item> {
        let mut items = Vec::new();
        self.a.receive(B, Incarnation(1), frame, &mut items).expect("a frame of our own");
        items
    }

    /// Exchanges frames until both sides are silent; what reached A, and what reached B.
    pub fn exchange(&mut self) -> (Vec<Item>, Vec<Item>) {
        let (mut at_a, mut at_b) = (Vec::new(), Vec::new());
        loop {
            let (from_a, from_b) = (self.frames_of_a(), self.frames_of_b());
            if from_a.is_empty() && from_b.is_empty() {
                return (at_a, at_b);
            }
            from_a.iter().for_each(|(_, f)| at_b.extend(self.b_gets(f)));
            from_b.iter().for_each(|(_, f)| at_a.extend(self.a_gets(f)));
        }
    }
}

pub fn frames(links: &mut Links, now: Instant) -> Vec<(LinkClass, Bytes)> {
    let mut out = Vec::new();
    links.flush(now, &mut out);
    out.into_iter()
        .map(|o| match o {
            Output::Frame { class, frame, .. } => (class, frame),
            Output::Reset { .. } => panic!("the link was reset"),
        })
        .collect()
}
