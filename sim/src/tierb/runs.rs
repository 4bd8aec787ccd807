//! Many seeds over a few threads, some of them twice; and scenarios of `sim cluster`.

use super::compare::{self, Compare};
use super::plan::Plan;
use super::world::{Outcome, drive};
use crate::cli::cluster::load;
use crate::cli::seeds::{each, keep, said};
use crate::cluster;
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

#[derive(Args)]
struct Run {
    files: Vec<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Length of the part with faults of those from seeds
    #[arg(long, default_value_t = 15_000)]
    ms: u64,
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Print every event
    #[arg(long)]
    print: bool,
    /// Print what was seen
    #[arg(long)]
    all: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Plays scenarios of `sim cluster`: files, each twice, and those that it draws from seeds
    Run(Run),
    /// Plays scripts without faults in tier A and in tier B: clients must see the same
    Compare(Compare),
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let good = match cli.command {
        Some(Command::Run(what)) => play_all(&what),
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
    let one = |seed| if is_twice(seed) { run_twice(&Plan::draw(seed)) } else { run(Plan::draw(seed), false) };
    each(from..from + seeds, jobs, one, |seed, outcome| {
        if !outcome.violations.is_empty() {
            say_failed(&format!("seed {seed}"), &outcome);
            println!("  again, with every event: tierb --print {seed}");
        }
        total.add(seed, outcome);
        if total.seeds.is_multiple_of(SAID_EVERY) {
            println!("{} seeds", total.seeds);
        }
        true
    });
    total
}

const fn is_twice(seed: u64) -> bool {
    seed % 100 < TWICE
}

/// The first violations.
pub(super) fn say_failed(whose: &str, outcome: &Outcome) {
    for violation in outcome.violations.iter().take(5) {
        println!("FAILED {whose}: {}", violation.chars().take(600).collect::<String>());
    }
}

/// Plays the scenario of a file twice.
///
/// # Errors
/// It cannot be read.
pub fn play(file: &Path) -> Result<Outcome, String> {
    Ok(run_twice(&Plan::of_scenario(load(file)?)))
}

fn play_all(what: &Run) -> bool {
    if what.files.is_empty() && what.seeds == 0 {
        return said("name scenario files, or --seeds");
    }
    // One at a time, or the events of several would mix.
    let jobs = if what.print { 1 } else { what.jobs };
    play_files(what, jobs) & play_seeds(what, jobs)
}

fn play_files(what: &Run, jobs: usize) -> bool {
    let mut good = true;
    let one = |at: u64| match load(&what.files[at as usize]) {
        Ok(plan) if what.print => Ok(run(Plan::of_scenario(plan), true)),
        Ok(plan) => Ok(run_twice(&Plan::of_scenario(plan))),
        Err(e) => Err(e),
    };
    each(0..what.files.len() as u64, jobs, one, |at, outcome| {
        let name = what.files[at as usize].display().to_string();
        match outcome {
            Err(e) => good = said(&e),
            Ok(outcome) if outcome.violations.is_empty() => {
                println!("ok  {name}: {}, trace {:016x}", outcome.of_scenario(), outcome.trace);
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

fn play_seeds(what: &Run, jobs: usize) -> bool {
    let mut total = Total::default();
    let begin = Instant::now();
    let scenario = |seed| cluster::plan::Plan::generate(seed, what.ms);
    let one = |seed| match Plan::of_scenario(scenario(seed)) {
        plan if is_twice(seed) && !what.print => run_twice(&plan),
        plan => run(plan, what.print),
    };
    each(what.from..what.from + what.seeds, jobs, one, |seed, outcome| {
        if !outcome.violations.is_empty() {
            say_failed(&format!("scenario of seed {seed}"), &outcome);
            let path = keep(&format!("tierb-{seed}"), &scenario(seed).text(), &outcome.violations[0]);
            println!("  tierb run {}", path.display());
        }
        total.add(seed, outcome);
        true
    });
    if what.seeds > 0 {
        let Total { seeds, twice, ref failed, ref sum } = total;
        let (failed, took) = (failed.len(), begin.elapsed().as_secs_f64());
        let what = sum.of_scenario();
        println!("{seeds} scenarios from seeds ({twice} of them twice), {failed} failed, {took:.1} s: {what}");
    }
    if what.all {
        total.sum.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
    }
    total.failed.is_empty()
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.events += other.events;
        self.simulated += other.simulated;
        self.starts += other.starts;
        self.acked += other.acked;
        self.received += other.received;
        self.judged += other.judged;
        self.cover.add(&other.cover);
        self.counts.add(&other.counts);
        self.violations.extend(other.violations);
    }

    fn of_scenario(&self) -> String {
        format!(
            "{} events, {} acked, {} judged, {} starts, {} truncations, simulated {} s",
            self.events,
            self.acked,
            self.judged,
            self.starts,
            self.cover.get("truncated"),
            self.simulated.as_secs()
        )
    }
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.twice += u64::from(is_twice(seed));
        if !outcome.violations.is_empty() {
            self.failed.push(seed);
        }
        self.sum.add(outcome);
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["tierb", "--seeds", "6", "--from", "900"]);
        assert!(cli.command.is_none() && (cli.sweep.seeds, cli.sweep.from) == (6, 900));
        let cli = Cli::parse_from(["tierb", "run", "a.scn", "b.scn", "--seeds", "6"]);
        assert!(matches!(cli.command, Some(Command::Run(run)) if run.files.len() == 2 && run.seeds == 6));
    }

    #[test]
    fn five_of_a_hundred_run_twice() {
        assert_eq!((900..1_000).filter(|seed| is_twice(*seed)).count(), 5);
    }
}
