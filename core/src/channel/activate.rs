//! From cold to taking part: the head row, the shape of the log and its tail; and where the slot's leader is, what the slot's
//! tables say (cluster-and-raft 4.18, 4.19).

use super::{Channel, Channels, Directory, Facts, Stage};
use crate::channel::id;
use crate::cluster::{Command, Slots, Waiter};
use crate::ctx::{Ctx, LoadWaiter};
use crate::error::Refusal;
use crate::event::mail::Reply;
use crate::ids::{ChannelKey, ChannelNo, Epoch, Position, shard_of, slot_of};
use crate::limits;
use crate::mutants::Mutant;
use crate::raft::Log;
use crate::raft::config::Config;
use crate::raft::core::{GroupConfig, GroupCore, Mode, Stored};
use crate::raft::message::{Body, Entry};
use crate::store::rows::{Assignment, ChannelHead, ChannelMeta, Damaged, Format, Mark};
use crate::store::{Family, Found, Query, Record, keys};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

/// What was read of a log: where its epochs begin, and its entries above the commit hint.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail {
    marks_read: bool,
    marks: Vec<(Epoch, u64)>,
    entries: Vec<Entry>,
}

impl Channels {
    /// The channel in memory, loading it if need be. `None`: no room.
    pub(super) fn ensure(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey) -> Option<u32> {
        if let Some(index) = self.by_key.get(key) {
            return Some(*index);
        }
        // While the slot's rows are being read, or put in place, nothing can be said of its channels.
        if self.slab.len() >= limits::CHANNELS_MAX || !slots.hydrated(slot_of(&key.id, ctx.config.slots)) {
            return None;
        }
        let key = ChannelKey { id: key.id.detached(), kind: key.kind };
        let activation = self.next_activation;
        let channel = Channel::new(ctx, key.clone(), activation);
        let slot = channel.slot;
        self.next_activation += 1;
        let index = self.slab.insert(Channel { reading: 1, ..channel }) as u32;
        let get = |family, key| Query::Get { family, key };
        // What the slot says of it, as far as it is applied here: a generation that was deleted is not taken up again.
        let record = keys::assignment(slot, &key);
        slots.begin_read(slot, &record);
        let rows = [
            get(Family::Raft, keys::head(slot, &key)),
            get(Family::Raft, keys::dirty(slot, &key)),
            get(Family::Meta, record),
        ];
        ctx.load(LoadWaiter::ChannelHead(index, activation), rows);
        ctx.counters.channels_activated += 1;
        self.by_key.insert(key, index);
        Some(index)
    }

    /// The same, to be served by this node. `None`: no room, or its slot is led elsewhere.
    pub(super) fn want(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey) -> Option<u32> {
        let known = self.by_key.get(key).copied();
        let channel = known.map(|index| &self.slab[index as usize]);
        if channel.is_some_and(|c| c.wanted) {
            return known;
        }
        if !slots.leads(slot_of(&key.id, ctx.config.slots)) {
            return known.filter(|_| channel.is_some_and(|c| c.leading));
        }
        let index = self.ensure(ctx, slots, key)?;
        let channel = &mut self.slab[index as usize];
        channel.wanted = true;
        channel.facts = Facts::Loading;
        channel.reading += 1;
        channel.last_active = ctx.now.mono;
        let (slot, activation) = (channel.slot, channel.activation);
        let rows = [keys::assignment(slot, &channel.key), keys::channel_meta(slot, &channel.key)];
        for row in &rows {
            slots.begin_read(slot, row);
        }
        let get = |key| Query::Get { family: Family::Meta, key };
        ctx.load(LoadWaiter::ChannelFacts(index, activation), rows.map(get));
        Some(index)
    }

    /// Channels that may owe distribution after a crash are activated at boot.
    pub fn on_dirty(&mut self, ctx: &mut Ctx, slots: &mut Slots, channels: Vec<ChannelKey>) {
        for key in channels {
            if self.want(ctx, slots, &key).is_none() {
                self.backlog.push_back(key);
            }
        }
    }

