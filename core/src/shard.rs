//! The shard: routes inputs to machines and drains their outputs. It decides nothing.

use crate::counters::Counters;
use crate::error::BootError;
use crate::ids::{Incarnation, NodeId, ShardId, StoreId};
use crate::input::Input;
use crate::output::Output;
use crate::rng::Seed;
use crate::time::{Instant, Now};
use wukong_proto::Text;

/// What the operator chose. Equal on all shards of a node but for `shard`.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub node: NodeId,
    pub shard: ShardId,
    pub shards: u8,
    pub slots: u16,
    /// Require a token that `/user/token` stored (semantics 3.2 step 2).
    pub token_auth: bool,
    /// Token of the manager uid; none = the manager uid needs no token.
    pub manager_token: Option<Text>,
    /// Clean rows each slot keeps in memory; results do not depend on it (architecture 2.1).
    pub overlay_rows_max: usize,
    /// Memory of recent message keys; results do not depend on it.
    pub dedup_bytes_max: usize,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            node: NodeId(1001 % 1024),
            shard: ShardId(0),
            shards: 1,
            slots: 64,
            token_auth: false,
            manager_token: None,
            overlay_rows_max: crate::limits::OVERLAY_ROWS_MAX,
            dedup_bytes_max: crate::limits::DEDUP_BYTES_MAX,
        }
    }
}

/// What the shell knows of the data directory. Everything else is read by the shard itself, with `Load`s.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    pub store: StoreId,
    /// Raised and synced by the shell before the shard is made (cluster-and-raft P8).
    pub incarnation: Incarnation,
}

/// Why `poll_timeout` names an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// The run queue is not empty.
    Run,
    Conn,
    Retry,
    Channel,
    Call,
    Stop,
}

/// One shard of a node: all protocol state, no IO.
#[derive(Clone, Debug)]
pub struct Shard {
    counters: Counters,
}

impl Shard {
    /// # Errors
    /// The configuration is impossible.
    pub fn new(_config: ShardConfig, _boot: Boot, _seed: Seed, _now: Now) -> Result<Self, BootError> {
        Ok(Self { counters: Counters::default() })
    }

    /// Total: never fails, never panics on outside bytes.
    pub fn handle(&mut self, _now: Now, _input: Input) {
        self.counters.inputs += 1;
    }

    /// The next output. Many inputs may be handled before a drain; what they caused is batched.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// When to hand in `Input::Deadline` at the latest, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        None
    }

    /// False: hand in no new work (connection bytes, connections, API calls); everything else always.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        true
    }

    /// For checks, metrics and admin; never for decisions elsewhere.
    #[must_use]
    pub fn view(&self) -> ShardView<'_> {
        ShardView { shard: self }
    }
}

/// A cheap read-only look at a shard.
#[derive(Clone, Copy)]
pub struct ShardView<'a> {
    shard: &'a Shard,
}

impl<'a> ShardView<'a> {
    /// All slots lead and calls are served.
    #[must_use]
    pub fn ready(&self) -> bool {
        false
    }

    /// A graceful stop has finished: nothing is owed, all connections are closed, nothing waits for the disk.
    #[must_use]
    pub fn stopped(&self) -> bool {
        false
    }

    /// A write failed: the shard makes no further promise and the process must end.
    #[must_use]
    pub fn halted(&self) -> bool {
        false
    }

    /// Open sockets.
    #[must_use]
    pub fn connections(&self) -> usize {
        0
    }

    /// Users with at least one authenticated connection, by user authority.
    #[must_use]
    pub fn users_online(&self) -> usize {
        0
    }

    /// Channels in memory.
    #[must_use]
    pub fn channels(&self) -> usize {
        0
    }

    #[must_use]
    pub fn counters(&self) -> &'a Counters {
        &self.shard.counters
    }
}
