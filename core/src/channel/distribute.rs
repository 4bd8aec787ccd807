//! Committed entries on their way to the recipients' lanes, and `distributed`: what every lane has accepted.

use super::{Arrears, Channel, Channels, PushInFlight};
use crate::channel::id;
use crate::ctx::{Ctx, RunKey};
use crate::event::mail::{Deliveries, Delivery, Push, SendEvent, Work, WorkClass};
use crate::ids::{ShardId, shard_of, slot_of};
use crate::mutants::Mutant;
use crate::user::answer_unstored;
use alloc::boxed::Box;
use alloc::sync::Arc;
use smallvec::SmallVec;
use wukong_proto::{ReasonCode, Text};

/// Entries of one push.
const PUSH_ENTRIES_MAX: usize = 64;

/// Recipients by the shard of their authority.
pub(super) type Targets = SmallVec<[(ShardId, Arc<[Text]>); 2]>;

/// The participants of a person channel, grouped by shard.
pub(super) fn targets(ctx: &Ctx, stored_id: &str) -> Targets {
    let mut out: SmallVec<[(ShardId, SmallVec<[Text; 2]>); 2]> = SmallVec::new();
    let mut add = |uid: &str| {
        let shard = shard_of(slot_of(uid, ctx.config.slots), ctx.config.shards);
        match out.iter_mut().find(|(s, _)| *s == shard) {
            Some((_, uids)) => uids.push(Text::from(uid)),
            None => out.push((shard, smallvec::smallvec![Text::from(uid)])),
        }
    };
    if let Some((a, b)) = id::split(id::origin(stored_id)) {
        add(a);
        if a != b {
            add(b);
        }
    }
    out.into_iter().map(|(shard, uids)| (shard, Arc::from(uids.as_slice()))).collect()
}

impl Channels {
    /// Pushes what is committed, as far as the targets have credit.
    pub(super) fn distribute(&mut self, ctx: &mut Ctx, index: u32) {
        let channel = &mut self.slab[index as usize];
        if channel.waits_credit || channel.arrears == Arrears::Loading {
            return;
        }
        loop {
            let hw = channel.hw();
            let n = channel.outgoing.iter().take(PUSH_ENTRIES_MAX).take_while(|d| d.record.seq <= hw).count();
            if n == 0 {
                return;
            }
            if let Some((short_of, _)) = channel.targets.iter().find(|(to, _)| !ctx.has_credit(*to, WorkClass::Push)) {
                if ctx.mutant(Mutant::MailLostWhenFull) {
                    channel.outgoing.drain(..n);
                    continue;
                }
                channel.waits_credit = true;
                return ctx.wait_credit(*short_of, WorkClass::Push, RunKey::ChannelCredited(index));
            }
            let deliveries: Deliveries = channel.outgoing.drain(..n).collect();
            let upto = deliveries.last().map_or(0, |d| d.record.seq);
            let push = channel.next_push;
            channel.next_push += 1;
            let early = ctx.mutant(Mutant::DistributedOnSend);
            channel.pushes.push_back(PushInFlight {
                id: push,
                upto,
                waiting: if early { 0 } else { channel.targets.len() as u8 },
            });
            for (to, uids) in &channel.targets {
                let push = Push {
                    from: ctx.me(),
                    channel: index,
                    activation: channel.activation,
                    push,
                    uids: uids.clone(),
                    deliveries: deliveries.clone(),
                };
                ctx.work(*to, Work::Push(Box::new(push)));
            }
            channel.advance_distributed();
        }
    }

    /// The credit that a channel waited for came.
    pub fn credited(&mut self, ctx: &mut Ctx, index: u32) -> usize {
        if let Some(channel) = self.slab.get_mut(index as usize) {
            channel.waits_credit = false;
            self.distribute(ctx, index);
        }
        1
    }

    /// A target's lanes took a push.
    pub fn on_accepted(&mut self, index: u32, activation: u64, push: u64) {
        let Some(channel) = self.get(index, activation) else {
            return;
        };
        if let Some(p) = channel.pushes.iter_mut().find(|p| p.id == push) {
            p.waiting = p.waiting.saturating_sub(1);
        }
        channel.advance_distributed();
    }

    /// A transient message: acknowledged with seq 0 and pushed at once, never stored (semantics 4.7).
    pub(super) fn pass_through(ctx: &mut Ctx, mut event: Box<SendEvent>) {
        let Some(channel) = event.channel.clone() else {
            return;
        };
        let targets = targets(ctx, &channel.id);
        if targets.iter().any(|(to, _)| !ctx.has_credit(*to, WorkClass::Push)) {
            return answer_unstored(ctx, &event, ReasonCode::RATE_LIMIT);
        }
        let record = event.take_record(ctx.now.wall);
        let delivery = Arc::new(Delivery { channel, record, origin: Some(event.conn), again: false });
        for (to, uids) in targets {
            // No channel waits for its acceptance: activation 0 is never in memory.
            let push = Push {
                from: ctx.me(),
                channel: 0,
                activation: 0,
                push: 0,
                uids,
                deliveries: smallvec::smallvec![delivery.clone()],
            };
            ctx.work(to, Work::Push(Box::new(push)));
        }
        answer_unstored(ctx, &event, ReasonCode::SUCCESS);
    }
}

impl Channel {
    fn advance_distributed(&mut self) {
        while self.pushes.front().is_some_and(|p| p.waiting == 0) {
            if let (Some(p), Some(group)) = (self.pushes.pop_front(), self.group.as_mut()) {
                group.distribute(p.upto);
            }
        }
    }
}
