//! One rule each.

use super::pair::{A, B, CLUSTER, MS, Pair, beat, chunk, envelope, fetch, frames, links, process, replica, said};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use wukong_core::ids::{ChannelKey, Epoch, Incarnation, LinkClass, Position, ShardId, SlotId, StoreId};
use wukong_core::limits;
use wukong_core::link::{FrameError, Group, Item, Links, Output, WIRE};
use wukong_core::raft::config::Replica;
use wukong_core::raft::message::{Body, Entry, Item as LogItem, Message};
use wukong_core::store::rows::Assignment;
use wukong_core::time::Instant;
use wukong_proto::Text;
use wukong_proto::peer::{self, Frame, decode_frame, encode_frame};

const SLOT: SlotId = SlotId(0);

fn data(slot: u16, index: u64, bytes: usize) -> Item {
    let entry = Entry { index, epoch: Epoch(3), body: Body::Data(Bytes::from(vec![1; bytes])) };
    let (prev, items) = (Position::default(), vec![LogItem::Entry(entry)]);
    said(A, slot, Message::Items { prev, items, hw: 0, distributed: 0, leader_last: index, fetch_seq: 1 })
}

fn resets(links: &mut Links, now: Instant) -> Vec<Output> {
    let mut out = Vec::new();
    links.flush(now, &mut out);
    out.into_iter().filter(|o| matches!(o, Output::Reset { .. })).collect()
}

fn reset_of(node: wukong_core::ids::NodeId) -> Vec<Output> {
    vec![Output::Reset { node, incarnation: Incarnation(1) }]
}

#[test]
fn each_item_has_its_class() {
    let key = ChannelKey { id: Text::from("g"), kind: 2 };
    let none = Message::Items {
        prev: Position::default(),
        items: vec![],
        hw: 1,
        distributed: 1,
        leader_last: 1,
        fetch_seq: 1,
    };
    for (item, class) in [
        (data(1, 1, 10), LinkClass::Data),
        (said(A, 1, none), LinkClass::Control),
        (chunk(1, 1, 10), LinkClass::Bulk),
        (fetch(1, 1), LinkClass::Control),
        (beat(1, 1, 1), LinkClass::Control),
        (Item::Assign { channel: key, assignment: Arc::new(Assignment::default()) }, LinkClass::Control),
    ] {
        assert_eq!(item.class(), class, "{item:?}");
    }
}

#[test]
fn without_a_link_items_are_dropped_and_counted() {
    let mut a = links(A, 1);
    a.send(B, SLOT, beat(1, 1, 1));
    a.up(process(B, 1, 1));
    a.send(B, SLOT, beat(1, 2, 1));
    a.down(B, Incarnation(9));
    assert!(a.process(B).is_some(), "another process than that one is up");
    a.down(B, Incarnation(1));
    a.send(B, SLOT, beat(1, 3, 1));
    assert!(frames(&mut a, Instant(0)).is_empty());
    assert_eq!((a.counters().dropped_not_up, a.counters().dropped_reset), (2, 1));
}

/// What is newer than a link's version is not sent by it; there is only version 1 so far.
#[test]
fn a_link_carries_nothing_newer_than_it_speaks() {
    let mut a = links(A, 1);
    a.up(wukong_core::ids::PeerProcess { wire: WIRE - 1, ..process(B, 1, 1) });
    a.send(B, SLOT, beat(1, 1, 1));
    assert!(frames(&mut a, Instant(0)).is_empty());
    assert_eq!(a.counters().dropped_version, 1);
}

#[test]
fn only_what_this_process_says_is_sent() {
    let mut pair = Pair::new();
    pair.send([fetch(1, 1)]);
    let mut older = envelope(A, Message::Fence);
    older.from_incarnation = Incarnation(0);
    pair.send([Item::Group { group: Group::Slot(SLOT), envelope: older }]);
    assert!(pair.frames_of_a().is_empty());
    assert_eq!(pair.a.counters().dropped_foreign, 2);
}

/// A message to a store that was on that node before reaches the node with the name of that store.
#[test]
fn the_addressed_store_is_kept() {
    let mut pair = Pair::new();
    let mut envelope = envelope(A, Message::Beat { seq: 1, hw: 1 });
    envelope.to = Replica { node: B, store: StoreId(99) };
    let item = Item::Group { group: Group::Slot(SLOT), envelope };
    pair.send([item.clone()]);
    assert_eq!(pair.exchange().1, [item]);
}

