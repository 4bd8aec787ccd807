//! A recording of two shards gives the same outputs when it is run again, and shows where it does not.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod support;

use bytes::Bytes;
use std::collections::VecDeque;
use support::{Disk, connect_frame, numbered_send};
use wukong_core::api::{ApiRequest, ConversationSync, MessageSync};
use wukong_core::error::StoreFault;
use wukong_core::flight::{
    Bad, Difference, Encoder, Header, Item, Items, OutputHash, Recorded, Recording, SealKey, Seen, Summary, replay,
};
use wukong_core::ids::{CallId, ConnId, Incarnation, NodeId, OpId, PeerProcess, ShardId, StoreId};
use wukong_core::rng::Seed;
use wukong_core::store::{Found, answer};
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{Boot, CloseCause, Completion, Effect, Input, Output, Shard, ShardConfig, Transport};
use wukong_proto::Text;

const KEY: SealKey = SealKey([9; 32]);

fn header(shard: u8, shards: u8) -> Header {
    Header {
        config: ShardConfig {
            shard: ShardId(shard),
            shards,
            manager_token: Some(Text::from("top secret")),
            ..ShardConfig::default()
        },
        boot: Boot { store: StoreId(7 << 64), incarnation: Incarnation(3) },
        seed: Seed { keys: [0xA0 + shard; 32], jitter: [0xB0 + shard; 32] },
        started: Now { mono: Instant(5), wall: WallTime(1_700_000_000_000) },
    }
}

/// A shard that is recorded.
struct Taped {
    shard: Shard,
    encoder: Encoder,
    tape: Vec<u8>,
}

/// Shards that exchange mail at once and share a disk that never waits.
struct Run {
    shards: Vec<Taped>,
    inputs: VecDeque<(usize, Input)>,
    disk: Disk,
    now: Now,
    received: Vec<(ConnId, Bytes)>,
}

impl Run {
    fn new(shards: u8) -> Run {
        let tape = |n| {
            let header = header(n, shards);
            let mut tape = Vec::new();
            let encoder = Encoder::begin(&header, &KEY, &mut tape);
            let shard = Shard::new(header.config, header.boot, header.seed, header.started);
            Taped { shard: shard.unwrap(), encoder, tape }
        };
        Run {
            shards: (0..shards).map(tape).collect(),
            inputs: VecDeque::new(),
            disk: Disk::default(),
            now: header(0, shards).started,
            received: Vec::new(),
        }
    }

    fn feed(&mut self, shard: usize, input: Input) {
        self.inputs.push_back((shard, input));
        self.settle();
    }

    fn settle(&mut self) {
        (0..self.shards.len()).for_each(|s| self.drain(s));
        while let Some((s, input)) = self.inputs.pop_front() {
            self.now.mono.0 += 1_000;
            let Taped { shard, encoder, tape } = &mut self.shards[s];
            encoder.input(self.now, &input, tape);
            shard.handle(self.now, input);
            self.drain(s);
            let due = self.shards[s].shard.poll_timeout();
            if due.is_some_and(|(at, _)| at <= self.now.mono) {
                self.inputs.push_back((s, Input::Deadline));
            }
        }
    }

    fn drain(&mut self, s: usize) {
        let mut hash = OutputHash::default();
        while let Some(output) = self.shards[s].shard.poll_output() {
            hash.add(&output);
            match output {
                Output::Mail { to, mail } => {
                    let from = ShardId(s as u8);
                    self.inputs.push_back((usize::from(to.0), Input::Mail { from, mail }));
                }
                Output::Start { op, effect: Effect::Persist { batch, .. } } => {
                    self.disk.write(&batch);
                    let completion = Completion::Persisted(Ok(()));
                    self.inputs.push_back((s, Input::Completed { op, completion }));
                }
                Output::Start { op, effect: Effect::Load(load) } => {
                    let completion = Completion::Loaded(answer(&self.disk, &load));
                    self.inputs.push_back((s, Input::Completed { op, completion }));
                }
                Output::Write { conn, frames } => {
                    for frame in frames {
                        let bytes = frame.len() as u32;
                        self.received.push((conn, frame));
                        self.inputs.push_back((s, Input::ConnDrained { conn, bytes }));
                    }
                }
                _ => {}
            }
        }
        let Taped { encoder, tape, .. } = &mut self.shards[s];
        encoder.drained(hash.finish(), tape);
    }

    fn tapes(&self) -> Vec<Vec<u8>> {
        self.shards.iter().map(|s| s.tape.clone()).collect()
    }
}

