//! What of a replica's log is durable, and which messages wait for the disk (P-rules of cluster-and-raft 4.4).

use super::message::Envelope;
use crate::ids::Position;
use alloc::collections::VecDeque;

/// Numbers the writes of one replica, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// Writes in flight, in order, and the messages that must not leave before one of them is durable.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    last: Token,
    done: Token,
    /// The write that holds the newest promise (Hard).
    hard: Token,
    /// Log end after each write in flight.
    ends: VecDeque<(Token, Position)>,
    /// Log end after the last durable write.
    durable_end: Position,
    held: VecDeque<(Token, Envelope)>,
}

impl Journal {
    #[must_use]
    pub fn recovered(end: Position) -> Self {
        Self { durable_end: end, ..Self::default() }
    }

    /// Starts a write after which the log ends at `end`.
    pub fn begin(&mut self, end: Position, hard: bool) -> Token {
        self.last.0 += 1;
        if hard {
            self.hard = self.last;
        }
        self.ends.push_back((self.last, end));
        self.last
    }

    /// A write in flight is durable, and so are all before it: one sync may have taken several.
    ///
    /// # Panics
    /// Completions out of order: the driver broke its contract.
    pub fn complete(&mut self, token: Token) {
        assert!(token > self.done && token <= self.last, "writes complete once, and in order");
        while let Some((_, end)) = self.ends.pop_front_if(|(oldest, _)| *oldest <= token) {
            self.durable_end = end;
        }
        self.done = token;
    }

    /// P4: the longest prefix that is on disk, and stays there whichever of the writes in flight happen.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.ends.iter().fold(self.durable_end, |least, (_, end)| least.min(*end))
    }

    /// For the mutant that forgets about truncation: the end of what was last completed.
    #[must_use]
    pub const fn last_completed(&self) -> Position {
        self.durable_end
    }

    #[must_use]
    pub fn is_done(&self, token: Token) -> bool {
        token <= self.done
    }

    /// The newest promise is durable.
    #[must_use]
    pub fn promised(&self) -> bool {
        self.hard <= self.done
    }

    #[must_use]
    pub const fn hard(&self) -> Token {
        self.hard
    }

    #[must_use]
    pub fn idle(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keeps a message until the newest promise is durable (P6).
    pub fn hold(&mut self, message: Envelope) {
        self.held.push_back((self.hard, message));
    }

    /// The next message that may leave now.
    pub fn release(&mut self) -> Option<Envelope> {
        let (need, _) = self.held.front()?;
        if *need > self.done {
            return None;
        }
        self.held.pop_front().map(|(_, m)| m)
    }

    /// Drops held messages for which `stale` holds.
    pub fn discard(&mut self, stale: impl Fn(&Envelope) -> bool) {
        self.held.retain(|(_, m)| !stale(m));
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Epoch;

    fn pos(epoch: u64, index: u64) -> Position {
        Position { epoch: Epoch(epoch), index }
    }

    #[test]
    fn a_late_completion_of_overwritten_items_claims_nothing() {
        let mut j = Journal::recovered(pos(1, 2));
        let a = j.begin(pos(1, 5), false);
        let cut = j.begin(pos(1, 2), false);
        let b = j.begin(pos(2, 4), false);
        assert_eq!(j.durable(), pos(1, 2));
        j.complete(a);
        assert_eq!(j.durable(), pos(1, 2), "entries 3 to 5 of epoch 1 are on disk, and about to go");
        j.complete(cut);
        assert_eq!(j.durable(), pos(1, 2));
        j.complete(b);
        assert_eq!(j.durable(), pos(2, 4));
    }

    #[test]
    fn one_completion_speaks_for_all_writes_before_it() {
        let mut j = Journal::recovered(pos(1, 2));
        j.begin(pos(1, 5), true);
        let b = j.begin(pos(1, 3), false);
        let c = j.begin(pos(1, 6), false);
        j.complete(b);
        assert_eq!((j.durable(), j.promised(), j.idle()), (pos(1, 3), true, false));
        j.complete(c);
        assert_eq!((j.durable(), j.idle()), (pos(1, 6), true));
    }

    #[test]
    #[should_panic(expected = "in order")]
    fn a_write_does_not_complete_twice() {
        let mut j = Journal::recovered(pos(1, 2));
        let a = j.begin(pos(1, 3), false);
        j.begin(pos(1, 4), false);
        j.complete(a);
        j.complete(a);
    }
}
