//! From the queue to the append: the chain, then dedup, which may have to look on disk (semantics 4.8).
//!
//! A parked event holds back later events of its own sender; others pass. So per sender the order of the log is the
//! order of arrival (INV-42).

use super::dedup::{Fingerprint, Known, Stored, payload_hash};
use super::{Admitted, Channel, Channels, Lookup, Parked, Promise};
use crate::channel::chain::{CHANNEL_SEND_CHAIN, Flow};
use crate::ctx::{Ctx, LoadWaiter};
use crate::event::mail::SendEvent;
use crate::limits;
use crate::mutants::Mutant;
use crate::store::rows::{DedupRow, Format};
use crate::store::{Family, Found, Query, keys};
use crate::user::answer_unstored;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::{ReasonCode, Text};

/// What became of an event at the dedup step.
enum Verdict {
    /// Fresh: append it.
    Append(Admitted),
    /// Memory cannot tell: look at this row.
    Look(Admitted, Bytes),
    /// Answered, attached to an entry in flight, or refused.
    Dealt,
}

impl Channels {
    /// Admits what is queued, as far as it may go. Returns the events handled.
    pub(super) fn admit_queue(&mut self, ctx: &mut Ctx, index: u32) -> usize {
        let mut handled = 0;
        let mut queries = Vec::new();
        loop {
            let channel = &mut self.slab[index as usize];
            if channel.parked_loads >= limits::PARKED_MAX {
                // The queue waits until a load answers.
                break;
            }
            if handled >= limits::DRAIN_EVENTS_MAX {
                channel.schedule(ctx, index);
                break;
            }
            let Some(event) = channel.queue.pop_front() else {
                break;
            };
            handled += 1;
            if event.deadline <= ctx.now.mono {
                // Its owner has answered already; not storing it keeps the outcome definite.
                answer_unstored(ctx, &event, ReasonCode::SYSTEM_ERROR);
                continue;
            }
            let admitted = self.prepare(index, event);
            self.pass(ctx, index, admitted, &mut queries);
        }
        self.start_load(ctx, index, queries);
        handled
    }

    fn prepare(&self, index: u32, event: Box<SendEvent>) -> Admitted {
        let channel = &self.slab[index as usize];
        let id = (channel.slot.0, channel.no().0);
        let key = (!event.client_msg_no.is_empty())
            .then(|| self.dedup.fingerprint(id, &event.from_uid, &event.client_msg_no));
        let payload_hash = payload_hash(&event.payload);
        Admitted { event, key, payload_hash }
    }

    /// Sends one event on, or parks it: on the load being gathered, or behind its sender's earlier ones.
    fn pass(&mut self, ctx: &mut Ctx, index: u32, admitted: Admitted, queries: &mut Vec<Query>) {
        match self.dedup_step(ctx, index, admitted) {
            Verdict::Append(admitted) => {
                let channel = &mut self.slab[index as usize];
                let sender = &admitted.event.from_uid;
                if channel.parked.iter().rev().any(|p| p.admitted.event.from_uid == *sender) {
                    channel.parked.push_back(Parked { admitted, lookup: Lookup::Fresh });
                } else {
                    channel.make_ready(ctx, index, admitted);
                }
            }
            Verdict::Look(admitted, key) => {
                if ctx.mutant(Mutant::SendackDroppedOnPark) {
                    // The bug: the event is forgotten when it parks.
                    if let Some(key) = admitted.key {
                        self.dedup.abandon(key);
                    }
                    return;
                }
                queries.push(Query::Get { family: Family::Index, key });
                let channel = &mut self.slab[index as usize];
                let lookup = Lookup::Out(channel.next_load);
                channel.parked.push_back(Parked { admitted, lookup });
            }
            Verdict::Dealt => {}
        }
    }

    fn start_load(&mut self, ctx: &mut Ctx, index: u32, mut queries: Vec<Query>) {
        if queries.is_empty() {
            return;
        }
        ctx.counters.dedup_loads += queries.len() as u64;
        let channel = &mut self.slab[index as usize];
        let behind = channel.group.as_ref().is_some_and(|g| g.durable().index < g.hw());
        if behind && !ctx.mutant(Mutant::CommitTakenForDurable) {
            // Others made entries committed that are not durable here, and memory may have forgotten their keys: the load has to
            // see writes in flight, which one of index rows alone need not. This answer is not looked at.
            queries.push(Query::Get { family: Family::Raft, key: keys::dirty(channel.slot, &channel.key) });
        }
        channel.parked_loads += 1;
        let load = channel.next_load;
        channel.next_load += 1;
        ctx.load(LoadWaiter::ChannelDedup(index, channel.activation, load), queries);
    }

    fn dedup_step(&mut self, ctx: &mut Ctx, index: u32, a: Admitted) -> Verdict {
        let Some(key) = a.key else {
            return Verdict::Append(a);
        };
        match self.dedup.get(key) {
            Some(Known::Pending { payload_hash }) if payload_hash == a.payload_hash => {
                ctx.counters.dedup_hits += 1;
                self.slab[index as usize].attached.push((key, a.event));
                return Verdict::Dealt;
            }
            Some(Known::Pending { .. }) => {
                answer_unstored(ctx, &a.event, ReasonCode::IDEMPOTENCY_CONFLICT);
                return Verdict::Dealt;
            }
            Some(Known::Committed(stored)) => {
                self.answer_repeat(ctx, index, a.event, a.payload_hash, stored);
                return Verdict::Dealt;
            }
            None => {}
        }
        let channel = &self.slab[index as usize];
        let believed = (channel.keys_complete && !self.dedup.maybe_evicted(key))
            || (ctx.mutant(Mutant::DedupLruComplete) && channel.created_here)
            || (ctx.mutant(Mutant::DedupTailNotRebuilt) && !channel.created_here);
        self.dedup.begin(key, a.payload_hash);
        if believed {
            return Verdict::Append(a);
        }
        let row = keys::dedup(channel.slot, channel.no(), &a.event.from_uid, &a.event.client_msg_no);
        Verdict::Look(a, row)
    }