#[test]
fn frames_for_others_are_dropped_and_counted() {
    let mut pair = Pair::new();
    pair.send([beat(1, 1, 1)]);
    let frame = pair.frames_of_a().remove(0).1;
    let mut into = Vec::new();

    let mut stranger = Links::new(replica(B), Incarnation(1), CLUSTER + 1, 1, ShardId(0));
    stranger.up(process(A, 1, 1));
    stranger.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");
    let mut reborn = links(B, 2);
    reborn.up(process(A, 1, 1));
    reborn.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");
    let mut later = links(B, 1);
    later.up(process(A, 2, 1));
    later.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");
    later.up(process(A, 1, 1));
    later.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");
    let mut alone = links(B, 1);
    alone.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");
    let mut other_shard = Links::new(replica(B), Incarnation(1), CLUSTER, 2, ShardId(1));
    other_shard.up(process(A, 1, 1));
    other_shard.receive(A, Incarnation(1), &frame, &mut into).expect("dropped");

    assert_eq!(into, []);
    assert_eq!(stranger.counters().frames_other_cluster, 1);
    assert_eq!(reborn.counters().frames_misrouted, 1);
    assert_eq!(later.counters().frames_old_sender, 2, "a newer process of that store is known");
    assert_eq!(alone.counters().frames_not_up, 1);
    assert_eq!(other_shard.counters().frames_misrouted, 1);
    assert_eq!(pair.b_gets(&frame), [beat(1, 1, 1)]);
    assert_eq!(pair.b_gets(&frame), []);
    assert_eq!(pair.b.counters().frames_stale, 1);
}

/// The wiped disk of a node is another store, and counts its processes from 1 again.
#[test]
fn a_new_store_may_count_from_one() {
    let mut a = links(A, 1);
    a.up(process(B, 7, 1));
    let reborn = wukong_core::ids::PeerProcess { store: StoreId(3), ..process(B, 1, 1) };
    a.up(reborn);
    assert_eq!(a.process(B), Some(&reborn));
}

#[test]
fn unknown_kinds_are_refused_and_unknown_fields_are_skipped() {
    let mut pair = Pair::new();
    pair.send([beat(1, 1, 1), data(1, 1, 10)]);
    let frame = pair.frames_of_a().remove(0).1;
    let mut longer = BytesMut::from(&frame[..]);
    longer.put_slice(&[0xC2, 0x3E, 3, 1, 2, 3]);
    assert_eq!(pair.b_gets(&longer.freeze()), [beat(1, 1, 1)], "field 1000 means nothing here");

    let mut read = decode_frame(&frame).expect("ours");
    read.head.seq += 1;
    read.items.push(peer::Item { kind: None });
    let mut into = vec![beat(9, 9, 9)];
    let refused = pair.b.receive(A, Incarnation(1), &encode_frame(&read), &mut into);
    assert_eq!((refused, into), (Err(FrameError::Version), vec![beat(9, 9, 9)]));
    assert_eq!(resets(&mut pair.b, Instant(0)), reset_of(A), "the link is of no use");
    assert!(pair.b.process(A).is_none());
}

#[test]
fn a_frame_of_another_format_is_refused() {
    let mut pair = Pair::new();
    let mut into = Vec::new();
    for (bytes, error) in [
        (vec![], FrameError::Malformed),
        (vec![1, 0], FrameError::Malformed),
        (vec![2, 0, 0, 1], FrameError::Version),
        (vec![1, 0, 0, 0xFF], FrameError::Malformed),
        (vec![1; peer::FRAME_MAX + 1], FrameError::TooLarge),
    ] {
        assert_eq!(pair.b.receive(A, Incarnation(1), &bytes.into(), &mut into), Err(error));
    }
    let class = encode_frame(&Frame { class: 3, ..decode_frame(&sample()).expect("ours") });
    pair.b.up(process(A, 1, 1));
    assert_eq!(pair.b.receive(A, Incarnation(1), &class, &mut into), Err(FrameError::Version));
}

fn sample() -> Bytes {
    let mut pair = Pair::new();
    pair.send([beat(1, 1, 1)]);
    pair.frames_of_a().remove(0).1
}

#[test]
fn a_group_is_not_overtaken_by_its_own_messages() {
    let mut pair = Pair::new();
    let items = [
        said(A, 1, Message::Fence),
        beat(1, 1, 1),
        said(A, 1, Message::Wake),
        beat(1, 2, 1),
        beat(1, 3, 1),
        said(A, 1, Message::ReadReq { ctx: 4 }),
        beat(1, 4, 1),
    ];
    pair.send(items.clone());
    assert_eq!(pair.frames_of_a().len(), 1, "one step, one frame");
    pair.send(items.clone());
    assert_eq!(pair.exchange().1, items);
}

