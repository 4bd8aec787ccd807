//! What one shard of this node and one shard of a peer have between them: queues, credit, sessions (cluster-and-raft 4.20, 4.21).

use super::pack::{Packer, Row, Unpacker};
use super::read::Ends;
use super::{FrameError, Group, Item, LinkCounters, wire};
use crate::ids::{Incarnation, LinkClass, PeerProcess, ShardId, SlotId};
use crate::limits;
use crate::raft::config::Replica;
use crate::raft::message::Message;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use wukong_proto::peer as p;
use wukong_proto::peer::Element;

/// More than the header of a frame and its packs in the steady state.
const FRAME_ROOM: usize = 512;

/// What all frames of a shard have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Me {
    pub replica: Replica,
    pub incarnation: Incarnation,
    pub cluster: u128,
    pub shard: ShardId,
}

/// Where the frames of a lane go.
#[derive(Clone, Copy)]
pub(super) struct Route<'a> {
    pub me: &'a Me,
    pub peer: &'a PeerProcess,
    pub shard: ShardId,
    /// Counts my links to the peer.
    pub session: u64,
}

impl Route<'_> {
    const fn replica(&self) -> Replica {
        Replica { node: self.peer.node, store: self.peer.store }
    }
}

/// Whether there was credit for what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fits {
    /// For as much as one frame takes.
    All,
    /// No: for less than so many bytes there is no use in trying again. 0: not known.
    Needs(u64),
}

/// The link is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

const fn window(class: LinkClass) -> u64 {
    (match class {
        LinkClass::Control => limits::LINK_CONTROL_WINDOW,
        LinkClass::Data => limits::LINK_DATA_WINDOW,
        LinkClass::Bulk => limits::LINK_BULK_WINDOW,
    }) as u64
}

/// Bytes received that the peer is told of at the latest: half a window, and so soon that the largest item always finds credit.
const fn owed_max(class: LinkClass) -> u64 {
    let half = window(class) / 2;
    let spare = window(class) - (limits::LINK_ITEM_MAX + FRAME_ROOM) as u64;
    if half < spare { half } else { spare }
}

const fn queue_max(class: LinkClass) -> usize {
    match class {
        LinkClass::Control => limits::LINK_CONTROL_QUEUE_MAX,
        LinkClass::Data => limits::LINK_DATA_QUEUE_MAX,
        LinkClass::Bulk => limits::LINK_BULK_QUEUE_MAX,
    }
}

/// What is on its way out in one class.
#[derive(Clone, Debug)]
struct Outgoing {
    queue: VecDeque<Item>,
    /// Estimated bytes of the queue.
    weight: usize,
    /// Frames sent.
    seq: u64,
    /// Bytes sent that count against the window.
    sent: u64,
    /// How many of them arrived.
    acked: u64,
    /// Bytes that the next frame needs at least, as far as it is known that there is no credit for them.
    needs: u64,
    /// Since when it waits for credit without getting any; NEVER when it does not.
    waits_since: Instant,
}

impl Outgoing {
    const fn new() -> Self {
        Self { queue: VecDeque::new(), weight: 0, seq: 0, sent: 0, acked: 0, needs: 0, waits_since: Instant::NEVER }
    }

    /// Bytes that may be sent now.
    const fn credit(&self, class: LinkClass) -> u64 {
        window(class).saturating_sub(self.sent - self.acked)
    }

    fn pop(&mut self) {
        if let Some(item) = self.queue.pop_front() {
            self.weight -= item.weight();
            self.needs = 0;
        }
    }

    fn wait(&mut self, now: Instant, needs: u64, counters: &mut LinkCounters) {
        self.needs = needs;
        if self.waits_since == Instant::NEVER {
            self.waits_since = now;
            counters.credit_waits += 1;
        }
    }

    /// Whether a frame is worth trying: there is credit for what it needs at least.
    fn may_try(&mut self, now: Instant, class: LinkClass, counters: &mut LinkCounters) -> bool {
        let needs = self.needs.max(1);
        if self.credit(class) < needs {
            self.wait(now, needs, counters);
        }
        self.credit(class) >= needs
    }
}

