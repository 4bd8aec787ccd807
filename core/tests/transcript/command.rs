//! The commands of a transcript. `A,B` stands for several replicas; `[..]` may be left out.
//!
//! - `cluster voters=A,B,C [learners=D] [mode=assigned] [lease=on] [preferred=A] [seed=1] [tail=, fetch=, uncommitted=, ..]`: a new
//!   world. `join E`: one more, empty. `node A log=1x2,3x1 [epoch=5] [vote=B] [hw=1] [damaged]`: starts on two entries of epoch 1
//!   and one of epoch 3. `alarms X`: what the script provokes.
//! - `time 250ms [msgs]`: deadlines fire in order, everything is delivered. `stabilize [msgs]`: the same without time.
//!   `timeout A`: A's next deadline, before those of others.
//! - `deliver|drop|dup [A>B] [Kind] [n] [last]`: what is on the way, as it is now. `queue` prints it. `cut|hold A`, `A-B`, `A>B
//!   [Kind]`: lost, or kept; `heal [..]`. `send A>B Kind e=1 ..`: a message that nobody sent.
//! - `disk A hold|ok|complete [n]|fail|fail-reads n|spoil-snapshots n|damage keep=3`; `crash A [keep=n]`: with n of the writes in
//!   flight done; `restart A`, `pause A`, `resume A`.
//! - `propose A x [y ..]`: one batch. `read|lease-read A r1`, `transfer A B`, `config A add-learner|drop-learner|promote|remove D`,
//!   `config A replace B,C,D`, `snapshot A [size=] [keep=]`, `fence A epoch=2`, `assign A epoch=2 leader=B voters=.. [out=]
//!   [learners=] [version=] [incarnation=]`, `handover A B`, `peer-up A B`.
//! - `state [A]`, `log A`, and `expect ..` (see there).

use super::names::{duration, name, replica, replicas};
use super::world::{Rule, World};
use super::{expect, forge, print};
use std::sync::Arc;
use wukong_core::ids::{Epoch, Incarnation, Position};
use wukong_core::raft::config::{Change, Config, Replica};
use wukong_core::raft::core::Input;
use wukong_core::raft::message::{Body, Entry, Envelope, Item, Message, Snapshot};
use wukong_core::store::rows::Assignment;

/// The words of a command.
#[derive(Clone, Debug)]
pub struct Words(Vec<String>);

impl Words {
    /// The nth word that is no `key=value`.
    pub fn get(&self, n: usize) -> Option<&str> {
        self.0.iter().filter(|w| !w.contains('=')).nth(n).map(String::as_str)
    }

    pub fn at(&self, n: usize) -> &str {
        self.get(n).unwrap_or_else(|| panic!("too few words: {:?}", self.0))
    }

    pub fn from(&self, n: usize) -> Vec<&str> {
        self.0.iter().filter(|w| !w.contains('=')).skip(n).map(String::as_str).collect()
    }

    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|w| w == word)
    }

    pub fn key(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|w| w.strip_prefix(key)?.strip_prefix('='))
    }

    pub fn number(&self, key: &str) -> Option<u64> {
        self.key(key).map(|v| v.parse().unwrap_or_else(|_| panic!("{key} is no number: {v}")))
    }
}

