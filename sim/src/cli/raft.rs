//! `sim raft`: clusters of replication groups.

use super::seeds::{self, Kind, Plans, said};
use super::shrink::thin;
use crate::raft::cluster::Mode;
use crate::raft::cover::REQUIRED;
use crate::raft::plan::Plan;
use crate::raft::run::run;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Length of the part with faults of a generated plan, ms.
pub const LASTS: u64 = 16_000;

#[derive(Subcommand)]
pub enum Command {
    /// One run: of a seed, or of a scenario file
    Run {
        file: Option<PathBuf>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Length of the part with faults
        #[arg(long, default_value_t = LASTS)]
        ms: u64,
        /// Print the scenario instead of running it
        #[arg(long)]
        text: bool,
        /// Print what happens from this many ms on
        #[arg(long)]
        print_from: Option<u64>,
        #[arg(long, default_value_t = u64::MAX)]
        print_to: u64,
    },
    /// Many seeds; stops at the first failure
    Sweep {
        #[command(flatten)]
        what: Plans,
        #[arg(long, default_value_t = LASTS)]
        ms: u64,
    },
    /// Why a check failed: the events that led there
    Explain(super::explain::Explain),
    /// Other futures of the state at an event
    Explore(super::explain::Explore),
    /// Small worlds, exhaustively: every order of everything, every state judged
    Small(super::small::Small),
    /// Make a failing scenario smaller
    Shrink {
        file: PathBuf,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Events per second: without oracles, and with all
    Speed {
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        #[arg(long, default_value_t = LASTS)]
        ms: u64,
    },
    /// Is it deterministic? Compares the traces of two processes
    Doctor {
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        #[arg(long, default_value_t = 10_000)]
        ms: u64,
    },
    /// Prints a hash over the traces of some seeds, for `doctor`
    Trace {
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long, default_value_t = 10_000)]
        ms: u64,
    },
    /// Plant known bugs; fails when one survives
    Mutants {
        #[arg(long)]
        only: Option<String>,
        #[arg(long, default_value_t = 400)]
        seeds: u64,
        #[arg(long, default_value_t = 20_000)]
        ms: u64,
    },
}

/// True when nothing is wrong.
#[must_use]
pub fn main(command: Command) -> bool {
    match command {
        Command::Run { file, seed, ms, text, print_from, print_to } => {
            match file.as_deref().map_or_else(|| Ok(Plan::generate(seed, ms)), load) {
                Ok(plan) if text => {
                    print!("{}", plan.text());
                    true
                }
                Ok(plan) => one(&plan, Mode { print: print_from.map(|f| (f, print_to)), ..Mode::default() }),
                Err(e) => said(&e),
            }
        }
        Command::Sweep { what, ms } => sweep(&what, ms),
        Command::Shrink { file, seconds } => match load(&file) {
            Ok(plan) => match shrink(&plan, Mode::default(), Duration::from_secs(seconds)) {
                Some(small) => {
                    print!("{}", small.text());
                    true
                }
                None => said(&format!("{}: does not fail", file.display())),
            },
            Err(e) => said(&e),
        },
        Command::Explain(command) => ok(command.run().map(|()| true)),
        Command::Explore(command) => ok(command.run()),
        Command::Small(command) => command.run(),
        Command::Speed { seeds, ms } => {
            speed(seeds, ms);
            true
        }
        Command::Trace { seeds, from, ms } => {
            let hash = (from..from + seeds).fold(0_u64, |h, seed| {
                let o = run(&Plan::generate(seed, ms), Mode::default());
                h.rotate_left(7) ^ o.trace ^ o.handled
            });
            println!("{hash:016x}");
            true
        }
        Command::Doctor { seeds, ms } => doctor(seeds, ms),
        Command::Mutants { only, seeds, ms } => mutants(only.as_deref(), seeds, ms),
    }
}

/// Reads a plan.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Plan, String> {
    seeds::load(path, Plan::parse)
}

fn ok(outcome: Result<bool, String>) -> bool {
    outcome.unwrap_or_else(|why| said(&why))
}

fn one(plan: &Plan, mode: Mode) -> bool {
    let o = run(plan, mode);
    println!(
        "{}  seed {}  {} events ({} with entries)  {} acked  {} episodes  {} judged  simulated {} s  trace {:016x}",
        if o.violations.is_empty() { "ok" } else { "FAILED" },
        plan.seed,
        o.handled,
        o.with_entries,
        o.acked,
        o.episodes,
        o.judged,
        o.simulated / 1_000_000_000,
        o.trace
    );
    for v in &o.violations {
        println!("  {v}");
    }
    o.violations.is_empty()
}

fn median(of: &mut [u64]) -> u64 {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or(0)
}