    /// The head row was read; `None` = the store could not.
    pub fn on_head(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        activation: u64,
        found: Option<Vec<Found>>,
    ) {
        let Some(channel) = self.get(index, activation) else { return };
        channel.reading -= 1;
        let rows = points(found);
        let record = keys::assignment(channel.slot, &channel.key);
        let record = slots.read_done(channel.slot, &record, rows.as_ref().map(|rows| rows[2].clone()));
        let recovered = rows.ok_or(Damaged).and_then(|r| channel.recover(r[0].as_ref(), &r[1], record.as_ref()));
        if recovered.is_err() {
            return self.stop(ctx, index);
        }
        channel.head_known = true;
        self.end_if_void(ctx, index);
        let channel = &mut self.slab[index as usize];
        if channel.has_head {
            channel.load_log(ctx, index, true);
        } else {
            self.take_part(ctx, slots, index);
        }
        self.decide(ctx, slots, index);
    }

    /// What the slot's tables say was read; `None` = the store could not.
    pub fn on_facts(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        activation: u64,
        found: Option<Vec<Found>>,
    ) {
        let Some(channel) = self.get(index, activation) else { return };
        let keys = [keys::assignment(channel.slot, &channel.key), keys::channel_meta(channel.slot, &channel.key)];
        channel.reading -= 1;
        let loaded = points(found);
        let applied: Vec<Option<Bytes>> = (0..2)
            .map(|i| slots.read_done(channel.slot, &keys[i], loaded.as_ref().map(|rows| rows[i].clone())))
            .collect();
        if loaded.is_none() || channel.learn(&applied[0], &applied[1]).is_err() {
            return self.stop(ctx, index);
        }
        channel.ensure_directory(ctx, index);
        self.decide(ctx, slots, index);
    }

    /// A part of the log was read.
    pub fn on_log(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, activation: u64, found: Option<Vec<Found>>) {
        let shared = self.shared(ctx);
        let Some(channel) = self.get(index, activation).filter(|c| c.stage == Stage::Loading) else { return };
        match found.ok_or(Damaged).and_then(|pages| channel.take_pages(pages)) {
            Err(Damaged) => self.stop(ctx, index),
            Ok(true) => channel.load_log(ctx, index, false),
            Ok(false) => match channel.restore(ctx, shared) {
                Ok(()) => self.take_part(ctx, slots, index),
                Err(Damaged) => self.stop(ctx, index),
            },
        }
    }

    fn shared(&mut self, ctx: &Ctx) -> Arc<GroupConfig> {
        Arc::clone(self.group_config.get_or_insert_with(|| Arc::new(ctx.group_config(Mode::Assigned))))
    }

    /// Everything known of the log is in memory: what came meanwhile is handled.
    fn take_part(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        channel.stage = Stage::Running;
        channel.last_active = ctx.now.mono;
        // It may have been deleted while its log was read.
        self.end_if_void(ctx, index);
        let channel = &mut self.slab[index as usize];
        let early = core::mem::take(&mut channel.early);
        for (generation, input) in early {
            self.peer_input(ctx, slots, index, generation, input);
        }
        self.install(ctx, slots, index);
        self.slab[index as usize].arm(ctx, index);
    }

    /// The log begins: a generation of which nothing is stored here. What is left of an older one goes (S80).
    pub(super) fn begin_generation(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, generation: u64) {
        let channel = &mut self.slab[index as usize];
        if ctx.mutant(Mutant::OldGenerationKept) && channel.group.is_some() {
            channel.head.generation = generation;
            return;
        }
        let anew = channel.has_head;
        self.end_generation(ctx, index);
        let shared = self.shared(ctx);
        let channel = &mut self.slab[index as usize];
        let channel_no = ChannelNo(slots.take_channel_no(ctx, channel.slot));
        channel.head = ChannelHead { channel_no, generation, ..ChannelHead::default() };
        (channel.keys_complete, channel.created_here, channel.followed) = (true, true, false);
        channel.make_group(ctx, shared, Log::default(), 0);
        if anew {
            // Nothing on disk may say any more that the older one is here.
            channel.write_head(ctx);
        }
    }

