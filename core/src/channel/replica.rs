//! The channel as the owner of its replica: inputs in, and what the group wants written, sent, committed and said.

use super::{Arrears, Channel, Channels, Stage};
use crate::cluster::Slots;
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter};
use crate::error::StoreFault;
use crate::event::mail::Delivery;
use crate::limits;
use crate::mutants::Mutant;
use crate::note::Note;
use crate::output::PersistClass;
use crate::raft::core::{Input, Op, Ops, Output, Role};
use crate::raft::journal::Token;
use crate::raft::message::{Body, Entry};
use crate::store::{Family, Found, Query, Record, keys};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::ReasonCode;

impl Channels {
    /// One input of the replica, and everything that follows from it.
    pub(super) fn step(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, input: Input) {
        // Whoever is within a step already goes on with this one when its own outputs are dealt with.
        if self.stepping {
            return self.local.push_back((index, input));
        }
        self.stepping = true;
        self.step_one(ctx, slots, index, input);
        while let Some((index, input)) = self.local.pop_front() {
            self.step_one(ctx, slots, index, input);
        }
        self.stepping = false;
    }

    fn step_one(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, input: Input) {
        let Some(group) = self.slab.get_mut(index as usize).and_then(|c| c.group.as_mut()) else { return };
        let mut out = core::mem::take(&mut ctx.raft_out);
        group.pause(ctx.links.full());
        if !ctx.links.full().is_empty() && group.is_leader() {
            self.paused.insert(index);
        }
        group.step_into(ctx.now.mono, input, &mut out);
        while let Some(output) = out.pop_front() {
            self.output(ctx, slots, index, output);
        }
        ctx.raft_out = out;
        self.after_step(ctx, index);
    }

    /// A link that was full is not any more: leaders give their followers what they lack.
    pub fn resume(&mut self, ctx: &mut Ctx, slots: &mut Slots) {
        for index in core::mem::take(&mut self.paused) {
            self.step(ctx, slots, index, Input::Time);
        }
    }

    fn after_step(&mut self, ctx: &mut Ctx, index: u32) {
        let Some(channel) = self.slab.get_mut(index as usize) else { return };
        if channel.head_due {
            // Alone: the epoch's promise, or nothing; rows of a write bring it along.
            channel.write_head(ctx);
        }
        if !channel.ready.is_empty() && channel.serves() && !channel.appending() {
            channel.want_flush(ctx, index);
        }
        if channel.leading && !(channel.queue.is_empty() && channel.outgoing.is_empty()) {
            channel.schedule(ctx, index);
        }
        channel.arm(ctx, index);
    }

    fn output(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, output: Output) {
        let channel = &mut self.slab[index as usize];
        match output {
            Output::Send(m) if m.to == ctx.replica() => {
                let generation = channel.head.generation;
                self.peer_input(ctx, slots, index, generation, Input::Message(m));
            }
            Output::Send(m) => ctx.post(channel.slot, Some((&channel.key, channel.head.generation)), m),
            Output::Persist { token, ops } => self.persist(ctx, index, token, ops),
            Output::ReadLog { request, from, to, max_bytes } => {
                let page = channel.log_range(from, to, limits::APPEND_ENTRIES_MAX as u32, max_bytes);
                ctx.load(LoadWaiter::ChannelEntries(index, channel.replica, request), [page]);
            }
            Output::Committed { .. } => self.commit(ctx, index),
            Output::ReadReady { ctx: number, index: at } => self.on_confirmed(ctx, index, number, at.is_ok()),
            Output::Role { role: Role::Leader, .. } => self.take_office(ctx, index),
            Output::Role { .. } => self.lose_office(ctx, index),
            Output::Report(report) => {
                let (slot, key, generation) = (channel.slot, channel.key.clone(), channel.head.generation);
                let me = ctx.replica();
                if slots.leads(slot) {
                    self.on_report(ctx, slots, &key, generation, me, report);
                } else if let Some(to) = slots.leader(slot) {
                    ctx.post_report(to, &key, generation, report);
                }
                // Perhaps the epoch is committed now: reads that waited for that are confirmed.
                self.wake_readers(ctx, slots, index);
            }
            Output::Settled { .. } => ctx.counters.channels_settled += 1,
            Output::Alarm(alarm) => ctx.note(Note::RaftAlarm { slot: channel.slot, alarm }),
            // What became of a proposal is seen in the same step, by the commit index, or by the role. There are no snapshots.
            Output::Outcome { .. }
            | Output::ReadSnapshot { .. }
            | Output::WriteSnapshot { .. }
            | Output::SnapshotWanted { .. }
            | Output::Restore { .. } => {}
        }
    }

    fn persist(&mut self, ctx: &mut Ctx, index: u32, token: Token, ops: Ops) {
        let class =
            if ops.iter().all(|op| matches!(op, Op::Hint { .. })) { PersistClass::Lazy } else { PersistClass::Sync };
        for op in ops {
            if self.write(ctx, index, op).is_err() {
                return self.stop(ctx, index);
            }
        }
        let channel = &mut self.slab[index as usize];
        if channel.head_due {
            channel.write_head(ctx);
        }
        if ctx.mutant(Mutant::AckOnPersistStart) {
            self.local.push_back((index, Input::Persisted(token)));
        }
        let channel = &mut self.slab[index as usize];
        channel.writes += 1;
        ctx.persist(PersistWaiter::ChannelGroup(index, channel.replica, token), class);
    }

