//! The plan of a run: the cluster, its load, and faults as episodes. It is data and a text, so that it can be kept, edited and
//! shrunk.

use crate::rng::Rng;
use std::fmt::Write;

/// A fault. What its numbers are stands in [`Kind::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Both directions between two nodes.
    Cut,
    OneWay,
    /// A node from all others.
    Isolate,
    /// Whoever serves a slot, from all others.
    IsolateLeader,
    /// What is under way arrives late.
    Stall,
    /// The connection between two nodes breaks, and comes back.
    Reset,
    /// Latency is this many times higher.
    SlowNet,
    /// The process dies; starts again at the end.
    Crash,
    /// The process dies after so many outputs more; starts again at the end.
    CrashAfter,
    /// The same with whoever serves a slot.
    CrashLeader,
    /// All die at once.
    Blackout,
    Pause,
    /// Whoever serves a slot.
    PauseLeader,
    /// Each sync takes so many ms more.
    SlowDisk,
    /// The next sync fails: the process ends.
    FailSync,
    /// Reads fail, in a thousand.
    ReadFaults,
    /// The calendar of a node jumps by so many ms, forward or back.
    Jump,
    JumpBack,
    /// Connections of clients break, in a thousand.
    Storm,
    /// Clients pause: channels settle.
    Idle,
    /// The operator deletes a channel, and tries again until it is done.
    Delete,
}

impl Kind {
    /// With its word, and what its numbers are: a node, a slot, or just a number.
    pub const ALL: [(Self, &'static str, &'static str); 21] = [
        (Self::Cut, "cut", "nn"),
        (Self::OneWay, "one-way", "nn"),
        (Self::Isolate, "isolate", "n"),
        (Self::IsolateLeader, "isolate-leader", "s"),
        (Self::Stall, "stall", "nn"),
        (Self::Reset, "reset", "nn"),
        (Self::SlowNet, "slow-net", "x"),
        (Self::Crash, "crash", "n"),
        (Self::CrashAfter, "crash-after", "nx"),
        (Self::CrashLeader, "crash-leader", "sx"),
        (Self::Blackout, "blackout", ""),
        (Self::Pause, "pause", "n"),
        (Self::PauseLeader, "pause-leader", "s"),
        (Self::SlowDisk, "slow-disk", "nx"),
        (Self::FailSync, "fail-sync", "n"),
        (Self::ReadFaults, "read-faults", "nx"),
        (Self::Jump, "jump", "nx"),
        (Self::JumpBack, "jump-back", "nx"),
        (Self::Storm, "storm", "x"),
        (Self::Idle, "idle", ""),
        (Self::Delete, "delete", "x"),
    ];

    fn words(self) -> (&'static str, &'static str) {
        Self::ALL.iter().find(|(k, ..)| *k == self).map_or(("", ""), |(_, word, roles)| (word, roles))
    }
}

/// A fault from `at` ms on, for so many ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    pub at: u64,
    pub lasts: u64,
    pub kind: Kind,
    pub numbers: [u64; 2],
}

impl Episode {
    /// The words of the fault.
    #[must_use]
    pub fn what(&self) -> String {
        let (word, roles) = self.kind.words();
        self.numbers.iter().take(roles.len()).fold(word.to_owned(), |text, n| format!("{text} {n}"))
    }
}

