//! Scripts against one shard: bytes in, bytes out, with a store in memory that completes when the script says so.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod support;

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use support::Disk;
use wukong_core::api::{ApiAnswer, ApiRequest, ConversationSync, MessageSync};
use wukong_core::error::StoreFault;
use wukong_core::ids::{CallId, ConnId, Incarnation, OpId, StoreId};
use wukong_core::rng::Seed;
use wukong_core::store::{Family, Load, WriteBatch, answer};
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{
    Boot, CloseCause, CloseReason, Completion, Effect, Input, Output, PersistClass, Shard, ShardConfig, Transport,
};
use wukong_proto::{
    Connect, Decoder, Flags, Frame, ReasonCode, RecvAck, Send, Setting, Text, encode, encode_connect, encode_send,
};

const SECOND: u64 = 1_000_000_000;

/// One shard, its disk, and clients that speak frames.
struct World {
    shard: Shard,
    disk: Disk,
    now: Now,
    /// Writes that the script has not let complete.
    held: VecDeque<(OpId, WriteBatch)>,
    hold: bool,
    /// Sync rounds completed.
    syncs: usize,
    inbox: BTreeMap<u64, (Decoder, Vec<Frame>)>,
    closed: BTreeMap<u64, CloseReason>,
    answers: Vec<ApiAnswer>,
    loads: VecDeque<(OpId, Load)>,
}

fn config() -> ShardConfig {
    ShardConfig::default()
}

impl World {
    fn boot(disk: Disk, incarnation: u64, config: ShardConfig, wall_ms: u64) -> Self {
        let now = Now { mono: Instant(0), wall: WallTime(wall_ms) };
        let boot = Boot { store: StoreId(7), incarnation: Incarnation(incarnation) };
        let seed = Seed { keys: [1; 32], jitter: [2; 32] };
        let shard = Shard::new(config, boot, seed, now).unwrap();
        let mut w = Self {
            shard,
            disk,
            now,
            held: VecDeque::new(),
            hold: false,
            syncs: 0,
            inbox: BTreeMap::new(),
            closed: BTreeMap::new(),
            answers: Vec::new(),
            loads: VecDeque::new(),
        };
        w.drain();
        assert!(w.shard.view().ready(), "a shard is ready once its slots lead");
        w
    }

    fn new() -> Self {
        Self::boot(Disk::default(), 1, config(), 1_700_000_000_000)
    }

    fn input(&mut self, input: Input) {
        self.shard.handle(self.now, input);
        self.drain();
    }

    /// Executes outputs until there are none; the store answers at once unless held.
    fn drain(&mut self) {
        loop {
            let mut done = Vec::new();
            while let Some(output) = self.shard.poll_output() {
                match output {
                    Output::Write { conn, frames } => {
                        let (decoder, inbox) =
                            self.inbox.entry(conn.0).or_insert_with(|| (Decoder::new(5), Vec::new()));
                        for f in frames {
                            decoder.feed(f);
                            while let Some(frame) = decoder.next().unwrap() {
                                inbox.push(frame);
                            }
                        }
                    }
                    Output::Close { conn, reason } => {
                        self.closed.insert(conn.0, reason);
                        self.shard.handle(self.now, Input::ConnClosed { conn, cause: CloseCause::Asked });
                    }
                    Output::Start { op, effect: Effect::Persist { batch, class } } => {
                        if self.hold {
                            self.held.push_back((op, batch));
                        } else {
                            self.disk.write(&batch);
                            self.syncs += usize::from(class == PersistClass::Sync);
                            done.push((op, Completion::Persisted(Ok(()))));
                        }
                    }
                    Output::Start { op, effect: Effect::Load(load) } => self.loads.push_back((op, load)),
                    Output::Answer { answer, .. } => self.answers.push(answer),
                    Output::Mail { .. } => panic!("one shard sends no mail"),
                    Output::PeerFrame { .. } | Output::PeerReset { .. } => panic!("one node has no peers"),
                    Output::Note(_) => {}
                }
            }
            // A load sees every write started before it, completed or not.
            while let Some((op, load)) = self.loads.pop_front() {
                let mut seen = self.disk.clone();
                self.held.iter().for_each(|(_, b)| seen.write(b));
                done.push((op, Completion::Loaded(answer(&seen, &load))));
            }
            if done.is_empty() {
                if self.shard.poll_timeout().is_some_and(|(at, _)| at <= self.now.mono) {
                    self.shard.handle(self.now, Input::Deadline);
                    continue;
                }
                return;
            }
            for (op, completion) in done {
                self.shard.handle(self.now, Input::Completed { op, completion });
            }
        }
    }

