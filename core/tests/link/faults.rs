//! Loss, repetition, reordering, links that break, processes that end: what arrives was sent, and each group's in order.

use super::pair::{A, B, CLUSTER, frames, process, replica};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use wukong_core::ids::{Epoch, Incarnation, NodeId, Position, ShardId, SlotId};
use wukong_core::link::{Group, Item, Links, Output};
use wukong_core::raft::message::{Envelope, Fetch, Message};
use wukong_core::time::Instant;

const SLOTS: u16 = 12;

#[derive(Clone, Debug)]
enum Move {
    /// One step of a node: rows of these slots, of which some changed more than their counters.
    Say {
        from: NodeId,
        slots: u16,
        changed: u16,
        busy: Option<u16>,
    },
    /// The oldest frame arrives.
    Arrive,
    /// Any frame arrives, before older ones.
    Jump(prop::sample::Index),
    /// Any frame arrives, and will again.
    Twice(prop::sample::Index),
    Lose(prop::sample::Index),
    /// A node opens its link anew; the other one may not have noticed.
    Up(NodeId),
    Restart(NodeId),
}

fn node() -> impl Strategy<Value = NodeId> {
    prop_oneof![Just(A), Just(B)]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let all = (1 << SLOTS) - 1;
    let slots = prop_oneof![4 => Just(all), 1 => 0..=all];
    let changed = prop_oneof![4 => Just(0), 1 => 0..=all];
    let busy = prop_oneof![4 => Just(None), 1 => (0..SLOTS).prop_map(Some)];
    let say = (node(), slots, changed, busy);
    let at = any::<prop::sample::Index>;
    let one = prop_oneof![
        40 => say.prop_map(|(from, slots, changed, busy)| Move::Say { from, slots, changed, busy }),
        40 => Just(Move::Arrive),
        3 => at().prop_map(Move::Jump),
        2 => at().prop_map(Move::Twice),
        3 => at().prop_map(Move::Lose),
        1 => node().prop_map(Move::Up),
        1 => node().prop_map(Move::Restart),
    ];
    vec(one, 1..300)
}

struct Node {
    links: Links,
    incarnation: u64,
    /// Counters of each slot's beats (A) or fetches (B), and what else they say.
    rows: [(u64, u64); SLOTS as usize],
    ctx: u64,
}

struct Flight {
    from: NodeId,
    incarnation: u64,
    frame: Bytes,
}

/// Everything that was said by a node about a slot, and up to where it was heard.
type Said = BTreeMap<(NodeId, u16), (Vec<Item>, usize)>;

struct World {
    nodes: [Node; 2],
    flights: Vec<Flight>,
    said: Said,
    heard: usize,
}

const fn other(node: NodeId) -> NodeId {
    NodeId(3 - node.0)
}

impl Node {
    fn new(node: NodeId, incarnation: u64) -> Self {
        let links = Links::new(replica(node), Incarnation(incarnation), CLUSTER, 1, ShardId(0));
        Self { links, incarnation, rows: [(0, 0); SLOTS as usize], ctx: 0 }
    }
}

impl World {
    fn new() -> Self {
        let mut world =
            Self { nodes: [Node::new(A, 1), Node::new(B, 1)], flights: Vec::new(), said: Said::new(), heard: 0 };
        world.up(A);
        world.up(B);
        world
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[usize::from(node.0) - 1]
    }

    fn up(&mut self, node: NodeId) {
        let peer = process(other(node), self.node(other(node)).incarnation, 1);
        self.node(node).links.up(peer);
    }

    fn send(&mut self, from: NodeId, slot: u16, message: Message) {
        let node = self.node(from);
        let envelope = Envelope {
            from: replica(from),
            to: replica(other(from)),
            from_incarnation: Incarnation(node.incarnation),
            epoch: Epoch(2),
            message,
        };
        let item = Item::Group { group: Group::Slot(SlotId(slot)), envelope };
        node.links.send(other(from), SlotId(slot), item.clone());
        self.said.entry((from, slot)).or_default().0.push(item);
    }

