//! Many seeds; stops at the first failure and keeps its scenario.

use super::kept;
use super::seeds::{Sweep, each};
use crate::report;
use crate::run::{Outcome, run_caught};
use crate::scenario::plan;
use crate::sometimes::{REQUIRED, Seen, missing};
use crate::world::Mode;
use std::time::Instant;
use wukong_core::Shard;

#[derive(Default)]
struct Totals {
    runs: u64,
    handled: u64,
    acked: u64,
    received: u64,
    crashes: u64,
    simulated: u64,
    failed: Vec<(u64, Outcome)>,
    seen: Seen,
    judged: std::collections::BTreeMap<&'static str, u64>,
}

impl Totals {
    fn add(&mut self, seed: u64, o: Outcome) {
        self.runs += 1;
        self.handled += o.handled;
        self.acked += o.acked;
        self.received += o.received;
        self.crashes += o.crashes;
        self.simulated += o.simulated;
        self.seen.add(&o.seen);
        for (name, n) in &o.judged {
            *self.judged.entry(name).or_default() += n;
        }
        if !o.violations.is_empty() {
            self.failed.push((seed, o));
        }
    }
}

/// Runs the seeds, each for so many inputs at least; true when all of them passed and everything required was seen.
#[must_use]
pub fn sweep(seeds: u64, events: u64, how: Sweep) -> bool {
    let began = Instant::now();
    let mut t = Totals::default();
    let run = |seed| run_caught::<Shard>(&plan::generate(seed, events), Mode::default());
    each(how.from..how.from + seeds, how.jobs, run, |seed, outcome| {
        let good = outcome.violations.is_empty();
        t.add(seed, outcome);
        good || how.keep_going
    });
    t.failed.sort_by_key(|(seed, _)| *seed);
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {}  {} inputs  {} acked  {} received  {} crashes  simulated {} h  {:.1} s  {:.1} seeds/s  {:.0} inputs/s",
        t.runs,
        how.from,
        t.handled,
        t.acked,
        t.received,
        t.crashes,
        t.simulated / 3_600_000_000_000,
        took,
        t.runs as f64 / took,
        t.handled as f64 / took
    );
    let judged: Vec<String> = t.judged.iter().map(|(name, n)| format!("{name} {n}")).collect();
    println!("judged: {}", judged.join(", "));
    print!("{}", report::coverage(&t.seen, how.all));
    for (seed, outcome) in t.failed.iter().take(how.shown()) {
        let scenario = plan::generate(*seed, events);
        match report::keep(&kept(), &scenario, outcome) {
            Ok(path) if how.keep_going => {
                let v = &outcome.violations[0];
                let what: String = v.what.chars().take(200).collect();
                println!("FAILED {} seed {seed}: {what}  {}", v.invariant, path.display());
            }
            Ok(path) => print!("{}", report::screen(&scenario, outcome, &path)),
            Err(e) => eprintln!("cannot keep the scenario: {e}"),
        }
    }
    let vacuous = t.runs >= 200 && t.judged.values().any(|n| *n == 0);
    if vacuous {
        println!("an oracle had nothing to judge in the whole batch");
    }
    let covered = t.runs < 200 || missing(&t.seen, REQUIRED).is_empty();
    t.failed.is_empty() && covered && !vacuous
}