/// A full queue of snapshots and of items holds up neither the class before it.
#[test]
fn no_class_waits_for_another() {
    let mut pair = Pair::new();
    (0..4).for_each(|id| pair.send([chunk(1, id, limits::PAYLOAD_MAX)]));
    let first = pair.frames_of_a();
    assert_eq!(first.iter().map(|(c, _)| *c).collect::<Vec<_>>(), [LinkClass::Bulk]);
    for i in 0..14 {
        pair.send([data(1, i, limits::PAYLOAD_MAX)]);
    }
    pair.send([beat(1, 1, 1)]);
    let then: Vec<LinkClass> = pair.frames_of_a().iter().map(|(c, _)| *c).collect();
    assert_eq!(then, [LinkClass::Control, LinkClass::Data], "bulk waits for credit");
    let then: Vec<LinkClass> = pair.frames_of_a().iter().map(|(c, _)| *c).collect();
    assert_eq!(then, [LinkClass::Data], "the rest of a window, in a frame of its own");
    pair.send([beat(1, 2, 1), data(1, 20, 10)]);
    let then: Vec<LinkClass> = pair.frames_of_a().iter().map(|(c, _)| *c).collect();
    assert_eq!(then, [LinkClass::Control], "data waits too");
}

#[test]
fn what_no_frame_can_hold_is_dropped() {
    let mut pair = Pair::new();
    pair.send([chunk(1, 1, limits::LINK_ITEM_MAX), chunk(1, 2, 10)]);
    assert_eq!(pair.exchange().1, [chunk(1, 2, 10)]);
    assert_eq!(pair.a.counters().dropped_too_large, 1);
}

#[test]
fn a_full_data_queue_drops_the_oldest() {
    let mut pair = Pair::new();
    let count = 100;
    (0..count).for_each(|i| pair.send([data(1, i, 1_000_000)]));
    let (_, arrived) = pair.exchange();
    let dropped = pair.a.counters().dropped_full;
    assert_eq!(dropped, count - 16, "16 MiB hold 16 of them");
    assert_eq!(arrived, (dropped..count).map(|i| data(1, i, 1_000_000)).collect::<Vec<_>>());
}

#[test]
fn a_peer_that_takes_nothing_is_said_to_be_full_until_half_is_gone() {
    let mut pair = Pair::new();
    let piece = limits::PAYLOAD_MAX;
    let window = limits::LINK_DATA_WINDOW / piece;
    (0..window as u64).for_each(|i| pair.send([data(1, i, piece)]));
    while !pair.frames_of_a().is_empty() {}
    let told = |links: &mut Links| (links.full().to_vec(), links.take_drained());
    assert_eq!(told(&mut pair.a), (vec![], true), "a window of it left at once");
    let mut sent = 0;
    while pair.a.full().is_empty() {
        pair.send([data(1, sent, piece)]);
        sent += 1;
        assert!(sent as usize * piece < limits::LINK_DATA_QUEUE_MAX, "long before anything is dropped");
    }
    assert_eq!(told(&mut pair.a), (vec![B], false));
    assert_eq!((frames(&mut pair.a, Instant(0)), pair.a.full()), (vec![], &[B][..]), "there is no credit");
    pair.a.down(B, Incarnation(1));
    assert_eq!(frames(&mut pair.a, Instant(0)), []);
    assert_eq!(told(&mut pair.a), (vec![], true), "the link ended");
    assert_eq!(told(&mut pair.a), (vec![], false), "said once");
    pair.a.up(process(B, 1, 1));
    (0..8).for_each(|i| pair.send([data(1, i, piece)]));
    assert_eq!(pair.a.full(), [B]);
    pair.exchange();
    assert_eq!(told(&mut pair.a), (vec![], true), "all arrived");
    assert_eq!(pair.a.counters().dropped_full, 0);
}

