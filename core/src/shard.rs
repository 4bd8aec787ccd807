//! The shard: routes inputs to machines and drains their outputs. It decides nothing.

use crate::audit::{Around, Audits};
use crate::call::Calls;
use crate::channel::Channels;
use crate::cluster::{Command, Outcome, Slots, Waiter};
use crate::conn::Conns;
use crate::counters::Counters;
use crate::ctx::{Ctx, Done, LoadWaiter, PersistWaiter, RunKey, Timer};
use crate::error::{BootError, Refusal, StoreFault};
use crate::event::mail::{Mail, Reply, Work, WorkClass};
use crate::ids::{ChannelKey, ConnId, Incarnation, NodeId, PeerProcess, ShardId, StoreId, slot_of};
use crate::input::{Completion, Input};
use crate::limits;
use crate::link::{Group, Item};
use crate::note::Note;
use crate::output::Output;
use crate::pusher::Pusher;
use crate::raft::config::Replica;
use crate::raft::core as raft;
use crate::rng::{Seed, Stream};
use crate::store::Found;
use crate::time::{Instant, Now};
use crate::user::Users;
use alloc::vec::Vec;
use bytes::Bytes;
use core::time::Duration;
use wukong_proto::Text;

/// What the operator chose. Equal on all shards of a node but for `shard`.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub node: NodeId,
    pub shard: ShardId,
    pub shards: u8,
    pub slots: u16,
    /// Require a token that `/user/token` stored (semantics 3.2 step 2).
    pub token_auth: bool,
    /// Token of the manager uid; none = the manager uid needs no token.
    pub manager_token: Option<Text>,
    /// Clean rows each slot keeps in memory; results do not depend on it (architecture 2.1).
    pub overlay_rows_max: usize,
    /// Memory of recent message keys; results do not depend on it.
    pub dedup_bytes_max: usize,
    /// The replicas of every slot, this one among them. Empty: this process alone.
    pub replicas: Vec<Replica>,
    /// Names the cluster: frames of another one are dropped.
    pub cluster: u128,
    /// Work mail in flight to one shard, at least `limits::CONNS_PER_UID`; results do not depend on it.
    pub mail_credit: usize,
    /// Entries a slot keeps in its log behind the applied one.
    pub slot_log_suffix: u64,
    /// Entries it keeps for members that lack them, beyond those.
    pub slot_log_max: u64,
    /// Rows of a snapshot's chunk, at most `limits::SNAPSHOT_CHUNK_ROWS`; results do not depend on it.
    pub snapshot_rows: u32,
    /// Bytes of data waiting for a peer from which on it gets no more; results do not depend on it.
    pub link_pause: usize,
    /// When settled channels are compared with those of other members (`limits::AUDIT_EVERY`).
    pub audit_every: Duration,
    /// The same after something is new (`limits::AUDIT_SOON`).
    pub audit_soon: Duration,
    /// Changes the seeds of hash tables and nothing else; results do not depend on it.
    pub hash_salt: u64,
    /// The planted bug of this run.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::mutants::Mutant>,
}

