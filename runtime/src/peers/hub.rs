//! Which links there are: streams come together to links, links go up and down, frames find their way.

use super::handshake::{Greeted, hex, refusal};
use super::queue::OutQueue;
use super::stats::{Stats, add};
use super::{Local, PeerLimits, PeerStatus, PeersConfig};
use crate::reactor::inbox::Inbox;
use crate::reactor::ready::lock;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use wukong_core::ids::{Incarnation, LinkClass, NodeId, PeerProcess, StoreId};
use wukong_core::rng::Stream;
use wukong_proto::hello::{Handshake, Refusal, RefusalCode, encode_ping};

/// How far a link has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some of its streams are not there yet.
    Forming,
    Up,
    Down,
}

/// The streams of one process, opened together.
#[derive(Debug)]
pub(super) struct Link {
    pub process: PeerProcess,
    number: u64,
    phase: Mutex<Phase>,
    /// Not a watch channel: that wakes its receivers in random order, and runs of the simulator must repeat.
    changed: Notify,
}

impl Link {
    fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    fn set_phase(&self, phase: Phase) -> Phase {
        let before = std::mem::replace(&mut *lock(&self.phase), phase);
        self.changed.notify_waiters();
        before
    }

    /// Waits until the phase is another than `phase`, and returns that.
    pub async fn left(&self, phase: Phase) -> Phase {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look, so that no change falls in between.
            changed.as_mut().enable();
            let now = self.phase();
            if now != phase {
                return now;
            }
            changed.await;
        }
    }
}

/// What the streams and the reactors share.
pub(super) struct Hub {
    pub local: Local,
    pub secret: Vec<u8>,
    pub seed: [u8; 32],
    pub limits: PeerLimits,
    pub stats: Stats,
    peers: BTreeMap<NodeId, Peer>,
    inboxes: Vec<Arc<Inbox>>,
    /// Stores that have proved themselves, with the node and the highest incarnation. Bounded: only configured nodes do.
    known: Mutex<BTreeMap<StoreId, (NodeId, Incarnation)>>,
    nonces: Mutex<Stream>,
    attempts: AtomicU64,
}

struct Peer {
    addr: String,
    state: Mutex<PeerState>,
}

#[derive(Default)]
struct PeerState {
    current: Option<Current>,
    trouble: Option<String>,
}

struct Current {
    link: Arc<Link>,
    streams: [Option<Arc<OutQueue>>; LinkClass::ALL.len()],
}

impl Current {
    fn is_up(&self) -> bool {
        self.link.phase() == Phase::Up
    }
}

/// A stream's place in a link. Dropping it ends the link.
pub(super) struct Seat {
    hub: Arc<Hub>,
    pub link: Arc<Link>,
    pub class: LinkClass,
    out: Arc<OutQueue>,
}

impl Seat {
    /// A sign of life. False: there is no room for it.
    pub fn ping(&self, count: u64) -> bool {
        self.out.push([encode_ping(count)]).refused == 0
    }

    /// Ends the link for a reason; the first reason counts.
    pub fn end(&self, why: &str) {
        self.hub.end(&self.link, why);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end("a stream ended");
    }
}

impl Hub {
    pub fn new(config: PeersConfig, inboxes: Vec<Arc<Inbox>>) -> Arc<Self> {
        let peer = |(node, addr)| (node, Peer { addr, state: Mutex::default() });
        Arc::new(Self {
            nonces: Mutex::new(Stream::fork(&config.seed, "peer nonces")),
            local: config.local,
            secret: config.secret,
            seed: config.seed,
            limits: config.limits,
            stats: Stats::default(),
            peers: config.peers.into_iter().map(peer).collect(),
            inboxes,
            known: Mutex::default(),
            attempts: AtomicU64::new(0),
        })
    }

    pub fn nonce(&self) -> [u8; 32] {
        let mut nonce = [0; 32];
        lock(&self.nonces).fill(&mut nonce);
        nonce
    }

