//! The reader threads: loads that memory could not answer in the reactor.

use super::queue::lock;
use super::thread::{AbortOnPanic, Shared};
use super::view::read;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use wukong_core::Completion;
use wukong_core::ids::{OpId, ShardId};
use wukong_core::store::Load;

/// A load that may run at any time from now on.
pub struct Job {
    pub shard: ShardId,
    pub op: OpId,
    pub load: Load,
}

/// Jobs waiting; bounded by the loads that the core has in flight.
#[derive(Default)]
pub struct Jobs {
    inner: Mutex<Inner>,
    wake: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Job>,
    closed: bool,
}

impl Jobs {
    /// Gives the job back when the readers have ended.
    pub fn push(&self, job: Job) -> Result<(), Job> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(job);
        }
        inner.waiting.push_back(job);
        drop(inner);
        self.wake.notify_one();
        Ok(())
    }

    /// The readers finish what waits, and end.
    pub fn close(&self) {
        lock(&self.inner).closed = true;
        self.wake.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut inner = lock(&self.inner);
        loop {
            if let Some(job) = inner.waiting.pop_front() {
                return Some(job);
            }
            if inner.closed {
                return None;
            }
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Body of a reader thread.
pub fn run(shared: &Shared) {
    let _guard = AbortOnPanic;
    while let Some(Job { shard, op, load }) = shared.jobs.next() {
        let found = read(&shared.rocks, &load);
        (shared.sink)(shard, vec![(op, Completion::Loaded(found))]);
    }
}
