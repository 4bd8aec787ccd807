//! The slots of this shard: each a replication group whose log feeds a state machine with tables in `meta`. Here: commands, reads
//! and applying; [`super::group`] drives the group.

use super::command::{Command, Outcome};
use super::install::Restoring;
use super::overlay::Overlay;
use super::snapshot::{Ask, Outgoing};
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter, Timer};
use crate::error::StoreFault;
use crate::ids::{ChannelKey, PeerProcess, SlotId, shard_of};
use crate::limits;
use crate::map::BTreeMap;
use crate::mutants::Mutant;
use crate::note::Note;
use crate::output::PersistClass;
use crate::raft::config::Replica;
use crate::raft::core::{GroupCore, Input};
use crate::raft::journal::Token;
use crate::raft::message::Envelope;
use crate::store::rows::{Applied, Counter, Format};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

/// Who is told what a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// Nobody: the command repairs or records something.
    Nobody,
    /// An API call.
    Call(u64),
    /// A channel that wants its assignment.
    Channel { index: u32, activation: u64 },
    /// Whatever this node has of a channel, up to this generation: it was deleted.
    Deleted { channel: ChannelKey, generation: u64 },
    /// A channel, here or on another shard, that wants a user's membership row.
    Membership { from: crate::ids::ShardId, index: u32, activation: u64, uid: Text },
}

/// An entry appended and not applied.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub index: u64,
    command: Command,
    pub keys: Vec<Bytes>,
    /// The proposal of this process that made it, and who asked.
    pub proposal: u64,
    pub waiter: Waiter,
}

/// Where a slot is on its way to serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its log and what it applied are being read.
    Loading,
    /// Its replica takes part.
    Running,
    /// It leads, and has applied everything of older epochs.
    Serving,
    /// A damaged row or unknown command: this slot serves nothing more, the others go on.
    Stopped,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub id: SlotId,
    pub stage: Stage,
    /// When it last began to serve.
    pub serving_since: Instant,
    /// None while loading.
    pub group: Option<Box<GroupCore>>,
    /// Whether somebody is known to lead, or nobody ever will: what the start of the shard waits for.
    pub known: bool,
    pub applied: u64,
    pub next_channel_no: u64,
    pub(super) overlay: Overlay,
    pub(super) queue: VecDeque<Pending>,
    /// The command being proposed, until the group takes it.
    pub(super) proposing: Option<(Command, Waiter)>,
    pub(super) proposals: u64,
    /// Persists in flight that carry applied rows: applied index and the rows' keys.
    in_flight: VecDeque<(u64, Vec<Bytes>)>,
    loads: BTreeMap<u64, Vec<Bytes>>,
    next_load: u64,
    /// Reads that the store could not answer, tried again by the timer.
    pub(super) again: Vec<Again>,
    again_at: Instant,
    timer_at: Instant,
    /// What the replica asked for in the step under way.
    pub(super) asks: VecDeque<Ask>,
    /// A snapshot being sent.
    pub(super) outgoing: Option<Outgoing>,
    /// A snapshot being put in place.
    pub(super) restoring: Option<Restoring>,
    /// First entry of the page being read at boot, and last key of the dirty page before.
    pub entries_from: u64,
    /// Entries were cut since that page was asked for.
    pub cut: bool,
    pub dirty_after: Option<Bytes>,
}

/// A read to repeat.
#[derive(Clone, Debug)]
pub(super) enum Again {
    Boot,
    Entries,
    Dirty,
    Rows(Vec<Bytes>),
    /// Rows of a snapshot.
    Aside,
}

/// All slots of one shard.
#[derive(Clone, Debug)]
pub struct Slots {
    pub(super) slots: BTreeMap<u16, Slot>,
    /// Commands applied since the last drain.
    pub done: VecDeque<(Waiter, Outcome)>,
    /// Slots that ceased to be led here since the last drain.
    pub lost: Vec<SlotId>,
    pub(super) waiting_boot: usize,
}

impl Slots {
    /// Starts hydrating every slot that this shard owns.
    pub fn boot(ctx: &mut Ctx) -> Self {
        let careless = ctx.mutant(Mutant::StaleLoadAfterEviction);
        let mut slots = BTreeMap::new();
        for id in 0..ctx.config.slots {
            let id = SlotId(id);
            if shard_of(id, ctx.config.shards) == ctx.me() {
                let slot = Slot {
                    id,
                    stage: Stage::Loading,
                    serving_since: Instant(0),
                    group: None,
                    known: false,
                    applied: 0,
                    next_channel_no: 1,
                    overlay: Overlay::new(ctx.config.overlay_rows_max, careless),
                    queue: VecDeque::new(),
                    proposing: None,
                    proposals: 0,
                    in_flight: VecDeque::new(),
                    loads: BTreeMap::new(),
                    next_load: 0,
                    again: Vec::new(),
                    again_at: Instant::NEVER,
                    timer_at: Instant::NEVER,
                    asks: VecDeque::new(),
                    outgoing: None,
                    restoring: None,
                    entries_from: 0,
                    cut: false,
                    dirty_after: None,
                };
                slot.begin_boot(ctx);
                slots.insert(id.0, slot);
            }
        }
        let waiting_boot = slots.len();
        Self { slots, done: VecDeque::new(), lost: Vec::new(), waiting_boot }
    }