fn sweep(what: &Plans, ms: u64) -> bool {
    let (mut events, mut episodes, mut acked, mut with_entries) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let batch = what.sweep(
        |seed| run(&Plan::generate(seed, ms), Mode::default()),
        |o| {
            events.push(o.handled);
            episodes.push(o.episodes);
            acked.push(o.acked);
            with_entries += o.with_entries;
            (o.handled, o.simulated, o.cover, o.violations)
        },
    );
    println!(
        "{} seeds from {}  {} events ({} % messages with entries)  simulated {} h  {:.1} s  {:.0} events/s\n\
         median of a seed: {} events, {} episodes, {} acked",
        batch.runs,
        batch.from,
        batch.handled,
        100 * with_entries / batch.handled.max(1),
        batch.simulated / 3_600_000_000_000,
        batch.took,
        batch.handled as f64 / batch.took,
        median(&mut events),
        median(&mut episodes),
        median(&mut acked),
    );
    let kind = Kind { name: "raft", handles: "events", required: REQUIRED };
    what.judge(kind, ms, &batch, |seed| Plan::generate(seed, ms).text())
}

fn doctor(seeds: u64, ms: u64) -> bool {
    let once = || seeds::again(&format!("raft trace --seeds {seeds} --ms {ms}"));
    match (once(), once()) {
        (Ok(a), Ok(b)) if a == b => {
            println!("{seeds} seeds: two processes agree ({a})");
            true
        }
        (a, b) => {
            println!("two processes differ: {a:?} and {b:?}");
            false
        }
    }
}

fn speed(seeds: u64, ms: u64) {
    for (name, oracles) in [("machines without oracles", false), ("all oracles", true)] {
        let began = Instant::now();
        let (mut events, mut with) = (0, 0);
        for plan in (0..).map(|seed| Plan::generate(seed, ms)).filter(|p| p.voters == 5).take(seeds as usize) {
            let o = run(&plan, Mode { oracles, trace: oracles, ..Mode::default() });
            events += o.handled;
            with += o.with_entries;
        }
        let took = began.elapsed().as_secs_f64();
        let share = 100 * with / events.max(1);
        println!("{name:<26} {:>10.0} events/s, {share} % messages with entries", events as f64 / took);
    }
}

/// Cuts away what the failure does not need, as long as the same check fails.
#[must_use]
pub fn shrink(plan: &Plan, mode: Mode, budget: Duration) -> Option<Plan> {
    let began = Instant::now();
    let fails = |p: &Plan| run(p, mode).violations.first().map(|v| (v.invariant, v.at));
    let (wanted, at) = fails(plan)?;
    let mut best = plan.clone();
    let still = |p: &Plan| began.elapsed() < budget && fails(p).is_some_and(|(i, _)| i == wanted);
    let shorter = Plan { lasts: (at / 1_000_000 + 100).min(best.lasts), ..best.clone() };
    if still(&shorter) {
        best = shorter;
    }
    let lasts = best.lasts;
    best.episodes.retain(|e| e.at <= lasts);
    best.episodes = thin(&best.episodes, |episodes| still(&Plan { episodes: episodes.to_vec(), ..best.clone() }));
    for clients in [1, 2, best.clients / 2] {
        let less = Plan { clients, ..best.clone() };
        if clients < best.clients && clients > 0 && still(&less) {
            best = less;
            break;
        }
    }
    for i in 0..best.episodes.len() {
        let mut less = best.clone();
        less.episodes[i].lasts /= 2;
        if still(&less) {
            best = less;
        }
    }
    Some(best)
}

/// Runs every mutant (or the one named); true when all were caught.
#[cfg(feature = "mutants")]
fn mutants(only: Option<&str>, seeds: u64, ms: u64) -> bool {
    use super::mutants::{directed, hunt};
    use wukong_core::mutants::RaftMutant;
    const SCENARIO_SEEDS: u64 = 24;

    let mut all = true;
    let mut slow: Vec<(f64, String)> = Vec::new();
    for mutant in RaftMutant::ALL {
        let name = format!("{mutant:?}");
        if only.is_some_and(|o| o != name) {
            continue;
        }
        let mode = Mode { mutant: Some(mutant), ..Mode::default() };
        let directed: Vec<Plan> = directed("raft/mutants", &name)
            .into_iter()
            .filter_map(|p| load(&p).map_err(|e| eprintln!("{e}")).ok())
            .collect();
        // Its schedule is narrow, and moves with every change of the core: so it has some more tries.
        let directed = (0..SCENARIO_SEEDS)
            .flat_map(|more| directed.iter().map(move |p| Plan { seed: p.seed + more, ..p.clone() }));
        let plans = directed.map(|p| (p, true)).chain((0..seeds).map(|s| (Plan::generate(s, ms), false)));
        let hunt = hunt(&name, plans, |p| p.seed, |p| run(p, mode).violations.into_iter().next());
        all &= hunt.is_caught;
        slow.push((hunt.took, format!("{name} {:.1} s ({} of {seeds} runs)", hunt.took, hunt.runs)));
    }
    slow.sort_by(|a, b| b.0.total_cmp(&a.0));
    let slowest: Vec<&str> = slow.iter().take(3).map(|(_, told)| told.as_str()).collect();
    println!("slowest: {}", slowest.join(", "));
    all
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
fn mutants(_: Option<&str>, _: u64, _: u64) -> bool {
    said("build with --features mutants: `make mutants`")
}
