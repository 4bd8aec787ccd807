//! One run of a plan, from its start to the judgement.

use super::MS;
use super::cluster::{Cluster, Mode};
use super::cover::Cover;
use super::plan::Plan;
use crate::history::Violation;
use std::panic::{AssertUnwindSafe, catch_unwind};
use wukong_core::raft::core::Output;
use wukong_core::raft::message::{Item, Message};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub handled: u64,
    pub with_entries: u64,
    pub acked: u64,
    pub episodes: u64,
    /// ns.
    pub simulated: u64,
    pub trace: u64,
    pub judged: u64,
    pub cover: Cover,
}

/// Runs a plan; a panic of the core is a violation.
#[must_use]
pub fn run(plan: &Plan, mode: Mode) -> Outcome {
    let run = AssertUnwindSafe(|| {
        let mut world = Cluster::new(plan.clone(), mode);
        world.run_to(plan.lasts * MS);
        if world.violations.is_empty() {
            world.come_together();
        }
        Outcome {
            handled: world.handled,
            with_entries: world.with_entries,
            acked: world.ghost.acked,
            episodes: world.episodes.len() as u64,
            simulated: world.now,
            trace: world.trace.value(),
            judged: world.ghost.judged,
            cover: world.cover,
            violations: world.violations,
        }
    });
    catch_unwind(run).unwrap_or_else(|why| {
        let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
        let what = text.unwrap_or("a panic without a message").to_owned();
        Outcome { violations: vec![Violation { at: 0, invariant: "panic", what }], ..Outcome::default() }
    })
}

/// An output in a few words.
#[must_use]
pub fn brief(output: &Output) -> String {
    match output {
        Output::Send(m) => {
            let what = match &m.message {
                Message::Items { prev, items, hw, .. } => {
                    let marks = items.iter().filter(|i| matches!(i, Item::Mark { .. })).count();
                    format!("Items after {}.{} +{} ({marks} marks) hw {hw}", prev.epoch, prev.index, items.len())
                }
                Message::Fetch(f) => format!(
                    "Fetch #{} pos {}.{} durable {}.{} beat {}",
                    f.seq, f.pos.epoch, f.pos.index, f.durable.epoch, f.durable.index, f.beat
                ),
                other => format!("{other:?}").chars().take(120).collect(),
            };
            format!("-> n{} e{} {what}", super::node_of(m.to), m.epoch)
        }
        Output::Persist { token, ops } => format!("persist {} {} ops", token.0, ops.len()),
        other => format!("{other:?}").chars().take(140).collect(),
    }
}
