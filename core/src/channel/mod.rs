//! The channel pool and the channel machine at its authority (semantics 2.3, 4.6–4.12).
//!
//! A channel in memory is a replica of its group, which decides what is committed; this machine owns the entries: rows and
//! indexes at every replica, and at the leader a queue of admitted SENDs, at most one append in flight, promises held until
//! committed, pushes until accepted.

mod activate;
mod admit;
mod append;
pub mod chain;
mod control;
pub mod dedup;
mod delete;
mod distribute;
pub mod filter;
pub mod id;
mod purge;
pub mod read;
mod replica;
mod rows;
mod settle;

use crate::cluster::Slots;
use crate::cluster::control::Controller;
use crate::ctx::{Ctx, RunKey};
use crate::event::mail::{Delivery, SendEvent};
use crate::ids::{ChannelKey, ChannelNo, ShardId, SlotId, slot_of};
use crate::limits;
use crate::map::{BTreeSet, Map, hasher};
use crate::raft::Held;
use crate::raft::core::{GroupConfig, GroupCore, Input};
use crate::store::rows::{Assignment, ChannelHead};
use crate::time::Instant;
use crate::user::answer_unstored;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use dedup::{Dedup, Fingerprint};
use read::ReadJob;
use slab::Slab;
use smallvec::SmallVec;
use wukong_proto::ReasonCode;

/// Where a channel is on its way to taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its rows are being read.
    Loading,
    /// Its replica takes part, or it has no log yet.
    Running,
    /// A damaged row: everything is refused.
    Stopped,
}

/// What the slot's tables say of a channel, as far as this replica has to know.
#[derive(Clone, Debug)]
enum Facts {
    /// Nobody asked.
    Unknown,
    Loading,
    /// The assignment as applied, if there is one.
    Known(Option<Arc<Assignment>>),
}

/// A SEND that passed the chain up to dedup and waits to be appended.
#[derive(Clone, Debug)]
struct Admitted {
    event: Box<SendEvent>,
    key: Option<Fingerprint>,
    payload_hash: u64,
}

/// A SEND whose key is being looked up on disk.
#[derive(Clone, Debug)]
struct Parked {
    admitted: Admitted,
    lookup: Lookup,
}

/// What is known of a parked event's key.
#[derive(Clone, Debug)]
enum Lookup {
    /// This load decides.
    Out(u64),
    /// Not in the log; it only waits behind an earlier event of the same sender.
    Fresh,
    InLog(dedup::Stored),
    Unreadable,
}

/// The promise of one committed entry, or of one answered by dedup.
#[derive(Clone, Debug)]
struct Promise {
    conn: crate::ids::ConnRef,
    /// The id that the SEND was given at decode.
    owed_id: i64,
    /// Its owner has answered after this.
    deadline: Instant,
    message_id: i64,
    seq: u64,
}

/// What a committed entry owes.
#[derive(Clone, Debug)]
struct EntryPromise {
    event: Box<SendEvent>,
    key: Option<Fingerprint>,
    delivery: Arc<Delivery>,
    payload_hash: u64,
}

/// A push on its way to the lanes of the recipients.
#[derive(Clone, Debug)]
struct PushInFlight {
    id: u64,
    upto: u64,
    waiting: u8,
}

/// Whether both participants have their membership row (INV-34).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    Unknown,
    Waiting { missing: u8 },
    Ready,
}

/// Entries that were committed before this replica led, and that recipients may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrears {
    None,
    /// They are being read; newer ones wait.
    Loading,
}

