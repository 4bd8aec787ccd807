//! `sim raft`: clusters of replication groups.

use super::kept;
use super::shrink::thin;
use crate::raft::cluster::{Mode, Violation};
use crate::raft::cover::{Cover, REQUIRED};
use crate::raft::plan::Plan;
use crate::raft::run::{Outcome, run};
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
        #[arg(long, default_value_t = 200)]
        seeds: u64,
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long, default_value_t = LASTS)]
        ms: u64,
        #[arg(long, default_value_t = 1)]
        jobs: usize,
        #[arg(long)]
        keep_going: bool,
        /// Add what was swept to this file, and go on behind the last seed in it
        #[arg(long)]
        resume: Option<PathBuf>,
        #[arg(long)]
        all: bool,
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
            let plan = match file.as_deref().map(load) {
                Some(Ok(plan)) => plan,
                Some(Err(e)) => {
                    eprintln!("{e}");
                    return false;
                }
                None => Plan::generate(seed, ms),
            };
            if text {
                print!("{}", plan.text());
                return true;
            }
            one(&plan, Mode { print: print_from.map(|f| (f, print_to)), ..Mode::default() })
        }
        Command::Sweep { seeds, from, ms, jobs, keep_going, resume, all } => {
            sweep(seeds, from, ms, jobs, keep_going, resume.as_deref(), all)
        }
        Command::Shrink { file, seconds } => match load(&file) {
            Ok(plan) => match shrink(&plan, Mode::default(), Duration::from_secs(seconds)) {
                Some(small) => {
                    print!("{}", small.text());
                    true
                }
                None => {
                    eprintln!("{}: does not fail", file.display());
                    false
                }
            },
            Err(e) => {
                eprintln!("{e}");
                false
            }
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
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Plan::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn ok(outcome: Result<bool, String>) -> bool {
    outcome.unwrap_or_else(|why| {
        eprintln!("{why}");
        false
    })
}

#[must_use]
pub fn told(v: &Violation) -> String {
    format!("{} at {:.3} s: {}", v.invariant, v.at as f64 / 1e9, v.what)
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
        println!("  {}", told(v));
    }
    o.violations.is_empty()
}

fn keep(plan: &Plan, o: &Outcome) -> PathBuf {
    let path = kept().join(format!("raft-{}.scn", plan.seed));
    let why = o.violations.first().map_or_else(String::new, told);
    let text = format!("{}# {}\n", plan.text(), why.replace('\n', " "));
    if let Err(e) = std::fs::create_dir_all(kept()).and_then(|()| std::fs::write(&path, text)) {
        eprintln!("cannot keep the scenario: {e}");
    }
    path
}

#[derive(Default)]
struct Totals {
    runs: u64,
    events: Vec<u64>,
    with_entries: u64,
    acked: Vec<u64>,
    episodes: Vec<u64>,
    simulated: u64,
    failed: Vec<(u64, Outcome)>,
    cover: Cover,
}

fn median(of: &mut [u64]) -> u64 {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or(0)
}