    /// Every slot has a leader, or has been stopped.
    #[must_use]
    pub const fn ready(&self) -> bool {
        self.waiting_boot == 0
    }

    fn slot(&mut self, id: SlotId) -> &mut Slot {
        self.slots.get_mut(&id.0).expect("a slot of this shard")
    }

    /// Whether the slot takes commands and serves reads.
    #[must_use]
    pub fn leads(&self, id: SlotId) -> bool {
        self.slots.get(&id.0).is_some_and(|s| s.stage == Stage::Serving)
    }

    /// Who leads the slot, as far as is known here.
    #[must_use]
    pub fn leader(&self, id: SlotId) -> Option<Replica> {
        self.slots.get(&id.0)?.group.as_ref()?.leader()
    }

    /// Whether the slot is led here, and that member was not heard since long: its process is not gone, and does nothing.
    #[must_use]
    pub fn is_silent(&self, ctx: &Ctx, id: SlotId, member: Replica) -> bool {
        let Some(slot) = self.slots.get(&id.0).filter(|s| s.stage == Stage::Serving && member != ctx.replica()) else {
            return false;
        };
        let heard = slot.group.as_ref().and_then(|g| g.heard(member));
        ctx.now.mono.since(heard.unwrap_or(slot.serving_since).max(slot.serving_since)) >= limits::SILENT
    }

    /// Whether it is a slot of this shard.
    #[must_use]
    pub fn hosts(&self, id: SlotId) -> bool {
        self.slots.contains_key(&id.0)
    }

    /// Its log and counters are read.
    #[must_use]
    pub fn hydrated(&self, id: SlotId) -> bool {
        self.slots.get(&id.0).is_some_and(|s| s.stage != Stage::Loading)
    }

    /// Appends a command; `waiter` learns its outcome once it is committed and applied. False: the slot does not take it.
    pub fn propose(&mut self, ctx: &mut Ctx, id: SlotId, command: Command, waiter: Waiter) -> bool {
        if !self.leads(id) {
            return false;
        }
        let Self { slots, done, .. } = self;
        let slot = slots.get_mut(&id.0).expect("it leads");
        let taken = slot.propose(ctx, done, command, waiter);
        ctx.counters.slot_entries += u64::from(taken);
        self.after_step(ctx, id.0);
        taken
    }

    /// Keeps a row of `meta` resident for a read; true when the caller must load it and report by [`Self::read_done`].
    pub fn begin_read(&mut self, id: SlotId, key: &Bytes) -> bool {
        self.slot(id).overlay.pin(key)
    }

    /// Ends a read begun before; `loaded` is what the load found, if there was one. Returns the row as applied.
    pub fn read_done(&mut self, id: SlotId, key: &Bytes, loaded: Option<Option<Bytes>>) -> Option<Bytes> {
        let overlay = &mut self.slot(id).overlay;
        if let Some(value) = loaded {
            overlay.loaded(key, value);
        }
        let value = overlay.peek(key).flatten();
        overlay.unpin(key);
        value
    }

    /// Takes a new channel number of the slot; the caller writes [`Self::channel_no_row`] with the channel's first row.
    pub fn take_channel_no(&mut self, ctx: &mut Ctx, id: SlotId) -> u64 {
        let slot = self.slot(id);
        let no = slot.next_channel_no;
        slot.next_channel_no += 1;
        let row = Counter { value: slot.next_channel_no };
        ctx.batch().put_with(Family::Raft, &keys::single(id, keys::table::NEXT_CHANNEL_NO), |out| row.encode(out));
        no
    }

    /// A message of another replica of a slot.
    pub fn on_peer(&mut self, ctx: &mut Ctx, id: SlotId, envelope: Envelope) {
        self.step(ctx, id.0, Input::Message(envelope));
    }

