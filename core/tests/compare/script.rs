//! What is done to a group, decided before either system runs: a seed gives the same script for ever.

/// `SplitMix64`.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// Some of the nodes, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nodes(pub u8);

impl Nodes {
    pub const fn has(self, n: usize) -> bool {
        self.0 & (1 << n) != 0
    }
}

impl core::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_set().entries((0..8).filter(|n| self.has(*n))).finish()
    }
}

/// One round; its steps happen in the order of the fields.
#[derive(Clone, Debug)]
pub struct Round {
    /// Whom each node reaches. Stays so for the whole round.
    pub reach: Vec<Nodes>,
    /// No entries get through to them.
    pub starved: Nodes,
    /// Loses everything but its disk.
    pub restart: Option<usize>,
    /// Proposals at each node that leads, before anyone misses it.
    pub early: usize,
    /// Nodes for which time passes: three times what a lease or a quorum check lasts.
    pub waits: Nodes,
    /// The one node whose election timeout runs out.
    pub campaigner: Option<usize>,
    /// Proposals at each node that leads then.
    pub late: usize,
}

impl Round {
    pub fn both_ways(&self, a: usize, b: usize) -> bool {
        self.reach[a].has(b) && self.reach[b].has(a)
    }
}

#[derive(Clone, Debug)]
pub struct Script {
    pub nodes: usize,
    pub rounds: Vec<Round>,
}

impl Script {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let nodes = if rng.percent(50) { 3 } else { 5 };
        let all = Nodes((1 << nodes) - 1);
        let mut last = rng.below(nodes);
        let mut rounds: Vec<Round> = (0..4 + rng.below(8)).map(|_| round(&mut rng, nodes, &mut last)).collect();
        // At last everybody hears everybody, and what diverged has to be repaired.
        rounds.push(Round {
            reach: vec![all; nodes],
            starved: Nodes(0),
            restart: None,
            early: rng.below(3),
            waits: all,
            campaigner: Some(rng.below(nodes)),
            late: 1,
        });
        Self { nodes, rounds }
    }
}

/// `last` is who campaigned last: it may lead, which is why it is the one to be cut off rather often.
fn round(rng: &mut Rng, nodes: usize, last: &mut usize) -> Round {
    let all = (1 << nodes) - 1;
    let waits = match rng.below(10) {
        0..6 => all,
        6..9 => rng.below(1 << nodes) as u8,
        _ => 0,
    };
    Round {
        reach: reach(rng, nodes, *last),
        starved: Nodes(if rng.percent(20) { rng.below(1 << nodes) as u8 } else { 0 }),
        restart: rng.percent(25).then(|| rng.below(nodes)),
        early: rng.below(5),
        waits: Nodes(waits),
        campaigner: rng.percent(80).then(|| {
            *last = rng.below(nodes);
            *last
        }),
        late: rng.below(5),
    }
}

fn reach(rng: &mut Rng, nodes: usize, last: usize) -> Vec<Nodes> {
    let all = (1_u8 << nodes) - 1;
    let mut reach = vec![all; nodes];
    let kind = rng.below(10);
    let group = match kind {
        0..2 | 9 => 0,
        2..5 => 1 << last | if nodes > 3 { 1 << rng.below(nodes) } else { 0 },
        _ => rng.below(1 << nodes) as u8,
    };
    for (n, to) in reach.iter_mut().enumerate() {
        *to &= if group & (1 << n) != 0 { group } else { all & !group };
    }
    // Single directions on top.
    let holes = match kind {
        8 => 15,
        9 => 25,
        _ if rng.percent(20) => 10,
        _ => 0,
    };
    for to in &mut reach {
        for n in 0..nodes {
            if rng.percent(holes) {
                *to &= !(1 << n);
            }
        }
    }
    reach.into_iter().map(Nodes).collect()
}