    /// Lets the oldest held write become durable.
    fn sync_one(&mut self) {
        let (op, batch) = self.held.pop_front().expect("a held write");
        self.disk.write(&batch);
        self.syncs += 1;
        self.input(Input::Completed { op, completion: Completion::Persisted(Ok(())) });
    }

    fn sync_all(&mut self) {
        self.hold = false;
        while !self.held.is_empty() {
            self.sync_one();
        }
    }

    fn pass(&mut self, ns: u64) {
        self.now.mono.0 += ns;
        self.now.wall.0 += ns / 1_000_000;
        self.input(Input::Deadline);
    }

    fn open(&mut self, conn: u64) {
        let peer = "127.0.0.1:1".parse().unwrap();
        self.input(Input::ConnOpened { conn: ConnId(conn), transport: Transport::Tcp, peer });
    }

    fn bytes(&mut self, conn: u64, bytes: &[u8]) {
        self.input(Input::ConnReceived { conn: ConnId(conn), bytes: Bytes::copy_from_slice(bytes) });
    }

    fn connect(&mut self, conn: u64, uid: &str) -> ReasonCode {
        self.connect_as(conn, uid, "dev", "")
    }

    fn connect_as(&mut self, conn: u64, uid: &str, device: &str, token: &str) -> ReasonCode {
        self.open(conn);
        let connect = Connect {
            version: 5,
            device_id: Text::from(device),
            uid: Text::from(uid),
            token: Text::from(token),
            client_key: Text::from("CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ..Connect::default()
        };
        let mut out = BytesMut::new();
        encode_connect(&connect, &mut out).unwrap();
        self.bytes(conn, &out);
        match self.take(conn).as_slice() {
            [Frame::ConnAck(ack)] => ack.reason,
            other => panic!("expected one CONNACK, got {other:?}"),
        }
    }

    fn send(&mut self, conn: u64, to: &str, no: &str, payload: &str) {
        let frame = send_frame(to, no, payload);
        self.bytes(conn, &frame);
    }

    fn take(&mut self, conn: u64) -> Vec<Frame> {
        self.inbox.get_mut(&conn).map(|(_, f)| std::mem::take(f)).unwrap_or_default()
    }

    /// The one SENDACK written since: (reason, seq, message id).
    fn ack(&mut self, conn: u64) -> (ReasonCode, u64, i64) {
        match self.take(conn).as_slice() {
            [Frame::SendAck(a)] => (a.reason, a.message_seq, a.message_id),
            other => panic!("expected one SENDACK, got {other:?}"),
        }
    }

    fn call(&mut self, request: ApiRequest) -> ApiAnswer {
        self.input(Input::Call { call: CallId(1), request });
        self.answers.pop().expect("an answer")
    }

    fn history(&mut self, uid: &str, peer: &str) -> Vec<(u64, String)> {
        let q =
            MessageSync { login_uid: uid.into(), channel_id: peer.into(), channel_type: 1, ..MessageSync::default() };
        match self.call(ApiRequest::MessageSync(q)) {
            ApiAnswer::Messages(page) => {
                page.messages.iter().map(|m| (m.seq, String::from_utf8(m.payload.to_vec()).unwrap())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn crash(self, incarnation: u64) -> Self {
        // Held writes are lost; what was completed stays.
        Self::boot(self.disk, incarnation, config(), self.now.wall.0)
    }
}

fn send_frame(to: &str, no: &str, payload: &str) -> BytesMut {
    let send = Send {
        flags: Flags::RED_DOT,
        setting: Setting::NO_ENCRYPT,
        client_seq: 1,
        client_msg_no: Text::from(no),
        channel_id: Text::from(to),
        channel_type: 1,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Send::default()
    };
    let mut out = BytesMut::new();
    encode_send(&send, 5, &mut out).unwrap();
    out
}

#[test]
fn two_users_chat_and_one_syncs_later() {
    let mut w = World::new();
    assert_eq!(w.connect(1, "alice"), ReasonCode::SUCCESS);
    assert_eq!(w.connect(2, "bob"), ReasonCode::SUCCESS);
    w.send(1, "bob", "n1", "hi");
    let (reason, seq, id) = w.ack(1);
    assert_eq!((reason, seq), (ReasonCode::SUCCESS, 1));
    match w.take(2).as_slice() {
        [Frame::Recv(r)] => {
            assert_eq!((&*r.from_uid, &*r.channel_id, r.message_seq, r.message_id), ("alice", "alice", 1, id));
            assert!(r.flags.red_dot() && !r.msg_key.is_empty());
        }
        other => panic!("{other:?}"),
    }
    w.send(2, "alice", "n2", "hello");
    assert_eq!(w.ack(2).1, 2);
    w.send(1, "carol", "n3", "are you there?");
    w.take(1);
    assert_eq!(w.history("carol", "alice"), [(1, "are you there?".into())]);
    assert_eq!(w.history("bob", "alice"), [(1, "hi".into()), (2, "hello".into())]);
    let q = ConversationSync { uid: "carol".into(), msg_count: 5, ..ConversationSync::default() };
    let ApiAnswer::Conversations(list) = w.call(ApiRequest::ConversationSync(q)) else { panic!() };
    assert_eq!(list.len(), 1);
    assert_eq!((&*list[0].channel_id, list[0].unread, list[0].recents.len()), ("alice", 1, 1));
}

#[test]
fn no_ack_leaves_before_its_write_is_durable() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.connect(2, "bob");
    w.hold = true;
    let before = w.syncs;
    w.send(1, "bob", "n1", "hi");
    let mut rounds = 0;
    while w.take(1).is_empty() {
        assert!(w.take(2).is_empty(), "nothing is delivered before it is committed");
        assert!(rounds < 5, "an ack after so many rounds is lost");
        // One round = everything that is waiting becomes durable together.
        for _ in 0..w.held.len() {
            w.sync_one();
        }
        rounds += 1;
    }
    // Create and the participants' rows in one round, the append in the next.
    assert_eq!(rounds, 2);
    assert!(w.syncs > before);
    w.sync_all();
    w.hold = true;
    w.send(1, "bob", "n2", "warm");
    w.sync_one();
    assert_eq!(w.ack(1).1, 2, "a warm channel's ack costs one round");
}

#[test]
fn a_resend_is_answered_with_what_is_stored_also_after_a_crash() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.send(1, "bob", "n1", "hi");
    let first = w.ack(1);
    w.send(1, "bob", "n1", "hi");
    assert_eq!(w.ack(1), first, "answered from memory");
    w.send(1, "bob", "n1", "something else");
    assert_eq!(w.ack(1).0, ReasonCode::NOT_ALLOW_SEND, "IdempotencyConflict as protocol 5 sees it");
    let mut w = w.crash(2);
    w.connect(1, "alice");
    w.send(1, "bob", "n1", "hi");
    assert_eq!(w.ack(1), first, "answered from the log");
    w.send(1, "bob", "n2", "next");
    assert_eq!(w.ack(1).1, 2, "no seq is reused");
    assert_eq!(w.history("alice", "bob").len(), 2);
}

#[test]
fn what_was_not_synced_was_not_promised() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.send(1, "bob", "n1", "kept");
    w.take(1);
    w.hold = true;
    w.send(1, "bob", "n2", "lost");
    assert!(w.take(1).is_empty());
    let mut w = w.crash(2);
    w.connect(1, "alice");
    assert_eq!(w.history("alice", "bob"), [(1, "kept".into())]);
    w.send(1, "bob", "n2", "lost");
    assert_eq!(w.ack(1).1, 2);
}

#[test]
fn a_store_that_fails_ends_all_promises() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.hold = true;
    w.send(1, "bob", "n1", "hi");
    let (op, _) = w.held.pop_front().unwrap();
    w.input(Input::Completed { op, completion: Completion::Persisted(Err(StoreFault::Io)) });
    assert!(w.shard.view().halted());
    w.bytes(1, &[0x70]);
    assert!(w.take(1).is_empty(), "not even a PONG leaves");
}

#[test]
fn an_owed_ack_is_answered_at_its_deadline_and_never_twice() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.hold = true;
    w.send(1, "bob", "n1", "hi");
    w.pass(9 * SECOND);
    assert!(w.take(1).is_empty());
    w.pass(2 * SECOND);
    assert_eq!(w.ack(1).0, ReasonCode::SYSTEM_ERROR);
    w.sync_all();
    assert!(w.take(1).is_empty(), "the late success is not a second ack");
    w.send(1, "bob", "n1", "hi");
    assert_eq!((w.ack(1).1, w.history("alice", "bob").len()), (1, 1), "stored once");
}

