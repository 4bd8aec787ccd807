//! Looks through the WAL before RocksDB replays it (cluster-and-raft 4.25).
//!
//! RocksDB's own recovery (11.8, TolerateCorruptedTailRecords) is not strict enough in one place and too strict in another. It
//! skips blocks of zeros and stops without an error at a damaged length near the end of a file, so acknowledged records can
//! vanish without a word. It refuses a last record whose length reached the disk before its content, which is what an honest
//! power cut may leave behind. And a flipped bit in a record's type can send it into an endless loop.
//!
//! The storage thread never has more than one unsynced batch in the WAL ([`super::thread`]). So whatever is damaged was
//! synced, except the last record of the last file. If that one is damaged and nothing valid begins behind it, and the
//! floor does not reach beyond it, it was never acknowledged and is cut off. Anything else is damage.

use super::error::OpenError;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

mod crc32c;
mod log;

#[cfg(test)]
pub use crc32c::crc32c;
use log::{Scan, Stop};

/// What the WAL holds.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub bytes: u64,
    /// Last sequence number in it; `None` when it has no record.
    pub last_seq: Option<u64>,
    /// Bytes of a torn record that were cut off.
    pub cut: u64,
}

/// Checks all WAL files of the database and cuts a torn record off the end.
pub fn check(db: &Path, floor: u64) -> Result<Report, OpenError> {
    let files = files(db).map_err(OpenError::io(format!("list {}", db.display())))?;
    let mut report = Report { files: files.len(), ..Report::default() };
    for (n, path) in files.iter().enumerate() {
        let scan = scan(path).map_err(OpenError::io(format!("read {}", path.display())))?;
        report.bytes += scan.bytes;
        report.last_seq = scan.last_seq.or(report.last_seq);
        let Stop::Bad(bad) = scan.stop else { continue };
        let damaged = |then: &str| {
            OpenError::damaged(db, format!("{} has {} at byte {}, {then}", path.display(), bad.what, bad.at))
        };
        if let Some(after) = bad.valid_after {
            return Err(damaged(&format!("and valid records again from byte {after}")));
        }
        if n + 1 < files.len() {
            return Err(damaged("and more of the log follows in the next file"));
        }
        if let Some(last) = report.last_seq.filter(|last| *last < floor) {
            return Err(damaged(&format!("behind sequence number {last}, but everything up to {floor} was synced")));
        }
        cut(path, bad.at).map_err(OpenError::io(format!("cut the torn end off {}", path.display())))?;
        report.cut = scan.bytes - bad.at;
        tracing::warn!(
            file = %path.display(), at = bad.at, bytes = report.cut, what = bad.what,
            "cut off the last record of the log: it was being written when the power failed and was never acknowledged"
        );
    }
    Ok(report)
}

/// WAL files, oldest first.
fn files(db: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(db) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|e| e.to_str())) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn scan(path: &Path) -> io::Result<Scan> {
    let mut file = File::open(path)?;
    let mut scan = Scan::default();
    let mut buffer = vec![0; 32 * log::BLOCK];
    loop {
        let n = fill(&mut file, &mut buffer)?;
        for block in buffer[..n].chunks(log::BLOCK) {
            scan.block(block);
        }
        // A short read ends on a short block; a full one may still be the last.
        if n < buffer.len() || scan.is_decided() {
            scan.end();
            return Ok(scan);
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buffer.len() {
        match file.read(&mut buffer[n..]) {
            Ok(0) => break,
            Ok(more) => n += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}

fn cut(path: &Path, len: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(len)?;
    file.sync_all()
}
