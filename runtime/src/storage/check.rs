//! The start-up self-check of the disk: values for whoever shows them, and a warning in words where one is due.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
/// Below this a busy node fills its disk within hours.
const FREE_MIN: u64 = 2 * GIB;
/// An acknowledgement costs one sync: beyond this people notice.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Faster than any device that keeps data without power.
const SYNC_UNLIKELY: Duration = Duration::from_micros(5);
/// Connections need one file each, RocksDB and the rest some hundreds.
const FILES_MIN: u64 = 4096;

/// Space on the disk of the data directory, for an unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    pub available: u64,
    pub total: u64,
}

/// # Errors
/// The file system does not tell.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let s = rustix::fs::statvfs(path)?;
    Ok(FreeSpace { available: s.f_bavail.saturating_mul(s.f_frsize), total: s.f_blocks.saturating_mul(s.f_frsize) })
}

impl FreeSpace {
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let short = self.available < FREE_MIN || self.available < self.total / 20;
        short.then(|| {
            format!(
                "{:.1} of {:.1} GiB are free on the disk of the data directory. When it is full the node stops: free some space or enlarge the disk.",
                gib(self.available),
                gib(self.total)
            )
        })
    }
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB as f64
}

/// Time of one small write and its sync, as each group of messages needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncLatency {
    pub p50: Duration,
    pub max: Duration,
}

/// Measures 32 appends of 4 KiB, each synced, in a file that is removed again.
///
/// # Errors
/// The directory cannot be written.
pub fn sync_latency(dir: &Path) -> io::Result<SyncLatency> {
    let path = dir.join("sync-check.tmp");
    let measured = measure(&path);
    let removed = fs::remove_file(&path);
    let latency = measured?;
    removed?;
    Ok(latency)
}

fn measure(path: &Path) -> io::Result<SyncLatency> {
    let file = File::create(path)?;
    let page = [0x5a; 4096];
    let mut times = [Duration::ZERO; 32];
    for (at, time) in (0u64..).zip(&mut times) {
        let start = Instant::now();
        file.write_all_at(&page, at * page.len() as u64)?;
        file.sync_data()?;
        *time = start.elapsed();
    }
    times.sort_unstable();
    Ok(SyncLatency { p50: times[times.len() / 2], max: times[times.len() - 1] })
}

impl SyncLatency {
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        if self.p50 > SYNC_SLOW {
            return Some(format!(
                "the disk of the data directory takes {} ms to make a write durable; every acknowledgement waits for that. Use a local SSD.",
                self.p50.as_millis()
            ));
        }
        (self.p50 < SYNC_UNLIKELY).then(|| {
            "the disk of the data directory claims to be durable at the speed of memory (tmpfs, or a disk that ignores sync): \
             acknowledged messages may be lost when the power fails."
                .to_owned()
        })
    }
}

/// How many files this process may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// In force now; `u64::MAX` = no limit.
    pub soft: u64,
    /// Up to here the process may raise it itself.
    pub hard: u64,
}

#[must_use]
pub fn file_limit() -> FileLimit {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    FileLimit { soft: limit.current.unwrap_or(u64::MAX), hard: limit.maximum.unwrap_or(u64::MAX) }
}

impl FileLimit {
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        (self.soft < FILES_MIN).then(|| {
            format!(
                "this process may open {} files only; each connection needs one. Raise the limit (ulimit -n, or LimitNOFILE= in the systemd unit).",
                self.soft
            )
        })
    }
}

/// All of the above, as the server shows it at start.
#[derive(Clone, Copy, Debug)]
pub struct SelfCheck {
    pub space: FreeSpace,
    pub sync: SyncLatency,
    pub files: FileLimit,
}

impl SelfCheck {
    /// Takes 32 syncs: a few milliseconds on an SSD, half a second on a turning disk.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn run(dir: &Path) -> io::Result<Self> {
        Ok(Self { space: free_space(dir)?, sync: sync_latency(dir)?, files: file_limit() })
    }

    pub fn warnings(&self) -> impl Iterator<Item = String> {
        [self.space.warning(), self.sync.warning(), self.files.warning()].into_iter().flatten()
    }
}
