//! The world of tier A: shards, disk, clocks, streams and clients under one event heap. No executor, no threads.

pub mod faults;
pub mod launch;
pub mod net;
pub mod process;
pub mod quiet;
pub mod storage;
pub mod tap;
pub mod tap_recv;
pub mod truth;

use crate::client::Device;
use crate::client::session::KeyPair;
use crate::clock::{Clock, SEC};
use crate::hash::Trace;
use crate::heap::Heap;
use crate::history::{Event as Happened, History, LinkIx, Violation};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::sometimes::Seen;
use net::Link;
use process::{Armed, Process};
use storage::Storage;
use wukong_core::ids::OpId;
use wukong_core::store::Load;
use wukong_core::{Completion, Input};

/// What waits in the heap. Events of a process name its incarnation; those of an earlier one mean nothing.
#[derive(Debug)]
pub enum Event {
    /// A shard handles what arrived.
    Turn {
        shard: u8,
        life: u64,
    },
    /// `poll_timeout` has passed.
    Wake {
        shard: u8,
        life: u64,
    },
    /// An input arrives at a shard.
    Arrive {
        shard: u8,
        life: u64,
        input: Input,
    },
    /// A load is answered from the disk as it is then.
    LoadDone {
        shard: u8,
        life: u64,
        op: OpId,
        load: Load,
    },
    SyncDone {
        life: u64,
    },
    LazySync {
        life: u64,
    },
    /// The head of a stream arrives at the server, or at the client.
    Up {
        link: LinkIx,
    },
    Down {
        link: LinkIx,
    },
    /// The kernel took bytes.
    Credit {
        link: LinkIx,
    },
    /// The server closes what the core asked for.
    ServerClose {
        link: LinkIx,
    },
    /// A device does something of its own accord.
    Act {
        device: u32,
        life: u32,
    },
    /// A device connects if it still wants to.
    Reconnect {
        device: u32,
        life: u32,
    },
    Ping {
        device: u32,
        link: LinkIx,
    },
    Step {
        index: u32,
    },
    Token {
        index: u32,
    },
    Again {
        device: u32,
        intent: crate::history::IntentIx,
    },
    Fault {
        index: u32,
        ends: bool,
    },
    /// The armed crash waited long enough.
    CrashNow {
        arm: u64,
    },
    /// The process exits (after a halt or a stop) or starts.
    Exit {
        life: u64,
    },
    Boot {
        life: u64,
    },
    Check {
        phase: u8,
    },
}

/// How a run is observed.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Gather the history and judge it.
    pub oracles: bool,
    /// Print events with these numbers.
    pub print: Option<(u64, u64)>,
    /// Keep the trace hash every so many events; 0 = never.
    pub checkpoints: u64,
    #[cfg(feature = "mutants")]
    pub mutant: Option<wukong_core::mutants::Mutant>,
}

