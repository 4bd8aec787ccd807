//! Figures in the Prometheus text format.

use crate::reactor::inbox::ShardSample;
use std::fmt::Write;

/// One metric with its values by label set.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    name: String,
    help: &'static str,
    kind: &'static str,
    /// Labels as they stand between the braces, and the value.
    values: Vec<(String, f64)>,
}

impl Metric {
    /// A count that only grows; `_total` is put behind its name.
    #[must_use]
    pub fn counter(name: impl std::fmt::Display, help: &'static str) -> Self {
        Self { name: format!("{name}_total"), help, kind: "counter", values: Vec::new() }
    }

    #[must_use]
    pub fn gauge(name: impl Into<String>, help: &'static str) -> Self {
        Self { name: name.into(), help, kind: "gauge", values: Vec::new() }
    }

    /// Cumulative buckets (upper bound in seconds, count), with the count and the sum of all.
    #[must_use]
    pub fn histogram(name: &str, help: &'static str, buckets: &[(f64, u64)], count: u64, sum: f64) -> Self {
        let mut values: Vec<_> = buckets.iter().map(|(le, n)| (format!("_bucket{{le=\"{le}\"}}"), *n as f64)).collect();
        values.push(("_bucket{le=\"+Inf\"}".to_owned(), count as f64));
        values.push(("_sum".to_owned(), sum));
        values.push(("_count".to_owned(), count as f64));
        Self { name: name.to_owned(), help, kind: "histogram", values }
    }

    /// Adds a value; `labels` is empty or like `shard="0"`.
    #[must_use]
    pub fn with(mut self, labels: &str, value: f64) -> Self {
        let suffix = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        self.values.push((suffix, value));
        self
    }
}

/// The page.
#[must_use]
pub fn exposition(metrics: &[Metric]) -> String {
    let mut out = String::new();
    for m in metrics {
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", m.name, m.help, m.name, m.kind);
        for (suffix, value) in &m.values {
            let _ = writeln!(out, "{}{suffix} {value}", m.name);
        }
    }
    out
}

/// All figures of the shards, one metric per name.
#[must_use]
pub fn of_shards(shards: &[(usize, ShardSample)]) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    let mut add = |metric: Metric, labels: &str, value: u64| {
        let at = metrics.iter().position(|m| m.name == metric.name).unwrap_or_else(|| {
            metrics.push(metric);
            metrics.len() - 1
        });
        metrics[at].values.push((format!("{{{labels}}}"), value as f64));
    };
    for (shard, sample) in shards {
        let labels = format!("shard=\"{shard}\"");
        for (name, value) in sample.machine.counters.iter().copied().chain(sample.reactor.iter()) {
            add(
                Metric::counter(format_args!("wukongim_{name}"), "Counted by the shard since it started."),
                &labels,
                value,
            );
        }
        let wakes = Metric::counter("wukongim_wakes_by_other_shards", "Times mail woke the shard's thread.");
        add(wakes, &labels, sample.wakes_by_other_shards);
        for (name, value) in sample.machine.gauges.iter().copied() {
            add(Metric::gauge(format!("wukongim_{name}"), "Now, by shard."), &labels, value);
        }
        let waiting = |what: &str| Metric::gauge(format!("wukongim_{what}_waiting"), "Waiting in the shard's inbox.");
        add(waiting("mail"), &labels, sample.mail_waiting);
        add(waiting("calls"), &labels, sample.calls_waiting);
        add(waiting("peer_bytes"), &labels, sample.peer_bytes_waiting);
    }
    metrics
}

/// The process as the kernel sees it, where it says so.
#[must_use]
pub fn of_process() -> Vec<Metric> {
    let mut metrics = Vec::new();
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        if let Some(kib) = field("VmRSS:") {
            metrics.push(Metric::gauge("process_resident_memory_bytes", "Resident memory.").with("", kib * 1024.0));
        }
        if let Some(threads) = field("Threads:") {
            metrics.push(Metric::gauge("process_threads", "Threads.").with("", threads));
        }
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        metrics.push(Metric::gauge("process_open_fds", "Open files and sockets.").with("", files.count() as f64));
    }
    let build = Metric::gauge("wukongim_build_info", "Always 1.");
    metrics.push(build.with(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1.0));
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::machine::Sample;

    #[test]
    fn shards_share_a_metric() {
        let sample = |n| {
            let machine = Sample { counters: vec![("sends", n)], gauges: vec![("channels", 2 * n)] };
            ShardSample { machine, ..ShardSample::default() }
        };
        let page = exposition(&of_shards(&[(0, sample(1)), (1, sample(5))]));
        assert!(page.contains(
            "# TYPE wukongim_sends_total counter\nwukongim_sends_total{shard=\"0\"} 1\nwukongim_sends_total{shard=\"1\"} 5\n"
        ));
        assert!(page.contains("wukongim_channels{shard=\"1\"} 10\n"));
        assert_eq!(page.matches("# TYPE wukongim_sends_total").count(), 1);
    }

    #[test]
    fn histograms_are_cumulative_and_end_with_infinity() {
        let h = Metric::histogram("wukongim_sync_seconds", "Syncs.", &[(0.001, 2), (0.01, 5)], 6, 0.5);
        let page = exposition(&[h]);
        assert!(page.ends_with(
            "wukongim_sync_seconds_bucket{le=\"0.001\"} 2\nwukongim_sync_seconds_bucket{le=\"0.01\"} 5\n\
             wukongim_sync_seconds_bucket{le=\"+Inf\"} 6\nwukongim_sync_seconds_sum 0.5\nwukongim_sync_seconds_count 6\n"
        ));
    }
}
