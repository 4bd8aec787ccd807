//! The simulator's disk behind the production reactor: the contract of the storage thread, as one task of the node.
//!
//! One queue over all shards; what waits is written together and synced once; tokens complete in order; a load sees every
//! persist that its shard started before it. Kill the node anywhere: what is not synced may be lost.

use super::plan::Bug;
use crate::disk::Disk;
use crate::rng::Rng;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;
use wukong_core::error::StoreFault;
use wukong_core::ids::{OpId, ShardId};
use wukong_core::store::{Load, WriteBatch, answer};
use wukong_core::{Completion, PersistClass};
use wukong_runtime::reactor::inbox::Inbox;
use wukong_runtime::reactor::machine::Store;

/// Lazy persists wait this long for others.
const LAZY_HOLD: Duration = Duration::from_secs(1);
/// Loads per mille that are answered at once, as from the block cache.
const INLINE: u32 = 500;
/// µs of a write into the database, of a sync and of a read.
const WRITE_US: (u64, u64) = (5, 60);
const SYNC_US: (u64, u64) = (50, 3_000);
const READ_US: (u64, u64) = (5, 800);

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk under the storage task.
pub trait Medium: Send + Sync + 'static {
    /// Appends a batch; its number.
    ///
    /// # Errors
    /// The disk takes nothing any more.
    fn write(&self, batch: &WriteBatch) -> Result<u64, StoreFault>;
    fn sync_time(&self, rng: &mut Rng) -> Duration;
    /// Makes the batches up to `number` durable.
    ///
    /// # Errors
    /// The sync failed: nobody knows what is durable of them.
    fn sync(&self, number: u64) -> Result<(), StoreFault>;
    fn read(&self, load: &Load) -> Completion;
}

/// A node's disk, which outlives its processes.
#[derive(Default)]
pub struct Drive {
    pub disk: Mutex<Disk>,
    /// Added to each sync, in µs.
    pub slow_us: AtomicU64,
    /// Starts so far.
    pub incarnation: AtomicU64,
}

impl Medium for Drive {
    fn write(&self, batch: &WriteBatch) -> Result<u64, StoreFault> {
        Ok(lock(&self.disk).write(batch))
    }

    fn sync_time(&self, rng: &mut Rng) -> Duration {
        let (low, high) = SYNC_US;
        Duration::from_micros(rng.between(low, high) + self.slow_us.load(Ordering::Relaxed))
    }

    fn sync(&self, number: u64) -> Result<(), StoreFault> {
        lock(&self.disk).sync(number);
        Ok(())
    }

    fn read(&self, load: &Load) -> Completion {
        Completion::Loaded(answer(&*lock(&self.disk), load))
    }
}

struct Persist {
    shard: ShardId,
    op: OpId,
    /// Of its batch, if the disk took it.
    number: Result<u64, StoreFault>,
    class: PersistClass,
}

struct Waiting {
    shard: ShardId,
    op: OpId,
    load: Load,
    after: u64,
}

struct Queue {
    persists: VecDeque<Persist>,
    loads: Vec<Waiting>,
    /// Persists of each shard that are on the disk.
    written: Vec<u64>,
    rng: Rng,
}

/// What the shards of one process and its storage task share.
pub struct Storage {
    medium: Arc<dyn Medium>,
    inboxes: Vec<Arc<Inbox>>,
    queue: Mutex<Queue>,
    bell: Notify,
    bug: Option<Bug>,
}

impl Storage {
    #[must_use]
    pub fn new(medium: Arc<dyn Medium>, inboxes: Vec<Arc<Inbox>>, rng: Rng, bug: Option<Bug>) -> Arc<Self> {
        let written = vec![0; inboxes.len()];
        let queue = Queue { persists: VecDeque::new(), loads: Vec::new(), written, rng };
        Arc::new(Self { medium, inboxes, queue: Mutex::new(queue), bell: Notify::new(), bug })
    }

    /// The hand of one shard.
    #[must_use]
    pub fn shard(self: &Arc<Self>, shard: ShardId) -> ShardStore {
        ShardStore { storage: self.clone(), shard, started: 0 }
    }

