//! The plan of a run: the cluster, its load, and faults as episodes. It is data, so that it can be kept, edited and shrunk.

use super::NodeNo;
use crate::rng::Rng;

/// A fault, or something an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both directions between two nodes.
    Cut(NodeNo, NodeNo),
    OneWay(NodeNo, NodeNo),
    /// A node from all others.
    Isolate(NodeNo),
    /// The nodes below this number from the others.
    Split(NodeNo),
    /// What is under way arrives late.
    Stall(NodeNo, NodeNo),
    /// Connections break, and come back at once.
    Reset(NodeNo),
    /// Latency is this many times higher.
    SlowNet(u64),
    /// Messages are lost, doubled, overtaken, in a thousand.
    Datagrams(u32),
    /// The process dies; starts again at the end.
    Crash(NodeNo),
    /// All die at once.
    Blackout,
    Pause(NodeNo),
    /// Each sync takes so many ms more.
    SlowDisk(NodeNo, u64),
    FailSync(NodeNo),
    /// Reads of the log fail, in a thousand.
    ReadFaults(NodeNo, u32),
    /// The disk is lost; the node comes back empty at the end.
    Wipe(NodeNo),
    /// An acknowledged record goes bad; the node restarts at the end.
    Damage(NodeNo),
    /// Leadership of the slot goes to this node.
    Transfer(NodeNo),
    /// The slot's voters become all nodes but this one, as many as before.
    Members(NodeNo),
    /// The channel's voters become all nodes but this one, as many as before.
    Voters(usize, NodeNo),
    /// The channel's leader becomes this node.
    Leader(usize, NodeNo),
    /// The channel is elected although nothing is wrong.
    Elect(usize),
    /// The channel is deleted and made anew.
    Recreate(usize),
    /// Each node makes a snapshot and drops the log before it.
    Compact,
    /// Clients pause: channels settle.
    Idle,
}

/// A fault from `at` ms on, for so many ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    pub at: u64,
    pub lasts: u64,
    pub kind: Kind,
}

/// From an event on, other draws than before, and more faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// So many inputs were handled.
    pub event: u64,
    pub seed: u64,
    pub episodes: Vec<Episode>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub nodes: usize,
    /// The first so many nodes are voters at the start.
    pub voters: usize,
    pub channels: usize,
    pub clients: usize,
    /// Between two operations of a client, ms on average.
    pub think: u64,
    /// Of an operation's reads, in a thousand.
    pub reads: u32,
    pub lease: bool,
    /// Entries in a batch, at most.
    pub batch: u64,
    /// Proposals that a client makes without waiting, at most.
    pub train: u64,
    /// Mean latency of a message, µs.
    pub latency: u64,
    /// Mean time of a sync, µs.
    pub sync: u64,
    /// Largest drift of a clock, in a million.
    pub drift: u64,
    /// Idle time after which a channel settles, ms.
    pub settle: u64,
    /// Length of the part with faults, ms.
    pub lasts: u64,
    pub episodes: Vec<Episode>,
    /// Ascending by event.
    pub branches: Vec<Branch>,
}

/// Families of faults; a run has about half of them.
const FAMILIES: usize = 9;