/// What came in in one class, in the peer's session.
#[derive(Clone, Copy, Debug, Default)]
struct Incoming {
    /// Newest frame.
    seq: u64,
    /// Bytes that count against the peer's window.
    received: u64,
    /// How many of them the peer was told.
    told: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    out: [Outgoing; 3],
    beats: Packer,
    fetches: Packer,
    /// The peer's session; 0: nothing came yet.
    heard: u64,
    incoming: [Incoming; 3],
    heard_beats: Unpacker,
    heard_fetches: Unpacker,
    /// A frame is due, even an empty one.
    owes: bool,
}

impl Lane {
    pub fn new() -> Self {
        Self {
            out: [Outgoing::new(), Outgoing::new(), Outgoing::new()],
            beats: Packer::default(),
            fetches: Packer::default(),
            heard: 0,
            incoming: [Incoming::default(); 3],
            heard_beats: Unpacker::default(),
            heard_fetches: Unpacker::default(),
            owes: false,
        }
    }

    /// A new session of mine: nothing that was sent is relied on. What the peer sent stays known.
    pub fn restart(&mut self) {
        self.out = [Outgoing::new(), Outgoing::new(), Outgoing::new()];
        self.beats = Packer::default();
        self.fetches = Packer::default();
    }

    /// Bytes of data that wait.
    pub const fn data(&self) -> usize {
        self.out[LinkClass::Data as usize].weight
    }

    /// Items that wait.
    pub fn waiting(&self) -> usize {
        self.out.iter().map(|o| o.queue.len()).sum::<usize>() + self.beats.len() + self.fetches.len()
    }

    pub fn push(&mut self, route: Route<'_>, item: Item, counters: &mut LinkCounters) -> Result<(), Broken> {
        let class = item.class();
        if class == LinkClass::Control
            && let Item::Group { group: Group::Slot(slot), envelope } = &item
        {
            // Rows leave after the items of a frame: what is said later of the same group must not overtake them.
            self.take_back(route, *slot);
            let epoch = envelope.epoch;
            let packed = envelope.to == route.replica()
                && match &envelope.message {
                    Message::Beat { seq, hw } => self.beats.add(Row::of_beat(*slot, epoch, *seq, *hw)),
                    Message::Fetch(f) => self.fetches.add(Row::of_fetch(*slot, epoch, f)),
                    _ => false,
                };
            if packed {
                return Ok(());
            }
        }
        self.enqueue(class, item, counters)
    }

    fn take_back(&mut self, route: Route<'_>, slot: SlotId) {
        if self.beats.is_empty() && self.fetches.is_empty() {
            return;
        }
        let ends = Ends { from: route.me.replica, from_incarnation: route.me.incarnation, to: route.replica() };
        let beat = self.beats.take(slot).map(|r| (r.epoch, r.beat()));
        let fetch = self.fetches.take(slot).map(|r| (r.epoch, r.fetch()));
        for (epoch, message) in beat.into_iter().chain(fetch) {
            let item = Item::Group { group: Group::Slot(slot), envelope: ends.envelope(epoch, message) };
            let control = &mut self.out[LinkClass::Control as usize];
            control.weight += item.weight();
            control.queue.push_back(item);
        }
    }

    fn enqueue(&mut self, class: LinkClass, item: Item, counters: &mut LinkCounters) -> Result<(), Broken> {
        let out = &mut self.out[class as usize];
        out.weight += item.weight();
        out.queue.push_back(item);
        if out.weight <= queue_max(class) {
            return Ok(());
        }
        if class == LinkClass::Control {
            return Err(Broken);
        }
        while out.weight > queue_max(class) && out.queue.len() > 1 {
            out.pop();
            counters.dropped_full += 1;
        }
        Ok(())
    }

