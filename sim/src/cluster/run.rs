//! One run of a plan, from its start to the judgement.

use super::external::External;
use super::plan::Plan;
use super::world::{Mode, World};
use crate::clock::MS;
use crate::history::Violation;
use crate::raft::cover::Cover;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub handled: u64,
    /// Distinct messages.
    pub acked: u64,
    /// ns.
    pub simulated: u64,
    pub trace: u64,
    pub visible: u64,
    pub judged: u64,
    pub cover: Cover,
    pub external: External,
}

/// Runs a plan; a panic of the core is a violation.
#[must_use]
pub fn run(plan: &Plan, mode: Mode) -> Outcome {
    let run = AssertUnwindSafe(|| {
        let mut world = World::new(plan.clone(), mode);
        world.run_to(plan.lasts * MS);
        if world.violations.is_empty() {
            world.come_together();
        }
        world.outcome()
    });
    catch_unwind(run).unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("a panic without a message").to_owned();
        Outcome { violations: vec![Violation { at: 0, invariant: "PANIC", what }], ..Outcome::default() }
    })
}

impl World {
    /// What came of it.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        Outcome {
            handled: self.handled,
            acked: self.truth.stored.len() as u64,
            simulated: self.now,
            trace: self.trace.value(),
            visible: self.visible.value(),
            judged: self.truth.judged,
            external: External::of(self),
            cover: self.cover.clone(),
            violations: self.violations.clone(),
        }
    }
}
