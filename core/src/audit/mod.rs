//! Anti-entropy (cluster-and-raft 4.19): once an hour, and soon after a process or a leader is new, the leader of a slot compares the
//! slot's settled channels with those of each other member. Whoever was away while a channel settled may lack entries that nobody
//! remembers it to lack: its channel is woken, and replication does the rest. Nothing here changes a log.
//!
//! ```text
//!   leader of the slot                      member
//!     reads its head rows, folds them         |
//!     |--- AskSums --------------------------->| reads its own, folds them
//!     |<-- Sums: 1,024 buckets, empty ones out |
//!     |--- AskRows: buckets that differ ------>|
//!     |<-- Rows: some, up to a channel --------|   and so on, up to the end
//!     wakes what differs
//! ```
//!
//! The leader of a slot is compared with every member. So if nothing differs, all are equal. One slot is compared at a time, one page of
//! rows is read at a time, and a message that is lost only ends the comparison with that member until the next time.

mod compare;
mod serve;
mod walk;

use crate::channel::Channels;
use crate::channel::dedup::payload_hash;
use crate::cluster::Slots;
use crate::ctx::{Ctx, Timer};
use crate::ids::{ChannelKey, Epoch, Position, SlotId};
use crate::limits;
use crate::link::Item;
use crate::map::BTreeMap;
use crate::raft::config::Replica;
use crate::store::Found;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

/// How a replica of a channel is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Settled,
    /// It was not told that everything is committed, or has forgotten.
    Dirty,
    /// It leads, and has something to do: whoever lacks something is served already.
    Awake,
}

/// A replica of a channel, as its head row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub channel: ChannelKey,
    pub generation: u64,
    pub epoch: Epoch,
    pub end: Position,
    pub hw: u64,
    pub state: State,
}

/// A set of buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets(pub [u64; limits::AUDIT_BUCKETS / 64]);

/// What is said about a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    AskSums,
    /// Buckets that are not empty, ascending, and their sums.
    Sums(Vec<(u16, u64)>),
    /// Rows of channels behind this one.
    AskRows {
        buckets: Buckets,
        after: Option<ChannelKey>,
    },
    /// All of them up to this one; None: to the end. In the order of their keys.
    Rows {
        rows: Vec<Row>,
        upto: Option<ChannelKey>,
    },
}

impl Buckets {
    fn insert(&mut self, bucket: usize) {
        self.0[bucket / 64] |= 1 << (bucket % 64);
    }

