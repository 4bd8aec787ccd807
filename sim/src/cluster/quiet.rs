//! The end of a run: faults are over, every channel takes a message, replicas become equal, everything is read.

use super::node::AUDIT_EVERY;
use super::world::World;
use crate::client::State;
use crate::clock::{MS, SEC};
use crate::history::{ChannelIx, Event as Happened, IntentIx};
use crate::oracle;
use crate::world::truth::log_of;
use std::collections::BTreeMap;
use wukong_core::ids::SlotId;
use wukong_core::store::{Family, Record, keys};

/// 20 times the shortest election timeout: within this every channel takes a message (cluster-and-raft 5.2).
const LIVE: u64 = 20 * SEC;
/// Within this all replicas of all channels hold what is committed: clients hear that something failed, send it again, channels settle,
/// and settled ones are compared three times.
const ALIKE: u64 = 60 * SEC + 3 * AUDIT_EVERY.as_secs() * SEC;
/// A client that got no answer tries again after 12 s, and a SEND may be owed for 10 s.
const ANSWERED: u64 = 60 * SEC;
/// Users come to the end of their scripts within this, behind the part with faults.
const SCRIPTS: u64 = 120 * SEC;
/// Within this, replicas are equal.
const EQUAL: u64 = 20 * SEC;

/// Oracles over the history that hold for any number of nodes.
const ORACLES: [&str; 11] =
    ["durable", "log", "once", "idempotent", "ids", "acks", "refusal", "echo", "order", "view", "window"];

/// What is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// The end of the users' scripts.
    #[default]
    Scripts,
    /// Nothing is sent any more but what is owed: whoever lacks something gets it though nobody says a word.
    Alike,
    Probes,
    Answers,
    Equality,
    /// The same of the slots' machines.
    Slots,
    /// Answers to the calls from this one on.
    Reads(usize),
    Silence,
    Over,
}

/// Where the end phase is.
#[derive(Clone, Debug, Default)]
pub struct Quiet {
    /// When faults ended; 0: not yet.
    pub began: u64,
    probes: BTreeMap<IntentIx, ChannelIx>,
    step: Step,
    /// When the step has to be over.
    end: u64,
}

impl World {
    /// Heals everything and waits for what must follow.
    pub fn come_together(&mut self) {
        while let Some(until) = self.settle() {
            self.run_to(until);
        }
    }

    /// Does what is due of the end phase. Until when the world has to run before the next call; none when all is judged.
    pub fn settle(&mut self) -> Option<u64> {
        if self.quiet.end == 0 {
            self.quiet.end = self.now + SCRIPTS;
        }
        while self.violations.is_empty() {
            let (name, open) = match self.quiet.step {
                Step::Scripts => ("liveness", self.unsaid()),
                Step::Alike if self.plan.audit == 0 => ("", None),
                Step::Alike => ("anti-entropy", self.unequal()),
                Step::Probes => ("liveness", self.unprobed()),
                Step::Answers => ("liveness", self.unanswered()),
                Step::Equality => ("convergence", self.unequal()),
                Step::Slots => ("convergence", self.slot_differs().or_else(|| self.wrong_token())),
                Step::Reads(first) => ("reads", self.unread(first)),
                Step::Silence => ("", (self.now < self.quiet.end).then(String::new)),
                Step::Over => return None,
            };
            match open {
                Some(_) if self.quiet.step == Step::Silence => return Some(self.quiet.end),
                Some(why) if self.now >= self.quiet.end => self.violation(name, why),
                Some(_) => return Some(self.now + 100 * MS),
                None => self.next_step(),
            }
        }
        None
    }

    fn enter_step(&mut self, step: Step, within: u64) {
        let grace = self.shell.as_ref().map_or(0, |s| s.grace);
        self.quiet.step = step;
        self.quiet.end = self.now + within + if step == Step::Silence { 0 } else { grace };
    }

    fn next_step(&mut self) {
        match self.quiet.step {
            Step::Over => {}
            Step::Scripts => {
                self.heal();
                self.enter_step(Step::Alike, ALIKE);
            }
            Step::Alike => {
                self.probe();
                self.enter_step(Step::Probes, LIVE);
            }
            Step::Probes => self.enter_step(Step::Answers, ANSWERED),
            Step::Answers => self.enter_step(Step::Equality, EQUAL),
            Step::Equality => self.enter_step(Step::Slots, EQUAL),
            Step::Slots => {
                let first = self.history.calls.len();
                self.read_all();
                self.enter_step(Step::Reads(first), 5 * SEC);
            }
            Step::Reads(_) => self.enter_step(Step::Silence, 4 * SEC),
            Step::Silence => {
                self.quiet.step = Step::Over;
                self.judge_end();
            }
        }
    }

    fn read_all(&mut self) {
        for channel in self.channels() {
            for user in self.history.channels[channel as usize].users {
                if !self.exempt(channel) {
                    self.read_channel(user, channel, None);
                }
            }
        }
    }

    fn unread(&mut self, first: usize) -> Option<String> {
        let open = self.history.calls[first..].iter().any(|c| c.ended.is_none());
        open.then(|| "a read was not answered".to_owned())
    }

    fn judge_end(&mut self) {
        for n in 0..self.nodes.len() {
            self.check_rows(n);
            self.check_nothing_left(n);
            let counters: Vec<_> = self.nodes[n]
                .seats
                .iter()
                .map(|s| (s.machine.view().counters().clone(), s.machine.view().link_counters().clone()))
                .collect();
            counters.iter().for_each(|(c, l)| self.gather(c, l));
        }
        self.judge_history();
    }