macro_rules! plan {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// See the module.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Plan {
            $($(#[$doc])* pub $name: u64,)*
            pub episodes: Vec<Episode>,
        }

        impl Plan {
            fn numbers(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }

            fn number(&mut self, name: &str) -> Option<&mut u64> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

plan! {
    /// Of latencies, choices and clients; not of the plan.
    seed,
    nodes,
    shards,
    slots,
    /// Of each slot. Neighbours on a ring talk.
    users,
    /// 1: each user also has a connection to every node that only listens.
    listeners,
    /// Between two actions of a client, ms on average.
    think,
    /// Bytes of a payload, at most.
    payload,
    /// Mean latency between nodes, µs.
    latency,
    /// Mean time of a sync, µs.
    sync,
    /// Drift of a clock, in a million at most.
    drift,
    /// How often a client's action comes with a new token for its user, in a thousand.
    tokens,
    /// Rows and keys that are kept in memory: 0 none, 1 few, 2 many.
    memory,
    /// Entries that a slot's log keeps, in chunks of three rows what it sends instead; 0: as in production.
    log,
    /// 1: settled channels are compared. Without, nothing hides what replication itself forgets.
    audit,
    /// Length of the part with faults, ms.
    lasts,
    /// Messages that each user sends, by a script that no timing changes; 0: it talks until the faults are over.
    sends,
    /// 1: in its script a user speaks when the other one has spoken, so that the order of a channel is determined.
    turns,
}

/// Families of faults; a run has about half of them.
const FAMILIES: u64 = 7;

impl Plan {
    /// A plan of about so many ms of faults.
    #[must_use]
    pub fn generate(seed: u64, lasts: u64) -> Self {
        let mut rng = Rng::fork(seed, "cluster plan", 0);
        let mut plan = Self {
            seed,
            nodes: if rng.chance(800) { 3 } else { 5 },
            shards: rng.between(1, 2),
            slots: rng.between(1, 2),
            users: rng.between(2, 3),
            listeners: u64::from(rng.chance(700)),
            think: *rng.pick(&[20, 60, 200]),
            payload: *rng.pick(&[16, 64, 2_000]),
            latency: *rng.pick(&[50, 300, 2_000]),
            sync: *rng.pick(&[50, 500, 3_000]),
            drift: rng.below(10_000),
            memory: rng.below(3),
            tokens: *rng.pick(&[0, 100, 500]),
            log: *rng.pick(&[0, 3, 10]),
            audit: Rng::fork(seed, "cluster audit", 0).below(2),
            lasts,
            sends: 0,
            turns: 0,
            episodes: Vec::new(),
        };
        let some: Vec<u64> = (0..FAMILIES).filter(|_| rng.chance(500)).collect();
        let families = if some.is_empty() { vec![2] } else { some };
        let pace = rng.between(400, 3_000);
        let mut at = 2_500;
        while at < lasts {
            let family = *rng.pick(&families);
            let episode = plan.draw(at, family, &mut rng);
            plan.episodes.push(episode);
            at += rng.spread(pace);
        }
        let mut deletions = Rng::fork(seed, "cluster deletions", 0);
        if deletions.chance(500) && lasts > 3_000 {
            for _ in 0..deletions.between(1, 4) {
                let (at, channel) = (deletions.between(2_500, lasts), deletions.below(64));
                plan.episodes.push(Episode { at, lasts: 0, kind: Kind::Delete, numbers: [channel, 0] });
            }
        }
        if rng.chance(150) {
            // Long enough for channels to leave memory.
            let idle = Episode { at: lasts, lasts: 75_000, kind: Kind::Idle, numbers: [0; 2] };
            plan.episodes.push(idle);
            plan.lasts += 80_000;
        }
        plan
    }

    fn draw(&self, at: u64, family: u64, rng: &mut Rng) -> Episode {
        let n = rng.below(self.nodes);
        let other = (n + 1 + rng.below(self.nodes - 1)) % self.nodes;
        let slot = rng.below(self.slots);
        let after = if rng.chance(300) { 0 } else { rng.spread(120) };
        let kinds: &[(Kind, [u64; 2])] = match family {
            0 => &[
                (Kind::Cut, [n, other]),
                (Kind::OneWay, [n, other]),
                (Kind::Isolate, [n, 0]),
                (Kind::IsolateLeader, [slot, 0]),
            ],
            1 => &[(Kind::Stall, [n, other]), (Kind::Reset, [n, other]), (Kind::SlowNet, [20, 0])],
            2 => &[
                (Kind::Crash, [n, 0]),
                (Kind::CrashAfter, [n, after]),
                (Kind::CrashLeader, [slot, after]),
                (Kind::CrashLeader, [slot, after]),
                (Kind::Blackout, [0, 0]),
            ],
            3 => &[(Kind::Pause, [n, 0]), (Kind::PauseLeader, [slot, 0])],
            4 => &[(Kind::SlowDisk, [n, after + 5]), (Kind::FailSync, [n, 0]), (Kind::ReadFaults, [n, 400])],
            5 => &[(Kind::Jump, [n, after * 500]), (Kind::JumpBack, [n, after * 500]), (Kind::Storm, [500, 0])],
            _ => &[(Kind::Idle, [0, 0])],
        };
        let (kind, numbers) = *rng.pick(kinds);
        let lasts = match kind {
            Kind::Reset | Kind::Jump | Kind::JumpBack | Kind::Storm => 0,
            Kind::Crash | Kind::CrashAfter | Kind::CrashLeader | Kind::Blackout => rng.spread(1_200),
            Kind::Idle => rng.between(1_000, 16_000),
            _ => rng.spread(1_800),
        };
        Episode { at, lasts, kind, numbers }
    }

    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("cluster scenario v1\n");
        for (name, v) in self.numbers() {
            writeln!(out, "{name} {v}").expect("a string takes all");
        }
        for e in &self.episodes {
            writeln!(out, "at {} for {} {}", e.at, e.lasts, e.what()).expect("a string takes all");
        }
        out
    }

    /// # Errors
    /// The line that is not understood, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).enumerate();
        let mut lines = lines.filter(|(_, l)| !l.is_empty());
        if lines.next().is_none_or(|(_, l)| l != "cluster scenario v1") {
            return Err("the first line must be `cluster scenario v1`".into());
        }
        let mut plan = Self { log: 0, tokens: 0, audit: 0, episodes: Vec::new(), ..Self::generate(0, 0) };
        for (n, line) in lines {
            plan.line(line).map_err(|why| format!("line {}: `{line}`: {why}", n + 1))?;
        }
        let sound = (1..=9).contains(&plan.nodes)
            && (1..=4).contains(&plan.shards)
            && (1..=4).contains(&plan.slots)
            && (2..=8).contains(&plan.users);
        if !sound {
            return Err("1 to 9 nodes, 1 to 4 shards and slots, 2 to 8 users".into());
        }
        let there = |e: &Episode| {
            e.numbers.iter().zip(e.kind.words().1.chars()).all(|(v, role)| match role {
                'n' => *v < plan.nodes,
                's' => *v < plan.slots,
                _ => true,
            })
        };
        match plan.episodes.iter().find(|e| !there(e)) {
            Some(e) => Err(format!("`{}` names a node or slot that is not there", e.what())),
            None => Ok(plan),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> Result<u64, String> {
            words.get(at).ok_or("a number is missing")?.parse().map_err(|_| "not a number".to_owned())
        };
        if words[0] != "at" {
            let v = number(1)?;
            *self.number(words[0]).ok_or("unknown word")? = v;
            return Ok(());
        }
        let word = words.get(4).ok_or("what happens is missing")?;
        let (kind, _, roles) = Kind::ALL.iter().find(|(_, w, _)| w == word).ok_or("unknown fault")?;
        let mut numbers = [0; 2];
        for (i, n) in numbers.iter_mut().take(roles.len()).enumerate() {
            *n = number(5 + i)?;
        }
        self.episodes.push(Episode { at: number(1)?, lasts: number(3)?, kind: *kind, numbers });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_text() {
        for seed in 0..50 {
            let plan = Plan::generate(seed, 20_000);
            assert_eq!(Plan::parse(&plan.text()), Ok(plan));
        }
        assert!(Plan::parse("cluster scenario v1\nat 5 for 3 crash 99").unwrap_err().contains("not there"));
        assert!(Plan::parse("cluster scenario v1\nat 5 for 3 fly 1").unwrap_err().contains("line 2"));
    }
}