fn sweep(seeds: u64, from: u64, ms: u64, jobs: usize, keep_going: bool, resume: Option<&Path>, all: bool) -> bool {
    let from = resume.and_then(|p| std::fs::read_to_string(p).ok()).map_or(from, |ledger| {
        let ends = ledger.lines().filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok());
        ends.max().unwrap_or(from)
    });
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let o = run(&Plan::generate(seed, ms), Mode::default());
                    if !o.violations.is_empty() && !keep_going {
                        stop.store(true, Ordering::Relaxed);
                    }
                    let mut t = totals.lock().expect("a run panicked");
                    t.runs += 1;
                    t.events.push(o.handled);
                    t.acked.push(o.acked);
                    t.episodes.push(o.episodes);
                    t.with_entries += o.with_entries;
                    t.simulated += o.simulated;
                    t.cover.add(&o.cover);
                    if !o.violations.is_empty() {
                        t.failed.push((seed, o));
                    }
                }
            });
        }
    });
    let mut t = totals.into_inner().expect("a run panicked");
    t.failed.sort_by_key(|(seed, _)| *seed);
    let took = began.elapsed().as_secs_f64();
    let events: u64 = t.events.iter().sum();
    println!(
        "{} seeds from {from}  {events} events ({} % messages with entries)  simulated {} h  {took:.1} s  {:.0} events/s\n\
         median of a seed: {} events, {} episodes, {} acked",
        t.runs,
        100 * t.with_entries / events.max(1),
        t.simulated / 3_600_000_000_000,
        events as f64 / took,
        median(&mut t.events),
        median(&mut t.episodes),
        median(&mut t.acked),
    );
    if all {
        t.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
    }
    for (seed, o) in t.failed.iter().take(if keep_going { 1_000 } else { 1 }) {
        let path = keep(&Plan::generate(*seed, ms), o);
        println!("FAILED seed {seed}: {}\n  sim raft run {}", told(&o.violations[0]), path.display());
    }
    let missing = t.cover.missing(REQUIRED);
    let complete = t.runs < 200 || missing.is_empty();
    if !missing.is_empty() {
        println!("never reached: {}", missing.join(", "));
    }
    if let Some(path) = resume
        && t.failed.is_empty()
    {
        let line = format!("{from} {} {ms} {events} {}\n", from + t.runs, t.simulated / 1_000_000_000);
        let ledger = std::fs::read_to_string(path).unwrap_or_else(|_| "# from to ms events simulated_s\n".into());
        if let Err(e) = std::fs::write(path, ledger + &line) {
            eprintln!("{}: {e}", path.display());
        }
    }
    t.failed.is_empty() && complete
}

fn doctor(seeds: u64, ms: u64) -> bool {
    let once = || {
        let program = std::env::current_exe().ok()?;
        let (seeds, ms) = (seeds.to_string(), ms.to_string());
        let out = std::process::Command::new(program)
            .args(["raft", "trace", "--seeds", &seeds, "--ms", &ms])
            .output()
            .ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    match (once(), once()) {
        (Some(a), Some(b)) if a == b => {
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
    use wukong_core::mutants::RaftMutant;
    const SCENARIO_SEEDS: u64 = 24;

    let mut survived = 0;
    let mut slow: Vec<(f64, String)> = Vec::new();
    for mutant in RaftMutant::ALL {
        let name = format!("{mutant:?}");
        if only.is_some_and(|o| o != name) {
            continue;
        }
        let began = Instant::now();
        let mode = Mode { mutant: Some(mutant), ..Mode::default() };
        let directed: Vec<Plan> = super::mutants::directed("../tests/scenarios/raft/mutants", &name)
            .into_iter()
            .filter_map(|p| load(&p).map_err(|e| eprintln!("{e}")).ok())
            .collect();
        // Its schedule is narrow, and moves with every change of the core: so it has some more tries.
        let directed = (0..SCENARIO_SEEDS)
            .flat_map(|more| directed.iter().map(move |p| Plan { seed: p.seed + more, ..p.clone() }));
        let plans = directed.map(|p| (p, true)).chain((0..seeds).map(|s| (Plan::generate(s, ms), false)));
        let mut runs = 0;
        let caught = plans.into_iter().find_map(|(plan, scripted)| {
            runs += 1;
            let o = run(&plan, mode);
            o.violations.first().map(|v| (told(v), scripted, plan.seed))
        });
        let took = began.elapsed().as_secs_f64();
        slow.push((took, format!("{name} {took:.1} s ({runs} of {seeds} runs)")));
        match caught {
            Some((what, scripted, seed)) => {
                let by = if scripted { format!("its scenario, seed {seed}") } else { format!("seed {seed}") };
                let what: String = what.chars().take(110).collect();
                println!("caught   {name:<26} {runs:>4} runs {took:>5.1} s, {by}: {what}");
            }
            None => {
                survived += 1;
                println!("SURVIVED {name:<26} {runs:>4} runs {took:>5.1} s");
            }
        }
    }
    slow.sort_by(|a, b| b.0.total_cmp(&a.0));
    let slowest: Vec<&str> = slow.iter().take(3).map(|(_, told)| told.as_str()).collect();
    println!("slowest: {}", slowest.join(", "));
    survived == 0
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
fn mutants(_: Option<&str>, _: u64, _: u64) -> bool {
    eprintln!("build with --features mutants: `make mutants`");
    false
}
