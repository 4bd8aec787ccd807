//! The end of a run: faults are over, and everything must come together again.

use super::cluster::Cluster;
use super::record::Deed;
use super::{GroupNo, MS, SLOT};
use wukong_core::raft::core::Role;

/// 20 times the shortest election time.
const PATIENCE: u64 = 20_000;

impl Cluster {
    /// Liveness: within a bounded time each group serves, and all of its replicas are equal.
    pub fn come_together(&mut self) {
        self.healing = true;
        let begun: Vec<u64> = (0..=self.plan.channels).map(|g| self.acked_of(g)).collect();
        let until = self.now + PATIENCE * MS;
        let (mut reason, mut group) = (String::new(), None);
        let mut still = 0;
        while self.now < until && self.violations.is_empty() {
            self.run_to(self.now + 500 * MS);
            match self.unserved(&begun) {
                None => {
                    still += 1;
                    if still == 2 {
                        break;
                    }
                }
                Some((g, why)) => (group, reason, still) = (g, why, 0),
            }
        }
        if !self.violations.is_empty() {
            return;
        }
        if still < 2 {
            let what = format!("{} s after the faults: {reason}", PATIENCE / 1_000);
            return self.violation_about("liveness", what, &self.everybody(group));
        }
        // Clients stop; what they left must settle on all replicas.
        self.idle += 1;
        let until = self.now + PATIENCE * MS;
        let mut differs = Some(String::new());
        while self.now < until && self.violations.is_empty() && differs.is_some() {
            self.run_to(self.now + 500 * MS);
            differs = self.differs();
        }
        if let Some(why) = differs
            && self.violations.is_empty()
        {
            self.violation_about("convergence", why, &self.everybody(None));
        }
        self.check_all();
    }

    /// The replicas of a group, or of all.
    fn everybody(&self, group: Option<GroupNo>) -> Vec<Deed> {
        let groups = group.map_or(0..=self.plan.channels, |g| g..=g);
        groups.flat_map(|g| (0..self.nodes.len()).map(move |n| Deed::Replica(n, g))).collect()
    }

    fn acked_of(&self, g: GroupNo) -> u64 {
        self.ghost.groups.iter().filter(|(id, _)| id.0 == g).map(|(_, x)| x.acks.len() as u64).sum()
    }

    /// What does not work yet, if anything.
    fn unserved(&self, begun: &[u64]) -> Option<(Option<GroupNo>, String)> {
        if let Some(n) = self.nodes.iter().find(|n| !n.alive) {
            return Some((None, format!("n{} is down", n.no)));
        }
        let damaged = |g: GroupNo| {
            self.nodes
                .iter()
                .find(|n| n.groups[g].as_ref().is_some_and(|l| l.core.role() == Role::Damaged && self.member(n.no, g)))
        };
        for (g, begun) in begun.iter().enumerate() {
            if self.acked_of(g) < begun + 3 {
                let slot = self.nodes.iter().find(|n| n.controls);
                let why = slot.and_then(|n| n.controllers.get(&g)).map(|c| (c.told(), c.deadline(), &c.assignment));
                let stored = self.acked_of(g) - begun;
                return Some((Some(g), format!("g{g} stored only {stored} in the quiet phase: {why:?}")));
            }
            if let Some(n) = damaged(g) {
                return Some((Some(g), format!("n{} g{g} is still damaged", n.no)));
            }
        }
        if !self.targets_met() {
            let slot = self.nodes.iter().find(|n| n.controls);
            let table = slot
                .map(|n| n.slot.table.values().map(|a| (&a.voters, &a.voters_out, &a.learners)).collect::<Vec<_>>());
            let wishes = slot.map(|n| n.controllers.values().map(|c| c.told()).collect::<Vec<_>>());
            let members = slot.and_then(|n| n.groups[SLOT].as_ref()).map(|l| l.core.members());
            let what = format!("the voters are not {:?}; {wishes:?}; but {members:?} and {table:?}", self.targets);
            return Some((Some(SLOT), what));
        }
        None
    }

    fn member(&self, n: usize, g: GroupNo) -> bool {
        let me = self.nodes[n].me();
        if g == SLOT {
            let leader = self.nodes.iter().find(|x| x.controls);
            return leader.and_then(|l| l.groups[SLOT].as_ref()).is_some_and(|l| l.core.members().is_member(me));
        }
        self.nodes
            .iter()
            .find(|x| x.controls)
            .and_then(|x| x.slot.table.get(&g))
            .is_some_and(|a| a.voters.contains(&me))
    }

    /// Where replicas differ, if they do.
    fn differs(&self) -> Option<String> {
        for g in 0..=self.plan.channels {
            let mut first = None;
            for n in (0..self.plan.nodes).filter(|n| self.member(*n, g)) {
                let Some(live) = self.nodes[n].groups[g].as_ref() else {
                    return Some(format!("n{n} has no replica of g{g}"));
                };
                let now = (live.core.log().end(), live.core.hw(), live.core.durable(), live.core.open_requests());
                let (end, hw, durable, open) = now;
                if hw != end.index || durable != end || open > 0 {
                    return Some(format!("n{n} g{g}: end {end:?} hw {hw} durable {durable:?}, {open} requests open"));
                }
                if live.core.is_stopped() {
                    return Some(format!("n{n} g{g} still refuses proposals"));
                }
                if *first.get_or_insert(end) != end {
                    return Some(format!("n{n} g{g} ends at {end:?}, another at {first:?}"));
                }
            }
            if first.is_none() {
                return Some(format!("g{g} has no members"));
            }
        }
        None
    }
}
