//! The server process: its shards, their turns, their clocks; crash and start.

use super::{Event, Phase, World};
use crate::history::Event as Happened;
use crate::machine::Machine;
use crate::scenario::fault::{Keep, Of};
use std::collections::VecDeque;
use wukong_core::ids::{ConnId, Incarnation, NodeId, ShardId, StoreId};
use wukong_core::rng::Seed;
use wukong_core::time::Instant;
use wukong_core::{Boot, Effect, Input, Output, ShardConfig};

/// A shard and what waits before it.
pub struct Seat<M> {
    pub machine: M,
    pub inbox: VecDeque<Input>,
    /// New work that the shard did not want yet.
    pub held: VecDeque<Input>,
    pub turn_waits: bool,
    pub wake_at: u64,
    pub paused_until: u64,
    pub halted: bool,
}

impl<M> Seat<M> {
    #[must_use]
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            inbox: VecDeque::new(),
            held: VecDeque::new(),
            turn_waits: false,
            wake_at: u64::MAX,
            paused_until: 0,
            halted: false,
        }
    }

    /// A turn may be scheduled although one waits already; the second finds nothing to do.
    pub(super) const fn allow_turn(&mut self) {
        self.turn_waits = false;
    }
}

impl<M: Machine> Seat<M> {
    /// The shard wants this now.
    pub fn takes(&self, input: &Input) -> bool {
        let bytes = match input {
            Input::ConnReceived { conn, .. } => self.machine.wants_bytes(*conn),
            _ => true,
        };
        self.machine.wants_input() && bytes
    }

    /// The first input left before that the shard wants now; those of one connection keep their order.
    pub fn readable(&self) -> Option<usize> {
        if self.held.is_empty() || !self.machine.wants_input() {
            return None;
        }
        let mut behind: Vec<ConnId> = Vec::new();
        self.held.iter().position(|i| {
            let conn = conn_of(i);
            let free = conn.is_none_or(|c| !behind.contains(&c)) && self.takes(i);
            behind.extend(conn.filter(|_| !free));
            free
        })
    }
}

/// The process of the node.
pub struct Process<M> {
    pub seats: Vec<Seat<M>>,
    pub up: bool,
    /// Counts starts; the incarnation.
    pub life: u64,
    pub stopping: bool,
    /// When mail of each pair of shards arrived last, so that it stays in order.
    mail_last: Vec<u64>,
    /// Pushes on their way between shards, per channel number of `truth`: lowest seqs.
    pub pushes: Vec<(crate::history::ChannelIx, u64)>,
    pub exit_pending: bool,
}

impl<M> Default for Process<M> {
    fn default() -> Self {
        Self {
            seats: Vec::new(),
            up: false,
            life: 0,
            stopping: false,
            mail_last: Vec::new(),
            pushes: Vec::new(),
            exit_pending: false,
        }
    }
}

/// A crash that waits for its moment.
#[derive(Clone, Copy, Debug)]
pub struct Armed {
    pub id: u64,
    pub of: Of,
    pub left: u32,
    pub keep: Keep,
    pub down: u64,
}

