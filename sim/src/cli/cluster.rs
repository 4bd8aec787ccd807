//! `sim cluster`: clusters of real shards.

use super::seeds::{self, Kind, Plans, said};
use super::shrink::thin;
use crate::cluster::plan::Plan;
use crate::cluster::run::run;
use crate::cluster::world::Mode;
use clap::Subcommand;
use std::path::{Path, PathBuf};
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
        #[command(flatten)]
        what: Plans,
        #[arg(long, default_value_t = 30_000)]
        ms: u64,
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

/// Reads a plan.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Plan, String> {
    seeds::load(path, Plan::parse)
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
    o.violations.iter().for_each(|v| println!("  {v}"));
    if all {
        o.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
    }
    o.violations.is_empty()
}

fn sweep(what: &Plans, ms: u64) -> bool {
    let (mut acked, mut judged) = (0, 0);
    let batch = what.sweep(
        |seed| run(&Plan::generate(seed, ms), Mode::default()),
        |o| {
            acked += o.acked;
            judged += o.judged;
            (o.handled, o.simulated, o.cover, o.violations)
        },
    );
    println!(
        "{} seeds from {}  {} inputs  {acked} acked  {judged} judged  {} crashes  {} truncations  simulated {:.1} h  {:.1} s  {:.0} inputs/s",
        batch.runs,
        batch.from,
        batch.handled,
        batch.cover.get("crash"),
        batch.cover.get("truncated"),
        batch.simulated as f64 / 3.6e12,
        batch.took,
        batch.handled as f64 / batch.took,
    );
    let kind = Kind { name: "cluster", handles: "inputs", required: REQUIRED };
    what.judge(kind, ms, &batch, |seed| Plan::generate(seed, ms).text())
}

fn doctor(seeds: u64, ms: u64) -> bool {
    let once = |hash: u64| seeds::again(&format!("cluster trace --seeds {seeds} --ms {ms} --hash {hash}"));
    let (a, b, other) = (once(0), once(0), once(0xDEAD_BEEF));
    let visible = |hashes: &Result<String, String>| hashes.as_ref().ok()?.split(' ').nth(1).map(str::to_owned);
    if a.is_err() || a != b {
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
    use super::mutants::{directed, hunt};
    use wukong_core::mutants::Mutant;
    let mut all = true;
    for mutant in Mutant::CLUSTER {
        let name = format!("{mutant:?}");
        if only.is_some_and(|o| o != name) {
            continue;
        }
        let mode = Mode { mutant: Some(mutant), ..Mode::default() };
        let directed = directed("cluster/mutants", &name).into_iter();
        let directed = directed.filter_map(|p| load(&p).map_err(|e| eprintln!("{e}")).ok());
        let plans = directed.map(|p| (p, true)).chain((0..seeds).map(|s| (Plan::generate(s, ms), false)));
        let caught = hunt(&name, plans, |p| p.seed, |p| run(p, mode).violations.into_iter().next());
        all &= caught.is_caught;
    }
    all
}

/// Without the feature there is nothing to plant.
#[cfg(not(feature = "mutants"))]
fn mutants(_: Option<&str>, _: u64, _: u64) -> bool {
    said("build with --features mutants: `make mutants`")
}
