//! What is written down of a run: a hash over everything that enters and leaves the machines, and what went wrong.

use super::store::lock;
use crate::hash::Trace;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;
use wukong_core::ids::{ConnId, ShardId};
use wukong_core::time::Now;
use wukong_core::{Input, Output};
use wukong_runtime::reactor::machine::{Machine, MachineState, Sample};

/// One per run.
pub struct Tape {
    start: Instant,
    trace: Mutex<Trace>,
    events: AtomicU64,
    print: bool,
    violations: Mutex<Vec<String>>,
    /// Nothing is recorded any more.
    over: AtomicBool,
}

/// Whose events they are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub node: u16,
    pub life: u64,
    pub shard: ShardId,
}

impl Tape {
    /// Within the simulation. With `print`, every event goes to the standard output.
    #[must_use]
    pub fn new(print: bool) -> Self {
        Self {
            start: Instant::now(),
            trace: Mutex::default(),
            events: AtomicU64::new(0),
            print,
            violations: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn violation(&self, what: impl Into<String>) {
        let what = format!("{:.6} s: {}", self.elapsed().as_secs_f64(), what.into());
        if self.print {
            println!("VIOLATION {what}");
        }
        lock(&self.violations).push(what);
    }

    /// Something outside the machines: a fault, an ack that a client saw.
    pub fn say(&self, what: std::fmt::Arguments<'_>) {
        if self.print {
            println!("{:.6} {what}", self.elapsed().as_secs_f64());
        }
        self.stamp().bytes(what.to_string().as_bytes());
    }

    /// The trace, with the time of the next event in it.
    fn stamp(&self) -> MutexGuard<'_, Trace> {
        self.events.fetch_add(1, Ordering::Relaxed);
        let mut trace = lock(&self.trace);
        if !self.over.load(Ordering::Relaxed) {
            trace.num(self.elapsed().as_nanos() as u64);
        }
        trace
    }

    fn event(&self, place: Place, direction: char, shown: &dyn std::fmt::Debug, hash: impl FnOnce(&mut Trace)) {
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        if self.print {
            let Place { node, life, shard } = place;
            println!("{:.6} n{node}.{life}/{shard} {direction} {shown:?}", self.elapsed().as_secs_f64());
        }
        let mut trace = self.stamp();
        trace.num(u64::from(place.node) << 32 | u64::from(place.shard.0) << 24 | u64::from(u32::from(direction)));
        trace.num(place.life);
        hash(&mut trace);
    }

    /// Ends the record. (hash, events, violations)
    pub fn finish(&self) -> (u64, u64, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        let trace = lock(&self.trace).value();
        (trace, self.events.load(Ordering::Relaxed), lock(&self.violations).clone())
    }
}

/// A machine whose inputs and outputs are recorded.
pub struct Taped<M> {
    pub machine: M,
    pub tape: Arc<Tape>,
    pub place: Place,
    /// Deadlines in a row at one instant, and when that was.
    pub spins: (wukong_core::time::Instant, u32),
}

/// A machine that asks for its deadline at once, again and again, never lets time pass.
const SPINS_MAX: u32 = 100_000;

impl<M: Machine> Machine for Taped<M> {
    fn handle(&mut self, now: Now, input: Input) {
        let spins = if matches!(input, Input::Deadline) && self.spins.0 == now.mono { self.spins.1 + 1 } else { 0 };
        assert!(spins < SPINS_MAX, "SPIN: deadline after deadline at {:?}", now.mono);
        self.spins = (now.mono, spins);
        self.tape.event(self.place, '<', &input, |trace| trace.input(&input));
        self.machine.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.machine.poll_output()?;
        self.tape.event(self.place, '>', &output, |trace| trace.output(&output));
        Some(output)
    }

    fn poll_timeout(&self) -> Option<wukong_core::time::Instant> {
        self.machine.poll_timeout()
    }

    fn wants_input(&self) -> bool {
        self.machine.wants_input()
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        self.machine.wants_bytes(conn)
    }

    fn state(&self) -> MachineState {
        self.machine.state()
    }

    fn sample(&self) -> Sample {
        self.machine.sample()
    }
}
