//! S99: random faults on a random schedule, with the checks of the transcripts after every step.

use super::command;
use super::names::name;
use super::world::World;
use wukong_core::mutants::RaftMutant;
use wukong_core::raft::config::Replica;
use wukong_core::raft::core::Role;

/// SplitMix64.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    pub fn of<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }
}

/// One run; what it did and which invariant it broke, if it did.
pub fn elected(seed: u64, mutant: Option<RaftMutant>) -> Result<(), String> {
    let mut dice = Dice(seed);
    let mut world = World::planted(mutant);
    let lease = dice.of(&["on", "off"]);
    let tail = dice.of(&["0", "200", "100000"]);
    let first = format!("cluster voters=A,B,C learners=D lease={lease} seed={seed} tail={tail} fetch=100 catch-up=2");
    let mut script = vec![first, "join E".to_owned()];
    for line in script.clone() {
        command::run(&mut world, &line);
    }
    for step in 0..80 {
        let line = fault(&mut dice, &world, step);
        script.push(line);
        let line = script.last().expect("just pushed");
        if line == "shuffle" {
            for i in (1..world.net.len()).rev() {
                world.net.swap(i, dice.below(i + 1));
            }
        } else {
            command::run(&mut world, line);
        }
        if !world.check.violations.is_empty() {
            return Err(report(seed, &script, &world));
        }
    }
    let down: Vec<String> = world.nodes.iter().filter(|n| unwell(n)).map(|n| name(n.me)).collect();
    let mut ending =
        vec!["heal", "resume A,B,C,D,E", "disk A,B,C,D,E ok"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    ending.extend(down.iter().map(|n| format!("restart {n}")));
    ending.push("time 20s".to_owned());
    for line in ending {
        command::run(&mut world, &line);
        script.push(line);
    }
    // Of two voters one may be damaged: then nobody can be elected to repair it.
    let damaged = |n: &super::world::Node| n.core.as_ref().is_some_and(|c| c.role() == Role::Damaged);
    let live = !world.nodes.iter().any(damaged);
    if live {
        command::run(&mut world, "expect one-leader");
    }
    if live && world.check.violations.is_empty() {
        let leader = world.nodes.iter().find(|n| n.core.as_ref().is_some_and(|c| c.is_leader())).expect("one leader");
        let members: Vec<String> =
            leader.core.as_ref().expect("up").members().members().iter().map(|r| name(*r)).collect();
        let line = format!("expect equal {}", members.join(","));
        command::run(&mut world, &line);
        script.push(line);
    }
    if world.check.violations.is_empty() { Ok(()) } else { Err(report(seed, &script, &world)) }
}

pub fn unwell(n: &super::world::Node) -> bool {
    n.core.as_ref().is_none_or(|c| c.role() == Role::Failed)
}

pub fn report(seed: u64, script: &[String], world: &World) -> String {
    let last = world.out.iter().rev().take(60).rev().map(|l| format!("    {l}\n")).collect::<String>();
    let script = script.join("\n  ");
    format!("seed {seed}\n  {script}\n{last}  VIOLATION: {}\n", world.check.violations.join("\n  VIOLATION: "))
}

/// One random command.
pub fn fault(dice: &mut Dice, world: &World, step: usize) -> String {
    let all: Vec<Replica> = world.nodes.iter().map(|n| n.me).collect();
    let any = |dice: &mut Dice| name(dice.of(&all));
    let leaders: Vec<String> =
        world.nodes.iter().filter(|n| n.core.as_ref().is_some_and(|c| c.is_leader())).map(|n| name(n.me)).collect();
    let leader = |dice: &mut Dice| if leaders.is_empty() { any(dice) } else { dice.of(&leaders) };
    let up: Vec<String> = world.nodes.iter().filter(|n| !unwell(n)).map(|n| name(n.me)).collect();
    let down: Vec<String> = world.nodes.iter().filter(|n| unwell(n)).map(|n| name(n.me)).collect();
    let damaged = world.nodes.iter().any(|n| n.disk.damaged);
    let off: Vec<String> = world.nodes.iter().filter(|n| n.core.is_none()).map(|n| name(n.me)).collect();
    match dice.below(100) {
        0..20 => format!("propose {} k{step}", leader(dice)),
        20..24 => format!("propose {} k{step}a k{step}b k{step}c", leader(dice)),
        24..45 => format!("time {}ms", 1 + dice.below(700)),
        45..48 => "time 2500ms".to_owned(),
        48..52 => format!("cut {}", any(dice)),
        52..56 => format!("{} {}>{}", dice.of(&["cut", "hold"]), any(dice), any(dice)),
        56..60 => format!("hold {}", any(dice)),
        60..64 => "heal".to_owned(),
        64..67 => "shuffle".to_owned(),
        67..69 => "dup".to_owned(),
        69..73 if up.len() > 2 => format!("crash {} keep={}", dice.of(&up), dice.below(3)),
        73..79 if !down.is_empty() => format!("restart {}", dice.of(&down)),
        79..82 => format!("disk {} {}", any(dice), dice.of(&["hold", "ok", "ok"])),
        82 => format!("disk {} complete 1", dice.of(&up)),
        83 => format!("disk {} {}", dice.of(&up), dice.of(&["fail", "fail-reads 1", "spoil-snapshots 1"])),
        84..86 => format!("{} {}", dice.of(&["pause", "resume", "resume"]), any(dice)),
        86..88 => format!("transfer {} {}", leader(dice), any(dice)),
        88..93 => {
            let what = dice.of(&["add-learner", "promote", "promote", "remove", "drop-learner", "replace"]);
            let whom = if what == "replace" {
                dice.of(&["A,B,D", "B,C,D", "A,D", "A,B,C", "C,D,E"]).to_owned()
            } else {
                any(dice)
            };
            format!("config {} {what} {whom}", leader(dice))
        }
        93..96 => format!("{} {} r{step}", dice.of(&["read", "lease-read"]), leader(dice)),
        96..98 if !up.is_empty() => format!("snapshot {} size=9 keep={}", dice.of(&up), dice.below(3)),
        98 if !off.is_empty() && !damaged => {
            format!("disk {} damage keep={}", dice.of(&off), dice.below(4))
        }
        _ => "stabilize".to_owned(),
    }
}
