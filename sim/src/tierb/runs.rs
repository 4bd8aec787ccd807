//! Many seeds over a few threads, some of them twice.

use super::plan::Plan;
use super::world::{Outcome, drive};
use clap::Parser;
use madsim::Config;
use madsim::runtime::Runtime;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A sign of life after so many seeds.
const SAID_EVERY: u64 = 200;

/// Of a hundred seeds so many run twice, and both runs must have one trace.
const TWICE: u64 = 5;

/// The production shell in simulated worlds: sockets, reactors, links between nodes, a disk that crashes
#[derive(Parser)]
struct Args {
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// One seed, with its plan and every event
    #[arg(long)]
    print: Option<u64>,
}

pub fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.print {
        let plan = Plan::draw(seed);
        println!("{plan:#?}");
        let outcome = run(plan, true);
        println!("{outcome:#?}");
        return if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let begin = Instant::now();
    let total = sweep(args.from, args.seeds, args.jobs);
    println!("{}", total.text(begin.elapsed()));
    if total.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a plan in a simulation of its own. A panic in it is a violation.
#[must_use]
pub fn run(plan: Plan, print: bool) -> Outcome {
    let seed = plan.seed;
    // A fresh thread: std seeds the hash maps of a thread once, and within the simulation from its seed.
    let running = thread::spawn(move || {
        let runtime = Runtime::with_seed_and_config(seed, Config::default());
        runtime.block_on(drive(plan, print))
    });
    running.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome { violations: vec![format!("PANIC {}", text.unwrap_or_default())], ..Outcome::default() }
    })
}

/// What a batch came to.
#[derive(Debug, Default)]
pub struct Total {
    pub seeds: u64,
    pub twice: u64,
    pub failed: Vec<u64>,
    pub sum: Outcome,
}

/// Runs seeds `from..from + seeds`, and says each violation at once.
#[must_use]
pub fn sweep(from: u64, seeds: u64, jobs: usize) -> Total {
    let (next, total) = (AtomicU64::new(from), Mutex::new(Total::default()));
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    one(seed, &total);
                }
            });
        }
    });
    total.into_inner().unwrap_or_default()
}

fn one(seed: u64, total: &Mutex<Total>) {
    let mut outcome = run(Plan::draw(seed), false);
    let twice = seed % 100 < TWICE;
    if twice {
        let again = run(Plan::draw(seed), false);
        if (again.trace, again.events) != (outcome.trace, outcome.events) {
            let what = format!("TRACE two runs differ: {:016x} and {:016x}", outcome.trace, again.trace);
            outcome.violations.push(what);
        }
    }
    let Ok(mut total) = total.lock() else { return };
    total.seeds += 1;
    total.twice += u64::from(twice);
    if total.seeds.is_multiple_of(SAID_EVERY) {
        println!("{} seeds", total.seeds);
    }
    if !outcome.violations.is_empty() {
        for violation in outcome.violations.iter().take(5) {
            println!("FAILED seed {seed}: {}", violation.chars().take(600).collect::<String>());
        }
        println!("  again, with every event: tierb --print {seed}");
        total.failed.push(seed);
    }
    total.sum.add(outcome);
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.simulated += other.simulated;
        self.starts += other.starts;
        self.acked += other.acked;
        self.received += other.received;
        self.counts.add(&other.counts);
        self.violations.extend(other.violations);
    }
}

impl Total {
    fn text(&self, took: Duration) -> String {
        let Outcome { events, simulated, violations, counts, starts, acked, received, .. } = &self.sum;
        format!(
            "{} seeds ({} of them twice), {:.2} simulated hours, {events} events, {} violations in {} seeds, {:.1} s\n  \
             {starts} starts of processes, {acked} messages acked, {received} received\n  \
             links: {} up, {} down, {} frames sent, {} arrived, {} for an earlier process",
            self.seeds,
            self.twice,
            simulated.as_secs_f64() / 3_600.0,
            violations.len(),
            self.failed.len(),
            took.as_secs_f64(),
            counts.ups,
            counts.downs,
            counts.frames_sent,
            counts.frames_arrived,
            counts.stale,
        )
    }
}