impl Default for Mode {
    fn default() -> Self {
        Self {
            oracles: true,
            print: None,
            checkpoints: 0,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Generators, one per purpose.
#[derive(Clone, Debug)]
pub struct Rngs {
    net: Rng,
    mail: Rng,
    disk: Rng,
    turn: Rng,
    fault: Rng,
    pub clients: Rng,
}

/// The phases of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Clients and faults.
    Active,
    /// Faults ended; clients reconnect and get their answers.
    Settling,
    /// Final checks are under way.
    Checking,
    Over,
}

/// One run.
pub struct World<M> {
    pub now: u64,
    heap: Heap<Event>,
    pub sc: Scenario,
    pub mode: Mode,
    pub rng: Rngs,
    clock: Clock,
    process: Process<M>,
    pub storage: Storage,
    pub links: Vec<Link>,
    pub devices: Vec<Device>,
    keys: Vec<KeyPair>,
    /// Tokens to store again after a refusal: user, device flag, token.
    pub tokens_due: Vec<(crate::history::UserIx, u8, wukong_proto::Text)>,
    pub history: History,
    pub seen: Seen,
    pub phase: Phase,
    armed: Option<Armed>,
    arms: u64,
    truth: truth::Truth,
    quiet: quiet::Progress,
    /// Found while running, before the oracles judge.
    pub found: Vec<Violation>,
    pub trace: Trace,
    /// Only what clients see.
    pub visible: Trace,
    pub checkpoints: Vec<u64>,
    /// Inputs handled by machines.
    pub handled: u64,
    pub popped: u64,
}

impl<M: Machine> World<M> {
    /// Runs until the run is over.
    pub fn run(&mut self) {
        while self.phase != Phase::Over && self.step() {}
    }

    /// One event; false when nothing is left.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.heap.take() else { return false };
        debug_assert!(at >= self.now, "time runs backwards");
        self.now = at;
        self.popped += 1;
        self.dispatch(event);
        if self.phase == Phase::Active && self.active_is_over() {
            self.begin_quiet();
        }
        true
    }

    fn active_is_over(&self) -> bool {
        let length = self.sc.run.length.0;
        self.now >= length && (self.handled >= self.sc.run.events || self.now >= 10 * length)
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Turn { shard, life } if self.lives(life) => self.turn(shard),
            Event::Wake { shard, life } if self.lives(life) => self.wake(shard),
            Event::Arrive { shard, life, input } if self.lives(life) => self.arrive(shard, input),
            Event::LoadDone { shard, life, op, load } if self.lives(life) => self.load_done(shard, op, &load),
            Event::SyncDone { life } if self.lives(life) => self.sync_done(),
            Event::LazySync { life } if self.lives(life) => self.lazy_sync(),
            Event::Exit { life } if self.lives(life) => self.exit(),
            Event::Boot { life } if self.process.life == life => self.boot(),
            Event::Up { link } => self.up_arrives(link),
            Event::Down { link } => self.down_arrives(link),
            Event::Credit { link } => self.credit(link),
            Event::ServerClose { link } => self.server_closes(link),
            Event::Act { device, life } => self.act(device, life),
            Event::Reconnect { device, life } => self.reconnect(device, life),
            Event::Ping { device, link } => self.ping_timer(device, link),
            Event::Step { index } => self.scripted(index),
            Event::Token { index } => self.token_again(index),
            Event::Again { device, intent } => self.again(device, intent),
            Event::Fault { index, ends } => self.fault(index, ends),
            Event::CrashNow { arm } => self.crash_now(arm),
            Event::Check { phase } => self.check(phase),
            // Of an earlier process.
            Event::Turn { .. }
            | Event::Wake { .. }
            | Event::Arrive { .. }
            | Event::LoadDone { .. }
            | Event::SyncDone { .. }
            | Event::LazySync { .. }
            | Event::Exit { .. }
            | Event::Boot { .. } => {}
        }
    }

    pub(crate) fn later(&mut self, after: u64, event: Event) {
        self.heap.add(self.now + after, event);
    }

    pub(crate) fn happened(&mut self, event: Happened) {
        if self.mode.oracles {
            self.history.events.push((self.now, event));
        }
    }

    pub(crate) fn violation(&mut self, invariant: &'static str, what: String) {
        if self.found.len() < 20 {
            self.found.push(Violation { invariant, at: self.now, what });
        }
    }

    /// What the calendar of the process shows, for timestamps.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.clock.now(self.now).wall.0
    }

    /// The range of true time a timeout of the core may be late or early by, given pauses.
    #[must_use]
    pub fn slack(&self) -> u64 {
        2 * SEC + self.history.pause_max
    }

    pub(crate) fn deliver_completion(&mut self, shard: u8, op: OpId, completion: Completion) {
        self.arrive(shard, Input::Completed { op, completion });
    }
}

impl<M: Machine> World<M> {
    /// Adds the counters of the machines that still run.
    pub fn gather(&mut self) {
        self.gather_counters();
    }
}