/// Two people on two shards talk, one call is made, one leaves.
fn a_run() -> Run {
    let mut run = Run::new(2);
    run.settle();
    assert!(run.shards.iter().all(|s| s.shard.view().ready()));
    for (shard, uid) in ["alice", "bob"].into_iter().enumerate() {
        let conn = ConnId(10 + shard as u64);
        let peer = "10.0.0.9:4000".parse().unwrap();
        let transport = Transport::Tcp;
        run.feed(shard, Input::ConnOpened { conn, transport, peer });
        let bytes = connect_frame(uid, "d", "");
        run.feed(shard, Input::ConnReceived { conn, bytes: bytes.freeze() });
    }
    for n in 0..20_u32 {
        let to = if n % 2 == 0 { "bob" } else { "alice" };
        let bytes = numbered_send(n, to, &format!("no-{n}"), "hello");
        let shard = (n % 2) as usize;
        let conn = ConnId(10 + shard as u64);
        run.feed(shard, Input::ConnReceived { conn, bytes: bytes.freeze() });
    }
    let request = ApiRequest::ConversationSync(ConversationSync {
        uid: Text::from("bob"),
        msg_count: 3,
        ..ConversationSync::default()
    });
    run.feed(0, Input::Call { call: CallId(1), request });
    run.feed(1, Input::ConnClosed { conn: ConnId(11), cause: CloseCause::Peer });
    run.feed(0, Input::Stop);
    run
}

fn open(tapes: Vec<Vec<u8>>) -> Vec<Recording> {
    let open = |tape: Vec<u8>| Recording::open(Bytes::from(tape), &KEY).unwrap();
    tapes.into_iter().map(open).collect()
}

fn run_again(tapes: Vec<Vec<u8>>) -> Result<Summary, Difference> {
    replay(open(tapes), &mut |_, _, _| {})
}

#[test]
fn a_replay_gives_what_the_run_gave() {
    let run = a_run();
    assert!(
        run.received.iter().any(|(_, frame)| frame[0] >> 4 == 5),
        "messages were delivered (frame type 5), so the run means something"
    );
    let (mut seen, mut mail) = (0, 0);
    let summary = replay(open(run.tapes()), &mut |_, _, what| {
        seen += 1;
        mail += u32::from(matches!(what, Seen::Input(Input::Mail { .. })));
    })
    .unwrap();
    assert_eq!(summary.shards, 2);
    assert!(summary.inputs > 60 && summary.outputs > 60 && summary.drains > summary.shards as u64);
    assert_eq!(seen, summary.inputs + summary.outputs);
    assert!(mail > 10, "the shards had mail for each other");
}

#[test]
fn a_torn_end_is_no_difference() {
    let run = a_run();
    for cut in 1..40 {
        let mut tapes = run.tapes();
        for tape in &mut tapes {
            tape.truncate(tape.len() - cut);
        }
        match run_again(tapes) {
            Ok(_) => {}
            // One shard's file may end long before the other's.
            Err(Difference::Mail { .. }) => {}
            Err(other) => panic!("cut {cut}: {other}"),
        }
    }
}

#[test]
fn another_input_or_another_seed_is_a_difference() {
    let tapes = a_run().tapes();
    let mut altered = tapes.clone();
    let at = find(&altered[0], b"hello");
    altered[0][at] = b'j';
    let difference = run_again(altered).unwrap_err();
    assert!(matches!(difference, Difference::Outputs { shard: ShardId(0), .. }), "{difference}");
    let mut other_seed = open(tapes);
    other_seed[0].header.seed.keys = [1; 32];
    other_seed[0].header.boot.incarnation = Incarnation(4);
    other_seed[1].header.boot.incarnation = Incarnation(4);
    assert!(replay(other_seed, &mut |_, _, _| {}).is_err());
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|w| w == needle).unwrap()
}

#[test]
fn all_shards_of_one_run_are_needed() {
    let tapes = a_run().tapes();
    let twice = vec![tapes[0].clone(), tapes[0].clone()];
    assert_eq!(run_again(twice), Err(Difference::NotOneRun));
    assert_eq!(run_again(tapes[..1].to_vec()), Err(Difference::NotOneRun));
    assert_eq!(run_again(Vec::new()), Err(Difference::NotOneRun));
}

#[test]
fn secrets_are_sealed() {
    let hex = "09".repeat(32);
    assert_eq!(SealKey::from_hex(&format!("{hex}\n")).unwrap().0, KEY.0);
    for bad in ["", &hex[1..], &"zz".repeat(32), &"群".repeat(32)] {
        assert!(SealKey::from_hex(bad).is_none());
    }
    let tape = &a_run().tapes()[0];
    for secret in [&b"top secret"[..], &[0xA0; 32]] {
        assert!(!tape.windows(secret.len()).any(|w| w == secret));
    }
    let open = |key| Recording::open(Bytes::from(tape.clone()), &key);
    assert_eq!(open(SealKey([8; 32])).unwrap_err(), Bad::WrongKey);
    let header = open(KEY).unwrap().header;
    assert_eq!(header.config.manager_token, Some(Text::from("top secret")));
    assert_eq!(header.seed.keys, [0xA0; 32]);
    let mut other = tape.clone();
    other[8] = 1;
    let got = Recording::open(Bytes::from(other), &KEY);
    assert_eq!(got.unwrap_err(), Bad::OtherFormat(1));
    let got = Recording::open(Bytes::from_static(b"WKFLIGHX"), &KEY);
    assert_eq!(got.unwrap_err(), Bad::NotARecording);
    let got = Recording::open(Bytes::from(tape[..40].to_vec()), &KEY);
    assert_eq!(got.unwrap_err(), Bad::Short);
}

