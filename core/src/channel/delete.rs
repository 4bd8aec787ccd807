//! A channel that is deleted, and made anew (cluster-and-raft 4.18, S80).
//!
//! The slot's leader deletes by a fence round that nobody wins: once a quorum promised the next epoch, nothing more is committed,
//! and only then the record says that the generation is over. Every node applies that entry of the slot's log, and ends what it
//! has. One that was away hears of it by the slot's log, too, or from a replica of a newer generation.

use super::{Channel, Channels, Facts, Stage};
use crate::cluster::assignment::AssignCommand;
use crate::cluster::control::Wish;
use crate::cluster::{Command, Slots, Waiter};
use crate::ctx::{Ctx, PersistWaiter};
use crate::error::Refusal;
use crate::event::mail::Reply;
use crate::ids::{ChannelKey, ShardId, slot_of};
use crate::output::PersistClass;
use crate::store::rows::{Assignment, ChannelHead};
use crate::store::{Family, keys};
use crate::time::Instant;
use alloc::sync::Arc;

impl Channels {
    /// A call wants the channel deleted.
    pub fn on_delete(&mut self, ctx: &mut Ctx, slots: &mut Slots, home: ShardId, call: u64, key: &ChannelKey) {
        let leads = slots.leads(slot_of(&key.id, ctx.config.slots));
        let index = if leads { self.want(ctx, slots, key) } else { None };
        let index = index.filter(|i| self.slab[*i as usize].stage != Stage::Stopped);
        let Some(index) = index else {
            return ctx.reply(home, Reply::Deleted { call, result: Err(Refusal::Busy) });
        };
        self.slab[index as usize].deletions.push((home, call));
        self.decide(ctx, slots, index);
    }

    /// What the slot's tables say is known, and the channel has to go.
    pub(super) fn decide_deletion(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        index: u32,
        assignment: Option<Arc<Assignment>>,
    ) {
        let Some(a) = assignment else { return self.gone(ctx, slots, index) };
        let channel = &mut self.slab[index as usize];
        if a.voters == [ctx.replica()] && a.voters_out.is_empty() {
            // Its own entry is the fence: what is applied here ends the only replica.
            let last_seq = channel.last().max(channel.head.end.index);
            let command = AssignCommand::Delete { generation: a.generation, last_seq };
            let (slot, channel, waiter) = (channel.slot, channel.key.clone(), channel.waiter(index));
            if !slots.propose(ctx, slot, Command::Assign { channel, command }, waiter) {
                self.slab[index as usize].answer_deletions(ctx, Err(Refusal::Busy));
            }
            return;
        }
        if channel.controller.is_none() {
            self.take_charge(ctx, slots, index, a);
        }
        if let Some(controller) = self.slab[index as usize].controller.as_mut() {
            controller.on_wish(ctx.now.mono, Wish::Gone);
        }
        self.drive(ctx, slots, index);
    }

    /// The slot's record says that there is no such channel.
    pub(super) fn gone(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        channel.controller = None;
        channel.answer_deletions(ctx, Ok(()));
        if channel.queue.is_empty() && channel.waiting_readers.is_empty() {
            (channel.wanted, channel.facts) = (false, Facts::Unknown);
            return channel.arm(ctx, index);
        }
        // Somebody waits for what comes next.
        self.decide(ctx, slots, index);
    }

    /// The slot applied that generations up to this one are over: what this node has of them goes.
    pub fn on_deleted(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey, generation: u64) {
        // Without room it stays until somebody looks at it: whoever does learns first that it is void.
        let Some(index) = self.ensure(ctx, slots, key) else { return };
        let channel = &mut self.slab[index as usize];
        channel.void = channel.void.max(generation);
        if channel.stage == Stage::Running {
            self.end_if_void(ctx, index);
        }
    }

    pub(super) fn end_if_void(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &self.slab[index as usize];
        if (channel.has_head || channel.group.is_some()) && channel.head.generation <= channel.void {
            self.end_generation(ctx, index);
        }
    }

    /// The log in memory is nobody's any more: promises are refused, and its rows go.
    pub(super) fn end_generation(&mut self, ctx: &mut Ctx, index: u32) {
        self.lose_office(ctx, index);
        let replica = self.next_activation;
        self.next_activation += 1;
        let channel = &mut self.slab[index as usize];
        let old = core::mem::take(&mut channel.head);
        (channel.replica, channel.writes, channel.group) = (replica, 0, None);
        (channel.head_due, channel.head_written_at, channel.hint_at) = (false, 0, Instant::NEVER);
        channel.tail = super::activate::Tail::default();
        if core::mem::take(&mut channel.dirty) {
            ctx.batch().delete(Family::Raft, &keys::dirty(channel.slot, &channel.key));
        }
        if core::mem::take(&mut channel.has_head) {
            ctx.counters.generations_ended += 1;
            ctx.batch().delete(Family::Raft, &keys::head(channel.slot, &channel.key));
            let slot = channel.slot;
            self.doom(ctx, slot, old);
        }
    }

    /// The rows of a log that no head row names any more.
    fn doom(&mut self, ctx: &mut Ctx, slot: crate::ids::SlotId, old: ChannelHead) {
        ctx.batch().put(Family::Raft, &keys::doomed(slot, old.channel_no), &[]);
        ctx.persist(PersistWaiter::SyncOnly, PersistClass::Lazy);
        self.doomed.add(ctx, slot, old.channel_no);
    }
}

impl Channel {
    pub(super) fn answer_deletions(&mut self, ctx: &mut Ctx, result: Result<(), Refusal>) {
        for (home, call) in self.deletions.drain(..) {
            ctx.reply(home, Reply::Deleted { call, result });
        }
    }

    const fn waiter(&self, index: u32) -> Waiter {
        Waiter::Channel { index, activation: self.activation }
    }
}
