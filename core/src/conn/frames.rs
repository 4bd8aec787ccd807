//! Inbound bytes: frames, CONNECT, SEND (decrypted at the owner), RECVACK, PING (wire-protocol 8).

use super::{Conns, Owed, State, crypto};
use crate::channel::id::check_uid;
use crate::ctx::{Ctx, RunKey};
use crate::event::mail::{ConnectEvent, SendEvent, Work, WorkClass};
use crate::ids::{ConnId, ConnRef, ShardId, shard_of, slot_of};
use crate::limits;
use crate::note::Note;
use crate::output::CloseReason;
use crate::time::Instant;
use alloc::boxed::Box;
use bytes::Bytes;
use wukong_proto::{Connect, Detection, Frame, Protocol, ReasonCode, Send, Text, detect};

/// Whether the next frame may be handled now.
enum Step {
    Again,
    /// Something must happen first: the connection is run again when it has.
    Wait,
}

impl Conns {
    /// Bytes arrived.
    pub fn received(&mut self, ctx: &mut Ctx, id: ConnId, bytes: Bytes) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        if conn.state == State::Closing || bytes.is_empty() {
            return;
        }
        conn.last_active = ctx.now.mono;
        if !conn.detected {
            match detect(&bytes) {
                Detection::Is(Protocol::Binary, _) => conn.detected = true,
                Detection::Is(Protocol::JsonRpc, _) => {
                    return self.close(ctx, id, CloseReason::JsonRpcUnsupported);
                }
                // White space only: it cannot become a binary client any more.
                Detection::NeedMore => return,
                Detection::Violation => {
                    ctx.counters.violations += 1;
                    return self.close(ctx, id, CloseReason::Violation);
                }
            }
        }
        conn.decoder.feed(bytes);
        let max = match conn.state {
            State::Authenticating => limits::HELD_BYTES_MAX,
            _ => limits::INBOUND_BYTES_MAX,
        };
        self.run(ctx, id);
        if self.map.get(&id).is_some_and(|c| c.decoder.buffered() > max) {
            self.close(ctx, id, CloseReason::Violation);
        }
    }

    /// A credit came back that the connection may have waited for.
    pub fn credited(&mut self, ctx: &mut Ctx, id: ConnId) {
        if let Some(conn) = self.map.get_mut(&id) {
            conn.waits_credit = false;
        }
        self.run(ctx, id);
    }

    /// False: the connection must wait for something else first, so its socket should not be read.
    #[must_use]
    pub fn wants_bytes(&self, id: ConnId) -> bool {
        self.map.get(&id).is_none_or(|c| !c.blocked())
    }

    /// Handles buffered frames until none is whole, or the connection must wait.
    pub fn run(&mut self, ctx: &mut Ctx, id: ConnId) {
        for turn in 0.. {
            if turn == limits::DRAIN_EVENTS_MAX {
                return ctx.run.push_back(RunKey::Conn(id));
            }
            let Some(conn) = self.map.get_mut(&id) else {
                return;
            };
            if self.stopping || conn.blocked() {
                return;
            }
            // Admission before decoding: a decoded frame is always dealt with.
            if conn.state != State::AwaitConnect && conn.decoder.buffered() > 0 {
                let to = home(&conn.uid, ctx);
                if !ctx.has_credit(to, WorkClass::Admit) {
                    conn.waits_credit = true;
                    return ctx.wait_credit(to, WorkClass::Admit, RunKey::ConnCredited(id));
                }
            }
            if let Some(send) = conn.pending.take() {
                if matches!(self.on_send(ctx, id, *send), Step::Wait) {
                    return;
                }
                continue;
            }
            match conn.decoder.next() {
                Ok(None) => {
                    conn.early = false;
                    return;
                }
                Ok(Some(frame)) => {
                    if matches!(self.on_frame(ctx, id, frame), Step::Wait) {
                        return;
                    }
                }
                Err(violation) => {
                    ctx.counters.violations += 1;
                    ctx.note(Note::Broken { conn: id, violation });
                    return self.close(ctx, id, CloseReason::Violation);
                }
            }
        }
    }

    fn on_frame(&mut self, ctx: &mut Ctx, id: ConnId, frame: Frame) -> Step {
        let Some(conn) = self.map.get(&id) else {
            return Step::Wait;
        };
        match (conn.state, frame) {
            (State::AwaitConnect, Frame::Connect(connect)) => self.on_connect(ctx, id, connect),
            (State::AwaitConnect, _) => {
                ctx.counters.violations += 1;
                self.close(ctx, id, CloseReason::Violation);
            }
            (_, Frame::Send(send)) => return self.on_send(ctx, id, send),
            (_, Frame::RecvAck(ack)) => {
                ctx.counters.recvacks += 1;
                let conn_ref = ConnRef { shard: ctx.me(), conn: id };
                let (to, uid) = (home(&conn.uid, ctx), conn.uid.clone());
                // NoPersist messages are not tracked (wire-protocol 8.5).
                if !ack.flags.no_persist() {
                    ctx.work(to, Work::RecvAck { conn: conn_ref, uid, message_id: ack.message_id });
                }
            }
            (_, Frame::Ping) => {
                ctx.counters.pings += 1;
                self.encode(ctx, id, |out| {
                    wukong_proto::encode_pong(out);
                    Ok::<(), ()>(())
                });
            }
            (_, Frame::Disconnect(_)) => self.close(ctx, id, CloseReason::PeerDisconnect),
            (_, Frame::Pong | Frame::Sub(_)) => ctx.counters.frames_ignored += 1,
            (_, _) => {
                ctx.counters.violations += 1;
                self.close(ctx, id, CloseReason::Violation);
            }
        }
        Step::Again
    }

    fn on_connect(&mut self, ctx: &mut Ctx, id: ConnId, connect: Connect) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        conn.announced = connect.version;
        conn.version = connect.version.min(wukong_proto::MAX_VERSION);
        // Kept for the life of the connection: own memory, so that the receive buffer can go.
        let uid = connect.uid.detached();
        let bad_uid = check_uid(&uid).is_err();
        if bad_uid || connect.token.len() > limits::TOKEN_MAX || connect.device_id.len() > limits::TOKEN_MAX {
            return self.refuse(ctx, id, ReasonCode::AUTH_FAIL);
        }
        let key = match crypto::check_client_key(&connect.client_key) {
            Ok(key) => key,
            Err(crypto::KeyError::Empty) => {
                return self.refuse(ctx, id, ReasonCode::CLIENT_KEY_IS_EMPTY);
            }
            Err(crypto::KeyError::NotUsable) => return self.refuse(ctx, id, ReasonCode::AUTH_FAIL),
        };
        let to = home(&uid, ctx);
        if !ctx.has_credit(to, WorkClass::Admit) {
            return self.close(ctx, id, CloseReason::ConnectUnavailable);
        }
        conn.uid = uid.clone();
        conn.client_key = Some(key);
        conn.client_timestamp = connect.client_timestamp;
        conn.state = State::Authenticating;
        conn.deadline = ctx.now.mono + limits::AUTH;
        let event = ConnectEvent {
            conn: ConnRef { shard: ctx.me(), conn: id },
            uid,
            token: connect.token,
            device_id: connect.device_id.detached(),
            device_flag: connect.device_flag,
        };
        ctx.work(to, Work::Connect(Box::new(event)));
        self.rearm(ctx, id);
    }

    fn on_send(&mut self, ctx: &mut Ctx, id: ConnId, send: Send) -> Step {
        let Some(message_id) = self.ids.next(ctx) else {
            // Nothing else of this connection is decoded meanwhile.
            if let Some(conn) = self.map.get_mut(&id) {
                conn.starved = true;
                conn.pending = Some(Box::new(send));
                // Its ten seconds began when it was decoded, which may be more than one wait ago.
                conn.pending_until = conn.pending_until.min(ctx.now.mono + limits::OWED_ACK);
                let until = conn.pending_until;
                self.arm_by(ctx, id, until);
            }
            self.starved.push(id);
            return Step::Wait;
        };
        self.admit(ctx, id, message_id, send);
        Step::Again
    }

    /// A block of ids is durable: SENDs that waited for one go first.
    pub fn on_ids(&mut self, ctx: &mut Ctx) {
        self.ids.on_reserved();
        for id in core::mem::take(&mut self.starved) {
            if let Some(conn) = self.map.get_mut(&id) {
                conn.starved = false;
                ctx.run.push_back(RunKey::Conn(id));
            }
        }
    }

    fn admit(&mut self, ctx: &mut Ctx, id: ConnId, message_id: i64, send: Send) {
        ctx.counters.sends += 1;
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        if conn.state == State::Closing {
            return;
        }
        let until = core::mem::replace(&mut conn.pending_until, Instant::NEVER);
        let deadline = until.min(ctx.now.mono + limits::OWED_ACK);
        let echo = if conn.version >= 6 { send.client_msg_no.clone() } else { Text::default() };
        conn.owed.push_back(Owed {
            message_id,
            client_seq: send.client_seq,
            client_msg_no: echo,
            flags: send.flags,
            deadline,
            bytes: send.payload.len() as u32,
            answered: false,
        });
        conn.owed_count += 1;
        conn.owed_bytes += send.payload.len();
        let Some(keys) = &conn.keys else { return };
        let payload = match crypto::open_send(keys, &send, &mut self.scratch) {
            Ok(payload) => payload,
            Err(_) if conn.early => {
                // Sent before this session's keys existed: clients repeat it once they have them (wire-protocol 15.4),
                // and a refusal now would be taken for the answer to the repetition.
                conn.owed_bytes -= send.payload.len();
                conn.owed_count -= 1;
                conn.owed.pop_back();
                ctx.counters.frames_ignored += 1;
                return;
            }
            Err(_) => {
                return self.on_send_ack(ctx, id, message_id, message_id, 0, ReasonCode::PAYLOAD_DECODE_ERROR);
            }
        };
        let to = home(&conn.uid, ctx);
        let event = SendEvent {
            conn: ConnRef { shard: ctx.me(), conn: id },
            message_id,
            deadline,
            from_uid: conn.uid.clone(),
            channel_id: send.channel_id,
            channel_type: send.channel_type,
            channel: None,
            flags: send.flags,
            setting: send.setting,
            client_seq: send.client_seq,
            client_msg_no: send.client_msg_no,
            stream_no: send.stream_no,
            expire: send.expire,
            topic: send.topic,
            payload,
        };
        ctx.work(to, Work::Send(Box::new(event)));
        self.arm_by(ctx, id, deadline);
    }
}

/// The shard of a user's authority.
fn home(uid: &Text, ctx: &Ctx) -> ShardId {
    shard_of(slot_of(uid, ctx.config.slots), ctx.config.shards)
}
