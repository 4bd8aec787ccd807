//! What a hostile review of the core asked, as scripts against one or more shards.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod support;

use bytes::BytesMut;
use support::{Disk, Node, SECOND, WALL, config, send_frame};
use wukong_core::api::{ApiAnswer, ApiRequest, ConversationSync, MessageSync};
use wukong_core::ids::{ChannelKey, ConnId, NodeId, slot_of};
use wukong_core::store::{Family, keys};
use wukong_core::{Input, ShardConfig};
use wukong_proto::ReasonCode;

fn successes(acks: &[(ReasonCode, u64, i64)]) -> usize {
    acks.iter().filter(|a| a.0 == ReasonCode::SUCCESS).count()
}

fn burst(to: &str, count: usize) -> BytesMut {
    let mut all = BytesMut::new();
    for i in 0..count {
        all.extend_from_slice(&send_frame(to, &format!("n{i}"), "x"));
    }
    all
}

// ---- turns

#[test]
fn what_the_drain_admits_is_appended_without_another_input() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.send(1, "bob", "first", "x");
    n.take(1);
    n.bytes(1, &burst("bob", 100));
    assert_eq!(successes(&n.acks(1)), 100);
}

#[test]
fn a_client_may_pipeline_as_much_as_its_owner_lets_in() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.send(1, "bob", "first", "x");
    n.take(1);
    n.bytes(1, &burst("bob", 1_010));
    n.pass(1);
    assert_eq!(successes(&n.acks(1)), 1_010);
}

// ---- credit

#[test]
fn sends_waiting_at_their_authority_do_not_hold_the_credit_they_need() {
    let mut n = Node::new(ShardConfig { mail_credit: 64, ..config(1) });
    n.connected(0, 1, "alice");
    n.bytes(1, &burst("bob", 70));
    n.pass(1);
    assert_eq!(successes(&n.acks(1)), 70);
}

#[test]
fn nine_clients_that_pipeline_do_not_stop_a_shard() {
    let mut n = Node::new(config(1));
    for c in 1..=9 {
        n.connected(0, c, &format!("u{c}"));
    }
    // The shell drains ready sockets, then the outputs.
    let bytes = burst("bob", 1_000).freeze();
    for c in 1..=9 {
        let conn = ConnId(c);
        let bytes = bytes.clone();
        n.feed(0, Input::ConnReceived { conn, bytes });
    }
    n.run();
    n.pass(1);
    n.pass(1);
    let acked: usize = (1..=9).map(|c| successes(&n.acks(c))).sum();
    assert_eq!(acked, 9_000);
}

#[test]
fn pushes_do_not_hold_the_credit_of_their_deliveries() {
    let mut n = Node::new(ShardConfig { mail_credit: 64, ..config(1) });
    let users = 80;
    for c in 0..users {
        n.connected(0, c, &format!("u{c}"));
        n.send(c, "bob", "first", "x");
        n.take(c);
    }
    n.connected(0, 1_000, "bob");
    n.hold = true;
    for c in 0..users {
        let bytes = send_frame("bob", "second", "x").freeze();
        let conn = ConnId(c);
        n.feed(0, Input::ConnReceived { conn, bytes });
    }
    n.run();
    assert_eq!(n.held.len(), 1, "all channels commit with one write");
    n.release();
    n.pass(1);
    assert_eq!(n.recvs(1_000).len(), users as usize);
}

#[test]
fn two_shards_that_push_to_each_other_do_not_wait_for_each_other() {
    let mut n = Node::new(ShardConfig { mail_credit: 64, ..config(2) });
    // Receivers whose authority is the other shard than the channel's, and whose socket is the channel's shard.
    let mut pairs = Vec::new();
    for i in 0.. {
        let (a, b) = (format!("s{i}"), format!("r{i}"));
        let channel = wukong_core::channel::id::compose(&a, &b);
        let (hc, ha, hb) = (n.home(&channel), n.home(&a), n.home(&b));
        if hb != hc && ha == hc && pairs.iter().filter(|(_, _, h)| *h == hc).count() < 100 {
            pairs.push((a, b, hc));
        }
        if pairs.len() == 200 {
            break;
        }
    }
    for (i, (a, b, h)) in pairs.iter().enumerate() {
        let i = i as u64;
        n.connected(*h, 2 * i, a);
        n.connected(*h, 2 * i + 1, b);
        n.send(2 * i, b, "first", "x");
        n.take(2 * i);
        n.take(2 * i + 1);
    }
    n.hold = true;
    for (i, (_, b, _)) in pairs.iter().enumerate() {
        n.send(2 * i as u64, b, "second", "x");
    }
    n.release();
    n.pass(1);
    let got: usize = (0..pairs.len()).map(|i| n.recvs(2 * i as u64 + 1).len()).sum();
    assert_eq!(got, pairs.len());
}