#[test]
fn a_recv_is_repeated_until_acknowledged() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.connect(2, "bob");
    w.send(1, "bob", "n1", "hi");
    let Some(Frame::Recv(first)) = w.take(2).pop() else { panic!() };
    let ping = [0x70];
    for repeat in 1..=5 {
        w.bytes(1, &ping);
        w.bytes(2, &ping);
        w.pass(61 * SECOND);
        let frames: Vec<_> = w.take(2).into_iter().filter(|f| *f != Frame::Pong).collect();
        match frames.as_slice() {
            [Frame::Recv(r)] => assert!(r.flags.dup() && r.message_id == first.message_id, "repeat {repeat}"),
            other => panic!("repeat {repeat}: {other:?}"),
        }
    }
    w.bytes(1, &ping);
    w.bytes(2, &ping);
    w.pass(61 * SECOND);
    assert_eq!(w.take(2), [Frame::Pong], "five repeats, then the client syncs");
    w.send(1, "bob", "n2", "again");
    w.bytes(1, &ping);
    let Some(Frame::Recv(second)) = w.take(2).pop() else { panic!() };
    let ack = RecvAck { message_id: second.message_id, message_seq: 2, ..RecvAck::default() };
    let mut out = BytesMut::new();
    encode(&Frame::RecvAck(ack), 5, &mut out).unwrap();
    w.bytes(2, &out);
    w.pass(61 * SECOND);
    assert!(w.take(2).is_empty());
}