impl Plan {
    /// A plan of at least so many ms of faults.
    #[must_use]
    pub fn generate(seed: u64, lasts: u64) -> Self {
        let mut rng = Rng::fork(seed, "plan", 0);
        let voters = if rng.chance(280) { 3 } else { 5 };
        let lease = rng.chance(300);
        let mut plan = Self {
            seed,
            nodes: voters + 1,
            voters,
            channels: 1 + rng.index(4),
            clients: 2 + rng.index(8),
            think: 0,
            reads: rng.between(30, 150) as u32,
            lease,
            batch: *rng.pick(&[1, 1, 3, 16]),
            train: *rng.pick(&[1, 32, 64, 64, 64, 128, 128, 128, 128, 128]),
            // Disks are mostly slower than links: then a sync takes several appends.
            latency: *rng.pick(&[50, 50, 50, 50, 200, 200, 200, 200, 500, 2_000]),
            sync: *rng.pick(&[50, 2_000, 5_000, 5_000, 10_000, 10_000, 10_000, 10_000, 10_000, 20_000]),
            drift: if lease { rng.below(9_000) } else { rng.below(50_000) },
            settle: *rng.pick(&[300, 1_000, 10_000]),
            lasts,
            episodes: Vec::new(),
            branches: Vec::new(),
        };
        // So many proposals in a second, from all clients together.
        let wanted = if plan.train > 1 { rng.between(1_300, 2_400) } else { rng.between(60, 150) };
        plan.think = (plan.clients as u64 * plan.train.div_ceil(2) * 1_000 / wanted).max(5);
        plan.episodes = plan.faults(1_500, lasts, &mut rng);
        plan
    }

    /// Episodes from `at` ms on.
    fn faults(&self, mut at: u64, until: u64, rng: &mut Rng) -> Vec<Episode> {
        let families: Vec<usize> = {
            let some: Vec<usize> = (0..FAMILIES).filter(|_| rng.chance(550)).collect();
            if some.is_empty() { vec![0] } else { some }
        };
        // Mean distance between two episodes.
        let pace = rng.between(150, 900);
        let mut episodes = Vec::new();
        while at < until {
            let family = *rng.pick(&families);
            let kind = self.draw(family, rng);
            episodes.push(Episode { at, lasts: self.length(kind, rng), kind });
            at += rng.spread(pace);
        }
        episodes
    }

    /// Another future from `event` on, which happens at `now` ms.
    #[must_use]
    pub fn branch(&self, event: u64, now: u64, seed: u64) -> Branch {
        let mut rng = Rng::fork(seed, "branch", event);
        let begin = now + 1 + rng.below(200);
        Branch { event, seed, episodes: self.faults(begin, self.lasts, &mut rng) }
    }

    fn draw(&self, family: usize, rng: &mut Rng) -> Kind {
        let n = self.nodes;
        let a = rng.index(n);
        let b = (a + 1 + rng.index(n - 1)) % n;
        let channel = 1 + rng.index(self.channels);
        let kinds: &[Kind] = match family {
            0 => &[
                Kind::Cut(a, b),
                Kind::Isolate(a),
                Kind::Split(1 + a % (n - 1)),
                Kind::OneWay(a, b),
                Kind::OneWay(b, a),
            ],
            1 => &[Kind::Stall(a, b), Kind::Reset(a), Kind::SlowNet(20)],
            2 => &[Kind::Datagrams(rng.between(5, 300) as u32)],
            3 => &[Kind::Crash(a), Kind::Crash(a), Kind::Crash(a), Kind::Crash(b), Kind::Blackout],
            4 => &[Kind::Pause(a)],
            5 => &[Kind::SlowDisk(a, rng.between(5, 800)), Kind::FailSync(a), Kind::ReadFaults(a, 500)],
            6 => &[Kind::Wipe(a), Kind::Damage(a)],
            7 => &[Kind::Transfer(a), Kind::Members(a), Kind::Compact],
            _ => &[
                Kind::Voters(channel, a),
                Kind::Leader(channel, a),
                Kind::Elect(channel),
                Kind::Recreate(channel),
                Kind::Idle,
            ],
        };
        *rng.pick(kinds)
    }

    fn length(&self, kind: Kind, rng: &mut Rng) -> u64 {
        match kind {
            Kind::Reset(_) | Kind::Compact | Kind::Elect(_) | Kind::Recreate(_) => 0,
            Kind::Crash(_) | Kind::Blackout | Kind::FailSync(_) => rng.spread(400),
            Kind::Idle => self.settle * 3 + rng.spread(1_000),
            Kind::Wipe(_) | Kind::Damage(_) => rng.spread(600),
            _ => rng.spread(1_200),
        }
    }
}
