//! Kept scenarios and a few fresh seeds against the real core.

use wukong_core::Shard;
use wukong_sim::cli::load;
use wukong_sim::cli::scenarios_in;
use wukong_sim::run::run;
use wukong_sim::scenario::plan;
use wukong_sim::world::Mode;

#[test]
fn kept_scenarios_hold() {
    let files = scenarios_in("");
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
    let files = scenarios_in("mutants");
    assert!(!files.is_empty());
    files.iter().for_each(|file| drop(load(file).unwrap()));
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
