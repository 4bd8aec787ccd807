//! The server seen from outside: its processor time and memory in /proc, its counters in /metrics.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use crate::client::http::Http;

/// What /proc counts processor time in; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// The process `pid`.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: u32) -> io::Result<Process> {
        let process = Process { pid };
        process.cpu_seconds()?;
        Ok(process)
    }

    /// This process.
    #[must_use]
    pub fn own() -> Process {
        Process { pid: std::process::id() }
    }

    /// User and system time of all threads, those that ended included.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_seconds(&self) -> io::Result<f64> {
        cpu_of(&fs::read_to_string(format!("/proc/{}/stat", self.pid))?)
    }

    /// The same by thread name.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_by_thread(&self) -> io::Result<BTreeMap<String, f64>> {
        let mut threads = BTreeMap::new();
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread may end at any moment.
            let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
                continue;
            };
            let name = stat.split_once('(').and_then(|(_, s)| s.rsplit_once(')')).map_or("?", |(name, _)| name);
            *threads.entry(name.to_owned()).or_default() += cpu_of(&stat)?;
        }
        Ok(threads)
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn resident_bytes(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(kib_of(&status, "VmRSS:").unwrap_or(0) * 1024)
    }
}

fn cpu_of(stat: &str) -> io::Result<f64> {
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    match (fields.get(11).and_then(|f| f.parse::<f64>().ok()), fields.get(12).and_then(|f| f.parse::<f64>().ok())) {
        (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no times")),
    }
}

fn kib_of(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label)?.split_whitespace().next()?.parse().ok())
}

/// Kernel memory that the whole machine uses for sockets: slab caches and socket buffers, in bytes.
#[must_use]
pub fn kernel_socket_bytes() -> Option<u64> {
    let slab = kib_of(&fs::read_to_string("/proc/meminfo").ok()?, "Slab:")? * 1024;
    let sockets = fs::read_to_string("/proc/net/sockstat").ok()?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:"))?;
    let pages: u64 = tcp.split_whitespace().last()?.parse().ok()?;
    Some(slab + pages * 4096)
}

/// Counters of a Prometheus exposition, summed over their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// What `http` answers at /metrics; none if there is no such page.
    pub fn read(http: &mut Http) -> Option<Counters> {
        http.get("/metrics").ok().map(|text| Counters::parse(&text))
    }

    fn parse(text: &str) -> Counters {
        let mut counters = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or("");
            let counts = ["_total", "_sum", "_count"].iter().any(|end| name.ends_with(end));
            let rest = line.rsplit_once('}').map_or(&line[name.len()..], |(_, rest)| rest);
            if let (true, Some(Ok(value))) = (counts, rest.split_whitespace().next().map(str::parse::<f64>)) {
                *counters.entry(name.to_owned()).or_default() += value;
            }
        }
        Counters(counters)
    }

    /// What was added since `before`, where anything was.
    #[must_use]
    pub fn since(&self, before: &Counters) -> BTreeMap<String, f64> {
        let added = |(name, now): (&String, &f64)| (name.clone(), now - before.0.get(name).unwrap_or(&0.0));
        self.0.iter().map(added).filter(|(_, added)| *added != 0.0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels() {
        let before = Counters::parse("# TYPE a counter\na_total{shard=\"0\"} 1\na_total{shard=\"1\"} 2\nb_total 7\n");
        let text = "a_total{shard=\"0\",x=\"} 9\"} 5 1700000\na_total 2.5\nb_total 7\ngauge 4\nnoise\nc_count 3\n";
        let added = Counters::parse(text).since(&before);
        let added: Vec<(&str, f64)> = added.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(added, [("a_total", 4.5), ("c_count", 3.0)]);
    }

    #[test]
    fn a_process_has_time_and_memory() {
        let own = Process::own();
        let before = own.cpu_seconds().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed().as_millis() < 60 {}
        assert!(own.cpu_seconds().unwrap() > before);
        assert!(own.resident_bytes().unwrap() > 100_000);
        assert!(!own.cpu_by_thread().unwrap().is_empty());
        assert!(Process::of(u32::MAX).is_err());
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert!((cpu_of(stat).unwrap() - 2.0).abs() < 1e-9);
    }
}
