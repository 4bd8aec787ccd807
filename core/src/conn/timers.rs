//! Deadlines of a connection: one timer, armed for the earliest of what it waits for.

use super::{Conns, State};
use crate::ctx::{Ctx, Timer};
use crate::ids::ConnId;
use crate::limits;
use crate::output::CloseReason;
use crate::time::Instant;
use wukong_proto::{ReasonCode, SendAck};

impl Conns {
    /// Arms the timer for the earliest deadline. The idle deadline is checked when the timer fires, not moved by
    /// every byte.
    pub(super) fn rearm(&mut self, ctx: &mut Ctx, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        let idle = match conn.state {
            State::Active | State::Draining(_) => conn.last_active + limits::IDLE,
            _ => Instant::NEVER,
        };
        let owed = conn.owed.iter().find(|o| !o.answered).map_or(Instant::NEVER, |o| o.deadline);
        let at = conn.deadline.min(owed).min(idle).min(conn.pending_until);
        ctx.arm(Timer::Conn(id), &mut conn.timer_at, at);
    }

    /// Arms the timer earlier if need be; cheap when it already is.
    pub(super) fn arm_by(&mut self, ctx: &mut Ctx, id: ConnId, at: Instant) {
        if let Some(conn) = self.map.get_mut(&id)
            && at < conn.timer_at
        {
            ctx.arm(Timer::Conn(id), &mut conn.timer_at, at);
        }
    }

    pub fn on_timer(&mut self, ctx: &mut Ctx, id: ConnId) {
        let now = ctx.now.mono;
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        conn.timer_at = Instant::NEVER;
        if conn.deadline <= now {
            let reason = match conn.state {
                State::AwaitConnect => CloseReason::FirstFrameTimeout,
                State::Authenticating => CloseReason::AuthTimeout,
                State::Draining(reason) => reason,
                State::Active | State::Closing => return,
            };
            return self.close(ctx, id, reason);
        }
        if matches!(conn.state, State::Active | State::Draining(_)) && conn.last_active + limits::IDLE <= now {
            return self.close(ctx, id, CloseReason::Idle);
        }
        if conn.pending_until <= now {
            self.give_up_pending(ctx, id);
        }
        while let Some(overdue) = self.overdue(id, now) {
            // The outcome is unknown: the client resends with the same client_msg_no (semantics 3.1.5).
            ctx.counters.sendacks_timed_out += 1;
            self.on_send_ack(ctx, id, overdue, overdue, 0, ReasonCode::SYSTEM_ERROR);
        }
        self.rearm(ctx, id);
    }

    /// A SEND that got no message id in time is answered without one; it was never passed on.
    fn give_up_pending(&mut self, ctx: &mut Ctx, id: ConnId) {
        let Some(conn) = self.map.get_mut(&id) else { return };
        conn.pending_until = Instant::NEVER;
        let Some(send) = conn.pending.take() else { return };
        let version = conn.version;
        let ack = SendAck {
            flags: send.flags,
            client_seq: send.client_seq,
            reason: ReasonCode::SYSTEM_ERROR,
            client_msg_no: send.client_msg_no,
            ..SendAck::default()
        };
        ctx.counters.sendacks_timed_out += 1;
        self.encode(ctx, id, |out| wukong_proto::encode_send_ack(&ack, version, out));
    }

    fn overdue(&self, id: ConnId, now: Instant) -> Option<i64> {
        let owed = self.map.get(&id)?.owed.iter().find(|o| !o.answered)?;
        (owed.deadline <= now).then_some(owed.message_id)
    }
}
