//! Plans as text: one line for each fact, so that a kept failure can be read and edited.

use super::plan::{Branch, Episode, Kind, Plan};
use std::fmt::Write;

impl Plan {
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::from("raft scenario v1\n");
        let mut line = |name: &str, v: u64| writeln!(out, "{name} {v}").expect("a string takes all");
        line("seed", self.seed);
        line("nodes", self.nodes as u64);
        line("voters", self.voters as u64);
        line("channels", self.channels as u64);
        line("clients", self.clients as u64);
        line("think", self.think);
        line("reads", u64::from(self.reads));
        line("lease", u64::from(self.lease));
        line("batch", self.batch);
        line("train", self.train);
        line("latency", self.latency);
        line("sync", self.sync);
        line("drift", self.drift);
        line("settle", self.settle);
        line("lasts", self.lasts);
        let tell = |out: &mut String, episodes: &[Episode]| {
            for e in episodes {
                writeln!(out, "at {} for {} {}", e.at, e.lasts, kind_text(e.kind)).expect("a string takes all");
            }
        };
        tell(&mut out, &self.episodes);
        for b in &self.branches {
            writeln!(out, "branch {} {}", b.event, b.seed).expect("a string takes all");
            tell(&mut out, &b.episodes);
        }
        out
    }

    /// # Errors
    /// The line that is not understood, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines().map(|l| l.split('#').next().unwrap_or("").trim()).enumerate();
        let first = lines.by_ref().find(|(_, l)| !l.is_empty());
        if first.is_none_or(|(_, l)| l != "raft scenario v1") {
            return Err("the first line must be `raft scenario v1`".into());
        }
        let mut plan = Self { episodes: Vec::new(), train: 1, ..Self::generate(0, 0) };
        for (n, line) in lines.filter(|(_, l)| !l.is_empty()) {
            plan.line(line).map_err(|why| format!("line {}: `{line}`: {why}", n + 1))?;
        }
        if plan.voters == 0 || plan.voters > plan.nodes || plan.nodes > 9 || plan.channels > 64 {
            return Err("1 to 9 nodes, of which 1 or more are voters, and at most 64 channels".into());
        }
        let in_range = |k: &Kind| {
            numbers(*k).iter().zip(roles(*k)).all(|(v, role)| match role {
                'n' => *v < plan.nodes as u64,
                'c' => (1..=plan.channels as u64).contains(v),
                _ => true,
            })
        };
        let branched = plan.branches.iter().flat_map(|b| &b.episodes);
        match plan.episodes.iter().chain(branched).find(|e| !in_range(&e.kind)) {
            Some(e) => Err(format!("`{}` names a node or channel that is not there", kind_text(e.kind))),
            None => Ok(plan),
        }
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| -> Result<u64, String> {
            words.get(at).ok_or("a number is missing")?.parse().map_err(|_| "not a number".to_owned())
        };
        let v = number(1)?;
        match words[0] {
            "seed" => self.seed = v,
            "nodes" => self.nodes = v as usize,
            "voters" => self.voters = v as usize,
            "channels" => self.channels = v as usize,
            "clients" => self.clients = v as usize,
            "think" => self.think = v.max(1),
            "reads" => self.reads = v as u32,
            "lease" => self.lease = v != 0,
            "batch" => self.batch = v.max(1),
            "train" => self.train = v.max(1),
            "latency" => self.latency = v.max(1),
            "sync" => self.sync = v.max(1),
            "drift" => self.drift = v.min(50_000),
            "settle" => self.settle = v.max(1),
            "lasts" => self.lasts = v,
            "at" => {
                let kind = words.get(4).ok_or("what happens is missing")?;
                let (x, y) = (number(5).unwrap_or(0), number(6).unwrap_or(0));
                let kind = kind_of(kind, x, y).ok_or("unknown fault")?;
                if words.len() != 5 + numbers(kind).len() {
                    return Err(format!("expected `at MS for MS {}`", kind_text(kind)));
                }
                let episode = Episode { at: v, lasts: number(3)?, kind };
                self.branches.last_mut().map_or(&mut self.episodes, |b| &mut b.episodes).push(episode);
            }
            "branch" => self.branches.push(Branch { event: v, seed: number(2)?, episodes: Vec::new() }),
            _ => return Err("unknown word".into()),
        }
        Ok(())
    }
}

const fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cut(..) => "cut",
        Kind::OneWay(..) => "one-way",
        Kind::Isolate(_) => "isolate",
        Kind::Split(_) => "split",
        Kind::Stall(..) => "stall",
        Kind::Reset(_) => "reset",
        Kind::SlowNet(_) => "slow-net",
        Kind::Datagrams(_) => "datagrams",
        Kind::Crash(_) => "crash",
        Kind::Blackout => "blackout",
        Kind::Pause(_) => "pause",
        Kind::SlowDisk(..) => "slow-disk",
        Kind::FailSync(_) => "fail-sync",
        Kind::ReadFaults(..) => "read-faults",
        Kind::Wipe(_) => "wipe",
        Kind::Damage(_) => "damage",
        Kind::Transfer(_) => "transfer",
        Kind::Members(_) => "members-without",
        Kind::Voters(..) => "voters-without",
        Kind::Leader(..) => "leader",
        Kind::Elect(_) => "elect",
        Kind::Recreate(_) => "recreate",
        Kind::Compact => "compact",
        Kind::Idle => "idle",
    }
}

fn numbers(kind: Kind) -> Vec<u64> {
    match kind {
        Kind::Cut(a, b) | Kind::OneWay(a, b) | Kind::Stall(a, b) | Kind::Voters(a, b) | Kind::Leader(a, b) => {
            vec![a as u64, b as u64]
        }
        Kind::SlowDisk(a, ms) => vec![a as u64, ms],
        Kind::ReadFaults(a, per) => vec![a as u64, u64::from(per)],
        Kind::Isolate(a)
        | Kind::Split(a)
        | Kind::Reset(a)
        | Kind::Crash(a)
        | Kind::Pause(a)
        | Kind::FailSync(a)
        | Kind::Wipe(a)
        | Kind::Damage(a)
        | Kind::Transfer(a)
        | Kind::Members(a)
        | Kind::Elect(a)
        | Kind::Recreate(a) => vec![a as u64],
        Kind::SlowNet(x) => vec![x],
        Kind::Datagrams(x) => vec![u64::from(x)],
        Kind::Blackout | Kind::Compact | Kind::Idle => Vec::new(),
    }
}

/// What each number is: a node, a channel, or just a number.
fn roles(kind: Kind) -> std::str::Chars<'static> {
    match kind {
        Kind::Cut(..) | Kind::OneWay(..) | Kind::Stall(..) => "nn",
        Kind::Voters(..) | Kind::Leader(..) => "cn",
        Kind::SlowDisk(..) | Kind::ReadFaults(..) => "nx",
        Kind::Elect(_) | Kind::Recreate(_) => "c",
        Kind::SlowNet(_) | Kind::Datagrams(_) => "x",
        _ => "n",
    }
    .chars()
}

/// The nodes that a fault is about; None: all.
#[must_use]
pub fn touches(kind: Kind) -> Option<Vec<usize>> {
    let named = numbers(kind).into_iter().zip(roles(kind)).filter(|(_, role)| *role == 'n');
    let nodes: Vec<usize> = named.map(|(n, _)| n as usize).collect();
    (!nodes.is_empty() && !matches!(kind, Kind::Split(_))).then_some(nodes)
}

/// The words of a fault in a plan.
#[must_use]
pub fn kind_text(kind: Kind) -> String {
    numbers(kind).iter().fold(name(kind).to_owned(), |mut text, n| {
        write!(text, " {n}").expect("a string takes all");
        text
    })
}

fn kind_of(word: &str, x: u64, y: u64) -> Option<Kind> {
    let (a, b) = (x as usize, y as usize);
    let all = [
        Kind::Cut(a, b),
        Kind::OneWay(a, b),
        Kind::Isolate(a),
        Kind::Split(a),
        Kind::Stall(a, b),
        Kind::Reset(a),
        Kind::SlowNet(x),
        Kind::Datagrams(x as u32),
        Kind::Crash(a),
        Kind::Blackout,
        Kind::Pause(a),
        Kind::SlowDisk(a, y),
        Kind::FailSync(a),
        Kind::ReadFaults(a, y as u32),
        Kind::Wipe(a),
        Kind::Damage(a),
        Kind::Transfer(a),
        Kind::Members(a),
        Kind::Voters(a, b),
        Kind::Leader(a, b),
        Kind::Elect(a),
        Kind::Recreate(a),
        Kind::Compact,
        Kind::Idle,
    ];
    all.into_iter().find(|k| name(*k) == word)
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
        let mut plan = Plan::generate(7, 20_000);
        let episodes = plan.episodes.split_off(plan.episodes.len() / 2);
        plan.branches.push(Branch { event: 4_711, seed: 8, episodes });
        assert_eq!(Plan::parse(&plan.text()), Ok(plan));
        assert!(Plan::parse("raft scenario v1\nat 5 for 3 crash 99").unwrap_err().contains("not there"));
        assert!(Plan::parse("raft scenario v1\nat 5 for 3 fly 1").unwrap_err().contains("line 2"));
    }
}
