//! From cold to serving: head row, assignment, leadership, the tail above the head row (cluster-and-raft 4.18, 4.19).

use super::{Channel, Channels, Directory, Stage};
use crate::channel::id;
use crate::cluster::{Command, Outcome, Slots, Waiter};
use crate::ctx::{Ctx, LoadWaiter, Timer};
use crate::event::mail::{Delivery, Reply};
use crate::ids::{ChannelKey, ChannelNo, shard_of, slot_of};
use crate::limits;
use crate::mutants::Mutant;
use crate::raft::{Group, Log, Recovered};
use crate::store::rows::{Assignment, ChannelHead, ChannelMeta, Damaged, Format, Replica};
use crate::store::{Family, Found, Query, Record, keys};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

const TAIL_PAGE: u32 = 1_024;

impl Channels {
    /// The channel in memory, loading it if need be. `None`: no room.
    pub(super) fn activate(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey) -> Option<u32> {
        if let Some(index) = self.by_key.get(key) {
            return Some(*index);
        }
        let slot = slot_of(&key.id, ctx.config.slots);
        if self.slab.len() >= limits::CHANNELS_MAX || !slots.leads(slot) {
            return None;
        }
        let key = ChannelKey { id: key.id.detached(), kind: key.kind };
        let activation = self.next_activation;
        let channel = Channel::new(ctx, key.clone(), activation);
        self.next_activation += 1;
        let index = self.slab.insert(channel) as u32;
        let (assignment, meta) = (keys::assignment(slot, &key), keys::channel_meta(slot, &key));
        slots.begin_read(slot, &assignment);
        slots.begin_read(slot, &meta);
        let get = |family, key| Query::Get { family, key };
        ctx.load(
            LoadWaiter::ChannelHead(index, activation),
            [
                get(Family::Raft, keys::head(slot, &key)),
                get(Family::Raft, keys::dirty(slot, &key)),
                get(Family::Meta, assignment),
                get(Family::Meta, meta),
            ],
        );
        ctx.counters.channels_activated += 1;
        self.by_key.insert(key, index);
        Some(index)
    }

    /// Channels that may owe distribution after a crash are activated at boot.
    pub fn on_dirty(&mut self, ctx: &mut Ctx, slots: &mut Slots, channels: Vec<ChannelKey>) {
        for key in channels {
            if self.activate(ctx, slots, &key).is_none() {
                self.backlog.push_back(key);
            }
        }
    }

    /// The head row and the slot's rows of a channel were read; `None` = the store could not.
    pub fn on_head(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        activation: u64,
        found: Option<Vec<Found>>,
    ) {
        let Some(channel) = self.get(index, activation) else {
            return;
        };
        let rows: Option<Vec<Option<Bytes>>> =
            found.and_then(|f| f.into_iter().map(|f| if let Found::Point(p) = f { Some(p) } else { None }).collect());
        let (assignment, meta) =
            (keys::assignment(channel.slot, &channel.key), keys::channel_meta(channel.slot, &channel.key));
        let Some(rows) = rows else {
            slots.read_done(channel.slot, &assignment, None);
            slots.read_done(channel.slot, &meta, None);
            return self.stop(ctx, index);
        };
        let assignment = slots.read_done(channel.slot, &assignment, Some(rows[2].clone()));
        let meta = slots.read_done(channel.slot, &meta, Some(rows[3].clone()));
        let dirty = rows[1].is_some();
        match channel.recover(rows[0].as_ref(), dirty, meta) {
            Ok(()) => {}
            Err(Damaged) => return self.stop(ctx, index),
        }
        let assignment = match assignment.map(|r| Assignment::decode(&r)).transpose() {
            Ok(a) => a,
            Err(Damaged) => return self.stop(ctx, index),
        };
        if channel.dirty {
            channel.load_tail(ctx, index);
        }
        let channel = &mut self.slab[index as usize];
        channel.stage = Stage::Assigning;
        channel.ensure_directory(ctx, index);
        match assignment {
            Some(a) if channel.may_resume(ctx, &a) => {
                channel.group.resume();
                self.serve(ctx, index);
            }
            other => self.claim(ctx, slots, index, other),
        }
    }

