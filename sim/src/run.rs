//! One run: a scenario in, an outcome out.

use crate::history::{Event, Violation};
use crate::machine::Machine;
use crate::oracle;
use crate::scenario::Scenario;
use crate::sometimes::Seen;
use crate::world::{Mode, World, truth};

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub violations: Vec<Violation>,
    pub handled: u64,
    /// Events taken from the heap.
    pub popped: u64,
    pub acked: u64,
    pub received: u64,
    pub crashes: u64,
    /// Simulated nanoseconds.
    pub simulated: u64,
    pub trace: u64,
    pub visible: u64,
    pub checkpoints: Vec<u64>,
    pub seen: Seen,
    /// How much each oracle had to judge.
    pub judged: Vec<(&'static str, u64)>,
}

/// Runs a scenario to its end and judges it.
#[must_use]
pub fn run<M: Machine>(scenario: Scenario, mode: Mode) -> Outcome {
    let mut world = World::<M>::new(scenario, mode);
    world.run();
    finish(world)
}

/// The same, with a panic of the core caught as a violation.
#[must_use]
pub fn run_caught<M: Machine>(scenario: &Scenario, mode: Mode) -> Outcome {
    let result = std::panic::catch_unwind(|| run::<M>(scenario.clone(), mode));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        let what = format!("panic: {}", text.unwrap_or_default());
        let violation = Violation { invariant: "PANIC", at: 0, what };
        Outcome { violations: vec![violation], ..Outcome::default() }
    })
}

fn finish<M: Machine>(mut world: World<M>) -> Outcome {
    world.gather();
    let mut violations = std::mem::take(&mut world.found);
    let mut judged = Vec::new();
    if world.mode.oracles {
        let mut logs = Vec::with_capacity(world.history.channels.len());
        for channel in 0..world.history.channels.len() as u32 {
            match truth::log_of(&world.storage.disk, &world.history, world.sc.node.slots, channel) {
                Ok(log) => logs.push(log),
                Err(what) => {
                    violations.push(Violation { invariant: "INV-3", at: world.now, what });
                    logs.push(Vec::new());
                }
            }
        }
        let (found, counts) = oracle::judge(&world.history, &logs);
        violations.extend(found);
        judged = counts;
        count_history(&mut world.seen, &world.history);
    }
    let of = |f: fn(&Event) -> bool| world.history.events.iter().filter(|(_, e)| f(e)).count() as u64;
    Outcome {
        acked: of(|e| matches!(e, Event::AckOut { reason: 1, .. })),
        received: of(|e| matches!(e, Event::RecvOut { .. })),
        crashes: world.seen.crashes,
        handled: world.handled,
        popped: world.popped,
        simulated: world.now,
        trace: world.trace.value(),
        visible: world.visible.value(),
        checkpoints: world.checkpoints,
        seen: world.seen,
        violations,
        judged,
    }
}

/// States that show in the history only.
fn count_history(seen: &mut Seen, h: &crate::history::History) {
    use std::collections::{BTreeMap, BTreeSet};
    use wukong_core::api::ApiAnswer;
    let mut acked: BTreeMap<u32, u64> = BTreeMap::new();
    let mut stored: BTreeMap<u32, u64> = BTreeMap::new();
    let mut written: BTreeSet<(u32, i64)> = BTreeSet::new();
    let mut ids: BTreeMap<i64, u64> = BTreeMap::new();
    let mut life = 0;
    for (_, event) in &h.events {
        match *event {
            Event::Boot { incarnation } => life = incarnation,
            Event::Stored { intent, .. } => {
                stored.entry(intent).or_insert(life);
            }
            Event::AckOut { intent, reason, .. } => {
                if reason == 1 {
                    if let Some(before) = acked.insert(intent, life) {
                        seen.resend_answered_by_dedup += 1;
                        seen.acked_after_crash += u64::from(before != life);
                    }
                    seen.resend_after_crash_answered += u64::from(stored.get(&intent).is_some_and(|l| *l != life));
                }
                seen.conflict_refused += u64::from(matches!(reason, 28 | 11));
            }
            Event::RecvOut { link, id, .. } => {
                seen.recv_repeated += u64::from(!written.insert((link, id)));
                seen.recv_after_restart += u64::from(*ids.entry(id).or_insert(life) != life);
            }
            _ => {}
        }
    }
    for call in &h.calls {
        match &call.answer {
            Some(ApiAnswer::Messages(p)) => seen.sync_answered += u64::from(!p.messages.is_empty()),
            Some(ApiAnswer::Conversations(c)) => seen.conversation_answered += u64::from(!c.is_empty()),
            _ => {}
        }
    }
}
