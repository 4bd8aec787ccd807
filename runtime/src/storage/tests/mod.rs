//! Tests against a real RocksDB in a folder that is removed again.

mod contract;
mod damage;
mod dir;
mod model;

use super::{DataDir, OpenError, ShardStore, Storage, StorageOptions};
use bytes::Bytes;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use wukong_core::error::StoreFault;
use wukong_core::ids::{NodeId, OpId, ShardId};
use wukong_core::store::{Family, Found, Load, Query, WriteBatch};
use wukong_core::{Completion, PersistClass};

const NODE: NodeId = NodeId(1);

/// A folder of its own.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("wukong-storage-{}-{n}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("scratch folder");
        Self(path)
    }
}

impl Deref for Scratch {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Collects completions.
#[derive(Clone, Default)]
struct Seen(Arc<(Mutex<Vec<Done>>, Condvar)>);

type Done = (ShardId, OpId, Completion);

impl Seen {
    fn push(&self, shard: ShardId, done: Vec<(OpId, Completion)>) {
        let mut seen = self.0.0.lock().unwrap();
        seen.extend(done.into_iter().map(|(op, c)| (shard, op, c)));
        self.0.1.notify_all();
    }

    fn find(&self, shard: ShardId, op: OpId, within: Duration) -> Option<Completion> {
        let seen = self.0.0.lock().unwrap();
        let is = |all: &Vec<_>| all.iter().any(|(s, o, _)| (*s, *o) == (shard, op));
        let (seen, _) = self.0.1.wait_timeout_while(seen, within, |all| !is(all)).unwrap();
        seen.iter().find(|(s, o, _)| (*s, *o) == (shard, op)).map(|(_, _, c)| c.clone())
    }

    fn get(&self, shard: ShardId, op: OpId) -> Completion {
        self.find(shard, op, Duration::from_secs(10)).expect("completes")
    }

    fn is_open(&self, shard: ShardId, op: OpId) -> bool {
        self.find(shard, op, Duration::from_millis(60)).is_none()
    }

    fn ops(&self, shard: ShardId) -> Vec<OpId> {
        self.0.0.lock().unwrap().iter().filter(|(s, _, _)| *s == shard).map(|(_, o, _)| *o).collect()
    }
}

/// A storage with its shards, and what they were told.
struct World {
    storage: Option<Storage>,
    shards: Vec<ShardStore>,
    seen: Seen,
    ops: u64,
}

impl World {
    fn open(path: &Path, options: StorageOptions) -> Result<Self, OpenError> {
        let seen = Seen::default();
        let sink = seen.clone();
        let dir = DataDir::open(path, NODE, None)?;
        let (storage, shards) = Storage::start(dir, 2, options, Box::new(move |shard, done| sink.push(shard, done)))?;
        Ok(Self { storage: Some(storage), shards, seen, ops: 0 })
    }

    fn start(path: &Path) -> Self {
        Self::open(path, StorageOptions::default()).unwrap()
    }

    fn storage(&self) -> &Storage {
        self.storage.as_ref().unwrap()
    }

    fn begin(&mut self, shard: usize, batch: WriteBatch, class: PersistClass) -> OpId {
        self.ops += 1;
        self.shards[shard].persist(OpId(self.ops), batch, class);
        OpId(self.ops)
    }

    fn persisted(&self, shard: u8, op: OpId) -> Result<(), StoreFault> {
        match self.seen.get(ShardId(shard), op) {
            Completion::Persisted(outcome) => outcome,
            Completion::Loaded(_) => panic!("a load's answer to a persist"),
        }
    }

    fn persist(&mut self, shard: u8, batch: WriteBatch) -> Result<(), StoreFault> {
        let op = self.begin(usize::from(shard), batch, PersistClass::Sync);
        self.persisted(shard, op)
    }

    fn load(&mut self, shard: u8, load: Load) -> Result<Vec<Found>, StoreFault> {
        self.ops += 1;
        let op = OpId(self.ops);
        let done = self.shards[usize::from(shard)].load(op, load);
        match done.unwrap_or_else(|| self.seen.get(ShardId(shard), op)) {
            Completion::Loaded(found) => found,
            Completion::Persisted(_) => panic!("a persist's answer to a load"),
        }
    }

    fn value(&mut self, key: &str) -> Option<Bytes> {
        match self.load(0, get(key)).unwrap().remove(0) {
            Found::Point(value) => value,
            other => panic!("{other:?} for a point"),
        }
    }

    fn close(mut self) -> Result<(), StoreFault> {
        self.storage.take().unwrap().close()
    }
}

fn put(key: &str, value: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(Family::Meta, key.as_bytes(), value);
    batch
}

fn get(key: &str) -> Load {
    Load { queries: vec![Query::Get { family: Family::Meta, key: Bytes::copy_from_slice(key.as_bytes()) }] }
}

/// A small generator: the tests are the same on every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
