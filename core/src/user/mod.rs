//! The user pool: one bounded queue per uid at its authority, the presence registry, and kicks (semantics 2.2, 3.2–3.4).

pub mod chain;
pub mod presence;
mod register;

use crate::cluster::Slots;
use crate::ctx::{Ctx, RunKey};
use crate::event::mail::{ConnectEvent, ConnectVerdict, Reply, SendEvent, Work, WorkClass};
use crate::ids::{ConnRef, ShardId, slot_of};
use crate::limits;
use crate::map::{BTreeMap, BTreeSet, Map, hasher};
use crate::store::rows::{Device, Format};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use chain::{Flow, USER_SEND_CHAIN};
use presence::Presence;
use slab::Slab;
use smallvec::SmallVec;
use wukong_proto::{ReasonCode, Text};

/// An event of one uid, in arrival order.
#[derive(Clone, Debug)]
enum UserEvent {
    Connect(Box<ConnectEvent>, ShardId),
    Send(Box<SendEvent>, ShardId),
    RecvAck {
        conn: ConnRef,
        message_id: i64,
        from: ShardId,
    },
    /// Never refused.
    Gone(ConnRef),
}

#[derive(Clone, Debug)]
struct User {
    uid: Text,
    queue: VecDeque<UserEvent>,
    scheduled: bool,
    conns: SmallVec<[Presence; 1]>,
    /// Connects whose device row is being loaded.
    auths: SmallVec<[u64; 1]>,
}

/// A CONNECT whose device row is being read.
#[derive(Clone, Debug)]
struct Auth {
    user: u32,
    event: Box<ConnectEvent>,
    /// The connection ended meanwhile.
    gone: bool,
}

/// All users whose authority is this shard and who are online or have something queued.
#[derive(Clone, Debug)]
pub struct Users {
    by_uid: Map<Text, u32>,
    slab: Slab<User>,
    auths: BTreeMap<u64, Auth>,
    next_auth: u64,
    online: usize,
    /// Connections with RECVs to repeat, by when the first of each is due.
    retrying: BTreeSet<(Instant, u32, ConnRef)>,
    retry_at: Instant,
}

impl Users {
    pub fn new(hash_seed: u64) -> Self {
        Self {
            by_uid: Map::with_hasher(hasher(hash_seed)),
            slab: Slab::new(),
            auths: BTreeMap::new(),
            next_auth: 0,
            online: 0,
            retrying: BTreeSet::new(),
            retry_at: Instant::NEVER,
        }
    }

    /// Users with at least one authenticated connection.
    #[must_use]
    pub const fn online(&self) -> usize {
        self.online
    }

    fn entry(&mut self, uid: &Text) -> u32 {
        if let Some(index) = self.by_uid.get(uid) {
            return *index;
        }
        let uid = uid.detached();
        let user = User {
            uid: uid.clone(),
            queue: VecDeque::new(),
            scheduled: false,
            conns: SmallVec::new(),
            auths: SmallVec::new(),
        };
        let index = self.slab.insert(user) as u32;
        self.by_uid.insert(uid, index);
        index
    }

    /// Forgets a user with nothing left.
    fn retire(&mut self, index: u32) {
        let user = &self.slab[index as usize];
        if user.conns.is_empty() && user.queue.is_empty() && user.auths.is_empty() && !user.scheduled {
            let user = self.slab.remove(index as usize);
            self.by_uid.remove(&user.uid);
        }
    }

    fn enqueue(&mut self, ctx: &mut Ctx, uid: &Text, event: UserEvent) {
        let index = self.entry(uid);
        let user = &mut self.slab[index as usize];
        if user.queue.len() >= limits::USER_QUEUE_MAX && !matches!(event, UserEvent::Gone(_)) {
            ctx.counters.queue_refusals += 1;
            return refuse(ctx, event);
        }
        user.queue.push_back(event);
        if !user.scheduled {
            user.scheduled = true;
            ctx.run.push_back(RunKey::User(index));
        }
    }

    pub fn on_connect(&mut self, ctx: &mut Ctx, from: ShardId, event: Box<ConnectEvent>) {
        let uid = event.uid.clone();
        self.enqueue(ctx, &uid, UserEvent::Connect(event, from));
    }

    pub fn on_send(&mut self, ctx: &mut Ctx, from: ShardId, event: Box<SendEvent>) {
        let uid = event.from_uid.clone();
        self.enqueue(ctx, &uid, UserEvent::Send(event, from));
    }

    pub fn on_recv_ack(&mut self, ctx: &mut Ctx, from: ShardId, uid: &Text, conn: ConnRef, message_id: i64) {
        self.enqueue(ctx, uid, UserEvent::RecvAck { conn, message_id, from });
    }

    pub fn on_gone(&mut self, ctx: &mut Ctx, conn: ConnRef, uid: &Text) {
        self.enqueue(ctx, uid, UserEvent::Gone(conn));
    }