    fn contains(&self, bucket: usize) -> bool {
        self.0[bucket / 64] & (1 << (bucket % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One sum for each bucket.
type Sums = Box<[u64]>;

fn no_sums() -> Sums {
    alloc::vec![0; limits::AUDIT_BUCKETS].into_boxed_slice()
}

/// Spreads the bits of what was hashed over the whole word.
const fn mixed(mut h: u64) -> u64 {
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

/// Where a channel is counted: the same at every node.
fn bucket(channel: &ChannelKey) -> usize {
    mixed(payload_hash(channel.id.as_bytes()) ^ u64::from(channel.kind)) as usize % limits::AUDIT_BUCKETS
}

/// Adds a row. Sums do not depend on the order.
fn add(sums: &mut Sums, row: &Row) {
    let mut h = payload_hash(row.channel.id.as_bytes());
    let dirty = u64::from(row.state == State::Dirty);
    for part in
        [u64::from(row.channel.kind), row.generation, row.epoch.0, row.end.epoch.0, row.end.index, row.hw, dirty]
    {
        h = mixed(h ^ part).wrapping_add(part);
    }
    let sum = &mut sums[bucket(&row.channel)];
    *sum = sum.wrapping_add(h);
}

/// The machine of a shard.
#[derive(Clone, Debug)]
pub struct Audits {
    /// When each slot is compared next, if it is led here.
    due: BTreeMap<u16, Instant>,
    comparing: Option<compare::Comparing>,
    serving: serve::Serving,
    /// Numbers of comparisons and of reads.
    next: u64,
    timer_at: Instant,
}

impl Default for Audits {
    fn default() -> Self {
        Self {
            due: BTreeMap::new(),
            comparing: None,
            serving: serve::Serving::default(),
            next: 1,
            timer_at: Instant::NEVER,
        }
    }
}

/// What a step may touch.
pub struct Around<'a> {
    pub ctx: &'a mut Ctx,
    pub slots: &'a mut Slots,
    pub channels: &'a mut Channels,
}

impl Around<'_> {
    fn say(&mut self, to: Replica, slot: SlotId, scan: u64, said: Said) {
        let from = self.ctx.replica();
        self.ctx.links.send(to.node, slot, Item::Audit { slot, from, scan, said });
    }
}

fn jittered(ctx: &mut Ctx, base: Duration) -> Duration {
    base + Duration::from_nanos(ctx.jitter() % (base.as_nanos() as u64).max(1))
}

impl Audits {
    /// This node leads the slot from now on: what its leader before knew of others is not known here.
    pub fn on_led(&mut self, ctx: &mut Ctx, slot: SlotId) {
        let at = ctx.now.mono + jittered(ctx, ctx.config.audit_soon);
        let due = self.due.entry(slot.0).or_insert(Instant::NEVER);
        *due = (*due).min(at);
        self.arm(ctx);
    }

    /// A process is there that was not, or could not be reached.
    pub fn on_peer_up(&mut self, ctx: &mut Ctx) {
        let at = ctx.now.mono + jittered(ctx, ctx.config.audit_soon);
        self.due.values_mut().for_each(|due| *due = (*due).min(at));
        self.arm(ctx);
    }

    pub fn on_said(&mut self, around: &mut Around, slot: SlotId, from: Replica, scan: u64, said: Said) {
        if !around.slots.hosts(slot) {
            return;
        }
        match said {
            Said::AskSums => self.on_ask(around, serve::Ask { from, slot, scan, rows: None }),
            Said::AskRows { buckets, after } => {
                self.on_ask(around, serve::Ask { from, slot, scan, rows: Some((buckets, after)) });
            }
            Said::Sums(sums) => self.on_sums(around, from, scan, &sums),
            Said::Rows { rows, upto } => self.on_rows(around, from, scan, rows, upto),
        }
        self.arm(around.ctx);
    }

    /// Rows that one of both sides asked for.
    pub fn on_found(&mut self, around: &mut Around, ticket: u64, found: Option<Vec<Found>>) {
        if self.comparing.as_ref().is_some_and(|c| c.walk.ticket == ticket) {
            self.on_own(around, found);
        } else {
            self.on_served(around, ticket, found);
        }
        self.arm(around.ctx);
    }

    pub fn on_timer(&mut self, around: &mut Around) {
        self.timer_at = Instant::NEVER;
        self.compare_time(around);
        self.serve_time(around);
        self.arm(around.ctx);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn arm(&mut self, ctx: &mut Ctx) {
        let due = self.due.values().copied().min().unwrap_or(Instant::NEVER);
        let at = self.comparing.as_ref().map_or(due, |c| c.at).min(self.serving.at());
        ctx.arm(Timer::Audit, &mut self.timer_at, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wukong_proto::Text;

    fn row(id: &str, hw: u64) -> Row {
        let end = Position { epoch: Epoch(2), index: hw };
        let channel = ChannelKey { id: Text::from(id), kind: 1 };
        Row { channel, generation: 3, epoch: Epoch(2), end, hw, state: State::Settled }
    }

    #[test]
    fn sums_tell_every_field_and_not_the_order() {
        let sum = |rows: &[Row]| {
            let mut sums = no_sums();
            rows.iter().for_each(|r| add(&mut sums, r));
            sums
        };
        let (a, b) = (row("a@b", 4), row("c@d", 9));
        assert_eq!(sum(&[a.clone(), b.clone()]), sum(&[b.clone(), a.clone()]));
        let others = [
            row("a@b", 5),
            Row { generation: 4, ..a.clone() },
            Row { epoch: Epoch(3), ..a.clone() },
            Row { end: Position { epoch: Epoch(1), index: 4 }, ..a.clone() },
            Row { hw: 3, ..a.clone() },
            Row { state: State::Dirty, ..a.clone() },
        ];
        for other in others {
            assert_ne!(sum(core::slice::from_ref(&a)), sum(core::slice::from_ref(&other)), "{other:?}");
            assert_eq!(bucket(&a.channel), bucket(&other.channel));
        }
    }
}
