//! A slot leader as assigned groups see it: epochs, fences, leaders, members; its commands may be lost, late, and repeated.

use super::chaos::{Dice, fault, report, unwell};
use super::command;
use super::names::{name, names, replica};
use super::world::World;
use wukong_core::ids::Position;
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Report, Role};
use wukong_core::raft::message::Message;

/// What the slot has committed of the group.
#[derive(Debug)]
struct Slot {
    epoch: u64,
    leader: Option<(Replica, u64)>,
    config: Config,
}

/// One run in assigned mode; what it did and which invariant it broke, if it did.
pub fn assigned(seed: u64, mutant: Option<RaftMutant>) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut run = Run { world: World::planted(mutant), script: Vec::new(), slot: Slot::new() };
    let tail = dice.of(&["0", "200", "100000"]);
    run.command(format!("cluster mode=assigned voters=A,B,C seed={seed} tail={tail} fetch=100"))?;
    run.command("join D".to_owned())?;
    run.assign(&["A", "B", "C"])?;
    for step in 0..100 {
        match dice.below(10) {
            0..3 => run.decide(&mut dice)?,
            _ => {
                let line = fault(&mut dice, &run.world, step);
                // Assigned groups have other ways for these.
                let elected =
                    ["config", "transfer", "lease-read", "snapshot"].iter().any(|verb| line.starts_with(verb));
                if line == "shuffle" {
                    for i in (1..run.world.net.len()).rev() {
                        run.world.net.swap(i, dice.below(i + 1));
                    }
                } else if !elected {
                    run.command(line)?;
                }
            }
        }
    }
    run.finish()
}

struct Run {
    world: World,
    script: Vec<String>,
    slot: Slot,
}

impl Slot {
    fn new() -> Self {
        let config = Config::of(["A", "B", "C"].map(replica).to_vec());
        Self { epoch: 1, leader: Some((replica("A"), 1)), config }
    }

    fn next(&mut self, leader: Option<(Replica, u64)>) {
        self.epoch += 1;
        self.config.version += 1;
        self.leader = leader;
    }
}

fn list(of: &[Replica]) -> String {
    if of.is_empty() { "-".to_owned() } else { of.iter().map(|r| name(*r)).collect::<Vec<_>>().join(",") }
}

impl Run {
    fn command(&mut self, line: String) -> Result<(), String> {
        command::run(&mut self.world, &line);
        self.script.push(line);
        if self.world.check.violations.is_empty() { Ok(()) } else { Err(self.report()) }
    }

    fn report(&self) -> String {
        report(self.world.settings.seed, &self.script, &self.world)
    }

    fn assign(&mut self, to: &[&str]) -> Result<(), String> {
        let (s, c) = (&self.slot, &self.slot.config);
        let leader = s.leader.map_or(String::new(), |(r, life)| format!(" leader={} incarnation={life}", name(r)));
        let line = format!(
            "assign {} epoch={} version={}{leader} voters={} out={} learners={}",
            to.join(","),
            s.epoch,
            c.version,
            list(&c.voters),
            list(&c.voters_out),
            list(&c.learners)
        );
        self.command(line)
    }

    fn elect(&mut self) {
        self.slot.next(None);
        self.world.answers.clear();
    }

    /// The best of a quorum of answers leads.
    fn lead(&mut self) {
        let mut answers: Vec<(Replica, Position, u64)> = Vec::new();
        for m in self.world.answers.iter().filter(|m| m.epoch.0 == self.slot.epoch) {
            if let Message::FenceResp { durable, damaged: false, .. } = m.message {
                answers.push((m.from, durable, m.from_incarnation.0));
            }
        }
        if self.slot.leader.is_none() && self.slot.config.quorum(|r| answers.iter().any(|(a, ..)| *a == r)) {
            let voters =
                answers.iter().filter(|(r, ..)| self.slot.config.voters.contains(r) || self.slot.config.is_voter(*r));
            self.slot.leader = voters.max_by_key(|(_, p, life)| (*p, *life)).map(|(r, _, life)| (*r, *life));
        }
    }

