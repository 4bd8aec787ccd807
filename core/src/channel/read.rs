//! Reads of a channel's log at its authority: committed entries only (semantics 6.4, 6.6).

use super::{Channels, Stage};
use crate::cluster::Slots;
use crate::ctx::{Ctx, LoadWaiter};
use crate::error::{Refusal, StoreFault};
use crate::event::mail::Reply;
use crate::ids::{ChannelKey, ChannelNo, ShardId, SlotId, slot_of};
use crate::limits;
use crate::map::BTreeMap;
use crate::raft::core::Input;
use crate::store::rows::{Assignment, ChannelHead, Counter, Format};
use crate::store::{Family, Found, Query, Record, keys};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

/// What a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The window of semantics 6.6; `limit` already clamped to 1..=10,000.
    Window { start: u64, end: u64, limit: u64, up: bool },
    /// The newest `count` messages with seq ≥ `from`, and the last own seq of `uid`.
    Newest { from: u64, count: u64, uid: Text },
}

/// A read on its way.
#[derive(Clone, Debug)]
pub struct ReadJob {
    /// The call it belongs to, at its home shard, and which part of it.
    pub home: ShardId,
    pub call: u64,
    pub part: u32,
    pub channel: ChannelKey,
    pub want: Want,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    pub result: Result<(), Refusal>,
    /// Last committed seq.
    pub last: u64,
    /// Highest own seq (of `Want::Newest`).
    pub own_last: u64,
    /// Ascending.
    pub records: Vec<Record>,
    /// The window reached its limit, in messages or bytes.
    pub full: bool,
    /// Seqs looked at, hidden ones included; 0 = none.
    pub scanned: (u64, u64),
}

#[derive(Clone, Debug)]
enum Step {
    Head,
    Rows { no: ChannelNo, last: u64, limit: u64 },
}

#[derive(Clone, Debug)]
struct Reading {
    job: Box<ReadJob>,
    step: Step,
}

/// Reads whose loads are in flight.
#[derive(Clone, Debug, Default)]
pub struct Reads {
    reading: BTreeMap<u64, Reading>,
    next: u64,
}

/// The seqs to read, inclusive, for a log that ends at `last`; `None` = nothing (semantics 6.6).
#[must_use]
pub fn window(start: u64, end: u64, limit: u64, up: bool, last: u64) -> Option<(u64, u64, bool)> {
    let range = if last == 0 {
        return None;
    } else if start == 0 && end == 0 {
        (last.saturating_sub(limit - 1).max(1), last, true)
    } else if up {
        let hi = if end == 0 || end > last { last } else { end - 1 };
        let lo = start.max(1);
        (lo, hi.min(lo.saturating_add(limit - 1)), false)
    } else if end > start || start == 0 {
        return None;
    } else {
        let hi = start.min(last);
        (hi.saturating_sub(limit - 1).max(end.saturating_add(1)), hi, true)
    };
    (range.0 <= range.1).then_some(range)
}

fn empty(result: Result<(), Refusal>) -> ReadAnswer {
    ReadAnswer { result, last: 0, own_last: 0, records: Vec::new(), full: false, scanned: (0, 0) }
}

fn answer(ctx: &mut Ctx, job: &ReadJob, answer: ReadAnswer) {
    ctx.reply(job.home, Reply::ReadDone { call: job.call, part: job.part, answer: Box::new(answer) });
}

impl Channels {
    /// A read arrived at the authority.
    pub fn on_read(&mut self, ctx: &mut Ctx, slots: &mut Slots, job: Box<ReadJob>) {
        let slot = slot_of(&job.channel.id, ctx.config.slots);
        // With others that might lead, only the group can say what is committed.
        let alone = ctx.config.replicas.len() <= 1;
        if self.by_key.contains_key(&job.channel) || !alone {
            return match self.want(ctx, slots, &job.channel) {
                Some(index) => self.read_warm(ctx, slots, index, *job),
                None => answer(ctx, &job, empty(Err(Refusal::Busy))),
            };
        }
        if !slots.leads(slot) {
            return answer(ctx, &job, empty(Err(Refusal::Busy)));
        }
        let ticket = self.reads.next;
        self.reads.next += 1;
        let get = |family, key| Query::Get { family, key };
        // The slot's record, as applied, says whether the log is still one.
        let record = keys::assignment(slot, &job.channel);
        slots.begin_read(slot, &record);
        let rows = [
            get(Family::Raft, keys::head(slot, &job.channel)),
            get(Family::Raft, keys::dirty(slot, &job.channel)),
            get(Family::Meta, record),
        ];
        ctx.load(LoadWaiter::Read(ticket), rows);
        self.reads.reading.insert(ticket, Reading { job, step: Step::Head });
    }

