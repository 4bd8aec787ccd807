//! Random SENDs, resends, crashes, and delays of disk, loads and mail; then the invariants of semantics 12.
//! `REVIEW_SEEDS=500 REVIEW_FIRST=1 cargo test --profile sim -p wukong-core --test chaos` looks longer.

#![allow(
    clippy::collapsible_match,
    clippy::disallowed_methods,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core
)]

mod support;

use bytes::BytesMut;
use std::collections::{BTreeMap, BTreeSet};
use support::{Disk, Node, SECOND, config};
use wukong_core::ShardConfig;
use wukong_proto::{Frame, ReasonCode};

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }
}

/// What one client did and saw.
#[derive(Clone)]
struct Session {
    user: usize,
    /// SENDs without an ack: client_seq → (peer, number).
    owed: BTreeMap<u32, (usize, u32)>,
    /// Highest first-time seq by peer.
    seen: BTreeMap<String, u32>,
    got: BTreeSet<i64>,
    opened: u64,
}

/// Random SENDs, resends, crashes, delays of disk, loads and mail; then the invariants of semantics 12.
struct Chaos {
    n: Node,
    dice: Dice,
    users: Vec<String>,
    open: BTreeMap<u64, Session>,
    next_conn: u64,
    next_seq: u32,
    next_no: u32,
    step: u64,
    /// (from, to, number) → (seq, id), once acknowledged; with the step of the ack.
    acked: BTreeMap<(usize, usize, u32), (u64, i64, u64)>,
    sent: Vec<(usize, usize, u32, u64)>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let shards = 1 + dice.roll(3) as u8;
        let tiny = dice.roll(2) == 0;
        let config = ShardConfig {
            overlay_rows_max: [0, 1, 4096][dice.roll(3) as usize],
            dedup_bytes_max: if tiny { 112 * dice.roll(4) as usize } else { 1 << 20 },
            mail_credit: [64, 8_192][dice.roll(2) as usize],
            ..config(shards)
        };
        let users = (0..4).map(|i| format!("user{i}x{}", dice.roll(1_000))).collect();
        Self {
            n: Node::new(config),
            dice,
            users,
            open: BTreeMap::new(),
            next_conn: 1,
            next_seq: 1,
            next_no: 1,
            step: 0,
            acked: BTreeMap::new(),
            sent: Vec::new(),
        }
    }

    fn connect(&mut self) {
        let user = self.dice.roll(4) as usize;
        let conn = self.next_conn;
        self.next_conn += 1;
        let shard = self.dice.roll(u64::from(self.n.config.shards)) as usize;
        let uid = self.users[user].clone();
        self.n.connect(shard, conn, &uid, &format!("device{conn}"));
        self.open.insert(
            conn,
            Session { user, owed: BTreeMap::new(), seen: BTreeMap::new(), got: BTreeSet::new(), opened: u64::MAX },
        );
    }

    fn send(&mut self) {
        let conns: Vec<u64> = self.open.keys().copied().collect();
        let Some(conn) = conns.get(self.dice.roll(conns.len().max(1) as u64) as usize).copied() else {
            return;
        };
        let user = self.open[&conn].user;
        if self.open[&conn].opened == u64::MAX {
            return;
        }
        let mut all = BytesMut::new();
        for _ in 0..=self.dice.roll(4) {
            let again = !self.sent.is_empty() && self.dice.roll(3) == 0;
            let (peer, no) = if again {
                let s = self.sent[self.dice.roll(self.sent.len() as u64) as usize];
                if s.0 != user {
                    continue;
                }
                (s.1, s.2)
            } else {
                let no = self.next_no;
                self.next_no += 1;
                let peer = self.dice.roll(4) as usize;
                self.sent.push((user, peer, no, self.step));
                (peer, no)
            };
            let seq = self.next_seq;
            self.next_seq += 1;
            let frame = support::numbered_send(seq, &self.users[peer], &format!("n{no}"), &format!("{user}:{no}"));
            all.extend_from_slice(&frame);
            self.open.get_mut(&conn).unwrap().owed.insert(seq, (peer, no));
        }
        if !all.is_empty() {
            self.n.bytes(conn, &all);
        }
    }

    fn collect(&mut self) {
        let conns: Vec<u64> = self.open.keys().copied().collect();
        for conn in conns {
            for frame in self.n.take(conn) {
                let s = self.open.get_mut(&conn).unwrap();
                match frame {
                    Frame::ConnAck(a) => {
                        assert_eq!(a.reason, ReasonCode::SUCCESS);
                        s.opened = self.step;
                    }
                    Frame::SendAck(a) => {
                        let (peer, no) = s.owed.remove(&a.client_seq).expect("one ack for each SEND");
                        if a.reason == ReasonCode::SUCCESS {
                            let key = (s.user, peer, no);
                            let stored = (a.message_seq, a.message_id, self.step);
                            let first = *self.acked.entry(key).or_insert(stored);
                            assert_eq!((first.0, first.1), (stored.0, stored.1), "one key, one message");
                        }
                    }
                    Frame::Recv(r) => {
                        if !r.flags.dup() {
                            let last = s.seen.entry(r.channel_id.to_string()).or_default();
                            assert!(r.message_seq as u32 > *last, "RECVs of a channel arrive in order");
                            *last = r.message_seq as u32;
                        }
                        s.got.insert(r.message_id);
                    }
                    _ => {}
                }
            }
            if self.n.closed.contains_key(&conn) {
                self.open.remove(&conn);
            }
        }
    }

    fn crash(&mut self) {
        let n = std::mem::replace(&mut self.n, Node::cold(Disk::default(), 0, config(1), 0));
        self.n = n.crash();
        assert!(self.n.ready());
        self.open.clear();
    }

    fn step(&mut self) {
        self.step += 1;
        match self.dice.roll(40) {
            0..=1 => self.connect(),
            2 => {
                if let Some(conn) = self.open.keys().next().copied()
                    && self.dice.roll(4) == 0
                {
                    self.open.remove(&conn);
                    self.n.close(conn);
                }
            }
            3..=14 => self.send(),
            15..=22 => {
                if !self.n.held.is_empty() {
                    self.n.sync_one();
                }
            }
            23..=27 => {
                let at = self.dice.roll(self.n.loads.len().max(1) as u64) as usize;
                self.n.load_at(at);
                self.n.run();
            }
            28..=35 => {
                let shards = u64::from(self.n.config.shards);
                let (from, to) = (self.dice.roll(shards), self.dice.roll(shards));
                for _ in 0..self.dice.roll(8) {
                    self.n.mail_one(from as usize, to as usize);
                }
            }
            36 => {
                self.n.hold = self.dice.roll(2) == 0;
                self.n.hold_loads = self.dice.roll(2) == 0;
                self.n.early_loads = self.dice.roll(2) == 0;
                self.n.hold_mail = self.dice.roll(2) == 0;
                if !self.n.hold {
                    self.n.release();
                }
                self.n.run();
            }
            37 => {
                let ns = [1_000_000, SECOND, 12 * SECOND][self.dice.roll(3) as usize];
                self.n.pass(ns);
            }
            38 if self.dice.roll(6) == 0 => self.crash(),
            39 if self.dice.roll(6) == 0 => {
                self.settle();
                let seconds = 30 + self.dice.roll(60);
                self.n.idle(seconds);
            }
            _ => {}
        }
        self.collect();
    }

    fn settle(&mut self) {
        (self.n.hold_loads, self.n.hold_mail) = (false, false);
        self.n.release();
        self.n.run();
        self.collect();
    }

    fn finish(&mut self) {
        self.settle();
        self.n.pass(SECOND);
        self.n.pass(10 * SECOND);
        self.collect();
        for (conn, s) in &self.open {
            assert!(s.owed.is_empty(), "conn {conn}: {} SENDs without an answer", s.owed.len());
        }
        for a in 0..4 {
            for b in a..4 {
                let (ua, ub) = (self.users[a].clone(), self.users[b].clone());
                let log = self.n.history(&ua, &ub);
                let seqs: Vec<u64> = log.iter().map(|(s, _)| *s).collect();
                assert_eq!(seqs, (1..=log.len() as u64).collect::<Vec<_>>(), "gapless");
                let texts: BTreeSet<&String> = log.iter().map(|(_, t)| t).collect();
                assert_eq!(texts.len(), log.len(), "no message is stored twice");
                for ((from, to, no), (seq, _, _)) in &self.acked {
                    if (*from, *to) == (a, b) || (*from, *to) == (b, a) {
                        assert_eq!(log[*seq as usize - 1].1, format!("{from}:{no}"), "what was acknowledged is stored");
                    }
                }
            }
        }
        for (conn, s) in &self.open {
            for ((from, to, no), (_, id, _)) in &self.acked {
                let sent_at = self.sent.iter().find(|x| (x.0, x.1, x.2) == (*from, *to, *no)).unwrap().3;
                if *to == s.user && *from != s.user && s.opened != u64::MAX && sent_at > s.opened {
                    assert!(s.got.contains(id), "conn {conn} never received {from}:{no}");
                }
            }
        }
        self.n.idle(90);
        self.n.idle(90);
        assert_eq!(self.n.channels(), 0, "idle channels leave memory");
        // A last resend of everything acknowledged is answered from the log.
        self.crash();
        let acked = self.acked.clone();
        for ((from, to, no), (seq, id, _)) in acked.into_iter().take(20) {
            let conn = self.next_conn;
            self.next_conn += 1;
            let (ua, ub) = (self.users[from].clone(), self.users[to].clone());
            self.n.connected(0, conn, &ua);
            self.n.send(conn, &ub, &format!("n{no}"), &format!("{from}:{no}"));
            assert_eq!(self.n.acks(conn), [(ReasonCode::SUCCESS, seq, id)]);
        }
    }
}

#[test]
fn nothing_is_lost_repeated_or_reordered_under_delays_and_crashes() {
    let seeds = std::env::var("REVIEW_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3);
    let first = std::env::var("REVIEW_FIRST").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        let run = std::panic::catch_unwind(|| {
            let mut c = Chaos::new(seed);
            for _ in 0..400 {
                c.step();
            }
            c.finish();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
