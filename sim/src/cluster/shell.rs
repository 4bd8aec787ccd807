//! Who runs the shards when the heap does not: the production shell (tier B). Then the world keeps clients, plan, disks and
//! judgement; what it wants done to processes, links and connections becomes orders, and it is told what enters and leaves shards.

use super::world::World;
use crate::history::{Event as Happened, IntentIx};
use bytes::{Buf, Bytes};
use std::collections::{BTreeMap, VecDeque};
use wukong_core::api::ApiRequest;
use wukong_core::ids::{CallId, ChannelKey, ShardId, SlotId, shard_of};
use wukong_core::shard::ShardView;
use wukong_proto::{Frame, decode_one};

/// What the shell has to do. Nodes count from 0, connections as in the world.
#[derive(Clone, Debug)]
pub enum Order {
    Start(usize),
    Kill(usize),
    /// The node stands still until that instant (ns).
    Pause(usize, u64),
    /// Nothing passes from one node to another, or again.
    Cut {
        from: usize,
        to: usize,
        on: bool,
    },
    /// The link of two nodes ends.
    Reset(usize, usize),
    /// Latency is this many times that of the plan.
    Latency(u64),
    Open(u32),
    Write(u32, Bytes),
    HangUp(u32),
    Call {
        node: usize,
        shard: u8,
        call: CallId,
        request: ApiRequest,
    },
}

/// What a node's shards said of themselves last.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    served: Vec<SlotId>,
    channels: BTreeMap<ChannelKey, (u64, u64, bool)>,
}

impl Standing {
    #[must_use]
    pub fn serves(&self, slot: SlotId) -> bool {
        self.served.contains(&slot)
    }

    /// As [`Node::channel`](super::node::Node::channel).
    #[must_use]
    pub fn channel(&self, key: &ChannelKey) -> Option<(u64, u64, bool)> {
        self.channels.get(key).copied()
    }
}

/// A client's connection: what is under way in it.
#[derive(Clone, Debug, Default)]
struct Line {
    left: u64,
    arrived: u64,
    /// SENDs, by the number of their last byte.
    sends: VecDeque<(u64, IntentIx)>,
    /// Frames that a shard wrote and the client has not read.
    written: VecDeque<Frame>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Shell {
    pub orders: VecDeque<Order>,
    /// Added to the time in which a cluster has to come together, ns: real links are dialled anew with pauses.
    pub(super) grace: u64,
    lines: BTreeMap<u32, Line>,
}

impl Shell {
    #[must_use]
    pub fn new(grace: u64) -> Self {
        Self { grace, ..Self::default() }
    }

    pub(super) fn leaves(&mut self, conn: u32, bytes: Bytes, sends: Vec<IntentIx>) {
        let line = self.lines.entry(conn).or_default();
        let (mut rest, mut sends) = (bytes.clone(), sends.into_iter());
        while let Ok(Some((frame, n))) = decode_one(&rest, 5) {
            rest.advance(n);
            line.left += n as u64;
            if matches!(frame, Frame::Send(_)) {
                line.sends.extend(sends.next().map(|intent| (line.left, intent)));
            }
        }
        self.orders.push_back(Order::Write(conn, bytes));
    }

    pub(super) fn wrote(&mut self, conn: u32, frames: Vec<Frame>) {
        self.lines.entry(conn).or_default().written.extend(frames);
    }
}

impl World {
    /// Gives an order; false when the heap runs the shards.
    pub(super) fn order(&mut self, order: Order) -> bool {
        let orders = self.shell.as_mut().map(|s| s.orders.push_back(order));
        orders.is_some()
    }

    /// A shard of process `life` was given so many bytes of a client.
    pub fn arrived(&mut self, conn: u32, life: u64, bytes: u64) {
        let c = &mut self.conns[conn as usize];
        c.server_open = true;
        c.life = life;
        self.history.links[conn as usize].incarnation = life;
        let Some(line) = self.shell.as_mut().and_then(|s| s.lines.get_mut(&conn)) else { return };
        line.arrived += bytes;
        while let Some((_, intent)) = line.sends.pop_front_if(|(end, _)| *end <= line.arrived) {
            self.history.events.push((self.now, Happened::SendIn { link: conn, intent }));
        }
    }

    /// A shard was told that a connection is over.
    pub fn forgotten(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        c.server_open = false;
        let node = c.node;
        self.nodes[node].conns.retain(|c| *c != conn);
    }

    /// A client read these frames: those that a shard wrote, in that order.
    pub fn delivered(&mut self, conn: u32, frames: Vec<Frame>) {
        let Some(line) = self.shell.as_mut().and_then(|s| s.lines.get_mut(&conn)) else { return };
        for frame in &frames {
            let written = line.written.pop_front();
            if written.as_ref() != Some(frame) {
                let what = format!("connection {conn}: {frame:?} arrived, {written:?} was written");
                return self.violation("STREAM", what);
            }
        }
        if self.conns[conn as usize].client_open {
            self.client_receives(conn, frames);
        }
    }

    /// After a turn: what a shard says of its slots and channels, then [`World::look`].
    pub fn stand(&mut self, n: usize, shard: ShardId, view: &ShardView<'_>) {
        let (slots, shards) = (self.plan.slots as u16, self.plan.shards as u8);
        let standing = &mut self.nodes[n].standing;
        for slot in (0..slots).map(SlotId).filter(|s| shard_of(*s, shards) == shard) {
            standing.served.retain(|s| *s != slot);
            if view.slot_served(slot) == Some(true) {
                standing.served.push(slot);
            }
        }
        for channel in 0..self.history.channels.len() {
            let (key, _, home) = self.place(channel as u32);
            if home != shard {
                continue;
            }
            let standing = &mut self.nodes[n].standing;
            match view.channel(&key) {
                Some((hw, distributed)) => {
                    let led = view.channel_led(&key);
                    standing.channels.insert(key, (hw, distributed, led));
                }
                None => drop(standing.channels.remove(&key)),
            }
        }
        self.look(n, shard.0);
    }
}