/// One channel in memory.
///
/// Fields lie in memory as they stand here: what every message touches first, so that it is few cache lines.
#[repr(C)]
#[derive(Clone, Debug)]
struct Channel {
    /// SENDs that have not passed the chain.
    queue: VecDeque<Box<SendEvent>>,
    ready: VecDeque<Admitted>,
    ready_bytes: usize,
    /// None until its log is read, and while it has none.
    group: Option<Box<GroupCore>>,
    activation: u64,
    /// Number of the replica in memory: what was begun for another one is not for it.
    replica: u64,
    /// Last entry that this leader appended; while it is not committed, an append is in flight.
    appended: u64,
    slot: SlotId,
    stage: Stage,
    /// Somebody on this node wants it served: the slot's leader, which this is, has to see to that.
    wanted: bool,
    scheduled: bool,
    /// Its next run comes with a credit.
    waits_credit: bool,
    in_flush_list: bool,
    /// This replica leads.
    leading: bool,
    has_head: bool,
    /// The head row has to follow with this write.
    head_due: bool,
    /// The dirty row is on disk or in a batch.
    dirty: bool,
    /// Memory holds the keys of every entry of the log.
    keys_complete: bool,
    /// Entries came from another leader: what memory knows of keys is not all.
    followed: bool,
    arrears: Arrears,
    directory: Directory,
    parked_loads: usize,
    parked: VecDeque<Parked>,
    /// Acks that wait for the directory.
    acks: VecDeque<Promise>,
    /// Duplicates of entries in flight: answered with them.
    attached: Vec<(Fingerprint, Box<SendEvent>)>,
    /// Resends of entries that are in the log but not committed yet in this epoch.
    late_hits: Vec<Promise>,
    held: Held<EntryPromise>,
    /// Committed, not yet pushed.
    outgoing: VecDeque<Arc<Delivery>>,
    pushes: VecDeque<PushInFlight>,
    next_push: u64,
    /// Writes in flight. What is read of a log counts as durable, so it is not read again before they are.
    writes: u32,
    /// End of the log when the head row was last written.
    head_written_at: u64,
    last_active: Instant,
    /// When the head row follows what was handed on.
    hint_at: Instant,
    /// When membership rows are asked for again.
    directory_at: Instant,
    timer_at: Instant,
    /// What the slot's leader does about it; only there, and only with several voters.
    controller: Option<Box<Controller>>,
    waiting_readers: Vec<ReadJob>,
    head: ChannelHead,
    key: ChannelKey,
    /// Recipients by the shard of their authority.
    targets: distribute::Targets,
    facts: Facts,
    /// The head row was read.
    head_known: bool,
    next_load: u64,
    /// The log above the head row, while it is being read.
    tail: activate::Tail,
    /// What came for the replica before it could take part.
    early: VecDeque<(u64, Input)>,
    dir_ready_uids: SmallVec<[wukong_proto::Text; 2]>,
    /// Its log began in this process.
    created_here: bool,
    /// Reads that the group confirms, by its number of each.
    confirming: VecDeque<(u64, ReadJob)>,
    next_read: u64,
    /// Loads under way that keep rows of the slot in memory.
    reading: u8,
    /// Generations up to this one were deleted.
    void: u64,
    /// Calls that want the channel deleted: their homes and numbers.
    deletions: Vec<(ShardId, u64)>,
}

/// All channels of one shard that are in memory.
#[derive(Clone, Debug)]
pub struct Channels {
    by_key: Map<ChannelKey, u32>,
    slab: Slab<Channel>,
    dedup: Dedup,
    next_activation: u64,
    /// What all replicas of channels share.
    group_config: Option<Arc<GroupConfig>>,
    /// Inputs that handling outputs gave; handled after them.
    local: VecDeque<(u32, Input)>,
    /// Entries of the proposal that is being made, in order.
    staged: VecDeque<append::Staged>,
    rows: rows::RowChunk,
    /// A step is being carried out.
    stepping: bool,
    pub reads: read::Reads,
    doomed: purge::Doomed,
    /// For keys that are made per entry.
    scratch: bytes::BytesMut,
    /// Led here, and stepped while a link was full.
    paused: BTreeSet<u32>,
    /// Channels found dirty at boot and waiting for room.
    pub backlog: VecDeque<ChannelKey>,
}

