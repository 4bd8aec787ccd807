//! A handful of tier B's seeds, and planted bugs that its checks notice. Empty without `--cfg madsim` (`make tierb` runs more).
#![cfg(madsim)]

use wukong_sim::cli::scenarios_in;
use wukong_sim::cluster;
use wukong_sim::tierb::compare::{compare, scripted};
use wukong_sim::tierb::plan::{Bug, Drives, Plan};
use wukong_sim::tierb::runs::{play, run, sweep};

#[test]
fn a_handful_of_seeds_hold_and_repeat() {
    let total = sweep(0, 6, 2);
    assert!(total.failed.is_empty(), "{:?}", total.sum.violations);
    let sum = &total.sum;
    assert_eq!((total.seeds, total.twice), (6, 5));
    assert!(sum.acked > 100 && sum.received > 100 && sum.counts.frames_arrived > 1_000, "{sum:?}");
    assert!(sum.starts > 12 && sum.counts.downs > 0, "{sum:?}");
}

/// A stopped channel asked for a deadline that had passed: no time went by any more.
#[test]
fn nothing_spins() {
    let total = sweep(1159, 1, 1);
    assert!(total.failed.is_empty(), "{:?}", total.sum.violations);
}

/// The first violation that a planted bug leads to within the first seeds of its kind.
fn noticed(drives: Drives, bug: Bug) -> String {
    for seed in 0..60 {
        let plan = Plan { bug: Some(bug), ..Plan::draw(seed) };
        if plan.drives == drives
            && let Some(first) = run(plan, false).violations.into_iter().next()
        {
            return first;
        }
    }
    panic!("{bug:?} was not noticed");
}

#[test]
fn planted_bugs_are_noticed() {
    let lost = noticed(Drives::Shard, Bug::CompleteBeforeSync);
    assert!(lost.contains("INV-4") || lost.contains("INV-9"), "{lost}");
    let order = noticed(Drives::Counter, Bug::OutOfOrder);
    assert!(order.contains("LINK") && order.contains("instead of"), "{order}");
}

/// The kept scenarios of `sim cluster`.
#[test]
fn kept_scenarios_hold_and_repeat() {
    let files = scenarios_in("cluster");
    assert!(files.len() >= 9);
    for file in files {
        let outcome = play(&file).unwrap();
        assert_eq!(outcome.violations, Vec::<String>::new(), "{}", file.display());
        assert!(outcome.acked > 20 && outcome.judged > 500, "{}: {outcome:?}", file.display());
    }
}

/// What episodes do in tier A they do here.
#[test]
fn episodes_happen() {
    let mut cover = wukong_sim::raft::cover::Cover::default();
    for seed in 0..60 {
        let outcome = run(Plan::of_scenario(cluster::plan::Plan::generate(seed, 15_000)), false);
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
        cover.add(&outcome.cover);
    }
    let happened = [
        "crash",
        "crash mid drain",
        "crash lost batches",
        "crash kept unsynced",
        "paused",
        "sync failed",
        "halted",
        "read failed",
        "truncated",
        "handed over",
        "elected a channel's leader",
        "acknowledged again",
    ];
    assert_eq!(cover.missing(&happened), Vec::<&str>::new());
}

/// Whether scenarios drawn from seeds notice a planted bug by one of these oracles first.
fn is_noticed_in_scenarios(bug: Bug, by: &[&str]) -> bool {
    let plan = |seed| Plan { bug: Some(bug), ..Plan::of_scenario(cluster::plan::Plan::generate(seed, 10_000)) };
    let first = |seed| run(plan(seed), false).violations.into_iter().next();
    (0..20).filter_map(first).any(|what| by.iter().any(|name| what.contains(name)))
}

#[test]
fn planted_bugs_are_noticed_in_scenarios() {
    assert!(is_noticed_in_scenarios(Bug::CompleteBeforeSync, &["INV-5", "commit"]));
    assert!(is_noticed_in_scenarios(Bug::LoseWrite, &["STREAM"]));
}

#[test]
fn both_tiers_look_the_same_from_outside() {
    for seed in 0..8 {
        let facts = compare(&scripted(seed), |_| {}).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        assert!(facts > 50, "seed {seed}: only {facts} facts");
    }
}

/// A refusal for a passing reason breaks no rule: the client repeats, and is acknowledged. Only the comparison sees it.
#[test]
fn a_refusal_of_what_is_stored_differs_from_tier_a() {
    // Without turns: whoever is refused hangs up, and misses what the others wait for.
    let mut struck = 0;
    for seed in (0..12).map(|n| 2 * n) {
        let planted = Plan { bug: Some(Bug::RefuseStored), ..Plan::of_scenario(scripted(seed)) };
        let happened = run(planted, false).cover.get("refused what is stored") > 0;
        let verdict = compare(&scripted(seed), |plan| plan.bug = Some(Bug::RefuseStored));
        // A run that is too short for it must agree, every other one differ.
        assert_eq!(verdict.is_err(), happened, "seed {seed}: {verdict:?}");
        struck += u64::from(happened);
        let Err(what) = verdict else { continue };
        assert!(what.starts_with("reasons of SENDACKs for") && what.contains("15 in tier B"), "{what}");
        assert!(!what.contains("failed"), "{what}");
    }
    assert!(struck >= 4, "{struck}");
}