    fn say(&mut self, from: NodeId, slots: u16, changed: u16, busy: Option<u16>) {
        for slot in (0..SLOTS).filter(|s| slots & (1 << s) != 0) {
            let (seq, fixed) = &mut self.node(from).rows[usize::from(slot)];
            *seq += 1;
            *fixed += u64::from(changed >> slot & 1);
            let (seq, fixed) = (*seq, *fixed);
            let pos = Position { epoch: Epoch(2), index: fixed };
            let message = if from == A {
                Message::Beat { seq, hw: fixed }
            } else {
                Message::Fetch(Fetch {
                    seq,
                    pos,
                    durable: pos,
                    hw: fixed,
                    beat: seq,
                    answer_now: false,
                    damaged: false,
                })
            };
            self.send(from, slot, message);
            if busy == Some(slot) {
                self.node(from).ctx += 1;
                let ctx = self.node(from).ctx;
                self.send(from, slot, Message::ReadReq { ctx });
            }
        }
        self.flush(from);
    }

    fn flush(&mut self, from: NodeId) {
        let node = self.node(from);
        let incarnation = node.incarnation;
        let mut out = Vec::new();
        node.links.flush(Instant(0), &mut out);
        for output in out {
            let Output::Frame { frame, .. } = output else { panic!("nothing breaks a link here: {output:?}") };
            self.flights.push(Flight { from, incarnation, frame });
        }
    }

    fn arrive(&mut self, from: NodeId, incarnation: u64, frame: &Bytes) {
        let to = other(from);
        let mut items = Vec::new();
        self.node(to).links.receive(from, Incarnation(incarnation), frame, &mut items).expect("a frame of our own");
        self.heard += items.len();
        for item in items {
            let Item::Group { group: Group::Slot(slot), .. } = &item else { panic!("never sent: {item:?}") };
            let (said, heard) = self.said.get_mut(&(from, slot.0)).expect("something was said of that slot");
            let at = said[*heard..].iter().position(|s| *s == item);
            *heard += 1 + at.unwrap_or_else(|| panic!("not sent, or late: {item:?}"));
        }
        self.flush(to);
    }

    fn take(&mut self, at: &prop::sample::Index) -> Option<Flight> {
        (!self.flights.is_empty()).then(|| self.flights.remove(at.index(self.flights.len())))
    }

    fn run(&mut self, step: &Move) {
        match step {
            Move::Say { from, slots, changed, busy } => self.say(*from, *slots, *changed, *busy),
            Move::Arrive => {
                if !self.flights.is_empty() {
                    let flight = self.flights.remove(0);
                    self.arrive(flight.from, flight.incarnation, &flight.frame);
                }
            }
            Move::Jump(at) => {
                if let Some(flight) = self.take(at) {
                    self.arrive(flight.from, flight.incarnation, &flight.frame);
                }
            }
            Move::Twice(at) => {
                if let Some(flight) = self.take(at) {
                    self.arrive(flight.from, flight.incarnation, &flight.frame);
                    self.flights.push(flight);
                }
            }
            Move::Lose(at) => drop(self.take(at)),
            Move::Up(node) => self.up(*node),
            Move::Restart(node) => {
                let incarnation = self.node(*node).incarnation + 1;
                *self.node(*node) = Node::new(*node, incarnation);
                self.up(*node);
            }
        }
    }

    fn all_arrive(&mut self) {
        while !self.flights.is_empty() {
            self.run(&Move::Arrive);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_arrives_was_sent_and_in_order(moves in moves()) {
        let mut world = World::new();
        moves.iter().for_each(|step| world.run(step));
        // Both links are opened anew: from then on all is said in full, then by digest, and all arrives.
        world.all_arrive();
        world.up(A);
        world.up(B);
        let hits = |w: &World| w.nodes.each_ref().map(|n| n.links.counters().digests_hit);
        let (heard, before) = (world.heard, hits(&world));
        for _ in 0..5 {
            world.say(A, (1 << SLOTS) - 1, 0, None);
            world.say(B, (1 << SLOTS) - 1, 0, None);
            world.all_arrive();
        }
        prop_assert_eq!(world.heard - heard, 5 * 2 * usize::from(SLOTS));
        let after = hits(&world);
        prop_assert!(after[0] >= before[0] + 3 && after[1] >= before[1] + 3, "{before:?} {after:?}");
    }
}

/// The same without faults: nothing is lost, and the lists are offered once.
#[test]
fn a_quiet_link_offers_one_list() {
    let mut world = World::new();
    for _ in 0..50 {
        world.say(A, (1 << SLOTS) - 1, 0, None);
        world.all_arrive();
        world.say(B, (1 << SLOTS) - 1, 0, None);
        world.all_arrive();
    }
    assert_eq!(world.heard, 100 * usize::from(SLOTS));
    for node in &mut world.nodes {
        assert!(frames(&mut node.links, Instant(0)).is_empty());
        assert_eq!((node.links.counters().lists_offered, node.links.counters().digests_missed), (1, 0));
    }
}