impl Channels {
    pub fn new(config: &crate::shard::ShardConfig, seeds: [u64; 3]) -> Self {
        Self {
            by_key: Map::with_hasher(hasher(seeds[2])),
            slab: Slab::new(),
            dedup: Dedup::new([seeds[0], seeds[1]], config.dedup_bytes_max),
            next_activation: 1,
            group_config: None,
            local: VecDeque::new(),
            staged: VecDeque::new(),
            rows: rows::RowChunk::default(),
            stepping: false,
            reads: read::Reads::default(),
            doomed: purge::Doomed::default(),
            scratch: bytes::BytesMut::new(),
            paused: BTreeSet::new(),
            backlog: VecDeque::new(),
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// The channel's (committed seq, distributed seq), if it is in memory and serves.
    #[must_use]
    pub fn look(&self, key: &ChannelKey) -> Option<(u64, u64)> {
        let group = self.slab[*self.by_key.get(key)? as usize].group.as_ref()?;
        Some((group.hw(), group.distributed()))
    }

    /// The generation of the log in memory.
    #[must_use]
    pub fn generation(&self, key: &ChannelKey) -> Option<u64> {
        let channel = &self.slab[*self.by_key.get(key)? as usize];
        channel.group.as_ref().map(|_| channel.head.generation)
    }

    /// Whether this replica leads the channel.
    #[must_use]
    pub fn leads(&self, key: &ChannelKey) -> bool {
        self.by_key.get(key).is_some_and(|i| self.slab[*i as usize].leading)
    }

    fn get(&mut self, index: u32, activation: u64) -> Option<&mut Channel> {
        self.slab.get_mut(index as usize).filter(|c| c.activation == activation)
    }

    fn get_replica(&mut self, index: u32, replica: u64) -> Option<&mut Channel> {
        self.slab.get_mut(index as usize).filter(|c| c.replica == replica)
    }

    /// A SEND arrived at its channel's authority.
    pub fn on_send(&mut self, ctx: &mut Ctx, slots: &mut Slots, event: Box<SendEvent>) {
        let Some(key) = &event.channel else {
            return answer_unstored(ctx, &event, ReasonCode::CHANNEL_ID_ERROR);
        };
        if let Some(reason) = admit::refused(&event) {
            return answer_unstored(ctx, &event, reason);
        }
        if event.flags.no_persist() {
            return Self::pass_through(ctx, event);
        }
        let Some(index) = self.want(ctx, slots, key) else {
            ctx.counters.queue_refusals += 1;
            let starting = !slots.leads(slot_of(&key.id, ctx.config.slots));
            let reason = if starting { ReasonCode::SYSTEM_ERROR } else { ReasonCode::RATE_LIMIT };
            return answer_unstored(ctx, &event, reason);
        };
        let channel = &mut self.slab[index as usize];
        let waiting = channel.queue.len()
            + channel.parked.len()
            + channel.ready.len()
            + channel.attached.len()
            + channel.acks.len()
            + channel.late_hits.len();
        if waiting >= limits::CHANNEL_QUEUE_MAX || channel.ready_bytes > limits::UNCOMMITTED_BYTES_MAX {
            ctx.counters.queue_refusals += 1;
            return answer_unstored(ctx, &event, ReasonCode::RATE_LIMIT);
        }
        channel.queue.push_back(event);
        channel.schedule(ctx, index);
    }

    /// Runs one channel: admits queued events, then pushes what is committed. Returns the events handled.
    pub fn run(&mut self, ctx: &mut Ctx, index: u32) -> usize {
        let Some(channel) = self.slab.get_mut(index as usize) else {
            return 0;
        };
        channel.scheduled = false;
        if channel.stage == Stage::Stopped {
            channel.refuse_all(ctx, &mut self.dedup);
            return 1;
        }
        if !channel.serves() {
            return 0;
        }
        let handled = self.admit_queue(ctx, index);
        self.distribute(ctx, index);
        handled
    }
}

impl Channel {
    fn new(ctx: &Ctx, key: ChannelKey, activation: u64) -> Self {
        let slot = slot_of(&key.id, ctx.config.slots);
        let targets = distribute::targets(ctx, &key.id);
        Self {
            targets,
            key,
            slot,
            activation,
            stage: Stage::Loading,
            wanted: false,
            facts: Facts::Unknown,
            head_known: false,
            queue: VecDeque::new(),
            scheduled: false,
            waits_credit: false,
            parked: VecDeque::new(),
            parked_loads: 0,
            next_load: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            in_flush_list: false,
            appended: 0,
            leading: false,
            group: None,
            replica: activation,
            reading: 0,
            void: 0,
            deletions: Vec::new(),
            head: ChannelHead::default(),
            has_head: false,
            head_due: false,
            head_written_at: 0,
            writes: 0,
            tail: activate::Tail::default(),
            early: VecDeque::new(),
            controller: None,
            held: Held::default(),
            acks: VecDeque::new(),
            directory: Directory::Unknown,
            dir_ready_uids: SmallVec::new(),
            attached: Vec::new(),
            keys_complete: false,
            created_here: false,
            followed: false,
            outgoing: VecDeque::new(),
            pushes: VecDeque::new(),
            next_push: 1,
            arrears: Arrears::None,
            late_hits: Vec::new(),
            dirty: false,
            waiting_readers: Vec::new(),
            confirming: VecDeque::new(),
            next_read: 0,
            last_active: ctx.now.mono,
            hint_at: Instant::NEVER,
            directory_at: Instant::NEVER,
            timer_at: Instant::NEVER,
        }
    }

    fn schedule(&mut self, ctx: &mut Ctx, index: u32) {
        if !self.scheduled {
            self.scheduled = true;
            ctx.run.push_back(RunKey::Channel(index));
        }
    }

    fn no(&self) -> ChannelNo {
        self.head.channel_no
    }

    /// Everything committed at this replica.
    fn hw(&self) -> u64 {
        self.group.as_ref().map_or(0, |g| g.hw())
    }

    /// End of its log.
    fn last(&self) -> u64 {
        self.group.as_ref().map_or(0, |g| g.log().end().index)
    }

    fn distributed(&self) -> u64 {
        self.group.as_ref().map_or(0, |g| g.distributed())
    }

    /// An append of this leader is not committed.
    fn appending(&self) -> bool {
        self.appended > self.hw()
    }

    /// Takes SENDs. What came from another leader must be durable first: keys are looked up on disk.
    fn serves(&self) -> bool {
        let caught_up = |g: &GroupCore| !self.followed || g.durable().epoch == g.epoch();
        self.stage == Stage::Running && self.leading && self.group.as_deref().is_some_and(caught_up)
    }

    /// The channel cannot serve: every waiting SEND gets its terminal answer.
    fn refuse_all(&mut self, ctx: &mut Ctx, dedup: &mut Dedup) {
        let parked = self.parked.drain(..).map(|p| p.admitted);
        for a in parked.chain(self.ready.drain(..)) {
            if let Some(key) = a.key {
                dedup.abandon(key);
            }
            answer_unstored(ctx, &a.event, ReasonCode::SYSTEM_ERROR);
        }
        for event in self.queue.drain(..).chain(self.attached.drain(..).map(|(_, e)| e)) {
            answer_unstored(ctx, &event, ReasonCode::SYSTEM_ERROR);
        }
        self.ready_bytes = 0;
        self.parked_loads = 0;
    }
}
