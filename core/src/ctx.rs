//! What the machines of a shard share: outputs, the batch being gathered, effects in flight, timers, mail credit.

use crate::counters::Counters;
use crate::error::StoreFault;
use crate::event::mail::{Mail, Reply, Work, WorkClass};
use crate::ids::{ChannelKey, ConnId, Incarnation, NodeId, OpId, PeerProcess, ShardId, SlotId, StoreId, slot_of};
use crate::input::Completion;
use crate::limits;
use crate::link::{self, Group, Item, Links};
use crate::map::{BTreeSet, Map, hasher};
use crate::mutants::Mutant;
use crate::note::Note;
use crate::output::{Effect, Output, PersistClass};
use crate::raft::config::Replica;
use crate::raft::core::{Bounds, GroupConfig, Mode, Report, Timing};
use crate::raft::journal::Token;
use crate::raft::message::Envelope;
use crate::rng::Stream;
use crate::shard::{Boot, ShardConfig, TimerKind};
use crate::store::rows::Assignment;
use crate::store::{Found, Load, Query, WriteBatch};
use crate::time::{Instant, Now};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// Who is told when a batch is durable. A machine's batches complete in the order in which it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersistWaiter {
    /// A write of the slot's group.
    SlotGroup(u16, Token),
    /// Rows a slot machine applied.
    SlotApplied(u16),
    /// A chunk of a slot's snapshot was put aside: the snapshot's id, and whether it is whole now.
    SlotChunk(u16, u64, bool),
    /// Rows of a snapshot were put in place.
    SlotRestored(u16),
    /// Nobody: only the sync matters.
    SyncOnly,
    /// A write of the channel's group: index of the channel, and number of its replica.
    ChannelGroup(u32, u64, Token),
    IdBlock,
}

/// Who asked a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadWaiter {
    SlotBoot(u16),
    /// Entries that are not applied, from this index on.
    SlotEntries(u16, u64),
    SlotDirty(u16),
    /// Entries for a follower: the group's number of the request.
    SlotLog(u16, u64),
    /// Rows that queued slot commands read.
    SlotRows(u16, u64),
    /// A page of the snapshot that a slot sends: the snapshot's id, and the offset of the chunk.
    SlotSnapshot(u16, u64, u64),
    /// Rows of a snapshot that wait aside.
    SlotAside(u16),
    /// A device row for a CONNECT or an API call: user machine's ticket.
    UserAuth(u64),
    /// Index and activation of the channel.
    ChannelHead(u32, u64),
    /// What the slot's tables say of it.
    ChannelFacts(u32, u64),
    ChannelLog(u32, u64),
    /// What recipients may lack: index of the channel, and number of its replica.
    ChannelArrears(u32, u64),
    /// The same, and the group's number of the request: entries for a follower.
    ChannelEntries(u32, u64, u64),
    /// Index and activation of the channel, and its number of the load.
    ChannelDedup(u32, u64, u64),
    /// Rows that belong to nobody any more.
    Doomed,
    /// Head rows that are compared: the number of the read.
    Audit(u64),
    Read(u64),
    Memberships(u64),
    IdBlock,
}

/// A machine that has something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunKey {
    Conn(ConnId),
    /// The credit it waited for came.
    ConnCredited(ConnId),
    User(u32),
    Channel(u32),
    /// The credit it waited for came.
    ChannelCredited(u32),
    Lane(u32),
    Retry,
}

/// A machine's deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Conn(ConnId),
    Retry,
    Channel(u32),
    /// A slot's reads that are tried again.
    Slot(u16),
    Calls,
    /// Rows that belong to nobody any more, and could not be read.
    Doomed,
    Audit,
    Stop,
}

