//! Links between nodes (cluster-and-raft 4.20, 4.21, 4.26): what is sent arrives as it was sent, or not at all.

#![allow(clippy::disallowed_methods, clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

#[path = "link/credit.rs"]
mod credit;
#[path = "link/faults.rs"]
mod faults;
#[path = "link/kinds.rs"]
mod kinds;
#[path = "link/pair.rs"]
mod pair;
#[path = "link/rules.rs"]
mod rules;

use pair::{A, B, Pair, beat, fetch, links, process};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;
use wukong_core::ids::{Incarnation, LinkClass, SlotId};
use wukong_core::link::Item;

fn class_number(item: &Item) -> usize {
    LinkClass::ALL.iter().position(|c| *c == item.class()).expect("one of all")
}

/// By group and class, in order.
fn lanes(items: &[Item]) -> Vec<(String, Vec<Item>)> {
    let mut lanes: Vec<(String, Vec<Item>)> = Vec::new();
    for item in items {
        let group = match item {
            Item::Group { group, .. } => format!("{group:?} {}", class_number(item)),
            _ => format!("others {}", class_number(item)),
        };
        match lanes.iter_mut().find(|(g, _)| *g == group) {
            Some((_, list)) => list.push(item.clone()),
            None => lanes.push((group, vec![item.clone()])),
        }
    }
    lanes.sort_by(|a, b| a.0.cmp(&b.0));
    lanes
}

#[test]
fn every_kind_is_generated() {
    let mut runner = TestRunner::deterministic();
    let names: BTreeSet<&str> = (0..kinds::MESSAGES)
        .map(|kind| kinds::message(kind).new_tree(&mut runner).expect("a message").current().name())
        .collect();
    assert_eq!(names.len(), kinds::MESSAGES, "each number is another kind: {names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Encoding and decoding give back every item, each group's in order.
    #[test]
    fn what_is_sent_arrives(items in vec(kinds::item(), 1..40), steps in vec(1..10_usize, 1..10)) {
        let mut pair = Pair::new();
        let (mut arrived, mut rest) = (Vec::new(), items.as_slice());
        for n in steps.iter().cycle() {
            let (now, later) = rest.split_at((*n).min(rest.len()));
            pair.send(now.iter().cloned());
            arrived.extend(pair.exchange().1);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(lanes(&arrived), lanes(&items));
    }

    /// Whatever comes in is refused or read, never a panic, and a frame that was changed brings nothing down.
    #[test]
    fn garbage_is_refused(
        items in vec(kinds::item(), 0..5),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        noise in vec(any::<u8>(), 0..200),
    ) {
        let mut pair = Pair::new();
        pair.send(items);
        pair.send((0..4).map(|slot| beat(slot, 1, 1)));
        for (_, frame) in pair.frames_of_a() {
            let mut bytes = frame.to_vec();
            changes.iter().for_each(|(at, to)| { let at = at.index(bytes.len()); bytes[at] = *to });
            let mut b = pair.b.clone();
            let mut into = Vec::new();
            let _ = b.receive(A, Incarnation(1), &bytes.clone().into(), &mut into);
            bytes.truncate(cut.index(bytes.len()));
            let mut b = pair.b.clone();
            let _ = b.receive(A, Incarnation(1), &bytes.into(), &mut into);
            b.flush(pair.now, &mut Vec::new());
        }
        let mut into = Vec::new();
        let headed = [&[1, 0, 0][..], &noise].concat();
        let _ = pair.b.receive(A, Incarnation(1), &noise.into(), &mut into);
        let _ = pair.b.receive(A, Incarnation(1), &headed.into(), &mut into);
    }
}

/// 64 slot groups, led half here and half there, ten beats a second.
#[test]
fn idle_groups_cost_little() {
    let mut pair = Pair::new();
    let step = |pair: &mut Pair, seq: u64| {
        pair.send((0..64).map(|slot| beat(slot, seq, 40_000 + u64::from(slot))));
        let (_, beats) = pair.exchange();
        assert_eq!(beats, (0..64).map(|slot| beat(slot, seq, 40_000 + u64::from(slot))).collect::<Vec<_>>());
        (0..64).for_each(|slot| pair.b.send(A, SlotId(slot), fetch(slot, seq)));
        let (fetches, _) = pair.exchange();
        assert_eq!(fetches, (0..64).map(|slot| fetch(slot, seq)).collect::<Vec<_>>());
    };
    (1..=10).for_each(|seq| step(&mut pair, 1_000 + seq));
    let before = (pair.a.counters().clone(), pair.b.counters().clone());
    (11..=110).for_each(|seq| step(&mut pair, 1_000 + seq));
    let (a, b) = (pair.a.counters(), pair.b.counters());
    let frames = a.frames_out - before.0.frames_out + b.frames_out - before.1.frames_out;
    let bytes = a.bytes_out - before.0.bytes_out + b.bytes_out - before.1.bytes_out;
    assert_eq!(frames, 200);
    assert_eq!(a.lists_offered + b.lists_offered, 2, "one list of beats, one of fetches");
    assert_eq!((a.digests_missed, b.digests_missed), (0, 0));
    // The target is 5 KB/s with beats both ways, which doubles this.
    assert!(bytes < 20_000, "{bytes} bytes in 10 s");
}

#[test]
fn shards_are_told_apart() {
    let mut a = links(A, 1);
    a.up(process(B, 1, 4));
    for slot in 0..8 {
        a.send(B, SlotId(slot), beat(slot, 1, 1));
    }
    let frames = pair::frames(&mut a, wukong_core::time::Instant(0));
    let shards: Vec<u8> = frames.iter().map(|(_, f)| wukong_proto::peer::frame_shard(f).expect("ours")).collect();
    assert_eq!(shards, [0, 1, 2, 3], "one frame for each shard of the peer");
}
