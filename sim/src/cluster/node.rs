//! A node: the shards of its process, their turns, its clock, its disk; crash and start.

use super::shell::{Order, Standing};
use super::storage::{LAZY, Storage};
use super::world::{Event, World};
use super::{CLUSTER, node_of, replica};
use crate::clock::{Clock, MS, US};
use crate::rng::Rng;
use crate::world::process::{Seat, conn_of, gated};
use core::time::Duration;
use wukong_core::ids::{ChannelKey, Incarnation, ShardId, SlotId, shard_of};
use wukong_core::note::Note;
use wukong_core::raft::core::Alarm;
use wukong_core::rng::Seed;
use wukong_core::time::Instant;
use wukong_core::{Boot, Effect, Input, Output, Shard, ShardConfig};

/// Settled channels are compared this often.
pub const AUDIT_EVERY: Duration = Duration::from_secs(8);
/// The same after something is new.
const AUDIT_SOON: Duration = Duration::from_secs(2);
/// Longer than any run.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// See the module.
pub struct Node {
    pub alive: bool,
    /// Counts starts; the incarnation.
    pub life: u64,
    /// Its shards; none when a shell runs them.
    pub seats: Vec<Seat<Shard>>,
    /// What a shell told of its shards.
    pub standing: Standing,
    pub clock: Clock,
    pub storage: Storage,
    pub paused_until: u64,
    /// Episodes that keep it down.
    pub down: u32,
    /// It dies after so many outputs more.
    pub fuse: Option<u64>,
    exits: bool,
    /// Connections that were accepted by this process and may be open.
    pub conns: Vec<u32>,
    /// When mail of each pair of shards arrives last.
    mail_last: Vec<u64>,
}

impl Node {
    #[must_use]
    pub fn new(drift: i64) -> Self {
        Self {
            alive: false,
            life: 0,
            seats: Vec::new(),
            standing: Standing::default(),
            clock: Clock::new(drift),
            storage: Storage::default(),
            paused_until: 0,
            down: 0,
            fuse: None,
            exits: false,
            conns: Vec::new(),
            mail_last: Vec::new(),
        }
    }

    /// Whether it leads and serves a slot.
    #[must_use]
    pub fn serves(&self, slot: SlotId, shards: u8) -> bool {
        let seat = self.seats.get(usize::from(shard_of(slot, shards).0));
        let told = || self.standing.serves(slot);
        self.alive && seat.map_or_else(told, |s| s.machine.view().slot_served(slot) == Some(true))
    }

    /// The generation of a channel that is in memory.
    #[must_use]
    pub fn generation(&self, key: &ChannelKey, shard: ShardId) -> Option<u64> {
        self.seats.get(usize::from(shard.0)).filter(|_| self.alive)?.machine.view().channel_generation(key)
    }

    /// (committed seq, distributed seq, whether it leads) of a channel that is in memory.
    #[must_use]
    pub fn channel(&self, key: &ChannelKey, shard: ShardId) -> Option<(u64, u64, bool)> {
        let Some(seat) = self.seats.get(usize::from(shard.0)) else {
            return self.standing.channel(key).filter(|_| self.alive);
        };
        let view = seat.machine.view();
        view.channel(key).filter(|_| self.alive).map(|(hw, distributed)| (hw, distributed, view.channel_led(key)))
    }
}

impl World {
    pub(super) fn boot(&mut self, n: usize) {
        let never = self.mode.majority_dead && n > 0;
        if self.nodes[n].alive || self.nodes[n].down > 0 || never {
            return;
        }
        let node = &mut self.nodes[n];
        node.life += 1;
        node.alive = true;
        node.fuse = None;
        node.exits = false;
        node.clock.restart(self.now);
        node.storage.restart();
        if self.order(Order::Start(n)) {
            return;
        }
        let node = &self.nodes[n];
        let (life, now) = (node.life, node.clock.now(self.now));
        let shards = self.plan.shards as u8;
        let boot = Boot { store: replica(n).store, incarnation: Incarnation(life) };
        let mut seats = Vec::new();
        for shard in 0..shards {
            let number = (life << 16) | ((n as u64) << 8) | u64::from(shard);
            let mut keys = Rng::fork(self.plan.seed, "keys", number);
            let mut jitter = Rng::fork(self.plan.seed, "jitter", number);
            let seed = Seed { keys: keys.bytes32(), jitter: jitter.bytes32() };
            match Shard::new(self.shard_config(n, shard), boot, seed, now) {
                Ok(shard) => seats.push(Seat::new(shard)),
                Err(e) => return self.violation("BOOT", format!("n{n} refused to start: {e}")),
            }
        }
        self.nodes[n].seats = seats;
        self.nodes[n].mail_last = vec![0; usize::from(shards).pow(2)];
        self.say(&format_args!("n{n} starts, incarnation {life}"));
        (0..shards).for_each(|s| self.poke(n, s));
        self.later(LAZY, Event::LazySync { node: n, life });
        self.dial_all(n);
    }

