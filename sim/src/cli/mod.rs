//! Commands of the binary.

pub mod cluster;
pub mod doctor;
pub mod explain;
pub mod mutants;
pub mod raft;
pub mod recording;
pub mod seeds;
pub mod shrink;
pub mod small;
pub mod speed;
pub mod sweep;

use crate::report;
use crate::run::{Outcome, run_caught};
use crate::scenario::Scenario;
use crate::world::Mode;
use std::path::{Path, PathBuf};
use wukong_core::Shard;

/// Where failing scenarios are kept.
#[must_use]
pub fn kept() -> PathBuf {
    std::env::temp_dir().join("wukong-sim")
}

/// The scenario files of a folder of `tests/scenarios`, in order; none if there is no such folder.
#[must_use]
pub fn scenarios_in(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "scn"));
    files.sort();
    files
}

/// Reads a scenario.
///
/// # Errors
/// It cannot be read, or is none.
pub fn load(path: &Path) -> Result<Scenario, String> {
    seeds::load(path, Scenario::parse)
}

/// Runs one scenario and says what came of it; true when nothing is wrong.
#[must_use]
pub fn show(scenario: &Scenario, path: &Path, mode: Mode, every: bool) -> bool {
    let outcome = run_caught::<Shard>(scenario, mode);
    if outcome.violations.is_empty() {
        println!("{}", summary(scenario, &outcome));
        for (oracle, n) in &outcome.judged {
            println!("  {oracle:<14} judged {n}");
        }
        print!("{}", if every { report::coverage(&outcome.seen, true) } else { String::new() });
        return true;
    }
    print!("{}", report::screen(scenario, &outcome, path));
    false
}

fn summary(scenario: &Scenario, o: &Outcome) -> String {
    format!(
        "ok  seed {:#x}  {} inputs  {} acked  {} received  {} crashes  simulated {}  trace {:016x}",
        scenario.seed,
        o.handled,
        o.acked,
        o.received,
        o.crashes,
        report::seconds(o.simulated),
        o.trace
    )
}

/// Re-runs a file: a scenario, or a recording of a real shard (then with all others of its run).
#[must_use]
pub fn replay(path: &Path, mode: Mode, every: bool) -> bool {
    if path.is_dir() {
        return recording::replay_run(path, mode.print);
    }
    match std::fs::read(path) {
        Err(e) => {
            eprintln!("{}: {e}", path.display());
            false
        }
        Ok(bytes) if bytes.starts_with(recording::MAGIC) => recording::replay_run(path, mode.print),
        Ok(_) => match load(path) {
            Ok(scenario) => show(&scenario, path, mode, every),
            Err(e) => {
                eprintln!("{e}");
                false
            }
        },
    }
}
