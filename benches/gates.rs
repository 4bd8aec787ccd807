//! Bounds on what a message costs, in things that can be counted. Each bound is about a quarter above the count of the
//! day it was set: raise one only together with the reason.

use wukong_benches::counting::Counting;
use wukong_benches::world::{Tally, World, pairs};
use wukong_proto::Text;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PAYLOAD: [u8; 256] = [0x5A; 256];

/// Rounds in which `per_round` of `count` pairs send one message each, after as many that are not counted.
fn script(count: usize, per_round: usize, rounds: usize) -> Tally {
    let mut world = World::new();
    let pairs = pairs(&mut world, count);
    let rounds_of = |world: &mut World, rounds: usize| {
        for round in 0..rounds {
            let some: Vec<(usize, Text)> =
                (0..per_round).map(|i| pairs[(round * per_round + i) % count].clone()).collect();
            world.round(&some, &PAYLOAD);
        }
    };
    rounds_of(&mut world, rounds);
    world.take_tally();
    rounds_of(&mut world, rounds);
    let tally = world.take_tally();
    println!("{count} pairs, {per_round} messages a wake-up:\n{tally:#?}");
    for (what, n) in [
        ("allocations", tally.shard.allocations),
        ("allocated bytes", tally.shard.bytes),
        ("batch bytes", tally.batch_bytes),
        ("syncs", tally.syncs),
        ("batches", tally.batches),
        ("socket reads", tally.reads),
        ("socket writes", tally.writes),
        ("written bytes", tally.written),
    ] {
        println!("  {what} per message: {:.3}", tally.per_message(n));
    }
    assert_eq!(tally.acked, (per_round * rounds) as u64, "one SENDACK per SEND");
    assert_eq!(tally.delivered, tally.acked, "one RECV per message");
    tally
}

#[track_caller]
fn at_most(tally: &Tally, what: &str, count: u64, bound: f64) {
    let found = tally.per_message(count);
    assert!(found <= bound, "{what} per message: {found:.3}, at most {bound} are allowed");
}

#[test]
fn a_lone_message_costs_one_sync() {
    let tally = script(10, 1, 500);
    // Beside its own, a share of the sync that reserves message ids once a second.
    at_most(&tally, "syncs", tally.syncs, 1.01);
    at_most(&tally, "batches", tally.batches, 1.01);
    at_most(&tally, "loads", tally.loads, 0.0);
    at_most(&tally, "allocations", tally.shard.allocations, 14.0);
    at_most(&tally, "allocated bytes", tally.shard.bytes, 2_600.0);
}

#[test]
fn messages_of_one_wake_up_share_a_sync() {
    let tally = script(100, 50, 100);
    at_most(&tally, "syncs", tally.syncs, 0.0202);
    at_most(&tally, "batches", tally.batches, 0.0202);
    at_most(&tally, "loads", tally.loads, 0.0);
    at_most(&tally, "allocations", tally.shard.allocations, 9.5);
    at_most(&tally, "allocated bytes", tally.shard.bytes, 3_300.0);
    // A SENDACK and a RECV; nothing is written twice.
    at_most(&tally, "socket writes", tally.writes, 2.0);
    at_most(&tally, "written bytes", tally.written, 520.0);
    // 256 bytes of payload, 36 of client_msg_no, and all indexes with their keys.
    at_most(&tally, "batch bytes", tally.batch_bytes, 620.0);
}

#[test]
fn many_messages_of_one_sender_share_writes() {
    let mut world = World::new();
    let pairs = pairs(&mut world, 1);
    let burst: Vec<(usize, Text)> = (0..50).map(|_| pairs[0].clone()).collect();
    world.round(&burst, &PAYLOAD);
    world.take_tally();
    for _ in 0..20 {
        world.round(&burst, &PAYLOAD);
    }
    let tally = world.take_tally();
    assert_eq!((tally.acked, tally.delivered), (1000, 1000));
    at_most(&tally, "syncs", tally.syncs, 0.0202);
    at_most(&tally, "socket writes", tally.writes, 0.05);
}

#[test]
fn a_new_channel_acknowledges_after_two_syncs() {
    let mut world = World::new();
    let sender = world.connect("sender");
    world.take_tally();
    for i in 0..100 {
        world.round(&[(sender, format!("stranger{i}").into())], &PAYLOAD);
    }
    let tally = world.take_tally();
    println!("new channels: {tally:#?}");
    assert_eq!(tally.acked, 100);
    at_most(&tally, "syncs before the SENDACK", tally.syncs_before_acks, 2.02);
    // One more for what follows: the conversation of the receiver.
    at_most(&tally, "syncs", tally.syncs, 3.02);
}

#[test]
fn an_idle_connection_is_small() {
    let mut world = World::new();
    // Key exchanges are slow without optimisation, hence so few.
    for i in 0..300 {
        world.connect(&format!("user{i:04}"));
    }
    let tally = world.take_tally();
    let each = tally.shard.live / 300;
    println!("an idle connection holds {each} bytes of the shard");
    assert!(each <= 2_048, "an idle connection holds {each} bytes of the shard");
}
