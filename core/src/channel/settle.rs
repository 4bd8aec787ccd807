//! Idle channels settle (an exact head row, no dirty row) and then leave memory (cluster-and-raft 4.19).

use super::{Channel, Channels, Directory, Stage};
use crate::cluster::Slots;
use crate::ctx::{Ctx, PersistWaiter, Timer};
use crate::limits;
use crate::output::PersistClass;
use crate::store::{Family, keys};
use crate::time::Instant;

impl Channels {
    /// The channel's timer: settle after a while without work, leave memory after a longer one.
    pub fn on_timer(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let Some(channel) = self.slab.get_mut(index as usize) else {
            return;
        };
        channel.timer_at = Instant::NEVER;
        if matches!(channel.directory, Directory::Waiting { .. }) && channel.stage != Stage::Stopped {
            // Acks whose owners have answered by now are owed to nobody.
            channel.acks.retain(|p| p.deadline > ctx.now.mono);
            return channel.ensure_directory(ctx, index);
        }
        if channel.lags() {
            // At most a second behind what was accepted (semantics 4.10.5), riding on someone's sync.
            channel.write_head(ctx);
            ctx.persist(PersistWaiter::SyncOnly, PersistClass::Lazy);
        }
        let idle = ctx.now.mono.since(channel.last_active);
        if !Self::quiet(channel) || idle < limits::SETTLE_IDLE {
            if channel.stage == Stage::Stopped {
                return self.forget(ctx, slots, index);
            }
            return channel.arm_settle(ctx, index);
        }
        if channel.dirty && channel.distributed == channel.group.hw && channel.group.epoch_committed() {
            channel.write_head(ctx);
            channel.dirty = false;
            channel.settling = true;
            let key = keys::dirty(channel.slot, &channel.key);
            ctx.batch().delete(Family::Raft, &key);
            // Losing this with a crash only means that the channel is looked at again at boot.
            ctx.persist(PersistWaiter::ChannelSettled(index), PersistClass::Lazy);
            ctx.counters.channels_settled += 1;
        } else if !channel.dirty && !channel.settling && idle >= limits::EVICT_IDLE {
            ctx.counters.channels_evicted += 1;
            return self.forget(ctx, slots, index);
        }
        let at = ctx.now.mono + limits::SETTLE_IDLE;
        ctx.arm(Timer::Channel(index), &mut channel.timer_at, at);
    }

    pub fn on_settled(&mut self, index: u32) {
        if let Some(channel) = self.slab.get_mut(index as usize) {
            channel.settling = false;
        }
    }

    fn forget(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let mut channel = self.slab.remove(index as usize);
        ctx.arm(Timer::Channel(index), &mut channel.timer_at, Instant::NEVER);
        self.by_key.remove(&channel.key);
        while let Some(key) = self.backlog.pop_front() {
            if self.activate(ctx, slots, &key).is_none() {
                self.backlog.push_front(key);
                break;
            }
        }
    }
}

impl Channel {
    /// The head row on disk is behind what the recipients' lanes accepted.
    fn lags(&self) -> bool {
        self.stage == Stage::Warm && self.has_head && self.dirty && self.distributed > self.head.distributed
    }

    /// Sees to it that the head row follows soon.
    pub(super) fn arm_hint(&mut self, ctx: &mut Ctx, index: u32) {
        let at = ctx.now.mono + limits::HEAD_HINT;
        if self.timer_at > at {
            ctx.arm(Timer::Channel(index), &mut self.timer_at, at);
        }
    }

    pub(super) fn arm_settle(&mut self, ctx: &mut Ctx, index: u32) {
        let mut at = (self.last_active + limits::SETTLE_IDLE).max(ctx.now.mono + limits::SETTLE_IDLE / 10);
        if matches!(self.directory, Directory::Waiting { .. }) && self.stage != Stage::Stopped {
            at = at.min(ctx.now.mono + limits::DIRECTORY_RETRY);
        }
        ctx.arm(Timer::Channel(index), &mut self.timer_at, at);
        if self.dirty && (self.distributed < self.group.hw || self.lags()) {
            self.arm_hint(ctx, index);
        }
    }
}