fn samples() -> Vec<Input> {
    let conn = ConnId(u64::MAX);
    let (v6, v4) = ("[2001:db8::1]:65535", "1.2.3.4:0");
    let opened = |transport, peer: &str| Input::ConnOpened { conn, transport, peer: peer.parse().unwrap() };
    let loaded = |found| Input::Completed { op: OpId(300), completion: Completion::Loaded(found) };
    let persisted = |result| Input::Completed { op: OpId(0), completion: Completion::Persisted(result) };
    let call = |request| Input::Call { call: CallId(7), request };
    let row = |n: u8| (Bytes::from(vec![n; 3]), Bytes::from(vec![n; 200]));
    vec![
        opened(Transport::WebSocket, v6),
        opened(Transport::Tcp, v4),
        Input::ConnReceived { conn, bytes: Bytes::from(vec![1; 70_000]) },
        Input::ConnDrained { conn, bytes: u32::MAX },
        Input::ConnClosed { conn, cause: CloseCause::Transport },
        persisted(Ok(())),
        persisted(Err(StoreFault::Full)),
        loaded(Err(StoreFault::Corrupt)),
        loaded(Ok(vec![
            Found::Point(None),
            Found::Point(Some(Bytes::new())),
            Found::Page { rows: vec![row(1), row(2)], more: true },
        ])),
        call(ApiRequest::SetToken { uid: Text::from("群"), token: Text::EMPTY, device_flag: 255, device_level: 1 }),
        call(ApiRequest::MessageSync(MessageSync {
            login_uid: Text::from("a"),
            channel_id: Text::from("b"),
            channel_type: 1,
            start: u64::MAX,
            end: 0,
            limit: i64::MIN,
            up: true,
        })),
        call(ApiRequest::ConversationSync(ConversationSync {
            uid: Text::from("a"),
            version: -1,
            last_seqs: vec![(Text::from("x"), 2, 3), (Text::EMPTY, 0, u64::MAX)],
            msg_count: i64::MAX,
            only_unread: true,
            exclude_types: vec![1, 2],
            page: 1,
            page_size: 2,
        })),
        call(ApiRequest::DeleteChannel { channel_id: Text::from("b@a"), channel_type: 1 }),
        Input::PeerUp {
            peer: PeerProcess {
                node: NodeId(2),
                store: StoreId(7 << 64),
                incarnation: Incarnation(3),
                shards: 16,
                wire: 1,
            },
        },
        Input::PeerDown { node: NodeId(1023), incarnation: Incarnation(u64::MAX) },
        Input::PeerFrame { node: NodeId(1), incarnation: Incarnation(1), frame: Bytes::from_static(b"frame") },
        Input::Deadline,
        Input::Stop,
    ]
}

#[test]
fn every_input_survives_and_clocks_may_jump() {
    let mut tape = Vec::new();
    let mut encoder = Encoder::begin(&header(0, 1), &KEY, &mut tape);
    let walls = [u64::MAX, 0, 1_700_000_000_000];
    let time = |n: usize| Now { mono: Instant(5 + 1_000 * n as u64), wall: WallTime(walls[n % 3]) };
    for (n, input) in samples().iter().enumerate() {
        encoder.input(time(n), input, &mut tape);
    }
    encoder.drained(0x0123_4567_89ab_cdef, &mut tape);
    let (_, mut items) = Items::open(Bytes::from(tape), &KEY).unwrap();
    for (n, input) in samples().iter().enumerate() {
        let item = items.next().unwrap().unwrap();
        let Item::Handled { now, input: Recorded::Input(read) } = item else {
            panic!("{item:?}");
        };
        assert_eq!((now, format!("{read:?}")), (time(n), format!("{input:?}")));
    }
    let last = items.next().unwrap().unwrap();
    assert!(matches!(last, Item::Drained { hash: 0x0123_4567_89ab_cdef }));
    assert!(items.next().is_none());
}

#[test]
fn damage_never_panics() {
    let tapes = a_run().tapes();
    for at in (0..tapes[0].len()).step_by(7) {
        let mut damaged = tapes[0].clone();
        damaged[at] ^= 0xFF;
        if let Ok((_, items)) = Items::open(Bytes::from(damaged), &KEY) {
            let mut errors = 0;
            for item in items {
                errors += u32::from(item.is_err());
            }
            assert!(errors <= 1);
        }
    }
}
