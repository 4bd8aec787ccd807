//! The slots of this shard: each a replication group whose log feeds a state machine with tables in `meta`.

use super::command::{Command, Outcome};
use super::overlay::Overlay;
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter, Timer};
use crate::error::StoreFault;
use crate::ids::{SlotId, shard_of};
use crate::limits;
use crate::map::BTreeMap;
use crate::mutants::Mutant;
use crate::note::Note;
use crate::output::PersistClass;
use crate::raft::Group;
use crate::store::rows::{Applied, Counter, Format, HardState, Hint, Mark};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
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
    /// A channel, here or on another shard, that wants a user's membership row.
    Membership { from: crate::ids::ShardId, index: u32, activation: u64, uid: Text },
}

/// An entry appended and not applied.
#[derive(Clone, Debug)]
struct Pending {
    index: u64,
    command: Command,
    keys: Vec<Bytes>,
    waiter: Waiter,
}

/// Where a slot is on its way to serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Loading,
    /// The vote for itself is on its way to the disk.
    Voting,
    /// The mark of its epoch is on its way to the disk.
    Marking,
    Leading,
    /// A damaged row or unknown command: this slot serves nothing more, the others go on.
    Stopped,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub id: SlotId,
    pub stage: Stage,
    pub group: Group,
    pub applied: u64,
    pub next_channel_no: u64,
    overlay: Overlay,
    queue: VecDeque<Pending>,
    /// Persists in flight that carry applied rows: applied index and the rows' keys.
    in_flight: VecDeque<(u64, Vec<Bytes>)>,
    loads: BTreeMap<u64, Vec<Bytes>>,
    next_load: u64,
    /// Reads that the store could not answer, tried again by the timer.
    again: Vec<Again>,
    timer_at: Instant,
    /// First entry of the page being read at boot, and last key of the dirty page before.
    pub entries_from: u64,
    pub dirty_after: Option<Bytes>,
}

/// A read to repeat.
#[derive(Clone, Debug)]
pub(super) enum Again {
    Boot,
    Entries,
    Dirty,
    Rows(Vec<Bytes>),
}

