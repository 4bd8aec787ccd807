//! The storage thread: takes what all shards started, writes it as one batch, syncs once, completes; the next batch gathers
//! meanwhile.
//!
//! Every write is followed by a sync before the next write. So the WAL never has more than one unsynced batch, and a crash
//! leaves a prefix of whole batches: only the last one can be missing or torn. The check at the next start rests on it
//! ([`super::wal`]). This is also why lazy persists wait in memory for others, not in the WAL.

use super::dir::DataDir;
use super::error::OpenError;
use super::floor::Floor;
use super::options::StorageOptions;
use super::queue::{Persist, Queue, Waiting};
use super::readers::{self, Job, Jobs};
use super::rocks::{Rocks, RocksGauges, fault_of};
use super::shard::ShardStore;
use super::stats::{Stats, StorageSample};
use super::wal;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wukong_core::Completion;
use wukong_core::error::StoreFault;
use wukong_core::ids::{OpId, ShardId};

/// Takes completions, called once for each shard and round, from the storage's threads. It must not block.
pub type Sink = Box<dyn Fn(ShardId, Vec<(OpId, Completion)>) + Send + Sync>;

/// What the threads and the shards share. The database comes first: it is closed before the lock of its directory ends.
pub(super) struct Shared {
    pub rocks: Rocks,
    pub dir: DataDir,
    pub options: StorageOptions,
    pub sink: Sink,
    pub stats: Stats,
    pub queue: Queue,
    pub jobs: Jobs,
    /// Persists of each shard that are in the database.
    pub written: Box<[AtomicU64]>,
}

/// The running storage of a node.
pub struct Storage {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<Result<(), StoreFault>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Storage {
    /// Checks and opens the database, and starts the threads. Gives one [`ShardStore`] for each shard, in order.
    ///
    /// # Errors
    /// The data is damaged, or cannot be opened.
    pub fn start(
        dir: DataDir,
        shards: u8,
        options: StorageOptions,
        sink: Sink,
    ) -> Result<(Self, Vec<ShardStore>), OpenError> {
        let (rocks, floor) = open(&dir, &options)?;
        let shared = Arc::new(Shared {
            rocks,
            dir,
            sink,
            stats: Stats::default(),
            queue: Queue::new(options.queue_ops_max, options.queue_bytes_max),
            jobs: Jobs::default(),
            written: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            options,
        });
        let stores = (0..shards).map(|n| ShardStore::new(Arc::clone(&shared), ShardId(n))).collect();
        let mut storage = Self { shared: Arc::clone(&shared), writer: None, readers: Vec::new() };
        let spawning = || OpenError::io("start the storage threads");
        for n in 0..shared.options.reader_threads.max(1) {
            let shared = Arc::clone(&shared);
            let reader = thread::Builder::new().name(format!("reader-{n}")).spawn(move || readers::run(&shared));
            storage.readers.push(reader.map_err(spawning())?);
        }
        let mut writer = Writer { shared, floor, failed: None };
        let writer = thread::Builder::new().name("storage".to_owned()).spawn(move || writer.run());
        storage.writer = Some(writer.map_err(spawning())?);
        Ok((storage, stores))
    }

    #[must_use]
    pub fn dir(&self) -> &DataDir {
        &self.shared.dir
    }

    #[must_use]
    pub fn sample(&self) -> StorageSample {
        self.shared.stats.sample()
    }

    #[must_use]
    pub fn gauges(&self) -> RocksGauges {
        self.shared.rocks.gauges()
    }

    /// Finishes everything that was started, and ends the threads. The database itself is closed, and the directory free,
    /// when the last [`ShardStore`] is gone too.
    ///
    /// # Errors
    /// A write or sync had failed.
    pub fn close(mut self) -> Result<(), StoreFault> {
        self.end()
    }