    /// Asks the slot for leadership: Create, or a new epoch by ElectSole.
    fn claim(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, current: Option<Assignment>) {
        let channel = &self.slab[index as usize];
        let (leader, incarnation) = (Replica { node: ctx.config.node, store: ctx.store }, ctx.incarnation);
        let key = channel.key.clone();
        let command = match current {
            Some(a) if !a.deleted => {
                Command::ElectSole { channel: key, generation: a.generation, epoch: a.epoch, leader, incarnation }
            }
            _ => Command::CreateChannel { channel: key, leader, incarnation },
        };
        let waiter = Waiter::Channel { index, activation: channel.activation };
        let slot = channel.slot;
        if !slots.propose(ctx, slot, command, waiter) {
            self.stop(ctx, index);
        }
    }

    /// The slot answered.
    pub fn on_assigned(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, activation: u64, outcome: Outcome) {
        let Some(channel) = self.get(index, activation) else {
            return;
        };
        match outcome {
            Outcome::Assigned { assignment, stale: true } => {
                let me = Replica { node: ctx.config.node, store: ctx.store };
                if assignment.voters == [me] {
                    self.claim(ctx, slots, index, Some(assignment));
                } else {
                    self.stop(ctx, index);
                }
            }
            Outcome::Assigned { assignment, stale: false } => {
                if channel.has_head && channel.head.generation != assignment.generation {
                    // The channel was deleted and made anew: another log.
                    channel.has_head = false;
                    channel.dirty = false;
                }
                channel.assigned = true;
                channel.assigned_epoch = assignment.epoch;
                channel.head.generation = assignment.generation;
                if !channel.tail_loading {
                    self.lead(ctx, slots, index);
                }
            }
            Outcome::Done | Outcome::Unknown | Outcome::Damaged => self.stop(ctx, index),
        }
    }

    /// A page of the log above what the head row promises to be settled.
    pub fn on_tail(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        activation: u64,
        found: Option<Vec<Found>>,
    ) {
        let Some(channel) = self.get(index, activation) else {
            return;
        };
        let Some(Found::Page { rows, more }) = found.and_then(|f| f.into_iter().next()) else {
            return self.stop(ctx, index);
        };
        for (key, row) in &rows {
            let record = keys::parse_log_seq(key).and_then(|seq| Record::decode(seq, row).ok());
            match record {
                Some(record) => channel.tail.push(record),
                None => return self.stop(ctx, index),
            }
        }
        if more {
            return channel.load_tail(ctx, index);
        }
        channel.tail_loading = false;
        if channel.assigned {
            self.lead(ctx, slots, index);
        }
    }

    /// Assigned, and everything known of the log is in memory: leads.
    fn lead(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        if !channel.has_head {
            let no = slots.take_channel_no(ctx, channel.slot);
            channel.head = ChannelHead {
                channel_no: ChannelNo(no),
                generation: channel.head.generation,
                ..ChannelHead::default()
            };
            channel.group = Group::new(Recovered::default());
            (channel.keys_complete, channel.created_here) = (true, true);
        } else if channel.dirty && channel.extend_with_tail(ctx).is_err() {
            return self.stop(ctx, index);
        }
        let channel = &mut self.slab[index as usize];
        channel.group.lead(channel.assigned_epoch);
        self.serve(ctx, index);
    }

    fn serve(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        channel.stage = Stage::Warm;
        channel.last_active = ctx.now.mono;
        channel.arm_settle(ctx, index);
        if channel.dirty {
            // The tail above the commit index commits with this epoch's mark, entries or none.
            channel.want_flush(ctx, index);
        }
        channel.schedule(ctx, index);
        self.wake_readers(ctx, index);
    }

