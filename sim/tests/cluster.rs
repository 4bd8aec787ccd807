//! Kept plans of clusters of shards hold, and runs repeat.

use std::path::Path;
use wukong_sim::cli::cluster::load;
use wukong_sim::cli::scenarios_in;
use wukong_sim::cluster::plan::Plan;
use wukong_sim::cluster::run::run;
use wukong_sim::cluster::world::Mode;

#[test]
fn kept_plans_hold() {
    let files = scenarios_in("cluster");
    assert!(files.len() >= 9);
    let holds = |file: &Path| {
        let plan = load(file).unwrap();
        let outcome = run(&plan, Mode::default());
        assert_eq!(outcome.violations, [], "{}", file.display());
        assert!(outcome.acked > 20, "{}: only {} acked", file.display(), outcome.acked);
    };
    std::thread::scope(|scope| files.iter().for_each(|file| drop(scope.spawn(|| holds(file)))));
}

#[test]
fn fresh_seeds_hold_and_repeat() {
    for seed in 0..3 {
        let plan = Plan::generate(seed, 4_000);
        let (a, b) = (run(&plan, Mode::default()), run(&plan, Mode::default()));
        assert_eq!(a.violations, [], "seed {seed}");
        assert_eq!((a.trace, a.handled), (b.trace, b.handled), "seed {seed}");
        let rehashed = run(&plan, Mode { hash: 0xDEC0_DE00, ..Mode::default() });
        assert_eq!(a.visible, rehashed.visible, "seed {seed}: another hash seed changes what clients see");
    }
}

/// What users do and see by a script does not depend on timing; what differs is said.
#[test]
fn scripts_look_the_same_from_outside() {
    for seed in 0..4 {
        let drawn = Plan { episodes: Vec::new(), ..Plan::generate(seed, 4_000) };
        let plan = Plan { nodes: 3, listeners: 1, sends: 12, turns: seed % 2, ..drawn };
        let slower = Plan { latency: 3 * plan.latency + 400, sync: plan.sync + 700, think: 45, ..plan.clone() };
        let [one, two] = [&plan, &slower].map(|plan| run(plan, Mode::default()));
        assert_eq!((one.violations, two.violations), (Vec::new(), Vec::new()), "seed {seed}");
        assert_ne!(one.trace, two.trace, "seed {seed}");
        assert_eq!(one.external.difference(&two.external, ["one", "two"]), None, "seed {seed}");
        assert!(one.external.facts() > 50, "seed {seed}: {}", one.external.facts());
        let less = run(&Plan { sends: 11, ..plan }, Mode::default());
        let said = one.external.difference(&less.external, ["one", "less"]).unwrap();
        assert!(said.contains("in one, ") && said.ends_with("in less"), "{said}");
    }
}

#[test]
fn a_cluster_without_a_majority_fails() {
    // A run in which nothing can be stored must not pass: two of three nodes never come back.
    let mut plan = Plan { nodes: 3, ..Plan::generate(1, 3_000) };
    plan.episodes.clear();
    let outcome = run(&plan, Mode { majority_dead: true, ..Mode::default() });
    assert_eq!(outcome.violations.first().map(|v| v.invariant), Some("liveness"));
}