    /// The storage task.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.wait().await;
            self.pause(WRITE_US).await;
            let round: Vec<Persist> = lock(&self.queue).persists.drain(..).collect();
            self.write(&round);
            self.release_loads();
            if self.bug == Some(Bug::CompleteBeforeSync) {
                self.complete(&round, Ok(()));
            }
            let mut synced = Ok(());
            if let Some(number) = round.iter().filter_map(|p| p.number.ok()).max() {
                let takes = self.medium.sync_time(&mut lock(&self.queue).rng);
                sleep(takes).await;
                synced = self.medium.sync(number);
            }
            if self.bug != Some(Bug::CompleteBeforeSync) {
                self.complete(&round, synced);
            }
        }
    }

    /// Until something is due.
    async fn wait(&self) {
        loop {
            let (urgent, lazy) = {
                let queue = lock(&self.queue);
                let urgent = queue.persists.iter().any(|p| p.class == PersistClass::Sync);
                (urgent || !queue.loads.is_empty(), !queue.persists.is_empty())
            };
            match (urgent, lazy) {
                (true, _) => return,
                (false, true) => {
                    tokio::select! {
                        biased;
                        () = self.bell.notified() => {}
                        () = sleep(LAZY_HOLD) => return,
                    }
                }
                (false, false) => self.bell.notified().await,
            }
        }
    }

    async fn pause(&self, (low, high): (u64, u64)) {
        let us = lock(&self.queue).rng.between(low, high);
        sleep(Duration::from_micros(us)).await;
    }

    /// From now on loads see them.
    fn write(&self, round: &[Persist]) {
        let mut queue = lock(&self.queue);
        for persist in round {
            queue.written[usize::from(persist.shard.0)] += 1;
        }
    }

    fn release_loads(self: &Arc<Self>) {
        let ready: Vec<Waiting> = {
            let Queue { loads, written, .. } = &mut *lock(&self.queue);
            loads.extract_if(.., |load| written[usize::from(load.shard.0)] >= load.after).collect()
        };
        for Waiting { shard, op, load, .. } in ready {
            self.read(shard, op, load);
        }
    }

    /// A reader answers in a while.
    fn read(self: &Arc<Self>, shard: ShardId, op: OpId, load: Load) {
        let storage = self.clone();
        tokio::spawn(async move {
            storage.pause(READ_US).await;
            let found = storage.medium.read(&load);
            storage.inboxes[usize::from(shard.0)].complete([(op, found)]);
        });
    }

    fn complete(&self, round: &[Persist], synced: Result<(), StoreFault>) {
        for (shard, inbox) in (0..).map(ShardId).zip(&self.inboxes) {
            let of_shard = round.iter().filter(|p| p.shard == shard);
            let done: Vec<_> = of_shard.map(|p| (p.op, Completion::Persisted(p.number.and(synced)))).collect();
            if !done.is_empty() {
                inbox.complete(done);
            }
        }
    }
}

/// Starts the persists and loads of one shard.
pub struct ShardStore {
    storage: Arc<Storage>,
    shard: ShardId,
    started: u64,
}

impl Store for ShardStore {
    fn persist(&mut self, op: OpId, batch: WriteBatch, class: PersistClass) {
        self.started += 1;
        // Loads do not look at it before the storage task comes to it; a crash may keep it all the same.
        let number = self.storage.medium.write(&batch);
        lock(&self.storage.queue).persists.push_back(Persist { shard: self.shard, op, number, class });
        self.storage.bell.notify_one();
    }

    fn load(&mut self, op: OpId, load: Load) -> Option<Completion> {
        let storage = &self.storage;
        let (all_written, inline) = {
            let mut queue = lock(&storage.queue);
            let all_written = queue.written[usize::from(self.shard.0)] == self.started;
            (all_written || load.needs_only_durable(), queue.rng.chance(INLINE))
        };
        if all_written && inline {
            return Some(storage.medium.read(&load));
        }
        if all_written {
            storage.read(self.shard, op, load);
        } else {
            lock(&storage.queue).loads.push(Waiting { shard: self.shard, op, load, after: self.started });
            storage.bell.notify_one();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madsim::Config;
    use madsim::runtime::Runtime;
    use wukong_core::store::{Family, Found, Query};

    fn put(key: &'static [u8], value: &'static [u8]) -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Family::Log, key, value);
        batch
    }

    fn get(key: &'static [u8]) -> Load {
        Load { queries: vec![Query::Get { family: Family::Log, key: key.into() }] }
    }

    fn found(completion: Completion) -> Option<bytes::Bytes> {
        match completion {
            Completion::Loaded(Ok(found)) => match &found[..] {
                [Found::Point(value)] => value.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// Two shards write; each then loads what both wrote, at once.
    #[test]
    fn a_load_sees_what_its_shard_wrote_before_and_one_sync_serves_all() {
        for seed in 0..20 {
            Runtime::with_seed_and_config(seed, Config::default()).block_on(async move {
                let (drive, inboxes) = (Arc::new(Drive::default()), vec![Arc::<Inbox>::default(), Arc::default()]);
                let storage = Storage::new(drive.clone(), inboxes.clone(), Rng::new(seed), None);
                tokio::spawn(storage.clone().run());
                let [mut a, mut b] = [0, 1].map(|shard| storage.shard(ShardId(shard)));
                a.persist(OpId(1), put(b"a", b"1"), PersistClass::Lazy);
                b.persist(OpId(1), put(b"b", b"1"), PersistClass::Sync);
                a.persist(OpId(2), put(b"a", b"2"), PersistClass::Sync);
                let inline = a.load(OpId(3), get(b"a"));
                assert!(inline.is_none(), "nothing is written yet");
                sleep(Duration::from_millis(20)).await;
                let disk = lock(&drive.disk).clone();
                assert_eq!((disk.written(), disk.synced()), (3, 3), "all is synced");
                let mut done = inboxes[0].take_completions();
                done.sort_by_key(|(op, _)| *op);
                let ops: Vec<u64> = done.iter().map(|(op, _)| op.0).collect();
                assert_eq!(ops, [1, 2, 3]);
                assert_eq!(done.pop().and_then(|(_, load)| found(load)).as_deref(), Some(&b"2"[..]));
                assert_eq!(inboxes[1].take_completions().len(), 1);
            });
        }
    }
}
