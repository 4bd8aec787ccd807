//! The held outbox: a promise waits here until the entry it speaks of is committed.

use crate::ids::Epoch;
use alloc::collections::VecDeque;

/// Promises bound to (epoch, index), in index order. An entry of another epoch at that index never releases one.
#[derive(Clone, Debug)]
pub struct Held<T> {
    queue: VecDeque<(Epoch, u64, T)>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { queue: VecDeque::new() }
    }
}

impl<T> Held<T> {
    pub fn hold(&mut self, epoch: Epoch, index: u64, promise: T) {
        debug_assert!(self.queue.back().is_none_or(|(_, i, _)| *i <= index), "promises are held in index order");
        self.queue.push_back((epoch, index, promise));
    }

    /// The next promise that `hw`, reached in `epoch`, allows to leave.
    pub fn release(&mut self, hw: u64) -> Option<(u64, T)> {
        let (_, index, _) = self.queue.front()?;
        if *index > hw {
            return None;
        }
        self.queue.pop_front().map(|(_, index, promise)| (index, promise))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Stepping down: what was promised for entries that may yet be cut has an unknown outcome.
    pub fn abandon(&mut self) -> impl Iterator<Item = T> + '_ {
        self.queue.drain(..).map(|(_, _, promise)| promise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_leave_in_order_and_only_when_committed() {
        let mut h = Held::default();
        h.hold(Epoch(1), 1, "a");
        h.hold(Epoch(1), 2, "b");
        assert_eq!(h.release(0), None);
        assert_eq!(h.release(1), Some((1, "a")));
        assert_eq!(h.release(1), None);
        assert_eq!(h.release(9), Some((2, "b")));
    }
}
