//! The event heap: ordered by (time, order of insertion). Nodes are small; events wait in a slab.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What happens when, earliest first; equal times in the order in which they were added.
#[derive(Clone, Debug)]
pub struct Heap<E> {
    order: BinaryHeap<Reverse<(u64, u64, u32)>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    added: u64,
}

impl<E> Default for Heap<E> {
    fn default() -> Self {
        Self { order: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), added: 0 }
    }
}

impl<E> Heap<E> {
    pub fn add(&mut self, at: u64, event: E) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.events[slot as usize] = Some(event);
                slot
            }
            None => {
                self.events.push(Some(event));
                (self.events.len() - 1) as u32
            }
        };
        self.order.push(Reverse((at, self.added, slot)));
        self.added += 1;
    }

    pub fn take(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, slot)) = self.order.pop()?;
        self.free.push(slot);
        self.events[slot as usize].take().map(|e| (at, e))
    }

    /// When the next event happens.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((at, _, _))| *at)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_first_then_insertion_order() {
        let mut h = Heap::default();
        for (at, e) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b')] {
            h.add(at, e);
        }
        assert_eq!(h.next_at(), Some(1));
        let all: String = std::iter::from_fn(|| h.take()).map(|(_, e)| e).collect();
        assert_eq!(all, "abcd");
        h.add(2, 'e');
        assert_eq!(h.events.len(), 4, "slots are reused");
    }
}
