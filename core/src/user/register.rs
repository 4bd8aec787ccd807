//! Registration, kicks (semantics 3.4) and the retry table of a user's connections.

use super::{User, Users, verdict};
use crate::ctx::{Ctx, RunKey, Timer};
use crate::event::mail::{ConnectEvent, ConnectVerdict, Delivery, Reply, Work, WorkClass};
use crate::ids::{ConnRef, ShardId};
use crate::limits;
use crate::mutants::Mutant;
use crate::output::CloseReason;
use crate::time::Instant;
use crate::user::presence::Presence;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use wukong_proto::{ReasonCode, Text};

const KICKED_TEXT: &str = "login in other device";
const TOKEN_TEXT: &str = "the token of this device was replaced";

impl Users {
    /// Ends authentication: registers the connection and answers its owner.
    pub(super) fn register(&mut self, ctx: &mut Ctx, index: u32, event: &ConnectEvent, level: Result<u8, ReasonCode>) {
        let level = match level {
            Ok(level) => level,
            Err(reason) => return verdict(ctx, event.conn, ConnectVerdict::Refused(reason)),
        };
        let user = &mut self.slab[index as usize];
        let before = user.conns.len();
        kick_replaced(ctx, user, event, level);
        if user.conns.len() >= limits::CONNS_PER_UID {
            kick_oldest_slave(ctx, user);
        }
        user.conns.push(Presence {
            conn: event.conn,
            device_flag: event.device_flag,
            device_id: event.device_id.clone(),
            level,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            in_retry_queue: false,
        });
        if before == 0 {
            self.online += 1;
        }
        verdict(ctx, event.conn, ConnectVerdict::Accepted);
    }

    pub(super) fn unregister(&mut self, index: u32, conn: ConnRef) {
        // A CONNECT that is still being checked must not register a connection that is gone.
        for auth in &self.slab[index as usize].auths {
            if let Some(auth) = self.auths.get_mut(auth)
                && auth.event.conn == conn
            {
                auth.gone = true;
            }
        }
        let user = &mut self.slab[index as usize];
        let before = user.conns.len();
        user.conns.retain(|p| p.conn != conn);
        if before > 0 && user.conns.is_empty() {
            self.online -= 1;
        }
    }

    pub(super) fn clear_retry(&mut self, ctx: &mut Ctx, index: u32, conn: ConnRef, message_id: i64) {
        if ctx.mutant(Mutant::RecvackIgnored) {
            return;
        }
        let user = &mut self.slab[index as usize];
        if let Some(p) = user.conns.iter_mut().find(|p| p.conn == conn) {
            p.acked(message_id);
        }
    }

    /// Kicks every connection of a device whose master token was replaced (semantics 3.3.1).
    pub fn kick_device(&mut self, ctx: &mut Ctx, uid: &Text, device_flag: u8) {
        let Some(index) = self.by_uid.get(uid).copied() else {
            return;
        };
        let user = &mut self.slab[index as usize];
        let mut kicked = false;
        user.conns.retain(|p| {
            let kick = p.device_flag == device_flag;
            if kick {
                send_kick(ctx, p.conn, Some(TOKEN_TEXT), limits::TOKEN_KICK_CLOSE);
            }
            kicked |= kick;
            !kick
        });
        if kicked && user.conns.is_empty() {
            self.online -= 1;
        }
        self.retire(index);
    }

    /// Delivers to every connection of a user but the origin, or to none: `Some(shard)` names one without credit.
    pub fn deliver(&mut self, ctx: &mut Ctx, uid: &Text, delivery: &Arc<Delivery>) -> Option<ShardId> {
        let index = self.by_uid.get(uid).copied()?;
        let user = &mut self.slab[index as usize];
        let on = |shard: ShardId| user.conns.iter().filter(|p| p.conn.shard == shard).count();
        if let Some(p) = user.conns.iter().find(|p| ctx.credit(p.conn.shard, WorkClass::Deliver) < on(p.conn.shard)) {
            return Some(p.conn.shard);
        }
        let track = !delivery.record.flags.no_persist();
        for p in &mut user.conns {
            if delivery.origin == Some(p.conn) && !ctx.mutant(Mutant::RecvToOrigin) {
                continue;
            }
            if track {
                if !p.track(ctx.now.mono, delivery.clone()) {
                    ctx.counters.untracked_recvs += 1;
                }
                if !core::mem::replace(&mut p.in_retry_queue, true) {
                    let due = p.next_due();
                    self.retrying.insert((due, index, p.conn));
                    if self.retry_at > due {
                        ctx.arm(Timer::Retry, &mut self.retry_at, due);
                    }
                }
            }
            ctx.work(p.conn.shard, Work::Deliver { conn: p.conn, delivery: delivery.clone(), dup: false });
        }
        None
    }

    /// Repeats RECVs that were not acknowledged in time.
    pub fn on_retry_timer(&mut self, ctx: &mut Ctx) {
        self.retry_at = Instant::NEVER;
        let now = ctx.now.mono;
        while let Some((due, index, conn)) = self.retrying.first().copied() {
            if due > now {
                break;
            }
            self.retrying.pop_first();
            let Some(user) = self.slab.get_mut(index as usize) else {
                continue;
            };
            let Some(p) = user.conns.iter_mut().find(|p| p.conn == conn) else {
                continue;
            };
            while ctx.has_credit(conn.shard, WorkClass::Deliver)
                && let Some(delivery) = p.take_due(now)
            {
                ctx.work(conn.shard, Work::Deliver { conn, delivery, dup: true });
            }
            let next = p.next_due();
            if next == Instant::NEVER {
                p.in_retry_queue = false;
                continue;
            }
            if next <= now {
                // No credit: go on when there is some.
                self.retrying.insert((next, index, conn));
                ctx.wait_credit(conn.shard, WorkClass::Deliver, RunKey::Retry);
                return;
            }
            self.retrying.insert((next, index, conn));
        }
        if let Some((due, _, _)) = self.retrying.first() {
            let due = *due;
            ctx.arm(Timer::Retry, &mut self.retry_at, due);
        }
    }
}

fn send_kick(ctx: &mut Ctx, conn: ConnRef, disconnect: Option<&'static str>, after: core::time::Duration) {
    ctx.reply(conn.shard, Reply::Kick { conn, disconnect, after, reason: CloseReason::Kicked });
}

/// The table of semantics 3.4: only the new connection's level counts, only its device flag is affected.
fn kick_replaced(ctx: &mut Ctx, user: &mut User, event: &ConnectEvent, level: u8) {
    user.conns.retain(|p| {
        let same_device = p.device_id == event.device_id;
        let replaced = p.device_flag == event.device_flag && (level == 1 || same_device);
        if replaced {
            let text = (!same_device).then_some(KICKED_TEXT);
            send_kick(ctx, p.conn, text, limits::KICK_CLOSE);
        }
        !replaced
    });
}

fn kick_oldest_slave(ctx: &mut Ctx, user: &mut User) {
    let at = user.conns.iter().position(|p| p.level == 0).unwrap_or(0);
    let p = user.conns.remove(at);
    send_kick(ctx, p.conn, None, limits::KICK_CLOSE);
}