/// Runs one command; what it prints is in `world.out`.
pub fn run(world: &mut World, line: &str) {
    let words = Words(line.split_whitespace().map(str::to_owned).collect());
    let verb = words.at(0).to_owned();
    world.show_messages = words.has("msgs") || verb == "deliver";
    match verb.as_str() {
        "cluster" => cluster(world, &words),
        "node" => node(world, &words),
        "join" => replicas(words.at(1)).into_iter().for_each(|r| world.add(r)),
        "alarms" => world.check.allowed.extend(words.from(1).into_iter().map(str::to_owned)),
        "time" => {
            world.stamp = true;
            world.pass(duration(words.at(1)));
            world.stamp = false;
        }
        "stabilize" => world.run(),
        // The timers of these fire now, whatever those of others say.
        "timeout" => replicas(words.at(1)).into_iter().for_each(|r| world.time_out(r)),
        "deliver" | "drop" | "dup" => mail(world, &verb, &words),
        "queue" => {
            let lines: Vec<String> = world.net.iter().map(print::envelope).collect();
            lines.into_iter().for_each(|line| world.say(line));
        }
        "cut" | "hold" | "heal" => links(world, &verb, &words),
        "disk" => disk(world, &words),
        "crash" => {
            let keep = words.number("keep").unwrap_or(0) as usize;
            replicas(words.at(1)).into_iter().for_each(|r| world.crash(r, keep));
        }
        "restart" => {
            for r in replicas(words.at(1)) {
                world.crash(r, 0);
                world.start(r);
            }
            world.settle();
        }
        "pause" | "resume" => {
            replicas(words.at(1)).into_iter().for_each(|r| world.node_mut(r).paused = verb == "pause")
        }
        "state" => {
            let shown = words.get(1).map(replicas);
            let nodes = world.nodes.iter().filter(|n| shown.as_ref().is_none_or(|s| s.contains(&n.me)));
            let lines: Vec<String> = nodes.map(print::state).collect();
            lines.into_iter().for_each(|line| world.say(line));
        }
        "log" => {
            for r in replicas(words.at(1)) {
                let node = world.node(r);
                let line = node.core.as_ref().map_or(format!("{} down", name(r)), |core| print::log(core, node));
                world.say(line);
            }
        }
        "send" => forge::send(world, &words),
        "expect" => expect::run(world, &words),
        _ => request(world, &verb, &words),
    }
}

fn cluster(world: &mut World, words: &Words) {
    let list = |key| words.key(key).map(replicas).unwrap_or_default();
    let (out, mutant) = (std::mem::take(&mut world.out), world.mutant);
    *world = World::planted(mutant);
    world.out = out;
    let s = &mut world.settings;
    s.assigned = words.key("mode") == Some("assigned");
    s.lease = words.key("lease") == Some("on");
    s.seed = words.number("seed").unwrap_or(1);
    s.preferred = list("preferred");
    let bounds = &mut s.bounds;
    let sizes = [
        ("fetch", &mut bounds.fetch),
        ("uncommitted", &mut bounds.uncommitted),
        ("tail", &mut bounds.tail),
        ("unsynced", &mut bounds.unsynced),
        ("reads", &mut bounds.reads),
    ];
    for (key, bound) in sizes {
        *bound = words.number(key).map_or(*bound, |n| n as usize);
    }
    bounds.catch_up = words.number("catch-up").unwrap_or(bounds.catch_up);
    let config = Config { learners: list("learners"), ..Config::of(list("voters")) };
    let members = config.members();
    // Assigned groups learn their members from the slot.
    s.config = Arc::new(if s.assigned { Config::default() } else { config });
    members.into_iter().for_each(|r| world.add(r));
}

/// Starts a replica anew on a given stored state.
fn node(world: &mut World, words: &Words) {
    let r = replica(words.at(1));
    let mut stored = super::disk::Disk::empty(Arc::clone(&world.settings.config));
    let mut items = Vec::new();
    let mut index = 0;
    for run in words.key("log").unwrap_or("-").split(',').filter(|r| *r != "-") {
        let (epoch, count) = run.split_once('x').expect("epoch x count");
        let epoch = Epoch(epoch.parse().expect("an epoch"));
        items.push(Item::Mark { epoch, at: index });
        for _ in 0..count.parse().expect("a count") {
            index += 1;
            let body = Body::Data(format!("old{}.{index}", epoch.0).into());
            items.push(Item::Entry(Entry { index, epoch, body }));
        }
    }
    let op = wukong_core::raft::core::Op::Append(items.into());
    world.check.written(r, &op);
    stored.apply(&op);
    stored.epoch = Epoch(words.number("epoch").unwrap_or(stored.log.end().epoch.0));
    stored.voted_for = words.key("vote").map(replica);
    stored.hw = words.number("hw").unwrap_or(0);
    stored.damaged = words.has("damaged");
    world.node_mut(r).disk = stored;
    world.start(r);
}

