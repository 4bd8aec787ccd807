//! States that a batch of runs must reach. A state never reached is a hole in the workload, not good luck.

use crate::client::session::Session;
use std::collections::{BTreeMap, BTreeSet};
use wukong_core::counters::Counters;
use wukong_core::output::CloseReason;

macro_rules! seen {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a run saw.
        #[derive(Clone, Debug, Default)]
        pub struct Seen {
            $($(#[$doc])* pub $name: u64,)*
            pub sessions: BTreeSet<Session>,
            pub counters: BTreeMap<&'static str, u64>,
            pub closes: BTreeMap<CloseReason, u64>,
        }

        impl Seen {
            fn own(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            fn add_own(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

seen! {
    starts,
    crashes,
    crash_mid_drain,
    crash_with_unsynced,
    crash_lost_batches,
    crash_kept_unsynced,
    halts,
    stops,
    stop_with_unsynced,
    faults,
    clock_back,
    syncs,
    batches_merged,
    sync_stalled,
    sync_failed,
    disk_full,
    read_failed,
    completions_while_busy,
    held_inputs,
    chunked,
    sends,
    resends,
    pipelined,
    retried_after_error,
    garbage,
    kicked,
    disconnects,
    pushes_between_shards,
    long_quiet,
    /// From the history.
    resend_answered_by_dedup,
    resend_after_crash_answered,
    acked_after_crash,
    recv_repeated,
    recv_after_restart,
    conflict_refused,
    sync_answered,
    conversation_answered,
}

impl Seen {
    pub fn add_counters(&mut self, counters: &Counters) {
        for (name, value) in counters.iter() {
            *self.counters.entry(name).or_default() += value;
        }
    }

    pub fn closed(&mut self, reason: CloseReason) {
        *self.closes.entry(reason).or_default() += 1;
    }

    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        self.add_own(other);
        for (name, value) in &other.counters {
            *self.counters.entry(name).or_default() += value;
        }
        for (reason, value) in &other.closes {
            *self.closes.entry(*reason).or_default() += value;
        }
    }

    /// All names with their counts.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64)> {
        let own = self.own().into_iter().map(|(n, v)| (n.to_owned(), v));
        let core = self.counters.iter().map(|(n, v)| (format!("core.{n}"), *v));
        let closes = self.closes.iter().map(|(r, v)| (format!("close.{r:?}"), *v));
        own.chain(core).chain(closes).collect()
    }

    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.all().into_iter().find(|(n, _)| n == name).map_or(0, |(_, v)| v)
    }
}

/// Must be reached by 200 runs with all fault families.
pub const REQUIRED: &[&str] = &[
    "crash_mid_drain",
    "crash_with_unsynced",
    "crash_lost_batches",
    "crash_kept_unsynced",
    "halts",
    "stops",
    "clock_back",
    "batches_merged",
    "sync_stalled",
    "sync_failed",
    "disk_full",
    "read_failed",
    "chunked",
    "resends",
    "pipelined",
    "retried_after_error",
    "garbage",
    "pushes_between_shards",
    "long_quiet",
    "resend_answered_by_dedup",
    "resend_after_crash_answered",
    "recv_repeated",
    "recv_after_restart",
    "conflict_refused",
    "sync_answered",
    "conversation_answered",
    "core.dedup_hits",
    "core.dedup_loads",
    "core.recv_retries",
    "core.recvacks",
    "core.sendacks_refused",
    "core.sendacks_timed_out",
    "core.channels_settled",
    "core.channels_evicted",
    "core.violations",
    "close.Idle",
    "close.PeerDisconnect",
    "close.Violation",
    "close.Kicked",
    "close.Stopping",
];

/// Good to reach; reported, not required.
pub const RARE: &[&str] = &[
    "stop_with_unsynced",
    "held_inputs",
    "kicked",
    "disconnects",
    "core.mail_waits",
    "core.queue_refusals",
    "core.late_completions",
    "core.untracked_recvs",
    "close.SlowReader",
    "close.ConnectRefused",
    "close.ConnectUnavailable",
    "close.FirstFrameTimeout",
    "close.AuthTimeout",
];

/// Names of a list that were never seen.
#[must_use]
pub fn missing<'a>(seen: &Seen, list: &[&'a str]) -> Vec<&'a str> {
    let all: BTreeMap<String, u64> = seen.all().into_iter().collect();
    list.iter().copied().filter(|n| all.get(*n).copied().unwrap_or_default() == 0).collect()
}
