//! What a scenario must show, whatever else is printed.

use super::command::Words;
use super::names::{members, name, replica, replicas};
use super::print;
use super::world::{Node, World};
use wukong_core::raft::core::{GroupCore, Role};

pub fn run(world: &mut World, words: &Words) {
    if let Err(text) = judge(world, words) {
        world.check.violations.push(format!("expected {}: {text}", words.from(1).join(" ")));
        if world.check.violations.len() == 1 {
            let lines: Vec<String> = world.nodes.iter().map(print::state).collect();
            lines.into_iter().for_each(|line| world.say(line));
        }
    }
}

fn alive(world: &World) -> impl Iterator<Item = (&Node, &GroupCore)> {
    world.nodes.iter().filter_map(|n| n.core.as_ref().map(|c| (n, c)))
}

/// The replicas that the nth word names, or all that run.
fn named<'w>(world: &'w World, words: &Words, n: usize) -> Vec<(&'w Node, &'w GroupCore)> {
    let list = words.get(n).map(replicas);
    alive(world).filter(|(node, _)| list.as_ref().is_none_or(|l| l.contains(&node.me))).collect()
}

fn all(found: Vec<(&Node, &GroupCore)>, holds: impl Fn(&GroupCore) -> bool) -> Result<(), String> {
    let wrong: String = found.iter().filter(|(_, c)| !holds(c)).map(|(n, _)| name(n.me)).collect();
    if wrong.is_empty() { Ok(()) } else { Err(format!("not so on {wrong}")) }
}

fn judge(world: &World, words: &Words) -> Result<(), String> {
    let number = |n: usize| words.at(n).parse::<u64>().expect("a number");
    let leaders: String = alive(world).filter(|(_, c)| c.is_leader()).map(|(n, _)| name(n.me)).collect();
    match words.at(1) {
        "one-leader" if leaders.len() == 1 => Ok(()),
        "no-leader" if leaders.is_empty() => Ok(()),
        "leader" if leaders == words.at(2) => Ok(()),
        "one-leader" | "no-leader" | "leader" => Err(format!("leaders are {leaders}")),
        // Logs, commit indexes and members, of all that run or those named.
        "equal" => {
            let found = named(world, words, 2);
            let Some((first, core)) = found.first().copied() else { return Err("nobody".to_owned()) };
            let same = |a: &Node| {
                let tail = |n: &Node, from| n.memory.entries.range(from..).map(|(_, e)| e.clone()).collect::<Vec<_>>();
                let base = a.memory.log.base.index.max(first.memory.log.base.index) + 1;
                let epoch = a.memory.log.base.epoch.max(first.memory.log.base.epoch);
                let marks = |n: &Node| n.memory.log.marks_after(epoch).collect::<Vec<_>>();
                tail(a, base) == tail(first, base) && marks(a) == marks(first)
            };
            let differ: String = found
                .iter()
                .filter(|(n, c)| !same(n) || c.hw() != core.hw() || c.log().end() != core.log().end())
                .map(|(n, _)| name(n.me))
                .collect();
            if differ.is_empty() { Ok(()) } else { Err(format!("{differ} differ from {}", name(first.me))) }
        }
        "hw" => all(named(world, words, 3), |c| c.hw() == number(2)),
        "epoch" => all(named(world, words, 3), |c| c.epoch().0 == number(2)),
        "epoch-above" => all(named(world, words, 3), |c| c.epoch().0 > number(2)),
        "role" => all(named(world, words, 3), |c| print::role(c.role()) == words.at(2)),
        "follows" => all(named(world, words, 3), |c| {
            c.leader() == Some(replica(words.at(2))) && matches!(c.role(), Role::Follower | Role::Damaged)
        }),
        "members" => all(named(world, words, 3), |c| members(c.members()) == words.at(2)),
        "mark-open" => all(named(world, words, 2), |c| c.is_leader() && !c.epoch_committed()),
        "settled" => all(named(world, words, 2), GroupCore::is_settled),
        "awake" => all(named(world, words, 2), |c| !c.is_settled()),
        "stopped" => all(named(world, words, 2), GroupCore::is_stopped),
        "log" => all(named(world, words, 3), |c| print::runs(c.log()).replace(' ', ",") == words.at(2)),
        "committed" | "unknown" | "refused" | "open" => {
            let wrong: Vec<String> = words
                .from(2)
                .into_iter()
                .map(|l| {
                    (l, world.check.outcomes.get(l).map_or(if world.knows(l) { "open" } else { "not asked" }, |o| o))
                })
                .filter(|(_, found)| *found != words.at(1))
                .map(|(l, found)| format!("{l} is {found}"))
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
        }
        "served" | "unserved" | "waiting" => {
            let kind = |l: &str| match world.check.reads.get(l) {
                None if world.knows(l) => "waiting",
                None => "not asked",
                Some(None) => "unserved",
                Some(Some(_)) => "served",
            };
            let wrong: Vec<&str> = words.from(2).into_iter().filter(|l| kind(l) != words.at(1)).collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.iter().map(|l| format!("{l} is {} ", kind(l))).collect()) }
        }
        // How often an entry is in the log of those that run.
        "once" => {
            let wrong: Vec<String> = words
                .from(2)
                .into_iter()
                .flat_map(|text| alive(world).map(move |(n, _)| (text, n)))
                .filter(|(text, n)| n.memory.entries.values().filter(|e| print::body(&e.body) == *text).count() != 1)
                .map(|(text, n)| format!("{text} on {}", name(n.me)))
                .collect();
            if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
        }
        "alarm" if world.check.alarms.iter().any(|a| a == words.at(2)) => Ok(()),
        "alarm" => Err(format!("alarms: {:?}", world.check.alarms)),
        "quiet" if world.net.is_empty() => Ok(()),
        "quiet" => Err(format!("{} messages are on the way", world.net.len())),
        "idle" => all(named(world, words, 2), |c| c.deadline() == wukong_core::time::Instant::NEVER),
        other => panic!("cannot expect {other}"),
    }
}
