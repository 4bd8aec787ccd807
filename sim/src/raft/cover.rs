//! States that a batch of runs must reach, and how often they were.

use std::collections::BTreeMap;

/// Counts by name.
#[derive(Clone, Debug, Default)]
pub struct Cover(BTreeMap<&'static str, u64>);

/// What each batch must have seen at least once.
pub const REQUIRED: &[&str] = &[
    "elected",
    "campaigned",
    "stepped down",
    "transfer",
    "truncate",
    "rebase",
    "compact",
    "joint",
    "joint left",
    "fence",
    "lead",
    "handover",
    "handover failed",
    "settled",
    "woken",
    "read ready",
    "read refused",
    "lease read",
    "unknown outcome",
    "refused Busy",
    "refused NotLeader",
    "crash",
    "crash lost writes",
    "crash kept unsynced writes",
    "wiped",
    "damaged",
    "repaired",
    "sync failed",
    "read fault",
    "snapshot resumed",
    "pre-vote refused",
    "stale epoch refused",
    "stranger served",
    "removed told",
    "paused",
    "recreated",
    "slot leader changed while electing",
    "commit without the leader's disk",
    "leader outside the voters",
];

impl Cover {
    pub fn hit(&mut self, name: &'static str) {
        *self.0.entry(name).or_default() += 1;
    }

    pub fn add_to(&mut self, name: &'static str, n: u64) {
        *self.0.entry(name).or_default() += n;
    }

    pub fn add(&mut self, other: &Self) {
        for (name, n) in &other.0 {
            *self.0.entry(name).or_default() += n;
        }
    }

    #[must_use]
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Those of a list that were never seen.
    #[must_use]
    pub fn missing(&self, required: &[&'static str]) -> Vec<&'static str> {
        required.iter().copied().filter(|n| self.get(n) == 0).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(n, c)| (*n, *c))
    }
}