/// `A>B`, a message kind, how many: what of the queue is meant.
fn mail(world: &mut World, verb: &str, words: &Words) {
    let link = words.get(1).filter(|w| w.contains('>')).and_then(|w| w.split_once('>'));
    let kind = words
        .from(1)
        .into_iter()
        .find(|w| w.len() > 1 && w.starts_with(|c: char| c.is_ascii_uppercase()) && !w.contains('>'));
    let count = words.from(1).iter().find_map(|w| w.parse::<usize>().ok()).unwrap_or(usize::MAX);
    let last = words.has("last");
    let fits = |m: &Envelope| {
        link.is_none_or(|(a, b)| (a == "*" || replica(a) == m.from) && (b == "*" || replica(b) == m.to))
            && kind.is_none_or(|k| k == m.message.name())
    };
    let matching = world.net.iter().filter(|m| fits(m)).count();
    if matching == 0 {
        return world.say("nothing matches");
    }
    let take = count.min(matching);
    let skip = if last { matching - take } else { 0 };
    let (mut seen, mut chosen, mut rest) = (0, Vec::new(), std::collections::VecDeque::new());
    for m in std::mem::take(&mut world.net) {
        let hit = fits(&m) && seen >= skip && seen < skip + take;
        seen += usize::from(fits(&m));
        if hit && verb == "dup" {
            rest.push_back(m.clone());
        }
        if hit && verb != "dup" { chosen.push(m) } else { rest.push_back(m) }
    }
    world.net = rest;
    for m in chosen {
        if verb == "deliver" && !world.is_lost(&m) {
            world.deliver(m);
        } else {
            world.say(format!("lost: {}", print::envelope(&m)));
        }
    }
}

/// `A`: all its links. `A-B`: both ways. `A>B`: one way. A kind after it: only those messages.
fn links(world: &mut World, verb: &str, words: &Words) {
    if verb == "heal" && words.get(1).is_none() {
        return world.rules.clear();
    }
    let kind = words.get(2).map(str::to_owned);
    let all: Vec<Replica> = world.nodes.iter().map(|n| n.me).collect();
    let mut pairs = Vec::new();
    for spec in words.at(1).split(',') {
        if let Some((a, b)) = spec.split_once('>') {
            pairs.push((replica(a), replica(b)));
        } else if let Some((a, b)) = spec.split_once('-') {
            pairs.extend([(replica(a), replica(b)), (replica(b), replica(a))]);
        } else {
            let a = replica(spec);
            pairs.extend(all.iter().filter(|b| **b != a).flat_map(|b| [(a, *b), (*b, a)]));
        }
    }
    for (from, to) in pairs {
        world.rules.retain(|r| (r.from, r.to) != (from, to) || (verb != "heal" && r.kind != kind));
        if verb != "heal" {
            world.rules.push(Rule { from, to, kind: kind.clone(), lost: verb == "cut" });
        }
    }
}

fn disk(world: &mut World, words: &Words) {
    for r in replicas(words.at(1)) {
        match words.at(2) {
            "hold" => world.node_mut(r).hold = true,
            "ok" => {
                world.node_mut(r).hold = false;
                world.settle();
            }
            "complete" => {
                let count = words.get(3).map_or(usize::MAX, |n| n.parse().expect("a count"));
                for _ in 0..count.min(world.node(r).writes.len()) {
                    world.complete(r);
                }
            }
            "fail" => {
                // What comes after a failed write is not written either.
                let failed = world.node_mut(r).writes.drain(..).next();
                if let Some((token, _)) = failed {
                    world.step(r, Input::PersistFailed(token));
                }
            }
            "fail-reads" => world.node_mut(r).failing_reads = words.at(3).parse().expect("a count"),
            "spoil-snapshots" => world.node_mut(r).bad_snapshots = words.at(3).parse().expect("a count"),
            // Down: what it acknowledged is gone from some place on, and it notices.
            "damage" => {
                let node = world.node_mut(r);
                assert!(node.core.is_none(), "only the disk of one that is down is damaged");
                let index = words.number("keep").expect("keep");
                let epoch = node.disk.log.epoch_of(index);
                node.disk.truncate(Position { epoch, index });
                node.disk.damaged = !words.has("unnoticed");
            }
            other => panic!("unknown: disk {other}"),
        }
    }
}

