//! Flow control of a link (cluster-and-raft 4.21).

use super::pair::{A, B, Pair, chunk, replica, said};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::VecDeque;
use wukong_core::ids::{Epoch, LinkClass, Position, SlotId};
use wukong_core::limits;
use wukong_core::link::Item;
use wukong_core::raft::message::{Body, Entry, Item as LogItem, Message};

#[derive(Clone, Debug)]
enum Move {
    /// So many bytes in a class.
    Send(LinkClass, usize),
    /// The oldest frames of a class arrive.
    Arrive(LinkClass, usize),
    /// What B has to say arrives at A.
    Credit,
}

fn class() -> impl Strategy<Value = LinkClass> {
    prop_oneof![2 => Just(LinkClass::Data), 1 => Just(LinkClass::Bulk), 1 => Just(LinkClass::Control)]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let size = prop_oneof![0..2_000_usize, 300_000..1_400_000_usize];
    let one = prop_oneof![
        6 => (class(), size).prop_map(|(class, size)| Move::Send(class, size)),
        2 => (class(), 1..4_usize).prop_map(|(class, n)| Move::Arrive(class, n)),
        1 => Just(Move::Credit),
    ];
    vec(one, 1..80)
}

fn item(class: LinkClass, number: u64, size: usize) -> Item {
    match class {
        LinkClass::Control => said(A, 1, Message::ReadReq { ctx: number }),
        LinkClass::Bulk => chunk(1, number, size),
        LinkClass::Data => {
            let body = Body::Data(Bytes::from(vec![3; size]));
            let items = vec![LogItem::Entry(Entry { index: number, epoch: Epoch(1), body })];
            let prev = Position::default();
            said(A, 1, Message::Items { prev, items, hw: 0, distributed: 0, leader_last: 0, fetch_seq: 0 })
        }
    }
}

fn window(class: LinkClass) -> usize {
    match class {
        LinkClass::Control => limits::LINK_CONTROL_WINDOW,
        LinkClass::Data => limits::LINK_DATA_WINDOW,
        LinkClass::Bulk => limits::LINK_BULK_WINDOW,
    }
}

/// Frames of A on their way, and what was sent and has arrived.
struct Wire {
    pair: Pair,
    queues: [VecDeque<Bytes>; 3],
    sent: [Vec<Item>; 3],
    arrived: [Vec<Item>; 3],
}

impl Wire {
    fn flush(&mut self) {
        for (class, frame) in self.pair.frames_of_a() {
            assert!(frame.len() <= limits::LINK_FRAME_BYTES + limits::LINK_ITEM_MAX + limits::LINK_PACK_BYTES);
            self.queues[class as usize].push_back(frame);
        }
        for class in LinkClass::ALL {
            let bytes: usize = self.queues[class as usize].iter().map(Bytes::len).sum();
            assert!(bytes <= window(class), "{class:?}: {bytes} bytes under way");
        }
    }

    fn arrive(&mut self, class: LinkClass, n: usize) {
        for _ in 0..n {
            let Some(frame) = self.queues[class as usize].pop_front() else { return };
            let items = self.pair.b_gets(&frame);
            self.arrived[class as usize].extend(items);
        }
    }

    fn credit(&mut self) {
        for (class, frame) in self.pair.frames_of_b() {
            assert_eq!(class, LinkClass::Control, "credit rides in small frames");
            self.pair.a_gets(&frame);
        }
        self.flush();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// Never more than the window is under way, and when everything that left has arrived, everything that was sent has.
    #[test]
    fn windows_hold_and_all_arrives(moves in moves()) {
        let mut wire = Wire { pair: Pair::new(), queues: Default::default(), sent: Default::default(), arrived: Default::default() };
        for (number, step) in (0..).zip(moves) {
            match step {
                Move::Send(class, size) => {
                    let item = item(class, number, size);
                    wire.sent[class as usize].push(item.clone());
                    wire.pair.send([item]);
                    // What the queues cannot hold is another test's concern.
                    if wire.pair.a.counters().dropped_full > 0 {
                        return Ok(());
                    }
                }
                Move::Arrive(class, n) => wire.arrive(class, n),
                Move::Credit => wire.credit(),
            }
            wire.flush();
        }
        for _ in 0..100 {
            LinkClass::ALL.into_iter().for_each(|class| wire.arrive(class, usize::MAX));
            wire.credit();
        }
        prop_assert_eq!(&wire.arrived, &wire.sent);
        prop_assert_eq!(wire.pair.a.counters().resets, 0);
    }
}

/// Both sides are out of credit in class Control: what says so is exempt, or neither would ever speak again.
#[test]
fn credit_itself_needs_none() {
    let mut pair = Pair::new();
    let long = |slot: u16, from| {
        let successors = vec![replica(A); 255];
        said(from, slot, Message::EndEpoch { successors })
    };
    let (mut waits, mut held) = (0, Vec::new());
    while waits < 2 {
        (0..200).for_each(|slot| pair.a.send(B, SlotId(0), long(slot, A)));
        (0..200).for_each(|slot| pair.b.send(A, SlotId(0), long(slot, B)));
        let (from_a, from_b) = (pair.frames_of_a(), pair.frames_of_b());
        waits = pair.a.counters().credit_waits + pair.b.counters().credit_waits;
        // Delivered only at the end: until then both are under way.
        held.extend(from_a.into_iter().map(|(_, frame)| (true, frame)));
        held.extend(from_b.into_iter().map(|(_, frame)| (false, frame)));
    }
    let sent = pair.a.counters().items_out;
    for (from_a, frame) in held {
        if from_a { drop(pair.b_gets(&frame)) } else { drop(pair.a_gets(&frame)) }
    }
    pair.exchange();
    assert!(pair.a.counters().items_out > sent, "what waited has left");
    assert_eq!(pair.a.counters().items_out, pair.b.counters().items_in);
}
