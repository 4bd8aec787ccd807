//! How a world begins: the node, its clients, the fault episodes.

use super::{Event, Mode, Phase, Rngs, World};
use crate::client::session::KeyPair;
use crate::client::{Device, State};
use crate::clock::{Clock, MS};
use crate::hash::Trace;
use crate::heap::Heap;
use crate::history::{History, UserIx};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::scenario::fault::Kind;
use crate::scenario::{Population, Scenario};
use std::collections::BTreeMap;
use wukong_proto::Text;

impl<M: Machine> World<M> {
    #[must_use]
    pub fn new(sc: Scenario, mode: Mode) -> Self {
        let seed = sc.seed;
        let fork = |name| Rng::fork(seed, name, 0);
        let mut key_rng = fork("client keys");
        let mut world = Self {
            now: 0,
            heap: Heap::default(),
            mode,
            rng: Rngs {
                net: fork("net"),
                mail: fork("mail"),
                disk: fork("disk"),
                turn: fork("turn"),
                fault: fork("fault"),
                clients: fork("clients"),
            },
            clock: Clock::new(sc.run.drift),
            process: super::process::Process::default(),
            storage: super::Storage::default(),
            links: Vec::new(),
            devices: Vec::new(),
            keys: (0..3).map(|_| KeyPair::new(key_rng.bytes32())).collect(),
            tokens_due: Vec::new(),
            history: History::default(),
            seen: crate::sometimes::Seen::default(),
            phase: Phase::Active,
            armed: None,
            arms: 0,
            truth: super::truth::Truth::default(),
            quiet: super::quiet::Progress::default(),
            found: Vec::new(),
            trace: Trace::default(),
            visible: Trace::default(),
            checkpoints: Vec::new(),
            handled: 0,
            popped: 0,
            sc,
        };
        world.launch();
        world
    }

    fn launch(&mut self) {
        self.boot();
        for line in self.sc.devices.clone() {
            let user = self.history.user(&line.fields.uid);
            let id = if line.fields.id.is_empty() { &line.name } else { &line.fields.id };
            let d = self.device(user, id, line.fields.flag, line.fields.version);
            d.shard = (line.fields.shard != 255).then_some(line.fields.shard);
        }
        for (i, p) in self.sc.populations.clone().iter().enumerate() {
            self.populate(i, p);
        }
        if self.sc.node.tokens {
            self.first_tokens();
        }
        for index in 0..self.sc.steps.len() as u32 {
            let at = self.sc.steps[index as usize].at.0;
            self.heap.add(at, Event::Step { index });
        }
        for index in 0..self.sc.faults.len() as u32 {
            let (kind, f) = (self.sc.faults[index as usize].kind, &self.sc.faults[index as usize].fields);
            self.heap.add(f.at.0, Event::Fault { index, ends: false });
            if kind == Kind::Freeze {
                self.heap.add(f.at.0 + f.span.0, Event::Fault { index, ends: true });
            }
        }
        if self.sc.populations.is_empty() && self.sc.steps.is_empty() {
            self.heap.add(self.sc.run.length.0, Event::Check { phase: 0 });
        }
        // Something must end the active phase of a script.
        let end = self.sc.run.length.0;
        self.heap.add(end, Event::Check { phase: 0 });
    }

    fn device(&mut self, user: UserIx, id: &str, flag: u8, version: u8) -> &mut Device {
        let n = self.devices.len();
        let seed = self.sc.seed;
        self.devices.push(Device {
            user,
            id: Text::from(id),
            flag,
            version,
            token: Text::default(),
            shard: None,
            population: None,
            peers: Vec::new(),
            state: State::Off,
            wanted: false,
            pings: true,
            acks: 1000,
            rng: Rng::fork(seed, "device", n as u64),
            key: n % self.keys.len(),
            sent: Vec::new(),
            pending: BTreeMap::new(),
            again: 0,
            seen: BTreeMap::new(),
            unacked: Vec::new(),
            life: 0,
        });
        &mut self.devices[n]
    }

    fn populate(&mut self, index: usize, p: &Population) {
        let mut rng = Rng::fork(self.sc.seed, "population", index as u64);
        let users: Vec<UserIx> = (0..p.users).map(|u| self.history.user(&format!("p{index}u{u}"))).collect();
        for (u, user) in users.iter().enumerate() {
            // Neighbours on a ring, so that both sides of a channel speak.
            let n = users.len();
            let peers: Vec<UserIx> = (1..=p.peers as usize)
                .map(|d| users[(u + d.div_ceil(2) * if d % 2 == 0 { n - 1 } else { 1 }) % n])
                .collect();
            for dev in 0..rng.between(1, u64::from(p.devices.max(1))) {
                let flag = if rng.chance(500) { dev as u8 % 3 } else { 0 };
                let version = *rng.pick(&[1, 2, 3, 4, 5, 5, 5, 6, 6]);
                let (pings, first) = (rng.chance(p.ping), rng.below(2_000) * MS / 2);
                let d = self.device(*user, &format!("dev{dev}"), flag, version);
                d.population = Some(index);
                d.peers.clone_from(&peers);
                d.pings = pings;
                d.acks = p.ack;
                d.wanted = true;
                let device = (self.devices.len() - 1) as u32;
                self.heap.add(first, Event::Reconnect { device, life: 0 });
                let think = rng.spread(p.think.0);
                self.heap.add(first + think, Event::Act { device, life: 0 });
            }
        }
    }

    fn first_tokens(&mut self) {
        let mut wanted: Vec<(UserIx, u8)> = self.devices.iter().map(|d| (d.user, d.flag)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        for (user, flag) in wanted {
            let index = self.tokens_due.len() as u32;
            let token = Text::from(format!("first {index}"));
            for d in self.devices.iter_mut().filter(|d| d.user == user && d.flag == flag) {
                d.token = token.clone();
            }
            self.tokens_due.push((user, flag, token));
            self.heap.add(20 * MS, Event::Token { index });
        }
    }

    pub(crate) fn keys_public(&self, device: u32) -> Text {
        self.keys[self.devices[device as usize].key].public.clone()
    }
}