    /// The frame that is due in a class, if there is one. At most one frame is made of what waits; `more` says if a rest remains
    /// that could leave at once.
    pub fn frame(
        &mut self,
        now: Instant,
        class: LinkClass,
        route: Route<'_>,
        buf: &mut BytesMut,
        counters: &mut LinkCounters,
    ) -> Result<Option<Bytes>, Broken> {
        let control = class == LinkClass::Control;
        let rows = control && !(self.beats.is_empty() && self.fetches.is_empty());
        let owes = control && self.owes;
        let out = &mut self.out[class as usize];
        if out.queue.is_empty() && !rows && !owes {
            return Ok(None);
        }
        if now.since(out.waits_since) >= limits::LINK_STALL {
            return Err(Broken);
        }
        if !out.may_try(now, class, counters) && !owes {
            return Ok(None);
        }
        let room = out.weight.min(limits::LINK_FRAME_BYTES) + FRAME_ROOM;
        if buf.capacity() < room {
            *buf = BytesMut::with_capacity(room.max(limits::FRAME_CHUNK));
        }
        p::begin_frame(buf, class as u8, route.shard.0, &self.head(class, route));
        let empty = buf.len();
        let mut fits = self.put_items(class, route, buf, counters);
        if fits == Fits::All && rows && self.out[class as usize].queue.is_empty() {
            fits = self.put_packs(buf, counters);
        }
        let out = &mut self.out[class as usize];
        match fits {
            Fits::All => out.waits_since = Instant::NEVER,
            Fits::Needs(bytes) => out.wait(now, bytes, counters),
        }
        let content = buf.len() > empty;
        if !content && !owes {
            buf.clear();
            return Ok(None);
        }
        let out = &mut self.out[class as usize];
        out.seq += 1;
        if content {
            out.sent += buf.len() as u64;
        }
        self.told(control);
        counters.frames_out += 1;
        counters.bytes_out += buf.len() as u64;
        let frame = buf.split().freeze();
        if frame.len() > limits::FRAME_CHUNK {
            // What is left of a large buffer would keep all of it alive.
            *buf = BytesMut::new();
        }
        Ok(Some(frame))
    }

    fn head(&self, class: LinkClass, route: Route<'_>) -> p::Head {
        let out = &self.out[class as usize];
        let received = |class: LinkClass| self.incoming[class as usize].received;
        let me = route.me;
        // What is about lists rides in the class that carries them.
        let lists = if class == LinkClass::Control {
            [self.heard_beats.have, self.heard_fetches.have, self.heard_beats.missed, self.heard_fetches.missed]
        } else {
            [0; 4]
        };
        p::Head {
            cluster_high: (me.cluster >> 64) as u64,
            cluster_low: me.cluster as u64,
            from: u32::from(me.replica.node.0),
            to: u32::from(route.peer.node.0),
            from_incarnation: me.incarnation.0,
            to_incarnation: route.peer.incarnation.0,
            from_shard: u32::from(me.shard.0),
            session: route.session,
            heard: self.heard,
            seq: out.seq + 1,
            offset: out.sent,
            received_control: received(LinkClass::Control),
            received_data: received(LinkClass::Data),
            received_bulk: received(LinkClass::Bulk),
            beats_have: lists[0],
            fetches_have: lists[1],
            beats_missed: lists[2],
            fetches_missed: lists[3],
        }
    }

    /// Items from the front of the queue, as many as credit and the frame have room for.
    fn put_items(
        &mut self,
        class: LinkClass,
        route: Route<'_>,
        buf: &mut BytesMut,
        counters: &mut LinkCounters,
    ) -> Fits {
        let out = &mut self.out[class as usize];
        let credit = out.credit(class);
        let (mut items, mut weight) = (0, 0);
        let mut fits = Fits::All;
        while let Some(item) = out.queue.front()
            && buf.len() < limits::LINK_FRAME_BYTES
        {
            let at = buf.len();
            let item = wire::item(item, route.replica());
            if weight + item.weight() > p::FRAME_ITEMS_MAX && items > 0 {
                break;
            }
            weight += item.weight();
            p::put_item(buf, &item);
            if buf.len() - at > limits::LINK_ITEM_MAX || item.weight() > p::LOG_ITEMS_MAX {
                buf.truncate(at);
                out.pop();
                counters.dropped_too_large += 1;
                continue;
            }
            if buf.len() as u64 > credit {
                fits = Fits::Needs(if items == 0 { buf.len() as u64 } else { 0 });
                buf.truncate(at);
                break;
            }
            out.pop();
            items += 1;
        }
        counters.items_out += items;
        fits
    }