    /// A resend of what is already in the log: the stored id and seq, and nothing else happens (4.8.3).
    fn answer_repeat(&mut self, ctx: &mut Ctx, index: u32, event: Box<SendEvent>, hash: u64, stored: Stored) {
        if hash != stored.payload_hash {
            return answer_unstored(ctx, &event, ReasonCode::IDEMPOTENCY_CONFLICT);
        }
        ctx.counters.dedup_hits += 1;
        let promise = Promise {
            conn: event.conn,
            owed_id: event.message_id,
            deadline: event.deadline,
            message_id: stored.message_id,
            seq: stored.seq,
        };
        let channel = &mut self.slab[index as usize];
        if stored.seq > channel.hw() {
            channel.late_hits.push(promise);
        } else {
            channel.promise(ctx, promise);
        }
    }

    /// Dedup rows were read; `None` = the store could not.
    pub fn on_dedup_rows(&mut self, ctx: &mut Ctx, index: u32, activation: u64, load: u64, found: Option<Vec<Found>>) {
        let Some(channel) = self.get(index, activation) else { return };
        channel.parked_loads = channel.parked_loads.saturating_sub(1);
        let mut rows = found.unwrap_or_default().into_iter();
        for p in &mut channel.parked {
            if matches!(p.lookup, Lookup::Out(l) if l == load) {
                p.lookup = Lookup::of(rows.next());
            }
        }
        // In order per sender: one whose load is still out keeps its later ones back.
        let mut blocked: Vec<Text> = Vec::new();
        let parked = core::mem::take(&mut channel.parked);
        for p in parked {
            let sender = &p.admitted.event.from_uid;
            if blocked.contains(sender) {
                self.slab[index as usize].parked.push_back(p);
            } else if matches!(p.lookup, Lookup::Out(_)) {
                blocked.push(sender.clone());
                self.slab[index as usize].parked.push_back(p);
            } else {
                self.release(ctx, index, p);
            }
        }
        self.slab[index as usize].schedule(ctx, index);
    }

    /// One parked event of which everything is known.
    fn release(&mut self, ctx: &mut Ctx, index: u32, p: Parked) {
        let Parked { admitted: a, lookup } = p;
        match (lookup, a.key) {
            (Lookup::Fresh, _) if a.event.deadline > ctx.now.mono => {
                self.slab[index as usize].make_ready(ctx, index, a);
            }
            (Lookup::InLog(stored), Some(key)) => {
                self.remember(key, stored);
                // Repetitions attached to this one meanwhile.
                let channel = &mut self.slab[index as usize];
                let (same, other): (Vec<_>, Vec<_>) =
                    core::mem::take(&mut channel.attached).into_iter().partition(|(k, _)| *k == key);
                channel.attached = other;
                let hash = a.payload_hash;
                self.answer_repeat(ctx, index, a.event, hash, stored);
                for (_, event) in same {
                    self.answer_repeat(ctx, index, event, hash, stored);
                }
            }
            // Unreadable, or its owner has answered already: a definite no is better than a late store.
            (_, Some(key)) => self.refuse_parked(ctx, index, key, a),
            (_, None) => answer_unstored(ctx, &a.event, ReasonCode::SYSTEM_ERROR),
        }
    }

    fn refuse_parked(&mut self, ctx: &mut Ctx, index: u32, key: Fingerprint, a: Admitted) {
        self.dedup.abandon(key);
        answer_unstored(ctx, &a.event, ReasonCode::SYSTEM_ERROR);
        let channel = &mut self.slab[index as usize];
        let mut i = 0;
        while i < channel.attached.len() {
            if channel.attached[i].0 == key {
                let (_, event) = channel.attached.remove(i);
                answer_unstored(ctx, &event, ReasonCode::SYSTEM_ERROR);
            } else {
                i += 1;
            }
        }
    }

    /// Keeps a committed key in memory. When memory had to forget, all channels look on disk from now on.
    pub(super) fn remember(&mut self, key: Fingerprint, stored: Stored) {
        if self.dedup.commit(key, stored) {
            for (_, channel) in &mut self.slab {
                channel.keys_complete = false;
            }
        }
    }
}

impl Lookup {
    fn of(row: Option<Found>) -> Self {
        match row {
            Some(Found::Point(None)) => Self::Fresh,
            Some(Found::Point(Some(row))) => DedupRow::decode(&row).map_or(Self::Unreadable, |d| {
                Self::InLog(Stored { seq: d.seq, message_id: d.message_id, payload_hash: d.payload_hash })
            }),
            _ => Self::Unreadable,
        }
    }
}

impl Channel {
    fn make_ready(&mut self, ctx: &mut Ctx, index: u32, a: Admitted) {
        self.ready_bytes += a.event.payload.len();
        self.ready.push_back(a);
        self.want_flush(ctx, index);
    }

    /// Appends at the end of the turn, with whatever else is ready by then.
    pub(super) fn want_flush(&mut self, ctx: &mut Ctx, index: u32) {
        if !self.in_flush_list {
            self.in_flush_list = true;
            ctx.flush_channels.push(index);
        }
    }
}

/// What the chain says of a SEND before it is queued.
pub(super) fn refused(event: &SendEvent) -> Option<ReasonCode> {
    CHANNEL_SEND_CHAIN.iter().find_map(|stage| match (stage.run)(event) {
        Flow::Continue => None,
        Flow::Stop(reason) => Some(reason),
    })
}
