//! Rows of logs that belong to nobody any more go a page at a time, so that a large log delays nobody. What has to go is a row
//! itself: a process that starts goes on (docs/storage.md).

use super::Channels;
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter, Timer};
use crate::ids::{ChannelNo, Epoch, SlotId, shard_of};
use crate::limits;
use crate::output::PersistClass;
use crate::store::{Family, Found, Query, Record, keys};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;

/// What has to go, oldest first. One page is read at a time.
#[derive(Clone, Debug)]
pub(super) struct Doomed {
    logs: VecDeque<(SlotId, ChannelNo)>,
    /// Slots whose list is to be read: at the start, and where it was too long.
    lists: VecDeque<SlotId>,
    reading: Option<Reading>,
    timer_at: Instant,
}

/// The page that is being read.
#[derive(Clone, Copy, Debug)]
enum Reading {
    Log(SlotId, ChannelNo),
    List(SlotId),
}

impl Default for Doomed {
    fn default() -> Self {
        Self { logs: VecDeque::new(), lists: VecDeque::new(), reading: None, timer_at: Instant::NEVER }
    }
}

impl Doomed {
    pub fn add(&mut self, ctx: &mut Ctx, slot: SlotId, no: ChannelNo) {
        self.logs.push_back((slot, no));
        self.go_on(ctx);
    }

    fn go_on(&mut self, ctx: &mut Ctx) {
        if self.reading.is_some() || self.timer_at != Instant::NEVER {
            return;
        }
        let (reading, family, from, to) = match (self.logs.front().copied(), self.lists.front().copied()) {
            (Some((slot, no)), _) => {
                let bound = |seq| Bytes::copy_from_slice(&keys::log(slot, no, seq));
                (Reading::Log(slot, no), Family::Log, bound(0), bound(u64::MAX))
            }
            (None, Some(slot)) => {
                use keys::table::DOOMED;
                (Reading::List(slot), Family::Raft, keys::single(slot, DOOMED), keys::table_end(slot, DOOMED))
            }
            (None, None) => return,
        };
        let (rows_max, bytes_max) = (limits::PURGE_ROWS, limits::APPEND_BYTES_MAX as u32);
        self.reading = Some(reading);
        ctx.load(LoadWaiter::Doomed, [Query::Range { family, from, to, rows_max, bytes_max, reverse: false }]);
    }

    fn on_rows(&mut self, ctx: &mut Ctx, found: Option<Vec<Found>>) {
        let Some(reading) = self.reading.take() else { return };
        let Some(Found::Page { rows, more }) = found.and_then(|f| f.into_iter().next()) else {
            return ctx.arm(Timer::Doomed, &mut self.timer_at, ctx.now.mono + limits::READ_RETRY);
        };
        match reading {
            Reading::Log(slot, no) => {
                delete_page(ctx, slot, no, &rows, more);
                if !more {
                    self.logs.pop_front();
                }
            }
            Reading::List(slot) => {
                // Those that were added meanwhile are there already.
                let listed = rows.iter().filter_map(|(key, _)| Some((slot, keys::parse_doomed(key)?)));
                let fresh: Vec<_> = listed.filter(|log| !self.logs.contains(log)).collect();
                self.logs.extend(fresh);
                if !more {
                    self.lists.pop_front();
                }
            }
        }
        self.go_on(ctx);
    }
}

/// A page of a log with what is found by message ids; after the last one all that is keyed by the log's number.
fn delete_page(ctx: &mut Ctx, slot: SlotId, no: ChannelNo, rows: &[(Bytes, Bytes)], more: bool) {
    let batch = ctx.batch();
    for (key, row) in rows {
        // Of a damaged row the id is not known: what finds it finds nothing.
        if let Some(record) = keys::parse_log_seq(key).and_then(|seq| Record::decode(seq, row).ok()) {
            batch.delete(Family::Index, &keys::message_id(slot, record.message_id));
        }
    }
    let last = rows.last().and_then(|(key, _)| keys::parse_log_seq(key)).filter(|_| more);
    let end = last.map_or(u64::MAX, |seq| seq + 1);
    batch.delete_range(Family::Log, &keys::log(slot, no, 0), &keys::log(slot, no, end));
    if !more {
        let (from, to) = (keys::mark(slot, no, Epoch(0)), keys::mark(slot, no, Epoch(u64::MAX)));
        batch.delete_range(Family::Marks, &from, &to);
        for table in [keys::table::DEDUP, keys::table::SENDER] {
            let (from, to) = keys::index_of(slot, table, no);
            batch.delete_range(Family::Index, &from, &to);
        }
        batch.delete(Family::Raft, &keys::doomed(slot, no));
    }
    ctx.persist(PersistWaiter::SyncOnly, PersistClass::Lazy);
}

impl Channels {
    /// Looks for what an earlier process left.
    pub fn boot(&mut self, ctx: &mut Ctx) {
        let mine = (0..ctx.config.slots).map(SlotId).filter(|s| shard_of(*s, ctx.config.shards) == ctx.me());
        self.doomed.lists = mine.collect();
        self.doomed.go_on(ctx);
    }

    pub fn on_doomed_rows(&mut self, ctx: &mut Ctx, found: Option<Vec<Found>>) {
        self.doomed.on_rows(ctx, found);
    }

    /// The store could not read: perhaps it can now.
    pub fn on_doomed_timer(&mut self, ctx: &mut Ctx) {
        self.doomed.timer_at = Instant::NEVER;
        self.doomed.go_on(ctx);
    }
}
