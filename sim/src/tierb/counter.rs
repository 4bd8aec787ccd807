//! A machine that talks to its peers and nothing else: it counts what it sends on each stream, and judges what arrives.
//!
//! It stands for the shard as long as links are what is tested: within one link nothing is lost, doubled or out of
//! order; up and down come in pairs; incarnations never go back.

use super::store::lock;
use super::tape::{Place, Tape};
use crate::rng::Rng;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wukong_core::ids::{ConnId, Incarnation, LinkClass, NodeId, PeerProcess, StoreId};
use wukong_core::time::{Instant, Now};
use wukong_core::{Input, Output};
use wukong_runtime::reactor::machine::{Machine, MachineState, Sample};

/// ms between two rounds of frames.
const EVERY_MS: (u64, u64) = (2, 60);
const HEAD: usize = 4 + 3 * 8;

/// What all counters of a run did together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub ups: u64,
    pub downs: u64,
    pub frames_sent: u64,
    pub frames_arrived: u64,
    /// Frames that the sender meant for an earlier process here.
    pub stale: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.ups += other.ups;
        self.downs += other.downs;
        self.frames_sent += other.frames_sent;
        self.frames_arrived += other.frames_arrived;
        self.stale += other.stale;
    }
}

struct Link {
    process: PeerProcess,
    /// Next number by class and sending shard.
    expected: BTreeMap<(LinkClass, u8), u64>,
}

pub struct Counter {
    place: Place,
    tape: Arc<Tape>,
    counts: Arc<Mutex<Counts>>,
    rng: Rng,
    links: BTreeMap<NodeId, Link>,
    newest: BTreeMap<StoreId, Incarnation>,
    /// Numbers given so far, by node, class and receiving shard.
    numbers: BTreeMap<(NodeId, LinkClass, u8), u64>,
    due: Instant,
    out: VecDeque<Output>,
    /// The planted bug.
    swaps: bool,
}

impl Counter {
    #[must_use]
    pub fn new(place: Place, tape: Arc<Tape>, counts: Arc<Mutex<Counts>>, rng: Rng, swaps: bool) -> Self {
        Self {
            place,
            tape,
            counts,
            rng,
            links: BTreeMap::new(),
            newest: BTreeMap::new(),
            numbers: BTreeMap::new(),
            due: Instant(0),
            out: VecDeque::new(),
            swaps,
        }
    }

    fn wrong(&self, what: impl std::fmt::Display) {
        let Place { node, life, shard } = self.place;
        self.tape.violation(format!("LINK n{node}.{life}/{shard}: {what}"));
    }

    fn up(&mut self, process: PeerProcess) {
        lock(&self.counts).ups += 1;
        let newest = self.newest.entry(process.store).or_default();
        if process.incarnation < *newest {
            let newest = *newest;
            self.wrong(format_args!("start {} of node {} after {newest}", process.incarnation, process.node));
        } else {
            *newest = process.incarnation;
        }
        let link = Link { process, expected: BTreeMap::new() };
        if self.links.insert(process.node, link).is_some() {
            self.wrong(format_args!("node {} is up twice", process.node));
        }
    }

    fn down(&mut self, node: NodeId, incarnation: Incarnation) {
        lock(&self.counts).downs += 1;
        match self.links.remove(&node) {
            Some(link) if link.process.incarnation == incarnation => {}
            Some(link) => self.wrong(format_args!("down {node}.{incarnation}, up was {:?}", link.process)),
            None => self.wrong(format_args!("down {node}.{incarnation} without up")),
        }
    }

    fn frame(&mut self, node: NodeId, incarnation: Incarnation, mut frame: Bytes) {
        lock(&self.counts).frames_arrived += 1;
        let me = self.place;
        let Some(link) = self.links.get_mut(&node).filter(|l| l.process.incarnation == incarnation) else {
            return self.wrong(format_args!("a frame of {node}.{incarnation} without a link"));
        };
        let (class, to, from) = (LinkClass::of(frame[1]), frame[2], frame[3]);
        frame.advance(4);
        let (sender, receiver, number) = (frame.get_u64(), frame.get_u64(), frame.get_u64());
        let Some(class) = class.filter(|_| to == me.shard.0) else {
            return self.wrong(format_args!("a frame for shard {to}"));
        };
        let expected = link.expected.insert((class, from), number + 1);
        if sender != incarnation.0 {
            return self.wrong(format_args!("a frame of start {sender} of node {node} on the link of {incarnation}"));
        }
        if receiver > me.life {
            return self.wrong(format_args!("a frame for start {receiver}"));
        }
        lock(&self.counts).stale += u64::from(receiver < me.life);
        if let Some(expected) = expected.filter(|e| *e != number) {
            self.wrong(format_args!("{class:?} {number} of {node}/{from} instead of {expected}"));
        }
    }

    /// Some frames for each shard of each linked node.
    fn round(&mut self, now: Now) {
        let targets: Vec<PeerProcess> = self.links.values().map(|l| l.process).collect();
        for peer in targets {
            for class in LinkClass::ALL {
                for shard in 0..peer.shards {
                    let count = if self.rng.chance(300) { self.rng.between(1, 6) } else { 0 };
                    for _ in 0..count {
                        self.emit(&peer, class, shard);
                    }
                    let last = self.out.len();
                    if self.swaps && count > 1 {
                        self.out.swap(last - 2, last - 1);
                    }
                }
            }
        }
        self.due = now.mono + Duration::from_millis(self.rng.between(EVERY_MS.0, EVERY_MS.1));
    }

    fn emit(&mut self, peer: &PeerProcess, class: LinkClass, shard: u8) {
        let number = self.numbers.entry((peer.node, class, shard)).or_default();
        let padding = match class {
            LinkClass::Control => self.rng.below(40),
            LinkClass::Data => self.rng.below(4_000),
            LinkClass::Bulk => self.rng.below(40_000),
        };
        let mut frame = BytesMut::with_capacity(HEAD + padding as usize);
        frame.put_slice(&[1, class as u8, shard, self.place.shard.0]);
        frame.put_u64(self.place.life);
        frame.put_u64(peer.incarnation.0);
        frame.put_u64(*number);
        frame.put_bytes(0, padding as usize);
        *number += 1;
        lock(&self.counts).frames_sent += 1;
        self.out.push_back(Output::PeerFrame { to: peer.node, class, frame: frame.freeze() });
    }
}

impl Machine for Counter {
    fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::PeerUp { peer } => self.up(peer),
            Input::PeerDown { node, incarnation } => self.down(node, incarnation),
            Input::PeerFrame { node, incarnation, frame } => self.frame(node, incarnation, frame),
            Input::Deadline if now.mono >= self.due => self.round(now),
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn wants_input(&self) -> bool {
        true
    }

    fn wants_bytes(&self, _: ConnId) -> bool {
        true
    }

    fn state(&self) -> MachineState {
        MachineState { ready: true, stopped: false }
    }

    fn sample(&self) -> Sample {
        Sample::default()
    }
}