    /// One thing that the slot leader does.
    fn decide(&mut self, dice: &mut Dice) -> Result<(), String> {
        let names = ["A", "B", "C", "D"];
        let some = *names.get(dice.below(4)).expect("four");
        self.heed();
        match dice.below(12) {
            0 if self.slot.leader.is_some() => self.elect(),
            0..4 if self.slot.leader.is_none() => {
                self.command(format!("fence {some} epoch={}", self.slot.epoch))?;
                self.lead();
            }
            4..6 => return self.assign(&names),
            6 => return self.assign(&[some]),
            7 => {
                if let Some((leader, _)) = self.slot.leader {
                    self.command(format!("handover {} {some}", name(leader)))?;
                }
            }
            8 if self.slot.leader.is_some() && !self.slot.config.is_joint() && self.slot.config.voters.len() == 3 => {
                // Replaces one voter by who is none.
                let spare =
                    names.iter().map(|n| replica(n)).find(|r| !self.slot.config.is_voter(*r)).expect("one of four");
                let old = self.slot.config.voters.clone();
                self.slot.config.voters[dice.below(3)] = spare;
                self.slot.config.voters_out = old;
                let leader = self.slot.leader;
                self.slot.next(leader);
            }
            9 => return self.command(format!("peer-up {some} {}", names[dice.below(4)])),
            _ => {
                self.command(format!("fence {} epoch={}", names.join(","), self.slot.epoch))?;
                self.lead();
            }
        }
        Ok(())
    }

    /// What leaders reported of the epoch in force.
    fn heed(&mut self) {
        for (r, told) in std::mem::take(&mut self.world.reports) {
            let leads = self.slot.leader.is_some_and(|(l, _)| l == r);
            match told {
                Report::HandoverReady { epoch, target, .. } if leads && epoch.0 == self.slot.epoch => {
                    let life = self.world.node(target).incarnation;
                    self.slot.next(Some((target, life)));
                }
                Report::JointStable { epoch, .. } if leads && epoch.0 == self.slot.epoch => {
                    self.slot.config.voters_out.clear();
                    let leader = self.slot.leader.filter(|(l, _)| self.slot.config.is_voter(*l));
                    self.slot.next(leader);
                    self.world.answers.clear();
                }
                Report::NeedElect { epoch } if epoch.0 == self.slot.epoch => self.elect(),
                _ => {}
            }
        }
    }

    /// Everything heals: the group must become writable, and all members equal.
    fn finish(mut self) -> Result<(), String> {
        let all = ["A", "B", "C", "D"];
        for line in ["heal", "resume A,B,C,D", "disk A,B,C,D ok"] {
            self.command(line.to_owned())?;
        }
        let down: Vec<String> = self.world.nodes.iter().filter(|n| unwell(n)).map(|n| name(n.me)).collect();
        for n in down {
            self.command(format!("restart {n}"))?;
        }
        self.command("time 3s".to_owned())?;
        for _ in 0..6 {
            self.heed();
            if self.slot.leader.is_none() || self.slot.config.is_joint() || !self.leads() {
                self.elect();
                self.command(format!("fence {} epoch={}", all.join(","), self.slot.epoch))?;
                self.lead();
            }
            self.assign(&all)?;
            self.command("time 3s".to_owned())?;
        }
        let damaged = self.world.nodes.iter().any(|n| n.core.as_ref().is_some_and(|c| c.role() == Role::Damaged));
        if damaged && !self.leads() {
            return Ok(());
        }
        let leader = self.slot.leader.map_or("-".to_owned(), |(r, _)| name(r));
        self.command(format!("expect leader {leader}"))?;
        self.command(format!("propose {leader} last"))?;
        self.command("time 40s".to_owned())?;
        self.command("expect committed last".to_owned())?;
        let members = names(&self.slot.config.members());
        let members: Vec<String> = members.chars().map(String::from).collect();
        self.command(format!("expect equal {}", members.join(",")))?;
        self.command(format!("expect settled {}", members.join(",")))?;
        self.command(format!("expect idle {}", members.join(",")))
    }

    fn leads(&self) -> bool {
        let Some((r, _)) = self.slot.leader else { return false };
        self.world.node(r).core.as_ref().is_some_and(|c| c.is_leader() && c.epoch().0 == self.slot.epoch)
    }
}