    /// Runs one user's queue: up to a batch, strictly in order. Returns the events handled.
    pub fn run(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) -> usize {
        let mut handled = 0;
        while handled < limits::DRAIN_EVENTS_MAX {
            let Some(user) = self.slab.get_mut(index as usize) else {
                return handled;
            };
            let Some(event) = user.queue.pop_front() else {
                user.scheduled = false;
                self.retire(index);
                return handled;
            };
            handled += 1;
            match event {
                UserEvent::Connect(event, from) => {
                    ctx.work_done(from, WorkClass::Admit);
                    self.authenticate(ctx, slots, index, event);
                }
                UserEvent::Send(mut event, from) => match run_chain(ctx, &mut event) {
                    Flow::Route(to) => {
                        ctx.work_done(from, WorkClass::Admit);
                        ctx.work(to, Work::ChannelSend(event));
                    }
                    Flow::Wait(to) => {
                        // Nothing of this user overtakes the event that waits.
                        self.slab[index as usize].queue.push_front(UserEvent::Send(event, from));
                        ctx.wait_credit(to, WorkClass::Route, RunKey::User(index));
                        return handled;
                    }
                    Flow::Stop(reason) => {
                        ctx.work_done(from, WorkClass::Admit);
                        answer_unstored(ctx, &event, reason);
                    }
                    Flow::Continue => unreachable!("the chain ends with a decision"),
                },
                UserEvent::RecvAck { conn, message_id, from } => {
                    ctx.work_done(from, WorkClass::Admit);
                    self.clear_retry(ctx, index, conn, message_id);
                }
                UserEvent::Gone(conn) => self.unregister(index, conn),
            }
        }
        ctx.run.push_back(RunKey::User(index));
        handled
    }

    /// Token check (semantics 3.2), then registration. The device row may have to be read first.
    fn authenticate(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, event: Box<ConnectEvent>) {
        use crate::channel::id::MANAGER_UID;
        if &*event.uid == MANAGER_UID {
            let fine = ctx.config.manager_token.as_ref().is_none_or(|t| *t == event.token);
            let level = if fine { Ok(0) } else { Err(ReasonCode::AUTH_FAIL) };
            return self.register(ctx, index, &event, level);
        }
        let visitor = event.uid.ends_with("___vstr");
        if !ctx.config.token_auth || visitor {
            return self.register(ctx, index, &event, Ok(0));
        }
        let slot = slot_of(&event.uid, ctx.config.slots);
        if !slots.leads(slot) {
            return verdict(ctx, event.conn, ConnectVerdict::Unavailable);
        }
        let key = keys::device(slot, &event.uid, event.device_flag);
        if slots.begin_read(slot, &key) {
            let auth = self.next_auth;
            self.next_auth += 1;
            ctx.load(crate::ctx::LoadWaiter::UserAuth(auth), [Query::Get { family: Family::Meta, key }]);
            self.slab[index as usize].auths.push(auth);
            self.auths.insert(auth, Auth { user: index, event, gone: false });
        } else {
            let row = slots.read_done(slot, &key, None);
            let level = judge(row, &event.token);
            self.register(ctx, index, &event, level);
        }
    }

    /// The device row of a CONNECT was read; `None` = the store could not.
    pub fn on_auth_row(&mut self, ctx: &mut Ctx, slots: &mut Slots, auth: u64, found: Option<Vec<Found>>) {
        let Some(Auth { user, event, gone }) = self.auths.remove(&auth) else {
            return;
        };
        self.slab[user as usize].auths.retain(|a| *a != auth);
        let slot = slot_of(&event.uid, ctx.config.slots);
        let key = keys::device(slot, &event.uid, event.device_flag);
        match found.and_then(|f| f.into_iter().next()) {
            Some(Found::Point(loaded)) => {
                let row = slots.read_done(slot, &key, Some(loaded));
                if !gone {
                    let level = judge(row, &event.token);
                    self.register(ctx, user, &event, level);
                }
            }
            _ => {
                slots.read_done(slot, &key, None);
                verdict(ctx, event.conn, ConnectVerdict::Unavailable);
            }
        }
        if self.slab.contains(user as usize) {
            self.retire(user);
        }
    }
}

/// Level of a device whose token is right.
fn judge(row: Option<bytes::Bytes>, token: &Text) -> Result<u8, ReasonCode> {
    match row.map(|r| Device::decode(&r)) {
        Some(Ok(device)) if !token.is_empty() && device.token == *token => Ok(device.level),
        _ => Err(ReasonCode::AUTH_FAIL),
    }
}

fn verdict(ctx: &mut Ctx, conn: ConnRef, verdict: ConnectVerdict) {
    ctx.reply(conn.shard, Reply::Connected { conn, verdict });
}

fn run_chain(ctx: &mut Ctx, event: &mut SendEvent) -> Flow {
    for stage in USER_SEND_CHAIN {
        match (stage.run)(ctx, event) {
            Flow::Continue => {}
            decided => return decided,
        }
    }
    Flow::Stop(ReasonCode::SYSTEM_ERROR)
}

/// The terminal answer of an event that finds its queue full (semantics 2.2.4).
fn refuse(ctx: &mut Ctx, event: UserEvent) {
    match event {
        UserEvent::Connect(event, from) => {
            ctx.work_done(from, WorkClass::Admit);
            verdict(ctx, event.conn, ConnectVerdict::Unavailable);
        }
        UserEvent::Send(event, from) => {
            ctx.work_done(from, WorkClass::Admit);
            answer_unstored(ctx, &event, ReasonCode::RATE_LIMIT);
        }
        UserEvent::RecvAck { from, .. } => ctx.work_done(from, WorkClass::Admit),
        UserEvent::Gone(_) => {}
    }
}

/// The terminal answer of a SEND that is not stored: seq 0, and the id it was given.
pub(crate) fn answer_unstored(ctx: &mut Ctx, event: &SendEvent, reason: ReasonCode) {
    let ack =
        Reply::SendAck { conn: event.conn, owed_id: event.message_id, message_id: event.message_id, seq: 0, reason };
    ctx.reply(event.conn.shard, ack);
}
