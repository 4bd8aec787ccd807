//! A toy server with the interface of a shard, so that the world can be tested without the core: it stores every SEND
//! and acknowledges it when the batch is durable. Nothing is delivered.

use crate::machine::{Look, Machine};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use wukong_core::counters::Counters;
use wukong_core::error::BootError;
use wukong_core::ids::{ConnId, OpId};
use wukong_core::rng::{Seed, Stream};
use wukong_core::store::{Family, Load, Query, WriteBatch};
use wukong_core::time::{Instant, Now};
use wukong_core::{Boot, Completion, Effect, Input, Output, PersistClass, ShardConfig, TimerKind};
use wukong_proto::{ConnAck, Decoder, Frame, ReasonCode, SendAck, Text, encode_conn_ack, encode_pong, encode_send_ack};

/// See the module.
#[derive(Debug)]
pub struct Toy {
    out: VecDeque<Output>,
    conns: BTreeMap<ConnId, (Decoder, u8)>,
    waiting: BTreeMap<OpId, Vec<(ConnId, u8, SendAck)>>,
    batch: WriteBatch,
    acks: Vec<(ConnId, u8, SendAck)>,
    next_op: u64,
    next_seq: u64,
    shard: u8,
    beat: Instant,
    halted: bool,
    keys: Stream,
    counters: Counters,
}

impl Toy {
    fn frame(&mut self, conn: ConnId, frame: Frame) {
        let version = self.conns.get(&conn).map_or(5, |c| c.1);
        let mut out = BytesMut::new();
        match frame {
            Frame::Connect(c) => {
                let version = c.version.min(6);
                if let Some(state) = self.conns.get_mut(&conn) {
                    state.0.set_version(version);
                    state.1 = version;
                }
                let mut secret = [0; 32];
                self.keys.fill(&mut secret);
                let pair = crate::client::session::KeyPair::new(secret);
                let ack = ConnAck {
                    server_version: (c.version >= 4).then_some(version),
                    reason: ReasonCode::SUCCESS,
                    server_key: pair.public,
                    salt: Text::from_static("0123456789abcdef"),
                    ..ConnAck::default()
                };
                let _ = encode_conn_ack(&ack, version, &mut out);
            }
            Frame::Send(s) => {
                self.next_seq += 1;
                let key = [&[self.shard][..], &self.next_seq.to_be_bytes()].concat();
                self.batch.put(Family::Log, &key, &s.payload);
                let ack = SendAck {
                    client_seq: s.client_seq,
                    client_msg_no: s.client_msg_no,
                    message_seq: self.next_seq,
                    reason: ReasonCode::SUCCESS,
                    ..SendAck::default()
                };
                self.acks.push((conn, version, ack));
            }
            Frame::Ping => encode_pong(&mut out),
            _ => {}
        }
        if !out.is_empty() {
            self.out.push_back(Output::Write { conn, frames: [out.freeze()].into_iter().collect() });
        }
    }

    fn close(&mut self, conn: ConnId) {
        if self.conns.remove(&conn).is_some() {
            self.out.push_back(Output::Close { conn, reason: wukong_core::CloseReason::Violation });
        }
    }

    fn start(&mut self, effect: Effect) -> OpId {
        self.next_op += 1;
        self.out.push_back(Output::Start { op: OpId(self.next_op), effect });
        OpId(self.next_op)
    }
}

impl Machine for Toy {
    fn start(config: ShardConfig, _: Boot, seed: Seed, now: Now) -> Result<Self, BootError> {
        let shard = config.shard.0;
        let mut toy = Self {
            out: VecDeque::new(),
            conns: BTreeMap::new(),
            waiting: BTreeMap::new(),
            batch: WriteBatch::new(),
            acks: Vec::new(),
            next_op: 0,
            next_seq: 0,
            shard,
            beat: now.mono,
            halted: false,
            keys: Stream::fork(&seed.keys, "toy"),
            counters: Counters::default(),
        };
        let range = |shard: u8| bytes::Bytes::copy_from_slice(&[shard]);
        let query = Query::Range {
            family: Family::Log,
            from: range(shard),
            to: range(shard + 1),
            rows_max: 1,
            bytes_max: 1 << 20,
            reverse: true,
        };
        toy.start(Effect::Load(Load { queries: vec![query] }));
        Ok(toy)
    }

    fn handle(&mut self, now: Now, input: Input) {
        self.counters.inputs += 1;
        match input {
            Input::ConnOpened { conn, .. } => {
                self.conns.insert(conn, (Decoder::new(5), 5));
            }
            Input::ConnReceived { conn, bytes } => {
                let Some((decoder, _)) = self.conns.get_mut(&conn) else { return };
                decoder.feed(bytes);
                while let Some((decoder, _)) = self.conns.get_mut(&conn) {
                    match decoder.next() {
                        Ok(Some(frame)) => self.frame(conn, frame),
                        Ok(None) => break,
                        Err(_) => self.close(conn),
                    }
                }
            }
            Input::ConnClosed { conn, .. } => {
                self.conns.remove(&conn);
            }
            Input::Completed { op, completion: Completion::Persisted(Ok(())) } => {
                for (conn, version, ack) in self.waiting.remove(&op).unwrap_or_default() {
                    if self.conns.contains_key(&conn) {
                        let mut out = BytesMut::new();
                        let _ = encode_send_ack(&ack, version, &mut out);
                        self.out.push_back(Output::Write { conn, frames: [out.freeze()].into_iter().collect() });
                    }
                }
            }
            Input::Completed { completion: Completion::Persisted(Err(_)), .. } => self.halted = true,
            Input::Completed { completion: Completion::Loaded(Ok(found)), .. } => {
                if let Some(wukong_core::store::Found::Page { rows, .. }) = found.first()
                    && let Some(last) = rows.first().and_then(|(k, _)| k.get(1..9)?.try_into().ok())
                {
                    self.next_seq = self.next_seq.max(u64::from_be_bytes(last));
                }
            }
            Input::Deadline if self.beat <= now.mono => self.beat = now.mono + core::time::Duration::from_secs(1),
            Input::Stop => {
                let all: Vec<ConnId> = self.conns.keys().copied().collect();
                all.into_iter().for_each(|c| self.close(c));
            }
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        if !self.batch.is_empty() && !self.halted {
            let batch = std::mem::take(&mut self.batch);
            let op = self.start(Effect::Persist { batch, class: PersistClass::Sync });
            self.waiting.insert(op, std::mem::take(&mut self.acks));
        }
        if self.halted { None } else { self.out.pop_front() }
    }

    fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        Some((self.beat, TimerKind::Channel))
    }

    fn wants_input(&self) -> bool {
        self.waiting.len() < 8
    }

    fn wants_bytes(&self, _: ConnId) -> bool {
        true
    }

    fn look(&self) -> Look {
        Look {
            ready: true,
            stopped: self.waiting.is_empty() && self.conns.is_empty(),
            halted: self.halted,
            connections: self.conns.len(),
            ..Look::default()
        }
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }
}
