//! The append: entries, index rows, mark and head row in one batch; then commit, acks, distribution (semantics 4.10).

use super::dedup::Stored;
use super::{Admitted, Channel, Channels, Directory, EntryPromise, Promise, Stage};
use crate::ctx::{Ctx, PersistWaiter};
use crate::event::mail::{Delivery, Reply, SendEvent};
use crate::limits;
use crate::mutants::Mutant;
use crate::output::PersistClass;
use crate::store::rows::{DedupRow, Format, Mark};
use crate::store::{Family, Record, keys};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::BytesMut;
use wukong_proto::ReasonCode;

impl Channels {
    /// End of the turn: one append per channel that has something to append and none in flight.
    pub fn flush(&mut self, ctx: &mut Ctx) {
        for index in core::mem::take(&mut ctx.flush_channels) {
            let Some(channel) = self.slab.get_mut(index as usize) else {
                continue;
            };
            channel.in_flush_list = false;
            if channel.stage == Stage::Warm && !channel.appending {
                self.append(ctx, index);
            }
        }
    }

    fn append(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        let batch = channel.take_ready();
        let owed = channel.group.mark_owed();
        if batch.is_empty() && !(owed.is_some() && channel.dirty) {
            return;
        }
        channel.last_active = ctx.now.mono;
        if let Some((epoch, at)) = owed {
            let superseded = channel.group.log.superseded_mark();
            if let Some(old) = superseded {
                ctx.batch().delete(Family::Marks, &keys::mark(channel.slot, channel.no(), old));
            }
            let key = keys::mark(channel.slot, channel.no(), epoch);
            ctx.batch().put_with(Family::Marks, &key, |out| Mark { at }.encode(out));
            channel.head.epoch = epoch;
        }
        let first = channel.group.append(batch.len() as u64);
        ctx.counters.appends += 1;
        ctx.counters.appended_entries += batch.len() as u64;
        for (seq, admitted) in (first..).zip(batch) {
            channel.write_entry(ctx, &mut self.scratch, seq, admitted);
        }
        if !channel.dirty {
            channel.dirty = true;
            ctx.batch().put(Family::Raft, &keys::dirty(channel.slot, &channel.key), &[]);
        }
        let end = channel.group.log.end().index;
        if owed.is_some() || !channel.has_head || end - channel.head_written_at >= limits::HEAD_EVERY {
            channel.write_head(ctx);
        }
        channel.appending = true;
        channel.arm_hint(ctx, index);
        ctx.persist(PersistWaiter::ChannelGroup(index), PersistClass::Sync);
        if ctx.mutant(Mutant::AckOnPersistStart) {
            channel.group.persisted();
            self.commit(ctx, index);
        }
    }

    /// The append in flight is durable.
    pub fn on_persisted(&mut self, ctx: &mut Ctx, index: u32) {
        let Some(channel) = self.slab.get_mut(index as usize) else {
            return;
        };
        channel.appending = false;
        if !ctx.mutant(Mutant::AckOnPersistStart) {
            channel.group.persisted();
        }
        if !channel.ready.is_empty() {
            channel.want_flush(ctx, index);
        }
        self.commit(ctx, index);
        self.wake_readers(ctx, index);
    }

    /// Everything up to the commit index is promised to its sender and handed to distribution.
    fn commit(&mut self, ctx: &mut Ctx, index: u32) {
        let hw = self.slab[index as usize].group.hw;
        while let Some((seq, entry)) = self.slab[index as usize].held.release(hw) {
            let EntryPromise { event, key, delivery, payload_hash } = entry;
            let message_id = event.message_id;
            if let Some(key) = key {
                self.remember(key, Stored { seq, message_id, payload_hash });
                let channel = &mut self.slab[index as usize];
                if !channel.attached.is_empty() {
                    let (same, other): (Vec<_>, Vec<_>) =
                        core::mem::take(&mut channel.attached).into_iter().partition(|(k, _)| *k == key);
                    channel.attached = other;
                    channel.promise(ctx, Promise::of(&event, message_id, seq));
                    for (_, event) in same {
                        channel.promise(ctx, Promise::of(&event, message_id, seq));
                    }
                    channel.outgoing.push_back(delivery);
                    continue;
                }
            }
            let channel = &mut self.slab[index as usize];
            channel.promise(ctx, Promise::of(&event, message_id, seq));
            channel.outgoing.push_back(delivery);
        }
        let channel = &mut self.slab[index as usize];
        if !channel.late_hits.is_empty() {
            for p in core::mem::take(&mut channel.late_hits) {
                if p.seq <= hw {
                    channel.promise(ctx, p);
                } else {
                    channel.late_hits.push(p);
                }
            }
        }
        channel.schedule(ctx, index);
    }