    /// What a shard of a node is told at its start.
    #[must_use]
    pub fn shard_config(&self, n: usize, shard: u8) -> ShardConfig {
        let mut config = ShardConfig {
            node: replica(n).node,
            shard: ShardId(shard),
            shards: self.plan.shards as u8,
            slots: self.plan.slots as u16,
            replicas: (0..self.nodes.len()).map(replica).collect(),
            cluster: CLUSTER,
            hash_salt: self.mode.hash,
            audit_every: if self.plan.audit > 0 { AUDIT_EVERY } else { NEVER },
            audit_soon: if self.plan.audit > 0 { AUDIT_SOON } else { NEVER },
            ..ShardConfig::default()
        };
        if self.plan.memory < 2 {
            config.overlay_rows_max = 3 * self.plan.memory as usize;
            config.link_pause = 200;
            config.dedup_bytes_max = 512 * self.plan.memory as usize;
        }
        if self.plan.log > 0 {
            config.slot_log_suffix = self.plan.log;
            config.slot_log_max = 2 * self.plan.log;
            config.snapshot_rows = 3;
        }
        #[cfg(feature = "mutants")]
        {
            config.mutant = self.mode.mutant;
        }
        config
    }

    pub(super) fn arrive(&mut self, n: usize, shard: u8, input: Input) {
        if let (Some(shell), Input::Call { call, request }) = (&mut self.shell, &input) {
            let (call, request) = (*call, request.clone());
            return shell.orders.push_back(Order::Call { node: n, shard, call, request });
        }
        if let Some(seat) = self.nodes[n].seats.get_mut(usize::from(shard)) {
            seat.inbox.push_back(input);
            self.poke(n, shard);
        }
    }

    fn poke(&mut self, n: usize, shard: u8) {
        let wait = self.rng.turn.below(20 * US);
        let (life, paused) = (self.nodes[n].life, self.nodes[n].paused_until);
        let seat = &mut self.nodes[n].seats[usize::from(shard)];
        if !seat.turn_waits {
            seat.turn_waits = true;
            self.heap.add((self.now + wait).max(paused), Event::Turn { node: n, shard, life });
        }
    }

    pub(super) fn wake(&mut self, n: usize, shard: u8) {
        self.nodes[n].seats[usize::from(shard)].wake_at = u64::MAX;
        self.poke(n, shard);
    }

    /// Handles some inputs, then drains the outputs.
    pub(super) fn turn(&mut self, n: usize, shard: u8) {
        let (life, paused) = (self.nodes[n].life, self.nodes[n].paused_until);
        if paused > self.now {
            return self.heap.add(paused, Event::Turn { node: n, shard, life });
        }
        let ix = usize::from(shard);
        self.nodes[n].seats[ix].turn_waits = false;
        let now = self.nodes[n].clock.now(self.now);
        let due = self.nodes[n].seats[ix].machine.poll_timeout().is_some_and(|(at, _)| at <= now.mono);
        let draw = self.rng.turn.u64();
        let first = due && draw & 1 == 0;
        if first {
            self.enter(n, shard, Input::Deadline);
        }
        for _ in 0..1 + (draw >> 8) % 16 {
            let Some(input) = self.next_input(n, ix) else { break };
            self.enter(n, shard, input);
        }
        if due && !first {
            self.enter(n, shard, Input::Deadline);
        }
        self.drain(n, shard);
        if self.mode.oracles && self.nodes[n].life == life && self.nodes[n].alive {
            self.look(n, shard);
            self.note_deleted();
        }
    }

    /// What the shard left before, if it wants that now, else what arrived. New work keeps its order.
    fn next_input(&mut self, n: usize, ix: usize) -> Option<Input> {
        let seat = &mut self.nodes[n].seats[ix];
        if let Some(at) = seat.readable() {
            return seat.held.remove(at);
        }
        loop {
            let input = seat.inbox.pop_front()?;
            let conn = conn_of(&input);
            let behind = conn.is_some() && seat.held.iter().any(|h| conn_of(h) == conn);
            if !gated(&input) || (!behind && seat.takes(&input)) {
                return Some(input);
            }
            seat.held.push_back(input);
        }
    }

    fn enter(&mut self, n: usize, shard: u8, input: Input) {
        self.handled += 1;
        self.trace.num(self.now);
        self.trace.num((n as u64) << 8 | u64::from(shard));
        self.trace.input(&input);
        if self.printing() && !matches!(input, Input::PeerFrame { .. }) {
            self.say(&format_args!("n{n}.{shard} <- {input:?}"));
        }
        let now = self.nodes[n].clock.now(self.now);
        self.nodes[n].seats[usize::from(shard)].machine.handle(now, input);
    }

    /// Takes all outputs and carries them out; the process may die between any two.
    fn drain(&mut self, n: usize, shard: u8) {
        let ix = usize::from(shard);
        let life = self.nodes[n].life;
        while let Some(output) = self.nodes[n].seats[ix].machine.poll_output() {
            self.trace.output(&output);
            if self.printing() && !matches!(output, Output::PeerFrame { .. }) {
                self.say(&format_args!("n{n}.{shard} -> {output:?}"));
            }
            self.carry_out(n, shard, output);
            if !self.nodes[n].alive || self.nodes[n].life != life {
                return;
            }
            if self.burn(n) {
                return;
            }
        }
        if self.nodes[n].seats[ix].machine.view().halted() && !self.nodes[n].exits {
            self.nodes[n].exits = true;
            self.cover.hit("halted");
            let after = self.rng.fault.below(3 * MS);
            self.later(after, Event::Exit { node: n, life });
        }
        let seat = &self.nodes[n].seats[ix];
        if !seat.inbox.is_empty() || seat.readable().is_some() {
            self.poke(n, shard);
        }
        self.set_alarm(n, shard);
    }