    /// The number of the next link that this process opens.
    pub fn next_link(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The nodes that this one dials: those with a higher id. So there is one connection for each pair and class, and
    /// never two that cross.
    pub fn dialled(&self) -> impl Iterator<Item = (NodeId, &str)> {
        self.peers.range(NodeId(self.local.node.0 + 1)..).map(|(node, peer)| (*node, peer.addr.as_str()))
    }

    /// Gives a stream its seat, and opens the link when it was the last that was missing. `first` leaves before any frame.
    pub fn join(
        self: &Arc<Self>,
        greeted: &Greeted,
        out: &Arc<OutQueue>,
        first: Option<&Handshake>,
    ) -> Result<Seat, Refusal> {
        let Greeted { process, class, link: number } = *greeted;
        let Some(peer) = self.peers.get(&process.node) else {
            let reason = format!(
                "node {} does not know node {}. Add --peer {}=HOST:PORT to it.",
                self.local.node, process.node, process.node
            );
            return Err(refusal(RefusalCode::UnknownNode, reason));
        };
        let mut state = lock(&peer.state);
        self.remember(&process)?;
        self.make_room(&mut state, &process, class, number)?;
        let current = state.current.get_or_insert_with(|| Current {
            link: Arc::new(Link { process, number, phase: Mutex::new(Phase::Forming), changed: Notify::new() }),
            streams: Default::default(),
        });
        out.push(first.map(Handshake::encode));
        out.set_room(self.limits.queue_bytes[class as usize]);
        current.streams[class as usize] = Some(out.clone());
        let link = current.link.clone();
        if current.streams.iter().all(Option::is_some) {
            self.up(&link);
            state.trouble = None;
        }
        Ok(Seat { hub: self.clone(), link, class, out: out.clone() })
    }

    /// A store has one node, and its incarnations never go back.
    pub fn remember(&self, process: &PeerProcess) -> Result<(), Refusal> {
        let mut known = lock(&self.known);
        let (node, newest) = *known.entry(process.store).or_insert((process.node, process.incarnation));
        if node != process.node {
            let reason = format!(
                "the store {} is known as node {node}, and now node {} has it: a copied data directory. Start one of them \
                 with an empty one.",
                hex(process.store),
                process.node
            );
            return Err(refusal(RefusalCode::StoreTwice, reason));
        }
        if process.incarnation < newest {
            let reason = format!(
                "start {} of node {} comes after its start {newest}: an older process of the same data directory, or one \
                 that was restored from a copy. Stop the older process.",
                process.incarnation, process.node
            );
            return Err(refusal(RefusalCode::OldIncarnation, reason));
        }
        known.insert(process.store, (node, process.incarnation));
        Ok(())
    }

    /// Ends the link that this stream's link replaces, or says why it does not.
    fn make_room(
        &self,
        state: &mut PeerState,
        process: &PeerProcess,
        class: LinkClass,
        number: u64,
    ) -> Result<(), Refusal> {
        let Some(current) = &state.current else { return Ok(()) };
        let old = &current.link.process;
        if old.store != process.store && current.is_up() {
            let reason = format!(
                "node {} is linked with store {}, and this is store {}. Give each node its own --node-id.",
                old.node,
                hex(old.store),
                hex(process.store)
            );
            return Err(refusal(RefusalCode::OtherStore, reason));
        }
        let (theirs, ours) = ((process.incarnation, number), (old.incarnation, current.link.number));
        if old.store == process.store && theirs == ours {
            return match &current.streams[class as usize] {
                None => Ok(()),
                Some(_) => Err(refusal(RefusalCode::OldLink, "the link has a stream of this class")),
            };
        }
        if old.store == process.store && theirs < ours {
            return Err(refusal(RefusalCode::OldLink, "there is a newer link"));
        }
        let old = current.link.clone();
        self.end_in(state, &old, "a newer link replaces it");
        Ok(())
    }

    /// All streams are there: tells every shard, before any frame.
    fn up(&self, link: &Link) {
        link.set_phase(Phase::Up);
        add(&self.stats.peer_links_up, 1);
        let p = &link.process;
        tracing::info!(node = p.node.0, incarnation = p.incarnation.0, shards = p.shards, wire = p.wire, "linked");
        for inbox in &self.inboxes {
            inbox.peer_up(*p);
        }
    }

    fn end(&self, link: &Arc<Link>, why: &str) {
        if let Some(peer) = self.peers.get(&link.process.node) {
            self.end_in(&mut lock(&peer.state), link, why);
        }
    }

    fn end_in(&self, state: &mut PeerState, link: &Arc<Link>, why: &str) {
        let Some(current) = state.current.take_if(|c| Arc::ptr_eq(&c.link, link)) else { return };
        for queue in current.streams.into_iter().flatten() {
            queue.cut();
        }
        let PeerProcess { node, incarnation, .. } = link.process;
        if link.set_phase(Phase::Down) == Phase::Up {
            add(&self.stats.peer_links_down, 1);
            tracing::info!(node = node.0, incarnation = incarnation.0, "link down: {why}");
            for inbox in &self.inboxes {
                inbox.peer_down(node, incarnation);
            }
        }
        state.trouble = Some(why.to_owned());
    }

    /// Ends the link to this process, if there is one: a shard can make nothing of it.
    pub fn reset(&self, node: NodeId, incarnation: Incarnation) {
        let Some(peer) = self.peers.get(&node) else { return };
        let mut state = lock(&peer.state);
        let link = state.current.as_ref().map(|c| c.link.clone());
        if let Some(link) = link.filter(|l| l.process.incarnation == incarnation) {
            self.end_in(&mut state, &link, "a shard asked for a new one");
        }
    }

    /// Ends all links: the node stops.
    pub fn end_all(&self) {
        for peer in self.peers.values() {
            let mut state = lock(&peer.state);
            if let Some(link) = state.current.as_ref().map(|c| c.link.clone()) {
                self.end_in(&mut state, &link, "this node stops");
            }
        }
    }

    /// Frames that arrived on a stream of `link`, in order. Nothing is delivered of a link that is not up any more.
    ///
    /// # Errors
    /// They are no frames for this node.
    pub fn deliver(&self, link: &Arc<Link>, frames: Vec<Bytes>) -> Result<(), String> {
        let shards = self.inboxes.len();
        let mut by_shard: Vec<Vec<Bytes>> = vec![Vec::new(); shards];
        let (count, mut bytes) = (frames.len(), 0);
        for frame in frames {
            let shard = frame.get(2).map(|to| usize::from(*to));
            bytes += frame.len();
            match shard.and_then(|to| by_shard.get_mut(to)) {
                Some(list) => list.push(frame),
                None => {
                    add(&self.stats.peer_violations, 1);
                    return Err(format!("a frame for shard {shard:?}, of which this node has {shards}"));
                }
            }
        }
        let PeerProcess { node, incarnation, .. } = link.process;
        let Some(peer) = self.peers.get(&node) else { return Ok(()) };
        let state = lock(&peer.state);
        if state.current.as_ref().is_some_and(|c| Arc::ptr_eq(&c.link, link) && c.is_up()) {
            add(&self.stats.peer_frames_in, count);
            add(&self.stats.peer_bytes_in, bytes);
            for (inbox, frames) in self.inboxes.iter().zip(by_shard) {
                inbox.peer_frames(node, incarnation, frames);
            }
        }
        Ok(())
    }

    /// Bytes of frames that wait for the slowest shard.
    pub fn waiting(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.peer_bytes()).max().unwrap_or(0)
    }