    /// The directory is ready: the acks that waited for it leave.
    pub(super) fn release_acks(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        while let Some(p) = channel.acks.pop_front() {
            send_ack(ctx, &p);
        }
    }
}

impl Channel {
    /// What one append may take, in order.
    fn take_ready(&mut self) -> Vec<Admitted> {
        let (mut n, mut bytes) = (0, 0);
        for a in &self.ready {
            bytes += a.event.payload.len() + 256;
            if n > 0 && (n >= limits::APPEND_ENTRIES_MAX || bytes > limits::APPEND_BYTES_MAX) {
                break;
            }
            n += 1;
        }
        let batch: Vec<Admitted> = self.ready.drain(..n).collect();
        self.ready_bytes -= batch.iter().map(|a| a.event.payload.len()).sum::<usize>();
        batch
    }

    fn write_entry(&mut self, ctx: &mut Ctx, scratch: &mut BytesMut, seq: u64, admitted: Admitted) {
        let Admitted { mut event, key, payload_hash } = admitted;
        let record = Record { seq, epoch: self.group.epoch, ..event.take_record(ctx.now.wall) };
        let (slot, no) = (self.slot, self.head.channel_no);
        let batch = ctx.batch();
        batch.put_with(Family::Log, &keys::log(slot, no, seq), |out| record.encode(out));
        if key.is_some() {
            keys::dedup_into(scratch, slot, no, &record.from_uid, &record.client_msg_no);
            let row = DedupRow { seq, message_id: record.message_id, payload_hash };
            batch.put_with(Family::Index, scratch, |out| row.encode(out));
        }
        let place = crate::store::rows::Place { channel_no: no, seq };
        batch.put_with(Family::Index, &keys::message_id(slot, record.message_id), |out| place.encode(out));
        keys::sender_into(scratch, slot, no, &record.from_uid);
        let own = crate::store::rows::Counter { value: seq };
        batch.put_with(Family::Index, scratch, |out| own.encode(out));
        let delivery = Arc::new(Delivery { channel: self.key.clone(), record, origin: Some(event.conn), again: false });
        let (epoch, entry) = (self.group.epoch, EntryPromise { event, key, delivery, payload_hash });
        self.held.hold(epoch, seq, entry);
    }

    /// The head row, with the log's end as of this batch.
    pub(super) fn write_head(&mut self, ctx: &mut Ctx) {
        self.head.end = self.group.log.end();
        self.head.hw = self.group.hw;
        self.head.distributed = self.distributed;
        self.has_head = true;
        self.head_written_at = self.head.end.index;
        let head = &self.head;
        ctx.batch().put_with(Family::Raft, &keys::head(self.slot, &self.key), |out| head.encode(out));
    }

    /// An ack whose entry is committed: it leaves now, or once both participants see the conversation (INV-34).
    pub(super) fn promise(&mut self, ctx: &mut Ctx, p: Promise) {
        if self.directory == Directory::Ready {
            send_ack(ctx, &p);
        } else {
            self.acks.push_back(p);
        }
    }
}

impl Promise {
    const fn of(event: &SendEvent, message_id: i64, seq: u64) -> Self {
        Self { conn: event.conn, owed_id: event.message_id, deadline: event.deadline, message_id, seq }
    }
}

fn send_ack(ctx: &mut Ctx, p: &Promise) {
    let ack = Reply::SendAck {
        conn: p.conn,
        owed_id: p.owed_id,
        message_id: p.message_id,
        seq: p.seq,
        reason: ReasonCode::SUCCESS,
    };
    ctx.reply(p.conn.shard, ack);
}