impl Default for ShardConfig {
    fn default() -> Self {
        Self {
            node: NodeId(1001),
            shard: ShardId(0),
            shards: 1,
            slots: 64,
            token_auth: false,
            manager_token: None,
            overlay_rows_max: crate::limits::OVERLAY_ROWS_MAX,
            dedup_bytes_max: crate::limits::DEDUP_BYTES_MAX,
            replicas: Vec::new(),
            cluster: 0,
            mail_credit: crate::limits::MAIL_CREDIT,
            slot_log_suffix: crate::limits::SLOT_LOG_SUFFIX,
            slot_log_max: crate::limits::SLOT_LOG_MAX,
            snapshot_rows: crate::limits::SNAPSHOT_CHUNK_ROWS,
            link_pause: crate::limits::LINK_DATA_PAUSE,
            audit_every: crate::limits::AUDIT_EVERY,
            audit_soon: crate::limits::AUDIT_SOON,
            hash_salt: 0,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}

impl ShardConfig {
    /// Who votes in the groups of its slots.
    #[must_use]
    pub fn voters(&self, store: StoreId) -> Vec<Replica> {
        if self.replicas.is_empty() {
            return alloc::vec![Replica { node: self.node, store }];
        }
        self.replicas.clone()
    }
}

/// What the shell knows of the data directory. Everything else is read by the shard itself, with `Load`s.
#[derive(Clone, Copy, Debug)]
pub struct Boot {
    pub store: StoreId,
    /// Raised and synced by the shell before the shard is made (cluster-and-raft P8).
    pub incarnation: Incarnation,
}

/// Why `poll_timeout` names an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// The run queue is not empty.
    Run,
    Conn,
    Retry,
    Channel,
    Slot,
    /// Frames that wait for credit, or credit that is owed.
    Link,
    Call,
    Stop,
}

/// One shard of a node: all protocol state, no IO.
#[derive(Clone, Debug)]
pub struct Shard {
    ctx: Ctx,
    conns: Conns,
    users: Users,
    channels: Channels,
    pusher: Pusher,
    slots: Slots,
    calls: Calls,
    audits: Audits,
    /// The machines have handled inputs since the last drain.
    gathered: bool,
    ready: bool,
    stopping: Option<Instant>,
    stop_timer_at: Instant,
}

impl Shard {
    /// # Errors
    /// The configuration is impossible.
    pub fn new(config: ShardConfig, boot: Boot, seed: Seed, now: Now) -> Result<Self, BootError> {
        if config.node.0 == 0 || config.node.0 > 1023 {
            return Err(BootError::NodeOutOfRange);
        }
        if config.shards == 0 || config.shards > 16 || config.shard.0 >= config.shards {
            return Err(BootError::ShardOutOfRange);
        }
        if config.slots == 0 || config.slots == u16::MAX {
            return Err(BootError::SlotsOutOfRange);
        }
        assert!(config.mail_credit >= limits::CONNS_PER_UID, "mail credit below what one delivery needs");
        let mut hash = Stream::fork(&seed.jitter, "hash");
        let salt = config.hash_salt;
        let mut hash = move || hash.u64() ^ salt;
        let election = Stream::fork(&seed.jitter, "election");
        let mut ctx = Ctx::new(config, boot, now, hash(), election);
        let conns = Conns::boot(&mut ctx, Stream::fork(&seed.keys, "session"), hash());
        let users = Users::new(hash());
        let seeds = [hash(), hash(), hash()];
        let mut channels = Channels::new(&ctx.config, seeds);
        let slots = Slots::boot(&mut ctx);
        channels.boot(&mut ctx);
        Ok(Self {
            ctx,
            conns,
            users,
            channels,
            pusher: Pusher::default(),
            slots,
            calls: Calls::default(),
            audits: Audits::default(),
            gathered: true,
            ready: false,
            stopping: None,
            stop_timer_at: Instant::NEVER,
        })
    }

    /// Total: never fails, never panics on outside bytes.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.ctx.now = now;
        self.ctx.counters.inputs += 1;
        if self.ctx.halted {
            return;
        }
        self.gathered = true;
        match input {
            Input::ConnOpened { conn, .. } => self.conns.open(&mut self.ctx, conn),
            Input::ConnReceived { conn, bytes } => self.conns.received(&mut self.ctx, conn, bytes),
            Input::ConnDrained { conn, bytes } => self.conns.drained(conn, bytes),
            Input::ConnClosed { conn, .. } => self.conns.closed(&mut self.ctx, conn),
            Input::Mail { from, mail } => self.on_mail(from, mail),
            Input::Completed { op, completion } => self.on_completed(op, completion),
            Input::Call { call, request } => {
                if self.ready && self.stopping.is_none() {
                    self.calls.begin(&mut self.ctx, &mut self.slots, call, request);
                } else {
                    let answer = crate::api::ApiAnswer::Refused(Refusal::Busy);
                    self.ctx.push(Output::Answer { call, answer });
                }
            }
            Input::PeerUp { peer } => self.on_peer_up(peer),
            Input::PeerDown { node, incarnation } => self.on_peer_down(node, incarnation),
            Input::PeerFrame { node, incarnation, frame } => self.on_peer_frame(node, incarnation, &frame),
            Input::Deadline => self.on_deadline(),
            Input::Stop => self.begin_stop(),
        }
        self.turn();
    }