    /// Frames of one turn of one shard for one stream.
    pub fn send(&self, to: NodeId, class: LinkClass, frames: &mut Vec<Bytes>) {
        let count = frames.len();
        let Some(peer) = self.peers.get(&to) else {
            frames.clear();
            return add(&self.stats.peer_frames_without_link, count);
        };
        let mut state = lock(&peer.state);
        let Some((link, Some(queue))) =
            state.current.as_ref().filter(|c| c.is_up()).map(|c| (c.link.clone(), &c.streams[class as usize]))
        else {
            frames.clear();
            return add(&self.stats.peer_frames_without_link, count);
        };
        let pushed = queue.push(frames.drain(..));
        add(&self.stats.peer_frames_out, pushed.taken);
        add(&self.stats.peer_bytes_out, pushed.bytes);
        if pushed.ended {
            // The transport knows already what the reading side is about to see.
            add(&self.stats.peer_frames_without_link, pushed.refused);
            self.end_in(&mut state, &link, "a stream broke");
        } else if pushed.refused > 0 && class == LinkClass::Control {
            // It must never fill: what it carries is small, and whoever does not take it is not alive (4.21).
            add(&self.stats.peer_control_overflows, 1);
            self.end_in(&mut state, &link, "its control queue is full");
        } else {
            add(&self.stats.peer_frames_dropped, pushed.refused);
        }
    }

    /// Keeps the reason why a peer is not linked; says it when it is a new one.
    pub fn trouble(&self, node: NodeId, why: &str) {
        let Some(peer) = self.peers.get(&node) else { return };
        let mut state = lock(&peer.state);
        if state.trouble.as_deref() != Some(why) {
            tracing::warn!(node = node.0, "no link: {why}");
            state.trouble = Some(why.to_owned());
        }
    }

    pub fn status(&self) -> Vec<PeerStatus> {
        let one = |(node, peer): (&NodeId, &Peer)| {
            let state = lock(&peer.state);
            PeerStatus {
                node: *node,
                up: state.current.as_ref().filter(|c| c.is_up()).map(|c| c.link.process),
                trouble: state.trouble.clone(),
            }
        };
        self.peers.iter().map(one).collect()
    }
}
