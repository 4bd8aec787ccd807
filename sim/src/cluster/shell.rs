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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MS;
    use crate::cluster::plan::Plan;
    use crate::cluster::world::Mode;

    const PLAN: &str = "cluster scenario v1
nodes 3
shards 1
slots 1
users 2
listeners 1
lasts 1000
at 10 for 5 cut 0 1
at 20 for 5 crash 2
at 30 for 10 pause 1
at 50 for 5 reset 0 2
at 60 for 5 slow-net 4
at 70 for 5 stall 1 2
";

    fn world() -> World {
        World::with(Plan::parse(PLAN).unwrap(), Mode::default(), Some(Shell::new(0)))
    }

    #[test]
    fn episodes_become_orders() {
        let mut world = world();
        world.run_to(100 * MS);
        let orders = std::mem::take(&mut world.shell.as_mut().unwrap().orders);
        let of_clients = |o: &Order| matches!(o, Order::Open(_) | Order::Write(..) | Order::HangUp(_));
        let cut = |from, to, on| Order::Cut { from, to, on };
        let expected = [
            Order::Start(0),
            Order::Start(1),
            Order::Start(2),
            cut(0, 1, true),
            cut(1, 0, true),
            cut(0, 1, false),
            cut(1, 0, false),
            Order::Kill(2),
            Order::Start(2),
            Order::Pause(1, 40 * MS),
            Order::Reset(0, 2),
            Order::Latency(4),
            Order::Latency(1),
            cut(1, 2, true),
            cut(2, 1, true),
            cut(1, 2, false),
            cut(2, 1, false),
        ];
        let given: Vec<String> = orders.iter().filter(|o| !of_clients(o)).map(|o| format!("{o:?}")).collect();
        assert_eq!(given, expected.map(|o| format!("{o:?}")));
        assert_eq!(world.nodes.iter().map(|n| n.life).collect::<Vec<_>>(), [1, 1, 2]);
    }

    #[test]
    fn a_client_reads_what_a_shard_wrote() {
        let mut world = world();
        world.run_to(400 * MS);
        let open = world.shell.as_ref().unwrap().orders.iter().find_map(|o| match o {
            Order::Open(conn) => Some(*conn),
            _ => None,
        });
        let conn = open.expect("listeners connect to nodes that run");
        world.shell.as_mut().unwrap().wrote(conn, vec![Frame::Pong, Frame::Pong]);
        world.delivered(conn, vec![Frame::Pong]);
        assert_eq!(world.violations, []);
        world.delivered(conn, vec![Frame::Ping]);
        assert_eq!(world.violations[0].invariant, "STREAM");
    }
}
