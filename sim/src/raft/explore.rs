//! Other futures of one state: the cluster is cloned at an event, and each copy goes on with other draws and other faults.

use super::MS;
use super::cluster::{Cluster, Mode};
use super::plan::Plan;
use crate::history::Violation;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A future that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Reproduces it from the start.
    pub plan: Plan,
    pub violation: Violation,
}

/// What came of the futures.
#[derive(Clone, Debug, Default)]
pub struct Futures {
    pub branches: u64,
    /// Inputs handled in all futures together, without those before the branch.
    pub handled: u64,
    pub failures: Vec<Failure>,
}

/// Runs `plan` up to `event`, and from there `branches` futures of at most `steps` inputs each (0: to their end, with the part
/// without faults). All oracles judge.
///
/// # Errors
/// The run fails, or ends, before that event.
pub fn explore(plan: &Plan, mode: Mode, event: u64, branches: u64, steps: u64) -> Result<Futures, String> {
    let mut main = Cluster::new(plan.clone(), mode);
    let ended = main.run_until(plan.lasts * MS, event);
    if let Some(v) = main.violations.first() {
        return Err(format!("fails before event {event}: {}: {}", v.invariant, v.what));
    }
    if ended {
        return Err(format!("ends at event {}, before {event}", main.handled));
    }
    let (event, now) = (main.handled, main.now / MS);
    let mut futures = Futures { branches, ..Futures::default() };
    for seed in 1..=branches {
        let mut world = main.clone();
        world.plan.branches.truncate(world.taken);
        world.plan.branches.push(plan.branch(event, now, seed));
        let plan = world.plan.clone();
        let run = AssertUnwindSafe(|| {
            let limit = if steps == 0 { u64::MAX } else { event + steps };
            if world.run_until(plan.lasts * MS, limit) && world.violations.is_empty() {
                world.now = world.now.max(plan.lasts * MS);
                world.come_together();
            }
            (world.handled - event, world.violations.first().cloned())
        });
        let (handled, violation) = catch_unwind(run).unwrap_or_else(|why| {
            let text = why.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            (0, Some(Violation { at: 0, invariant: "panic", what: text }))
        });
        futures.handled += handled;
        if let Some(violation) = violation {
            futures.failures.push(Failure { plan, violation });
        }
    }
    Ok(futures)
}
