//! What a run is made of, drawn from its seed.

use crate::cluster;
use crate::rng::Rng;
use std::time::Duration;

/// What the nodes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drives {
    /// `wukong_core::Shard`, with clients that chat.
    Shard,
    /// [`Counter`](super::counter::Counter): links only.
    Counter,
}

/// What a crash leaves of the batch that is not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Synced,
    All,
}

/// A planted bug, which the checks must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The storage completes what is written and not synced.
    CompleteBeforeSync,
    /// A counter sends the second of two frames first.
    OutOfOrder,
    /// In a scenario: now and then the shell loses what a shard writes to a client.
    LoseWrite,
    /// In a scenario: now and then a SEND is refused although it is stored.
    RefuseStored,
}

/// Nodes count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process dies; another one starts after `span`.
    Kill { node: usize, keep: Keep },
    /// Graceful stop, then the same.
    Stop { node: usize },
    /// Nothing of the node runs.
    Pause { node: usize },
    /// Syncs take so many ms longer.
    Slow { node: usize, ms: u64 },
    /// Nothing gets from `from` to `to`.
    Cut { from: usize, to: usize },
    /// Nothing gets to the node or from it: neither other nodes nor clients.
    Isolate { node: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at: Duration,
    pub span: Duration,
    pub kind: Kind,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub drives: Drives,
    /// Shards of each node.
    pub nodes: Vec<u8>,
    pub slots: u16,
    /// Each connects to any node until one serves it.
    pub users: usize,
    /// Mean ms between messages of a user.
    pub think: u64,
    /// µs from one node to another, least and most.
    pub latency: (u64, u64),
    /// Time with faults and new messages; then all faults end, and everything must come right.
    pub length: Duration,
    pub faults: Vec<Fault>,
    pub bug: Option<Bug>,
    /// A scenario of `sim cluster`: it has its own clients, faults and oracles, and then nothing but `nodes`, `slots` and
    /// `latency` of this plan counts.
    pub scenario: Option<cluster::plan::Plan>,
}

impl Plan {
    /// By turns a node with clients, a cluster of replicas with clients, and a cluster whose links are tested.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::fork(seed, "tier b plan", 0);
        let drives = if seed % 3 == 2 { Drives::Counter } else { Drives::Shard };
        let count = match seed % 3 {
            0 => 1,
            _ if rng.chance(200) => 5,
            _ => 3,
        };
        let mut plan = Self {
            seed,
            drives,
            nodes: (0..count).map(|_| rng.between(1, 2) as u8).collect(),
            // Nodes do not pass work on to each other yet: whoever leads the only slot serves everybody.
            slots: if count > 1 { 1 } else { *rng.pick(&[1, 4, 16, 64]) },
            users: if drives == Drives::Shard { rng.between(2, 8) as usize } else { 0 },
            think: rng.between(5, 300),
            latency: *rng.pick(&[(10, 50), (100, 1_000), (1_000, 10_000), (100, 80_000)]),
            length: Duration::from_millis(rng.between(5_000, 30_000)),
            faults: Vec::new(),
            bug: None,
            scenario: None,
        };
        plan.faults = plan.draw_faults(&mut rng);
        plan
    }

    /// Plays a scenario of `sim cluster`.
    #[must_use]
    pub fn of_scenario(scenario: cluster::plan::Plan) -> Self {
        Self {
            seed: scenario.seed,
            drives: Drives::Shard,
            nodes: vec![scenario.shards as u8; scenario.nodes as usize],
            slots: scenario.slots as u16,
            users: 0,
            think: scenario.think,
            latency: (scenario.latency / 2, scenario.latency * 3 / 2 + 1),
            length: Duration::from_millis(scenario.lasts),
            faults: Vec::new(),
            bug: None,
            scenario: Some(scenario),
        }
    }

    fn draw_faults(&self, rng: &mut Rng) -> Vec<Fault> {
        let length = self.length.as_millis() as u64;
        let mut faults: Vec<Fault> = (0..rng.below(12))
            .map(|_| Fault {
                at: Duration::from_millis(rng.between(200, length)),
                span: Duration::from_millis(if rng.chance(300) {
                    rng.between(3_000, 9_000)
                } else {
                    rng.between(1, 2_500)
                }),
                kind: self.draw_kind(rng),
            })
            .collect();
        faults.sort_by_key(|f| f.at);
        faults
    }

    fn draw_kind(&self, rng: &mut Rng) -> Kind {
        let node = rng.index(self.nodes.len());
        let other = (node + 1 + rng.index(self.nodes.len().max(2) - 1)) % self.nodes.len();
        match rng.below(10) {
            0..=2 => Kind::Kill { node, keep: if rng.chance(500) { Keep::Synced } else { Keep::All } },
            3 => Kind::Stop { node },
            4 => Kind::Pause { node },
            5 if self.drives == Drives::Shard => Kind::Slow { node, ms: rng.between(1, 200) },
            6..=8 if node != other => Kind::Cut { from: node, to: other },
            _ => Kind::Isolate { node },
        }
    }
}
