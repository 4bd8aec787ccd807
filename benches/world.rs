//! One shard, a store in memory and clients, in the rhythm of the real shell: all inputs of a wake-up, one drain, one
//! sync for everything that waits for the disk.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use wukong_core::ids::{ConnId, Incarnation, OpId, StoreId};
use wukong_core::rng::Seed;
use wukong_core::store::answer;
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{Boot, Completion, Effect, Input, Output, PersistClass, Shard, ShardConfig, Transport};
use wukong_proto::{Flags, ReasonCode, Text};
use wukong_runtime::client::session::{Event, Login, Outgoing, Session};

use crate::counting::{Count, count};
use crate::disk::Disk;

const MS: u64 = 1_000_000;

/// What the shard did since the tally was last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Allocations inside the shard, and the time spent there (for printing only).
    pub shard: Count,
    pub shard_time: Duration,
    /// Accepted SENDs.
    pub acked: u64,
    /// RECVs that clients saw.
    pub delivered: u64,
    /// Rounds of the storage thread that something waited for.
    pub syncs: u64,
    /// Syncs of its round that each SENDACK came after, summed up.
    pub syncs_before_acks: u64,
    /// Batches handed to the storage thread, and their bytes.
    pub batches: u64,
    pub batch_bytes: u64,
    /// Loads started.
    pub loads: u64,
    /// Chunks handed in and vectored writes done: one read and one write of a socket each.
    pub reads: u64,
    pub writes: u64,
    /// Bytes of those writes.
    pub written: u64,
}

impl Tally {
    /// A count per accepted message.
    #[must_use]
    pub fn per_message(&self, count: u64) -> f64 {
        count as f64 / self.acked.max(1) as f64
    }
}

/// A shard and its surroundings.
pub struct World {
    shard: Shard,
    disk: Disk,
    now: Now,
    clients: Vec<Session>,
    waiting: Vec<OpId>,
    done: VecDeque<(OpId, Completion)>,
    next_no: u64,
    /// Syncs since the round began.
    round_syncs: u64,
    tally: Tally,
    instructions: bool,
}

/// What the shard does, by a name that valgrind is told: it counts from entry to return.
#[inline(never)]
fn in_the_shard<T>(shard: &mut Shard, work: impl FnOnce(&mut Shard) -> T) -> T {
    work(shard)
}

impl World {
    /// A shard that just became ready on an empty store.
    ///
    /// # Panics
    /// It does not become ready.
    #[must_use]
    pub fn new() -> World {
        let now = Now { mono: Instant(0), wall: WallTime(1_700_000_000_000) };
        let boot = Boot { store: StoreId(7), incarnation: Incarnation(1) };
        let seed = Seed { keys: [1; 32], jitter: [2; 32] };
        let shard = Shard::new(ShardConfig::default(), boot, seed, now).expect("the default configuration is possible");
        let mut world = World {
            shard,
            disk: Disk::default(),
            now,
            clients: Vec::new(),
            waiting: Vec::new(),
            done: VecDeque::new(),
            next_no: 0,
            round_syncs: 0,
            tally: Tally::default(),
            instructions: false,
        };
        world.settle();
        assert!(world.shard.view().ready(), "the shard does not become ready");
        world
    }

    /// The counts since the last call.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// What the shard does from now on is visible to `instructions.rs`.
    pub const fn count_instructions(&mut self) {
        self.instructions = true;
    }