/// All slots of one shard.
#[derive(Clone, Debug)]
pub struct Slots {
    pub(super) slots: BTreeMap<u16, Slot>,
    /// Commands applied since the last drain.
    pub done: VecDeque<(Waiter, Outcome)>,
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
                    group: Group::new(crate::raft::Recovered::default()),
                    applied: 0,
                    next_channel_no: 1,
                    overlay: Overlay::new(ctx.config.overlay_rows_max, careless),
                    queue: VecDeque::new(),
                    in_flight: VecDeque::new(),
                    loads: BTreeMap::new(),
                    next_load: 0,
                    again: Vec::new(),
                    timer_at: Instant::NEVER,
                    entries_from: 0,
                    dirty_after: None,
                };
                slot.begin_boot(ctx);
                slots.insert(id.0, slot);
            }
        }
        let waiting_boot = slots.len();
        Self { slots, done: VecDeque::new(), waiting_boot }
    }

    /// Every slot leads, or has been stopped.
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
        self.slots.get(&id.0).is_some_and(|s| s.stage == Stage::Leading)
    }

    /// Appends a command; `waiter` learns its outcome once it is committed and applied. False: the slot does not lead.
    pub fn propose(&mut self, ctx: &mut Ctx, id: SlotId, command: Command, waiter: Waiter) -> bool {
        if !self.leads(id) {
            return false;
        }
        ctx.counters.slot_entries += 1;
        self.slot(id).append(ctx, command, waiter);
        true
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

    /// A write of the slot's group is durable.
    pub fn on_group_persisted(&mut self, ctx: &mut Ctx, id: u16) {
        let Self { slots, done, waiting_boot } = self;
        let Some(slot) = slots.get_mut(&id) else {
            return;
        };
        match slot.stage {
            Stage::Voting => slot.lead(ctx),
            Stage::Marking => {
                slot.group.persisted();
                slot.stage = Stage::Leading;
                *waiting_boot -= 1;
                slot.apply(ctx, done);
                slot.begin_dirty_scan(ctx, None);
            }
            Stage::Leading => {
                slot.group.persisted();
                slot.apply(ctx, done);
            }
            Stage::Loading | Stage::Stopped => {}
        }
        self.note_stopped(ctx, SlotId(id));
    }

    /// Rows that the slot applied are durable.
    pub fn on_applied_persisted(&mut self, ctx: &mut Ctx, id: u16) {
        self.slot(SlotId(id)).on_applied_persisted(ctx);
    }

    /// Rows that queued commands read have arrived.
    pub fn on_rows(&mut self, ctx: &mut Ctx, id: u16, load: u64, found: Option<Vec<Found>>) {
        let Self { slots, done, waiting_boot } = self;
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
                Some(_) => {
                    if !matches!(slot.stage, Stage::Leading | Stage::Stopped) {
                        *waiting_boot -= 1;
                    }
                    slot.stage = Stage::Stopped;
                }
            }
        }
        if !again.is_empty() {
            slot.try_again(ctx, Again::Rows(again));
        }
        slot.apply(ctx, done);
        self.note_stopped(ctx, SlotId(id));
    }

    /// Reads that failed are tried again.
    pub fn on_timer(&mut self, ctx: &mut Ctx, id: u16) {
        let slot = self.slot(SlotId(id));
        slot.timer_at = Instant::NEVER;
        for again in core::mem::take(&mut slot.again) {
            match again {
                Again::Boot => slot.begin_boot(ctx),
                Again::Entries => slot.load_entries(ctx, slot.entries_from),
                Again::Dirty => slot.begin_dirty_scan(ctx, slot.dirty_after.clone()),
                Again::Rows(keys) => slot.load_rows(ctx, keys),
            }
        }
    }

    pub(super) fn note_stopped(&mut self, ctx: &mut Ctx, id: SlotId) {
        let Self { slots, done, .. } = self;
        let slot = slots.get_mut(&id.0).expect("a slot of this shard");
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
    fn append(&mut self, ctx: &mut Ctx, command: Command, waiter: Waiter) {
        let epoch = self.group.epoch;
        let index = self.group.append(1);
        let key = keys::slot_entry(self.id, index);
        let entry = command.to_entry(epoch);
        ctx.batch().put(Family::Raft, &key, &entry);
        ctx.persist(PersistWaiter::SlotGroup(self.id.0), PersistClass::Sync);
        self.enqueue(ctx, index, command, waiter);
    }

    /// Queues an entry of the log for applying, and loads what it reads.
    pub(super) fn enqueue(&mut self, ctx: &mut Ctx, index: u64, command: Command, waiter: Waiter) {
        let keys = command.reads(self.id);
        assert!(keys.len() <= limits::READ_SET_MAX, "a command's read set is bounded");
        let missing: Vec<Bytes> = keys.iter().filter(|k| self.overlay.pin(k)).cloned().collect();
        if !missing.is_empty() {
            self.load_rows(ctx, missing);
        }
        self.queue.push_back(Pending { index, command, keys, waiter });
    }

    fn load_rows(&mut self, ctx: &mut Ctx, keys: Vec<Bytes>) {
        let load = self.next_load;
        self.next_load += 1;
        let get = |key: &Bytes| Query::Get { family: Family::Meta, key: key.clone() };
        ctx.load(LoadWaiter::SlotRows(self.id.0, load), keys.iter().map(get));
        self.loads.insert(load, keys);
    }

    /// The store could not read: tried again in a while, because a disk may recover.
    pub(super) fn try_again(&mut self, ctx: &mut Ctx, again: Again) {
        self.again.push(again);
        let at = ctx.now.mono + limits::READ_RETRY;
        ctx.arm(Timer::Slot(self.id.0), &mut self.timer_at, at);
    }

    /// Hard state durable: leads, and writes the mark of its epoch.
    fn lead(&mut self, ctx: &mut Ctx) {
        let epoch = self.group.epoch;
        let superseded = self.group.log.superseded_mark();
        self.group.lead(epoch);
        let (_, at) = self.group.mark_owed().expect("a new leader owes its mark");
        if let Some(old) = superseded {
            ctx.batch().delete(Family::Raft, &keys::slot_mark(self.id, old));
        }
        ctx.batch().put_with(Family::Raft, &keys::slot_mark(self.id, epoch), |out| Mark { at }.encode(out));
        self.group.append(0);
        ctx.persist(PersistWaiter::SlotGroup(self.id.0), PersistClass::Sync);
        self.stage = Stage::Marking;
    }

    /// Votes for itself in a new epoch.
    pub(super) fn campaign(&mut self, ctx: &mut Ctx) {
        let hard = HardState { epoch: self.group.campaign(), voted_for: ctx.config.node };
        ctx.batch().put_with(Family::Raft, &keys::single(self.id, keys::table::HARD), |out| hard.encode(out));
        ctx.persist(PersistWaiter::SlotGroup(self.id.0), PersistClass::Sync);
        self.stage = Stage::Voting;
    }

    /// Applies committed entries whose rows are resident, in index order.
    fn apply(&mut self, ctx: &mut Ctx, done: &mut VecDeque<(Waiter, Outcome)>) {
        let mut written = Vec::new();
        let before = self.applied;
        while let Some(p) = self.queue.front() {
            if p.index > self.group.hw || self.stage == Stage::Stopped {
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
                ctx.batch().put(Family::Meta, &key, &value);
                self.overlay.write(key.clone(), value);
                written.push(key);
            }
            for key in &p.keys {
                self.overlay.unpin(key);
            }
            self.applied = p.index;
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

    fn on_applied_persisted(&mut self, ctx: &mut Ctx) {
        let (applied, written) = self.in_flight.pop_front().expect("a completion without applied rows");
        for key in &written {
            self.overlay.clean(key);
        }
        self.truncate_prefix(ctx, applied);
    }

    /// Drops entries far behind what is applied and durable, in coarse steps.
    fn truncate_prefix(&mut self, ctx: &mut Ctx, applied: u64) {
        let base = self.group.log.base.index;
        let Some(keep) = applied.checked_sub(limits::SLOT_LOG_SUFFIX) else {
            return;
        };
        if keep < base + limits::SLOT_LOG_SUFFIX {
            return;
        }
        // The position of entry `keep`: the epoch whose range contains it.
        let epoch = self.group.log.epoch_of(keep);
        let to = crate::ids::Position { epoch, index: keep };
        self.group.log.rebase(to);
        let hint = Hint { hw: self.group.hw, base: to };
        ctx.batch().delete_range(
            Family::Raft,
            &keys::slot_entry(self.id, base + 1),
            &keys::slot_entry(self.id, keep + 1),
        );
        ctx.batch().put_with(Family::Raft, &keys::single(self.id, keys::table::HINT), |out| hint.encode(out));
    }
}
