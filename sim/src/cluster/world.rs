//! The world: nodes, wires, clients, and the heap of what happens next.

use super::clients::Device;
use super::conns::{Conn, Down, Up};
use super::external::Heard;
use super::judge::Truth;
use super::node::Node;
use super::plan::Plan;
use super::quiet::Quiet;
use super::shell::Shell;
use super::tokens::Tokens;
use super::wires::{Parcel, Wire};
use crate::client::session::KeyPair;
use crate::clock::{MS, SEC};
use crate::hash::Trace;
use crate::heap::Heap;
use crate::history::{ChannelIx, Event as Happened, History, Violation};
use crate::raft::cover::Cover;
use crate::rng::Rng;
use wukong_core::Input;
use wukong_core::ids::OpId;
use wukong_core::store::Load;

/// What waits in the heap. Events of a process name its life; those of an earlier one mean nothing.
#[derive(Debug)]
pub enum Event {
    Turn {
        node: usize,
        shard: u8,
        life: u64,
    },
    Wake {
        node: usize,
        shard: u8,
        life: u64,
    },
    Arrive {
        node: usize,
        shard: u8,
        life: u64,
        input: Input,
    },
    LoadDone {
        node: usize,
        shard: u8,
        life: u64,
        op: OpId,
        load: Load,
    },
    SyncDone {
        node: usize,
        life: u64,
    },
    LazySync {
        node: usize,
        life: u64,
    },
    /// The process ends of itself.
    Exit {
        node: usize,
        life: u64,
    },
    Boot {
        node: usize,
    },
    Dial {
        wire: usize,
    },
    LinkUp {
        wire: usize,
        session: u64,
        side: usize,
    },
    LinkDown {
        wire: usize,
        session: u64,
        side: usize,
    },
    Frame {
        wire: usize,
        side: usize,
        parcel: Parcel,
    },
    Doubt {
        wire: usize,
        session: u64,
    },
    Up {
        conn: u32,
        item: Up,
    },
    Down {
        conn: u32,
        item: Down,
    },
    Drained {
        conn: u32,
        bytes: u32,
    },
    ServerClose {
        conn: u32,
    },
    Act {
        device: u32,
    },
    Connect {
        device: u32,
        life: u32,
    },
    Begin(usize),
    End(usize),
    /// The operator asks for a deletion, which it did so many times before.
    Delete {
        channel: ChannelIx,
        tries: u32,
    },
    Check,
}

/// How a run is observed.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub oracles: bool,
    /// Print what happens from this many ms on, to that many.
    pub print: Option<(u64, u64)>,
    /// Seed of hash tables.
    pub hash: u64,
    /// Only the first node ever runs: a check of the checks.
    pub majority_dead: bool,
    #[cfg(feature = "mutants")]
    pub mutant: Option<wukong_core::mutants::Mutant>,
}