    /// The next output. Many inputs may be handled before a drain; what they caused is batched.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.gathered && !self.ctx.halted {
            self.gathered = false;
            self.turn();
            self.channels.flush(&mut self.ctx, &mut self.slots);
            self.conns.flush(&mut self.ctx);
            self.ctx.flush_credit_out();
            self.ctx.flush_links();
            if self.ctx.links.take_drained() {
                let Self { ctx, channels, slots, .. } = self;
                slots.resume(ctx);
                channels.resume(ctx, slots);
                self.drain_slots();
                self.ctx.flush_links();
            }
            self.ctx.flush_store();
        }
        self.ctx.pop()
    }

    /// When to hand in `Input::Deadline` at the latest, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimerKind)> {
        if self.ctx.halted {
            return None;
        }
        if !self.ctx.run.is_empty() || !self.ctx.local.is_empty() {
            return Some((self.ctx.now.mono, TimerKind::Run));
        }
        self.ctx.next_timeout()
    }

    /// False: hand in no new work (connection bytes, connections, API calls); everything else always.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.ready && !self.ctx.halted && self.ctx.run.len() + self.ctx.local.len() < limits::RUN_QUEUE_HIGH
    }

    /// False: the connection waits for something else; leave its bytes in the socket until this is true again.
    #[must_use]
    pub fn wants_bytes(&self, conn: ConnId) -> bool {
        self.conns.wants_bytes(conn)
    }

    /// For checks, metrics and admin; never for decisions elsewhere.
    #[must_use]
    pub fn view(&self) -> ShardView<'_> {
        ShardView { shard: self }
    }

    /// Runs machines until nothing is left to do or the turn is long enough.
    fn turn(&mut self) {
        let mut budget = limits::TURN_EVENTS_MAX;
        while budget > 0 {
            if let Some(mail) = self.ctx.local.pop_front() {
                let me = self.ctx.me();
                self.on_mail(me, mail);
                budget -= 1;
            } else if let Some(key) = self.ctx.run.pop_front() {
                budget = budget.saturating_sub(self.run(key).max(1));
            } else if !self.ctx.flush_credit_self() {
                break;
            }
        }
        self.check_ready();
    }

    fn run(&mut self, key: RunKey) -> usize {
        let Self { ctx, conns, users, channels, pusher, slots, .. } = self;
        match key {
            RunKey::Conn(id) => {
                conns.run(ctx, id);
                1
            }
            RunKey::ConnCredited(id) => {
                conns.credited(ctx, id);
                1
            }
            RunKey::User(index) => users.run(ctx, slots, index),
            RunKey::Channel(index) => channels.run(ctx, index),
            RunKey::ChannelCredited(index) => channels.credited(ctx, index),
            RunKey::Lane(index) => pusher.run(ctx, users, index),
            RunKey::Retry => {
                users.on_retry_timer(ctx);
                1
            }
        }
    }

    fn on_mail(&mut self, from: ShardId, mail: Mail) {
        let Self { ctx, conns, users, channels, pusher, slots, calls, .. } = self;
        match mail {
            Mail::Credit { class, count } => ctx.credited(from, class, count),
            Mail::Work(work) => match work {
                Work::Connect(event) => users.on_connect(ctx, from, event),
                Work::Send(event) => users.on_send(ctx, from, event),
                Work::RecvAck { conn, uid, message_id } => users.on_recv_ack(ctx, from, &uid, conn, message_id),
                Work::ChannelSend(event) => {
                    ctx.work_done(from, WorkClass::Route);
                    channels.on_send(ctx, slots, event);
                }
                Work::Push(push) => pusher.accept(ctx, *push),
                Work::Deliver { conn, delivery, dup } => {
                    ctx.work_done(from, WorkClass::Deliver);
                    conns.deliver(ctx, conn, &delivery, dup);
                }
            },
            Mail::Reply(reply) => match reply {
                Reply::Connected { conn, verdict } => conns.on_connected(ctx, conn, verdict),
                Reply::SendAck { conn, owed_id, message_id, seq, reason } => {
                    conns.on_send_ack(ctx, conn.conn, owed_id, message_id, seq, reason);
                }
                Reply::PushAccepted { channel, activation, push } => channels.on_accepted(channel, activation, push),
                Reply::Kick { conn, disconnect, after, reason } => conns.on_kick(ctx, conn, disconnect, after, reason),
                Reply::Gone { conn, uid } => users.on_gone(ctx, conn, &uid),
                Reply::EnsureMembership { uid, channel, from, index, activation } => {
                    ensure_membership(ctx, slots, uid, channel, from, index, activation);
                }
                Reply::MembershipReady { index, activation, uid } => {
                    channels.on_membership(ctx, slots, index, activation, &uid);
                }
                Reply::Read { job } => channels.on_read(ctx, slots, job),
                Reply::ReadDone { call, part, answer } => calls.on_read(ctx, call, part, answer),
                Reply::Delete { home, call, channel } => channels.on_delete(ctx, slots, home, call, &channel),
                Reply::Deleted { call, result } => calls.on_deleted(ctx, call, result),
            },
        }
        self.drain_slots();
    }

    fn on_peer_up(&mut self, peer: PeerProcess) {
        self.ctx.links.up(peer);
        let Self { ctx, channels, slots, .. } = self;
        slots.on_peer_up(ctx, peer);
        channels.elect_for_lost(ctx, slots);
        channels.on_peer_up(ctx, slots, peer);
        self.audits.on_peer_up(&mut self.ctx);
        self.drain_slots();
    }

    fn on_peer_down(&mut self, node: NodeId, incarnation: Incarnation) {
        self.ctx.links.down(node, incarnation);
        let Self { ctx, channels, slots, .. } = self;
        channels.elect_for_lost(ctx, slots);
        self.drain_slots();
    }

    fn on_peer_frame(&mut self, node: NodeId, incarnation: Incarnation, frame: &Bytes) {
        let mut items = core::mem::take(&mut self.ctx.link_items);
        if let Err(error) = self.ctx.links.receive(node, incarnation, frame, &mut items) {
            self.ctx.note(Note::PeerBroken { node, error });
        }
        for item in items.drain(..) {
            self.on_item(item);
        }
        self.ctx.link_items = items;
        self.drain_slots();
    }

    fn on_item(&mut self, item: Item) {
        let Self { ctx, channels, slots, .. } = self;
        match item {
            Item::Group { group: Group::Slot(slot), envelope } => slots.on_peer(ctx, slot, envelope),
            Item::Group { group: Group::Channel { channel, generation }, envelope } => {
                channels.on_peer(ctx, slots, &channel, generation, raft::Input::Message(envelope));
            }
            Item::Assign { channel, assignment } => {
                let generation = assignment.generation;
                channels.on_peer(ctx, slots, &channel, generation, raft::Input::Assign(assignment));
            }
            Item::Handover { channel, generation, target } => {
                channels.on_peer(ctx, slots, &channel, generation, raft::Input::Handover { target });
            }
            Item::Report { channel, generation, from, report } => {
                channels.on_report(ctx, slots, &channel, generation, from, report);
            }
            Item::Audit { slot, from, scan, said } => {
                self.audits.on_said(&mut Around { ctx, slots, channels }, slot, from, scan, said);
            }
            // Who is alive the links say; load is for placement, which is not decided here yet.
            Item::Ping(_) => {}
        }
    }

    fn on_completed(&mut self, op: crate::ids::OpId, completion: Completion) {
        match self.ctx.complete(op, completion) {
            Done::Persisted(waiters) => waiters.into_iter().for_each(|w| self.on_persisted(w)),
            Done::Loaded(answers) => answers.into_iter().for_each(|(w, found)| self.on_loaded(w, Some(found))),
            Done::LoadFailed(waiters, fault) => {
                self.ctx.note(Note::StoreFailed { fault });
                waiters.into_iter().for_each(|w| self.on_loaded(w, None));
            }
            Done::Failed(fault) => self.halt(fault),
            Done::Late => {}
        }
        self.drain_slots();
    }

    /// A write failed: what was promised cannot be kept, so nothing leaves any more (cluster-and-raft P9).
    fn halt(&mut self, fault: StoreFault) {
        self.ctx.halted = true;
        self.ctx.note(Note::Halted { fault });
    }

    fn on_persisted(&mut self, waiter: PersistWaiter) {
        let Self { ctx, conns, channels, slots, .. } = self;
        match waiter {
            PersistWaiter::SlotGroup(id, token) => slots.on_group_persisted(ctx, id, token),
            PersistWaiter::SlotApplied(id) => slots.on_applied_persisted(ctx, id),
            PersistWaiter::SlotChunk(id, snapshot, last) => slots.on_chunk_persisted(ctx, id, snapshot, last),
            PersistWaiter::SlotRestored(id) => slots.on_restored(ctx, id),
            PersistWaiter::ChannelGroup(index, replica, token) => {
                channels.on_persisted(ctx, slots, index, replica, token);
            }
            PersistWaiter::IdBlock => conns.on_ids(ctx),
            PersistWaiter::SyncOnly => {}
        }
    }

    /// `found` = `None`: the store could not read.
    fn on_loaded(&mut self, waiter: LoadWaiter, found: Option<Vec<Found>>) {
        let Self { ctx, conns, users, channels, slots, calls, .. } = self;
        match waiter {
            LoadWaiter::UserAuth(auth) => users.on_auth_row(ctx, slots, auth, found),
            LoadWaiter::ChannelHead(index, activation) => channels.on_head(ctx, slots, index, activation, found),
            LoadWaiter::ChannelFacts(index, activation) => channels.on_facts(ctx, slots, index, activation, found),
            LoadWaiter::ChannelLog(index, activation) => channels.on_log(ctx, slots, index, activation, found),
            LoadWaiter::ChannelArrears(index, replica) => channels.on_arrears(ctx, index, replica, found),
            LoadWaiter::ChannelEntries(index, replica, request) => {
                channels.on_entries(ctx, slots, index, replica, request, found);
            }
            LoadWaiter::ChannelDedup(index, activation, load) => {
                channels.on_dedup_rows(ctx, index, activation, load, found)
            }
            LoadWaiter::Audit(ticket) => {
                self.audits.on_found(&mut Around { ctx, slots, channels }, ticket, found);
            }
            LoadWaiter::Doomed => channels.on_doomed_rows(ctx, found),
            LoadWaiter::Read(ticket) => channels.on_read_rows(ctx, slots, ticket, found),
            LoadWaiter::Memberships(call) => calls.on_memberships(ctx, call, found),
            LoadWaiter::SlotBoot(id) => slots.on_boot_rows(ctx, id, found),
            LoadWaiter::SlotEntries(id, from) => slots.on_entries(ctx, id, from, found),
            LoadWaiter::SlotRows(id, load) => slots.on_rows(ctx, id, load, found),
            LoadWaiter::SlotLog(id, request) => slots.on_log(ctx, id, request, found),
            LoadWaiter::SlotSnapshot(id, snapshot, offset) => slots.on_snapshot_page(ctx, id, snapshot, offset, found),
            LoadWaiter::SlotAside(id) => slots.on_aside(ctx, id, found),
            LoadWaiter::SlotDirty(id) => {
                let dirty = slots.on_dirty(ctx, id, found);
                channels.on_dirty(ctx, slots, dirty);
                self.audits.on_led(ctx, crate::ids::SlotId(id));
            }
            LoadWaiter::IdBlock => {
                if !found.is_some_and(|f| conns.ids.on_row(ctx, f)) {
                    // Without it an id might repeat one of before.
                    self.halt(StoreFault::Corrupt);
                }
            }
        }
    }

    /// Tells whoever waited for slot commands what they did.
    fn drain_slots(&mut self) {
        for slot in core::mem::take(&mut self.slots.lost) {
            self.channels.on_slot_lost(&mut self.ctx, slot);
        }
        while let Some((waiter, outcome)) = self.slots.done.pop_front() {
            let Self { ctx, users, channels, slots, calls, .. } = self;
            match waiter {
                Waiter::Nobody => {}
                Waiter::Call(call) => {
                    if let Some((uid, flag)) = calls.on_applied(ctx, call, &outcome) {
                        users.kick_device(ctx, &uid, flag);
                    }
                }
                Waiter::Channel { index, activation } => channels.on_assigned(ctx, slots, index, activation, outcome),
                Waiter::Deleted { channel, generation } => channels.on_deleted(ctx, slots, &channel, generation),
                // The row is not there: the channel asks again.
                Waiter::Membership { .. } if outcome != Outcome::Done => {}
                Waiter::Membership { from, index, activation, uid } => {
                    ctx.reply(from, Reply::MembershipReady { index, activation, uid });
                }
            }
        }
    }

    fn on_deadline(&mut self) {
        let mut budget = limits::TURN_EVENTS_MAX;
        while budget > 0
            && let Some(timer) = self.ctx.due()
        {
            budget -= 1;
            let Self { ctx, conns, users, channels, slots, calls, .. } = self;
            match timer {
                Timer::Conn(id) => conns.on_timer(ctx, id),
                Timer::Retry => users.on_retry_timer(ctx),
                Timer::Channel(index) => channels.on_timer(ctx, slots, index),
                Timer::Slot(id) => slots.on_timer(ctx, id),
                Timer::Calls => calls.on_timer(ctx),
                Timer::Audit => self.audits.on_timer(&mut Around { ctx, slots, channels }),
                Timer::Doomed => channels.on_doomed_timer(ctx),
                Timer::Stop => {
                    self.stop_timer_at = Instant::NEVER;
                    self.conns.stop(&mut self.ctx, true);
                }
            }
            self.drain_slots();
        }
    }

    fn check_ready(&mut self) {
        if !self.ready && self.slots.ready() && self.conns.ids.ready() {
            self.ready = true;
            self.ctx.note(Note::Ready);
        }
    }

    /// Nothing new is taken; commits finish within the grace, then connections close (architecture section 9).
    fn begin_stop(&mut self) {
        if self.stopping.is_none() {
            let at = self.ctx.now.mono + limits::STOP_GRACE;
            self.stopping = Some(at);
            self.ctx.arm(Timer::Stop, &mut self.stop_timer_at, at);
            self.conns.stop(&mut self.ctx, false);
        }
    }
}

