//! What the world drives: a shard, or something that looks like one.

use wukong_core::counters::Counters;
use wukong_core::error::BootError;
use wukong_core::ids::ConnId;
use wukong_core::rng::Seed;
use wukong_core::time::{Instant, Now};
use wukong_core::{Boot, Input, Output, Shard, ShardConfig, TimerKind};

/// A look at a machine, for checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub ready: bool,
    pub stopped: bool,
    pub halted: bool,
    pub connections: usize,
    pub users_online: usize,
    pub channels: usize,
}

/// The five functions of a shard, and a look at it.
pub trait Machine: Sized {
    /// # Errors
    /// The configuration is impossible.
    fn start(config: ShardConfig, boot: Boot, seed: Seed, now: Now) -> Result<Self, BootError>;
    fn handle(&mut self, now: Now, input: Input);
    fn poll_output(&mut self) -> Option<Output>;
    fn poll_timeout(&self) -> Option<(Instant, TimerKind)>;
    fn wants_input(&self) -> bool;
    /// False: this connection's bytes stay in its socket for now.
    fn wants_bytes(&self, conn: ConnId) -> bool;
    fn look(&self) -> Look;
    fn counters(&self) -> &Counters;
}

impl Machine for Shard {
    fn start(config: ShardConfig, boot: Boot, seed: Seed, now: Now) -> Result<Self, BootError> {
        Self::new(config, boot, seed, now)
    }

    fn handle(&mut self, now: Now, input: Input) {
        Self::handle(self, now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        Self::poll_timeout(self)
    }

    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        Self::wants_bytes(self, conn)
    }

    fn look(&self) -> Look {
        let v = self.view();
        Look {
            ready: v.ready(),
            stopped: v.stopped(),
            halted: v.halted(),
            connections: v.connections(),
            users_online: v.users_online(),
            channels: v.channels(),
        }
    }

    fn counters(&self) -> &Counters {
        self.view().counters()
    }
}