impl Timer {
    const fn kind(self) -> TimerKind {
        match self {
            Self::Conn(_) => TimerKind::Conn,
            Self::Retry => TimerKind::Retry,
            Self::Channel(_) | Self::Doomed | Self::Audit => TimerKind::Channel,
            Self::Slot(_) => TimerKind::Slot,
            Self::Calls => TimerKind::Call,
            Self::Stop => TimerKind::Stop,
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Persist(Vec<PersistWaiter>),
    /// Waiters and how many answers each takes.
    Load(Vec<(LoadWaiter, usize)>),
}

/// What a completion means to the machines.
#[derive(Debug)]
pub enum Done {
    Persisted(Vec<PersistWaiter>),
    Loaded(Vec<(LoadWaiter, Vec<Found>)>),
    Failed(StoreFault),
    LoadFailed(Vec<LoadWaiter>, StoreFault),
    Late,
}

#[derive(Clone, Debug, Default)]
struct Account {
    credit: usize,
    owed_back: u32,
    waiting: VecDeque<RunKey>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Ctx {
    pub config: ShardConfig,
    pub store: StoreId,
    pub incarnation: Incarnation,
    pub now: Now,
    pub counters: Counters,
    pub halted: bool,
    /// Mail to this shard itself, handled within the turn.
    pub local: VecDeque<Mail>,
    pub run: VecDeque<RunKey>,
    pub links: Links,
    /// What the frame at hand holds; kept for its memory.
    pub link_items: Vec<Item>,
    link_out: Vec<link::Output>,
    /// Outputs of the replica that is being stepped; kept for its memory.
    pub raft_out: VecDeque<crate::raft::core::Output>,
    /// For election jitter.
    jitter: Stream,
    /// Connections with frames to flush.
    pub dirty_conns: Vec<ConnId>,
    /// Channels with events to append at the end of the turn.
    pub flush_channels: Vec<u32>,
    out: VecDeque<Output>,
    batch: WriteBatch,
    batch_sync: bool,
    batch_waiters: Vec<PersistWaiter>,
    load_queries: Vec<Query>,
    load_waiters: Vec<(LoadWaiter, usize)>,
    ops: Map<OpId, Op>,
    loads_in_flight: usize,
    persists_in_flight: VecDeque<OpId>,
    next_op: u64,
    timers: BTreeSet<(Instant, Timer)>,
    /// By shard, then by class of work.
    accounts: Vec<[Account; 4]>,
}

impl Ctx {
    pub fn new(config: ShardConfig, boot: Boot, now: Now, hash_seed: u64, jitter: Stream) -> Self {
        let account = WorkClass::ALL.map(|class| {
            let max = if class == WorkClass::Push { limits::LANE_QUEUE_MAX } else { usize::MAX };
            Account { credit: config.mail_credit.min(max), ..Account::default() }
        });
        let accounts = alloc::vec![account; usize::from(config.shards)];
        let me = Replica { node: config.node, store: boot.store };
        let links =
            Links::new(me, boot.incarnation, config.cluster, config.shards, config.shard).with_pause(config.link_pause);
        Self {
            config,
            store: boot.store,
            incarnation: boot.incarnation,
            now,
            counters: Counters::default(),
            halted: false,
            local: VecDeque::new(),
            run: VecDeque::new(),
            links,
            link_items: Vec::new(),
            link_out: Vec::new(),
            raft_out: VecDeque::new(),
            jitter,
            dirty_conns: Vec::new(),
            flush_channels: Vec::new(),
            out: VecDeque::new(),
            batch: WriteBatch::new(),
            batch_sync: false,
            batch_waiters: Vec::new(),
            load_queries: Vec::new(),
            load_waiters: Vec::new(),
            ops: Map::with_hasher(hasher(hash_seed)),
            loads_in_flight: 0,
            persists_in_flight: VecDeque::new(),
            next_op: 1,
            timers: BTreeSet::new(),
            accounts,
        }
    }

    /// Whether a planted bug is switched on; constant `false` in every build but `make mutants`.
    #[inline]
    #[must_use]
    #[allow(clippy::missing_const_for_fn, unused_variables, clippy::unused_self)]
    pub fn mutant(&self, m: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        return self.config.mutant == Some(m);
        #[cfg(not(feature = "mutants"))]
        false
    }

    pub const fn me(&self) -> ShardId {
        self.config.shard
    }

    // ---- replication

    /// This process as a member of groups.
    pub const fn replica(&self) -> Replica {
        Replica { node: self.config.node, store: self.store }
    }

    pub fn jitter(&mut self) -> u64 {
        self.jitter.u64()
    }

    /// What all groups of a mode share.
    pub fn group_config(&self, mode: Mode) -> GroupConfig {
        let timing = Timing { settle_idle: limits::SETTLE_IDLE, ..Timing::default() };
        let tail = match mode {
            Mode::Elected => limits::SLOT_TAIL_BYTES,
            Mode::Assigned => limits::CHANNEL_TAIL_BYTES,
        };
        let bounds = Bounds { uncommitted: limits::UNCOMMITTED_BYTES_MAX, tail, ..Bounds::default() };
        GroupConfig {
            me: self.replica(),
            incarnation: self.incarnation,
            mode,
            timing,
            bounds,
            lease: false,
            preferred: false,
            seed: 0,
            mutant: None,
        }
    }

    /// A message of a replica to another one. It may be lost.
    pub fn post(&mut self, slot: SlotId, channel: Option<(&ChannelKey, u64)>, envelope: Envelope) {
        let group = channel
            .map_or(Group::Slot(slot), |(channel, generation)| Group::Channel { channel: channel.clone(), generation });
        self.links.send(envelope.to.node, slot, Item::Group { group, envelope });
    }

    pub fn post_assign(&mut self, to: Replica, channel: &ChannelKey, assignment: Arc<Assignment>) {
        let slot = slot_of(&channel.id, self.config.slots);
        self.links.send(to.node, slot, Item::Assign { channel: channel.clone(), assignment });
    }

    pub fn post_handover(&mut self, leader: Replica, channel: &ChannelKey, generation: u64, target: Replica) {
        let slot = slot_of(&channel.id, self.config.slots);
        self.links.send(leader.node, slot, Item::Handover { channel: channel.clone(), generation, target });
    }

    pub fn post_report(&mut self, to: Replica, channel: &ChannelKey, generation: u64, report: Report) {
        let slot = slot_of(&channel.id, self.config.slots);
        let from = self.replica();
        self.links.send(to.node, slot, Item::Report { channel: channel.clone(), generation, from, report });
    }

    /// The process of a node to which a link is open.
    pub fn peer(&self, node: NodeId) -> Option<&PeerProcess> {
        self.links.process(node)
    }

    /// Whether that process is this one, or one to which a link is open.
    pub fn runs(&self, r: Replica, incarnation: Incarnation) -> bool {
        if r == self.replica() {
            return incarnation == self.incarnation;
        }
        self.peer(r.node).is_some_and(|p| p.store == r.store && p.incarnation == incarnation)
    }

    /// What was said to peers since the last drain leaves, as far as there is credit.
    pub fn flush_links(&mut self) {
        let mut out = core::mem::take(&mut self.link_out);
        self.links.flush(self.now.mono, &mut out);
        for output in out.drain(..) {
            self.push(match output {
                link::Output::Frame { to, class, frame } => Output::PeerFrame { to, class, frame },
                link::Output::Reset { node, incarnation } => Output::PeerReset { to: node, incarnation },
            });
        }
        self.link_out = out;
    }

    // ---- outputs

    pub fn push(&mut self, output: Output) {
        self.out.push_back(output);
    }

    pub fn note(&mut self, note: Note) {
        self.out.push_back(Output::Note(note));
    }

    pub fn pop(&mut self) -> Option<Output> {
        if !self.halted {
            return self.out.pop_front();
        }
        // After a failed write nothing but notes may leave: no promise can be kept.
        while let Some(output) = self.out.pop_front() {
            if matches!(output, Output::Note(_)) {
                return Some(output);
            }
        }
        None
    }

    pub fn outputs_waiting(&self) -> usize {
        self.out.len()
    }

    // ---- writes

    /// The batch being gathered; it leaves when outputs are drained.
    pub fn batch(&mut self) -> &mut WriteBatch {
        &mut self.batch
    }

    /// Tells `waiter` when the current batch is durable.
    pub fn persist(&mut self, waiter: PersistWaiter, class: PersistClass) {
        self.batch_waiters.push(waiter);
        self.batch_sync |= class == PersistClass::Sync;
    }

    /// Adds queries that are answered together, as one batch with everyone else's of this turn.
    pub fn load(&mut self, waiter: LoadWaiter, queries: impl IntoIterator<Item = Query>) {
        let before = self.load_queries.len();
        self.load_queries.extend(queries);
        self.load_waiters.push((waiter, self.load_queries.len() - before));
    }

    /// Sends what was gathered to the store: writes first, so that loads see them.
    pub fn flush_store(&mut self) {
        if !self.batch.is_empty() {
            // The next batch is likely to be as large.
            let next = WriteBatch::with_capacity(self.batch.bytes().min(limits::BATCH_RESERVE_MAX));
            let batch = core::mem::replace(&mut self.batch, next);
            let mut waiters = core::mem::take(&mut self.batch_waiters);
            let class = if self.batch_sync { PersistClass::Sync } else { PersistClass::Lazy };
            self.batch_sync = false;
            self.counters.persists += 1;
            self.counters.persisted_bytes += batch.bytes() as u64;
            if self.mutant(Mutant::TokenCompletesEarlier)
                && let Some(Op::Persist(earlier)) = self.persists_in_flight.back().and_then(|op| self.ops.get_mut(op))
            {
                earlier.append(&mut waiters);
            }
            let op = self.start(Op::Persist(waiters));
            self.persists_in_flight.push_back(op);
            self.push(Output::Start { op, effect: Effect::Persist { batch, class } });
        }
        while !self.load_waiters.is_empty() && self.loads_in_flight < limits::LOADS_MAX {
            let (mut take, mut queries) = (0, 0);
            // Look-ups of keys go by themselves: they need not wait for this turn's writes.
            let is_lookup = |w: &LoadWaiter| matches!(w, LoadWaiter::ChannelDedup(..));
            let lookups = is_lookup(&self.load_waiters[0].0);
            for (waiter, n) in &self.load_waiters {
                if take > 0 && (queries + n > limits::LOAD_POINTS_MAX || is_lookup(waiter) != lookups) {
                    break;
                }
                take += 1;
                queries += n;
            }
            let rest = self.load_queries.split_off(queries);
            let queries = core::mem::replace(&mut self.load_queries, rest);
            let rest = self.load_waiters.split_off(take);
            let waiters = core::mem::replace(&mut self.load_waiters, rest);
            self.counters.loads += 1;
            self.loads_in_flight += 1;
            let op = self.start(Op::Load(waiters));
            self.push(Output::Start { op, effect: Effect::Load(Load { queries }) });
        }
    }

    fn start(&mut self, op: Op) -> OpId {
        let id = OpId(self.next_op);
        self.next_op += 1;
        self.ops.insert(id, op);
        id
    }

    /// Matches a completion with the operation it ends.
    pub fn complete(&mut self, op: OpId, completion: Completion) -> Done {
        match (self.ops.remove(&op), completion) {
            (Some(Op::Persist(waiters)), Completion::Persisted(result)) => {
                self.persists_in_flight.retain(|p| *p != op);
                match result {
                    Ok(()) => Done::Persisted(waiters),
                    Err(fault) => Done::Failed(fault),
                }
            }
            (Some(Op::Load(waiters)), Completion::Loaded(result)) => {
                self.loads_in_flight -= 1;
                match result {
                    Ok(found) => {
                        let mut found = found.into_iter();
                        Done::Loaded(waiters.into_iter().map(|(w, n)| (w, found.by_ref().take(n).collect())).collect())
                    }
                    Err(fault) => Done::LoadFailed(waiters.into_iter().map(|(w, _)| w).collect(), fault),
                }
            }
            (taken, _) => {
                // Answered twice, or with the wrong kind: the shell's error, harmless if dropped.
                if let Some(op_state) = taken {
                    self.ops.insert(op, op_state);
                }
                self.counters.late_completions += 1;
                Done::Late
            }
        }
    }

    /// Nothing waits for the store.
    pub fn store_idle(&self) -> bool {
        self.persists_in_flight.is_empty() && self.batch.is_empty()
    }

    // ---- timers

    /// Moves a timer: `armed` is where the machine remembers its current instant (`NEVER` = not armed).
    pub fn arm(&mut self, timer: Timer, armed: &mut Instant, at: Instant) {
        if *armed == at {
            return;
        }
        if *armed != Instant::NEVER {
            self.timers.remove(&(*armed, timer));
        }
        *armed = at;
        if at != Instant::NEVER {
            self.timers.insert((at, timer));
        }
    }

    pub fn next_timeout(&self) -> Option<(Instant, TimerKind)> {
        let timer = self.timers.first().map(|(at, t)| (*at, t.kind()));
        let link = self.links.deadline().max(self.now.mono);
        match timer {
            Some((at, _)) if at <= link => timer,
            _ if link == Instant::NEVER => timer,
            _ => Some((link, TimerKind::Link)),
        }
    }

    /// The next timer that is due, removed.
    pub fn due(&mut self) -> Option<Timer> {
        let (at, _) = *self.timers.first()?;
        (at <= self.now.mono).then(|| self.timers.pop_first().map(|(_, t)| t))?
    }

    // ---- mail

    fn account(&mut self, shard: ShardId, class: WorkClass) -> &mut Account {
        &mut self.accounts[usize::from(shard.0)][class as usize]
    }

    /// Whether work for `to` may be sent now.
    pub fn has_credit(&self, to: ShardId, class: WorkClass) -> bool {
        self.credit(to, class) > 0
    }

    /// How much work may be sent to `to` now.
    pub fn credit(&self, to: ShardId, class: WorkClass) -> usize {
        self.accounts[usize::from(to.0)][class as usize].credit
    }

    /// Runs `key` again when `to` has credit.
    pub fn wait_credit(&mut self, to: ShardId, class: WorkClass, key: RunKey) {
        self.counters.mail_waits += 1;
        self.account(to, class).waiting.push_back(key);
    }

    /// Sends work; the caller has checked `has_credit`.
    pub fn work(&mut self, to: ShardId, work: Work) {
        let account = self.account(to, work.class());
        account.credit = account.credit.saturating_sub(1);
        self.mail(to, Mail::Work(work));
    }

    /// Sends an answer, which is never refused.
    pub fn reply(&mut self, to: ShardId, reply: Reply) {
        self.mail(to, Mail::Reply(reply));
    }

    fn mail(&mut self, to: ShardId, mail: Mail) {
        if to == self.config.shard {
            self.local.push_back(mail);
        } else {
            self.counters.mail_out += 1;
            self.push(Output::Mail { to, mail });
        }
    }

    /// Work from `from` is dealt with: its credit goes back at the end of the turn.
    pub fn work_done(&mut self, from: ShardId, class: WorkClass) {
        self.account(from, class).owed_back += 1;
    }

    /// Credit came back.
    pub fn credited(&mut self, from: ShardId, class: WorkClass, count: u32) {
        let account = &mut self.accounts[usize::from(from.0)][class as usize];
        account.credit += count as usize;
        self.run.extend(account.waiting.drain(..));
    }

    /// Returns this shard's own credits to itself; true when some machine may go on.
    pub fn flush_credit_self(&mut self) -> bool {
        let me = self.config.shard;
        for class in WorkClass::ALL {
            let n = core::mem::take(&mut self.account(me, class).owed_back);
            if n > 0 {
                self.credited(me, class, n);
            }
        }
        !self.run.is_empty()
    }

    /// Returns the other shards' credits.
    pub fn flush_credit_out(&mut self) {
        for i in 0..self.accounts.len() {
            let to = ShardId(i as u8);
            if to == self.config.shard {
                continue;
            }
            for class in WorkClass::ALL {
                let count = core::mem::take(&mut self.account(to, class).owed_back);
                if count > 0 {
                    self.counters.mail_out += 1;
                    self.push(Output::Mail { to, mail: Mail::Credit { class, count } });
                }
            }
        }
    }
}