// ---- outside bytes

#[test]
fn a_login_uid_of_any_length_is_answered() {
    let mut n = Node::new(config(1));
    let q = MessageSync {
        login_uid: "x".repeat(70_000).as_str().into(),
        channel_id: "bob".into(),
        channel_type: 1,
        ..MessageSync::default()
    };
    assert!(matches!(n.call(ApiRequest::MessageSync(q)), ApiAnswer::Refused(_)));
}

#[test]
fn a_conversation_uid_of_any_length_is_answered() {
    let mut n = Node::new(config(1));
    let q = ConversationSync { uid: "x".repeat(70_000).as_str().into(), msg_count: 1, ..ConversationSync::default() };
    assert!(matches!(n.call(ApiRequest::ConversationSync(q)), ApiAnswer::Refused(_)));
}

#[test]
fn seqs_at_the_end_of_u64_are_only_numbers() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.send(1, "bob", "n1", "x");
    let q = ConversationSync {
        uid: "bob".into(),
        msg_count: i64::MAX,
        last_seqs: vec![("alice".into(), 1, u64::MAX)],
        ..ConversationSync::default()
    };
    assert_eq!(n.call(ApiRequest::ConversationSync(q)), ApiAnswer::Conversations(Vec::new()));
}

#[test]
fn windows_at_the_end_of_u64_are_empty() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.send(1, "bob", "n1", "x");
    for up in [false, true] {
        let q = MessageSync {
            login_uid: "bob".into(),
            channel_id: "alice".into(),
            channel_type: 1,
            start: u64::MAX,
            end: u64::MAX,
            limit: 10_000,
            up,
        };
        let ApiAnswer::Messages(page) = n.call(ApiRequest::MessageSync(q)) else { panic!("refused") };
        assert!(page.messages.is_empty() && !page.more);
    }
}

// ---- slow starts

#[test]
fn a_shard_that_starts_later_is_asked_again_soon() {
    let mut n = Node::cold(Disk::default(), 1, config(2), WALL);
    // Sender and channel on shard 0, the peer on shard 1.
    let alice = n.uid_on(0, "alice");
    let bob = (0..)
        .map(|i| format!("bob{i}"))
        .find(|b| n.home(b) == 1 && n.home(&wukong_core::channel::id::compose(&alice, b)) == 0)
        .unwrap();
    n.boot(0);
    n.hold = true;
    n.boot(1);
    // Shard 1 exists and drops what it cannot do yet; shard 0 already serves.
    n.hold = false;
    let held = core::mem::take(&mut n.held);
    n.connected(0, 1, &alice);
    n.send(1, &bob, "n1", "x");
    assert!(n.take(1).is_empty(), "the directory is not ready");
    n.held = held;
    n.release();
    assert!(n.ready());
    n.pass(3 * SECOND);
    assert_eq!(successes(&n.acks(1)), 1);
}

#[test]
fn an_unreadable_row_at_boot_stops_one_slot_and_not_the_shard() {
    let mut n = Node::new(config(1));
    // An entry that is durable and not applied.
    n.hold = true;
    let token = ApiRequest::SetToken { uid: "alice".into(), token: "t".into(), device_flag: 0, device_level: 0 };
    n.call_at(0, token);
    n.sync_one();
    assert_eq!(n.answers.len(), 1);
    let slot = slot_of("alice", 64);
    let mut next = Node::cold(n.disk.clone(), 2, n.config.clone(), WALL);
    next.unreadable = Some((Family::Meta, keys::device(slot, "alice", 0).to_vec()));
    next.boot_all();
    assert!(next.ready(), "the other slots serve");
}

#[test]
fn entries_of_a_slot_whose_rows_were_unreadable_are_not_skipped() {
    let mut n = Node::new(config(1));
    let slot = slot_of("alice", 64);
    // More entries than one page of the boot's reader, none of them applied on disk.
    n.hold = true;
    for i in 0..1_100 {
        let token = ApiRequest::SetToken {
            uid: "alice".into(),
            token: format!("t{i}").as_str().into(),
            device_flag: 0,
            device_level: 0,
        };
        n.call_at(0, token);
    }
    for (_, _, batch) in core::mem::take(&mut n.held) {
        n.disk.write(&batch);
    }
    // What was applied is lost with the crash; the log is not.
    n.disk.0.remove(&(Family::Meta, keys::single(slot, keys::table::APPLIED).to_vec()));
    n.disk.0.remove(&(Family::Meta, keys::device(slot, "alice", 0).to_vec()));
    let mut next = Node::cold(n.disk.clone(), 2, ShardConfig { token_auth: true, ..config(1) }, WALL);
    next.unreadable = Some((Family::Meta, keys::device(slot, "alice", 0).to_vec()));
    next.boot_all();
    next.unreadable = None;
    // The slot must not serve as if the log were empty.
    let token = ApiRequest::SetToken { uid: "alice".into(), token: "later".into(), device_flag: 1, device_level: 0 };
    next.call_at(0, token);
    let device = next.disk.0.get(&(Family::Meta, keys::device(slot, "alice", 0).to_vec()));
    let applied = next.disk.0.get(&(Family::Meta, keys::single(slot, keys::table::APPLIED).to_vec()));
    assert!(applied.is_none() || device.is_some(), "applied moved past entries that were never applied");
}

