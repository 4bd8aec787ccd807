//! Kept plans of replication groups hold, and runs repeat.

use wukong_sim::cli::raft::load;
use wukong_sim::cli::scenarios_in;
use wukong_sim::raft::cluster::Mode;
use wukong_sim::raft::explain::{Moment, explain};
use wukong_sim::raft::explore::explore;
use wukong_sim::raft::plan::Plan;
use wukong_sim::raft::run::run;
use wukong_sim::raft::small::{Bounds, search};

#[test]
fn kept_plans_hold() {
    let files = [scenarios_in("raft"), scenarios_in("raft/mutants")].concat();
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

#[test]
fn futures_of_a_sound_state_hold_and_repeat() {
    let plan = Plan::generate(1, 4_000);
    let (a, b) = (explore(&plan, Mode::default(), 2_000, 3, 3_000), explore(&plan, Mode::default(), 2_000, 3, 3_000));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(a.failures.is_empty(), "{:?}", a.failures[0].violation);
    assert_eq!((a.handled, a.branches), (b.handled, 3));
    assert!(a.handled >= 3 * 3_000, "{}", a.handled);
    assert!(explore(&plan, Mode::default(), u64::MAX, 1, 1).unwrap_err().contains("ends at event"));
}

#[test]
fn a_moment_is_explained() {
    let plan = Plan { episodes: Vec::new(), ..Plan::generate(3, 3_000) };
    let moment = Moment::Replica { node: 0, group: 0, until: 2_500 };
    let chain = explain(&plan, Mode::default(), moment, 30).unwrap();
    assert!(chain.links.len() == 30 && chain.violation.is_none());
    // Causes come first, and each is of a later fact in the chain.
    assert!(chain.links.iter().all(|l| l.fact <= l.of && chain.links.iter().any(|x| x.fact == l.of)));
    assert!(explain(&plan, Mode::default(), Moment::Failure(None), 30).unwrap_err().contains("nothing fails"));
}

#[test]
fn small_worlds_hold_in_every_order() {
    let boot = Bounds { led: false, entries: 0, crashes: 0, ..Bounds::default() };
    let appended = Bounds { elections: 0, crashes: 0, ..Bounds::default() };
    for (assigned, bounds) in [(false, boot), (false, appended), (true, appended)] {
        let seen = search(assigned, bounds, None, 50_000);
        assert!(seen.violation.is_none(), "{:?}", seen.violation);
        assert!(seen.complete && seen.states > 50, "{} states", seen.states);
    }
    // Part of what `make small` looks at.
    for assigned in [false, true] {
        let seen = search(assigned, Bounds::default(), None, 3_000);
        assert!(seen.violation.is_none(), "{:?}", seen.violation);
        assert_eq!(seen.states, 3_000);
    }
}
