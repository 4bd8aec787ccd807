//! What the reactor drives, and where the effects of it go. `wukong_core::Shard` is the real machine.

use wukong_core::ids::{ConnId, OpId};
use wukong_core::store::{Load, WriteBatch};
use wukong_core::time::{Instant, Now};
use wukong_core::{Completion, Input, Output, PersistClass, Shard};

/// A pure machine: the face of a shard as far as the reactor uses it.
pub trait Machine: Send + 'static {
    fn handle(&mut self, now: Now, input: Input);
    fn poll_output(&mut self) -> Option<Output>;
    /// When to hand in `Input::Deadline` at the latest.
    fn poll_timeout(&self) -> Option<Instant>;
    /// False: no new work.
    fn wants_input(&self) -> bool;
    /// False: this connection's bytes stay in its socket for now.
    fn wants_bytes(&self, conn: ConnId) -> bool;
    fn state(&self) -> MachineState;
    fn sample(&self) -> Sample;
}

/// What the world outside waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MachineState {
    pub ready: bool,
    pub stopped: bool,
}

/// What metrics show of a machine.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Monotonic, by stable name.
    pub counters: Vec<(&'static str, u64)>,
    pub gauges: Vec<(&'static str, u64)>,
}

impl Machine for Shard {
    fn handle(&mut self, now: Now, input: Input) {
        Self::handle(self, now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Self::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Self::poll_timeout(self).map(|(at, _)| at)
    }

    fn wants_input(&self) -> bool {
        Self::wants_input(self)
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        Self::wants_bytes(self, conn)
    }

    fn state(&self) -> MachineState {
        let view = self.view();
        MachineState { ready: view.ready(), stopped: view.stopped() }
    }

    fn sample(&self) -> Sample {
        let view = self.view();
        Sample {
            counters: view.counters().iter().collect(),
            gauges: vec![
                ("connections", view.connections() as u64),
                ("users_online", view.users_online() as u64),
                ("channels", view.channels() as u64),
            ],
        }
    }
}

/// Where a shard's effects go. Completions that are not returned at once come through the shard's inbox.
pub trait Store: Send + 'static {
    fn persist(&mut self, op: OpId, batch: WriteBatch, class: PersistClass);
    /// Sees every persist that was started before it.
    fn load(&mut self, op: OpId, load: Load) -> Option<Completion>;
}
