//! A node of one or more shards in memory: clients that speak frames, one disk, mail and writes that wait when told to.

#![allow(dead_code, clippy::std_instead_of_alloc, clippy::std_instead_of_core, unreachable_pub)]

use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use wukong_core::api::{ApiAnswer, ApiRequest, MessageSync};
use wukong_core::error::StoreFault;
use wukong_core::event::mail::Mail;
use wukong_core::ids::{CallId, ConnId, Incarnation, NodeId, OpId, ShardId, StoreId, shard_of, slot_of};
use wukong_core::rng::Seed;
use wukong_core::store::{Family, Load, Snapshot, Write, WriteBatch, answer};
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{Boot, CloseCause, CloseReason, Completion, Effect, Input, Output, Shard, ShardConfig, Transport};
use wukong_proto::{Connect, Decoder, Flags, Frame, ReasonCode, Send, Setting, Text, encode_connect, encode_send};

pub const SECOND: u64 = 1_000_000_000;
pub const WALL: u64 = 1_700_000_000_000;

#[derive(Clone, Default)]
pub struct Disk(pub BTreeMap<(Family, Vec<u8>), Vec<u8>>);

impl Disk {
    pub fn write(&mut self, batch: &WriteBatch) {
        for w in batch {
            match w {
                Write::Put { family, key, value } => {
                    self.0.insert((family, key.to_vec()), value.to_vec());
                }
                Write::Delete { family, key } => {
                    self.0.remove(&(family, key.to_vec()));
                }
                Write::DeleteRange { family, from, to } => {
                    self.0.retain(|(f, k), _| *f != family || k.as_slice() < from || k.as_slice() >= to);
                }
            }
        }
    }
}

impl Snapshot for Disk {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.get(&(family, key.to_vec())).map(|v| Bytes::copy_from_slice(v)))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        let rows = self.0.range((family, from.to_vec())..(family, to.to_vec()));
        if reverse {
            rows.rev().all(|((_, k), v)| visit(k, v));
        } else {
            let mut rows = rows;
            rows.all(|((_, k), v)| visit(k, v));
        }
        Ok(())
    }
}

/// A disk of which some rows cannot be read.
struct View<'a> {
    disk: Disk,
    bad: Option<&'a (Family, Vec<u8>)>,
}

impl Snapshot for View<'_> {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        match self.bad {
            Some((f, prefix)) if *f == family && key.starts_with(prefix) => Err(StoreFault::Corrupt),
            _ => self.disk.get(family, key),
        }
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        self.disk.scan(family, from, to, reverse, visit)
    }
}

/// A connection as its client sees it.
struct Client {
    shard: usize,
    decoder: Decoder,
    inbox: Vec<Frame>,
}

/// All shards of one node.
pub struct Node {
    pub shards: Vec<Option<Shard>>,
    pub config: ShardConfig,
    pub store: StoreId,
    pub incarnation: u64,
    pub disk: Disk,
    pub now: Now,
    /// Writes are kept until [`Node::sync_one`], in the order in which they started.
    pub hold: bool,
    pub held: VecDeque<(usize, OpId, WriteBatch)>,
    /// Loads are kept until [`Node::load_one`].
    pub hold_loads: bool,
    pub loads: VecDeque<(usize, OpId, Load)>,
    /// What a held load answers: the store as of its start, not of its completion.
    pub early_loads: bool,
    early: BTreeMap<(usize, OpId), Completion>,
    /// Mail is kept until [`Node::mail_one`]; otherwise it travels at once.
    pub hold_mail: bool,
    pub mail: BTreeMap<(usize, usize), VecDeque<Mail>>,
    /// Rows of this family and key prefix cannot be read.
    pub unreadable: Option<(Family, Vec<u8>)>,
    /// Frames for other nodes, in the order in which they left.
    pub frames: VecDeque<(NodeId, Bytes)>,
    /// Nodes whose link is to be closed.
    pub resets: Vec<NodeId>,
    clients: BTreeMap<u64, Client>,
    pub closed: BTreeMap<u64, CloseReason>,
    pub answers: Vec<ApiAnswer>,
    /// Persists started.
    pub persists: usize,
}

pub fn config(shards: u8) -> ShardConfig {
    ShardConfig { shards, ..ShardConfig::default() }
}

impl Node {
    pub fn new(config: ShardConfig) -> Self {
        let mut n = Self::cold(Disk::default(), 1, config, WALL);
        n.boot_all();
        assert!(n.ready(), "every shard is ready once its slots lead");
        n
    }