    fn end(&mut self) -> Result<(), StoreFault> {
        self.shared.queue.stop();
        // A panic has aborted the process, so a join that fails cannot happen.
        let outcome = self.writer.take().map_or(Ok(()), |w| w.join().unwrap_or(Err(StoreFault::Io)));
        self.shared.jobs.close();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        outcome
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn open(dir: &DataDir, options: &StorageOptions) -> Result<(Rocks, Floor), OpenError> {
    let db = dir.db();
    let new_floor = !dir.floor().exists();
    let floor = Floor::open(&dir.floor())?;
    let report = wal::check(&db, floor.seq())?;
    // RocksDB syncs what is in its folder, but not the folder's own name.
    std::fs::create_dir_all(&db)
        .and_then(|()| super::file::sync_dir(dir.path()))
        .map_err(OpenError::io(format!("make {} durable", db.display())))?;
    let rocks = Rocks::open(&db, options).map_err(|e| refused(&db, &e))?;
    let latest = rocks.latest_seq();
    floor.check(&db, latest)?;
    if new_floor && latest > 0 {
        tracing::warn!(
            latest,
            "there was no floor file: a loss of acknowledged data before now would not have been noticed"
        );
    }
    tracing::info!(
        path = %db.display(), latest, floor = floor.seq(), wal_files = report.files, wal_bytes = report.bytes, cut = report.cut,
        "the database is open"
    );
    Ok((rocks, floor))
}

fn refused(db: &Path, error: &rocksdb::Error) -> OpenError {
    match fault_of(error) {
        StoreFault::Corrupt => OpenError::damaged(db, error.to_string()),
        StoreFault::Full => {
            let error = io::Error::new(io::ErrorKind::StorageFull, error.to_string());
            OpenError::io(format!("open the database in {}", db.display()))(error)
        }
        StoreFault::Io => OpenError::Rocks { path: db.to_path_buf(), why: error.to_string() },
    }
}

/// The storage thread's own state.
struct Writer {
    shared: Arc<Shared>,
    floor: Floor,
    /// The first failure. After it nothing is written: what reached the disk is unknown.
    failed: Option<StoreFault>,
}

impl Writer {
    fn run(&mut self) -> Result<(), StoreFault> {
        let _guard = AbortOnPanic;
        let shared = Arc::clone(&self.shared);
        loop {
            let hold = if self.failed.is_some() { Duration::ZERO } else { shared.options.lazy_hold };
            let Some(round) = shared.queue.take(hold, &shared.stats) else {
                break;
            };
            let outcome = self.round(&round);
            self.complete(round, outcome);
            self.release_loads();
            let kept = self.floor.sync_if_due();
            self.note_floor(kept);
        }
        let kept = self.floor.sync();
        self.note_floor(kept);
        self.failed.map_or(Ok(()), Err)
    }

    fn round(&mut self, round: &[Persist]) -> Result<(), StoreFault> {
        if let Some(fault) = self.failed {
            return Err(fault);
        }
        let wrote = self.write(round)?;
        // The rows can be seen now; whoever waits for them need not wait for the sync.
        self.release_loads();
        if wrote { self.sync() } else { Ok(()) }
    }

    /// False when there was no row to write.
    fn write(&mut self, round: &[Persist]) -> Result<bool, StoreFault> {
        let start = Instant::now();
        let written = match self.shared.rocks.write(round.iter().map(|p| &p.batch)) {
            Ok(written) => written,
            Err(e) => return Err(self.fail("write to the database", e.as_ref(), fault_of(&e))),
        };
        for persist in round {
            self.shared.written[usize::from(persist.shard.0)].fetch_add(1, Ordering::Release);
        }
        let stats = &self.shared.stats;
        stats.persists.add(round.len() as u64);
        if written.rows == 0 {
            return Ok(false);
        }
        stats.write.record(start.elapsed());
        stats.batches.add(1);
        stats.rows.add(written.rows);
        stats.bytes.add(written.bytes);
        Ok(true)
    }

    fn sync(&mut self) -> Result<(), StoreFault> {
        let shared = Arc::clone(&self.shared);
        let faults = &shared.options.faults;
        let start = Instant::now();
        while faults.stall.as_ref().is_some_and(|file| file.exists()) {
            thread::sleep(Duration::from_millis(10));
        }
        if faults.fail_sync.as_ref().is_some_and(|file| file.exists()) {
            return Err(self.fail("sync", "a test asked for this failure", StoreFault::Io));
        }
        thread::sleep(faults.sync_delay);
        if faults.unsafe_no_sync {
            return Ok(());
        }
        if let Err(e) = shared.rocks.sync() {
            // The kernel may have dropped what it could not write: a second sync that succeeds would prove nothing.
            return Err(self.fail("sync", e.as_ref(), fault_of(&e)));
        }
        shared.stats.sync.record(start.elapsed());
        shared.stats.syncs.add(1);
        let kept = self.floor.record(shared.rocks.latest_seq());
        self.note_floor(kept);
        self.failed.map_or(Ok(()), Err)
    }

    fn note_floor(&mut self, outcome: io::Result<()>) {
        if let Err(e) = outcome {
            self.fail("write the floor file", &e.to_string(), StoreFault::Io);
        }
    }

    fn fail(&mut self, doing: &'static str, error: &str, fault: StoreFault) -> StoreFault {
        // A batch that the database refuses for whatever reason is unwritten all the same; only a full disk has a name of
        // its own, because people can help it.
        let fault = if fault == StoreFault::Full { fault } else { StoreFault::Io };
        tracing::error!(doing, error, "the storage failed: nothing more is acknowledged, the node has to end");
        self.failed.get_or_insert(fault);
        self.shared.stats.failed.set(1);
        fault
    }

    fn complete(&self, round: Vec<Persist>, outcome: Result<(), StoreFault>) {
        let mut done: Vec<Vec<(OpId, Completion)>> = vec![Vec::new(); self.shared.written.len()];
        for persist in round {
            done[usize::from(persist.shard.0)].push((persist.op, Completion::Persisted(outcome)));
        }
        for (shard, done) in (0..).map(ShardId).zip(done) {
            if !done.is_empty() {
                (self.shared.sink)(shard, done);
            }
        }
    }

    /// Hands loads whose writes are done to the readers; those whose writes failed fail.
    fn release_loads(&self) {
        let shared = &*self.shared;
        let ready = |w: &Waiting| shared.written[usize::from(w.shard.0)].load(Ordering::Relaxed) >= w.after;
        for Waiting { shard, op, load, .. } in shared.queue.take_loads(ready) {
            // The readers end after this thread.
            let _ = shared.jobs.push(Job { shard, op, load });
        }
        if let Some(fault) = self.failed {
            for Waiting { shard, op, .. } in shared.queue.take_loads(|_| true) {
                (shared.sink)(shard, vec![(op, Completion::Loaded(Err(fault)))]);
            }
        }
    }
}

/// No half-dead node: a thread of the storage that panics takes the process with it.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("a storage thread panicked: the process ends");
            std::process::abort();
        }
    }
}
