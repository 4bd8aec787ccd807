//! Links between nodes: a connection per pair with a stream per direction and class, each first in first out. A connection that
//! ends takes along what is under way; both ends hear of it, each at its own time, and then of the next one.

use super::replica;
use super::shell::Order;
use super::world::{Event, World};
use crate::clock::MS;
use bytes::Bytes;
use std::collections::VecDeque;
use wukong_core::Input;
use wukong_core::ids::{Incarnation, LinkClass, PeerProcess};

/// A frame on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub session: u64,
    pub class: LinkClass,
    pub frame: Bytes,
}

/// The pair `ends[0] < ends[1]`. Side 0 is the first; direction 0 goes from it to the other.
#[derive(Clone, Debug)]
pub struct Wire {
    pub ends: [usize; 2],
    /// Rises with each connection.
    pub session: u64,
    /// There is a connection; whether each side was told of it.
    up: bool,
    told: [bool; 2],
    /// The process at the other end, as each side was told.
    peer: [u64; 2],
    /// Cuts in force, by direction.
    cut: [u32; 2],
    pub stalled_until: u64,
    last: [[u64; 3]; 2],
    held: [VecDeque<Parcel>; 2],
}

impl Wire {
    #[must_use]
    pub fn new(a: usize, b: usize) -> Self {
        Self {
            ends: [a, b],
            session: 0,
            up: false,
            told: [false; 2],
            peer: [0; 2],
            cut: [0; 2],
            stalled_until: 0,
            last: [[0; 3]; 2],
            held: [VecDeque::new(), VecDeque::new()],
        }
    }

    const fn is_cut(&self) -> bool {
        self.cut[0] + self.cut[1] > 0
    }
}

impl World {
    /// The wire of two nodes, and which side of it the first is.
    #[must_use]
    pub fn wire(&self, a: usize, b: usize) -> (usize, usize) {
        let ends = [a.min(b), a.max(b)];
        let at = self.wires.iter().position(|w| w.ends == ends).expect("two nodes");
        (at, usize::from(a > b))
    }

