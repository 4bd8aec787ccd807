//! Random writes and reads against a map, with the core's own definition of an answer.

use super::*;
use std::collections::BTreeMap;
use wukong_core::store::{Snapshot, Write, answer};

#[derive(Clone, Default)]
struct Model(BTreeMap<(Family, Vec<u8>), Vec<u8>>);

impl Model {
    fn apply(&mut self, batch: &WriteBatch) {
        for write in batch {
            match write {
                Write::Put { family, key, value } => {
                    self.0.insert((family, key.to_vec()), value.to_vec());
                }
                Write::Delete { family, key } => {
                    self.0.remove(&(family, key.to_vec()));
                }
                Write::DeleteRange { family, from, to } => {
                    self.0.retain(|(f, k), _| *f != family || k.as_slice() < from || k.as_slice() >= to);
                }
            }
        }
    }
}

impl Snapshot for Model {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreFault> {
        Ok(self.0.get(&(family, key.to_vec())).map(|v| Bytes::copy_from_slice(v)))
    }

    fn scan(
        &self,
        family: Family,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreFault> {
        let within = |(f, k): &&(Family, Vec<u8>)| *f == family && k.as_slice() >= from && k.as_slice() < to;
        let mut rows: Vec<_> = self.0.keys().filter(within).collect();
        if reverse {
            rows.reverse();
        }
        for row in rows {
            if !visit(&row.1, &self.0[row]) {
                break;
            }
        }
        Ok(())
    }
}

fn family(rng: &mut Rng) -> Family {
    Family::ALL[rng.below(6) as usize]
}

/// Few keys, some of them prefixes of others; each shard has its own, as slots do.
fn key(rng: &mut Rng, shard: u8) -> Vec<u8> {
    let mut key = vec![shard];
    (0..rng.below(4)).for_each(|_| key.push(rng.below(5) as u8 * 63));
    key
}

fn batch(rng: &mut Rng, shard: u8) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for _ in 0..rng.below(6) {
        let (family, a, b) = (family(rng), key(rng, shard), key(rng, shard));
        match rng.below(8) {
            0 => batch.delete_range(family, &a, &b),
            1 => batch.delete(family, &a),
            n => {
                let size = if n == 2 { 3_000 + rng.below(4_000) } else { rng.below(60) };
                batch.put_with(family, &a, |out| (0..size).for_each(|_| out.push(rng.next() as u8)));
            }
        }
    }
    batch
}

fn load(rng: &mut Rng, shard: u8) -> Load {
    let count = if rng.below(10) == 0 { 80 } else { 1 + rng.below(4) };
    let queries = (0..count).map(|_| {
        let family = family(rng);
        let from = Bytes::from(key(rng, shard));
        if rng.below(2) == 0 {
            return Query::Get { family, key: from };
        }
        let to = Bytes::from(key(rng, shard));
        let (rows_max, bytes_max) = (rng.below(9) as u32, rng.below(9_000) as u32);
        Query::Range { family, from, to, rows_max, bytes_max, reverse: rng.below(2) == 0 }
    });
    Load { queries: queries.collect() }
}

/// Two shards at once, through several openings, with buffers so small that rows move to tables and blobs meanwhile.
#[test]
fn random_writes_and_reads_agree_with_a_map() {
    let scratch = Scratch::new();
    let options = StorageOptions {
        write_buffer_bytes: 256 * 1024,
        block_cache_bytes: 64 * 1024,
        wal_bytes: 512 * 1024,
        lazy_hold: Duration::from_millis(5),
        ..StorageOptions::default()
    };
    let mut models = [Model::default(), Model::default()];
    let (mut inline, mut queued) = (0, 0);
    for opening in 0..3 {
        let mut world = World::open(&scratch, options.clone()).unwrap();
        let storage = world.storage.take().unwrap();
        std::thread::scope(|scope| {
            for (n, (store, model)) in (0..).zip(world.shards.drain(..).zip(&mut models)) {
                let seen = world.seen.clone();
                scope.spawn(move || run(n, opening, store, model, &seen));
            }
        });
        let sample = storage.sample();
        assert!(!sample.failed);
        inline += sample.loads_inline;
        queued += sample.loads_queued;
        storage.close().unwrap();
    }
    assert!(inline > 100 && queued > 100, "both ways of reading were taken: {inline} and {queued}");
}

fn run(shard: u8, opening: u64, store: ShardStore, model: &mut Model, seen: &Seen) {
    let mut rng = Rng(u64::from(shard) << 32 | opening);
    let mut world = World { storage: None, shards: vec![store], seen: Seen::default(), ops: 0 };
    for _ in 0..250 {
        for _ in 0..rng.below(3) {
            let batch = batch(&mut rng, shard);
            model.apply(&batch);
            let class = if rng.below(3) == 0 { PersistClass::Lazy } else { PersistClass::Sync };
            let op = world.begin(0, batch, class);
            if rng.below(8) == 0 {
                assert!(matches!(seen.get(ShardId(shard), op), Completion::Persisted(Ok(()))));
            }
        }
        let load = load(&mut rng, shard);
        world.ops += 1;
        let op = OpId(world.ops);
        let done = world.shards[0].load(op, load.clone());
        let Completion::Loaded(found) = done.unwrap_or_else(|| seen.get(ShardId(shard), op)) else {
            panic!("a load was answered as a persist");
        };
        assert_eq!(found, answer(model, &load), "{load:?}");
    }
}