#[test]
fn tokens_decide_who_connects_and_a_new_master_token_kicks() {
    let mut cfg = config();
    cfg.token_auth = true;
    let mut w = World::boot(Disk::default(), 1, cfg, 1_700_000_000_000);
    assert_eq!(w.connect_as(1, "alice", "d", "tok"), ReasonCode::AUTH_FAIL);
    assert_eq!(w.closed[&1], CloseReason::ConnectRefused);
    let set = |token: &str, device_level| ApiRequest::SetToken {
        uid: "alice".into(),
        token: token.into(),
        device_flag: 0,
        device_level,
    };
    assert_eq!(w.call(set("tok", 0)), ApiAnswer::Done);
    assert_eq!(w.connect_as(2, "alice", "d", "tok"), ReasonCode::SUCCESS);
    assert_eq!(w.call(set("new", 1)), ApiAnswer::Done);
    assert!(matches!(w.take(2).as_slice(), [Frame::Disconnect(d)] if d.reason == ReasonCode::CONNECT_KICK));
    w.pass(11 * SECOND);
    assert_eq!(w.closed[&2], CloseReason::Kicked);
    assert_eq!(w.connect_as(3, "alice", "d2", "new"), ReasonCode::SUCCESS);
}

#[test]
fn a_settled_channel_goes_on_after_eviction_and_restart() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.send(1, "bob", "n1", "one");
    w.take(1);
    for _ in 0..10 {
        w.bytes(1, &[0x70]);
        w.pass(10 * SECOND);
    }
    w.take(1);
    assert_eq!(w.shard.view().channels(), 0, "settled, then evicted");
    let dirty = |d: &Disk| d.0.keys().filter(|(f, k)| *f == Family::Raft && k[2] == 0x11).count();
    assert_eq!(dirty(&w.disk), 0);
    assert_eq!(w.history("bob", "alice"), [(1, "one".into())]);
    assert_eq!(w.shard.view().channels(), 0, "a read of a settled channel makes no machine");
    w.send(1, "bob", "n1", "one");
    assert_eq!(w.ack(1).1, 1, "dedup from disk");
    w.send(1, "bob", "n2", "two");
    assert_eq!(w.ack(1).1, 2);
    assert_eq!(dirty(&w.disk), 1);
    let mut w = w.crash(2);
    assert_eq!(w.shard.view().channels(), 1, "a dirty channel is activated at boot");
    w.connect(1, "alice");
    w.send(1, "bob", "n3", "three");
    assert_eq!(w.ack(1).1, 3);
    assert_eq!(w.history("bob", "alice").len(), 3);
}