    pub(super) fn dial_all(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            let wire = self.wire(n, other).0;
            let after = self.rng.net.below(20 * MS);
            self.later(after, Event::Dial { wire });
        }
    }

    /// A connection, if there can be one.
    pub(super) fn dial(&mut self, wire: usize) {
        let w = &mut self.wires[wire];
        if w.up || w.is_cut() || !w.ends.iter().all(|n| self.nodes[*n].alive) {
            return;
        }
        w.up = true;
        w.session += 1;
        w.told = [false; 2];
        w.held.iter_mut().for_each(VecDeque::clear);
        let session = w.session;
        for side in 0..2 {
            let at = self.now + self.rng.net.spread(self.plan.latency * 1_000);
            // Nothing arrives before the end knows of the connection.
            self.wires[wire].last[1 - side] = [at; 3];
            self.heap.add(at, Event::LinkUp { wire, session, side });
        }
    }

    pub(super) fn link_up(&mut self, wire: usize, session: u64, side: usize) {
        let w = &mut self.wires[wire];
        if w.session != session || !w.up {
            return;
        }
        w.told[side] = true;
        let (me, other) = (w.ends[side], w.ends[1 - side]);
        w.peer[side] = self.nodes[other].life;
        let r = replica(other);
        let peer = PeerProcess {
            node: r.node,
            store: r.store,
            incarnation: Incarnation(self.nodes[other].life),
            shards: self.plan.shards as u8,
            wire: 1,
        };
        self.tell(me, &Input::PeerUp { peer });
    }

    /// An end hears that a connection is over, unless it knows of a newer one.
    pub(super) fn link_down(&mut self, wire: usize, session: u64, side: usize) {
        let w = &mut self.wires[wire];
        if w.session != session && w.told[side] {
            self.cover.hit("link up without down");
            return;
        }
        let (me, other, life) = (w.ends[side], w.ends[1 - side], w.peer[side]);
        let incarnation = Incarnation(life);
        self.tell(me, &Input::PeerDown { node: replica(other).node, incarnation });
    }

    fn tell(&mut self, n: usize, input: &Input) {
        if self.nodes[n].alive {
            for shard in 0..self.plan.shards as u8 {
                self.arrive(n, shard, input.clone());
            }
        }
    }

    /// The connection is over; the ends hear of it within `after` ns.
    pub(super) fn break_wire(&mut self, wire: usize, after: u64, again: bool) {
        let w = &mut self.wires[wire];
        if !w.up {
            return;
        }
        w.up = false;
        w.held.iter_mut().for_each(VecDeque::clear);
        let (session, told) = (w.session, w.told);
        for (side, told) in told.into_iter().enumerate() {
            if told {
                let at = self.rng.net.below(after);
                self.later(at, Event::LinkDown { wire, session, side });
            }
        }
        if again {
            let at = self.rng.net.spread(after + 20 * MS);
            self.later(at, Event::Dial { wire });
        }
    }

    /// A shard finds its link of no use.
    pub(super) fn peer_reset(&mut self, n: usize, to: usize, incarnation: Incarnation) {
        let (wire, side) = self.wire(n, to);
        if self.wires[wire].told[side] && self.wires[wire].peer[side] == incarnation.0 {
            self.cover.hit("link reset by a shard");
            self.break_wire(wire, MS, true);
        }
    }

    pub(super) fn post(&mut self, n: usize, to: usize, class: LinkClass, frame: Bytes) {
        let (wire, side) = self.wire(n, to);
        if !self.wires[wire].up || !self.wires[wire].told[side] {
            return;
        }
        let latency = self.plan.latency * 1_000 * self.slow_net;
        let mut at = self.now + self.rng.net.spread(latency);
        let w = &mut self.wires[wire];
        at = at.max(w.stalled_until).max(w.last[side][class as usize]);
        w.last[side][class as usize] = at;
        let parcel = Parcel { session: w.session, class, frame };
        self.heap.add(at, Event::Frame { wire, side, parcel });
    }

    pub(super) fn frame(&mut self, wire: usize, side: usize, parcel: Parcel) {
        let w = &mut self.wires[wire];
        if !w.up || w.session != parcel.session {
            return;
        }
        if w.cut[side] > 0 || !w.held[side].is_empty() {
            return w.held[side].push_back(parcel);
        }
        self.hand_over(wire, side, parcel.frame);
    }

    fn hand_over(&mut self, wire: usize, side: usize, frame: Bytes) {
        let w = &self.wires[wire];
        let (from, to) = (w.ends[side], w.ends[1 - side]);
        let incarnation = Incarnation(w.peer[1 - side]);
        let Some(shard) = wukong_proto::peer::frame_shard(&frame) else {
            return self.violation("LINK", format!("n{from} sent n{to} a frame without a header"));
        };
        if self.nodes[to].alive {
            self.arrive(to, shard, Input::PeerFrame { node: replica(from).node, incarnation, frame });
        }
    }

    /// Nothing passes from `a` to `b` any more, or again.
    pub(super) fn cut(&mut self, a: usize, b: usize, on: bool) {
        let (wire, side) = self.wire(a, b);
        let w = &mut self.wires[wire];
        if on {
            w.cut[side] += 1;
            if self.order(Order::Cut { from: a, to: b, on }) {
                return;
            }
            let w = &self.wires[wire];
            let session = w.session;
            let after = self.rng.net.between(50 * MS, 3_000 * MS);
            return self.later(after, Event::Doubt { wire, session });
        }
        w.cut[side] = w.cut[side].saturating_sub(1);
        if w.cut[side] > 0 || self.order(Order::Cut { from: a, to: b, on }) {
            return;
        }
        let w = &self.wires[wire];
        if w.up {
            self.cover.hit("cut unnoticed");
            while let Some(parcel) = self.wires[wire].held[side].pop_front() {
                self.hand_over(wire, side, parcel.frame);
            }
        } else {
            let after = self.rng.net.below(200 * MS);
            self.later(after, Event::Dial { wire });
        }
    }

    /// Nothing was heard for long: the ends give the connection up.
    pub(super) fn doubt(&mut self, wire: usize, session: u64) {
        if self.wires[wire].session == session && self.wires[wire].is_cut() {
            self.break_wire(wire, 500 * MS, false);
        }
    }

    /// The process `n` is gone.
    pub(super) fn hang_up(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            let wire = self.wire(n, other).0;
            let after = if self.rng.net.chance(700) { 3 * MS } else { 3_000 * MS };
            self.break_wire(wire, after, false);
        }
    }
}
