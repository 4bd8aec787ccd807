//! Many seeds; stops at the first failure and keeps its scenario.

use super::kept;
use crate::report;
use crate::run::{Outcome, run_caught};
use crate::scenario::plan;
use crate::sometimes::{REQUIRED, Seen, missing};
use crate::world::Mode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use wukong_core::Shard;

/// What to sweep.
#[derive(Clone, Copy, Debug)]
pub struct Sweep {
    pub seeds: u64,
    pub from: u64,
    /// Inputs of each run, at least.
    pub events: u64,
    pub jobs: usize,
    /// Go on after failures, and list them.
    pub keep_going: bool,
    pub every: bool,
    pub mode: Mode,
}

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

/// Runs the seeds; true when all of them passed and everything required was seen.
///
/// # Panics
/// A lock is poisoned: a run panicked outside the core.
#[must_use]
pub fn sweep(what: Sweep) -> bool {
    let began = Instant::now();
    let next = AtomicU64::new(what.from);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..what.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= what.from + what.seeds {
                        return;
                    }
                    let outcome = run_caught::<Shard>(&plan::generate(seed, what.events), what.mode);
                    if !outcome.violations.is_empty() && !what.keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    totals.lock().expect("a run panicked").add(seed, outcome);
                }
            });
        }
    });
    let mut t = totals.into_inner().expect("a run panicked");
    t.failed.sort_by_key(|(seed, _)| *seed);
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {}  {} inputs  {} acked  {} received  {} crashes  simulated {} h  {:.1} s  {:.1} seeds/s  {:.0} inputs/s",
        t.runs,
        what.from,
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
    print!("{}", report::coverage(&t.seen, what.every));
    for (seed, outcome) in t.failed.iter().take(if what.keep_going { 1_000 } else { 1 }) {
        let scenario = plan::generate(*seed, what.events);
        match report::keep(&kept(), &scenario, outcome) {
            Ok(path) if what.keep_going => {
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
