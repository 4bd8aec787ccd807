//! Hydration of a slot: hard state, log shape, entries not yet applied; then the scan for dirty channels.

use super::command::Command;
use super::slot::{Again, Slot, Slots, Stage, Waiter};
use crate::ctx::{Ctx, LoadWaiter};
use crate::error::StoreFault;
use crate::ids::{ChannelKey, Epoch, SlotId, StoreId};
use crate::limits;
use crate::note::Note;
use crate::raft::Log;
use crate::raft::config::Config;
use crate::raft::core::{GroupConfig, GroupCore, Input, Mode, Stored};
use crate::store::rows::{Applied, Counter, Damaged, Format, HardState, Hint, Mark, Replica, SnapshotRow};
use crate::store::{Family, Found, Query, keys};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

const ENTRIES_PAGE: u32 = 1_000;
const DIRTY_PAGE: u32 = 256;
const PAGE_BYTES: u32 = 1 << 20;

impl Slot {
    pub(super) fn begin_boot(&self, ctx: &mut Ctx) {
        use keys::table::{APPLIED, ENTRY, HARD, HINT, MARK, NEXT_CHANNEL_NO, SNAPSHOT};
        let get = |family, table| Query::Get { family, key: keys::single(self.id, table) };
        let range = |table, rows_max, reverse| Query::Range {
            family: Family::Raft,
            from: keys::single(self.id, table),
            to: keys::table_end(self.id, table),
            rows_max,
            bytes_max: 16 * PAGE_BYTES,
            reverse,
        };
        ctx.load(
            LoadWaiter::SlotBoot(self.id.0),
            [
                get(Family::Raft, HARD),
                get(Family::Raft, HINT),
                get(Family::Raft, NEXT_CHANNEL_NO),
                get(Family::Meta, APPLIED),
                get(Family::Raft, SNAPSHOT),
                range(ENTRY, 1, true),
                range(MARK, limits::MARKS_MAX, false),
            ],
        );
    }

    fn hydrate(&mut self, ctx: &mut Ctx, found: Vec<Found>) -> Result<(), Damaged> {
        let mut found = found.into_iter();
        let hard: HardState = point(found.next())?;
        let hint: Hint = point(found.next())?;
        let next: Counter = point(found.next())?;
        let applied: Applied = point(found.next())?;
        let aside: SnapshotRow = point(found.next())?;
        if applied.index < hint.base.index {
            // Stopped after the log's beginning was written, and before the snapshot's rows were in place.
            if aside.base != hint.base {
                return Err(Damaged);
            }
            self.restore(aside.base.index);
            return Ok(());
        }
        let last = match found.next() {
            Some(Found::Page { rows, .. }) => rows.first().map_or(Some(0), |(k, _)| index(k)).ok_or(Damaged)?,
            _ => return Err(Damaged),
        };
        let Some(Found::Page { rows, .. }) = found.next() else {
            return Err(Damaged);
        };
        let mut marks = Vec::with_capacity(rows.len());
        for (key, row) in rows {
            marks.push((Epoch(index(&key).ok_or(Damaged)?), Mark::decode(&row)?.at));
        }
        let log = Log::recovered(hint.base, marks, last);
        let hw = hint.hw.max(applied.index).min(log.end().index);
        let voters = ctx.config.voters(ctx.store);
        let voted_for = (hard.voted_for.0 > 0).then(|| {
            // A vote for a store that is no member any more still binds: nobody else gets it in this epoch.
            let gone = Replica { node: hard.voted_for, store: StoreId(0) };
            voters.iter().copied().find(|r| r.node == hard.voted_for).unwrap_or(gone)
        });
        let stored = Stored {
            epoch: hard.epoch.max(log.end().epoch),
            voted_for,
            log,
            hw,
            distributed: 0,
            tail: Vec::new(),
            configs: alloc::vec![(0, Arc::new(Config::of(voters)))],
            snapshot: None,
            damaged: false,
        };
        let config = GroupConfig { seed: ctx.jitter(), ..ctx.group_config(Mode::Elected) };
        self.group = Some(Box::new(GroupCore::new(config, stored, ctx.now.mono)));
        self.applied = applied.index;
        self.next_channel_no = next.value.max(1);
        Ok(())
    }

    pub(super) fn load_entries(&mut self, ctx: &mut Ctx, from: u64) {
        self.entries_from = from;
        self.cut = false;
        ctx.load(
            LoadWaiter::SlotEntries(self.id.0, from),
            [Query::Range {
                family: Family::Raft,
                from: keys::slot_entry(self.id, from),
                to: keys::table_end(self.id, keys::table::ENTRY),
                rows_max: ENTRIES_PAGE,
                bytes_max: PAGE_BYTES,
                reverse: false,
            }],
        );
    }

    /// The last entry that is applied or queued.
    fn queued(&self) -> u64 {
        self.queue.back().map_or(self.applied, |p| p.index)
    }