    /// Keys and values in the store, in bytes.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.disk.bytes()
    }

    /// Connects a user; returns the number of the connection.
    ///
    /// # Panics
    /// The shard refuses.
    pub fn connect(&mut self, uid: &str) -> usize {
        let no = self.clients.len();
        let mut secret = [0x55; 32];
        secret[..8].copy_from_slice(&(no as u64).to_le_bytes());
        let login = Login { device_id: format!("{uid}-1"), version: 5, ..Login::new(uid) };
        let mut out = BytesMut::new();
        self.clients.push(Session::begin(&login, secret, 1_700_000_000_000, &mut out).expect("a short login"));
        let peer = ([127, 0, 0, 1], 1).into();
        self.hand(Input::ConnOpened { conn: ConnId(no as u64), transport: Transport::Tcp, peer });
        self.bytes(no, out.freeze());
        self.settle();
        assert!(self.clients[no].is_open(), "{uid} did not get in");
        no
    }

    /// A wake-up in which each of `senders` sends one message to the user named beside it, then everything that
    /// follows from it, RECVACKs included.
    pub fn round(&mut self, senders: &[(usize, Text)], payload: &[u8]) {
        self.round_syncs = 0;
        self.now.mono.0 += MS;
        self.now.wall.0 += 1;
        for (conn, to) in senders {
            self.next_no += 1;
            let no = self.next_no;
            let message = Outgoing {
                client_seq: no as u32,
                client_msg_no: &format!("{no:08x}-aaaa-4bbb-8ccc-{:012x}", no.wrapping_mul(0x9E37_79B9)).into(),
                channel_id: to,
                channel_type: 1,
                flags: Flags::RED_DOT,
                payload,
            };
            let mut out = BytesMut::new();
            self.clients[*conn].send(&message, &mut out).expect("a short message");
            self.bytes(*conn, out.freeze());
        }
        self.settle();
    }

    fn bytes(&mut self, conn: usize, bytes: Bytes) {
        self.tally.reads += 1;
        self.hand(Input::ConnReceived { conn: ConnId(conn as u64), bytes });
    }

    fn hand(&mut self, input: Input) {
        let now = self.now;
        self.inside(|shard| shard.handle(now, input));
    }

    fn poll(&mut self) -> Option<Output> {
        self.inside(Shard::poll_output)
    }

    fn inside<T>(&mut self, work: impl FnOnce(&mut Shard) -> T) -> T {
        if self.instructions {
            return in_the_shard(&mut self.shard, work);
        }
        let (shard, begin) = (&mut self.shard, std::time::Instant::now());
        let (done, counted) = count(|| work(shard));
        self.tally.shard += counted;
        self.tally.shard_time += begin.elapsed();
        done
    }

    /// Until nothing happens any more.
    fn settle(&mut self) {
        loop {
            let mut replies = Vec::new();
            while let Some(output) = self.poll() {
                self.execute(output, &mut replies);
            }
            for (conn, bytes) in replies.drain(..) {
                self.bytes(conn, bytes);
            }
            if self.done.is_empty() && !self.waiting.is_empty() {
                // Everything gathered while the last sync ran is in the next one.
                self.tally.syncs += 1;
                self.round_syncs += 1;
                let synced = self.waiting.drain(..).map(|op| (op, Completion::Persisted(Ok(()))));
                self.done.extend(synced);
            }
            if let Some((op, completion)) = self.done.pop_front() {
                self.hand(Input::Completed { op, completion });
                while let Some((op, completion)) = self.done.pop_front() {
                    self.hand(Input::Completed { op, completion });
                }
            } else if self.shard.poll_timeout().is_some_and(|(at, _)| at <= self.now.mono) {
                self.hand(Input::Deadline);
            } else if !self.shard_has_output(&mut replies) {
                return;
            }
        }
    }

    /// Whether handing in replies caused anything; executes the first of it.
    fn shard_has_output(&mut self, replies: &mut Vec<(usize, Bytes)>) -> bool {
        let Some(output) = self.poll() else {
            return false;
        };
        self.execute(output, replies);
        for (conn, bytes) in replies.drain(..) {
            self.bytes(conn, bytes);
        }
        true
    }

    fn execute(&mut self, output: Output, replies: &mut Vec<(usize, Bytes)>) {
        match output {
            Output::Write { conn, frames } => {
                let size: usize = frames.iter().map(Bytes::len).sum();
                self.tally.writes += 1;
                self.tally.written += size as u64;
                for frame in frames {
                    self.read(conn.0 as usize, frame, replies);
                }
                self.hand(Input::ConnDrained { conn, bytes: size as u32 });
            }
            Output::Start { op, effect: Effect::Persist { batch, class } } => {
                self.tally.batches += 1;
                self.tally.batch_bytes += batch.bytes() as u64;
                self.disk.write(&batch);
                match class {
                    PersistClass::Sync => self.waiting.push(op),
                    // Completes with a later sync; nothing waits for it here.
                    PersistClass::Lazy => self.done.push_back((op, Completion::Persisted(Ok(())))),
                }
            }
            Output::Start { op, effect: Effect::Load(load) } => {
                self.tally.loads += 1;
                let found = answer(&self.disk, &load);
                self.done.push_back((op, Completion::Loaded(found)));
            }
            Output::Close { conn, reason } => panic!("connection {conn} was closed: {reason:?}"),
            Output::Mail { .. } => panic!("one shard sends no mail"),
            Output::Answer { .. } | Output::PeerFrame { .. } | Output::PeerReset { .. } | Output::Note(_) => {}
        }
    }

    /// A client reads a frame, and answers a RECV.
    fn read(&mut self, conn: usize, frame: Bytes, replies: &mut Vec<(usize, Bytes)>) {
        let session = &mut self.clients[conn];
        session.feed(frame);
        while let Some(event) = session.poll().expect("the shard speaks the protocol") {
            match event {
                Event::SendAck(ack) => {
                    assert_eq!(ack.reason, ReasonCode::SUCCESS, "a SEND was refused");
                    self.tally.acked += 1;
                    self.tally.syncs_before_acks += self.round_syncs;
                }
                Event::Recv(recv) => {
                    self.tally.delivered += 1;
                    let mut out = BytesMut::new();
                    session.recv_ack(&recv, &mut out).expect("a seq that was received");
                    replies.push((conn, out.freeze()));
                }
                Event::Open { .. } => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

/// `count` pairs of connected users; each sender with the user it writes to. Every channel has one message.
#[must_use]
pub fn pairs(world: &mut World, count: usize) -> Vec<(usize, Text)> {
    let pairs: Vec<(usize, Text)> = (0..count)
        .map(|i| {
            let sender = world.connect(&format!("sender{i:05}"));
            world.connect(&format!("receiver{i:05}"));
            (sender, format!("receiver{i:05}").into())
        })
        .collect();
    world.round(&pairs, b"the first message");
    pairs
}