/// A channel wants a user's membership row: the slot of the user records it (semantics 6.2.8).
#[allow(clippy::too_many_arguments)]
fn ensure_membership(
    ctx: &mut Ctx,
    slots: &mut Slots,
    uid: Text,
    channel: ChannelKey,
    from: ShardId,
    index: u32,
    activation: u64,
) {
    let slot = slot_of(&uid, ctx.config.slots);
    let now_ms = ctx.now.wall.0;
    let command = Command::UpsertMembership { uid: uid.clone(), channel, version: 1, join_seq: 1, now_ms };
    // A slot that does not lead stays silent: the channel's acks wait, and its senders' deadlines answer.
    slots.propose(ctx, slot, command, Waiter::Membership { from, index, activation, uid });
}

/// A cheap read-only look at a shard.
#[derive(Clone, Copy)]
pub struct ShardView<'a> {
    shard: &'a Shard,
}

impl<'a> ShardView<'a> {
    /// All slots lead and calls are served.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.shard.ready
    }

    /// A graceful stop has finished: nothing is owed, all connections are closed, nothing waits for the disk.
    #[must_use]
    pub fn stopped(&self) -> bool {
        let s = self.shard;
        s.stopping.is_some() && s.conns.is_empty() && s.ctx.store_idle() && s.ctx.outputs_waiting() == 0
    }

    /// A write failed: the shard makes no further promise and the process must end.
    #[must_use]
    pub fn halted(&self) -> bool {
        self.shard.ctx.halted
    }

    /// Open sockets.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shard.conns.len()
    }

    /// Users with at least one authenticated connection, by user authority.
    #[must_use]
    pub fn users_online(&self) -> usize {
        self.shard.users.online()
    }

    /// Channels in memory.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.shard.channels.len()
    }

    /// (committed seq, distributed seq) of a channel that is in memory and serves.
    #[must_use]
    pub fn channel(&self, key: &ChannelKey) -> Option<(u64, u64)> {
        self.shard.channels.look(key)
    }

    /// The generation of a channel that is in memory.
    #[must_use]
    pub fn channel_generation(&self, key: &ChannelKey) -> Option<u64> {
        self.shard.channels.generation(key)
    }

    /// Whether this replica leads a channel.
    #[must_use]
    pub fn channel_led(&self, key: &ChannelKey) -> bool {
        self.shard.channels.leads(key)
    }

    /// Whether a slot of this shard is led by it and serves; None: it belongs to another shard.
    #[must_use]
    pub fn slot_served(&self, slot: crate::ids::SlotId) -> Option<bool> {
        self.shard.slots.hosts(slot).then(|| self.shard.slots.leads(slot))
    }

    #[must_use]
    pub fn link_counters(&self) -> &'a crate::link::LinkCounters {
        self.shard.ctx.links.counters()
    }

    #[must_use]
    pub fn counters(&self) -> &'a Counters {
        &self.shard.ctx.counters
    }
}
