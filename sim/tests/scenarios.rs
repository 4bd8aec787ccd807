//! Kept scenarios and a few fresh seeds against the real core.

use std::path::{Path, PathBuf};
use wukong_core::Shard;
use wukong_sim::cli::load;
use wukong_sim::run::run;
use wukong_sim::scenario::plan;
use wukong_sim::world::Mode;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "scn"));
    files.sort();
    files
}

#[test]
fn kept_scenarios_hold() {
    let files = files();
    assert!(files.len() >= 4);
    for file in files {
        let scenario = load(&file).unwrap();
        let outcome = run::<Shard>(scenario, Mode::default());
        assert_eq!(outcome.violations, [], "{}", file.display());
        assert!(outcome.acked > 20, "{}: only {} acked", file.display(), outcome.acked);
    }
}

#[test]
fn every_scenario_file_parses() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/mutants");
    for entry in std::fs::read_dir(folder).unwrap() {
        load(&entry.unwrap().path()).unwrap();
    }
}

#[test]
fn fresh_seeds_hold_and_repeat() {
    for seed in 1..6 {
        let outcome = run::<Shard>(plan::generate(seed, 1_000), Mode::default());
        assert_eq!(outcome.violations, [], "seed {seed}");
        let again = run::<Shard>(plan::generate(seed, 1_000), Mode::default());
        assert_eq!((outcome.trace, outcome.visible), (again.trace, again.visible), "seed {seed}");
    }
}