    /// The channel is in memory: its group confirms what is committed.
    fn read_warm(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, job: ReadJob) {
        let channel = &mut self.slab[index as usize];
        if channel.stage == Stage::Stopped {
            return answer(ctx, &job, empty(Err(Refusal::Store(StoreFault::Corrupt))));
        }
        if !channel.leading {
            return channel.waiting_readers.push(job);
        }
        let number = channel.next_read;
        channel.next_read += 1;
        channel.confirming.push_back((number, job));
        self.step(ctx, slots, index, Input::Read { ctx: number });
    }

    /// The group answered a read: it may be served, or not yet.
    pub(super) fn on_confirmed(&mut self, ctx: &mut Ctx, index: u32, number: u64, confirmed: bool) {
        let channel = &mut self.slab[index as usize];
        let Some(at) = channel.confirming.iter().position(|(n, _)| *n == number) else { return };
        let Some((_, job)) = channel.confirming.remove(at) else { return };
        if !confirmed {
            // The epoch is not committed yet, or nobody else was heard: tried again when something moves.
            return channel.waiting_readers.push(job);
        }
        let (slot, no, last) = (channel.slot, channel.no(), channel.hw());
        self.read_rows(ctx, slot, no, last, Box::new(job));
    }

    pub(super) fn wake_readers(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        if !self.slab[index as usize].leading {
            return;
        }
        for job in core::mem::take(&mut self.slab[index as usize].waiting_readers) {
            self.read_warm(ctx, slots, index, job);
        }
    }

    pub(super) fn fail_readers(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        let refusal = if channel.stage == Stage::Stopped { Refusal::Store(StoreFault::Corrupt) } else { Refusal::Busy };
        let confirming = core::mem::take(&mut channel.confirming).into_iter().map(|(_, job)| job);
        for job in core::mem::take(&mut channel.waiting_readers).into_iter().chain(confirming) {
            answer(ctx, &job, empty(Err(refusal)));
        }
    }

    fn read_rows(&mut self, ctx: &mut Ctx, slot: SlotId, no: ChannelNo, last: u64, job: Box<ReadJob>) {
        let (span, limit, own) = match &job.want {
            Want::Window { start, end, limit, up } => (window(*start, *end, *limit, *up, last), *limit, None),
            Want::Newest { from, count, uid } => {
                let lo = last.saturating_sub(count.saturating_sub(1)).max(*from).max(1);
                ((lo <= last && *count > 0).then_some((lo, last, true)), *count, Some(keys::sender(slot, no, uid)))
            }
        };
        let Some((lo, hi, reverse)) = span else {
            let mut nothing = empty(Ok(()));
            nothing.last = last;
            return answer(ctx, &job, nothing);
        };
        let rows = Query::Range {
            family: Family::Log,
            from: Bytes::copy_from_slice(&keys::log(slot, no, lo)),
            to: Bytes::copy_from_slice(&keys::log(slot, no, hi + 1)),
            rows_max: limit.min(u64::from(u32::MAX)) as u32,
            bytes_max: limits::SYNC_BYTES_MAX,
            reverse,
        };
        let ticket = self.reads.next;
        self.reads.next += 1;
        let own = own.map(|key| Query::Get { family: Family::Index, key });
        ctx.load(LoadWaiter::Read(ticket), core::iter::once(rows).chain(own));
        self.reads.reading.insert(ticket, Reading { job, step: Step::Rows { no, last, limit } });
    }

    /// A load of a read answered; `None` = the store could not.
    pub fn on_read_rows(&mut self, ctx: &mut Ctx, slots: &mut Slots, ticket: u64, found: Option<Vec<Found>>) {
        let Some(Reading { job, step }) = self.reads.reading.remove(&ticket) else {
            return;
        };
        let slot = slot_of(&job.channel.id, ctx.config.slots);
        let record = matches!(step, Step::Head).then(|| {
            let loaded = found
                .as_ref()
                .and_then(|f| if let Some(Found::Point(row)) = f.get(2) { Some(row.clone()) } else { None });
            slots.read_done(slot, &keys::assignment(slot, &job.channel), loaded)
        });
        let Some(found) = found else {
            return answer(ctx, &job, empty(Err(Refusal::Store(StoreFault::Io))));
        };
        match step {
            Step::Head => self.on_read_head(ctx, slots, job, &found, record.flatten().as_ref()),
            // Deleted meanwhile: perhaps not all of it was there any more.
            Step::Rows { no, .. } if self.is_another(&job.channel, no) => answer(ctx, &job, empty(Err(Refusal::Busy))),
            Step::Rows { last, limit, .. } => {
                let result = decode_rows(found, last, limit, ctx.now.wall.0);
                if let Some(next) = result.as_ref().and_then(|a| beyond_hidden(&job, a)) {
                    return self.on_read(ctx, slots, next);
                }
                answer(ctx, &job, result.unwrap_or_else(|| empty(Err(Refusal::Store(StoreFault::Corrupt)))));
            }
        }
    }