#[test]
fn a_channel_whose_slot_stops_refuses_and_leaves() {
    let mut n = Node::new(ShardConfig { overlay_rows_max: 0, ..config(1) });
    n.connected(0, 1, "alice");
    let key = ChannelKey { id: wukong_core::channel::id::compose("alice", "bob"), kind: 1 };
    let slot = slot_of(&key.id, 64);
    n.hold_loads = true;
    n.send(1, "bob", "n1", "x");
    n.load_one();
    n.unreadable = Some((Family::Meta, keys::assignment(slot, &key).to_vec()));
    n.hold_loads = false;
    n.run();
    assert_eq!(n.acks(1).len(), 1, "a definite refusal, at once");
    n.unreadable = None;
    n.idle(100);
    assert_eq!(n.channels(), 0, "a channel that cannot serve is forgotten");
}

#[test]
fn a_replica_that_is_no_voter_does_not_ask_for_ever() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.send(1, "bob", "n1", "x");
    let other = ShardConfig { node: NodeId(9), ..config(1) };
    let mut next = Node::cold(n.disk.clone(), 2, other, WALL);
    next.hold = true;
    next.boot_all();
    for _ in 0..300 {
        if next.held.is_empty() {
            return;
        }
        next.sync_one();
    }
    panic!("{} writes and no end", next.persists);
}

// ---- dedup

#[test]
fn a_resend_on_a_second_connection_while_the_first_is_in_flight_is_one_message() {
    let mut n = Node::new(ShardConfig { dedup_bytes_max: 0, overlay_rows_max: 0, ..config(3) });
    n.connect(0, 1, "alice", "d1");
    n.connect(1, 2, "alice", "d2");
    n.connected(2, 3, "bob");
    n.send(1, "bob", "first", "x");
    for c in [1, 2, 3] {
        n.take(c);
    }
    n.hold = true;
    n.send(1, "bob", "n", "same");
    n.send(2, "bob", "n", "same");
    n.send(2, "bob", "n", "other");
    let conflict = n.acks(2);
    assert_eq!(conflict[0].0, ReasonCode::NOT_ALLOW_SEND);
    n.idle(11);
    assert_eq!(n.acks(1)[0].0, ReasonCode::SYSTEM_ERROR);
    assert_eq!(n.acks(2)[0].0, ReasonCode::SYSTEM_ERROR);
    n.send(1, "bob", "n", "same");
    n.release();
    let late = n.acks(1);
    assert_eq!(successes(&late), 1);
    assert!(n.acks(2).is_empty(), "one ack for each SEND");
    n.send(2, "bob", "n", "same");
    assert_eq!(n.acks(2), late, "the stored id and seq");
    assert_eq!(n.recvs(3).len(), 1);
    assert_eq!(n.history("bob", "alice").len(), 2);
}

// ---- names

#[test]
fn a_transient_message_is_permission_checked_too() {
    let mut n = Node::new(config(1));
    // A uid that makes a person channel's id look like another pair's command channel.
    let x = (0..)
        .map(|i| format!("x{i}"))
        .find(|x| wukong_core::channel::id::compose(&format!("{x}____cmd"), "bob").ends_with("____cmd"))
        .unwrap();
    n.connected(0, 1, &x);
    n.connect(0, 2, &format!("{x}____cmd"), "dev");
    n.take(2);
    if n.closed.contains_key(&2) {
        return; // Refused at CONNECT: as good.
    }
    n.bytes(2, &support::transient_send("bob", "n1"));
    assert_eq!(successes(&n.acks(2)), 0);
    assert!(n.recvs(1).is_empty(), "a third party receives nothing");
}

// ---- stop

#[test]
fn a_graceful_stop_answers_what_is_owed_on_other_shards_too() {
    let mut n = Node::new(config(3));
    for c in 1..=3 {
        n.connected((c - 1) as usize, c, &format!("u{c}"));
        n.send(c, "bob", "first", "x");
        n.take(c);
    }
    n.hold = true;
    (1..=3).for_each(|c| n.send(c, "bob", "second", "x"));
    for s in 0..3 {
        n.input(s, Input::Stop);
    }
    assert!(n.closed.is_empty(), "all of them are owed an ack");
    n.release();
    for c in 1..=3 {
        assert_eq!(successes(&n.acks(c)), 1, "conn {c}");
        assert!(n.closed.contains_key(&c));
    }
    assert!(n.shards.iter().flatten().all(|s| s.view().stopped()));
}