    /// A process is reachable again.
    pub fn on_peer_up(&mut self, ctx: &mut Ctx, peer: PeerProcess) {
        let back = Replica { node: peer.node, store: peer.store };
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            self.step(ctx, id, Input::PeerUp(back));
        }
    }

    /// A link that was full is not any more: leaders give their followers what they lack.
    pub fn resume(&mut self, ctx: &mut Ctx) {
        for id in self.slots.keys().copied().collect::<Vec<_>>() {
            self.step(ctx, id, Input::Time);
        }
    }

    /// A write of the slot's group is durable.
    pub fn on_group_persisted(&mut self, ctx: &mut Ctx, id: u16, token: Token) {
        self.step(ctx, id, Input::Persisted(token));
    }

    /// One input of a slot's replica, and what follows from it.
    pub(super) fn step(&mut self, ctx: &mut Ctx, id: u16, input: Input) {
        let Self { slots, done, .. } = self;
        if let Some(slot) = slots.get_mut(&id) {
            slot.step(ctx, done, input);
            self.after_step(ctx, id);
        }
    }

    /// Whether the slot began or ceased to serve.
    pub(super) fn after_step(&mut self, ctx: &mut Ctx, id: u16) {
        self.answer_asks(ctx, id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.try_restore(ctx);
        match slot.judge(ctx.now.mono) {
            Some(true) => slot.begin_dirty_scan(ctx, None),
            Some(false) => self.lost.push(slot.id),
            None => {}
        }
        if !slot.known && (slot.stage == Stage::Stopped || slot.knows_leader()) {
            slot.known = true;
            self.waiting_boot -= 1;
        }
        self.note_stopped(ctx, SlotId(id));
    }

    /// Entries that a follower lacks were read.
    pub fn on_log(&mut self, ctx: &mut Ctx, id: u16, request: u64, found: Option<Vec<Found>>) {
        let Self { slots, done, .. } = self;
        if let Some(slot) = slots.get_mut(&id) {
            slot.on_log(ctx, done, request, found);
            self.after_step(ctx, id);
        }
    }

    /// Rows that the slot applied are durable.
    pub fn on_applied_persisted(&mut self, ctx: &mut Ctx, id: u16) {
        let Self { slots, done, .. } = self;
        if let Some(slot) = slots.get_mut(&id) {
            slot.on_applied_persisted(ctx, done);
            self.after_step(ctx, id);
        }
    }

    /// Rows that queued commands read have arrived.
    pub fn on_rows(&mut self, ctx: &mut Ctx, id: u16, load: u64, found: Option<Vec<Found>>) {
        let Self { slots, done, .. } = self;
        let Some(slot) = slots.get_mut(&id) else {
            return;
        };
        let keys = slot.loads.remove(&load).unwrap_or_default();
        let mut again = Vec::new();
        let mut found = found.map(Vec::into_iter);
        for key in keys {
            match found.as_mut().and_then(Iterator::next) {
                Some(Found::Point(value)) => slot.overlay.loaded(&key, value),
                None | Some(Found::Unreadable(StoreFault::Io | StoreFault::Full)) => again.push(key),
                // An entry that cannot be applied blocks all later ones: the slot stops, the others go on.
                Some(_) => slot.stage = Stage::Stopped,
            }
        }
        if !again.is_empty() && slot.restoring.is_none() {
            slot.try_again(ctx, Again::Rows(again));
        }
        slot.apply(ctx, done);
        self.after_step(ctx, id);
    }

    /// The group's deadline, or reads that failed and are tried again.
    pub fn on_timer(&mut self, ctx: &mut Ctx, id: u16) {
        let slot = self.slot(SlotId(id));
        slot.timer_at = Instant::NEVER;
        if slot.again_at <= ctx.now.mono {
            slot.again_at = Instant::NEVER;
            for again in core::mem::take(&mut slot.again) {
                match again {
                    Again::Boot => slot.begin_boot(ctx),
                    Again::Entries => slot.load_entries(ctx, slot.entries_from),
                    Again::Dirty => slot.begin_dirty_scan(ctx, slot.dirty_after.clone()),
                    Again::Rows(keys) => slot.load_rows(ctx, keys),
                    Again::Aside => slot.load_aside(ctx),
                }
            }
        }
        if slot.deadline() <= ctx.now.mono {
            self.step(ctx, id, Input::Time);
        }
        self.slot(SlotId(id)).arm(ctx);
    }

    pub(super) fn note_stopped(&mut self, ctx: &mut Ctx, id: SlotId) {
        let Self { slots, done, .. } = self;
        let Some(slot) = slots.get_mut(&id.0) else { return };
        if slot.stage == Stage::Stopped && !slot.queue.is_empty() {
            for p in slot.queue.drain(..) {
                if p.waiter != Waiter::Nobody {
                    done.push_back((p.waiter, Outcome::Damaged));
                }
            }
            ctx.note(Note::SlotStopped { slot: id, why: "a stored row is damaged or of an unknown kind" });
        }
    }
}

impl Slot {
    /// Queues an entry of the log for applying, and loads what it reads.
    pub(super) fn enqueue(&mut self, ctx: &mut Ctx, index: u64, command: Command, waiter: Waiter) {
        let keys = command.reads(self.id);
        assert!(keys.len() <= limits::READ_SET_MAX, "a command's read set is bounded");
        let missing: Vec<Bytes> = keys.iter().filter(|k| self.overlay.pin(k)).cloned().collect();
        if !missing.is_empty() {
            self.load_rows(ctx, missing);
        }
        self.queue.push_back(Pending { index, command, keys, proposal: self.proposals, waiter });
    }

