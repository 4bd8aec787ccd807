//! A shard's hand on the storage.

use super::queue::{Persist, Waiting};
use super::readers::Job;
use super::thread::Shared;
use super::view::read_inline;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wukong_core::error::StoreFault;
use wukong_core::ids::{OpId, ShardId};
use wukong_core::store::{Load, WriteBatch};
use wukong_core::{Completion, PersistClass};

/// Starts the persists and loads of one shard. There is one for each shard, and it counts what it started: that is how a
/// load knows which writes it has to see.
pub struct ShardStore {
    shared: Arc<Shared>,
    shard: ShardId,
    started: u64,
}

impl ShardStore {
    pub(super) const fn new(shared: Arc<Shared>, shard: ShardId) -> Self {
        Self { shared, shard, started: 0 }
    }

    /// Starts a write. Never blocks. The completion goes to the sink, in the order of the calls.
    pub fn persist(&mut self, op: OpId, batch: WriteBatch, class: PersistClass) {
        self.started += 1;
        let persist = Persist { shard: self.shard, op, batch, class };
        if self.shared.queue.persist(persist, &self.shared.stats).is_err() {
            self.complete(op, Completion::Persisted(Err(StoreFault::Io)));
        }
    }

    /// Starts a read that sees every `persist` called before. When memory holds the answer it is returned at once and the
    /// sink is not called; otherwise the sink gets it.
    #[must_use = "an inline answer does not come through the sink"]
    pub fn load(&mut self, op: OpId, load: Load) -> Option<Completion> {
        let shared = &*self.shared;
        // Acquire: pairs with the storage thread, which counts after it has written.
        let all_written = shared.written[usize::from(self.shard.0)].load(Ordering::Acquire) == self.started
            || load.needs_only_durable();
        if all_written && let Some(found) = read_inline(&shared.rocks, &load) {
            shared.stats.loads_inline.add(1);
            return Some(Completion::Loaded(found));
        }
        shared.stats.loads_queued.add(1);
        let taken = if all_written {
            // Nothing to wait for, so not behind a sync that may be going on.
            shared.jobs.push(Job { shard: self.shard, op, load }).is_ok()
        } else {
            shared.queue.load(Waiting { shard: self.shard, op, load, after: self.started }).is_ok()
        };
        if !taken {
            self.complete(op, Completion::Loaded(Err(StoreFault::Io)));
        }
        None
    }

    /// The storage has ended: what is started now fails at once.
    fn complete(&self, op: OpId, completion: Completion) {
        (self.shared.sink)(self.shard, vec![(op, completion)]);
    }
}