    /// A damaged or unreadable row: the channel refuses everything, and is forgotten so that a later try reads again.
    pub(super) fn stop(&mut self, ctx: &mut Ctx, index: u32) {
        self.lose_office(ctx, index);
        let channel = &mut self.slab[index as usize];
        channel.stage = Stage::Stopped;
        channel.group = None;
        channel.controller = None;
        channel.last_active = ctx.now.mono;
        channel.refuse_all(ctx, &mut self.dedup);
        channel.answer_deletions(ctx, Err(Refusal::Timeout));
        channel.arm(ctx, index);
        self.fail_readers(ctx, index);
    }

    /// A user's membership row is committed.
    pub fn on_membership(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, activation: u64, uid: &Text) {
        let Some(channel) = self.get(index, activation) else {
            return;
        };
        let Directory::Waiting { missing } = &mut channel.directory else {
            return;
        };
        if channel.dir_ready_uids.contains(uid) {
            return;
        }
        channel.dir_ready_uids.push(uid.clone());
        *missing -= 1;
        if *missing == 0 {
            channel.directory = Directory::Ready;
            channel.dir_ready_uids.clear();
            let (slot, key) = (channel.slot, channel.key.clone());
            // Repeating the rows after a crash is harmless, so nobody waits for this.
            slots.propose(ctx, slot, Command::SetDirectoryReady { channel: key }, Waiter::Nobody);
            self.release_acks(ctx, index);
        }
    }
}

/// The rows of a load of points, if the store could read them all.
fn points(found: Option<Vec<Found>>) -> Option<Vec<Option<Bytes>>> {
    found?.into_iter().map(|f| if let Found::Point(row) = f { Some(row) } else { None }).collect()
}

impl Channel {
    /// Takes over what the head row says, and which generations are over.
    fn recover(&mut self, head: Option<&Bytes>, dirty: &Option<Bytes>, record: Option<&Bytes>) -> Result<(), Damaged> {
        let void = record.map(Assignment::decode).transpose()?.map_or(0, |a| a.void());
        self.void = self.void.max(void);
        self.dirty = dirty.is_some();
        match head {
            Some(row) => {
                self.head = ChannelHead::decode(row)?;
                self.has_head = true;
                self.head_written_at = self.head.end.index;
            }
            None if self.dirty => return Err(Damaged),
            None => {}
        }
        Ok(())
    }

    fn learn(&mut self, assignment: &Option<Bytes>, meta: &Option<Bytes>) -> Result<(), Damaged> {
        let ready = meta.as_ref().map(ChannelMeta::decode).transpose()?.is_some_and(|m| m.directory_ready);
        // Commands are read by their own rows, not by the conversation list.
        if ready || self.key.id.ends_with(id::CMD_SUFFIX) {
            self.directory = Directory::Ready;
        }
        self.facts = Facts::Known(assignment.as_ref().map(Assignment::decode).transpose()?.map(Arc::new));
        Ok(())
    }

    /// Where the log begins to be read: above the commit hint, or nowhere if the head row is exact.
    fn load_log(&mut self, ctx: &mut Ctx, index: u32, first: bool) {
        let mut pages = Vec::with_capacity(2);
        let range = |family, from: [u8; 18], to: [u8; 18], rows_max, bytes_max| Query::Range {
            family,
            from: Bytes::copy_from_slice(&from),
            to: Bytes::copy_from_slice(&to),
            rows_max,
            bytes_max,
            reverse: false,
        };
        let (slot, no) = (self.slot, self.head.channel_no);
        if first {
            let (from, to) = (keys::mark(slot, no, Epoch(0)), keys::mark(slot, no, Epoch(u64::MAX)));
            pages.push(range(Family::Marks, from, to, limits::MARKS_MAX, limits::MARKS_BYTES_MAX));
        }
        if self.dirty {
            let next = self.tail.entries.last().map_or(self.head.hw, |e| e.index) + 1;
            let (from, to) = (keys::log(slot, no, next), keys::log(slot, no, u64::MAX));
            pages.push(range(Family::Log, from, to, limits::LOG_PAGE, limits::APPEND_BYTES_MAX as u32));
        }
        ctx.load(LoadWaiter::ChannelLog(index, self.activation), pages);
    }