// ---- one bad row

#[test]
fn an_unreadable_row_harms_only_its_own_channel() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    let key = ChannelKey { id: wukong_core::channel::id::compose("alice", "bob"), kind: 1 };
    n.unreadable = Some((Family::Raft, keys::head(slot_of(&key.id, 64), &key).to_vec()));
    let mut both = send_frame("bob", "n1", "x");
    both.extend_from_slice(&send_frame("carol", "n2", "x"));
    n.bytes(1, &both);
    assert_eq!(successes(&n.acks(1)), 1, "carol's channel is healthy");
}

#[test]
fn an_unreadable_row_of_a_slot_at_boot_harms_only_that_slot() {
    let mut n = Node::cold(Disk::default(), 1, config(1), WALL);
    let slot = slot_of("alice", 64);
    n.unreadable = Some((Family::Raft, keys::single(slot, keys::table::HARD).to_vec()));
    n.boot_all();
    assert!(n.ready() && !n.shards[0].as_ref().unwrap().view().halted());
}

// ---- reads

#[test]
fn pages_of_hidden_messages_do_not_stop_a_reader() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    for i in 1..=6 {
        // All but the last expire after a second.
        let expire = u32::from(i < 6);
        n.bytes(1, &support::expiring_send("bob", &format!("n{i}"), expire));
    }
    n.idle(5);
    let (mut next, mut seen) = (1, Vec::new());
    loop {
        let q = MessageSync {
            login_uid: "bob".into(),
            channel_id: "alice".into(),
            channel_type: 1,
            start: next,
            limit: 2,
            up: true,
            ..MessageSync::default()
        };
        let ApiAnswer::Messages(page) = n.call(ApiRequest::MessageSync(q)) else { panic!("refused") };
        seen.extend(page.messages.iter().map(|m| m.seq));
        if !page.more {
            break;
        }
        let last = page.messages.last().expect("more, and no way to ask for it");
        next = last.seq + 1;
    }
    assert_eq!(seen, [6]);
}

#[test]
fn upward_pages_end_at_the_bound_and_downward_ones_at_the_first_message() {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    n.bytes(1, &burst("bob", 10));
    n.pass(1);
    let mut page = |start, end, limit, up| {
        let q =
            MessageSync { login_uid: "bob".into(), channel_id: "alice".into(), channel_type: 1, start, end, limit, up };
        let ApiAnswer::Messages(page) = n.call(ApiRequest::MessageSync(q)) else { panic!("refused") };
        let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq).collect();
        (seqs, page.more)
    };
    assert_eq!(page(0, 0, 3, false), (vec![8, 9, 10], true));
    assert_eq!(page(7, 0, 3, false), (vec![5, 6, 7], true));
    assert_eq!(page(3, 0, 3, false), (vec![1, 2, 3], false));
    assert_eq!(page(4, 0, 3, true), (vec![4, 5, 6], true));
    assert_eq!(page(4, 7, 3, true), (vec![4, 5, 6], false));
    assert_eq!(page(9, 6, 3, false), (vec![7, 8, 9], false));
    assert_eq!(page(9, 3, 3, false), (vec![7, 8, 9], true));
    assert_eq!(page(10, 0, 3, true), (vec![10], false));
    assert!(!page(0, 0, 30, false).1);
}

// ---- slots

#[test]
fn a_long_slot_log_is_cut_and_read_again() {
    let mut n = Node::new(config(1));
    let set = |i: u32, device_flag| ApiRequest::SetToken {
        uid: "alice".into(),
        token: format!("t{i}").as_str().into(),
        device_flag,
        device_level: 0,
    };
    for round in 0..7_u32 {
        for i in 0..4_000 {
            let call = wukong_core::ids::CallId(1);
            let request = set(round * 4_000 + i, 0);
            n.feed(0, Input::Call { call, request });
        }
        n.run();
        n.answers.clear();
    }
    let slot = slot_of("alice", 64);
    let entries = |n: &Node| {
        let (from, to) = (
            (Family::Raft, keys::slot_entry(slot, 0).to_vec()),
            (Family::Raft, keys::table_end(slot, keys::table::ENTRY).to_vec()),
        );
        n.disk.0.range(from..to).count()
    };
    assert!((10_000..24_001).contains(&entries(&n)), "{} entries", entries(&n));
    let mut n = n.crash();
    assert!(n.ready());
    assert_eq!(n.call(set(0, 1)), ApiAnswer::Done);
    let mut n = n.crash();
    assert_eq!(n.call(set(1, 1)), ApiAnswer::Done);
}
