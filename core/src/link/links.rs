//! The links of a shard to all other nodes.

use super::lane::{Broken, Lane, Me, Route};
use super::read::Ends;
use super::{FrameError, Group, Item, LinkCounters, Output};
use crate::ids::{Incarnation, LinkClass, NodeId, PeerProcess, ShardId, SlotId, shard_of};
use crate::limits;
use crate::map::BTreeMap;
use crate::raft::config::Replica;
use crate::time::Instant;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use wukong_proto::peer::{Frame, decode_frame};

/// A process of another node.
#[derive(Clone, Debug)]
struct Peer {
    process: PeerProcess,
    up: bool,
    /// Rises with each link to it.
    session: u64,
    /// By its shard. With equal counts of shards there is one.
    lanes: BTreeMap<u8, Lane>,
}

impl Peer {
    fn replica(&self) -> Replica {
        Replica { node: self.process.node, store: self.process.store }
    }

    /// The link is over. What waits is lost, and counted.
    fn end(&mut self, counters: &mut LinkCounters) {
        self.up = false;
        for lane in self.lanes.values_mut() {
            counters.dropped_reset += lane.waiting() as u64;
            lane.restart();
        }
    }
}

/// See the module above.
#[derive(Clone, Debug)]
pub struct Links {
    me: Me,
    shards: u8,
    peers: BTreeMap<NodeId, Peer>,
    /// Links that cannot go on.
    broken: Vec<NodeId>,
    /// Something was queued, or credited.
    dirty: bool,
    /// Nodes for which so much data waits that no more of it is to be made.
    full: Vec<NodeId>,
    /// Bytes that make a node full.
    pause: usize,
    /// One of them is not full any more.
    drained: bool,
    /// Frames are cut from it.
    buf: BytesMut,
    counters: LinkCounters,
}

impl Links {
    /// The links of the shard `shard` of `shards`, of the process `incarnation` of the store `me`.
    #[must_use]
    pub fn new(me: Replica, incarnation: Incarnation, cluster: u128, shards: u8, shard: ShardId) -> Self {
        Self {
            me: Me { replica: me, incarnation, cluster, shard },
            shards,
            peers: BTreeMap::new(),
            broken: Vec::new(),
            dirty: false,
            full: Vec::new(),
            pause: limits::LINK_DATA_PAUSE,
            drained: false,
            buf: BytesMut::new(),
            counters: LinkCounters::default(),
        }
    }

    #[must_use]
    pub const fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// The process that a link to the node is open to.
    #[must_use]
    pub fn process(&self, node: NodeId) -> Option<&PeerProcess> {
        self.peers.get(&node).filter(|p| p.up).map(|p| &p.process)
    }

    /// All processes that links are open to, by node.
    pub fn processes(&self) -> impl Iterator<Item = &PeerProcess> {
        self.peers.values().filter(|p| p.up).map(|p| &p.process)
    }

    /// A link is open. What was sent on an older one counts as lost. An older process of a store that a newer one is known of
    /// is ignored.
    pub fn up(&mut self, process: PeerProcess) {
        let Some(peer) = self.peers.get_mut(&process.node) else {
            let peer = Peer { process, up: true, session: 1, lanes: BTreeMap::new() };
            self.peers.insert(process.node, peer);
            return;
        };
        let same_store = peer.process.store == process.store;
        if same_store && process.incarnation < peer.process.incarnation {
            return;
        }
        self.broken.retain(|n| *n != process.node);
        peer.end(&mut self.counters);
        if !same_store || process.incarnation > peer.process.incarnation || process.shards != peer.process.shards {
            peer.lanes.clear();
        }
        peer.process = process;
        peer.up = true;
        peer.session += 1;
        self.note_drained();
    }