    fn heal(&mut self) {
        for e in 0..self.plan.episodes.len() {
            self.end_episode(e);
        }
        self.quiet.began = self.now;
        self.happened(Happened::Quiet);
        self.idle = 0;
        for n in 0..self.nodes.len() {
            self.nodes[n].down = 0;
            self.boot(n);
        }
    }

    /// One message more in each channel.
    fn probe(&mut self) {
        if !self.violations.is_empty() {
            return;
        }
        for channel in self.channels() {
            let user = self.history.channels[channel as usize].users[0];
            let device = self.sender_of(user);
            let intent = self.intend(device, channel);
            self.quiet.probes.insert(intent, channel);
            match self.devices[device as usize].state {
                State::Active(conn) => self.send(device, conn, &[intent]),
                State::Off | State::Connecting(_) => self.send_later(device, intent),
            }
        }
    }

    pub(super) fn quiet_acked(&mut self, intent: IntentIx) {
        self.quiet.probes.remove(&intent);
    }

    /// SENDs go to the leader of the slot, which serves a channel only if it is one of its replicas: they are not yet forwarded.
    fn exempt(&mut self, channel: ChannelIx) -> bool {
        let voters = self.voters(channel);
        let slot = self.place(channel).1;
        let served = self.serving(slot);
        let exempt = !voters.is_empty() && served.is_some_and(|n| !voters.contains(&n));
        if exempt {
            self.cover.hit("slot led outside the channel");
        }
        exempt
    }

    fn unprobed(&mut self) -> Option<String> {
        let open: Vec<ChannelIx> = self.quiet.probes.values().copied().collect();
        let open: Vec<ChannelIx> = open.into_iter().filter(|c| !self.exempt(*c)).collect();
        (!open.is_empty()).then(|| format!("{} takes no message", self.history.show_channel(open[0])))
    }

    fn unsaid(&mut self) -> Option<String> {
        let d = self.devices.iter().find(|d| !d.script.is_empty())?;
        let user = &self.history.users[d.user as usize];
        Some(format!("{user} has not come to the end of its script: {:?} is next", d.script.front()))
    }

    fn unanswered(&mut self) -> Option<String> {
        let waiting: Vec<IntentIx> =
            self.devices.iter().flat_map(|d| d.pending.values().map(|(intent, _)| *intent)).collect();
        let open = waiting.into_iter().find(|i| {
            let channel = self.history.intents[*i as usize].channel;
            channel.is_some_and(|c| !self.exempt(c))
        })?;
        Some(format!("intent {open} got no answer"))
    }

    /// A channel whose replicas differ.
    fn unequal(&mut self) -> Option<String> {
        self.channels().find_map(|channel| {
            if self.exempt(channel) {
                return None;
            }
            let name = self.history.show_channel(channel);
            let (key, slot, home) = self.place(channel);
            let voters = self.voters(channel);
            let record = self.record(channel)?;
            if let Some(left) = self.left_behind(channel, &record) {
                return Some(left);
            }
            if record.deleted {
                return None;
            }
            let era = self.era(channel, record.generation);
            let committed: Vec<i64> =
                self.truth.committed.get(&era).iter().flat_map(|log| log.iter().map(|r| r.message_id)).collect();
            for n in &voters {
                let ids: Vec<i64> = self.log(*n, channel).iter().map(|r| r.message_id).collect();
                if ids != committed {
                    return Some(format!("{name}: n{n} has {} entries of {}", ids.len(), committed.len()));
                }
                let last = committed.len() as u64;
                if last > 0 && self.row(*n, channel, last).is_none_or(|(_, synced, _)| !synced) {
                    return Some(format!("{name}: n{n} has not synced {last}"));
                }
            }
            let leader = self.serving(slot)?;
            let (hw, distributed, _) = self.nodes[leader].channel(&key, home).filter(|(.., leads)| *leads)?;
            (distributed < hw).then(|| format!("{name}: n{leader} handed on {distributed} of {hw}"))
        })
    }

    /// A slot that is not the same on all disks.
    fn slot_differs(&mut self) -> Option<String> {
        (0..self.plan.slots as u16).map(SlotId).find_map(|slot| {
            let (from, to) = (keys::single(slot, keys::table::APPLIED), keys::applied_rows(slot).1);
            let rows = |n: usize| self.nodes[n].storage.disk.rows(Family::Meta, &from, &to).map(|(k, r)| (k, &r.value));
            let first: Vec<_> = rows(0).collect();
            let other = (1..self.nodes.len()).find(|n| !rows(*n).eq(first.iter().copied()))?;
            let differs = rows(other).zip(&first).find(|(a, b)| a != *b).map(|(a, _)| a.0.clone());
            let counts = (first.len(), rows(other).count());
            Some(format!("slot {}: n0 and n{other} have {counts:?} rows, first difference {differs:?}", slot.0))
        })
    }

    pub(super) fn log(&self, n: usize, channel: ChannelIx) -> Vec<Record> {
        log_of(&self.nodes[n].storage.disk, &self.history, self.plan.slots as u16, channel).unwrap_or_default()
    }

    /// What is committed of each channel, as the disks hold it.
    #[must_use]
    pub fn logs(&self) -> Vec<Vec<Record>> {
        (0..self.history.channels.len() as ChannelIx).map(|era| self.log_of_era(era)).collect()
    }

    fn judge_history(&mut self) {
        if !self.mode.oracles || !self.violations.is_empty() {
            return;
        }
        self.judge_eras();
        let logs = self.logs();
        for (name, check) in oracle::ALL.iter().filter(|(name, _)| ORACLES.contains(name)) {
            match check(&self.history, &logs) {
                Ok(judged) => {
                    self.truth.judged += judged;
                    self.cover.add_to(name, judged);
                }
                Err(v) => self.violations.push(v),
            }
        }
        self.violations.sort_by_key(|v| v.at);
    }
}