#[test]
fn a_full_control_queue_resets_the_link() {
    let mut pair = Pair::new();
    for ctx in 0..1_000_000 {
        pair.send([said(A, 1, Message::ReadReq { ctx })]);
        if pair.a.process(B).is_none() {
            break;
        }
    }
    assert_eq!(resets(&mut pair.a, Instant(0)), reset_of(B));
    assert!(pair.a.counters().dropped_reset > 1000);
    assert_eq!((frames(&mut pair.a, Instant(0)), pair.a.counters().resets), (vec![], 1));
    pair.a.up(process(B, 1, 1));
    pair.send([beat(1, 1, 1)]);
    assert_eq!(pair.exchange().1, [beat(1, 1, 1)], "a new link starts over");
}

#[test]
fn a_link_without_credit_for_long_is_reset() {
    let mut pair = Pair::new();
    (0..12).for_each(|i| pair.send([data(1, i, limits::PAYLOAD_MAX)]));
    pair.frames_of_a();
    pair.frames_of_a();
    let stall = limits::LINK_STALL.as_nanos() as u64;
    assert_eq!(pair.a.deadline(), Instant(stall));
    pair.now = Instant(stall - MS);
    assert_eq!(pair.frames_of_a(), []);
    assert_eq!(resets(&mut pair.a, Instant(stall)), reset_of(B));
    assert_eq!(pair.a.deadline(), Instant::NEVER);
}

/// What a peer says of an older session of mine gives no credit to the newer one.
#[test]
fn credit_belongs_to_a_session() {
    let mut pair = Pair::new();
    let fill = |pair: &mut Pair| {
        (0..14).for_each(|i| pair.send([data(1, i, limits::PAYLOAD_MAX)]));
        [pair.frames_of_a(), pair.frames_of_a()].concat()
    };
    for (_, frame) in fill(&mut pair) {
        pair.b_gets(&frame);
    }
    let credit = pair.frames_of_b().remove(0).1;
    pair.a.up(process(B, 1, 1));
    let second = fill(&mut pair);
    pair.a_gets(&credit);
    assert_eq!(pair.frames_of_a(), [], "the window of this session is full");
    for (_, frame) in second {
        pair.b_gets(&frame);
    }
    let credit = pair.frames_of_b().remove(0).1;
    pair.a_gets(&credit);
    assert_eq!(pair.frames_of_a().len(), 1);
}

/// A peer that keeps another list than it is asked for says so, delivers nothing wrong, and is sent everything.
#[test]
fn a_list_that_is_missed_is_sent_again() {
    let mut pair = Pair::new();
    let round = |seq| (0..10).map(|slot| beat(slot, seq, 1)).collect::<Vec<_>>();
    let mut forgetful = pair.b.clone();
    pair.send(round(1));
    pair.exchange();
    // Any frame back says that the list is kept.
    pair.b.send(A, SLOT, fetch(1, 1));
    pair.exchange();
    // Its frames go on with the numbers of the process that it stands for.
    for _ in 0..5 {
        forgetful.send(A, SLOT, fetch(1, 1));
        frames(&mut forgetful, pair.now);
    }
    pair.b = forgetful;
    pair.send(round(2));
    let frame = pair.frames_of_a().remove(0).1;
    assert!(frame.len() < 120, "a digest, not ten beats: {} bytes", frame.len());
    assert_eq!(pair.b_gets(&frame), []);
    assert_eq!(pair.b.counters().digests_missed, 1);
    let (_, nothing) = pair.exchange();
    assert_eq!(nothing, []);
    pair.send(round(3));
    assert_eq!(pair.exchange().1, round(3));
    assert_eq!(pair.a.counters().lists_offered, 2);
}

/// Groups that beat out of step, and groups that are busy, cost their own bytes and no more lists.
#[test]
fn some_busy_groups_do_not_undo_the_list() {
    let mut pair = Pair::new();
    let mut seqs = [100_u64; 64];
    for step in 0..200_u64 {
        let due = (0..64).filter(|slot| u64::from(*slot) % 2 == step % 2);
        let items: Vec<Item> = due
            .map(|slot: u16| {
                let s = usize::from(slot);
                seqs[s] += if slot < 4 { 3 } else { 1 };
                beat(slot, seqs[s], if slot < 4 { step } else { 7 })
            })
            .collect();
        pair.send(items.clone());
        pair.b.send(A, SLOT, said(B, 1, Message::Wake));
        let mut arrived = pair.exchange().1;
        arrived.sort_by_key(|item| match item {
            Item::Group { group, .. } => Some(group.clone()),
            _ => None,
        });
        assert_eq!(arrived, items, "step {step}");
    }
    let offered = pair.a.counters().lists_offered;
    assert!((2..=12).contains(&offered), "{offered} lists in 200 steps");
}
