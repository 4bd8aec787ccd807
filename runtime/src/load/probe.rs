//! The machine under the figures: what it is, what a sync and a round trip cost on it right now.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Microseconds at the median and the 99th percentile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    pub p50: u64,
    pub p99: u64,
}

impl Spread {
    fn of(mut samples: Vec<Duration>) -> Spread {
        samples.sort_unstable();
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_micros() as u64;
        Spread { p50: at(0.5), p99: at(0.99) }
    }

    /// As JSON.
    #[must_use]
    pub fn json(self) -> Value {
        json!({ "p50_us": self.p50, "p99_us": self.p99 })
    }
}

/// fdatasync after appending 4 KiB to a file in `dir`: 1,000 times, or for two seconds.
///
/// # Errors
/// The file cannot be written.
pub fn sync_cost(dir: &Path) -> io::Result<Spread> {
    let path = dir.join("sync-probe");
    let mut file = File::create(&path)?;
    let (block, begin, mut samples) = ([0xA5; 4096], Instant::now(), Vec::new());
    while samples.len() < 1000 && begin.elapsed() < Duration::from_secs(2) {
        file.write_all(&block)?;
        let start = Instant::now();
        file.sync_data()?;
        samples.push(start.elapsed());
    }
    fs::remove_file(path)?;
    Ok(Spread::of(samples))
}

/// A round trip of 256 bytes between two threads over loopback.
///
/// # Errors
/// There is no loopback.
pub fn round_trip() -> io::Result<Spread> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || {
        let mut block = [0; 256];
        while far.read_exact(&mut block).is_ok() && far.write_all(&block).is_ok() {}
    });
    let (mut block, mut samples) = ([0; 256], Vec::new());
    for _ in 0..2000 {
        let start = Instant::now();
        near.write_all(&block)?;
        near.read_exact(&mut block)?;
        samples.push(start.elapsed());
    }
    drop(near);
    let _ = echo.join();
    Ok(Spread::of(samples))
}

/// Processor, kernel, and how busy the machine was with other work.
#[must_use]
pub fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model =
        cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map_or("?", |(_, m)| m.trim());
    json!({
        "processor": model,
        "processors": cpuinfo.lines().filter(|l| l.starts_with("processor")).count(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_before": read("/proc/loadavg").split(' ').next().and_then(|l| l.parse::<f64>().ok()),
        "version": env!("CARGO_PKG_VERSION"),
        "optimised": !cfg!(debug_assertions),
    })
}

/// The kind of file system that holds `dir`.
#[must_use]
pub fn file_system(dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| dir.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len())
        .map_or("?", |(_, kind)| kind);
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_measure_something() {
        let trip = round_trip().unwrap();
        assert!(trip.p50 <= trip.p99 && trip.p99 > 0);
        assert_ne!(file_system(Path::new("/")), "?");
        assert_ne!(machine()["processors"], 0);
        let spread = Spread::of((1..=100).map(Duration::from_micros).collect());
        assert_eq!(spread, Spread { p50: 50, p99: 99 });
    }
}
