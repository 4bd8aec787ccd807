//! Three replicas with a perfect network and instant disks: the shortest way through elections, appends and reads.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

use std::collections::VecDeque;
use std::sync::Arc;
use wukong_core::ids::{Epoch, Incarnation, NodeId, Position, StoreId};
use wukong_core::raft::config::{Change, Config, Replica};
use wukong_core::raft::core::{Bounds, GroupConfig, GroupCore, Input, Mode, Outcome, Output, Role, Stored, Timing};
use wukong_core::raft::{Log, message::Envelope};
use wukong_core::time::Instant;

fn replica(n: u16) -> Replica {
    Replica { node: NodeId(n), store: StoreId(u128::from(n)) }
}

struct Trio {
    now: Instant,
    groups: Vec<GroupCore>,
    cut: Vec<u16>,
    seen: Vec<(u16, Output)>,
}

impl Trio {
    fn new(all: u16, voters: u16) -> Self {
        let config = Arc::new(Config::of((1..=voters).map(replica).collect()));
        let groups = (1..=all)
            .map(|n| {
                let stored = Stored {
                    epoch: Epoch(0),
                    voted_for: None,
                    log: Log::default(),
                    hw: 0,
                    distributed: 0,
                    tail: Vec::new(),
                    configs: vec![(0, Arc::clone(&config))],
                    snapshot: None,
                    damaged: false,
                };
                let config = GroupConfig {
                    me: replica(n),
                    incarnation: Incarnation(1),
                    mode: Mode::Elected,
                    timing: Timing::default(),
                    bounds: Bounds::default(),
                    lease: false,
                    preferred: false,
                    seed: u64::from(n),
                    mutant: None,
                };
                GroupCore::new(config, stored, Instant(0))
            })
            .collect();
        Self { now: Instant(0), groups, cut: Vec::new(), seen: Vec::new() }
    }

    fn step(&mut self, n: u16, input: Input) {
        self.groups[usize::from(n) - 1].step(self.now, input);
        self.settle();
    }

    fn settle(&mut self) {
        let mut mail: VecDeque<Envelope> = VecDeque::new();
        loop {
            for (n, group) in (1..).zip(&mut self.groups) {
                while let Some(output) = group.poll_output() {
                    match output {
                        Output::Send(m) => mail.push_back(m),
                        Output::Persist { token, .. } => group.step(self.now, Input::Persisted(token)),
                        other => self.seen.push((n, other)),
                    }
                }
            }
            let Some(m) = mail.pop_front() else { return };
            if !self.cut.contains(&m.from.node.0) && !self.cut.contains(&m.to.node.0) {
                self.groups[usize::from(m.to.node.0) - 1].step(self.now, Input::Message(m));
            }
        }
    }

    fn run(&mut self, ms: u64) {
        let end = Instant(self.now.0 + ms * 1_000_000);
        while let Some((at, n)) = (1..).zip(&self.groups).map(|(n, g)| (g.deadline(), n)).min()
            && at <= end
        {
            self.now = self.now.max(at);
            self.step(n, Input::Time);
        }
        self.now = end;
    }

    fn leader(&self) -> u16 {
        let leaders: Vec<u16> = (1..)
            .zip(&self.groups)
            .filter(|(n, g)| g.role() == Role::Leader && !self.cut.contains(n))
            .map(|(n, _)| n)
            .collect();
        assert_eq!(leaders.len(), 1, "{leaders:?}");
        leaders[0]
    }

    fn propose(&mut self, n: u16, ctx: u64) -> Option<Outcome> {
        self.step(n, Input::Propose { ctx, batch: [format!("m{ctx}").into()].into_iter().collect() });
        self.outcome(ctx)
    }

    fn outcome(&self, ctx: u64) -> Option<Outcome> {
        self.seen.iter().find_map(|(_, o)| match o {
            Output::Outcome { ctx: c, outcome } if *c == ctx => Some(*outcome),
            _ => None,
        })
    }
}

#[test]
fn a_leader_is_elected_and_its_first_append_has_index_one() {
    let mut t = Trio::new(3, 3);
    t.run(3_000);
    let leader = t.leader();
    let epoch = t.groups[usize::from(leader) - 1].epoch();
    assert_eq!(t.propose(leader, 7), Some(Outcome::Committed { first: 1, last: 1, epoch }));
    t.run(200);
    for g in &t.groups {
        assert_eq!((g.hw(), g.log().end()), (1, Position { epoch, index: 1 }));
    }
}

#[test]
fn the_majority_goes_on_and_the_minority_steps_down() {
    let mut t = Trio::new(3, 3);
    t.run(3_000);
    let old = t.leader();
    t.propose(old, 1);
    t.cut = vec![old];
    assert_eq!(t.propose(old, 2), None);
    t.run(4_000);
    assert_eq!(t.outcome(2), Some(Outcome::Unknown));
    let new = t.leader();
    assert!(matches!(t.propose(new, 3), Some(Outcome::Committed { first: 2, .. })));
    t.cut.clear();
    t.run(4_000);
    let end = t.groups[usize::from(new) - 1].log().end();
    assert!(t.groups.iter().all(|g| g.log().end() == end && g.hw() == 2));
    t.step(new, Input::Read { ctx: 9 });
    assert!(t.seen.iter().any(|(_, o)| matches!(o, Output::ReadReady { ctx: 9, index: Ok(2) })));
}

#[test]
fn members_change_by_a_joint_config_and_the_leader_that_leaves_resigns() {
    let mut t = Trio::new(4, 3);
    t.run(3_000);
    let old = t.leader();
    t.propose(old, 1);
    t.step(old, Input::ProposeConfig { ctx: 2, change: Change::AddLearner(replica(4)) });
    t.run(500);
    assert!(matches!(t.outcome(2), Some(Outcome::Committed { .. })), "{:?}", t.outcome(2));
    let voters: Vec<Replica> = (1..=4).filter(|n| *n != old).map(replica).collect();
    t.step(old, Input::ProposeConfig { ctx: 3, change: Change::Replace(voters.clone()) });
    t.run(3_000);
    assert!(matches!(t.outcome(3), Some(Outcome::Committed { .. })), "{:?}", t.outcome(3));
    let new = t.leader();
    assert_ne!(new, old);
    let config = t.groups[usize::from(new) - 1].members();
    assert_eq!((&config.voters, config.is_joint()), (&voters, false));
    assert!(matches!(t.propose(new, 4), Some(Outcome::Committed { .. })));
}

#[test]
fn leadership_is_transferred() {
    let mut t = Trio::new(3, 3);
    t.run(3_000);
    let old = t.leader();
    let target = if old == 1 { 2 } else { 1 };
    t.step(old, Input::Transfer { ctx: 1, target: replica(target) });
    assert_eq!(t.leader(), target);
}
