//! What docs/storage.md promises of the storage thread.

use super::*;
use crate::storage::Faults;
use std::time::Instant;

fn long_hold() -> StorageOptions {
    StorageOptions { lazy_hold: Duration::from_secs(3600), ..StorageOptions::default() }
}

#[test]
fn a_load_sees_what_its_shard_started_before() {
    let scratch = Scratch::new();
    let mut world = World::open(&scratch, long_hold()).unwrap();
    for n in 0..300u32 {
        let class = if n % 3 == 0 { PersistClass::Lazy } else { PersistClass::Sync };
        world.begin(0, put("k", &n.to_be_bytes()), class);
        assert_eq!(world.value("k").as_deref(), Some(&n.to_be_bytes()[..]));
    }
}

#[test]
fn a_load_waits_for_the_write_but_not_for_the_sync() {
    let scratch = Scratch::new();
    let stall = scratch.join("stall");
    let faults = Faults { stall: Some(stall.clone()), ..Faults::default() };
    let mut world = World::open(&scratch.join("data"), StorageOptions { faults, ..long_hold() }).unwrap();
    fs::write(&stall, "").unwrap();
    let stalled = Stalled(stall);
    let op = world.begin(0, put("k", b"v"), PersistClass::Sync);
    assert_eq!(world.value("k").as_deref(), Some(&b"v"[..]));
    assert!(world.seen.is_open(ShardId(0), op), "completed without a sync");
    // A second load of the shard needs nothing of the stalled thread, nor does one of another shard.
    assert_eq!(world.value("k").as_deref(), Some(&b"v"[..]));
    assert_eq!(world.load(1, get("none")).unwrap(), [Found::Point(None)]);
    drop(stalled);
    assert_eq!(world.persisted(0, op), Ok(()));
}

/// Ends the stall also when the test fails: closing the storage waits for it.
struct Stalled(PathBuf);

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_load_is_one_consistent_view() {
    let scratch = Scratch::new();
    let mut world = World::start(&scratch);
    let mut writer = world.shards.remove(0);
    let pair = |n: u32| {
        let mut batch = put("a", &n.to_be_bytes());
        batch.put(Family::Log, b"b", &n.to_be_bytes());
        batch
    };
    writer.persist(OpId(0), pair(0), PersistClass::Sync);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (1..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                writer.persist(OpId(u64::from(n)), pair(n), PersistClass::Sync);
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        let _stop = Stop(&stop);
        let a = get("a").queries.remove(0);
        let b = Query::Range {
            family: Family::Log,
            from: Bytes::from_static(b"a"),
            to: Bytes::from_static(b"c"),
            rows_max: 3,
            bytes_max: 99,
            reverse: false,
        };
        // Short ones in the reactor, long ones in a reader.
        for round in 0..600 {
            let queries = if round % 4 == 0 {
                [vec![a.clone(); 200], vec![b.clone()]].concat()
            } else {
                vec![a.clone(), b.clone()]
            };
            world.ops += 1;
            let op = OpId(1 << 32 | world.ops);
            let done = world.shards[0].load(op, Load { queries });
            let Completion::Loaded(Ok(found)) = done.unwrap_or_else(|| world.seen.get(ShardId(1), op)) else {
                panic!("no answer")
            };
            let values: Vec<_> = found
                .into_iter()
                .flat_map(|f| match f {
                    Found::Point(value) => value,
                    Found::Page { rows, .. } => rows.into_iter().next().map(|(_, value)| value),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert!(values.iter().all(|v| *v == values[0]), "{values:?}");
        }
    });
}

/// Ends the other thread also when the test fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn memory_answers_at_once() {
    let scratch = Scratch::new();
    let mut world = World::start(&scratch);
    world.persist(0, put("k", b"v")).unwrap();
    let found = world.shards[0].load(OpId(99), get("k"));
    assert!(matches!(found, Some(Completion::Loaded(Ok(f))) if f == [Found::Point(Some(Bytes::from_static(b"v")))]));
    // Too much for the reactor, in memory or not.
    let many = Load { queries: vec![get("k").queries.remove(0); 1000] };
    assert!(world.shards[0].load(OpId(100), many).is_none());
    assert!(matches!(world.seen.get(ShardId(0), OpId(100)), Completion::Loaded(Ok(f)) if f.len() == 1000));
}

#[test]
fn completions_keep_the_order_of_their_shard() {
    let scratch = Scratch::new();
    let mut world = World::start(&scratch);
    let (mut rng, mut expected) = (Rng(7), [Vec::new(), Vec::new()]);
    for n in 0..2000u32 {
        let shard = rng.below(2) as usize;
        let class = if rng.below(4) == 0 { PersistClass::Lazy } else { PersistClass::Sync };
        let batch = if n % 50 == 0 { WriteBatch::new() } else { put("k", &n.to_be_bytes()) };
        expected[shard].push(world.begin(shard, batch, class));
    }
    let [last0, last1] = [expected[0].last(), expected[1].last()].map(|op| *op.unwrap());
    assert_eq!((world.persisted(0, last0), world.persisted(1, last1)), (Ok(()), Ok(())));
    assert_eq!(world.seen.ops(ShardId(0)), expected[0]);
    assert_eq!(world.seen.ops(ShardId(1)), expected[1]);
    let sample = world.storage().sample();
    assert_eq!(sample.syncs, sample.batches, "one sync for each batch");
    assert_eq!((sample.persists, sample.queue_ops, sample.queue_bytes), (2000, 0, 0));
}

