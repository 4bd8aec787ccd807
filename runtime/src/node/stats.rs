//! Figures of the storage and of the links as metrics.

use crate::http::metrics::Metric;
use crate::peers::{PeerStatus, Peers};
use crate::storage::{LatencySample, Storage};

pub(super) fn of_storage(storage: &Storage) -> Vec<Metric> {
    let (s, g) = (storage.sample(), storage.gauges());
    let counter = |name: &str, help, value: u64| {
        Metric::counter(format_args!("wukongim_storage_{name}"), help).with("", value as f64)
    };
    let gauge =
        |name: &str, help, value: u64| Metric::gauge(format!("wukongim_storage_{name}"), help).with("", value as f64);
    vec![
        counter("batches", "Batches written; each merged what waited of all shards.", s.batches),
        counter("persists", "Writes of the shards.", s.persists),
        counter("rows", "Puts and deletes.", s.rows),
        counter("bytes", "Bytes of puts and deletes.", s.bytes),
        counter("syncs", "Syncs of the log.", s.syncs),
        counter("loads_inline", "Loads answered from memory.", s.loads_inline),
        counter("loads_queued", "Loads answered by a reader thread.", s.loads_queued),
        gauge("queue_ops", "Writes not yet taken by the storage thread.", s.queue_ops),
        gauge("queue_bytes", "Their bytes.", s.queue_bytes),
        gauge("failed", "1 when a write or sync failed: nothing is promised any more.", u64::from(s.failed)),
        gauge("block_cache_bytes", "Memory of cached blocks.", g.block_cache_bytes),
        gauge("memtable_bytes", "Memory of rows not yet in tables.", g.memtable_bytes),
        gauge("live_bytes", "Tables and blobs on disk.", g.live_bytes),
        gauge("writes_stopped", "Not 0: writes wait because compaction is behind.", g.writes_stopped),
        latency("wukongim_storage_write_seconds", "Time of a write into the database.", &s.write),
        latency("wukongim_storage_sync_seconds", "Time of a sync.", &s.sync),
    ]
}

pub(super) fn of_peers(peers: &Peers) -> Vec<Metric> {
    let counter = |(name, value): (&str, u64)| {
        Metric::counter(format_args!("wukongim_{name}"), "Counted by the links to other nodes.").with("", value as f64)
    };
    let mut metrics: Vec<Metric> = peers.sample().iter().map(counter).collect();
    let up = Metric::gauge("wukongim_peer_link_up", "1 while there is a link to that node.");
    let with = |metric: Metric, p: &PeerStatus| metric.with(&format!("node=\"{}\"", p.node), f64::from(p.up.is_some()));
    metrics.push(peers.status().iter().fold(up, with));
    metrics
}

/// Bucket n counts what took less than 2^n µs.
fn latency(name: &str, help: &'static str, sample: &LatencySample) -> Metric {
    let mut below = 0;
    let mut buckets = Vec::new();
    for (n, count) in sample.buckets.iter().enumerate() {
        below += count;
        // Every second power is fine enough.
        if n % 2 == 0 && n + 1 < sample.buckets.len() {
            buckets.push(((1_u64 << n) as f64 / 1e6, below));
        }
    }
    Metric::histogram(name, help, &buckets, below, sample.sum.as_secs_f64())
}
