//! Makes a failing scenario smaller while the same invariant breaks.

use crate::run::run_caught;
use crate::scenario::{Population, Scenario};
use crate::world::Mode;
use std::time::{Duration, Instant};
use wukong_core::Shard;

/// What is left of a list when runs of it are left out, long ones first, as long as `still` holds of the rest.
pub fn thin<T: Clone>(list: &[T], mut still: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut best = list.to_vec();
    let mut chunk = best.len().div_ceil(2);
    while chunk > 0 {
        let mut at = 0;
        while at < best.len() {
            let mut less = best.clone();
            less.drain(at..(at + chunk).min(less.len()));
            if still(&less) {
                best = less;
            } else {
                at += chunk;
            }
        }
        chunk /= 2;
    }
    best
}

struct Shrink {
    best: Scenario,
    invariant: &'static str,
    mode: Mode,
    until: Instant,
    runs: u32,
}

impl Shrink {
    /// Keeps the candidate if it still fails the same way.
    fn attempt(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || Instant::now() > self.until {
            return false;
        }
        self.runs += 1;
        let fails = run_caught::<Shard>(&candidate, self.mode).violations.iter().any(|v| v.invariant == self.invariant);
        if fails {
            self.best = candidate;
        }
        fails
    }

    fn faults(&mut self) -> bool {
        let all = self.best.faults.clone();
        let left = thin(&all, |faults| self.attempt(Scenario { faults: faults.to_vec(), ..self.best.clone() }));
        left.len() < all.len()
    }

    fn values(&mut self) -> bool {
        let mut any = false;
        let edits: [fn(&mut Scenario); 14] = [
            |s| s.run.events /= 2,
            |s| s.run.length.0 = s.run.length.0 * 2 / 3,
            |s| s.node.shards = (s.node.shards / 2).max(1),
            |s| s.node.slots = (s.node.slots / 2).max(1),
            |s| s.run.drift = 0,
            |s| s.time.chunk = 0,
            |s| s.time.inputs = 1,
            |s| s.time.turn = (0, 0),
            |s| s.node.tokens = false,
            |s| s.run.quiet = crate::scenario::Quiet::Short,
            |s| s.node.overlay = crate::scenario::Size::Large,
            |s| s.node.dedup = crate::scenario::Size::Large,
            |s| s.populations.iter_mut().for_each(|p| p.users = (p.users / 2).max(2)),
            |s| s.populations.iter_mut().for_each(|p| p.devices = (p.devices / 2).max(1)),
        ];
        for edit in edits {
            let mut candidate = self.best.clone();
            edit(&mut candidate);
            any |= self.attempt(candidate);
        }
        let weights: [fn(&mut Population) -> &mut u32; 16] = [
            |p| &mut p.cut,
            |p| &mut p.bye,
            |p| &mut p.idle,
            |p| &mut p.garbage,
            |p| &mut p.freeze,
            |p| &mut p.sync,
            |p| &mut p.token,
            |p| &mut p.again,
            |p| &mut p.conflict,
            |p| &mut p.badkey,
            |p| &mut p.badchannel,
            |p| &mut p.nokey,
            |p| &mut p.plain,
            |p| &mut p.myself,
            |p| &mut p.peers,
            |p| &mut p.burst,
        ];
        for (i, weight) in weights.iter().enumerate() {
            let least = u32::from(i >= 14);
            let mut candidate = self.best.clone();
            candidate.populations.iter_mut().for_each(|p| *weight(p) = least);
            any |= self.attempt(candidate);
        }
        any
    }
}

/// The smallest scenario found within the time, or none if the given one does not fail.
#[must_use]
pub fn shrink(scenario: &Scenario, mode: Mode, budget: Duration) -> Option<Scenario> {
    let first = run_caught::<Shard>(scenario, mode).violations.first()?.invariant;
    let mut s = Shrink { best: scenario.clone(), invariant: first, mode, until: Instant::now() + budget, runs: 0 };
    while (s.faults() | s.values()) && Instant::now() < s.until {}
    eprintln!("{} runs, {} faults left", s.runs, s.best.faults.len());
    Some(s.best)
}
