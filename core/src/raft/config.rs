//! Who takes part in a group, and what a quorum of it is (cluster-and-raft 4.16, 4.18).

pub use crate::store::rows::Replica;
use alloc::sync::Arc;
use alloc::vec::Vec;
use smallvec::SmallVec;

/// The members of a group. While `voters_out` is not empty the config is *joint*: a quorum needs a majority of both halves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Rises with every change.
    pub version: u64,
    pub voters: Vec<Replica>,
    pub voters_out: Vec<Replica>,
    /// Receive everything, count for nothing.
    pub learners: Vec<Replica>,
}

/// A change of an elected group's members, one step at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddLearner(Replica),
    DropLearner(Replica),
    /// A learner that caught up becomes a voter.
    Promote(Replica),
    RemoveVoter(Replica),
    /// Replaces the voters by way of a joint config. Newcomers are learners that caught up.
    Replace(Vec<Replica>),
    /// Ends a joint config; proposed by whoever leads once the joint one is committed.
    LeaveJoint,
}

impl Config {
    #[must_use]
    pub fn of(voters: Vec<Replica>) -> Self {
        Self { version: 0, voters, voters_out: Vec::new(), learners: Vec::new() }
    }

    #[must_use]
    pub fn is_voter(&self, r: Replica) -> bool {
        self.voters.contains(&r) || self.voters_out.contains(&r)
    }

    #[must_use]
    pub fn is_member(&self, r: Replica) -> bool {
        self.is_voter(r) || self.learners.contains(&r)
    }

    #[must_use]
    pub const fn is_joint(&self) -> bool {
        !self.voters_out.is_empty()
    }

    /// All members, each once, voters first.
    #[must_use]
    pub fn members(&self) -> Vec<Replica> {
        let mut all: Vec<Replica> = self.voters.clone();
        for r in self.voters_out.iter().chain(&self.learners) {
            if !all.contains(r) {
                all.push(*r);
            }
        }
        all
    }

    /// All voters, each once.
    #[must_use]
    pub fn all_voters(&self) -> Vec<Replica> {
        let mut all = self.voters.clone();
        all.extend(self.voters_out.iter().filter(|r| !self.voters.contains(r)));
        all
    }

    /// Whether those for whom `yes` holds are a quorum.
    #[must_use]
    pub fn quorum(&self, yes: impl Fn(Replica) -> bool) -> bool {
        let half = |set: &[Replica]| set.is_empty() || set.iter().filter(|r| yes(**r)).count() > set.len() / 2;
        !self.voters.is_empty() && half(&self.voters) && half(&self.voters_out)
    }

    /// Whether a quorum can still come together when those for whom `no` holds never join.
    #[must_use]
    pub fn can_win(&self, no: impl Fn(Replica) -> bool) -> bool {
        self.quorum(|r| !no(r))
    }

    /// The largest value that a quorum has reached. A voter without a value has reached nothing.
    #[must_use]
    pub fn quorum_value(&self, value: impl Fn(Replica) -> Option<u64>) -> Option<u64> {
        let half = |set: &[Replica]| {
            let mut reached: SmallVec<[u64; 8]> = set.iter().filter_map(|r| value(*r)).collect();
            reached.sort_unstable_by(|a, b| b.cmp(a));
            reached.get(set.len() / 2).copied()
        };
        let new = half(&self.voters)?;
        if self.voters_out.is_empty() { Some(new) } else { Some(new.min(half(&self.voters_out)?)) }
    }

    /// The config after `change`, or None where the step is not legal.
    #[must_use]
    pub fn after(&self, change: &Change) -> Option<Self> {
        let mut next = self.clone();
        next.version += 1;
        let without = |set: &mut Vec<Replica>, r: Replica| {
            let before = set.len();
            set.retain(|x| *x != r);
            set.len() < before
        };
        let legal = match change {
            Change::LeaveJoint => {
                next.voters_out.clear();
                self.is_joint()
            }
            _ if self.is_joint() => false,
            Change::AddLearner(r) => {
                next.learners.push(*r);
                !self.is_member(*r)
            }
            Change::DropLearner(r) => without(&mut next.learners, *r),
            Change::Promote(r) => {
                next.voters.push(*r);
                without(&mut next.learners, *r)
            }
            Change::RemoveVoter(r) => without(&mut next.voters, *r) && !next.voters.is_empty(),
            Change::Replace(voters) => {
                next.voters_out = core::mem::replace(&mut next.voters, voters.clone());
                next.learners.retain(|r| !voters.contains(r));
                let known = voters.iter().all(|r| self.is_member(*r));
                let distinct = voters.iter().enumerate().all(|(i, r)| !voters[..i].contains(r));
                !voters.is_empty() && known && distinct && *voters != self.voters
            }
        };
        legal.then_some(next)
    }
}

/// The configs of an elected group that its log still may roll back to: the last committed one, and those appended after.
#[derive(Clone, Debug)]
pub struct History {
    /// (index of its entry, config), ascending; the first is committed, or the one the group was made with (index 0).
    known: Vec<(u64, Arc<Config>)>,
}