    /// The rows of this step, if there is credit for them at their longest.
    fn put_packs(&mut self, buf: &mut BytesMut, counters: &mut LinkCounters) -> Fits {
        let needs = (buf.len() + limits::LINK_PACK_BYTES) as u64;
        if self.out[LinkClass::Control as usize].credit(LinkClass::Control) < needs {
            return Fits::Needs(limits::LINK_PACK_BYTES as u64);
        }
        counters.items_out += (self.beats.len() + self.fetches.len()) as u64;
        if !self.beats.is_empty() {
            p::put_beats(buf, &self.beats.pack(counters));
        }
        if !self.fetches.is_empty() {
            p::put_fetches(buf, &self.fetches.pack(counters));
        }
        Fits::All
    }

    /// A frame left that says how much arrived, and in class Control which lists did.
    fn told(&mut self, control: bool) {
        self.incoming.iter_mut().for_each(|i| i.told = i.received);
        if control {
            (self.heard_beats.missed, self.heard_fetches.missed) = (0, 0);
            self.owes = false;
        }
    }

    /// Something waits that could leave now, or a frame is due.
    pub fn backlog(&self) -> bool {
        let free = |o: &Outgoing| o.waits_since == Instant::NEVER;
        let rows = !(self.beats.is_empty() && self.fetches.is_empty());
        self.owes
            || rows && free(&self.out[LinkClass::Control as usize])
            || self.out.iter().any(|o| !o.queue.is_empty() && free(o))
    }

    /// When a class that gets no credit is given up.
    pub fn deadline(&self) -> Instant {
        self.out.iter().map(|o| o.waits_since).min().map_or(Instant::NEVER, |since| since + limits::LINK_STALL)
    }

    /// A frame of the peer. False: it is stale, and nothing of it counts.
    pub fn receive(
        &mut self,
        ends: &Ends,
        session: u64,
        frame: p::Frame,
        bytes: usize,
        counters: &mut LinkCounters,
        into: &mut Vec<Item>,
    ) -> Result<bool, FrameError> {
        let class = LinkClass::of(frame.class).ok_or(FrameError::Version)?;
        let head = frame.head;
        if head.session > self.heard {
            self.heard = head.session;
            self.incoming = [Incoming::default(); 3];
            (self.heard_beats, self.heard_fetches) = (Unpacker::default(), Unpacker::default());
        }
        let incoming = &mut self.incoming[class as usize];
        if head.session < self.heard || head.seq <= incoming.seq {
            return Ok(false);
        }
        incoming.seq = head.seq;
        let content = !frame.items.is_empty() || frame.beats.is_some() || frame.fetches.is_some();
        if content {
            let end = head.offset.checked_add(bytes as u64).ok_or(FrameError::Malformed)?;
            incoming.received = incoming.received.max(end);
        }
        self.owes |= incoming.received - incoming.told >= owed_max(class);
        if head.heard == session {
            self.on_told(&head);
        }
        for item in frame.items {
            into.push(ends.item(item)?);
        }
        let slot = |row: &Row| Group::Slot(row.slot);
        let envelope = |row: &Row, message| ends.envelope(row.epoch, message);
        if let Some(pack) = &frame.beats {
            let each = |r: Row| into.push(Item::Group { group: slot(&r), envelope: envelope(&r, r.beat()) });
            self.heard_beats.unpack(pack, counters, each)?;
        }
        if let Some(pack) = &frame.fetches {
            let each = |r: Row| into.push(Item::Group { group: slot(&r), envelope: envelope(&r, r.fetch()) });
            self.heard_fetches.unpack(pack, counters, each)?;
        }
        self.owes |= self.heard_beats.missed != 0 || self.heard_fetches.missed != 0;
        Ok(true)
    }

    /// What the peer says of my session.
    fn on_told(&mut self, head: &p::Head) {
        let received = [head.received_control, head.received_data, head.received_bulk];
        for (out, received) in self.out.iter_mut().zip(received) {
            let received = received.min(out.sent);
            if received > out.acked {
                out.acked = received;
                out.waits_since = Instant::NEVER;
            }
        }
        self.beats.on_have(head.beats_have);
        self.beats.on_missed(head.beats_missed);
        self.fetches.on_have(head.fetches_have);
        self.fetches.on_missed(head.fetches_missed);
    }
}
