//! Several nodes of real shards: slots elect, channels are replicated, and what was acknowledged survives whoever dies.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod support;

use std::collections::BTreeSet;
use support::{Disk, Node, SECOND, WALL, config};
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::channel::id::compose;
use wukong_core::ids::{CallId, Epoch, Incarnation, NodeId, PeerProcess, Position, SlotId, StoreId};
use wukong_core::raft::config::Replica;
use wukong_core::store::rows::{Format, Hint, SnapshotRow};
use wukong_core::store::{Family, Record, keys};
use wukong_core::{Input, ShardConfig};
use wukong_proto::ReasonCode;

const TICK: u64 = 5_000_000;

fn replica(n: usize) -> Replica {
    Replica { node: NodeId(n as u16 + 1), store: StoreId(n as u128 + 1) }
}

/// Nodes whose frames arrive at once, in order, unless a pair is cut or a node is down.
struct Cluster {
    nodes: Vec<Option<Node>>,
    disks: Vec<Disk>,
    incarnations: Vec<u64>,
    cut: BTreeSet<(usize, usize)>,
    config: ShardConfig,
    time: u64,
}

impl Cluster {
    /// One slot, so that whoever leads it is the authority of everything.
    fn new(nodes: usize, shards: u8) -> Self {
        let replicas = (0..nodes).map(replica).collect();
        let config = ShardConfig { slots: u16::from(shards), replicas, cluster: 42, ..config(shards) };
        let mut c = Self {
            nodes: (0..nodes).map(|_| None).collect(),
            disks: vec![Disk::default(); nodes],
            incarnations: vec![0; nodes],
            cut: BTreeSet::new(),
            config,
            time: 0,
        };
        (0..nodes).for_each(|n| c.start(n));
        c
    }

    fn start(&mut self, n: usize) {
        self.incarnations[n] += 1;
        let config = ShardConfig { node: replica(n).node, ..self.config.clone() };
        let disk = std::mem::take(&mut self.disks[n]);
        let mut node = Node::cold(disk, self.incarnations[n], config, WALL);
        node.store = replica(n).store;
        node.now.mono.0 = self.time;
        node.boot_all();
        self.nodes[n] = Some(node);
        for other in 0..self.nodes.len() {
            self.join(n, other);
        }
        self.run();
    }

    /// The process dies; what was durable stays.
    fn crash(&mut self, n: usize) {
        let node = self.nodes[n].take().expect("a running node");
        self.disks[n] = node.disk;
        for other in 0..self.nodes.len() {
            self.part(n, other);
        }
        self.run();
    }

    fn tell(&mut self, n: usize, input: &Input) {
        if let Some(node) = self.nodes[n].as_mut() {
            (0..node.shards.len()).for_each(|s| node.feed(s, input.clone()));
        }
    }

    fn join(&mut self, a: usize, b: usize) {
        if a == b || self.cut.contains(&(a.min(b), a.max(b))) || self.nodes[a].is_none() || self.nodes[b].is_none() {
            return;
        }
        for (n, peer) in [(a, b), (b, a)] {
            let Replica { node, store } = replica(peer);
            let incarnation = Incarnation(self.incarnations[peer]);
            let peer = PeerProcess { node, store, incarnation, shards: self.config.shards, wire: 1 };
            self.tell(n, &Input::PeerUp { peer });
        }
    }

    fn part(&mut self, a: usize, b: usize) {
        for (n, peer) in [(a, b), (b, a)] {
            let incarnation = Incarnation(self.incarnations[peer]);
            self.tell(n, &Input::PeerDown { node: replica(peer).node, incarnation });
        }
    }

