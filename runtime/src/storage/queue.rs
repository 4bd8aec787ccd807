//! What waits for the storage thread: persists of all shards in one order, and loads that must see some of them first.

use super::stats::Stats;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wukong_core::PersistClass;
use wukong_core::ids::{OpId, ShardId};
use wukong_core::store::{Load, WriteBatch};

/// Bytes of one round; more waits for the next one, so that a pile after a stall does not become one huge batch.
const ROUND_BYTES_MAX: usize = 32 << 20;
/// Lazy bytes that do not wait any longer.
const LAZY_BYTES_MAX: usize = 1 << 20;

pub struct Persist {
    pub shard: ShardId,
    pub op: OpId,
    pub batch: WriteBatch,
    pub class: PersistClass,
}

/// A load that must see persists which are not written yet.
pub struct Waiting {
    pub shard: ShardId,
    pub op: OpId,
    pub load: Load,
    /// How many persists of its shard must be written first.
    pub after: u64,
}

/// Locks, also after a panic elsewhere: a panic of the storage ends the process anyway.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    ops_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct Inner {
    persists: VecDeque<Persist>,
    bytes: usize,
    /// Persists in the queue that are not lazy.
    urgent: usize,
    /// When the oldest of a queue of lazy ones came.
    lazy_since: Option<Instant>,
    loads: Vec<Waiting>,
    /// The storage thread waits, and nobody has woken it yet.
    asleep: bool,
    stop: bool,
    ended: bool,
}

impl Queue {
    pub fn new(ops_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), ops_max, bytes_max }
    }

    /// Gives the persist back when the storage has ended.
    pub fn persist(&self, persist: Persist, stats: &Stats) -> Result<(), Persist> {
        let mut inner = lock(&self.inner);
        if inner.ended {
            return Err(persist);
        }
        inner.bytes += persist.batch.bytes();
        match persist.class {
            PersistClass::Sync => inner.urgent += 1,
            PersistClass::Lazy => {
                inner.lazy_since.get_or_insert_with(Instant::now);
            }
        }
        inner.persists.push_back(persist);
        // The core bounds what it starts. Beyond these numbers it does not, and memory would grow until the system kills
        // some process: better this one, now, with a reason.
        assert!(
            inner.persists.len() <= self.ops_max && inner.bytes <= self.bytes_max,
            "{} writes of {} bytes wait for the disk: more than the core may start",
            inner.persists.len(),
            inner.bytes
        );
        inner.gauge(stats);
        self.wake(inner);
        Ok(())
    }

    /// Gives the load back when the storage has ended.
    pub fn load(&self, load: Waiting) -> Result<(), Waiting> {
        let mut inner = lock(&self.inner);
        if inner.ended {
            return Err(load);
        }
        inner.loads.push(load);
        self.wake(inner);
        Ok(())
    }

    /// What waits is still served, then `take` ends.
    pub fn stop(&self) {
        let mut inner = lock(&self.inner);
        inner.stop = true;
        self.wake(inner);
    }

    /// Wakes the storage thread if it sleeps. It looks itself whether something is due: a wake too many happens only for the
    /// lazy persists that come to an idle thread, and the first of them must set its timer.
    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        let wake = std::mem::take(&mut inner.asleep);
        drop(inner);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Waits until something is due and takes the persists of one round. Lazy ones wait for others, up to `hold`. `None`
    /// after `stop`, when nothing is left.
    pub fn take(&self, hold: Duration, stats: &Stats) -> Option<Vec<Persist>> {
        let mut inner = lock(&self.inner);
        loop {
            let now = Instant::now();
            let wait = inner.due_in(now, hold);
            if wait == Some(Duration::ZERO) {
                break;
            }
            inner.asleep = true;
            inner = match wait {
                Some(wait) => self.wake.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
        inner.asleep = false;
        if inner.stop && inner.persists.is_empty() && inner.loads.is_empty() {
            inner.ended = true;
            return None;
        }
        let round = inner.take_round();
        inner.gauge(stats);
        Some(round)
    }

    /// Takes the loads for which `ready` holds.
    pub fn take_loads(&self, ready: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        lock(&self.inner).loads.extract_if(.., |load| ready(load)).collect()
    }
}

impl Inner {
    /// `None`: not before something comes.
    fn due_in(&self, now: Instant, hold: Duration) -> Option<Duration> {
        if self.stop || self.urgent > 0 || !self.loads.is_empty() || self.bytes > LAZY_BYTES_MAX {
            return Some(Duration::ZERO);
        }
        self.lazy_since.map(|since| (since + hold).saturating_duration_since(now))
    }

    fn take_round(&mut self) -> Vec<Persist> {
        let (mut count, mut bytes) = (0, 0);
        for persist in &self.persists {
            if count > 0 && bytes + persist.batch.bytes() > ROUND_BYTES_MAX {
                break;
            }
            count += 1;
            bytes += persist.batch.bytes();
            self.urgent -= usize::from(persist.class == PersistClass::Sync);
        }
        self.bytes -= bytes;
        let round = self.persists.drain(..count).collect();
        if self.persists.is_empty() {
            self.lazy_since = None;
        }
        round
    }

    fn gauge(&self, stats: &Stats) {
        stats.queue_ops.set(self.persists.len() as u64);
        stats.queue_bytes.set(self.bytes as u64);
    }
}