impl Default for Mode {
    fn default() -> Self {
        Self {
            oracles: true,
            print: None,
            hash: 0,
            majority_dead: false,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

/// Generators, one per purpose.
#[derive(Clone, Debug)]
pub struct Rngs {
    pub net: Rng,
    pub disk: Rng,
    pub turn: Rng,
    pub fault: Rng,
    pub clients: Rng,
}

/// See the module.
pub struct World {
    pub plan: Plan,
    pub mode: Mode,
    pub now: u64,
    pub heap: Heap<Event>,
    pub rng: Rngs,
    pub nodes: Vec<Node>,
    /// None: the heap runs the shards.
    pub shell: Option<Shell>,
    pub wires: Vec<Wire>,
    /// Latency between nodes is this many times higher.
    pub slow_net: u64,
    pub conns: Vec<Conn>,
    pub devices: Vec<Device>,
    pub key: KeyPair,
    /// Idle episodes in force.
    pub idle: u32,
    /// Episodes in force, and the node each hit.
    pub active: Vec<Option<usize>>,
    pub history: History,
    pub truth: Truth,
    pub tokens: Tokens,
    pub quiet: Quiet,
    pub cover: Cover,
    pub trace: Trace,
    /// Only what clients see.
    pub visible: Trace,
    pub violations: Vec<Violation>,
    /// What clients read, as [`External`](super::external::External) wants it.
    pub heard: Vec<(u32, Heard)>,
    /// Everybody was connected once: scripts begin.
    pub assembled: bool,
    /// Inputs handled by shards.
    pub handled: u64,
    /// When a second began, and how many had been handled by then.
    pace: (u64, u64),
}

impl World {
    #[must_use]
    pub fn new(plan: Plan, mode: Mode) -> Self {
        Self::with(plan, mode, None)
    }

    /// With a shell that runs the shards, if there is one.
    #[must_use]
    pub fn with(plan: Plan, mode: Mode, shell: Option<Shell>) -> Self {
        let fork = |name| Rng::fork(plan.seed, name, 0);
        let mut key = fork("client keys");
        let mut drift = fork("drift");
        let most = plan.drift;
        let n = plan.nodes as usize;
        let pairs = (0..n).flat_map(|a| (a + 1..n).map(move |b| Wire::new(a, b)));
        let mut world = Self {
            now: MS,
            heap: Heap::default(),
            rng: Rngs {
                net: fork("net"),
                disk: fork("disk"),
                turn: fork("turn"),
                fault: fork("fault"),
                clients: fork("clients"),
            },
            nodes: (0..n).map(|_| Node::new(drift.between(0, 2 * most) as i64 - most as i64)).collect(),
            wires: pairs.collect(),
            shell,
            slow_net: 1,
            conns: Vec::new(),
            devices: Vec::new(),
            key: KeyPair::new(key.bytes32()),
            idle: 0,
            active: vec![None; plan.episodes.len()],
            history: History::default(),
            truth: Truth::default(),
            tokens: Tokens::default(),
            quiet: Quiet::default(),
            cover: Cover::default(),
            trace: Trace::default(),
            visible: Trace::default(),
            violations: Vec::new(),
            heard: Vec::new(),
            assembled: false,
            handled: 0,
            pace: (0, 0),
            mode,
            plan,
        };
        world.populate();
        world.truth = Truth::new(n, world.history.channels.len());
        for node in 0..n {
            world.boot(node);
        }
        for (i, e) in world.plan.episodes.iter().enumerate() {
            world.heap.add(e.at * MS, Event::Begin(i));
        }
        world.heap.add(250 * MS, Event::Check);
        world
    }

    pub fn later(&mut self, after: u64, event: Event) {
        self.heap.add(self.now + after, event);
    }

    pub fn violation(&mut self, invariant: &'static str, what: String) {
        if self.violations.len() < 16 {
            self.violations.push(Violation { invariant, at: self.now, what });
        }
    }

    pub fn happened(&mut self, event: Happened) {
        self.history.events.push((self.now, event));
    }

    #[must_use]
    pub fn printing(&self) -> bool {
        self.mode.print.is_some_and(|(from, to)| (from..=to).contains(&(self.now / MS)))
    }

    pub fn say(&self, what: &dyn std::fmt::Display) {
        if self.printing() {
            println!("{:>10.3} {what}", self.now as f64 / MS as f64);
        }
    }

    /// Runs until `until`, or until something is violated.
    pub fn run_to(&mut self, until: u64) {
        while self.violations.is_empty() && self.heap.next_at().is_some_and(|at| at <= until) {
            let Some((at, event)) = self.heap.take() else { break };
            let (since, handled) = self.pace;
            if at > since + SEC {
                self.pace = (at, self.handled);
            } else if self.handled > handled + 400_000 {
                self.violation("storm", format!("{} inputs within a second", self.handled - handled));
            }
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].alive && self.nodes[node].life == life
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { node, life, .. }
            | Event::Wake { node, life, .. }
            | Event::Arrive { node, life, .. }
            | Event::LoadDone { node, life, .. }
            | Event::SyncDone { node, life }
            | Event::LazySync { node, life }
            | Event::Exit { node, life }
                if !self.lives(node, life) => {}
            Event::Turn { node, shard, .. } => self.turn(node, shard),
            Event::Wake { node, shard, .. } => self.wake(node, shard),
            Event::Arrive { node, shard, input, .. } => self.arrive(node, shard, input),
            Event::LoadDone { node, shard, op, load, .. } => self.load_done(node, shard, op, &load),
            Event::SyncDone { node, .. } => self.sync_done(node),
            Event::LazySync { node, .. } => self.lazy_sync(node),
            Event::Exit { node, .. } => self.exit(node),
            Event::Boot { node } => self.boot(node),
            Event::Dial { wire } => self.dial(wire),
            Event::LinkUp { wire, session, side } => self.link_up(wire, session, side),
            Event::LinkDown { wire, session, side } => self.link_down(wire, session, side),
            Event::Frame { wire, side, parcel } => self.frame(wire, side, parcel),
            Event::Doubt { wire, session } => self.doubt(wire, session),
            Event::Up { conn, item } => self.up(conn, item),
            Event::Down { conn, item } => self.down(conn, item),
            Event::Drained { conn, bytes } => self.drained(conn, bytes),
            Event::ServerClose { conn } => self.server_closes(conn),
            Event::Act { device } => self.act(device),
            Event::Connect { device, life } => self.connect(device, life),
            Event::Begin(e) => self.begin_episode(e),
            Event::End(e) => self.end_episode(e),
            Event::Delete { channel, tries } => self.delete(channel, tries),
            Event::Check => {
                self.check_all();
                self.later(250 * MS, Event::Check);
            }
        }
    }
}
