//! The append: one proposal of everything that is ready; then commit, acks, distribution (semantics 4.10).

use super::dedup::{Fingerprint, Stored};
use super::{Admitted, Channel, Channels, Directory, EntryPromise, Promise};
use crate::cluster::Slots;
use crate::ctx::Ctx;
use crate::event::mail::{Delivery, Reply, SendEvent};
use crate::ids::Epoch;
use crate::limits;
use crate::raft::core::{Batch, Input};
use crate::store::Record;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use wukong_proto::ReasonCode;

/// An entry that is being proposed, with what it will owe.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub record: Record,
    pub event: Box<SendEvent>,
    pub key: Option<Fingerprint>,
    pub payload_hash: u64,
}

impl Channels {
    /// End of the turn: one append per channel that has something to append and none in flight.
    pub fn flush(&mut self, ctx: &mut Ctx, slots: &mut Slots) {
        for index in core::mem::take(&mut ctx.flush_channels) {
            let Some(channel) = self.slab.get_mut(index as usize) else {
                continue;
            };
            channel.in_flush_list = false;
            if channel.serves() && !channel.appending() {
                self.append(ctx, slots, index);
            }
        }
    }

    fn append(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        let Some(group) = channel.group.as_ref() else { return };
        if channel.ready.is_empty() || !group.admits() {
            // Its timer, or the next commit, tries again.
            return;
        }
        let (epoch, first) = (group.epoch(), group.log().end().index + 1);
        channel.last_active = ctx.now.mono;
        let ready = channel.take_ready();
        let mut batch = Batch::new();
        for (seq, Admitted { mut event, key, payload_hash }) in (first..).zip(ready) {
            let record = Record { seq, epoch, ..event.take_record(ctx.now.wall) };
            batch.push(self.rows.encode(&record));
            self.staged.push_back(Staged { record, event, key, payload_hash });
        }
        let count = batch.len() as u64;
        ctx.counters.appends += 1;
        ctx.counters.appended_entries += count;
        self.slab[index as usize].appended = first + count - 1;
        self.step(ctx, slots, index, Input::Propose { ctx: first, batch });
        assert!(self.staged.is_empty(), "a group that admits takes what is proposed");
    }

    /// Everything up to the commit index is promised to its sender and handed to distribution.
    pub(super) fn commit(&mut self, ctx: &mut Ctx, index: u32) {
        let hw = self.slab[index as usize].hw();
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
        if channel.leading {
            channel.schedule(ctx, index);
        }
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

    /// An entry of this leader is in the log: its promise waits for the commit.
    pub(super) fn hold(&mut self, epoch: Epoch, seq: u64, staged: Staged) {
        let Staged { record, event, key, payload_hash } = staged;
        let delivery = Arc::new(Delivery { channel: self.key.clone(), record, origin: Some(event.conn), again: false });
        self.held.hold(epoch, seq, EntryPromise { event, key, delivery, payload_hash });
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
