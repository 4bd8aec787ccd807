//! The pusher pool: lanes of recipients at their authority. A lane is a FIFO, so the first RECVs of a channel reach
//! each connection in the order in which they were pushed (semantics 2.4.2).

use crate::channel::id::SYSTEM_UID;
use crate::ctx::{Ctx, RunKey};
use crate::event::mail::{Deliveries, Push, Reply, WorkClass};
use crate::ids::ShardId;
use crate::limits;
use crate::user::Users;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use wukong_proto::Text;

#[derive(Clone, Debug)]
struct Item {
    uids: Arc<[Text]>,
    /// Whose turn it is, among them.
    at: usize,
    deliveries: Deliveries,
    /// Deliveries made.
    served: usize,
    /// The push's credit, returned with its last item.
    credit: Option<ShardId>,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    queue: VecDeque<Item>,
    scheduled: bool,
}

/// All lanes of one shard.
#[derive(Clone, Debug)]
pub struct Pusher {
    lanes: Vec<Lane>,
}

impl Default for Pusher {
    fn default() -> Self {
        Self { lanes: alloc::vec![Lane::default(); limits::LANES] }
    }
}

impl Pusher {
    /// Takes a push into its lanes and says so: from here on this shard owes the deliveries.
    pub fn accept(&mut self, ctx: &mut Ctx, push: Push) {
        let Push { from, channel, activation, push, uids, deliveries } = push;
        let last = uids.len().saturating_sub(1);
        for (at, uid) in uids.iter().enumerate() {
            let lane_index = crc32fast::hash(uid.as_bytes()) as usize % limits::LANES;
            let lane = &mut self.lanes[lane_index];
            lane.queue.push_back(Item {
                uids: uids.clone(),
                at,
                deliveries: deliveries.clone(),
                served: 0,
                credit: (at == last).then_some(from),
            });
            if !lane.scheduled {
                lane.scheduled = true;
                ctx.run.push_back(RunKey::Lane(lane_index as u32));
            }
        }
        ctx.reply(from, Reply::PushAccepted { channel, activation, push });
    }

    /// Serves one lane up to a batch. Returns the deliveries made.
    pub fn run(&mut self, ctx: &mut Ctx, users: &mut Users, index: u32) -> usize {
        let lane = &mut self.lanes[index as usize];
        let mut handled = 0;
        while let Some(item) = lane.queue.front_mut() {
            while let Some(delivery) = item.deliveries.get(item.served) {
                if handled >= limits::DRAIN_EVENTS_MAX {
                    ctx.run.push_back(RunKey::Lane(index));
                    return handled;
                }
                let uid = &item.uids[item.at];
                if *uid != SYSTEM_UID
                    && let Some(short_of) = users.deliver(ctx, uid, delivery)
                {
                    ctx.wait_credit(short_of, WorkClass::Deliver, RunKey::Lane(index));
                    return handled;
                }
                item.served += 1;
                handled += 1;
            }
            if let Some(from) = item.credit {
                ctx.work_done(from, WorkClass::Push);
            }
            lane.queue.pop_front();
        }
        lane.scheduled = false;
        handled
    }
}
