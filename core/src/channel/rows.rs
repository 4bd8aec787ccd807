//! What a write of the replica means in rows: the log, its indexes, marks, the head row and the dirty row (docs/storage.md).

use super::dedup::payload_hash;
use super::{Channel, Channels};
use crate::ctx::Ctx;
use crate::ids::Epoch;
use crate::limits;
use crate::mutants::Mutant;
use crate::raft::core::Op;
use crate::raft::message::{Body, Entry, Item};
use crate::store::rows::{Counter, Damaged, DedupRow, Format, Mark, Place};
use crate::store::{Family, Record, keys};
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};

/// Rows of entries, cut from chunks that they share.
#[derive(Clone, Debug, Default)]
pub(super) struct RowChunk {
    row: Vec<u8>,
    chunk: BytesMut,
}

impl RowChunk {
    pub fn encode(&mut self, record: &Record) -> Bytes {
        self.row.clear();
        record.encode(&mut self.row);
        if self.chunk.capacity() < self.row.len() {
            self.chunk = BytesMut::with_capacity(limits::FRAME_CHUNK.max(self.row.len()));
        }
        self.chunk.extend_from_slice(&self.row);
        self.chunk.split().freeze()
    }
}

impl Channels {
    /// # Errors
    /// The leader sent what cannot be a message of this channel, or asks for what this version does not do.
    pub(super) fn write(&mut self, ctx: &mut Ctx, index: u32, op: Op) -> Result<(), Damaged> {
        let channel = &mut self.slab[index as usize];
        match op {
            Op::Hard { .. } => channel.head_due = true,
            Op::Append(items) => {
                for item in items {
                    self.append_item(ctx, index, item)?;
                }
            }
            Op::Truncate(keep) => {
                let cut = channel.group.as_mut().map(|g| g.take_cut()).unwrap_or_default();
                for entry in &cut {
                    channel.unwrite(ctx, &mut self.scratch, entry)?;
                }
                let (slot, no) = (channel.slot, channel.no());
                let (from, to) = (keys::log(slot, no, keep.index + 1), keys::log(slot, no, u64::MAX));
                ctx.batch().delete_range(Family::Log, &from, &to);
                let (from, to) = (keys::mark(slot, no, Epoch(keep.epoch.0 + 1)), keys::mark(slot, no, Epoch(u64::MAX)));
                ctx.batch().delete_range(Family::Marks, &from, &to);
                channel.head_due = true;
            }
            Op::Hint { .. } => {
                channel.head_due = true;
                if core::mem::take(&mut channel.dirty) {
                    ctx.batch().delete(Family::Raft, &keys::dirty(channel.slot, &channel.key));
                }
            }
            Op::Rebase { .. } | Op::Compact { .. } => return Err(Damaged),
        }
        Ok(())
    }

    fn append_item(&mut self, ctx: &mut Ctx, index: u32, item: Item) -> Result<(), Damaged> {
        let channel = &mut self.slab[index as usize];
        let entry = match item {
            Item::Mark { epoch, at } => {
                let key = keys::mark(channel.slot, channel.no(), epoch);
                ctx.batch().put_with(Family::Marks, &key, |out| Mark { at }.encode(out));
                channel.head_due = true;
                return Ok(());
            }
            Item::Entry(entry) => entry,
        };
        let Body::Data(row) = &entry.body else { return Err(Damaged) };
        if !channel.dirty {
            channel.dirty = true;
            ctx.batch().put(Family::Raft, &keys::dirty(channel.slot, &channel.key), &[]);
        }
        channel.head_due |= !channel.has_head || entry.index - channel.head_written_at >= limits::HEAD_EVERY;
        channel.arm_hint(ctx);
        match self.staged.pop_front() {
            Some(staged) => {
                let hash = staged.key.is_some().then_some(staged.payload_hash);
                channel.index_rows(ctx, &mut self.scratch, entry.index, row, &staged.record, hash);
                channel.hold(entry.epoch, entry.index, staged);
            }
            None => {
                let record = Record::decode(entry.index, row)?;
                if record.epoch != entry.epoch {
                    return Err(Damaged);
                }
                let keyed = !record.client_msg_no.is_empty() && !ctx.mutant(Mutant::FollowerIndexMissing);
                let hash = keyed.then(|| payload_hash(&record.payload));
                channel.index_rows(ctx, &mut self.scratch, entry.index, row, &record, hash);
                (channel.followed, channel.keys_complete) = (true, false);
            }
        }
        Ok(())
    }
}

impl Channel {
    /// The log row and what is found by it. `hash` is that of the payload, for entries that can be repeated.
    fn index_rows(
        &self,
        ctx: &mut Ctx,
        scratch: &mut BytesMut,
        seq: u64,
        row: &Bytes,
        record: &Record,
        hash: Option<u64>,
    ) {
        let (slot, no) = (self.slot, self.no());
        let batch = ctx.batch();
        batch.put(Family::Log, &keys::log(slot, no, seq), row);
        if let Some(payload_hash) = hash {
            keys::dedup_into(scratch, slot, no, &record.from_uid, &record.client_msg_no);
            let row = DedupRow { seq, message_id: record.message_id, payload_hash };
            batch.put_with(Family::Index, scratch, |out| row.encode(out));
        }
        let place = Place { channel_no: no, seq };
        batch.put_with(Family::Index, &keys::message_id(slot, record.message_id), |out| place.encode(out));
        keys::sender_into(scratch, slot, no, &record.from_uid);
        batch.put_with(Family::Index, scratch, |out| Counter { value: seq }.encode(out));
    }

    /// Takes back what [`Self::index_rows`] wrote of an entry that was cut. Whoever sent it has no ack, and will send it again: that
    /// restores its own last seq.
    fn unwrite(&self, ctx: &mut Ctx, scratch: &mut BytesMut, entry: &Entry) -> Result<(), Damaged> {
        let Body::Data(row) = &entry.body else { return Err(Damaged) };
        let record = Record::decode(entry.index, row)?;
        let (slot, no) = (self.slot, self.no());
        let keep_dedup = ctx.mutant(Mutant::TruncateKeepsDedupRows);
        let batch = ctx.batch();
        if !keep_dedup {
            keys::dedup_into(scratch, slot, no, &record.from_uid, &record.client_msg_no);
            batch.delete(Family::Index, scratch);
        }
        batch.delete(Family::Index, &keys::message_id(slot, record.message_id));
        keys::sender_into(scratch, slot, no, &record.from_uid);
        batch.delete(Family::Index, scratch);
        Ok(())
    }

    /// The head row, with the log's end as of this batch.
    pub(super) fn write_head(&mut self, ctx: &mut Ctx) {
        self.head_due = false;
        let Some(group) = self.group.as_ref() else { return };
        self.head.epoch = group.epoch();
        self.head.end = group.log().end();
        self.head.hw = group.hw();
        self.head.distributed = group.distributed();
        self.has_head = true;
        self.head_written_at = self.head.end.index;
        let head = &self.head;
        ctx.batch().put_with(Family::Raft, &keys::head(self.slot, &self.key), |out| head.encode(out));
    }
}
