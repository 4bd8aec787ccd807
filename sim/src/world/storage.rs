//! The storage thread: one queue for all shards; what waits is synced together, tokens complete in order.

use super::{Event, World};
use crate::disk::Disk;
use crate::history::Event as Happened;
use crate::machine::Machine;
use crate::scenario::fault::Of;
use wukong_core::error::StoreFault;
use wukong_core::ids::OpId;
use wukong_core::store::{Found, Load, WriteBatch, answer};
use wukong_core::{Completion, PersistClass};

#[derive(Clone, Copy, Debug)]
struct Token {
    shard: u8,
    op: OpId,
    number: u64,
}

/// The disk and who waits for it.
#[derive(Debug, Default)]
pub struct Storage {
    pub disk: Disk,
    /// Written, not part of a sync yet.
    queue: Vec<Token>,
    /// Some of the queue wants a sync now.
    urgent: bool,
    syncing: Option<Vec<Token>>,
    /// A write failed: this process writes nothing more.
    failed: Option<StoreFault>,
    pub stall_until: u64,
    pub slow_until: u64,
    pub slow_by: u64,
    pub full_until: u64,
    pub io_until: u64,
    pub read_until: u64,
}

impl Storage {
    pub fn restart(&mut self) {
        self.queue.clear();
        self.urgent = false;
        self.syncing = None;
        self.failed = None;
    }

    pub const fn heal(&mut self) {
        self.stall_until = 0;
        self.slow_until = 0;
        self.full_until = 0;
        self.io_until = 0;
        self.read_until = 0;
    }

    /// A persist has started and not completed.
    #[must_use]
    pub fn busy(&self) -> bool {
        self.syncing.is_some() || !self.queue.is_empty()
    }
}

impl<M: Machine> World<M> {
    pub(super) fn persist(&mut self, shard: u8, op: OpId, batch: &WriteBatch, class: PersistClass) {
        if self.storage.failed.is_none() && self.now < self.storage.full_until {
            self.storage.failed = Some(StoreFault::Full);
            self.seen.disk_full += 1;
        }
        if let Some(fault) = self.storage.failed {
            self.persist_fails(shard, op, fault);
            return;
        }
        let number = self.storage.disk.write(batch);
        self.note_batch(shard, batch, number);
        self.storage.queue.push(Token { shard, op, number });
        self.storage.urgent |= class == PersistClass::Sync;
        self.begin_sync();
    }

    fn persist_fails(&mut self, shard: u8, op: OpId, fault: StoreFault) {
        self.happened(Happened::WriteFailed { shard });
        self.deliver_completion(shard, op, Completion::Persisted(Err(fault)));
    }

    fn begin_sync(&mut self) {
        if self.storage.syncing.is_some() || !self.storage.urgent {
            return;
        }
        self.storage.syncing = Some(std::mem::take(&mut self.storage.queue));
        self.storage.urgent = false;
        let after = self.sync_latency();
        let life = self.life();
        self.later(after, Event::SyncDone { life });
    }

    fn sync_latency(&mut self) -> u64 {
        let (from, to) = self.sc.time.sync;
        let slow = if self.now < self.storage.slow_until { self.storage.slow_by } else { 0 };
        self.rng.disk.between(from, to) + slow
    }

    pub(super) fn sync_done(&mut self) {
        if self.now < self.storage.stall_until {
            self.seen.sync_stalled += 1;
            let after = self.storage.stall_until - self.now + self.sync_latency();
            let life = self.life();
            self.later(after, Event::SyncDone { life });
            return;
        }
        let Some(tokens) = self.storage.syncing.take() else { return };
        let fault = self.storage.failed.or_else(|| (self.now < self.storage.io_until).then_some(StoreFault::Io));
        if let Some(fault) = fault {
            self.storage.failed = Some(fault);
            self.seen.sync_failed += 1;
            tokens.iter().for_each(|t| self.persist_fails(t.shard, t.op, fault));
            for t in std::mem::take(&mut self.storage.queue) {
                self.persist_fails(t.shard, t.op, fault);
            }
            return;
        }
        if let Some(last) = tokens.last() {
            self.storage.disk.sync(last.number);
        }
        if tokens.len() > 1 {
            self.seen.batches_merged += 1;
        }
        self.seen.syncs += 1;
        let life = self.life();
        for t in tokens {
            self.deliver_completion(t.shard, t.op, Completion::Persisted(Ok(())));
        }
        self.countdown_of(Of::Syncs);
        if self.lives(life) {
            self.begin_sync();
        }
    }

    /// Lazy batches do not wait for ever.
    pub(super) fn lazy_sync(&mut self) {
        if !self.storage.queue.is_empty() {
            self.storage.urgent = true;
            self.begin_sync();
        }
        let life = self.life();
        self.later(self.sc.time.lazy.0, Event::LazySync { life });
    }

    /// A load sees every persist its shard started before it, and whatever else is written until it is answered.
    pub(super) fn load(&mut self, shard: u8, op: OpId, load: Load) {
        let (from, to) = self.sc.time.load;
        let after = self.rng.disk.between(from, to);
        let life = self.life();
        if self.rng.disk.chance(500) {
            self.later(after, Event::LoadDone { shard, life, op, load });
            return;
        }
        let completion = self.read(&load);
        let input = wukong_core::Input::Completed { op, completion };
        self.later(after, Event::Arrive { shard, life, input });
    }

    pub(super) fn load_done(&mut self, shard: u8, op: OpId, load: &Load) {
        let completion = self.read(load);
        self.deliver_completion(shard, op, completion);
    }

    fn read(&mut self, load: &Load) -> Completion {
        if self.now < self.storage.read_until {
            self.seen.read_failed += 1;
            if self.rng.disk.chance(300) {
                return Completion::Loaded(Err(StoreFault::Io));
            }
            // Some rows cannot be read, the others of the same load can.
            let mut found = answer(&self.storage.disk, load);
            for f in found.iter_mut().flatten() {
                if self.rng.disk.chance(500) {
                    *f = Found::Unreadable(StoreFault::Io);
                }
            }
            return Completion::Loaded(found);
        }
        Completion::Loaded(answer(&self.storage.disk, load))
    }
}
