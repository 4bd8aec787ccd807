//! Bounds on what the links between two nodes cost, in things that can be counted (cluster-and-raft 4.20).

use bytes::Bytes;
use wukong_benches::counting::{Count, Counting, count};
use wukong_core::ids::{Epoch, Incarnation, NodeId, PeerProcess, Position, ShardId, SlotId, StoreId};
use wukong_core::link::{Group, Item, Links, Output, WIRE};
use wukong_core::raft::config::Replica;
use wukong_core::raft::message::{Body, Entry, Envelope, Fetch, Item as LogItem, Message};
use wukong_core::time::Instant;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const GROUPS: u16 = 64;

fn replica(node: u16) -> Replica {
    Replica { node: NodeId(node), store: StoreId(u128::from(node) << 100 | 0xABCD) }
}

/// Two nodes and the link between them.
struct Pair {
    ends: [Links; 2],
    out: Vec<Output>,
    items: Vec<Item>,
    bytes: usize,
    frames: usize,
}

impl Pair {
    fn new() -> Self {
        let ends = [1, 2].map(|node| {
            let mut links = Links::new(replica(node), Incarnation(41), 0xFEED << 100 | 7, 1, ShardId(0));
            let Replica { node, store } = replica(3 - node);
            links.up(PeerProcess { node, store, incarnation: Incarnation(41), shards: 1, wire: WIRE });
            links
        });
        Self { ends, out: Vec::new(), items: Vec::new(), bytes: 0, frames: 0 }
    }

    fn send(&mut self, from: u16, slot: u16, message: Message) {
        let (from, to) = (replica(from), replica(3 - from));
        let envelope = Envelope { from, to, from_incarnation: Incarnation(41), epoch: Epoch(12), message };
        let item = Item::Group { group: Group::Slot(SlotId(slot)), envelope };
        self.ends[usize::from(from.node.0) - 1].send(to.node, SlotId(slot), item);
    }

    /// What `from` has to say reaches the other side; how many items.
    fn exchange(&mut self, from: u16) -> usize {
        let at = usize::from(from) - 1;
        self.ends[at].flush(Instant(0), &mut self.out);
        self.items.clear();
        for output in self.out.drain(..) {
            let Output::Frame { frame, .. } = output else { panic!("{output:?}") };
            self.bytes += frame.len();
            self.frames += 1;
            self.ends[1 - at].receive(NodeId(from), Incarnation(41), &frame, &mut self.items).expect("our own");
        }
        self.items.len()
    }

    /// The half of the groups that `leader` leads beats, and is answered.
    fn beat(&mut self, leader: u16, seq: u64) {
        let led = || (0..GROUPS).filter(move |slot| slot % 2 == leader % 2);
        led().for_each(|slot| self.send(leader, slot, Message::Beat { seq, hw: 1_000_000 + u64::from(slot) }));
        assert_eq!(self.exchange(leader), usize::from(GROUPS) / 2);
        led().for_each(|slot| {
            let pos = Position { epoch: Epoch(12), index: 1_000_000 + u64::from(slot) };
            let (hw, answer_now, damaged) = (pos.index, false, false);
            self.send(
                3 - leader,
                slot,
                Message::Fetch(Fetch { seq, pos, durable: pos, hw, beat: seq, answer_now, damaged }),
            );
        });
        assert_eq!(self.exchange(3 - leader), usize::from(GROUPS) / 2);
    }
}

/// 64 slot groups, half of them led by each side, beat ten times a second; nothing else happens.
#[test]
fn an_idle_pair_is_nearly_silent() {
    let mut pair = Pair::new();
    let second =
        |pair: &mut Pair, s: u64| (0..10).for_each(|beat| (1..3).for_each(|n| pair.beat(n, s * 10 + beat + 1)));
    (0..100).for_each(|s| second(&mut pair, s));
    (pair.bytes, pair.frames) = (0, 0);
    let ((), Count { allocations, bytes, .. }) = count(|| (100..200).for_each(|s| second(&mut pair, s)));
    let per_frame = allocations as f64 / pair.frames as f64;
    println!(
        "idle: {} B/s, {} frames/s, {per_frame:.3} allocations ({} B) a frame",
        pair.bytes / 100,
        pair.frames / 100,
        bytes / pair.frames as u64
    );
    assert_eq!(pair.frames, 100 * 40);
    assert!(pair.bytes / 100 < 3_000, "{} B/s, both directions together", pair.bytes / 100);
    // Frames are cut from chunks of 8 KiB.
    assert!(per_frame < 0.03, "{per_frame} allocations a frame");
}

/// 64 entries of 300 bytes cost an allocation for the frame and one for each list that holds them; bodies are not copied.
#[test]
fn entries_are_not_copied_on_arrival() {
    let mut pair = Pair::new();
    let body = Bytes::from(vec![0x5A; 300]);
    let entry = |index| LogItem::Entry(Entry { index, epoch: Epoch(12), body: Body::Data(body.clone()) });
    let items: Vec<LogItem> = (1..65).map(entry).collect();
    let prev = Position { epoch: Epoch(12), index: 0 };
    let mut cost = Count::default();
    for _ in 0..20 {
        let items = Message::Items { prev, items: items.clone(), hw: 0, distributed: 0, leader_last: 64, fetch_seq: 1 };
        pair.send(1, 3, items);
        cost = count(|| assert_eq!(pair.exchange(1), 1)).1;
        pair.beat(2, 1);
    }
    println!("64 entries of 300 bytes: {} allocations of {} bytes", cost.allocations, cost.bytes);
    assert!(cost.allocations <= 14, "{cost:?}");
    assert!(cost.bytes < 64 * 300 * 2 + 30_000, "{cost:?}");
}