    /// The link to that process is closed. One to another process of the node is not touched.
    pub fn down(&mut self, node: NodeId, incarnation: Incarnation) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.up
            && peer.process.incarnation == incarnation
        {
            peer.end(&mut self.counters);
            self.note_drained();
        }
    }

    /// Queues an item for the shard of `to` that owns `slot`. Without a link it is dropped, which is legal for every item.
    pub fn send(&mut self, to: NodeId, slot: SlotId, item: Item) {
        let Some(peer) = self.peers.get_mut(&to).filter(|p| p.up) else {
            self.counters.dropped_not_up += 1;
            return;
        };
        if item.wire() > peer.process.wire {
            self.counters.dropped_version += 1;
            return;
        }
        if !is_ours(&self.me, to, &item) {
            self.counters.dropped_foreign += 1;
            return;
        }
        let shard = shard_of(slot, peer.process.shards);
        let lane = peer.lanes.entry(shard.0).or_insert_with(Lane::new);
        let route = Route { me: &self.me, peer: &peer.process, shard, session: peer.session };
        self.dirty = true;
        if lane.push(route, item, &mut self.counters).is_err() {
            peer.end(&mut self.counters);
            self.broken.push(to);
        } else if lane.data() >= self.pause && !self.full.contains(&to) {
            self.full.push(to);
            self.counters.data_pauses += 1;
        }
    }

    /// Bytes of data waiting for a peer that make it full.
    #[must_use]
    pub fn with_pause(self, bytes: usize) -> Self {
        Self { pause: bytes, ..self }
    }

    /// Nodes that groups give no data for the time being.
    #[must_use]
    pub fn full(&self) -> &[NodeId] {
        &self.full
    }

    /// True once after one of them took what waited: groups that paused go on.
    pub fn take_drained(&mut self) -> bool {
        core::mem::take(&mut self.drained)
    }

    fn note_drained(&mut self) {
        let Self { full, pause, peers, drained, .. } = self;
        let before = full.len();
        let waits = |lane: &Lane| lane.data() >= *pause / 2;
        full.retain(|n| peers.get(n).is_some_and(|p| p.up && p.lanes.values().any(waits)));
        *drained |= full.len() < before;
    }

    /// End of a step: at most one frame for each (peer, class, shard of the peer), as far as credit allows.
    pub fn flush(&mut self, now: Instant, out: &mut Vec<Output>) {
        if !self.dirty && now < self.deadline() {
            return;
        }
        self.dirty = false;
        for (node, peer) in self.peers.iter_mut().filter(|(_, p)| p.up) {
            if write(now, &self.me, peer, &mut self.buf, &mut self.counters, out).is_err() {
                peer.end(&mut self.counters);
                self.broken.push(*node);
            }
            self.dirty |= peer.lanes.values().any(Lane::backlog);
        }
        for node in self.broken.drain(..) {
            if let Some(peer) = self.peers.get(&node) {
                self.counters.resets += 1;
                out.push(Output::Reset { node, incarnation: peer.process.incarnation });
            }
        }
        if !self.full.is_empty() {
            self.note_drained();
        }
    }

    /// When [`Self::flush`] has something to do though nothing happened; `Instant(0)`: at once.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        if self.dirty {
            return Instant(0);
        }
        let lanes = self.peers.values().filter(|p| p.up).flat_map(|p| p.lanes.values());
        lanes.map(Lane::deadline).min().unwrap_or(Instant::NEVER)
    }

    /// What a frame holds is added to `into`, in the order in which it was sent; nothing, if the frame is not for this process or
    /// is stale, which is counted.
    ///
    /// # Errors
    /// It cannot be decoded, or holds what is unknown here. The link is reset by the next [`Self::flush`].
    pub fn receive(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        frame: &Bytes,
        into: &mut Vec<Item>,
    ) -> Result<(), FrameError> {
        let before = into.len();
        let result = self.read(node, incarnation, frame, into);
        if result.is_err() {
            into.truncate(before);
            self.counters.frames_refused += 1;
            if let Some(peer) = self.peers.get_mut(&node)
                && peer.up
                && peer.process.incarnation == incarnation
            {
                peer.end(&mut self.counters);
                self.broken.push(node);
                self.dirty = true;
            }
        }
        self.counters.items_in += (into.len() - before) as u64;
        result
    }

    fn read(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        bytes: &Bytes,
        into: &mut Vec<Item>,
    ) -> Result<(), FrameError> {
        self.counters.frames_in += 1;
        self.counters.bytes_in += bytes.len() as u64;
        let frame = decode_frame(bytes)?;
        if !self.is_for_me(node, &frame) {
            return Ok(());
        }
        let sender = Incarnation(frame.head.from_incarnation);
        let Some(peer) = self.peers.get_mut(&node) else {
            self.counters.frames_not_up += 1;
            return Ok(());
        };
        if sender != incarnation || sender < peer.process.incarnation {
            self.counters.frames_old_sender += 1;
            return Ok(());
        }
        if !peer.up || sender != peer.process.incarnation {
            self.counters.frames_not_up += 1;
            return Ok(());
        }
        let shard = u8::try_from(frame.head.from_shard).map_err(|_| FrameError::Malformed)?;
        if shard >= peer.process.shards {
            return Err(FrameError::Malformed);
        }
        let ends = Ends { from: peer.replica(), from_incarnation: sender, to: self.me.replica };
        let lane = peer.lanes.entry(shard).or_insert_with(Lane::new);
        let before = into.len();
        let current = lane.receive(&ends, peer.session, frame, bytes.len(), &mut self.counters, into)?;
        if !current {
            self.counters.frames_stale += 1;
        }
        self.dirty |= lane.backlog();
        self.drop_misrouted(before, into);
        Ok(())
    }

    fn is_for_me(&mut self, node: NodeId, frame: &Frame) -> bool {
        let head = &frame.head;
        let cluster = u128::from(head.cluster_high) << 64 | u128::from(head.cluster_low);
        if cluster != self.me.cluster {
            self.counters.frames_other_cluster += 1;
            return false;
        }
        let mine = head.to == u32::from(self.me.replica.node.0)
            && head.to_incarnation == self.me.incarnation.0
            && head.from == u32::from(node.0)
            && frame.shard == self.me.shard.0;
        self.counters.frames_misrouted += u64::from(!mine);
        mine
    }

    /// Slot groups that live in another shard here.
    fn drop_misrouted(&mut self, from: usize, into: &mut Vec<Item>) {
        let (shard, shards) = (self.me.shard, self.shards);
        let stranger =
            |item: &Item| matches!(item, Item::Group { group: Group::Slot(s), .. } if shard_of(*s, shards) != shard);
        if into[from..].iter().any(stranger) {
            let mut at = 0;
            into.retain(|item| {
                at += 1;
                at <= from || !stranger(item)
            });
            self.counters.frames_misrouted += 1;
        }
    }
}

/// Whether an item says of itself that it goes from this process to that node.
fn is_ours(me: &Me, to: NodeId, item: &Item) -> bool {
    match item {
        Item::Group { envelope, .. } => {
            envelope.from == me.replica && envelope.from_incarnation == me.incarnation && envelope.to.node == to
        }
        Item::Report { from, .. } => *from == me.replica,
        _ => true,
    }
}

fn write(
    now: Instant,
    me: &Me,
    peer: &mut Peer,
    buf: &mut BytesMut,
    counters: &mut LinkCounters,
    out: &mut Vec<Output>,
) -> Result<(), Broken> {
    for (shard, lane) in &mut peer.lanes {
        let route = Route { me, peer: &peer.process, shard: ShardId(*shard), session: peer.session };
        for class in LinkClass::ALL {
            if let Some(frame) = lane.frame(now, class, route, buf, counters)? {
                out.push(Output::Frame { to: peer.process.node, class, frame });
            }
        }
    }
    Ok(())
}
