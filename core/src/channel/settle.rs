//! A channel's timer: its replica and controller, the head row that follows what was handed on, membership rows asked for again,
//! and leaving memory once the replica has settled (cluster-and-raft 4.19).

use super::control::leader_is_lost;
use super::{Channel, Channels, Directory, Stage};
use crate::cluster::Slots;
use crate::ctx::{Ctx, PersistWaiter, Timer};
use crate::limits;
use crate::output::PersistClass;
use crate::raft::core::Input;
use crate::time::Instant;

impl Channels {
    pub fn on_timer(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let now = ctx.now.mono;
        let Some(channel) = self.slab.get_mut(index as usize) else { return };
        channel.timer_at = Instant::NEVER;
        if channel.stage != Stage::Stopped && channel.directory_at <= now {
            // Acks whose owners have answered by now are owed to nobody.
            channel.acks.retain(|p| p.deadline > now);
            channel.ensure_directory(ctx, index);
        }
        let channel = &mut self.slab[index as usize];
        if channel.hint_at <= now {
            channel.hint_at = Instant::NEVER;
            if channel.lags() {
                // At most a second behind what was accepted (semantics 4.10.5), riding on someone's sync.
                channel.write_head(ctx);
                ctx.persist(PersistWaiter::SyncOnly, PersistClass::Lazy);
            }
        }
        let slot = channel.slot;
        if let Some(c) = channel.controller.as_mut().filter(|c| c.deadline() <= now) {
            c.on_time(now);
            // A proposal to elect may have been lost with an office of the slot.
            if leader_is_lost(ctx, slots, slot, c) {
                c.elect(now);
            }
            self.drive(ctx, slots, index);
        }
        if self.slab[index as usize].group.as_ref().is_some_and(|g| g.deadline() <= now) {
            self.step(ctx, slots, index, Input::Time);
        }
        self.wake_readers(ctx, slots, index);
        let channel = &mut self.slab[index as usize];
        if channel.may_leave(now) {
            ctx.counters.channels_evicted += u64::from(channel.stage != Stage::Stopped);
            return self.forget(ctx, slots, index);
        }
        channel.arm(ctx, index);
    }

    fn forget(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let mut channel = self.slab.remove(index as usize);
        ctx.arm(Timer::Channel(index), &mut channel.timer_at, Instant::NEVER);
        self.by_key.remove(&channel.key);
        while let Some(key) = self.backlog.pop_front() {
            if self.want(ctx, slots, &key).is_none() {
                self.backlog.push_front(key);
                break;
            }
        }
    }
}

impl Channel {
    /// Nothing is queued, owed or on its way here.
    fn is_quiet(&self) -> bool {
        self.queue.is_empty()
            && self.parked.is_empty()
            && self.ready.is_empty()
            && self.outgoing.is_empty()
            && self.pushes.is_empty()
            && self.acks.is_empty()
            && self.late_hits.is_empty()
            && self.held.is_empty()
            && self.waiting_readers.is_empty()
            && self.deletions.is_empty()
            && self.confirming.is_empty()
    }

    fn may_leave(&self, now: Instant) -> bool {
        let asleep =
            self.group.as_ref().is_none_or(|g| g.is_idle() && !g.gives_way() && (g.is_settled() || !g.is_leader()));
        let done = match self.stage {
            Stage::Loading => false,
            Stage::Stopped => now >= self.last_active + limits::READ_RETRY && self.writes == 0,
            Stage::Running => now >= self.last_active + limits::EVICT_IDLE && asleep && !self.dirty,
        };
        done && self.reading == 0 && self.is_quiet()
    }

    /// The head row on disk is behind what the recipients' lanes accepted.
    fn lags(&self) -> bool {
        self.is_running() && self.has_head && self.dirty && self.distributed() > self.head.distributed
    }

    /// Sees to it that the head row follows soon.
    pub(super) fn arm_hint(&mut self, ctx: &Ctx) {
        if self.hint_at == Instant::NEVER {
            self.hint_at = ctx.now.mono + limits::HEAD_HINT;
        }
    }

    /// One timer for everything: it may fire early, never late.
    pub(super) fn arm(&mut self, ctx: &mut Ctx, index: u32) {
        let group = self.group.as_ref().map_or(Instant::NEVER, |g| g.deadline());
        let controller = self.controller.as_ref().map_or(Instant::NEVER, |c| c.deadline());
        let asks = matches!(self.directory, Directory::Waiting { .. }) && self.stage != Stage::Stopped;
        let directory = if asks { self.directory_at } else { Instant::NEVER };
        let leave = match self.stage {
            Stage::Loading => Instant::NEVER,
            Stage::Stopped => self.last_active + limits::READ_RETRY,
            Stage::Running => self.last_active + limits::EVICT_IDLE,
        };
        // Reads that a leader could not confirm are tried again.
        let readers = if self.leading && !self.waiting_readers.is_empty() {
            ctx.now.mono + limits::READ_RETRY
        } else {
            Instant::NEVER
        };
        // What is overdue and did not happen is looked at again in a while.
        let leave = if leave <= ctx.now.mono { ctx.now.mono + limits::SETTLE_IDLE } else { leave };
        let at = group.min(controller).min(directory).min(self.hint_at).min(readers).min(leave);
        if at < self.timer_at || self.timer_at <= ctx.now.mono {
            ctx.arm(Timer::Channel(index), &mut self.timer_at, at);
        }
    }
}
