//! Message ids: 41 bits of ms since 2010-11-04, 10 bits node, 4 bits shard, 8 bits counter (architecture section 9).
//!
//! Ids come from a block whose end is durable before any of it is used, so that no restart and no clock that
//! jumps back can repeat one (INV-11). While the next block is on its way to the disk, the rest of the current
//! one is used, even when its time has passed.

use crate::ctx::{Ctx, LoadWaiter, PersistWaiter};
use crate::limits;
use crate::mutants::Mutant;
use crate::output::PersistClass;
use crate::store::rows::{Counter, Format};
use crate::store::{Family, Found, Query, keys};
use alloc::vec::Vec;

/// Milliseconds of the Unix epoch at which ids begin.
pub const ID_EPOCH_MS: u64 = 1_288_834_974_657;
/// Ids of one millisecond and shard.
const PER_MS: u64 = 256;
/// A new block is fetched when less than this is left of the current one.
const AHEAD_MS: u64 = limits::ID_BLOCK_MS / 2;

#[derive(Clone, Copy, Debug)]
struct Block {
    /// Next unused unit: ms × 256 + counter.
    next: u64,
    /// First unit after the block.
    end: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ids {
    current: Option<Block>,
    spare: Option<Block>,
    /// A block on its way to the disk: [from, to) ms.
    reserving: Option<(u64, u64)>,
    /// End of everything ever reserved, in ms.
    high_ms: u64,
    /// Someone found no id since the last reservation started.
    starved: bool,
}

impl Ids {
    /// Reads how far ids were reserved before.
    pub fn boot(ctx: &mut Ctx) -> Self {
        let key = keys::id_block(ctx.me());
        ctx.load(LoadWaiter::IdBlock, [Query::Get { family: Family::Raft, key }]);
        Self { current: None, spare: None, reserving: None, high_ms: 0, starved: true }
    }

    /// The row was read. False: it is damaged, and no id may be given.
    pub fn on_row(&mut self, ctx: &mut Ctx, found: Vec<Found>) -> bool {
        match found.into_iter().next() {
            Some(Found::Point(Some(row))) => match Counter::decode(&row) {
                Ok(c) => self.high_ms = c.value,
                Err(_) => return false,
            },
            Some(Found::Point(None)) => {}
            _ => return false,
        }
        if ctx.mutant(Mutant::IdBlockNotReserved) {
            self.high_ms = 0;
        }
        self.reserve(ctx, PersistClass::Sync);
        true
    }

    #[must_use]
    pub const fn ready(&self) -> bool {
        self.current.is_some()
    }

    fn reserve(&mut self, ctx: &mut Ctx, class: PersistClass) {
        let from = self.high_ms.max(ctx.now.wall.0).max(ID_EPOCH_MS);
        let to = from + limits::ID_BLOCK_MS;
        self.reserving = Some((from, to));
        self.starved = class == PersistClass::Sync;
        let row = Counter { value: to };
        let key = keys::id_block(ctx.me());
        ctx.batch().put_with(Family::Raft, &key, |out| row.encode(out));
        ctx.persist(PersistWaiter::IdBlock, class);
    }

    /// The reserved block is durable. Its owner runs again whoever waited for an id.
    pub fn on_reserved(&mut self) {
        let Some((from, to)) = self.reserving.take() else {
            return;
        };
        self.high_ms = to;
        self.starved = false;
        let block = Block { next: from * PER_MS, end: to * PER_MS };
        if self.current.is_none() {
            self.current = Some(block);
        } else {
            self.spare = Some(block);
        }
    }

    /// A fresh id, roughly in time order; `None` while no reserved id is left.
    pub fn next(&mut self, ctx: &mut Ctx) -> Option<i64> {
        let floor = ctx.now.wall.0.max(ID_EPOCH_MS) * PER_MS;
        // Move on once the clock has left the current block, or it is used up.
        if self.spare.is_some() && self.current.is_some_and(|b| b.next >= b.end || floor >= b.end) {
            self.current = self.spare.take();
        }
        let id = self.current.as_mut().and_then(|b| {
            // Within the block follow the clock; past its end use up what is left.
            let unit = if floor < b.end { b.next.max(floor) } else { b.next };
            (unit < b.end).then(|| {
                b.next = unit + 1;
                unit
            })
        });
        let left = self.current.map_or(0, |b| b.end - b.next);
        if self.reserving.is_none() && self.spare.is_none() {
            let passed = self.current.is_none_or(|b| floor + AHEAD_MS * PER_MS >= b.end);
            if passed || left < AHEAD_MS * PER_MS / 4 {
                // Nobody waits for it yet: it rides along with the next sync.
                let class = if id.is_none() { PersistClass::Sync } else { PersistClass::Lazy };
                self.reserve(ctx, class);
            }
        } else if id.is_none() && self.reserving.is_some() && !self.starved {
            // Now somebody waits: ask for a sync of what is already written.
            self.starved = true;
            let key = keys::id_block(ctx.me());
            let row = Counter { value: self.reserving.map_or(self.high_ms, |(_, to)| to) };
            ctx.batch().put_with(Family::Raft, &key, |out| row.encode(out));
            ctx.persist(PersistWaiter::SyncOnly, PersistClass::Sync);
        }
        let unit = id?;
        let ms = unit / PER_MS - ID_EPOCH_MS;
        let node = u64::from(ctx.config.node.0) << 12;
        let shard = u64::from(ctx.me().0 & 0xf) << 8;
        Some(((ms << 22) | node | shard | (unit % PER_MS)) as i64)
    }
}