    /// Keeps what was read; true when there is more.
    fn take_pages(&mut self, pages: Vec<Found>) -> Result<bool, Damaged> {
        let mut again = false;
        for page in pages {
            let Found::Page { rows, more } = page else { return Err(Damaged) };
            let marks = !core::mem::replace(&mut self.tail.marks_read, true);
            again = more;
            for (key, row) in rows {
                let last = keys::parse_log_seq(&key).ok_or(Damaged)?;
                if marks {
                    self.tail.marks.push((Epoch(last), Mark::decode(&row)?.at));
                } else {
                    let epoch = Record::decode(last, &row)?.epoch;
                    self.tail.entries.push(Entry { index: last, epoch, body: Body::Data(row) });
                }
            }
            if marks && more {
                return Err(Damaged);
            }
        }
        Ok(again)
    }

    /// The replica as the disk has it.
    fn restore(&mut self, ctx: &Ctx, shared: Arc<GroupConfig>) -> Result<(), Damaged> {
        if self.dirty && ctx.mutant(Mutant::SeqReusedAfterRestart) {
            let end = self.head.end.index;
            self.tail.entries.retain(|e| e.index <= end);
            self.tail.marks.retain(|(_, at)| *at <= end);
        }
        let hw = if self.dirty { self.head.hw } else { self.head.end.index };
        let last = self.tail.entries.last().map_or(hw, |e| e.index);
        let log = Log::recovered(Position::default(), core::mem::take(&mut self.tail.marks), last);
        let whole = (hw + 1..).zip(&self.tail.entries).all(|(i, e)| e.index == i && e.epoch == log.epoch_of(i));
        if !whole || last < self.head.end.index || log.marks().last().is_some_and(|(_, at)| *at > last) {
            return Err(Damaged);
        }
        self.make_group(ctx, shared, log, hw);
        Ok(())
    }

    fn make_group(&mut self, ctx: &Ctx, shared: Arc<GroupConfig>, log: Log, hw: u64) {
        let stored = Stored {
            epoch: self.head.epoch.max(log.end().epoch),
            voted_for: None,
            hw,
            distributed: self.head.distributed.min(hw),
            tail: core::mem::take(&mut self.tail.entries),
            log,
            configs: alloc::vec![(0, Arc::new(Config::default()))],
            snapshot: None,
            damaged: false,
        };
        let mut group = GroupCore::new(shared, stored, ctx.now.mono);
        // Nothing fetches every microsecond, so this is above all numbers of an earlier activation.
        if !ctx.mutant(Mutant::FetchesNumberedAnew) {
            group.number_fetches(ctx.now.mono.0 / 1_000);
        }
        self.group = Some(Box::new(group));
    }

    /// A settled channel evicted and loaded again by the same process goes on in its epoch.
    pub(super) fn may_resume(&self, ctx: &Ctx, a: &Assignment) -> bool {
        let same = self.has_head && !self.dirty && self.head.generation == a.generation;
        same && !a.deleted
            && a.leader == Some((ctx.replica(), ctx.incarnation))
            && self.head.epoch == a.epoch
            && self.head.end.epoch == a.epoch
    }

    /// Asks for the participants' membership rows, if they are not known to exist (semantics 6.2.8). Repeated by the
    /// channel's timer: a shard that is still starting does not answer.
    pub(super) fn ensure_directory(&mut self, ctx: &mut Ctx, index: u32) {
        if self.directory == Directory::Ready {
            return;
        }
        let mut missing = 0;
        let mut ask = |uid: &str| {
            if uid == id::SYSTEM_UID || self.dir_ready_uids.iter().any(|u| **u == *uid) {
                return;
            }
            missing += 1;
            let to = shard_of(slot_of(uid, ctx.config.slots), ctx.config.shards);
            let from = ctx.me();
            let (uid, channel) = (Text::from(uid), self.key.clone());
            ctx.reply(to, Reply::EnsureMembership { uid, channel, from, index, activation: self.activation });
        };
        if let Some((a, b)) = id::split(&self.key.id) {
            ask(a);
            if a != b {
                ask(b);
            }
        }
        self.directory = if missing == 0 { Directory::Ready } else { Directory::Waiting { missing } };
        self.directory_at =
            if missing > 0 { ctx.now.mono + limits::DIRECTORY_RETRY } else { crate::time::Instant::NEVER };
        self.arm(ctx, index);
    }
}