fn request(world: &mut World, verb: &str, words: &Words) {
    let targets = replicas(words.at(1));
    for r in targets {
        let input = input(world, r, verb, words);
        world.step(r, input);
        world.settle();
    }
}

fn input(world: &mut World, r: Replica, verb: &str, words: &Words) -> Input {
    match verb {
        "propose" => {
            let batch: Vec<String> = words.from(2).into_iter().map(str::to_owned).collect();
            let batch = batch.into_iter().filter(|w| w != "msgs").collect::<Vec<_>>();
            let ctx = world.label(&batch.join("+"));
            world.check.proposed(ctx, batch.clone());
            Input::Propose {
                ctx,
                batch: batch
                    .into_iter()
                    .map(|w| w.repeat(words.number("times").unwrap_or(1) as usize).into())
                    .collect(),
            }
        }
        "read" | "lease-read" => {
            let ctx = world.label(words.at(2));
            world.check.asked(ctx);
            if verb == "read" { Input::Read { ctx } } else { Input::LeaseRead { ctx } }
        }
        "transfer" => {
            let ctx = world.label(&format!("transfer-{}", words.at(2)));
            Input::Transfer { ctx, target: replica(words.at(2)) }
        }
        "config" => {
            let ctx = world.label(&words.from(2).join("-"));
            let who = words.get(3).map(replicas).unwrap_or_default();
            let change = match words.at(2) {
                "add-learner" => Change::AddLearner(who[0]),
                "drop-learner" => Change::DropLearner(who[0]),
                "promote" => Change::Promote(who[0]),
                "remove" => Change::RemoveVoter(who[0]),
                "replace" => Change::Replace(who),
                "leave-joint" => Change::LeaveJoint,
                other => panic!("unknown change {other}"),
            };
            Input::ProposeConfig { ctx, change }
        }
        "snapshot" => {
            let core = world.node(r).core.as_ref().expect("up");
            let index = words.number("at").unwrap_or(core.hw());
            let base = Position { epoch: core.log().epoch_of(index), index };
            let configs = &world.node(r).memory.configs;
            let (config_index, config) = configs.iter().rev().find(|(i, _)| *i <= index).unwrap_or(&configs[0]).clone();
            let size = words.number("size").unwrap_or(10);
            let id = words.number("id").unwrap_or(base.epoch.0 * 1000 + base.index);
            let snapshot = Arc::new(Snapshot { id, base, config, config_index, size });
            let node = world.node_mut(r);
            node.snapshots = vec![Arc::clone(&snapshot)];
            node.disk.snapshot = Some(Arc::clone(&snapshot));
            Input::Snapshot { snapshot, keep: words.number("keep").unwrap_or(0) }
        }
        "assign" => Input::Assign(assignment(world, words)),
        "fence" => Input::Message(Envelope {
            from: super::names::SLOT,
            to: r,
            from_incarnation: Incarnation(1),
            epoch: Epoch(words.number("epoch").expect("epoch")),
            message: Message::Fence,
        }),
        "handover" => Input::Handover { target: replica(words.at(2)) },
        "peer-up" => Input::PeerUp(replica(words.at(2))),
        other => panic!("unknown command {other}"),
    }
}

fn assignment(world: &World, words: &Words) -> Arc<Assignment> {
    let list = |key| words.key(key).map(replicas).unwrap_or_default();
    let leader = words
        .key("leader")
        .map(replica)
        .map(|l| (l, Incarnation(words.number("incarnation").unwrap_or_else(|| world.node(l).incarnation))));
    let epoch = words.number("epoch").expect("epoch");
    Arc::new(Assignment {
        generation: 1,
        epoch: Epoch(epoch),
        config_version: words.number("version").unwrap_or(epoch),
        leader,
        voters: list("voters"),
        voters_out: list("out"),
        learners: list("learners"),
        retention_floor: 0,
        deleted: false,
        last_seq: 0,
    })
}
