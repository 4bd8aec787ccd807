//! The floor: the newest RocksDB sequence number that is known to be synced, kept beside the database.
//!
//! RocksDB cannot tell a WAL that was never written further from one that lost its end. The floor can: a database that
//! opens with a lower sequence number than the floor has lost what was acknowledged.
//!
//! It is written after each sync of the WAL and not synced with it, so it costs no sync of its own. It may lag, never lead,
//! because it only ever holds a number whose data is synced already:
//! - the process dies: the page cache keeps the last write, so the floor covers everything that was acknowledged;
//! - the power fails: the floor is at most [`SYNC_EVERY`] (and one batch) old, because it is synced that often while it moves,
//!   and at a clean close.
//!
//! Two slots, 4 KiB apart and written in turn, so that a torn write leaves the other one.

use super::error::OpenError;
use super::file::sync_dir;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How old the durable floor may be while writes go on.
pub const SYNC_EVERY: Duration = Duration::from_secs(3);

const MAGIC: [u8; 4] = *b"WKF1";
const SLOT: usize = 16;
const SLOTS_AT: [u64; 2] = [0, 4096];

#[derive(Debug)]
pub struct Floor {
    file: File,
    path: PathBuf,
    seq: u64,
    /// The slot that does not hold `seq`.
    next: usize,
    unsynced: bool,
    synced_at: Instant,
}

impl Floor {
    /// Opens the floor. A missing file starts at zero: deleting it is the way to accept a loss.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let new = !path.exists();
        let doing = || format!("open {}", path.display());
        let mut options = File::options();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(path).map_err(OpenError::io(doing()))?;
        let mut floor =
            Self { file, path: path.to_path_buf(), seq: 0, next: 0, unsynced: false, synced_at: Instant::now() };
        if new {
            floor.init().map_err(OpenError::io(doing()))?;
        }
        let slots = [floor.read(0), floor.read(1)];
        floor.next = usize::from(slots[0] >= slots[1]);
        floor.seq = slots.into_iter().flatten().max().ok_or_else(|| OpenError::Damaged {
            path: path.to_path_buf(),
            why: "neither copy of the number in it is readable".to_owned(),
            accept: Some(format!("delete {}", path.display())),
        })?;
        Ok(floor)
    }

    fn init(&mut self) -> io::Result<()> {
        for at in SLOTS_AT {
            self.file.write_all_at(&encode(0), at)?;
        }
        self.file.sync_all()?;
        sync_dir(self.path.parent().unwrap_or(Path::new(".")))
    }

    fn read(&self, slot: usize) -> Option<u64> {
        let mut bytes = [0; SLOT];
        self.file.read_exact_at(&mut bytes, SLOTS_AT[slot]).ok()?;
        let seq = u64::from_be_bytes(bytes[4..12].try_into().ok()?);
        (encode(seq) == bytes).then_some(seq)
    }

    /// Everything up to this sequence number was synced.
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Compares what the database opened with.
    pub fn check(&self, db: &Path, latest: u64) -> Result<(), OpenError> {
        if latest >= self.seq {
            return Ok(());
        }
        Err(OpenError::Damaged {
            path: db.to_path_buf(),
            why: format!(
                "it ends at sequence number {latest}, but {} was synced, so the newest {} rows are lost",
                self.seq,
                self.seq - latest
            ),
            accept: Some(format!("delete {}", self.path.display())),
        })
    }

    /// Notes that everything up to `seq` is synced. Not durable by itself.
    pub fn record(&mut self, seq: u64) -> io::Result<()> {
        if seq > self.seq {
            self.file.write_all_at(&encode(seq), SLOTS_AT[self.next])?;
            self.seq = seq;
            self.next ^= 1;
            self.unsynced = true;
        }
        Ok(())
    }

    /// Makes the number durable when that is due.
    pub fn sync_if_due(&mut self) -> io::Result<()> {
        if self.unsynced && self.synced_at.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Makes the number durable.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.unsynced {
            self.file.sync_data()?;
            self.unsynced = false;
        }
        self.synced_at = Instant::now();
        Ok(())
    }
}

fn encode(seq: u64) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..4].copy_from_slice(&MAGIC);
    slot[4..12].copy_from_slice(&seq.to_be_bytes());
    let crc = crc32fast::hash(&slot[..12]);
    slot[12..].copy_from_slice(&crc.to_be_bytes());
    slot
}
