//! The quiet phase: faults end, clients come back and get their answers, then everything is read and checked.

use super::{Event, Phase, World};
use crate::client::{Device, State};
use crate::clock::SEC;
use crate::history::Event as Happened;
use crate::machine::Machine;
use crate::scenario::Quiet;
use wukong_core::Input;

/// How long clients may take to get all their answers.
const SETTLE_MAX: u64 = 240 * SEC;
/// After that, everything stored has been delivered.
const DELIVER: u64 = 8 * SEC;
/// Long enough to settle a channel (10 s), evict it (60 s), and some.
const LONG: u64 = 100 * SEC;

/// Where the quiet phase is.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    began: u64,
    first_call: usize,
    pub settled: bool,
    /// Final reads were answered completely.
    pub read: bool,
}

impl<M: Machine> World<M> {
    pub(super) fn begin_quiet(&mut self) {
        self.phase = Phase::Settling;
        self.quiet.began = self.now;
        self.happened(Happened::Quiet);
        self.storage.heal();
        self.armed = None;
        if self.sc.run.restart {
            self.crash(crate::scenario::fault::Keep::All, SEC);
        }
        let shards = self.shards_up();
        for shard in 0..shards {
            self.process.seats[usize::from(shard)].paused_until = 0;
            self.process.seats[usize::from(shard)].force_turn();
            self.poke(shard);
        }
        for link in 0..self.links.len() as u32 {
            self.freeze(link, false);
        }
        for device in 0..self.devices.len() as u32 {
            let d = &mut self.devices[device as usize];
            d.wanted |= d.population.is_some() && !matches!(d.state, State::Off);
            match d.state {
                State::Off => self.come_back(device),
                State::Active(link) => self.later(SEC, Event::Ping { device, link }),
                State::Connecting(_) => {}
            }
        }
        self.later(2 * SEC, Event::Check { phase: 1 });
    }

    pub(super) fn check(&mut self, phase: u8) {
        match phase {
            0 => {
                if self.phase == Phase::Active && !self.active_over() {
                    self.later(SEC, Event::Check { phase: 0 });
                }
            }
            1 => self.check_settled(),
            2 => self.final_reads(),
            3 => self.check_reads(),
            4 => self.check_left(),
            _ => self.phase = Phase::Over,
        }
    }

    fn active_over(&self) -> bool {
        let populated = !self.sc.populations.is_empty();
        let length = self.sc.run.length.0;
        self.now >= length && (!populated || self.now >= 10 * length)
    }

    fn check_settled(&mut self) {
        let waits =
            |d: &&Device| d.wanted && (!matches!(d.state, State::Active(_)) || !d.pending.is_empty() || d.again > 0);
        let waiting = self.devices.iter().filter(waits).count();
        if waiting == 0 && self.is_up() && !self.process.stopping {
            self.quiet.settled = true;
            self.phase = Phase::Checking;
            self.later(DELIVER, Event::Check { phase: 2 });
            return;
        }
        if self.now > self.quiet.began + SETTLE_MAX {
            let up = if self.is_up() { format!("{:?}", self.looks()) } else { "the process is down".into() };
            let example = self.devices.iter().enumerate().find(|(_, d)| waits(d));
            let example = example.map(|(i, d)| {
                let first = d.pending.iter().next();
                format!("device {i}: {:?}, {} unanswered ({first:?}), {} to repeat", d.state, d.pending.len(), d.again)
            });
            self.violation(
                "INV-50",
                format!(
                    "{waiting} devices still wait {} s after faults ended; {up}; {}",
                    SETTLE_MAX / SEC,
                    example.unwrap_or_default()
                ),
            );
            self.phase = Phase::Over;
            return;
        }
        self.later(SEC, Event::Check { phase: 1 });
    }

    /// Every user lists the conversations and pages every channel from the start (INV-36).
    fn final_reads(&mut self) {
        self.quiet.first_call = self.history.calls.len();
        for user in 0..self.history.users.len() as u32 {
            self.conversations(user, 3, false);
        }
        for channel in 0..self.history.channels.len() {
            let [a, b] = self.history.channels[channel].users;
            let (_, last) = self.bounds(channel as u32);
            let page = 1 + last / 2;
            self.messages(a, b, 0, 0, 10_000, false, true);
            self.messages(b, a, 1, 0, page as i64, true, false);
            self.messages(b, a, 1 + page, 0, 10_000, true, false);
        }
        self.later(2 * SEC, Event::Check { phase: 3 });
    }

    fn check_reads(&mut self) {
        use wukong_core::api::ApiAnswer;
        let calls = &self.history.calls[self.quiet.first_call..];
        let open = calls.iter().filter(|c| c.ended.is_none()).count();
        if open > 0 && self.now < self.quiet.began + SETTLE_MAX + 60 * SEC {
            self.later(SEC, Event::Check { phase: 3 });
            return;
        }
        let bad =
            calls.iter().find(|c| !matches!(c.answer, Some(ApiAnswer::Messages(_) | ApiAnswer::Conversations(_))));
        let bad = bad.map(|c| format!("a read in the quiet phase was not served: {:?} -> {:?}", c.request, c.answer));
        self.quiet.read = bad.is_none();
        if let Some(what) = bad {
            self.violation("INV-36", what);
        }
        match self.sc.run.quiet {
            Quiet::Short => self.phase = Phase::Over,
            Quiet::Long => self.later(LONG, Event::Check { phase: 4 }),
        }
    }

    /// Memory that nobody needs was given back (INV-41).
    fn check_left(&mut self) {
        let life = self.life();
        let open = self.links.iter().filter(|l| l.life == life && l.server_open).count();
        let mut users: Vec<u32> = self
            .links
            .iter()
            .filter(|l| l.life == life && l.server_open && l.connected && !l.closing)
            .map(|l| self.devices[l.device as usize].user)
            .collect();
        users.sort_unstable();
        users.dedup();
        let looks = self.looks();
        let sum = |f: fn(&crate::machine::Look) -> usize| looks.iter().map(f).sum::<usize>();
        let (connections, online, channels) = (sum(|l| l.connections), sum(|l| l.users_online), sum(|l| l.channels));
        if connections != open {
            self.violation("INV-41", format!("{connections} connections are remembered, {open} are open"));
        }
        if online != users.len() {
            self.violation("INV-41", format!("{online} users count as online, {} are connected", users.len()));
        }
        if channels != 0 {
            self.violation(
                "INV-41",
                format!("{channels} channels are in memory {} s after the last message", LONG / SEC),
            );
        }
        for channel in 0..self.history.channels.len() as u32 {
            let Some(head) = super::truth::head(&self.storage.disk, &self.history, self.sc.node.slots, channel) else {
                continue;
            };
            let (_, last) = self.bounds(channel);
            if head.end.index != last || head.hw != last || head.distributed != last {
                let name = self.history.show_channel(channel);
                self.violation(
                    "INV-14",
                    format!(
                        "{name}: settled at {last}, its head row says end {} hw {} distributed {}",
                        head.end.index, head.hw, head.distributed
                    ),
                );
            }
        }
        self.seen.long_quiet += 1;
        self.phase = Phase::Over;
    }
}

impl<M> super::process::Seat<M> {
    /// A turn that waited for the end of a pause comes now.
    pub(super) fn force_turn(&mut self) {
        self.inbox.push_back(Input::Deadline);
        self.allow_turn();
    }
}
