//! Kept plans of replication groups hold, and runs repeat.

use std::path::{Path, PathBuf};
use wukong_sim::cli::raft::load;
use wukong_sim::raft::cluster::Mode;
use wukong_sim::raft::plan::Plan;
use wukong_sim::raft::run::run;

fn files(below: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/raft").join(below);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "scn"));
    files.sort();
    files
}

#[test]
fn kept_plans_hold() {
    let files = [files(""), files("mutants")].concat();
    assert!(files.len() >= 11);
    for file in files {
        let plan = load(&file).unwrap();
        let outcome = run(&plan, Mode::default());
        let told: Vec<_> = outcome.violations.iter().map(|v| (v.invariant, &v.what)).collect();
        assert!(told.is_empty(), "{}: {told:?}", file.display());
        assert!(outcome.acked > 20, "{}: only {} acked", file.display(), outcome.acked);
    }
}

#[test]
fn fresh_seeds_hold_and_repeat() {
    for seed in 0..4 {
        let plan = Plan::generate(seed, 4_000);
        let (a, b) = (run(&plan, Mode::default()), run(&plan, Mode::default()));
        assert!(a.violations.is_empty(), "seed {seed}: {:?}", a.violations);
        assert_eq!((a.trace, a.handled), (b.trace, b.handled), "seed {seed}");
    }
}

#[test]
fn without_a_quorum_of_promises_the_run_fails() {
    // The oracles see a cluster in which nothing can be stored: a run that judges nothing would pass.
    let mut plan = Plan::generate(1, 3_000);
    plan.clients = 0;
    let outcome = run(&plan, Mode::default());
    assert_eq!(outcome.violations.first().map(|v| v.invariant), Some("liveness"));
}
