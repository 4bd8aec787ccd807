//! `sim cluster`: clusters of real shards.

use super::kept;
use super::shrink::thin;
use crate::cluster::plan::Plan;
use crate::cluster::run::{Outcome, run};
use crate::cluster::world::Mode;
use crate::history::Violation;
use crate::raft::cover::Cover;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a batch of 200 seeds must have seen.
pub const REQUIRED: &[&str] = &[
    "crash",
    "crash mid drain",
    "crash lost batches",
    "crash kept unsynced",
    "sync failed",
    "halted",
    "read failed",
    "batches merged",
    "paused",
    "cut unnoticed",
    "link up without down",
    "two say that they serve",
    "channel led",
    "led with arrears",
    "truncated",
    "refused",
    "resent after reconnect",
    "acknowledged sent again",
    "acknowledged again",
    "recv again",
    "channel read",
    "read refused",
    "elected a channel's leader",
    "fenced",
    "handed over",
    "deleted",
    "made anew",
    "rows of a deleted log went",
    "audits_differ",
    "audits_woken",
    "led again by the same process",
    "dedup_hits",
    "dedup_loads",
    "channels_settled",
    "token changed",
    "token change refused",
    "snapshots_begun",
    "snapshots_restored",
    "channels_evicted",
    "data_pauses",
    "digests_hit",
    "rows_packed",
    "window",
];

