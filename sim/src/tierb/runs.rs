//! Many seeds over a few threads, some of them twice; and scenarios of `sim cluster`.

use super::compare::{self, Compare};
use super::plan::Plan;
use super::world::{Outcome, drive};
use crate::cli::cluster::load;
use crate::cli::seeds::{each, said};
use clap::{Args, Parser, Subcommand};
use madsim::Config;
use madsim::runtime::Runtime;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// A sign of life after so many seeds.
const SAID_EVERY: u64 = 200;

/// Of a hundred seeds so many run twice, and both runs must have one trace.
const TWICE: u64 = 5;

/// The production shell in simulated worlds: sockets, reactors, links between nodes, a disk that crashes
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sweep: Sweep,
}

#[derive(Args)]
struct Sweep {
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

#[derive(Subcommand)]
enum Command {
    /// Plays scenarios of `sim cluster`, each twice
    Run {
        #[arg(required = true)]
        files: Vec<PathBuf>,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Print every event, and what was seen
        #[arg(long)]
        print: bool,
    },
    /// Plays scripts without faults in tier A and in tier B: clients must see the same
    Compare(Compare),
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let good = match cli.command {
        Some(Command::Run { files, jobs, print }) => play_files(&files, jobs, print),
        Some(Command::Compare(what)) => compare::main(&what),
        None => many(&cli.sweep),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(what: &Sweep) -> bool {
    if let Some(seed) = what.print {
        let plan = Plan::draw(seed);
        println!("{plan:#?}");
        let outcome = run(plan, true);
        println!("{outcome:#?}");
        return outcome.violations.is_empty();
    }
    let begin = Instant::now();
    let total = sweep(what.from, what.seeds, what.jobs);
    println!("{}", total.text(begin.elapsed()));
    total.failed.is_empty()
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

/// Runs a plan twice; that the traces differ is a violation.
#[must_use]
pub fn run_twice(plan: &Plan) -> Outcome {
    let mut outcome = run(plan.clone(), false);
    let again = run(plan.clone(), false);
    if (again.trace, again.events) != (outcome.trace, outcome.events) {
        let what = format!("TRACE two runs differ: {:016x} and {:016x}", outcome.trace, again.trace);
        outcome.violations.push(what);
    }
    outcome
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
    let mut total = Total::default();
    let twice = |seed: u64| seed % 100 < TWICE;
    let one = |seed| if twice(seed) { run_twice(&Plan::draw(seed)) } else { run(Plan::draw(seed), false) };
    each(from..from + seeds, jobs, one, |seed, outcome| {
        total.seeds += 1;
        total.twice += u64::from(twice(seed));
        if total.seeds.is_multiple_of(SAID_EVERY) {
            println!("{} seeds", total.seeds);
        }
        if !outcome.violations.is_empty() {
            say_failed(&format!("seed {seed}"), &outcome);
            println!("  again, with every event: tierb --print {seed}");
            total.failed.push(seed);
        }
        total.sum.add(outcome);
        true
    });
    total
}

/// The first violations.
pub(super) fn say_failed(whose: &str, outcome: &Outcome) {
    for violation in outcome.violations.iter().take(5) {
        println!("FAILED {whose}: {}", violation.chars().take(600).collect::<String>());
    }
}

/// Plays the scenario of a file; with `print`, once and with every event.
///
/// # Errors
/// It cannot be read.
pub fn play(file: &Path, print: bool) -> Result<Outcome, String> {
    let plan = Plan::of_scenario(load(file)?);
    Ok(if print { run(plan, true) } else { run_twice(&plan) })
}

fn play_files(files: &[PathBuf], jobs: usize, print: bool) -> bool {
    let mut good = true;
    let play = |at: u64| play(&files[at as usize], print);
    each(0..files.len() as u64, jobs, play, |at, outcome| {
        let name = files[at as usize].display().to_string();
        match outcome {
            Err(e) => good = said(&e),
            Ok(outcome) if outcome.violations.is_empty() => {
                println!("ok  {name}: {}", outcome.of_scenario());
            }
            Ok(outcome) => {
                good = false;
                say_failed(&name, &outcome);
                println!("  again, with every event: tierb run --print {name}");
            }
        }
        true
    });
    good
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

    fn of_scenario(&self) -> String {
        format!(
            "{} events, {} acked, {} judged, {} starts, {} truncations, simulated {} s, trace {:016x}",
            self.events,
            self.acked,
            self.judged,
            self.starts,
            self.cover.get("truncated"),
            self.simulated.as_secs(),
            self.trace
        )
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
