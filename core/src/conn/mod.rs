//! Connections: one machine per socket, at the shard that accepted it (semantics 3.1).

mod base64;
pub mod crypto;
pub mod deliver;
pub mod frames;
pub mod ids;
mod timers;

use crate::ctx::{Ctx, Timer};
use crate::event::mail::{ConnectVerdict, Reply};
use crate::ids::{ConnId, ConnRef, shard_of, slot_of};
use crate::limits;
use crate::map::{BTreeSet, Map, hasher};
use crate::note::Note;
use crate::output::{CloseReason, Frames, Output};
use crate::rng::Stream;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::{Bytes, BytesMut};
use core::time::Duration;
use crypto::{Scratch, SessionKeys};
use ids::Ids;
use wukong_proto::{ConnAck, Decoder, Disconnect, Flags, ReasonCode, SendAck, Text};

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitConnect,
    Authenticating,
    Active,
    /// Kicked: SENDs are still acknowledged, nothing new is pushed, and it closes at the deadline.
    Draining(CloseReason),
    /// Close was asked for; only `ConnClosed` is awaited.
    Closing,
}

/// A SEND that has no SENDACK yet (semantics 3.1.5).
#[derive(Clone, Debug)]
struct Owed {
    message_id: i64,
    client_seq: u32,
    client_msg_no: Text,
    flags: Flags,
    deadline: Instant,
    bytes: u32,
    answered: bool,
}

/// Fields lie in memory as they stand here: what every frame touches first, so that it is few cache lines.
#[repr(C)]
#[derive(Clone, Debug)]
struct Conn {
    state: State,
    /// The protocol was recognised from the first byte.
    detected: bool,
    /// Protocol version as negotiated.
    version: u8,
    /// A decoded SEND waits for a message id, in `pending`.
    starved: bool,
    /// What is being decoded arrived before CONNACK was written.
    early: bool,
    /// Its next run comes with a credit.
    waits_credit: bool,
    owed_count: usize,
    /// Payload bytes of what is owed.
    owed_bytes: usize,
    pending: Option<Box<wukong_proto::Send>>,
    last_active: Instant,
    /// When `pending` is answered at the latest.
    pending_until: Instant,
    /// Of the state: first frame, authentication, draining.
    deadline: Instant,
    timer_at: Instant,
    /// Bytes handed over and not yet credited, and bytes in `frames`.
    unwritten: usize,
    decoder: Decoder,
    uid: Text,
    /// Frames to hand to the shell at the end of the turn.
    frames: Frames,
    owed: VecDeque<Owed>,
    keys: Option<SessionKeys>,
    /// Protocol version of the client as announced.
    announced: u8,
    client_key: Option<[u8; 32]>,
    client_timestamp: i64,
}

impl Conn {
    /// Nothing more may be decoded before something else has happened (back-pressure to the socket, semantics 3.1.5).
    fn blocked(&self) -> bool {
        matches!(self.state, State::Authenticating | State::Closing)
            || self.starved
            || self.waits_credit
            || self.owes_too_much()
    }

    fn owes_too_much(&self) -> bool {
        self.owed_count >= limits::OWED_ACKS_MAX || self.owed_bytes >= limits::OWED_BYTES_MAX
    }
}

/// All connections of one shard.
#[derive(Clone, Debug)]
pub struct Conns {
    map: Map<ConnId, Conn>,
    /// The keys of `map`, for what must be done in a fixed order.
    order: BTreeSet<ConnId>,
    pub ids: Ids,
    secrets: Stream,
    scratch: Scratch,
    encoded: BytesMut,
    unauthenticated: usize,
    /// Connections whose next SEND waits for a message id.
    starved: Vec<ConnId>,
    pub stopping: bool,
}