#[derive(Subcommand)]
pub enum Command {
    /// One run: of a seed, or of a scenario file
    #[command(visible_alias = "replay")]
    Run {
        file: Option<PathBuf>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Length of the part with faults
        #[arg(long, default_value_t = 30_000)]
        ms: u64,
        /// Print the scenario instead of running it
        #[arg(long)]
        text: bool,
        /// Print what was seen
        #[arg(long)]
        all: bool,
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
        #[arg(long, default_value_t = 30_000)]
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
    /// Make a failing scenario smaller
    Shrink {
        file: PathBuf,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Is it deterministic? Compares the traces of two processes, and what clients see with another hash seed
    Doctor {
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        #[arg(long, default_value_t = 10_000)]
        ms: u64,
    },
    /// Prints hashes over the traces of some seeds, for `doctor`
    Trace {
        #[arg(long, default_value_t = 5)]
        seeds: u64,
        #[arg(long, default_value_t = 0)]
        from: u64,
        #[arg(long, default_value_t = 10_000)]
        ms: u64,
        /// Seed of hash tables
        #[arg(long, default_value_t = 0)]
        hash: u64,
    },
    /// Plant known bugs; fails when one survives
    Mutants {
        #[arg(long)]
        only: Option<String>,
        #[arg(long, default_value_t = 120)]
        seeds: u64,
        #[arg(long, default_value_t = 15_000)]
        ms: u64,
    },
}

/// True when nothing is wrong.
#[must_use]
pub fn main(command: Command) -> bool {
    match command {
        Command::Run { file, seed, ms, text, all, print_from, print_to } => {
            match file.as_deref().map_or_else(|| Ok(Plan::generate(seed, ms)), load) {
                Ok(plan) if text => {
                    print!("{}", plan.text());
                    true
                }
                Ok(plan) => one(&plan, Mode { print: print_from.map(|f| (f, print_to)), ..Mode::default() }, all),
                Err(e) => said(&e),
            }
        }
        Command::Sweep { seeds, from, ms, jobs, keep_going, resume, all } => {
            sweep(Sweep { seeds, from, ms, jobs, keep_going, all }, resume.as_deref())
        }
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
        Command::Trace { seeds, from, ms, hash } => {
            let (mut trace, mut visible) = (0_u64, 0_u64);
            for seed in from..from + seeds {
                let o = run(&Plan::generate(seed, ms), Mode { hash, ..Mode::default() });
                trace = trace.rotate_left(7) ^ o.trace ^ o.handled;
                visible = visible.rotate_left(7) ^ o.visible;
            }
            println!("{trace:016x} {visible:016x}");
            true
        }
        Command::Doctor { seeds, ms } => doctor(seeds, ms),
        Command::Mutants { only, seeds, ms } => mutants(only.as_deref(), seeds, ms),
    }
}

fn said(error: &str) -> bool {
    eprintln!("{error}");
    false
}

/// Reads a plan.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Plan, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Plan::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn told(v: &Violation) -> String {
    format!("{} at {:.3} s: {}", v.invariant, v.at as f64 / 1e9, v.what)
}

fn one(plan: &Plan, mode: Mode, all: bool) -> bool {
    let o = run(plan, mode);
    println!(
        "{}  seed {}  {} inputs  {} acked  {} judged  simulated {} s  trace {:016x}",
        if o.violations.is_empty() { "ok" } else { "FAILED" },
        plan.seed,
        o.handled,
        o.acked,
        o.judged,
        o.simulated / 1_000_000_000,
        o.trace
    );
    o.violations.iter().for_each(|v| println!("  {}", told(v)));
    if all {
        o.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
    }
    o.violations.is_empty()
}

fn keep(plan: &Plan, o: &Outcome) -> PathBuf {
    let path = kept().join(format!("cluster-{}.scn", plan.seed));
    let why = o.violations.first().map_or_else(String::new, told);
    let text = format!("{}# {}\n", plan.text(), why.replace('\n', " "));
    if let Err(e) = std::fs::create_dir_all(kept()).and_then(|()| std::fs::write(&path, text)) {
        eprintln!("cannot keep the scenario: {e}");
    }
    path
}

struct Sweep {
    seeds: u64,
    from: u64,
    ms: u64,
    jobs: usize,
    keep_going: bool,
    all: bool,
}

#[derive(Default)]
struct Totals {
    runs: u64,
    inputs: u64,
    acked: u64,
    judged: u64,
    simulated: u64,
    failed: Vec<(u64, Outcome)>,
    cover: Cover,
}

fn sweep(mut what: Sweep, resume: Option<&Path>) -> bool {
    let ledger = resume.and_then(|p| std::fs::read_to_string(p).ok());
    let ends = ledger.iter().flat_map(|l| l.lines()).filter_map(|l| l.split_whitespace().nth(1)?.parse().ok());
    what.from = ends.max().unwrap_or(what.from);
    let began = Instant::now();
    let t = gathered(&what);
    let took = began.elapsed().as_secs_f64();
    println!(
        "{} seeds from {}  {} inputs  {} acked  {} judged  {} crashes  {} truncations  simulated {:.1} h  {took:.1} s  {:.0} inputs/s",
        t.runs,
        what.from,
        t.inputs,
        t.acked,
        t.judged,
        t.cover.get("crash"),
        t.cover.get("truncated"),
        t.simulated as f64 / 3.6e12,
        t.inputs as f64 / took,
    );
    if what.all {
        t.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
    }
    for (seed, o) in t.failed.iter().take(if what.keep_going { 1_000 } else { 1 }) {
        let path = keep(&Plan::generate(*seed, what.ms), o);
        println!("FAILED seed {seed}: {}\n  sim cluster run {}", told(&o.violations[0]), path.display());
    }
    let missing = t.cover.missing(REQUIRED);
    if !missing.is_empty() {
        println!("never reached: {}", missing.join(", "));
    }
    if let Some(path) = resume
        && t.failed.is_empty()
    {
        let (from, ms, hours) = (what.from, what.ms, t.simulated / 1_000_000_000);
        let line = format!("{from} {} {ms} {} {hours}\n", from + t.runs, t.inputs);
        let ledger = ledger.unwrap_or_else(|| "# from to ms inputs simulated_s\n".into());
        if let Err(e) = std::fs::write(path, ledger + &line) {
            eprintln!("{}: {e}", path.display());
        }
    }
    t.failed.is_empty() && (t.runs < 200 || missing.is_empty())
}

fn gathered(what: &Sweep) -> Totals {
    let next = AtomicU64::new(what.from);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= what.from + what.seeds {
                return;
            }
            let o = run(&Plan::generate(seed, what.ms), Mode::default());
            if !o.violations.is_empty() && !what.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
            let mut t = totals.lock().expect("a run panicked");
            t.runs += 1;
            t.inputs += o.handled;
            t.acked += o.acked;
            t.judged += o.judged;
            t.simulated += o.simulated;
            t.cover.add(&o.cover);
            if !o.violations.is_empty() {
                t.failed.push((seed, o));
            }
        }
    };
    std::thread::scope(|scope| (0..what.jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let mut t = totals.into_inner().expect("a run panicked");
    t.failed.sort_by_key(|(seed, _)| *seed);
    t
}

fn doctor(seeds: u64, ms: u64) -> bool {
    let once = |hash: &str| {
        let program = std::env::current_exe().ok()?;
        let (seeds, ms) = (seeds.to_string(), ms.to_string());
        let out = std::process::Command::new(program)
            .args(["cluster", "trace", "--seeds", &seeds, "--ms", &ms, "--hash", hash])
            .output()
            .ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let (a, b, other) = (once("0"), once("0"), once("3735928559"));
    let visible = |hashes: &Option<String>| hashes.as_ref()?.split(' ').nth(1).map(str::to_owned);
    if a.is_none() || a != b {
        println!("two processes differ: {a:?} and {b:?}");
    } else if visible(&a) != visible(&other) {
        println!("another hash seed changes what clients see: {a:?} and {other:?}");
    } else {
        println!("{seeds} seeds: two processes and another hash seed agree ({})", a.unwrap_or_default());
        return true;
    }
    false
}

/// Cuts away what the failure does not need, as long as the same check fails.
#[must_use]
pub fn shrink(plan: &Plan, mode: Mode, budget: Duration) -> Option<Plan> {
    let began = Instant::now();
    let fails = |p: &Plan| run(p, mode).violations.first().map(|v| (v.invariant, v.at));
    let (wanted, at) = fails(plan)?;
    let mut best = plan.clone();
    let still = |p: &Plan| began.elapsed() < budget && fails(p).is_some_and(|(i, _)| i == wanted);
    let lasts = (at / 1_000_000).saturating_add(100).min(best.lasts);
    let episodes = best.episodes.iter().filter(|e| e.at <= lasts).copied().collect();
    let shorter = Plan { lasts, episodes, ..best.clone() };
    if still(&shorter) {
        best = shorter;
    }
    best.episodes = thin(&best.episodes, |episodes| still(&Plan { episodes: episodes.to_vec(), ..best.clone() }));
    let edits: [fn(&mut Plan); 7] = [
        |p| p.slots = 1,
        |p| p.shards = 1,
        |p| p.listeners = 0,
        |p| p.users = 2,
        |p| p.drift = 0,
        |p| p.think *= 3,
        |p| p.memory = 2,
    ];
    for edit in edits {
        let mut less = best.clone();
        edit(&mut less);
        if less != best && Plan::parse(&less.text()).is_ok() && still(&less) {
            best = less;
        }
    }
    Some(best)
}

/// Runs every mutant (or the one named); true when all were caught.
#[cfg(feature = "mutants")]
fn mutants(only: Option<&str>, seeds: u64, ms: u64) -> bool {
    use wukong_core::mutants::Mutant;
    let mut survived = 0;
    for mutant in Mutant::CLUSTER {
        let name = format!("{mutant:?}");
        if only.is_some_and(|o| o != name) {
            continue;
        }
        let began = Instant::now();
        let mode = Mode { mutant: Some(mutant), ..Mode::default() };
        let directed = super::mutants::directed("../tests/scenarios/cluster/mutants", &name)
            .into_iter()
            .filter_map(|p| load(&p).map_err(|e| eprintln!("{e}")).ok());
        let plans = directed.map(|p| (p, true)).chain((0..seeds).map(|s| (Plan::generate(s, ms), false)));
        let mut runs = 0;
        let caught = plans.into_iter().find_map(|(plan, scripted)| {
            runs += 1;
            run(&plan, mode).violations.first().map(|v| (told(v), scripted, plan.seed))
        });
        let took = began.elapsed().as_secs_f64();
        match caught {
            Some((what, scripted, seed)) => {
                let by = if scripted { "its scenario".to_owned() } else { format!("seed {seed}") };
                let what: String = what.chars().take(110).collect();
                println!("caught   {name:<26} {runs:>4} runs {took:>5.1} s, {by}: {what}");
            }
            None => {
                survived += 1;
                println!("SURVIVED {name:<26} {runs:>4} runs {took:>5.1} s");
            }
        }
    }
    survived == 0
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
fn mutants(_: Option<&str>, _: u64, _: u64) -> bool {
    said("build with --features mutants: `make mutants`")
}