    /// An output was carried out; true when the process dies after it.
    pub fn burn(&mut self, n: usize) -> bool {
        let Some(left) = self.nodes[n].fuse else { return false };
        if left == 0 {
            self.cover.hit("crash mid drain");
            self.crash(n);
            return true;
        }
        self.nodes[n].fuse = Some(left - 1);
        false
    }

    /// The process ends of itself, and is started again.
    pub fn exit(&mut self, n: usize) {
        self.crash(n);
        let after = self.rng.fault.between(50 * MS, 800 * MS);
        self.later(after, Event::Boot { node: n });
    }

    fn set_alarm(&mut self, n: usize, shard: u8) {
        let node = &mut self.nodes[n];
        let seat = &mut node.seats[usize::from(shard)];
        let Some((at, _)) = seat.machine.poll_timeout() else { return };
        if at == Instant::NEVER {
            return;
        }
        let at = node.clock.when(at).max(self.now);
        if at < seat.wake_at {
            seat.wake_at = at;
            let life = node.life;
            self.heap.add(at, Event::Wake { node: n, shard, life });
        }
    }

    fn carry_out(&mut self, n: usize, shard: u8, output: Output) {
        match output {
            Output::Write { conn, frames } => self.write(conn, &frames),
            Output::Close { conn, reason } => self.close(conn, reason),
            Output::Mail { to, mail } => {
                let at = self.now + self.rng.turn.below(50 * US);
                let lane = usize::from(shard) * self.nodes[n].seats.len() + usize::from(to.0);
                let last = &mut self.nodes[n].mail_last[lane];
                *last = (*last).max(at);
                let (at, life, from) = (*last, self.nodes[n].life, ShardId(shard));
                self.heap.add(at, Event::Arrive { node: n, shard: to.0, life, input: Input::Mail { from, mail } });
            }
            Output::Start { op, effect: Effect::Persist { batch, class } } => {
                self.note_batch(n, &batch);
                self.persist(n, shard, op, &batch, class);
            }
            Output::Start { op, effect: Effect::Load(load) } => self.load(n, shard, op, load),
            Output::Answer { call, answer } => self.answered(call, answer),
            Output::PeerFrame { to, class, frame } => self.post(n, node_of(to), class, frame),
            Output::PeerReset { to, incarnation } => self.peer_reset(n, node_of(to), incarnation),
            Output::Note(note) => self.noted(n, &note),
        }
    }

    pub fn noted(&mut self, n: usize, note: &Note) {
        match note {
            Note::RaftAlarm { slot, alarm } if *alarm != Alarm::LostAck => {
                self.violation("alarm", format!("n{n} slot {}: {alarm:?}", slot.0));
            }
            Note::RaftAlarm { .. } => self.cover.hit("alarm LostAck"),
            Note::PeerBroken { node, error } => {
                self.violation("LINK", format!("n{n} cannot read what n{} sent: {error:?}", node_of(*node)));
            }
            Note::SlotRestored { at_boot: true, .. } => self.cover.hit("snapshot put in place at boot"),
            Note::SlotStopped { slot, why } => {
                self.violation("SLOT", format!("n{n} stopped slot {}: {why}", slot.0));
            }
            _ => {}
        }
    }

    /// The process dies. Of the batches that are not synced a prefix survives.
    pub fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.alive {
            return;
        }
        node.alive = false;
        node.fuse = None;
        node.standing = Standing::default();
        let disk = &mut node.storage.disk;
        let (synced, written) = (disk.synced(), disk.written());
        let kept = self.rng.disk.between(synced, written);
        disk.crash(kept);
        self.cover.hit("crash");
        if kept < written {
            self.cover.hit("crash lost batches");
        }
        if kept > synced {
            self.cover.hit("crash kept unsynced");
        }
        self.say(&format_args!("n{n} dies; batches {synced}..{written}, kept {kept}"));
        self.note_crash(n);
        self.order(Order::Kill(n));
        let seats = std::mem::take(&mut self.nodes[n].seats);
        for seat in &seats {
            self.gather(seat.machine.view().counters(), seat.machine.view().link_counters());
        }
        self.break_conns(n);
        self.hang_up(n);
        if self.mode.oracles {
            self.check_rows(n);
        }
    }

    /// Adds the counters of a shard to what was seen.
    pub(super) fn gather(
        &mut self,
        counters: &wukong_core::counters::Counters,
        links: &wukong_core::link::LinkCounters,
    ) {
        for (name, count) in counters.iter().chain(links.iter()).filter(|(_, v)| *v > 0) {
            self.cover.add_to(name, count);
        }
    }
}