    /// A node none of whose shards has started.
    pub fn cold(disk: Disk, incarnation: u64, config: ShardConfig, wall_ms: u64) -> Self {
        Self {
            shards: (0..config.shards).map(|_| None).collect(),
            store: StoreId(7),
            config,
            incarnation,
            disk,
            now: Now { mono: Instant(0), wall: WallTime(wall_ms) },
            hold: false,
            held: VecDeque::new(),
            hold_loads: false,
            loads: VecDeque::new(),
            early_loads: false,
            early: BTreeMap::new(),
            hold_mail: false,
            mail: BTreeMap::new(),
            unreadable: None,
            frames: VecDeque::new(),
            resets: Vec::new(),
            clients: BTreeMap::new(),
            closed: BTreeMap::new(),
            answers: Vec::new(),
            persists: 0,
        }
    }

    pub fn boot(&mut self, shard: usize) {
        let boot = Boot { store: self.store, incarnation: Incarnation(self.incarnation) };
        // Another one for each process, so that elections do not always end the same.
        let own = (16 * self.store.0 as u8) ^ (self.incarnation as u8).wrapping_mul(37);
        let jitter = [(101 + shard as u8).wrapping_add(own); 32];
        let seed = Seed { keys: [1 + shard as u8; 32], jitter };
        let config = ShardConfig { shard: ShardId(shard as u8), ..self.config.clone() };
        self.shards[shard] = Some(Shard::new(config, boot, seed, self.now).unwrap());
        self.run();
    }

    pub fn boot_all(&mut self) {
        (0..self.shards.len()).for_each(|s| self.boot(s));
    }

    pub fn ready(&self) -> bool {
        self.shards.iter().all(|s| s.as_ref().is_some_and(|s| s.view().ready()))
    }

    /// The same disk after a crash: writes that were held are lost.
    pub fn crash(self) -> Self {
        let mut n = Self::cold(self.disk, self.incarnation + 1, self.config, self.now.wall.0);
        n.boot_all();
        n
    }

    /// Hands in an input and drains nothing: the shell may hand in many before it drains.
    pub fn feed(&mut self, shard: usize, input: Input) {
        if let Some(s) = &mut self.shards[shard] {
            s.handle(self.now, input);
        }
    }

    pub fn input(&mut self, shard: usize, input: Input) {
        self.feed(shard, input);
        self.run();
    }

