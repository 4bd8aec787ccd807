//! Counters of the storage, written by its threads and read by /metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Bucket n counts what took less than 2^n µs; the last one counts the rest.
pub const LATENCY_BUCKETS: usize = 24;

#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; LATENCY_BUCKETS],
    sum_us: Counter,
    max_us: AtomicU64,
}

impl Latency {
    pub fn record(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = (u64::BITS - us.leading_zeros()) as usize;
        self.buckets[bucket.min(LATENCY_BUCKETS - 1)].add(1);
        self.sum_us.add(us);
        self.max_us.fetch_max(us, Relaxed);
    }

    fn sample(&self) -> LatencySample {
        LatencySample {
            buckets: std::array::from_fn(|n| self.buckets[n].get()),
            sum: Duration::from_micros(self.sum_us.get()),
            max: Duration::from_micros(self.max_us.load(Relaxed)),
        }
    }
}

#[derive(Debug, Default)]
pub struct Stats {
    pub batches: Counter,
    pub persists: Counter,
    pub rows: Counter,
    pub bytes: Counter,
    pub syncs: Counter,
    pub loads_inline: Counter,
    pub loads_queued: Counter,
    pub queue_ops: Counter,
    pub queue_bytes: Counter,
    pub failed: Counter,
    pub write: Latency,
    pub sync: Latency,
}

impl Stats {
    pub fn sample(&self) -> StorageSample {
        StorageSample {
            batches: self.batches.get(),
            persists: self.persists.get(),
            rows: self.rows.get(),
            bytes: self.bytes.get(),
            syncs: self.syncs.get(),
            loads_inline: self.loads_inline.get(),
            loads_queued: self.loads_queued.get(),
            queue_ops: self.queue_ops.get(),
            queue_bytes: self.queue_bytes.get(),
            failed: self.failed.get() != 0,
            write: self.write.sample(),
            sync: self.sync.sample(),
        }
    }
}

/// What the storage did since it was opened, and how much waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StorageSample {
    /// RocksDB batches written; each merged what waited of all shards.
    pub batches: u64,
    /// Persists written.
    pub persists: u64,
    /// Puts and deletes in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    pub syncs: u64,
    /// Loads answered from memory in the reactor, and by a reader thread.
    pub loads_inline: u64,
    pub loads_queued: u64,
    /// Gauges: persists not yet taken by the storage thread.
    pub queue_ops: u64,
    pub queue_bytes: u64,
    /// A write or sync failed: nothing is promised any more.
    pub failed: bool,
    pub write: LatencySample,
    pub sync: LatencySample,
}

/// A histogram in powers of two of a microsecond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencySample {
    pub buckets: [u64; LATENCY_BUCKETS],
    pub sum: Duration,
    pub max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_falls_below_its_bucket() {
        let l = Latency::default();
        for us in [0, 1, 2, 3, 4, 1 << 40] {
            l.record(Duration::from_micros(us));
        }
        let s = l.sample();
        assert_eq!(s.buckets[..4], [1, 1, 2, 1]);
        assert_eq!(s.buckets[LATENCY_BUCKETS - 1], 1);
        assert_eq!(s.max, Duration::from_micros(1 << 40));
    }
}