    /// Entries above `index` were cut: they are not applied.
    pub(super) fn cut_queue(&mut self, index: u64, done: &mut VecDeque<(Waiter, Outcome)>) {
        self.cut = true;
        while let Some(p) = self.queue.pop_back_if(|p| p.index > index) {
            for key in &p.keys {
                self.overlay.unpin(key);
            }
            if p.waiter != Waiter::Nobody {
                done.push_back((p.waiter, Outcome::Unknown));
            }
        }
    }

    fn load_rows(&mut self, ctx: &mut Ctx, keys: Vec<Bytes>) {
        let load = self.next_load;
        self.next_load += 1;
        let get = |key: &Bytes| Query::Get { family: Family::Meta, key: key.clone() };
        ctx.load(LoadWaiter::SlotRows(self.id.0, load), keys.iter().map(get));
        self.loads.insert(load, keys);
    }

    /// Nothing under way knows rows of the state machine.
    pub(super) fn is_quiet(&self) -> bool {
        self.loads.is_empty() && self.in_flight.is_empty() && self.overlay.is_quiet()
    }

    /// The store could not read: tried again in a while, because a disk may recover.
    pub(super) fn try_again(&mut self, ctx: &mut Ctx, again: Again) {
        self.again.push(again);
        self.again_at = ctx.now.mono + limits::READ_RETRY;
        self.arm(ctx);
    }

    /// One timer for both: it may fire early, never late.
    pub(super) fn arm(&mut self, ctx: &mut Ctx) {
        let at = self.deadline().min(self.again_at);
        if at < self.timer_at || self.timer_at <= ctx.now.mono {
            ctx.arm(Timer::Slot(self.id.0), &mut self.timer_at, at);
        }
    }

    /// Applies committed entries whose rows are resident, in index order.
    pub(super) fn apply(&mut self, ctx: &mut Ctx, done: &mut VecDeque<(Waiter, Outcome)>) {
        let hw = self.group.as_ref().map_or(0, |g| g.hw());
        let mut written = Vec::new();
        let before = self.applied;
        while let Some(p) = self.queue.front() {
            if p.index > hw || self.stage == Stage::Stopped {
                break;
            }
            let rows: Vec<_> = p.keys.iter().map_while(|k| self.overlay.peek(k)).collect();
            if rows.len() < p.keys.len() {
                break;
            }
            let (outcome, puts) = p.command.apply(self.id, p.index, &rows);
            if outcome == Outcome::Damaged {
                self.stage = Stage::Stopped;
                break;
            }
            let p = self.queue.pop_front().expect("just looked at");
            for (key, value) in puts {
                if let Some(o) = self.outgoing.as_mut() {
                    let read = p.keys.iter().position(|k| *k == key).expect("a command reads what it writes");
                    o.remember(&key, rows[read].as_ref());
                }
                ctx.batch().put(Family::Meta, &key, &value);
                self.overlay.write(key.clone(), value);
                written.push(key);
            }
            for key in &p.keys {
                self.overlay.unpin(key);
            }
            self.applied = p.index;
            if let Some((channel, generation)) = p.command.deleted(&outcome) {
                done.push_back((Waiter::Deleted { channel, generation }, Outcome::Done));
            }
            if p.waiter != Waiter::Nobody {
                done.push_back((p.waiter, outcome));
            }
        }
        if self.applied > before {
            let row = Applied { index: self.applied };
            ctx.batch().put_with(Family::Meta, &keys::single(self.id, keys::table::APPLIED), |out| row.encode(out));
            ctx.persist(PersistWaiter::SlotApplied(self.id.0), PersistClass::Lazy);
            self.in_flight.push_back((self.applied, written));
        }
    }

    fn on_applied_persisted(&mut self, ctx: &mut Ctx, done: &mut VecDeque<(Waiter, Outcome)>) {
        let (applied, written) = self.in_flight.pop_front().expect("a completion without applied rows");
        for key in &written {
            self.overlay.clean(key);
        }
        self.outgoing.take_if(|o| o.is_over(ctx.now.mono));
        // Entries far behind what is applied and durable go, in coarse steps; not those that whoever takes a snapshot needs next.
        let base = self.group.as_ref().map_or(0, |g| g.log().base.index);
        let (suffix, keep) = (ctx.config.slot_log_suffix, ctx.config.slot_log_max);
        if let Some(upto) = applied.checked_sub(suffix)
            && upto >= base + suffix
            && self.outgoing.is_none()
            && self.restoring.is_none()
        {
            self.step(ctx, done, Input::Compact { upto, keep });
        }
    }
}