impl Conns {
    pub fn boot(ctx: &mut Ctx, secrets: Stream, hash_seed: u64) -> Self {
        Self {
            map: Map::with_hasher(hasher(hash_seed)),
            order: BTreeSet::new(),
            ids: Ids::boot(ctx),
            secrets,
            scratch: Scratch::default(),
            encoded: BytesMut::new(),
            unauthenticated: 0,
            starved: Vec::new(),
            stopping: false,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// A socket was accepted.
    pub fn open(&mut self, ctx: &mut Ctx, id: ConnId) {
        ctx.counters.connections_opened += 1;
        let now = ctx.now.mono;
        let mut conn = Conn {
            state: State::AwaitConnect,
            decoder: Decoder::new(wukong_proto::MAX_VERSION),
            detected: false,
            announced: 0,
            version: 0,
            uid: Text::default(),
            client_key: None,
            client_timestamp: 0,
            keys: None,
            owed: VecDeque::new(),
            owed_count: 0,
            frames: Frames::new(),
            unwritten: 0,
            last_active: now,
            deadline: now + limits::FIRST_FRAME,
            timer_at: Instant::NEVER,
            starved: false,
            pending: None,
            pending_until: Instant::NEVER,
            owed_bytes: 0,
            early: false,
            waits_credit: false,
        };
        let refused = if self.stopping {
            Some(CloseReason::Stopping)
        } else if self.map.len() >= limits::CONNS_MAX || self.unauthenticated >= limits::UNAUTHENTICATED_MAX {
            Some(CloseReason::TooMany)
        } else {
            None
        };
        self.unauthenticated += 1;
        let deadline = conn.deadline;
        ctx.arm(Timer::Conn(id), &mut conn.timer_at, deadline);
        self.map.insert(id, conn);
        self.order.insert(id);
        if let Some(reason) = refused {
            self.close(ctx, id, reason);
        }
    }

    /// The socket is gone.
    pub fn closed(&mut self, ctx: &mut Ctx, id: ConnId) {
        self.leave(ctx, id);
        self.order.remove(&id);
        if let Some(mut conn) = self.map.remove(&id) {
            ctx.arm(Timer::Conn(id), &mut conn.timer_at, Instant::NEVER);
            ctx.counters.connections_closed += 1;
        }
    }

    /// Ends the session, once: the user authority forgets the connection.
    fn leave(&mut self, ctx: &mut Ctx, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        match conn.state {
            State::AwaitConnect => self.unauthenticated -= 1,
            State::Authenticating | State::Active | State::Draining(_) => {
                if conn.state == State::Authenticating {
                    self.unauthenticated -= 1;
                }
                let uid = conn.uid.clone();
                let to = shard_of(slot_of(&uid, ctx.config.slots), ctx.config.shards);
                ctx.reply(to, Reply::Gone { conn: ConnRef { shard: ctx.me(), conn: id }, uid });
            }
            State::Closing => {}
        }
        conn.state = State::Closing;
        conn.owed.clear();
        (conn.owed_count, conn.owed_bytes) = (0, 0);
    }

    /// Closes after what was written before (semantics 3.1).
    pub fn close(&mut self, ctx: &mut Ctx, id: ConnId, reason: CloseReason) {
        let Some(conn) = self.map.get(&id) else {
            return;
        };
        if conn.state == State::Closing {
            return;
        }
        self.flush_one(ctx, id);
        self.leave(ctx, id);
        if let Some(conn) = self.map.get_mut(&id) {
            // Nothing further is decoded or written.
            conn.decoder = Decoder::new(0);
            ctx.arm(Timer::Conn(id), &mut conn.timer_at, Instant::NEVER);
        }
        ctx.note(Note::Closed { conn: id, reason });
        ctx.push(Output::Close { conn: id, reason });
    }

    /// Bytes left for the kernel.
    pub fn drained(&mut self, id: ConnId, bytes: u32) {
        if let Some(conn) = self.map.get_mut(&id) {
            conn.unwritten = conn.unwritten.saturating_sub(bytes as usize);
        }
    }

    /// Queues one encoded frame; closes the connection when too much waits.
    fn write(&mut self, ctx: &mut Ctx, id: ConnId, frame: Bytes) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        if conn.state == State::Closing {
            return;
        }
        conn.unwritten += frame.len();
        if conn.frames.is_empty() {
            ctx.dirty_conns.push(id);
        }
        conn.frames.push(frame);
        if conn.unwritten > limits::OUTBOUND_BYTES_MAX {
            // What waits is useless to a reader that does not read; the client syncs when it comes back.
            self.close(ctx, id, CloseReason::SlowReader);
        }
    }

    fn flush_one(&mut self, ctx: &mut Ctx, id: ConnId) {
        if let Some(conn) = self.map.get_mut(&id)
            && !conn.frames.is_empty()
        {
            let frames = core::mem::take(&mut conn.frames);
            ctx.push(Output::Write { conn: id, frames });
        }
    }

    /// Hands this turn's frames to the shell, one output per connection.
    pub fn flush(&mut self, ctx: &mut Ctx) {
        for id in core::mem::take(&mut ctx.dirty_conns) {
            self.flush_one(ctx, id);
        }
    }

    /// The user authority answered a CONNECT.
    pub fn on_connected(&mut self, ctx: &mut Ctx, conn_ref: ConnRef, verdict: ConnectVerdict) {
        let id = conn_ref.conn;
        match verdict {
            ConnectVerdict::Accepted => self.accept(ctx, id),
            ConnectVerdict::Refused(reason) => self.refuse(ctx, id, reason),
            ConnectVerdict::Unavailable => self.close(ctx, id, CloseReason::ConnectUnavailable),
        }
    }

    fn accept(&mut self, ctx: &mut Ctx, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        if conn.state != State::Authenticating {
            return;
        }
        let mut random = [0; 48];
        self.secrets.fill(&mut random);
        let secret: [u8; 32] = core::array::from_fn(|i| random[i]);
        let salt = crypto::salt(core::array::from_fn(|i| random[32 + i]));
        let Some(public) = conn.client_key else {
            return;
        };
        let (keys, server_key) = match crypto::exchange(public, secret, salt) {
            Ok(x) => x,
            Err(_) => return self.refuse(ctx, id, ReasonCode::AUTH_FAIL),
        };
        let ack = ConnAck {
            server_version: (conn.announced > 3).then_some(conn.version),
            time_diff: (ctx.now.wall.0 as i64).wrapping_sub(conn.client_timestamp),
            reason: ReasonCode::SUCCESS,
            server_key,
            salt: keys.salt(),
            node_id: u64::from(ctx.config.node.0),
        };
        conn.keys = Some(keys);
        conn.client_key = None;
        conn.state = State::Active;
        conn.early = conn.decoder.buffered() > 0;
        conn.deadline = Instant::NEVER;
        self.unauthenticated -= 1;
        ctx.counters.connects_accepted += 1;
        ctx.note(Note::Connected { conn: id, uid: conn.uid.clone() });
        let version = conn.version;
        conn.decoder.set_version(version);
        self.rearm(ctx, id);
        self.encode(ctx, id, |out| wukong_proto::encode_conn_ack(&ack, version, out));
        self.run(ctx, id);
    }

    /// CONNACK with the reason, then close (wire-protocol 8.1).
    fn refuse(&mut self, ctx: &mut Ctx, id: ConnId, reason: ReasonCode) {
        let Some(conn) = self.map.get(&id) else {
            return;
        };
        let ack = ConnAck {
            server_version: (conn.announced > 3).then_some(conn.version),
            time_diff: 0,
            reason,
            server_key: Text::default(),
            salt: Text::default(),
            node_id: u64::from(ctx.config.node.0),
        };
        let (version, uid) = (conn.version, conn.uid.clone());
        ctx.counters.connects_refused += 1;
        ctx.note(Note::ConnectRefused { conn: id, uid, reason });
        self.encode(ctx, id, |out| wukong_proto::encode_conn_ack(&ack, version, out));
        self.close(ctx, id, CloseReason::ConnectRefused);
    }

    /// Encodes one frame into the shared buffer and queues it.
    fn encode<E>(&mut self, ctx: &mut Ctx, id: ConnId, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) {
        debug_assert!(self.encoded.is_empty());
        // Frames are cut from chunks, so that most cost no allocation of their own.
        if self.encoded.capacity() < limits::FRAME_CHUNK / 8 {
            self.encoded.reserve(limits::FRAME_CHUNK);
        }
        if write(&mut self.encoded).is_ok() {
            let frame = self.encoded.split().freeze();
            self.write(ctx, id, frame);
        } else {
            // A frame that cannot be encoded for this version (seq beyond u32) is not delivered (wire-protocol 4.5).
            self.encoded.clear();
            ctx.counters.frames_ignored += 1;
        }
    }

    /// The user authority replaced or kicked this connection (semantics 3.4).
    pub fn on_kick(
        &mut self,
        ctx: &mut Ctx,
        conn_ref: ConnRef,
        disconnect: Option<&'static str>,
        after: Duration,
        reason: CloseReason,
    ) {
        let id = conn_ref.conn;
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        if conn.state != State::Active {
            return;
        }
        conn.state = State::Draining(reason);
        conn.deadline = ctx.now.mono + after;
        if let Some(text) = disconnect {
            let frame =
                Disconnect { flags: Flags::default(), reason: ReasonCode::CONNECT_KICK, text: Text::from(text) };
            self.encode(ctx, id, |out| wukong_proto::encode_disconnect(&frame, out));
        }
        self.rearm(ctx, id);
    }

    /// Writes the one SENDACK that a SEND is owed; later ones are discarded.
    pub fn on_send_ack(
        &mut self,
        ctx: &mut Ctx,
        conn: ConnId,
        owed_id: i64,
        message_id: i64,
        seq: u64,
        reason: ReasonCode,
    ) {
        let Some(c) = self.map.get_mut(&conn) else {
            return;
        };
        let Ok(at) = c.owed.binary_search_by_key(&owed_id, |o| o.message_id) else {
            return;
        };
        let owed = &mut c.owed[at];
        if core::mem::replace(&mut owed.answered, true) {
            return;
        }
        let owed_bytes = owed.bytes as usize;
        let version = c.version;
        // A seq that the client's version cannot carry (semantics 4.9.4).
        let too_long = version < 6 && seq > u64::from(u32::MAX);
        let (seq, reason) = if too_long { (0, ReasonCode::MESSAGE_SEQ_EXHAUSTED) } else { (seq, reason) };
        let ack = SendAck {
            flags: owed.flags,
            message_id,
            client_seq: owed.client_seq,
            message_seq: seq,
            reason: reason.for_version(version),
            client_msg_no: owed.client_msg_no.clone(),
        };
        let was_full = c.owes_too_much();
        c.owed_count -= 1;
        c.owed_bytes -= owed_bytes;
        while c.owed.front().is_some_and(|o| o.answered) {
            c.owed.pop_front();
        }
        if reason == ReasonCode::SUCCESS {
            ctx.counters.sendacks_success += 1;
        } else {
            ctx.counters.sendacks_refused += 1;
        }
        self.encode(ctx, conn, |out| wukong_proto::encode_send_ack(&ack, version, out));
        if was_full {
            ctx.run.push_back(crate::ctx::RunKey::Conn(conn));
        }
        if self.stopping && self.map.get(&conn).is_some_and(|c| c.owed_count == 0) {
            self.close(ctx, conn, CloseReason::Stopping);
        }
    }

    /// Graceful stop: closes every connection that owes nothing (all of them once `force`).
    pub fn stop(&mut self, ctx: &mut Ctx, force: bool) {
        self.stopping = true;
        let idle = |id: &ConnId| force || self.map.get(id).is_some_and(|c| c.owed_count == 0);
        let ids: Vec<ConnId> = self.order.iter().copied().filter(idle).collect();
        for id in ids {
            self.close(ctx, id, CloseReason::Stopping);
        }
    }
}