    /// The channel's log is not that of this number.
    fn is_another(&self, key: &ChannelKey, no: ChannelNo) -> bool {
        let channel = self.by_key.get(key).map(|i| &self.slab[*i as usize]);
        channel.is_some_and(|c| c.head_known && c.no() != no)
    }

    fn on_read_head(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        job: Box<ReadJob>,
        found: &[Found],
        record: Option<&Bytes>,
    ) {
        // Someone may have activated the channel meanwhile; what the load saw is then too old.
        if self.by_key.contains_key(&job.channel) {
            return self.on_read(ctx, slots, job);
        }
        match found {
            // Never used: empty, and nothing is created by looking.
            [Found::Point(None), ..] => answer(ctx, &job, empty(Ok(()))),
            [Found::Point(Some(head)), Found::Point(None), _] => {
                let void = record.map(Assignment::decode).transpose().map(|a| a.map_or(0, |a| a.void()));
                match (ChannelHead::decode(head), void) {
                    (Ok(head), Ok(void)) if head.generation <= void => answer(ctx, &job, empty(Ok(()))),
                    (Ok(head), Ok(_)) => {
                        let slot = slot_of(&job.channel.id, ctx.config.slots);
                        self.read_rows(ctx, slot, head.channel_no, head.end.index, job);
                    }
                    _ => answer(ctx, &job, empty(Err(Refusal::Store(StoreFault::Corrupt)))),
                }
            }
            // Not settled: only a leader knows what is committed.
            _ => match self.want(ctx, slots, &job.channel.clone()) {
                Some(index) => self.slab[index as usize].waiting_readers.push(*job),
                None => answer(ctx, &job, empty(Err(Refusal::Busy))),
            },
        }
    }
}

/// A page of which everything is hidden would leave the reader without a seq to go on from: look further (6.6.3).
fn beyond_hidden(job: &ReadJob, a: &ReadAnswer) -> Option<Box<ReadJob>> {
    let Want::Window { end, limit, up, .. } = job.want else { return None };
    if !a.full || !a.records.is_empty() || a.scanned.1 == 0 || (!up && a.scanned.0 == 1) {
        return None;
    }
    let start = if up { a.scanned.1 + 1 } else { a.scanned.0 - 1 };
    let want = Want::Window { start, end, limit, up };
    Some(Box::new(ReadJob { want, channel: job.channel.clone(), ..*job }))
}

fn decode_rows(found: Vec<Found>, last: u64, limit: u64, now_ms: u64) -> Option<ReadAnswer> {
    let mut found = found.into_iter();
    let Some(Found::Page { rows, more }) = found.next() else {
        return None;
    };
    let full = more || rows.len() as u64 >= limit;
    let mut records = Vec::with_capacity(rows.len());
    let mut scanned = (u64::MAX, 0);
    for (key, row) in rows {
        let record = Record::decode(keys::parse_log_seq(&key)?, &row).ok()?;
        scanned = (scanned.0.min(record.seq), scanned.1.max(record.seq));
        // Expired messages are hidden; the window was computed on seqs (6.6.3).
        if !record.expired(now_ms) {
            records.push(record);
        }
    }
    records.sort_by_key(|r| r.seq);
    let own_last = match found.next() {
        Some(Found::Point(Some(row))) => Counter::decode(&row).ok()?.value.min(last),
        Some(Found::Point(None)) | None => 0,
        Some(_) => return None,
    };
    let scanned = if scanned.1 == 0 { (0, 0) } else { scanned };
    Some(ReadAnswer { result: Ok(()), last, own_last, records, full, scanned })
}

#[cfg(test)]
mod tests {
    use super::window;

    #[test]
    fn the_windows_of_the_specification() {
        let span = |start, end, limit, up| window(start, end, limit, up, 100).map(|(lo, hi, _)| (lo, hi));
        assert_eq!(span(0, 0, 30, false), Some((71, 100)));
        assert_eq!(span(0, 0, 30, true), Some((71, 100)));
        assert_eq!(span(10, 0, 5, true), Some((10, 14)));
        assert_eq!(span(10, 12, 5, true), Some((10, 11)));
        assert_eq!(span(99, 500, 5, true), Some((99, 100)));
        assert_eq!(span(101, 0, 5, true), None);
        assert_eq!(span(0, 50, 5, false), None);
        assert_eq!(span(10, 20, 5, false), None);
        assert_eq!(span(50, 0, 5, false), Some((46, 50)));
        assert_eq!(span(500, 0, 5, false), Some((96, 100)));
        assert_eq!(span(50, 48, 5, false), Some((49, 50)));
        assert_eq!(span(50, 50, 5, false), None);
        assert_eq!(span(3, 0, 5, false), Some((1, 3)));
        assert_eq!(window(0, 0, 5, false, 0), None);
    }
}