    /// Drains everything that is not held back.
    pub fn run(&mut self) {
        loop {
            let mut moved = false;
            for s in 0..self.shards.len() {
                while let Some(output) = self.shards[s].as_mut().and_then(Shard::poll_output) {
                    moved = true;
                    self.output(s, output);
                }
            }
            if !self.hold_loads {
                while self.load_one() {
                    moved = true;
                }
            }
            if !self.hold {
                while let Some((s, op, _)) = self.held.pop_front() {
                    moved = true;
                    let completion = Completion::Persisted(Ok(()));
                    self.feed(s, Input::Completed { op, completion });
                }
            }
            if !self.hold_mail {
                let lanes: Vec<_> = self.mail.keys().copied().collect();
                for (from, to) in lanes {
                    while self.shards[to].is_some() && self.pass_mail(from, to) {
                        moved = true;
                    }
                }
            }
            for s in 0..self.shards.len() {
                let due = self.shards[s].as_ref().and_then(Shard::poll_timeout);
                if due.is_some_and(|(at, _)| at <= self.now.mono) {
                    moved = true;
                    self.feed(s, Input::Deadline);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn output(&mut self, s: usize, output: Output) {
        match output {
            Output::Write { conn, frames } => {
                let c = self.clients.get_mut(&conn.0).expect("an open connection");
                for f in frames {
                    c.decoder.feed(f);
                    while let Some(frame) = c.decoder.next().unwrap() {
                        c.inbox.push(frame);
                    }
                }
            }
            Output::Close { conn, reason } => {
                self.closed.insert(conn.0, reason);
                let cause = CloseCause::Asked;
                self.feed(s, Input::ConnClosed { conn, cause });
            }
            Output::Mail { to, mail } => {
                let lane = (s, usize::from(to.0));
                self.mail.entry(lane).or_default().push_back(mail);
            }
            Output::Start { op, effect: Effect::Persist { batch, .. } } => {
                self.persists += 1;
                if !self.hold {
                    self.disk.write(&batch);
                }
                self.held.push_back((s, op, batch));
            }
            Output::Start { op, effect: Effect::Load(load) } => {
                if self.early_loads {
                    let completion = self.read(&load);
                    self.early.insert((s, op), completion);
                }
                self.loads.push_back((s, op, load));
            }
            Output::Answer { answer, .. } => self.answers.push(answer),
            Output::PeerFrame { to, frame, .. } => self.frames.push_back((to, frame)),
            Output::PeerReset { to, .. } => self.resets.push(to),
            Output::Note(_) => {}
        }
    }

    /// Answers the oldest load. It sees every write started before it.
    pub fn load_one(&mut self) -> bool {
        self.load_at(0)
    }

    /// Answers any load.
    pub fn load_at(&mut self, at: usize) -> bool {
        let Some((s, op, load)) = self.loads.remove(at) else {
            return false;
        };
        let early = self.early.remove(&(s, op));
        let completion = early.unwrap_or_else(|| self.read(&load));
        self.feed(s, Input::Completed { op, completion });
        true
    }

    fn read(&self, load: &Load) -> Completion {
        let mut disk = self.disk.clone();
        self.held.iter().for_each(|(_, _, b)| disk.write(b));
        let bad = self.unreadable.as_ref();
        Completion::Loaded(answer(&View { disk, bad }, load))
    }

    /// Lets the oldest held write become durable.
    pub fn sync_one(&mut self) {
        let (s, op, batch) = self.held.pop_front().expect("a held write");
        self.disk.write(&batch);
        let completion = Completion::Persisted(Ok(()));
        self.input(s, Input::Completed { op, completion });
    }

    /// Everything held becomes durable together, and so does what follows.
    pub fn release(&mut self) {
        self.hold = false;
        for (s, op, batch) in core::mem::take(&mut self.held) {
            self.disk.write(&batch);
            let completion = Completion::Persisted(Ok(()));
            self.feed(s, Input::Completed { op, completion });
        }
        self.run();
    }

    fn pass_mail(&mut self, from: usize, to: usize) -> bool {
        let Some(mail) = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return false;
        };
        let from = ShardId(from as u8);
        self.feed(to, Input::Mail { from, mail });
        true
    }

    /// Delivers the oldest mail of one lane.
    pub fn mail_one(&mut self, from: usize, to: usize) -> bool {
        let passed = self.shards[to].is_some() && self.pass_mail(from, to);
        self.run();
        passed
    }

    /// Time passes on every shard at once.
    pub fn pass(&mut self, ns: u64) {
        self.now.mono.0 += ns;
        self.now.wall.0 += ns / 1_000_000;
        for s in 0..self.shards.len() {
            self.feed(s, Input::Deadline);
        }
        self.run();
    }

    /// Seconds pass one at a time while every open client pings.
    pub fn idle(&mut self, seconds: u64) {
        for s in 0..seconds {
            if s % 20 == 0 {
                let open: Vec<u64> = self.clients.keys().copied().collect();
                for c in open.into_iter().filter(|c| !self.closed.contains_key(c)).collect::<Vec<_>>() {
                    self.bytes(c, &[0x70]);
                }
            }
            self.pass(SECOND);
        }
        for c in self.clients.values_mut() {
            c.inbox.retain(|f| *f != Frame::Pong);
        }
    }

    /// The client closes its socket.
    pub fn close(&mut self, conn: u64) {
        let shard = self.clients[&conn].shard;
        self.closed.insert(conn, CloseReason::PeerDisconnect);
        let (conn, cause) = (ConnId(conn), CloseCause::Peer);
        self.input(shard, Input::ConnClosed { conn, cause });
    }

    pub fn open(&mut self, shard: usize, conn: u64) {
        self.clients.insert(conn, Client { shard, decoder: Decoder::new(5), inbox: Vec::new() });
        let peer = "127.0.0.1:1".parse().unwrap();
        self.input(shard, Input::ConnOpened { conn: ConnId(conn), transport: Transport::Tcp, peer });
    }

    pub fn bytes(&mut self, conn: u64, bytes: &[u8]) {
        let bytes = Bytes::copy_from_slice(bytes);
        let shard = self.clients[&conn].shard;
        let conn = ConnId(conn);
        self.input(shard, Input::ConnReceived { conn, bytes });
    }

    /// Connects on `shard`; `conn` must be unique over the node.
    pub fn connect(&mut self, shard: usize, conn: u64, uid: &str, device: &str) {
        self.open(shard, conn);
        let frame = connect_frame(uid, device, "");
        self.bytes(conn, &frame);
    }

    pub fn connected(&mut self, shard: usize, conn: u64, uid: &str) {
        self.connect(shard, conn, uid, "dev");
        match self.take(conn).as_slice() {
            [Frame::ConnAck(a)] if a.reason == ReasonCode::SUCCESS => {}
            other => panic!("{uid}: {other:?}"),
        }
    }

    pub fn send(&mut self, conn: u64, to: &str, no: &str, payload: &str) {
        let frame = send_frame(to, no, payload);
        self.bytes(conn, &frame);
    }

    pub fn take(&mut self, conn: u64) -> Vec<Frame> {
        self.clients.get_mut(&conn).map(|c| std::mem::take(&mut c.inbox)).unwrap_or_default()
    }

    /// SENDACKs written since: (reason, seq, message id). Other frames are dropped.
    pub fn acks(&mut self, conn: u64) -> Vec<(ReasonCode, u64, i64)> {
        self.take(conn)
            .iter()
            .filter_map(|f| match f {
                Frame::SendAck(a) => Some((a.reason, a.message_seq, a.message_id)),
                _ => None,
            })
            .collect()
    }

    /// RECVs written since: (seq, dup). Other frames are dropped.
    pub fn recvs(&mut self, conn: u64) -> Vec<(u64, bool)> {
        self.take(conn)
            .iter()
            .filter_map(|f| match f {
                Frame::Recv(r) => Some((r.message_seq, r.flags.dup())),
                _ => None,
            })
            .collect()
    }

    pub fn call_at(&mut self, shard: usize, request: ApiRequest) -> Option<ApiAnswer> {
        let call = CallId(1);
        self.input(shard, Input::Call { call, request });
        self.answers.pop()
    }

    pub fn call(&mut self, request: ApiRequest) -> ApiAnswer {
        let home = request.home(self.config.slots, self.config.shards);
        self.call_at(usize::from(home.0), request).expect("an answer")
    }

    pub fn history(&mut self, uid: &str, peer: &str) -> Vec<(u64, String)> {
        let q = MessageSync {
            login_uid: uid.into(),
            channel_id: peer.into(),
            channel_type: 1,
            limit: 10_000,
            ..MessageSync::default()
        };
        match self.call(ApiRequest::MessageSync(q)) {
            ApiAnswer::Messages(page) => {
                page.messages.iter().map(|m| (m.seq, String::from_utf8(m.payload.to_vec()).unwrap())).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn channels(&self) -> usize {
        self.shards.iter().flatten().map(|s| s.view().channels()).sum()
    }

    /// The shard that owns a key.
    pub fn home(&self, key: &str) -> usize {
        usize::from(shard_of(slot_of(key, self.config.slots), self.config.shards).0)
    }

    /// A uid whose authority is `shard`.
    pub fn uid_on(&self, shard: usize, name: &str) -> String {
        (0..).map(|i| format!("{name}{i}")).find(|u| self.home(u) == shard).unwrap()
    }
}

pub fn connect_frame(uid: &str, device: &str, token: &str) -> BytesMut {
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
    out
}

pub fn send_frame(to: &str, no: &str, payload: &str) -> BytesMut {
    numbered_send(1, to, no, payload)
}

pub fn numbered_send(client_seq: u32, to: &str, no: &str, payload: &str) -> BytesMut {
    encoded(Send { client_seq, ..plain_send(to, no, payload) })
}

/// A SEND that is not stored.
pub fn transient_send(to: &str, no: &str) -> BytesMut {
    encoded(Send { flags: Flags::NO_PERSIST, ..plain_send(to, no, "x") })
}

/// A SEND that expires after so many seconds; 0 = never.
pub fn expiring_send(to: &str, no: &str, expire: u32) -> BytesMut {
    encoded(Send { expire, ..plain_send(to, no, "x") })
}

fn plain_send(to: &str, no: &str, payload: &str) -> Send {
    Send {
        flags: Flags::RED_DOT,
        setting: Setting::NO_ENCRYPT,
        client_msg_no: Text::from(no),
        channel_id: Text::from(to),
        channel_type: 1,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        ..Send::default()
    }
}

fn encoded(send: Send) -> BytesMut {
    let mut out = BytesMut::new();
    encode_send(&send, 5, &mut out).unwrap();
    out
}
