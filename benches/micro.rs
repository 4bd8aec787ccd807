//! Times of the parts of a message's path, printed: `cargo bench -p wukong-benches`. Nothing is asserted.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use wukong_benches::counting::{Counting, count};
use wukong_benches::world::{World, pairs};
use wukong_core::ids::{Epoch, Incarnation, NodeId, PeerProcess, Position, ShardId, SlotId, StoreId};
use wukong_core::link::{self, Links, WIRE};
use wukong_core::raft::config::Replica;
use wukong_core::raft::message::{Body, Entry, Envelope, Item, Message};
use wukong_proto::{Flags, Recv, Send, Text, decode_one, encode_recv, encode_send};
use wukong_runtime::client::crypto::Keys;
use wukong_runtime::client::session::{recv_signature, send_signature};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs `work` for half a second, and prints time and allocations of one call.
fn time(name: &str, mut work: impl FnMut()) {
    work();
    let ((), counted) = count(&mut work);
    let (mut calls, mut batch, begin) = (0_u64, 1_u64, Instant::now());
    while begin.elapsed() < Duration::from_millis(500) {
        for _ in 0..batch {
            work();
        }
        calls += batch;
        batch = (batch * 2).min(1024);
    }
    let each = begin.elapsed().as_nanos() as f64 / calls as f64;
    println!("{name:<34} {each:>10.0} ns {:>5} allocations", counted.allocations);
}

fn keys() -> Keys {
    let secret = [7; 32].into();
    let other = [9; 32].into();
    let public = wukong_runtime::client::crypto::public_key(&other);
    Keys::derive(&secret, &public, "0123456789abcdef").expect("usable keys")
}

/// A frame with items of the log, from the queue of one node to the items that the other one is handed.
fn link() {
    let end = |node: u16| Replica { node: NodeId(node), store: StoreId(u128::from(node)) };
    let links = |node: u16| {
        let mut links = Links::new(end(node), Incarnation(1), 7, 1, ShardId(0));
        let Replica { node, store } = end(3 - node);
        links.up(PeerProcess { node, store, incarnation: Incarnation(1), shards: 1, wire: WIRE });
        links
    };
    let body = Body::Data(Bytes::from(vec![0x5A; 300]));
    let entry = |index| Item::Entry(Entry { index, epoch: Epoch(1), body: body.clone() });
    let envelope = Envelope {
        from: end(1),
        to: end(2),
        from_incarnation: Incarnation(1),
        epoch: Epoch(1),
        message: Message::Items {
            prev: Position::default(),
            items: (1..65).map(entry).collect(),
            hw: 0,
            distributed: 0,
            leader_last: 64,
            fetch_seq: 1,
        },
    };
    let item = link::Item::Group { group: link::Group::Slot(SlotId(0)), envelope };
    let (mut from, to, mut out) = (links(1), links(2), Vec::new());
    from.send(NodeId(2), SlotId(0), item.clone());
    from.flush(Default::default(), &mut out);
    let Some(link::Output::Frame { frame, .. }) = out.pop() else { panic!("a frame") };
    time("queue and encode", || {
        // A fresh copy: nobody credits what it sends.
        let mut from = from.clone();
        from.send(NodeId(2), SlotId(0), item.clone());
        from.flush(Default::default(), &mut out);
        drop(black_box(out.pop()));
    });
    let mut items = Vec::new();
    time("decode", || {
        items.clear();
        to.clone().receive(NodeId(1), Incarnation(1), black_box(&frame), &mut items).expect("our own");
    });
    assert_eq!(items, [item]);
    println!("{:<34} {:>10} bytes", "frame", frame.len());
}

fn main() {
    // `cargo test` builds this as well and runs it with --test.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let (keys, payload) = (keys(), [0x5A; 256]);
    let sealed = keys.encrypt(&payload);
    let (id, uid) = (Text::from("d3b07384-d9a0-4c9f-8c2a-5d2f1e6b7a90"), Text::from("user00001"));
    let hex = Text::from("b02a7f168e7ae7f1d1a920bbf3cbd990");
    let wire: Bytes = sealed.clone().into();

    println!("client side, 256 bytes");
    time("encrypt", || drop(black_box(keys.encrypt(black_box(&payload)))));
    time("decrypt", || drop(black_box(keys.decrypt(black_box(sealed.as_bytes())))));
    let send = Send {
        client_seq: 7,
        client_msg_no: id.clone(),
        channel_id: uid.clone(),
        channel_type: 1,
        msg_key: hex.clone(),
        payload: wire.clone(),
        flags: Flags::RED_DOT,
        ..Send::default()
    };
    let recv = Recv {
        from_uid: uid.clone(),
        channel_id: uid,
        channel_type: 1,
        client_msg_no: id,
        msg_key: hex,
        payload: wire,
        message_id: 1_783_445_566_778_899_456,
        message_seq: 42,
        ..Recv::default()
    };
    time("sign SEND", || {
        black_box(send_signature(&keys, &send));
    });
    time("sign RECV", || {
        black_box(recv_signature(&keys, &recv));
    });

    println!("codec, version 5");
    let mut out = BytesMut::with_capacity(1024);
    time("encode SEND", || {
        out.clear();
        encode_send(&send, 5, &mut out).expect("short");
    });
    let frame = out.clone().freeze();
    time("decode SEND", || drop(black_box(decode_one(black_box(&frame), 5))));
    time("encode RECV", || {
        out.clear();
        encode_recv(&recv, 5, &mut out).expect("short");
    });
    let frame = out.clone().freeze();
    time("decode RECV", || drop(black_box(decode_one(black_box(&frame), 5))));

    println!("link between two nodes, 64 entries of 300 bytes");
    link();

    println!("one shard, its time alone, per message");
    for per_round in [1_usize, 10, 100, 1000] {
        let mut world = World::new();
        let pairs = pairs(&mut world, 1000);
        world.take_tally();
        for at in 0..(20_000 / per_round) {
            let some: Vec<(usize, Text)> = (0..per_round).map(|i| pairs[(at * per_round + i) % 1000].clone()).collect();
            world.round(&some, &payload);
        }
        let tally = world.take_tally();
        let each = tally.per_message(tally.shard_time.as_nanos() as u64);
        let allocations = tally.per_message(tally.shard.allocations);
        println!(
            "{:<34} {each:>10.0} ns {allocations:>5.1} allocations",
            format!("{per_round} messages in one wake-up")
        );
    }
}
