//! A snapshot of a slot that comes in (cluster-and-raft 4.15, P7): its rows wait aside until it is whole and the log begins after it;
//! then they take the place of what was applied. A crash in between leaves the old state, or is made good at boot.

use super::boot::readable;
use super::group::Told;
use super::slot::{Again, Slot, Slots, Stage};
use super::snapshot::{Ask, from_chunk};
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter};
use crate::ids::{Epoch, Position, SlotId};
use crate::limits;
use crate::mutants::Mutant;
use crate::note::Note;
use crate::output::PersistClass;
use crate::raft::core::Input;
use crate::raft::message::Snapshot;
use crate::store::rows::{Applied, Format, Hint, SnapshotRow};
use crate::store::{Family, Found, Query, keys};
use alloc::vec::Vec;
use bytes::Bytes;

/// Rows of a whole snapshot are on their way to where they belong.
#[derive(Clone, Debug)]
pub(super) struct Restoring {
    /// What will be applied then.
    base: u64,
    step: Step,
    /// The last row that was taken, as it lies aside.
    after: Option<Bytes>,
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The log's new beginning is not durable yet.
    Basing,
    /// Something under way still knows rows of before.
    Waiting,
    Writing,
}

impl Slot {
    /// Puts a chunk aside.
    pub(super) fn put_aside(&mut self, ctx: &mut Ctx, snapshot: &Snapshot, offset: u64, chunk: &Bytes, last: bool) {
        let Ok(mut rows) = from_chunk(chunk) else {
            return self.asks.push_back(Ask::Spoilt { id: snapshot.id });
        };
        if offset > 0 && ctx.mutant(Mutant::SnapshotCutShort) {
            rows.clear();
        }
        if offset == 0 {
            self.drop_aside(ctx);
        }
        for (key, row) in rows {
            ctx.batch().put(Family::Raft, &keys::snapshot_row(self.id, &key), &row);
        }
        if last {
            let whole = SnapshotRow { base: snapshot.base };
            let key = keys::single(self.id, keys::table::SNAPSHOT);
            ctx.batch().put_with(Family::Raft, &key, |out| whole.encode(out));
        }
        ctx.persist(PersistWaiter::SlotChunk(self.id.0, snapshot.id, last), PersistClass::Sync);
    }

    fn drop_aside(&self, ctx: &mut Ctx) {
        let from = keys::single(self.id, keys::table::SNAPSHOT);
        let to = keys::table_end(self.id, keys::table::SNAPSHOT_ROW);
        ctx.batch().delete_range(Family::Raft, &from, &to);
    }

    /// The log begins at the snapshot's base; what continues it may stay.
    pub(super) fn rebase(&mut self, ctx: &mut Ctx, told: &mut Told, base: Position, keep_log: bool) {
        let kept = if keep_log { base } else { Position { epoch: Epoch(u64::MAX), index: u64::MAX - 1 } };
        self.drop_log(ctx, kept);
        let hint = Hint { hw: base.index, base };
        ctx.batch().put_with(Family::Raft, &keys::single(self.id, keys::table::HINT), |out| hint.encode(out));
        // Until its rows are in place nothing is applied; what the log kept is read again then.
        self.cut_queue(0, told);
        self.stage = Stage::Loading;
        // Whatever this replica was sending when it led is not made of the rows that come now.
        self.outgoing = None;
        self.restoring = Some(Restoring { base: base.index, step: Step::Basing, after: None, more: true });
    }

    /// The base is durable: the rows follow.
    pub(super) fn restore(&mut self, base: u64) {
        self.restoring = Some(Restoring { base, step: Step::Waiting, after: None, more: true });
    }

    /// Begins as soon as nothing is under way that knows rows of before.
    pub(super) fn try_restore(&mut self, ctx: &mut Ctx) {
        if self.restoring.as_ref().is_some_and(|r| r.step == Step::Waiting) && self.is_quiet() {
            self.again.clear();
            self.overlay.clear();
            let r = self.restoring.as_mut().expect("just seen");
            r.step = Step::Writing;
            let (from, to) = (keys::single(self.id, keys::table::APPLIED), keys::applied_rows(self.id).1);
            ctx.batch().delete_range(Family::Meta, &from, &to);
            self.load_aside(ctx);
        }
    }

    pub(super) fn load_aside(&self, ctx: &mut Ctx) {
        let Some(r) = &self.restoring else { return };
        let page = Query::Range {
            family: Family::Raft,
            from: r.after.as_ref().map_or_else(|| keys::single(self.id, keys::table::SNAPSHOT_ROW), keys::after),
            to: keys::table_end(self.id, keys::table::SNAPSHOT_ROW),
            rows_max: limits::SNAPSHOT_CHUNK_ROWS.min(ctx.config.snapshot_rows),
            bytes_max: limits::SNAPSHOT_CHUNK as u32,
            reverse: false,
        };
        ctx.load(LoadWaiter::SlotAside(self.id.0), [page]);
    }

    fn on_aside(&mut self, ctx: &mut Ctx, rows: Vec<(Bytes, Bytes)>, more: bool) {
        let Some(r) = self.restoring.as_mut() else { return };
        r.more = more;
        for (key, row) in rows {
            if let Some(place) = keys::parse_snapshot_row(self.id, &key) {
                ctx.batch().put(Family::Meta, &place, &row);
            }
            r.after = Some(key);
        }
        if !more {
            let applied = Applied { index: r.base };
            let key = keys::single(self.id, keys::table::APPLIED);
            ctx.batch().put_with(Family::Meta, &key, |out| applied.encode(out));
            self.drop_aside(ctx);
        }
        ctx.persist(PersistWaiter::SlotRestored(self.id.0), PersistClass::Sync);
    }
}

impl Slots {
    /// A chunk is durable.
    pub fn on_chunk_persisted(&mut self, ctx: &mut Ctx, id: u16, snapshot: u64, last: bool) {
        self.step(ctx, id, Input::SnapshotWritten { id: snapshot, outcome: Ok(last) });
    }

    /// Rows of a snapshot to put in place.
    pub fn on_aside(&mut self, ctx: &mut Ctx, id: u16, found: Option<Vec<Found>>) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let Some(found) = readable(found) else { return slot.try_again(ctx, Again::Aside) };
        match found.into_iter().next() {
            Some(Found::Page { rows, more }) => slot.on_aside(ctx, rows, more),
            _ => self.stop_boot(ctx, id),
        }
    }

    /// They are durable.
    pub fn on_restored(&mut self, ctx: &mut Ctx, id: u16) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.restoring.as_ref().is_some_and(|r| r.more) {
            return slot.load_aside(ctx);
        }
        let Some(restored) = slot.restoring.take() else { return };
        let at_boot = slot.group.is_none();
        ctx.note(Note::SlotRestored { slot: SlotId(id), applied: restored.base, at_boot });
        ctx.counters.snapshots_restored += 1;
        if at_boot {
            return slot.begin_boot(ctx);
        }
        slot.applied = restored.base;
        self.step(ctx, id, Input::Restored);
        self.read_on(ctx, id);
    }
}