impl History {
    /// # Panics
    /// Without any config.
    #[must_use]
    pub fn new(known: Vec<(u64, Arc<Config>)>) -> Self {
        assert!(!known.is_empty(), "a group has a config");
        Self { known }
    }

    /// The config in force: the last one in the log, committed or not.
    #[must_use]
    pub fn current(&self) -> &Arc<Config> {
        &self.known[self.known.len() - 1].1
    }

    /// Index of the entry of the config in force.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.known[self.known.len() - 1].0
    }

    pub fn push(&mut self, index: u64, config: Arc<Config>) {
        self.known.push((index, config));
    }

    /// Entries above `index` were cut. True when the config in force changed.
    pub fn rolled_back(&mut self, index: u64) -> bool {
        let before = self.known.len();
        while self.known.len() > 1 && self.index() > index {
            self.known.pop();
        }
        self.known.len() < before
    }

    /// Entries up to `index` are committed: what was before the last of them is not needed any more.
    pub fn committed(&mut self, index: u64) {
        let last = self.known.iter().rposition(|(at, _)| *at <= index).unwrap_or(0);
        self.known.drain(..last);
    }

    /// The log now begins at `index` with this config.
    pub fn rebase(&mut self, index: u64, config: Arc<Config>) {
        self.known.retain(|(at, _)| *at > index);
        self.known.insert(0, (index, config));
    }

    /// The config in force at `index`, as far back as is known.
    #[must_use]
    pub fn at(&self, index: u64) -> &Arc<Config> {
        let last = self.known.iter().rposition(|(at, _)| *at <= index).unwrap_or(0);
        &self.known[last].1
    }

    #[must_use]
    pub fn all(&self) -> &[(u64, Arc<Config>)] {
        &self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, StoreId};

    fn r(n: u16) -> Replica {
        Replica { node: NodeId(n), store: StoreId(u128::from(n)) }
    }

    fn subset(mask: u32, n: u16) -> Vec<Replica> {
        (0..n).filter(|i| mask & (1 << i) != 0).map(r).collect()
    }

    /// Every config of up to five replicas, joint ones too, against the definition, and every two quorums of it intersect.
    #[test]
    fn quorums_of_small_configs_exhaustively() {
        for voters in 1..32_u32 {
            for out in 0..32_u32 {
                let c = Config { voters: subset(voters, 5), voters_out: subset(out, 5), ..Config::default() };
                let is_quorum = |yes: u32| {
                    let majority = |set: u32| set == 0 || (yes & set).count_ones() * 2 > set.count_ones();
                    majority(voters) && majority(out)
                };
                for yes in 0..32_u32 {
                    let has = |x: Replica| yes & (1 << x.node.0) != 0;
                    assert_eq!(c.quorum(has), is_quorum(yes));
                    assert_eq!(c.can_win(|x| !has(x)), is_quorum(yes));
                    // Those in `yes` reached 7, the others 3.
                    let reached = c.quorum_value(|x| Some(if has(x) { 7 } else { 3 }));
                    assert_eq!(reached, Some(if is_quorum(yes) { 7 } else { 3 }));
                    assert_eq!(c.quorum_value(|x| has(x).then_some(1)).is_some(), is_quorum(yes));
                    if is_quorum(yes) {
                        assert!(!is_quorum(31 & !yes), "the rest of a quorum is no quorum");
                    }
                }
            }
        }
    }

    /// I19: the quorums of a config and of each legal successor intersect.
    #[test]
    fn quorums_of_successive_configs_intersect() {
        let mask = |c: &Config, yes: u32| c.quorum(|x| yes & (1 << x.node.0) != 0);
        for voters in 1..32_u32 {
            let c = Config { voters: subset(voters, 5), learners: subset(31 & !voters, 5), ..Config::default() };
            let mut changes: Vec<Change> =
                (0..5).flat_map(|n| [Change::Promote(r(n)), Change::RemoveVoter(r(n))]).collect();
            changes.extend((1..32).map(|m| Change::Replace(subset(m, 5))));
            for next in changes.iter().filter_map(|change| c.after(change)) {
                let last = next.after(&Change::LeaveJoint);
                for (a, b) in (0..32_u32).flat_map(|a| (0..32_u32).map(move |b| (a, b))).filter(|(a, b)| a & b == 0) {
                    assert!(!(mask(&c, a) && mask(&next, b)), "{c:?} then {next:?}");
                    if let Some(last) = &last {
                        assert!(!(mask(&next, a) && mask(last, b)), "{next:?} then {last:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn history_rolls_back_to_the_committed_config() {
        let c = |version| Arc::new(Config { version, ..Config::of(alloc::vec![r(1)]) });
        let mut h = History::new(alloc::vec![(0, c(0))]);
        h.push(4, c(1));
        h.push(9, c(2));
        assert_eq!((h.index(), h.at(8).version, h.at(3).version), (9, 1, 0));
        h.committed(5);
        assert_eq!(h.all().len(), 2);
        assert!(h.rolled_back(6));
        assert!(!h.rolled_back(0), "what is committed stays");
        assert_eq!(h.current().version, 1);
    }
}
