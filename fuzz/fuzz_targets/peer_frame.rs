//! Frames between nodes: arbitrary bytes, decoded as they are, and handed to a shard's links twice.
//!
//! Input: a frame. It is read by the codec, and by the links of node 2, to which a link from node 1 is open; then again with the
//! addresses and numbers set right, so that its items and packs are reached.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use wukong_core::ids::{Incarnation, NodeId, PeerProcess, ShardId, StoreId};
use wukong_core::link::{Links, WIRE};
use wukong_core::raft::config::Replica;
use wukong_core::time::Instant;
use wukong_proto::peer::{Frame, decode_frame, encode_frame, frame_class, frame_shard};

const PEER: NodeId = NodeId(1);

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let mut links = links();
    feed(&mut links, &bytes);
    let Ok(frame) = decode_frame(&bytes) else { return };
    assert_eq!((frame_class(&bytes), frame_shard(&bytes)), (Some(frame.class), Some(frame.shard)));
    // What was decoded can be encoded, and that is the same frame.
    let again = encode_frame(&frame);
    assert_eq!(decode_frame(&again).as_ref(), Ok(&frame));

    for seq in 1..3 {
        feed(&mut links, &encode_frame(&addressed(frame.clone(), seq)));
    }
});

fn links() -> Links {
    let me = Replica { node: NodeId(2), store: StoreId(2) };
    let mut links = Links::new(me, Incarnation(1), 0, 1, ShardId(0));
    let peer = PeerProcess { node: PEER, store: StoreId(1), incarnation: Incarnation(1), shards: 1, wire: WIRE };
    links.up(peer);
    links
}

fn addressed(mut frame: Frame, seq: u64) -> Frame {
    let head = &mut frame.head;
    (head.cluster_high, head.cluster_low, head.from, head.to) = (0, 0, 1, 2);
    (head.from_incarnation, head.to_incarnation, head.from_shard) = (1, 1, 0);
    (head.session, head.heard, head.seq) = (1, 1, seq);
    (frame.class, frame.shard) = (frame.class % 3, 0);
    frame
}

fn feed(links: &mut Links, frame: &Bytes) {
    let (mut items, before) = (Vec::new(), links.counters().clone());
    let read = links.receive(PEER, Incarnation(1), frame, &mut items);
    assert!(read.is_ok() || items.is_empty());
    let after = links.counters();
    assert_eq!(after.frames_in, before.frames_in + 1);
    assert_eq!(after.items_in, before.items_in + items.len() as u64);
    let mut out = Vec::new();
    links.flush(Instant(0), &mut out);
    assert!(out.len() <= 1, "a frame or a reset");
}