#[test]
fn what_comes_during_a_sync_shares_the_next_one() {
    let scratch = Scratch::new();
    let faults = Faults { sync_delay: Duration::from_millis(20), ..Faults::default() };
    let mut world = World::open(&scratch, StorageOptions { faults, ..long_hold() }).unwrap();
    let ops: Vec<_> = (0..1000).map(|_| world.begin(0, put("k", b"v"), PersistClass::Sync)).collect();
    assert_eq!(world.persisted(0, ops[999]), Ok(()));
    let batches = world.storage().sample().batches;
    assert!(batches <= 3, "{batches} batches");
}

#[test]
fn a_lazy_write_completes_by_itself() {
    let scratch = Scratch::new();
    let options = StorageOptions { lazy_hold: Duration::from_millis(150), ..StorageOptions::default() };
    let mut world = World::open(&scratch, options).unwrap();
    let start = Instant::now();
    let op = world.begin(0, put("k", b"v"), PersistClass::Lazy);
    assert!(world.seen.is_open(ShardId(0), op), "waits for company");
    assert_eq!(world.persisted(0, op), Ok(()));
    assert!(start.elapsed() >= Duration::from_millis(150));
}

#[test]
fn a_lazy_write_rides_with_the_next_sync_of_anyone() {
    let scratch = Scratch::new();
    let mut world = World::open(&scratch, long_hold()).unwrap();
    let lazy = world.begin(0, put("k", b"v"), PersistClass::Lazy);
    assert!(world.seen.is_open(ShardId(0), lazy));
    world.persist(1, put("other", b"v")).unwrap();
    assert_eq!(world.persisted(0, lazy), Ok(()));
    assert_eq!(world.storage().sample().syncs, 1);
}

#[test]
fn closing_completes_everything_and_what_comes_later_fails() {
    let scratch = Scratch::new();
    let mut world = World::open(&scratch, long_hold()).unwrap();
    let lazy = world.begin(0, put("k", b"v"), PersistClass::Lazy);
    world.storage.take().unwrap().close().unwrap();
    assert_eq!(world.persisted(0, lazy), Ok(()));
    assert_eq!(world.persist(0, put("k", b"w")), Err(StoreFault::Io));
    let many = Load { queries: vec![get("k").queries.remove(0); 1000] };
    assert_eq!(world.load(0, many), Err(StoreFault::Io));
}

#[test]
fn reopening_finds_everything() {
    let scratch = Scratch::new();
    for round in 0..3 {
        let mut world = World::start(&scratch);
        for n in 0..round * 100 {
            let found = world.value(&format!("k{n}"));
            assert_eq!(found.as_deref(), Some(&[n as u8; 300][..]), "k{n}");
        }
        for n in round * 100..(round + 1) * 100 {
            world.begin(0, put(&format!("k{n}"), &[n as u8; 300]), PersistClass::Lazy);
        }
        // Dropped without close: the same.
        drop(world);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_promised() {
    let scratch = Scratch::new();
    let broken = scratch.join("broken");
    let faults = Faults { fail_sync: Some(broken.clone()), ..Faults::default() };
    let mut world = World::open(&scratch.join("data"), StorageOptions { faults, ..long_hold() }).unwrap();
    world.persist(0, put("before", b"v")).unwrap();
    fs::write(&broken, "").unwrap();
    assert_eq!(world.persist(0, put("k", b"v")), Err(StoreFault::Io));
    // The disk works again, but what it holds is not known.
    fs::remove_file(&broken).unwrap();
    assert_eq!(world.persist(0, put("later", b"v")), Err(StoreFault::Io));
    let lazy = world.begin(1, put("lazy", b"v"), PersistClass::Lazy);
    assert_eq!(world.persisted(1, lazy), Err(StoreFault::Io));
    // A load that must see a failed write fails; others are served.
    assert_eq!(world.load(0, get("before")), Err(StoreFault::Io));
    assert_eq!(world.load(1, get("before")), Err(StoreFault::Io));
    assert!(world.storage().sample().failed);
    assert_eq!(world.close(), Err(StoreFault::Io));
    let mut world = World::start(&scratch.join("data"));
    assert_eq!(world.value("before").as_deref(), Some(&b"v"[..]));
    assert_eq!(world.value("later"), None);
}

#[test]
fn without_sync_the_floor_stays() {
    let scratch = Scratch::new();
    let faults = Faults { unsafe_no_sync: true, ..Faults::default() };
    let mut world = World::open(&scratch, StorageOptions { faults, ..long_hold() }).unwrap();
    world.persist(0, put("k", b"v")).unwrap();
    world.close().unwrap();
    assert_eq!(crate::storage::floor::Floor::open(&scratch.join("floor")).unwrap().seq(), 0);
}