#[test]
fn one_inputs_worth_of_sends_costs_one_sync() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.send(1, "bob", "n0", "first");
    w.take(1);
    let before = w.syncs;
    let mut all = BytesMut::new();
    for i in 1..=50 {
        all.extend_from_slice(&send_frame("bob", &format!("n{i}"), "x"));
    }
    w.bytes(1, &all);
    let acks = w.take(1);
    assert_eq!(acks.len(), 50);
    assert_eq!(w.syncs - before, 1);
}

#[test]
fn ids_stay_unique_when_the_clock_jumps_back_over_a_restart() {
    let mut w = World::new();
    w.connect(1, "alice");
    w.send(1, "bob", "n1", "x");
    let (_, _, before) = w.ack(1);
    let disk = w.disk.clone();
    let mut w = World::boot(disk, 2, config(), 1_700_000_000_000 - 3_600_000);
    w.connect(1, "alice");
    w.send(1, "bob", "n2", "y");
    assert!(w.ack(1).2 > before);
}

#[test]
fn a_burst_beyond_all_credit_is_acknowledged_and_delivered() {
    let mut cfg = config();
    cfg.mail_credit = 64;
    let mut w = World::boot(Disk::default(), 1, cfg, 1_700_000_000_000);
    for i in 1..=20 {
        w.connect(i, &format!("a{i}"));
        w.connect(100 + i, &format!("b{i}"));
    }
    w.hold = true;
    for i in 1..=20 {
        let mut all = BytesMut::new();
        for n in 1..=100 {
            all.extend_from_slice(&send_frame(&format!("b{i}"), &format!("n{n}"), "x"));
        }
        w.bytes(i, &all);
    }
    for _ in 0..50 {
        if !w.held.is_empty() {
            w.sync_one();
        }
    }
    w.sync_all();
    for i in 1..=20 {
        assert_eq!(w.take(i).len(), 100, "acks of a{i}");
        assert_eq!(w.take(100 + i).len(), 100, "deliveries to b{i}");
    }
}