    /// A damaged or unreadable row: the channel refuses everything, and is forgotten so that a later try reads again.
    pub(super) fn stop(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        channel.stage = Stage::Stopped;
        channel.last_active = ctx.now.mono;
        channel.refuse_all(ctx, &mut self.dedup);
        channel.arm_settle(ctx, index);
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

impl Channel {
    /// Takes over what the rows say.
    fn recover(&mut self, head: Option<&Bytes>, dirty: bool, meta: Option<Bytes>) -> Result<(), Damaged> {
        if let Some(row) = head {
            self.head = ChannelHead::decode(row)?;
            self.has_head = true;
        } else if dirty {
            return Err(Damaged);
        }
        self.dirty = dirty;
        let h = &self.head;
        let log = Log::recovered(h.end, Vec::new(), h.end.index);
        let hw = if dirty { h.hw } else { h.end.index };
        self.group = Group::new(Recovered { epoch: h.epoch, log, hw });
        self.distributed = h.distributed;
        self.head_written_at = h.end.index;
        let ready = meta.map(|m| ChannelMeta::decode(&m)).transpose()?.is_some_and(|m| m.directory_ready);
        // Commands are read by their own rows, not by the conversation list.
        if ready || self.key.id.ends_with(id::CMD_SUFFIX) {
            self.directory = Directory::Ready;
        }
        Ok(())
    }

    /// A settled channel evicted and loaded again by the same process goes on in its epoch.
    fn may_resume(&self, ctx: &Ctx, a: &Assignment) -> bool {
        let me = Replica { node: ctx.config.node, store: ctx.store };
        let same = self.has_head && !self.dirty && self.head.generation == a.generation;
        same && !a.deleted
            && a.leader == Some((me, ctx.incarnation))
            && self.head.epoch == a.epoch
            && self.head.end.epoch == a.epoch
    }

    fn load_tail(&mut self, ctx: &mut Ctx, index: u32) {
        self.tail_loading = true;
        let from = self.tail.last().map_or(self.head.distributed.min(self.head.end.index), |r| r.seq) + 1;
        ctx.load(
            LoadWaiter::ChannelTail(index, self.activation),
            [Query::Range {
                family: Family::Log,
                from: Bytes::copy_from_slice(&keys::log(self.slot, self.head.channel_no, from)),
                to: Bytes::copy_from_slice(&keys::log(self.slot, self.head.channel_no, u64::MAX)),
                rows_max: TAIL_PAGE,
                bytes_max: limits::APPEND_BYTES_MAX as u32,
                reverse: false,
            }],
        );
    }

    /// Extends the log's shape by the entries found above the head row, and queues what was not distributed.
    fn extend_with_tail(&mut self, ctx: &Ctx) -> Result<(), Damaged> {
        let forget = ctx.mutant(Mutant::SeqReusedAfterRestart);
        let mut log = self.group.log.clone();
        for record in core::mem::take(&mut self.tail) {
            let end = log.end();
            if record.seq > end.index {
                if forget {
                    break;
                }
                if record.seq != end.index + 1 || record.epoch < end.epoch {
                    return Err(Damaged);
                }
                if record.epoch > end.epoch {
                    log.mark(record.epoch, end.index);
                }
                log.extend(record.epoch, 1);
            }
            self.outgoing.push_back(Arc::new(Delivery {
                channel: self.key.clone(),
                record,
                origin: None,
                again: true,
            }));
        }
        let epoch = self.head.epoch.max(log.end().epoch);
        self.group = Group::new(Recovered { epoch, log, hw: self.group.hw });
        Ok(())
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
        if missing > 0 {
            let at = ctx.now.mono + limits::DIRECTORY_RETRY;
            if at < self.timer_at {
                ctx.arm(Timer::Channel(index), &mut self.timer_at, at);
            }
        }
    }
}