    /// Nothing passes between these two.
    fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        self.part(a, b);
    }

    /// A node stands still: its links stay open, and nothing passes.
    fn freeze(&mut self, n: usize) {
        let others = (0..self.nodes.len()).filter(|o| *o != n);
        self.cut.extend(others.map(|o| (n.min(o), n.max(o))));
    }

    fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.join(a, b);
        }
    }

    fn run(&mut self) {
        loop {
            let mut moved = false;
            for from in 0..self.nodes.len() {
                let Some(node) = self.nodes[from].as_mut() else { continue };
                node.run();
                let incarnation = Incarnation(self.incarnations[from]);
                for to in std::mem::take(&mut node.resets) {
                    let to = usize::from(to.0) - 1;
                    self.part(from, to);
                    self.join(from, to);
                }
                let frames = self.nodes[from].as_mut().map(|n| std::mem::take(&mut n.frames)).unwrap_or_default();
                for (to, frame) in frames {
                    moved = true;
                    let to = usize::from(to.0) - 1;
                    if self.cut.contains(&(from.min(to), from.max(to))) {
                        continue;
                    }
                    let shard = wukong_proto::peer::frame_shard(&frame).expect("a header");
                    let node = replica(from).node;
                    if let Some(target) = self.nodes[to].as_mut() {
                        target.feed(usize::from(shard), Input::PeerFrame { node, incarnation, frame });
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn pass(&mut self, ns: u64) {
        let until = self.time + ns;
        while self.time < until {
            self.time += TICK;
            for node in self.nodes.iter_mut().flatten() {
                node.pass(TICK);
            }
            self.run();
        }
    }

    /// Who serves everything, once it does.
    fn gateway(&mut self) -> usize {
        for _ in 0..40 {
            let leads = |n: &Option<Node>| {
                n.as_ref().is_some_and(|n| {
                    n.shards
                        .iter()
                        .flatten()
                        .all(|s| (0..self.config.slots).all(|slot| s.view().slot_served(SlotId(slot)) != Some(false)))
                })
            };
            if let Some(n) = self.nodes.iter().position(leads) {
                return n;
            }
            self.pass(SECOND / 4);
        }
        panic!("nobody leads");
    }

    fn node(&mut self, n: usize) -> &mut Node {
        self.nodes[n].as_mut().expect("a running node")
    }

    /// The rows of all logs that a node has: (key, message id, payload).
    fn log(&self, n: usize) -> Vec<(u64, i64, String)> {
        let disk = self.nodes[n].as_ref().map_or(&self.disks[n], |n| &n.disk);
        let rows = disk.0.iter().filter(|((family, _), _)| *family == Family::Log);
        rows.map(|((_, key), row)| {
            let seq = keys::parse_log_seq(key).unwrap();
            let record = Record::decode(seq, &row.clone().into()).unwrap();
            (seq, record.message_id, String::from_utf8(record.payload.to_vec()).unwrap())
        })
        .collect()
    }

    /// Deletes the channel of two users.
    fn delete(&mut self, gateway: usize, a: &str, b: &str) {
        let request = ApiRequest::DeleteChannel { channel_id: compose(a, b), channel_type: 1 };
        let home = request.home(self.config.slots, self.config.shards);
        self.node(gateway).input(usize::from(home.0), Input::Call { call: CallId(1), request });
        for _ in 0..400 {
            self.run();
            if let Some(answer) = self.node(gateway).answers.pop() {
                return assert_eq!(answer, ApiAnswer::Done);
            }
            self.pass(TICK);
        }
        panic!("no answer");
    }

    /// Sends, and waits for the answer.
    fn send(&mut self, gateway: usize, conn: u64, to: &str, no: &str) -> (ReasonCode, u64, i64) {
        self.node(gateway).send(conn, to, no, no);
        for _ in 0..2_400 {
            self.run();
            if let Some(ack) = self.node(gateway).acks(conn).first() {
                return *ack;
            }
            self.pass(TICK);
        }
        panic!("{no}: no answer");
    }
}

#[test]
fn three_nodes_hold_what_one_acknowledges() {
    let mut c = Cluster::new(3, 1);
    let g = c.gateway();
    c.node(g).connected(0, 1, "alice");
    for i in 1..=20 {
        let ack = c.send(g, 1, "bob", &format!("m{i}"));
        assert_eq!((ack.0, ack.1), (ReasonCode::SUCCESS, i));
    }
    c.pass(SECOND);
    assert_eq!(c.log(0).len(), 20);
    assert_eq!((c.log(0), c.log(0)), (c.log(1), c.log(2)));
}

#[test]
fn whoever_dies_nothing_acknowledged_is_lost_doubled_or_reordered() {
    let mut c = Cluster::new(3, 1);
    let mut acked = Vec::new();
    for round in 0..6 {
        let g = c.gateway();
        let conn = 10 + round;
        c.node(g).connected(0, conn, "alice");
        for i in 0..5 {
            let no = format!("r{round}-{i}");
            let (reason, seq, id) = c.send(g, conn, "bob", &no);
            assert_eq!(reason, ReasonCode::SUCCESS, "{no}");
            acked.push((seq, id, no));
        }
        // Once more: the same answer.
        let (seq, id, no) = acked[acked.len() - 3].clone();
        assert_eq!(c.send(g, conn, "bob", &no), (ReasonCode::SUCCESS, seq, id));
        c.crash(g);
        c.pass(SECOND * 4);
        c.start(g);
        c.pass(SECOND);
    }
    let seqs: Vec<u64> = acked.iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(seqs, (1..=30).collect::<Vec<u64>>());
    c.pass(SECOND * 5);
    for n in 0..3 {
        assert_eq!(c.log(n), acked, "node {n}");
    }
}

#[test]
fn a_leader_cut_off_acknowledges_nothing() {
    let mut c = Cluster::new(3, 1);
    let g = c.gateway();
    c.node(g).connected(0, 1, "alice");
    assert_eq!(c.send(g, 1, "bob", "before").1, 1);
    let others: Vec<usize> = (0..3).filter(|n| *n != g).collect();
    others.iter().for_each(|n| c.cut(g, *n));
    c.node(g).send(1, "bob", "alone", "alone");
    c.pass(SECOND * 4);
    let answers = c.node(g).acks(1);
    assert!(answers.iter().all(|a| a.0 != ReasonCode::SUCCESS), "{answers:?}");
    let h = c.gateway();
    assert_ne!(h, g, "the majority has a leader of its own");
    c.node(h).connected(0, 2, "alice");
    assert_eq!(c.send(h, 2, "bob", "after").1, 2);
    c.heal();
    c.pass(SECOND * 5);
    let payloads: Vec<String> = c.log(g).into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(payloads, ["before", "after"], "what was never committed is cut");
    assert_eq!((c.log(0), c.log(0)), (c.log(1), c.log(2)));
}

#[test]
fn a_channel_is_led_where_its_slot_is() {
    for times in 1..=6 {
        let mut c = Cluster::new(3, 1);
        let g = c.gateway();
        c.node(g).connected(0, 1, "alice");
        assert_eq!(c.send(g, 1, "bob", "before").1, 1);
        for _ in 0..times {
            (0..3).for_each(|n| c.crash(n));
            c.pass(SECOND / 10);
            (0..3).for_each(|n| c.start(n));
            let g = c.gateway();
            c.node(g).connected(0, 2, "alice");
            let asked = c.time;
            assert_eq!(c.send(g, 2, "bob", "before").1, 1);
            assert!(c.time - asked < SECOND, "{times}: it took {} ms", (c.time - asked) / 1_000_000);
        }
    }
}

#[test]
fn a_leader_that_stands_still_while_its_links_are_open_is_replaced() {
    let mut c = Cluster::new(3, 1);
    let g = c.gateway();
    c.node(g).connected(0, 1, "alice");
    assert_eq!(c.send(g, 1, "bob", "before").1, 1);
    c.pass(SECOND);
    c.freeze(g);
    c.pass(SECOND * 8);
    let other = c.gateway();
    assert_ne!(other, g, "somebody else leads the slot");
    c.node(other).connected(0, 2, "alice");
    assert_eq!(c.send(other, 2, "bob", "after").1, 2, "and its channels");
    c.heal();
    c.pass(SECOND * 3);
    assert_eq!((c.log(0), c.log(0)), (c.log(1), c.log(2)));
    assert_eq!(c.log(g).len(), 2);
}

/// A process ended between the log's new beginning and the rows of its snapshot: the next one puts them in place before it serves.
#[test]
fn rows_of_a_snapshot_are_put_in_place_at_boot() {
    let token = |n: &Node| n.disk.0.get(&(Family::Meta, keys::device(SlotId(0), "u", 1).to_vec())).cloned();
    let mut donor = Node::new(ShardConfig { slots: 1, ..config(1) });
    let set = ApiRequest::SetToken { uid: "u".into(), token: "t".into(), device_flag: 1, device_level: 0 };
    assert_eq!(donor.call(set), ApiAnswer::Done);
    let row = token(&donor).expect("it is stored");

    let base = Position { epoch: Epoch(4), index: 70 };
    let aside = keys::snapshot_row(SlotId(0), &keys::device(SlotId(0), "u", 1)[2..]);
    let whole = SnapshotRow { base }.to_bytes();
    let single = |table| keys::single(SlotId(0), table).to_vec();
    let put = |disk: &mut Disk, family, key: Vec<u8>, row: &[u8]| disk.0.insert((family, key), row.to_vec());
    let mut disk = Disk::default();
    put(&mut disk, Family::Raft, single(keys::table::HINT), &Hint { hw: 70, base }.to_bytes());
    put(&mut disk, Family::Raft, aside.to_vec(), &row);
    put(&mut disk, Family::Meta, keys::device(SlotId(0), "gone", 1).to_vec(), b"a row of before");
    let boot = |disk: Disk| {
        let mut node = Node::cold(disk, 1, ShardConfig { slots: 1, ..config(1) }, WALL);
        node.boot_all();
        node.run();
        node
    };
    let served = |n: &Node| n.shards[0].as_ref().and_then(|s| s.view().slot_served(SlotId(0)));
    assert_eq!(
        served(&boot(disk.clone())),
        Some(false),
        "without the last chunk there is nothing to begin with: the slot stops"
    );

    put(&mut disk, Family::Raft, single(keys::table::SNAPSHOT), &whole);
    let node = boot(disk);
    assert_eq!((served(&node), token(&node).as_deref()), (Some(true), Some(&row[..])));
    let rows = |family| node.disk.0.keys().filter(|(f, _)| *f == family).map(|(_, k)| k.clone()).collect::<Vec<_>>();
    assert_eq!(rows(Family::Meta).len(), 2, "the token's, and how much is applied");
    assert!(!rows(Family::Raft).iter().any(|k| [0x06, 0x07].contains(&k[2])), "nothing lies aside any more");
}

#[test]
fn a_channel_made_anew_begins_at_one_and_nobody_keeps_the_old_one() {
    let mut c = Cluster::new(3, 1);
    let g = c.gateway();
    c.node(g).connected(0, 1, "alice");
    for i in 1..=5 {
        assert_eq!(c.send(g, 1, "bob", &format!("old{i}")).1, i);
    }
    c.pass(SECOND);
    let away = (g + 1) % 3;
    c.crash(away);
    assert_eq!(c.log(away).len(), 5);
    c.pass(SECOND);
    c.delete(g, "alice", "bob");
    assert_eq!(c.log(g), [], "what is deleted is gone when the call is answered, or soon");
    // What was sent before is a new message now.
    for (i, no) in ["new1", "old1", "new2"].into_iter().enumerate() {
        assert_eq!(c.send(g, 1, "bob", no).1, i as u64 + 1, "{no}");
    }
    c.start(away);
    c.pass(SECOND * 3);
    assert_eq!(c.log(g).len(), 3);
    assert_eq!((c.log(0), c.log(0)), (c.log(1), c.log(2)));
    // Deleted and not used again: nothing is left of it anywhere, and to delete it once more is no mistake.
    c.delete(g, "alice", "bob");
    c.delete(g, "alice", "bob");
    c.pass(SECOND * 2);
    for n in 0..3 {
        let left = c.node(n).disk.0.keys().filter(|(family, key)| match family {
            Family::Log | Family::Index | Family::Marks => true,
            Family::Raft => (keys::table::HEAD..=keys::table::DOOMED).contains(&key[2]),
            Family::Meta | Family::Outbox => false,
        });
        assert_eq!(left.collect::<Vec<_>>(), Vec::<&(Family, Vec<u8>)>::new(), "node {n}");
    }
    assert_eq!(c.send(g, 1, "bob", "once more").1, 1);
}

#[test]
fn who_was_away_while_all_settled_is_found_though_nobody_remembers() {
    let mut c = Cluster::new(3, 1);
    let g = c.gateway();
    c.node(g).connected(0, 1, "alice");
    assert_eq!(c.send(g, 1, "bob", "m1").1, 1);
    c.pass(SECOND);
    let away = (g + 1) % 3;
    c.crash(away);
    for i in 2..=6 {
        assert_eq!(c.send(g, 1, "bob", &format!("m{i}")).1, i);
    }
    // Settled, with what is remembered of the one that is away; then the others restart, and forget it.
    c.pass(SECOND * 25);
    for n in (0..3).filter(|n| *n != away) {
        c.crash(n);
        c.start(n);
        c.pass(SECOND * 4);
    }
    c.start(away);
    c.pass(SECOND * 10);
    assert_eq!(c.log(away).len(), 1, "nobody calls it");
    c.pass(SECOND * 55);
    assert_eq!(c.log(away).len(), 6);
    assert_eq!((c.log(0), c.log(0)), (c.log(1), c.log(2)));
}