    /// A write of the replica is durable.
    pub fn on_persisted(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, replica: u64, token: Token) {
        let Some(channel) = self.get_replica(index, replica) else { return };
        channel.writes -= 1;
        if !ctx.mutant(Mutant::AckOnPersistStart) {
            self.step(ctx, slots, index, Input::Persisted(token));
        }
        if self.slab.contains(index as usize) {
            self.wake_readers(ctx, slots, index);
        }
    }

    /// Entries for a follower were read; `None` = the store could not.
    pub fn on_entries(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        replica: u64,
        request: u64,
        found: Option<Vec<Found>>,
    ) {
        if self.get_replica(index, replica).is_none() {
            return;
        }
        let entries = page(found).and_then(|rows| {
            rows.into_iter()
                .map(|(key, row)| {
                    let index = keys::parse_log_seq(&key)?;
                    let epoch = Record::decode(index, &row).ok()?.epoch;
                    Some(Entry { index, epoch, body: Body::Data(row) })
                })
                .collect()
        });
        self.step(ctx, slots, index, Input::LogRead { request, entries });
    }

    /// This replica leads. What was committed before and perhaps not handed on is read first.
    fn take_office(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        if core::mem::replace(&mut channel.leading, true) {
            return;
        }
        channel.last_active = ctx.now.mono;
        channel.appended = 0;
        if channel.distributed() < channel.last() && !ctx.mutant(Mutant::ArrearsForgotten) {
            channel.arrears = Arrears::Loading;
            channel.load_arrears(ctx, index, channel.distributed() + 1);
        }
        channel.schedule(ctx, index);
    }

    /// This replica does not lead, or not any more: what was promised to nobody yet is refused, or of unknown outcome.
    pub(super) fn lose_office(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        if !core::mem::replace(&mut channel.leading, false) {
            return;
        }
        let kept = ctx.mutant(Mutant::PromiseKeptOverOffice);
        let promised: Vec<_> = if kept { Vec::new() } else { channel.held.abandon().collect() };
        for entry in promised {
            if let Some(key) = entry.key {
                self.dedup.abandon(key);
            }
            crate::user::answer_unstored(ctx, &entry.event, ReasonCode::SYSTEM_ERROR);
        }
        channel.refuse_all(ctx, &mut self.dedup);
        channel.outgoing.clear();
        channel.pushes.clear();
        channel.late_hits.clear();
        channel.arrears = Arrears::None;
        channel.keys_complete = false;
        self.fail_readers(ctx, index);
    }

    /// Entries that were committed before this replica led.
    pub fn on_arrears(&mut self, ctx: &mut Ctx, index: u32, replica: u64, found: Option<Vec<Found>>) {
        let Some(channel) = self.get_replica(index, replica).filter(|c| c.arrears == Arrears::Loading) else { return };
        let last = channel.group.as_ref().and_then(|g| g.mark_at()).unwrap_or(0);
        let records: Option<Vec<Record>> = page(found).and_then(|rows| {
            rows.iter().map(|(key, row)| Record::decode(keys::parse_log_seq(key)?, row).ok()).collect()
        });
        let Some(records) = records else { return self.stop(ctx, index) };
        // Newer ones may have been committed meanwhile: they are in the queue, or will be.
        let known = channel.outgoing.iter().take_while(|d| d.again).count();
        let mut next = last + 1;
        for (at, record) in (known..).zip(records.into_iter().filter(|r| r.seq <= last)) {
            next = record.seq + 1;
            let delivery = Delivery { channel: channel.key.clone(), record, origin: None, again: true };
            channel.outgoing.insert(at, Arc::new(delivery));
        }
        if next <= last {
            return channel.load_arrears(ctx, index, next);
        }
        channel.arrears = Arrears::None;
        channel.schedule(ctx, index);
    }
}

/// The rows of a load of one range, if the store could read it.
fn page(found: Option<Vec<Found>>) -> Option<Vec<(Bytes, Bytes)>> {
    match found?.into_iter().next()? {
        Found::Page { rows, .. } => Some(rows),
        Found::Unreadable(StoreFault::Io | StoreFault::Full | StoreFault::Corrupt) | Found::Point(_) => None,
    }
}

impl Channel {
    fn log_range(&self, from: u64, to: u64, rows_max: u32, bytes_max: usize) -> Query {
        Query::Range {
            family: Family::Log,
            from: Bytes::copy_from_slice(&keys::log(self.slot, self.no(), from)),
            to: Bytes::copy_from_slice(&keys::log(self.slot, self.no(), to.saturating_add(1))),
            rows_max,
            bytes_max: bytes_max.min(limits::APPEND_BYTES_MAX) as u32,
            reverse: false,
        }
    }

    fn load_arrears(&self, ctx: &mut Ctx, index: u32, from: u64) {
        let page = self.log_range(from, self.last(), limits::LOG_PAGE, limits::APPEND_BYTES_MAX);
        ctx.load(LoadWaiter::ChannelArrears(index, self.replica), [page]);
    }

    /// Whether the replica takes part in deciding anything now.
    pub(super) fn is_running(&self) -> bool {
        self.stage == Stage::Running
    }
}