impl<M: Machine> World<M> {
    pub(super) const fn lives(&self, life: u64) -> bool {
        self.process.up && self.process.life == life
    }

    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.process.up
    }

    #[must_use]
    pub const fn life(&self) -> u64 {
        self.process.life
    }

    #[must_use]
    pub fn looks(&self) -> Vec<crate::machine::Look> {
        self.process.seats.iter().map(|s| s.machine.look()).collect()
    }

    pub(super) fn boot(&mut self) {
        let life = self.process.life + 1;
        self.clock.restart(self.now);
        let now = self.clock.now(self.now);
        let shards = self.sc.node.shards;
        let mut seats = Vec::with_capacity(usize::from(shards));
        for shard in 0..shards {
            let seed = self.seed_of(shard, life);
            let boot = Boot { store: StoreId(u128::from(self.sc.seed) | 1 << 64), incarnation: Incarnation(life) };
            match M::start(self.shard_config(shard), boot, seed, now) {
                Ok(machine) => seats.push(Seat::new(machine)),
                Err(e) => self.violation("BOOT", format!("the shard refused to start: {e}")),
            }
        }
        let n = usize::from(shards);
        self.process = Process { seats, up: true, life, mail_last: vec![0; n * n], ..Process::default() };
        self.storage.restart();
        self.truth.restart();
        self.seen.starts += 1;
        self.happened(Happened::Boot { incarnation: life });
        for shard in 0..shards {
            self.poke(shard);
        }
        if self.sc.time.lazy.0 > 0 {
            self.later(self.sc.time.lazy.0, Event::LazySync { life });
        }
    }

    fn seed_of(&self, shard: u8, life: u64) -> Seed {
        let mut keys = crate::rng::Rng::fork(self.sc.seed, "keys", life << 8 | u64::from(shard));
        let mut jitter = crate::rng::Rng::fork(self.sc.seed, "jitter", life << 8 | u64::from(shard));
        Seed { keys: keys.bytes32(), jitter: jitter.bytes32() }
    }

    fn shard_config(&self, shard: u8) -> ShardConfig {
        use crate::scenario::Size;
        let node = &self.sc.node;
        let mut config = ShardConfig {
            node: NodeId(7),
            shard: ShardId(shard),
            shards: node.shards,
            slots: node.slots,
            token_auth: node.tokens,
            hash_salt: node.hash,
            ..ShardConfig::default()
        };
        match node.overlay {
            Size::Zero => config.overlay_rows_max = 0,
            Size::Small => config.overlay_rows_max = 3,
            Size::Large => {}
        }
        match node.dedup {
            Size::Zero => config.dedup_bytes_max = 0,
            Size::Small => config.dedup_bytes_max = 512,
            Size::Large => {}
        }
        match node.credit {
            Size::Zero => config.mail_credit = wukong_core::limits::CONNS_PER_UID,
            Size::Small => config.mail_credit = 200,
            Size::Large => {}
        }
        #[cfg(feature = "mutants")]
        {
            config.mutant = self.mode.mutant;
        }
        config
    }

    /// An input arrives; the shard handles it in its next turn.
    pub(crate) fn arrive(&mut self, shard: u8, input: Input) {
        if let Some(seat) = self.process.seats.get_mut(usize::from(shard)) {
            seat.inbox.push_back(input);
            self.poke(shard);
        }
    }

    /// Makes sure that a turn is coming.
    pub(super) fn poke(&mut self, shard: u8) {
        let (from, to) = self.sc.time.turn;
        let wait = if to == 0 { 0 } else { self.rng.turn.between(from, to) };
        let life = self.process.life;
        let seat = &mut self.process.seats[usize::from(shard)];
        if !seat.turn_waits {
            seat.turn_waits = true;
            let at = (self.now + wait).max(seat.paused_until);
            self.heap.add(at, Event::Turn { shard, life });
        }
    }

    pub(super) fn wake(&mut self, shard: u8) {
        self.process.seats[usize::from(shard)].wake_at = u64::MAX;
        self.poke(shard);
    }

    /// Handles a seeded number of inputs, then drains the outputs.
    pub(super) fn turn(&mut self, shard: u8) {
        let ix = usize::from(shard);
        let paused = self.process.seats[ix].paused_until;
        if paused > self.now {
            let life = self.process.life;
            self.heap.add(paused, Event::Turn { shard, life });
            return;
        }
        self.process.seats[ix].turn_waits = false;
        let now = self.clock.now(self.now);
        let due = self.process.seats[ix].machine.poll_timeout().is_some_and(|(at, _)| at <= now.mono);
        let most = u64::from(self.sc.time.inputs);
        let mut left = if most > 1 { self.rng.turn.between(1, most) } else { 1 };
        // A deadline that is due comes before or after what arrived; sometimes one comes early.
        let draw = self.rng.turn.below(64);
        let first = due && draw & 1 == 0;
        if first || draw == 63 {
            self.enter(shard, Input::Deadline);
        }
        while left > 0 {
            let Some(input) = self.next_input(shard) else { break };
            self.enter(shard, input);
            left -= 1;
        }
        if due && !first {
            self.enter(shard, Input::Deadline);
        }
        self.drain(shard);
    }

    /// What the shard reads next: what it left in a socket before, if it wants that now, else what arrived.
    fn next_input(&mut self, shard: u8) -> Option<Input> {
        let ix = usize::from(shard);
        if let Some(at) = self.process.seats[ix].readable() {
            let input = self.process.seats[ix].held.remove(at)?;
            if let Some(conn) = conn_of(&input) {
                self.links[conn.0 as usize].held -= 1;
            }
            return Some(input);
        }
        loop {
            let seat = &mut self.process.seats[ix];
            let input = seat.inbox.pop_front()?;
            if !gated(&input) {
                return Some(input);
            }
            let link = conn_of(&input).map(|c| c.0 as usize);
            let behind = link.is_some_and(|l| self.links[l].held > 0);
            if seat.takes(&input) && !behind {
                return Some(input);
            }
            seat.held.push_back(input);
            if let Some(l) = link {
                self.links[l].held += 1;
            }
            self.seen.held_inputs += 1;
        }
    }

    /// One input enters a machine: the unit in which runs are measured.
    fn enter(&mut self, shard: u8, input: Input) {
        self.handled += 1;
        self.trace.num(self.now);
        self.trace.num(u64::from(shard));
        self.trace.input(&input);
        if let Some((from, to)) = self.mode.print
            && (from..=to).contains(&self.handled)
        {
            println!("{} {} shard {shard} <- {input:?}", self.handled, self.now);
        }
        if self.mode.checkpoints > 0 && self.handled.is_multiple_of(self.mode.checkpoints) {
            self.checkpoints.push(self.trace.value());
        }
        self.note_input(shard, &input);
        let now = self.clock.now(self.now);
        self.process.seats[usize::from(shard)].machine.handle(now, input);
    }

    /// Takes all outputs and carries them out; a crash may come between any two.
    fn drain(&mut self, shard: u8) {
        let ix = usize::from(shard);
        let life = self.process.life;
        while let Some(output) = self.process.seats[ix].machine.poll_output() {
            self.trace.output(&output);
            if let Some((from, to)) = self.mode.print
                && (from..=to).contains(&self.handled)
            {
                println!("{} {} shard {shard} -> {output:?}", self.handled, self.now);
            }
            let kind = kind_of(&output);
            self.carry_out(shard, output);
            self.countdown(kind);
            if !self.lives(life) {
                return;
            }
        }
        let seat = &mut self.process.seats[ix];
        if seat.machine.look().halted && !seat.halted {
            seat.halted = true;
            self.happened(Happened::Halted { shard });
            self.exit_soon();
        }
        let seat = &self.process.seats[ix];
        if !seat.inbox.is_empty() || seat.readable().is_some() {
            self.poke(shard);
        }
        self.set_alarm(shard);
        if self.process.stopping && self.process.seats.iter().all(|s| s.machine.look().stopped) {
            self.exit_soon();
        }
    }

    fn set_alarm(&mut self, shard: u8) {
        let seat = &mut self.process.seats[usize::from(shard)];
        let Some((at, _)) = seat.machine.poll_timeout() else { return };
        if at == Instant::NEVER {
            return;
        }
        let at = self.clock.when(at).max(self.now);
        if at < seat.wake_at {
            seat.wake_at = at;
            let life = self.process.life;
            self.heap.add(at, Event::Wake { shard, life });
        }
    }

    fn carry_out(&mut self, shard: u8, output: Output) {
        match output {
            Output::Write { conn, frames } => self.write(conn, &frames),
            Output::Close { conn, reason } => self.close(conn, reason),
            Output::Mail { to, mail } => self.mail(shard, to, mail),
            Output::Start { op, effect: Effect::Persist { batch, class } } => self.persist(shard, op, &batch, class),
            Output::Start { op, effect: Effect::Load(load) } => self.load(shard, op, load),
            Output::Answer { call, answer } => self.answered(call, answer),
            Output::PeerFrame { .. } | Output::PeerReset { .. } => panic!("one node has no peers"),
            Output::Note(_) => {}
        }
    }

    fn mail(&mut self, from: u8, to: ShardId, mail: wukong_core::event::mail::Mail) {
        let (low, high) = self.sc.time.mail;
        let at = self.now + self.rng.mail.between(low, high);
        let lane = usize::from(from) * self.process.seats.len() + usize::from(to.0);
        let Some(last) = self.process.mail_last.get_mut(lane) else {
            self.violation("MAIL", format!("shard {from} wrote to shard {to}, which does not exist"));
            return;
        };
        *last = (*last).max(at);
        let at = *last;
        self.push_departs(&mail);
        let life = self.process.life;
        let input = Input::Mail { from: ShardId(from), mail };
        self.heap.add(at, Event::Arrive { shard: to.0, life, input });
    }

    fn countdown(&mut self, kind: Option<Of>) {
        let Some(armed) = &mut self.armed else { return };
        if armed.of != Of::Outputs && kind != Some(armed.of) {
            return;
        }
        if armed.left > 0 {
            armed.left -= 1;
            return;
        }
        self.seen.crash_mid_drain += 1;
        self.crash_armed();
    }

    /// Syncs and acks are no outputs of their own; whoever sees one says so.
    pub(super) fn countdown_of(&mut self, of: Of) {
        if self.armed.is_some_and(|a| a.of == of) {
            self.countdown(Some(of));
        }
    }

    pub(super) fn crash_armed(&mut self) {
        if let Some(armed) = self.armed.take() {
            self.crash(armed.keep, armed.down);
        }
    }

    /// The process dies; a prefix of whole batches survives.
    pub(super) fn crash(&mut self, keep: Keep, down: u64) {
        if !self.process.up {
            return;
        }
        let (synced, written) = (self.storage.disk.synced(), self.storage.disk.written());
        let kept = match keep {
            Keep::Synced => synced,
            Keep::All => written,
            Keep::Some => self.rng.disk.between(synced, written),
        };
        self.seen.crashes += 1;
        if written > synced {
            self.seen.crash_with_unsynced += 1;
        }
        if kept < written {
            self.seen.crash_lost_batches += 1;
        }
        if kept > synced {
            self.seen.crash_kept_unsynced += 1;
        }
        self.storage.disk.crash(kept);
        self.process_ends(kept, down);
    }

    fn process_ends(&mut self, kept: u64, down: u64) {
        self.happened(Happened::Crash { kept });
        self.process.up = false;
        for seat in std::mem::take(&mut self.process.seats) {
            self.seen.add_counters(seat.machine.counters());
        }
        self.break_all_links();
        self.lose_calls();
        self.armed = None;
        let life = self.process.life;
        self.later(down.max(1), Event::Boot { life });
    }

    /// The process will end of itself within milliseconds: it halted, or stopped.
    fn exit_soon(&mut self) {
        if !self.process.exit_pending {
            self.process.exit_pending = true;
            let life = self.process.life;
            let after = self.rng.fault.between(0, 3_000_000);
            self.later(after, Event::Exit { life });
        }
    }

    pub(super) fn exit(&mut self) {
        let down = self.rng.fault.between(50_000_000, 2_000_000_000);
        if self.process.stopping {
            self.seen.stops += 1;
            let unsynced = self.storage.disk.written() - self.storage.disk.synced();
            if unsynced > 0 && self.phase < Phase::Checking {
                self.seen.stop_with_unsynced += 1;
            }
        } else {
            self.seen.halts += 1;
        }
        self.crash(Keep::Some, down);
    }

    pub(crate) fn shards_up(&self) -> u8 {
        self.process.seats.len() as u8
    }

    pub(super) fn stop_all(&mut self) {
        self.process.stopping = true;
        for shard in 0..self.shards_up() {
            self.arrive(shard, Input::Stop);
        }
    }

    pub(super) fn pause(&mut self, shard: u8, until: u64) {
        if let Some(seat) = self.process.seats.get_mut(usize::from(shard)) {
            seat.paused_until = seat.paused_until.max(until);
        }
    }

    pub(super) fn gather_counters(&mut self) {
        for seat in &self.process.seats {
            self.seen.add_counters(seat.machine.counters());
        }
    }

    /// Drops what waits for a connection that broke: the bytes in the kernel are gone.
    pub(super) fn forget_held(&mut self, shard: u8, conn: wukong_core::ids::ConnId) {
        if let Some(seat) = self.process.seats.get_mut(usize::from(shard)) {
            let of = |i: &Input| matches!(i, Input::ConnReceived { conn: c, .. } if *c == conn);
            let before = seat.held.len();
            seat.held.retain(|i| !of(i));
            self.links[conn.0 as usize].held -= (before - seat.held.len()) as u32;
            // Later bytes make no sense without the earlier ones.
            seat.inbox.retain(|i| !of(i));
        }
    }
}

/// New work, and the end of a connection, which a shell notices when it reads.
pub(crate) const fn gated(input: &Input) -> bool {
    input.is_new_work() || matches!(input, Input::ConnClosed { .. })
}

pub(crate) const fn conn_of(input: &Input) -> Option<ConnId> {
    match input {
        Input::ConnOpened { conn, .. } | Input::ConnReceived { conn, .. } | Input::ConnClosed { conn, .. } => {
            Some(*conn)
        }
        _ => None,
    }
}

const fn kind_of(output: &Output) -> Option<Of> {
    match output {
        Output::Start { effect: Effect::Persist { .. }, .. } => Some(Of::Persists),
        Output::Mail { .. } => Some(Of::Mails),
        _ => None,
    }
}
