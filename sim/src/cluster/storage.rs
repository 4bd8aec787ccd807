//! The storage thread of a node: one queue for all its shards; what waits is synced together, tokens complete in order.

use super::world::{Event, World};
use crate::clock::MS;
use crate::disk::{Disk, Synced};
use wukong_core::error::StoreFault;
use wukong_core::ids::OpId;
use wukong_core::store::{Found, Load, WriteBatch, answer};
use wukong_core::{Completion, Input, PersistClass};

/// Who waits for a batch.
#[derive(Clone, Copy, Debug)]
struct Token {
    shard: u8,
    op: OpId,
    number: u64,
}

/// Time within which lazy batches are synced.
pub const LAZY: u64 = 20 * MS;

/// The disk and who waits for it.
#[derive(Debug, Default)]
pub struct Storage {
    pub disk: Disk,
    /// Written, not part of a sync yet.
    queue: Vec<Token>,
    urgent: bool,
    syncing: Option<Vec<Token>>,
    /// A write failed: this process writes nothing more.
    pub failed: bool,
    pub fail_next: bool,
    pub slow_by: u64,
    /// In a thousand.
    pub read_faults: u32,
}

impl Storage {
    pub fn restart(&mut self) {
        self.queue.clear();
        self.urgent = false;
        self.syncing = None;
        self.failed = false;
        self.fail_next = false;
    }
}

impl World {
    pub(super) fn persist(&mut self, n: usize, shard: u8, op: OpId, batch: &WriteBatch, class: PersistClass) {
        let s = &mut self.nodes[n].storage;
        if s.failed {
            return self.persisted(n, shard, op, Err(StoreFault::Io));
        }
        let number = s.disk.write(batch);
        s.queue.push(Token { shard, op, number });
        s.urgent |= class == PersistClass::Sync;
        self.note_applied(n, batch);
        self.begin_sync(n);
    }

    fn persisted(&mut self, n: usize, shard: u8, op: OpId, result: Result<(), StoreFault>) {
        self.arrive(n, shard, Input::Completed { op, completion: Completion::Persisted(result) });
    }

    fn begin_sync(&mut self, n: usize) {
        let s = &mut self.nodes[n].storage;
        if s.syncing.is_some() || !s.urgent {
            return;
        }
        s.syncing = Some(std::mem::take(&mut s.queue));
        s.urgent = false;
        let after = self.rng.disk.spread(self.plan.sync * 1_000) + self.nodes[n].storage.slow_by;
        let life = self.nodes[n].life;
        self.later(after, Event::SyncDone { node: n, life });
    }

    /// Makes everything up to that batch durable, unless an episode has it fail: then nothing is written any more.
    ///
    /// # Errors
    /// The sync failed, now or before.
    pub fn sync(&mut self, n: usize, number: u64) -> Result<(), StoreFault> {
        let s = &mut self.nodes[n].storage;
        if std::mem::take(&mut s.fail_next) {
            s.failed = true;
            self.cover.hit("sync failed");
        }
        if s.failed {
            return Err(StoreFault::Io);
        }
        s.disk.sync(number);
        Ok(())
    }

    pub(super) fn sync_done(&mut self, n: usize) {
        let s = &mut self.nodes[n].storage;
        let Some(tokens) = s.syncing.take() else { return };
        if let Err(fault) = self.sync(n, tokens.last().map_or(0, |t| t.number)) {
            let waiting = std::mem::take(&mut self.nodes[n].storage.queue);
            for t in tokens.iter().chain(&waiting) {
                self.persisted(n, t.shard, t.op, Err(fault));
            }
            return;
        }
        if tokens.len() > 1 {
            self.cover.hit("batches merged");
        }
        for t in tokens {
            self.persisted(n, t.shard, t.op, Ok(()));
        }
        self.begin_sync(n);
    }

    pub(super) fn lazy_sync(&mut self, n: usize) {
        let s = &mut self.nodes[n].storage;
        s.urgent |= !s.queue.is_empty();
        self.begin_sync(n);
        let life = self.nodes[n].life;
        self.later(LAZY, Event::LazySync { node: n, life });
    }

    /// A load sees every persist its shard started before it, and perhaps what is written until it is answered.
    pub(super) fn load(&mut self, n: usize, shard: u8, op: OpId, load: Load) {
        let after = self.rng.disk.spread(100_000);
        let life = self.nodes[n].life;
        if self.rng.disk.chance(500) {
            return self.later(after, Event::LoadDone { node: n, shard, life, op, load });
        }
        let completion = self.read(n, &load);
        self.later(after, Event::Arrive { node: n, shard, life, input: Input::Completed { op, completion } });
    }

    pub(super) fn load_done(&mut self, n: usize, shard: u8, op: OpId, load: &Load) {
        let completion = self.read(n, load);
        self.arrive(n, shard, Input::Completed { op, completion });
    }

    /// The answer to a load, faults of this disk included.
    pub fn read(&mut self, n: usize, load: &Load) -> Completion {
        let per = self.nodes[n].storage.read_faults;
        let disk = &self.nodes[n].storage.disk;
        // Keys that memory does not know are asked of what is synced, or of more.
        let stale = load.needs_only_durable() && self.rng.disk.chance(500);
        let mut found = if stale { answer(&Synced(disk), load) } else { answer(disk, load) };
        if per > 0 && self.rng.disk.chance(per) {
            self.cover.hit("read failed");
            if self.rng.disk.chance(300) {
                return Completion::Loaded(Err(StoreFault::Io));
            }
            for f in found.iter_mut().flatten() {
                if self.rng.disk.chance(500) {
                    *f = Found::Unreadable(StoreFault::Io);
                }
            }
        }
        Completion::Loaded(found)
    }
}