    /// Queues a page of entries, as far as they are still those of the log: a leader may have cut some since.
    fn queue_entries(&mut self, ctx: &mut Ctx, found: Vec<Found>) -> Result<(), Damaged> {
        let Some(Found::Page { rows, .. }) = found.into_iter().next() else {
            return Err(Damaged);
        };
        let Some(end) = self.group.as_ref().map(|g| g.log().end().index) else { return Err(Damaged) };
        let before = self.queued();
        for (key, row) in rows {
            let index = index(&key).ok_or(Damaged)?;
            let (epoch, command) = Command::from_entry(&row)?;
            let known = self.group.as_ref().map(|g| g.log().epoch_of(index));
            if index > end || index != self.queued() + 1 || known != Some(epoch) {
                break;
            }
            self.enqueue(ctx, index, command, Waiter::Nobody);
        }
        if self.queued() > before || end <= before || self.cut { Ok(()) } else { Err(Damaged) }
    }

    /// Channels that may owe distribution: from the start of the table, or after the last key of the page before.
    pub(super) fn begin_dirty_scan(&mut self, ctx: &mut Ctx, after: Option<Bytes>) {
        let from = after.as_ref().map_or_else(|| keys::single(self.id, keys::table::DIRTY), keys::after);
        self.dirty_after = after;
        ctx.load(
            LoadWaiter::SlotDirty(self.id.0),
            [Query::Range {
                family: Family::Raft,
                from,
                to: keys::table_end(self.id, keys::table::DIRTY),
                rows_max: DIRTY_PAGE,
                bytes_max: PAGE_BYTES,
                reverse: false,
            }],
        );
    }
}

impl Slots {
    /// Everything is read: the replica takes part. A sole voter has nobody to wait for, and stands at once.
    fn run(&mut self, ctx: &mut Ctx, id: u16) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.stage = Stage::Running;
            slot.apply(ctx, &mut self.done);
            if slot.deadline() <= ctx.now.mono {
                self.step(ctx, id, Input::Time);
            } else {
                slot.arm(ctx);
            }
        }
    }

    pub(super) fn stop_boot(&mut self, ctx: &mut Ctx, id: u16) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.stage = Stage::Stopped;
        }
        self.after_step(ctx, id);
        ctx.note(Note::SlotStopped {
            slot: SlotId(id),
            why: "its stored state is damaged; restore it from a replica or a backup",
        });
    }

    pub fn on_boot_rows(&mut self, ctx: &mut Ctx, id: u16, found: Option<Vec<Found>>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let Some(found) = readable(found) else { return slot.try_again(ctx, Again::Boot) };
        if slot.hydrate(ctx, found).is_err() {
            return self.stop_boot(ctx, id);
        }
        if slot.restoring.is_some() {
            return slot.try_restore(ctx);
        }
        self.read_on(ctx, id);
    }

    /// Queues the entries that are not applied; then the replica's owner takes part.
    pub(super) fn read_on(&mut self, ctx: &mut Ctx, id: u16) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let next = slot.queued() + 1;
        if next <= slot.group.as_ref().map_or(0, |g| g.log().end().index) {
            slot.load_entries(ctx, next);
        } else {
            self.run(ctx, id);
        }
    }

    pub fn on_entries(&mut self, ctx: &mut Ctx, id: u16, from: u64, found: Option<Vec<Found>>) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.stage == Stage::Stopped || slot.restoring.is_some() || from != slot.entries_from {
            return;
        }
        let Some(found) = readable(found) else { return slot.try_again(ctx, Again::Entries) };
        match slot.queue_entries(ctx, found) {
            Ok(()) => self.read_on(ctx, id),
            Err(Damaged) => self.stop_boot(ctx, id),
        }
    }

    /// A page of dirty channels to activate.
    pub fn on_dirty(&mut self, ctx: &mut Ctx, id: u16, found: Option<Vec<Found>>) -> Vec<ChannelKey> {
        let Some(found) = readable(found) else {
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.try_again(ctx, Again::Dirty);
            }
            return Vec::new();
        };
        let Some(Found::Page { rows, more }) = found.into_iter().next() else {
            // What these channels owe is unknown: better to serve nothing of this slot than to forget it.
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.stage = Stage::Stopped;
            }
            ctx.note(Note::SlotStopped { slot: SlotId(id), why: "its list of dirty channels cannot be read" });
            return Vec::new();
        };
        if more && let (Some(slot), Some((last, _))) = (self.slots.get_mut(&id), rows.last()) {
            slot.begin_dirty_scan(ctx, Some(last.clone()));
        }
        rows.iter().filter_map(|(key, _)| keys::parse_channel(key)).collect()
    }
}

/// What a load found, unless the store could not read just now.
pub(super) fn readable(found: Option<Vec<Found>>) -> Option<Vec<Found>> {
    found.filter(|f| !f.iter().any(|f| matches!(f, Found::Unreadable(StoreFault::Io | StoreFault::Full))))
}

fn point<T: Format + Default>(found: Option<Found>) -> Result<T, Damaged> {
    match found {
        Some(Found::Point(Some(row))) => T::decode(&row),
        Some(Found::Point(None)) => Ok(T::default()),
        _ => Err(Damaged),
    }
}

/// The last eight bytes of a slot's entry or mark key.
pub(super) fn index(key: &Bytes) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(3..11)?.try_into().ok()?))
}
