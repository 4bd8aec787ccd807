//! A handful of tier B's seeds, and planted bugs that its checks notice. Empty without `--cfg madsim` (`make tierb` runs more).
#![cfg(madsim)]

use wukong_sim::tierb::plan::{Bug, Drives, Plan};
use wukong_sim::tierb::runs::{run, sweep};

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
