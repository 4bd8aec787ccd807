//! What a SEND passes at its sender's authority (semantics 2.6, 4.4), in order.

use crate::channel::id;
use crate::ctx::Ctx;
use crate::event::mail::{SendEvent, WorkClass};
use crate::ids::{ShardId, shard_of, slot_of};
use crate::limits;
use wukong_proto::ReasonCode;

/// What a stage decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// The last stage: hand the event to this shard.
    Route(ShardId),
    /// No credit for this shard: the event waits, and the sender's later events behind it.
    Wait(ShardId),
    Stop(ReasonCode),
}

/// A named step of a chain.
pub struct Stage {
    pub name: &'static str,
    pub run: fn(&mut Ctx, &mut SendEvent) -> Flow,
}

/// The chain of a SEND at the user authority.
pub const USER_SEND_CHAIN: &[Stage] = &[Stage { name: "validate", run: validate }, Stage { name: "route", run: route }];

/// Canonical channel, sizes and types (4.4.1).
fn validate(_: &mut Ctx, event: &mut SendEvent) -> Flow {
    if event.payload.len() > limits::PAYLOAD_MAX || event.client_msg_no.len() > limits::CLIENT_MSG_NO_MAX {
        return Flow::Stop(ReasonCode::NOT_ALLOW_SEND);
    }
    if event.topic.len() > limits::CHANNEL_ID_MAX || event.stream_no.len() > limits::CHANNEL_ID_MAX {
        return Flow::Stop(ReasonCode::NOT_ALLOW_SEND);
    }
    match id::stored(&event.from_uid, &event.channel_id, event.channel_type) {
        Ok(mut key) => {
            // A command has a log of its own, so that it disturbs no chat seq (4.3).
            if event.flags.sync_once() {
                key.id = id::command(&key.id);
            }
            event.channel = Some(key);
            Flow::Continue
        }
        Err(reason) => Flow::Stop(reason),
    }
}

/// Hands the event to the authority of its channel.
fn route(ctx: &mut Ctx, event: &mut SendEvent) -> Flow {
    let Some(channel) = &event.channel else {
        return Flow::Stop(ReasonCode::CHANNEL_ID_ERROR);
    };
    let to = shard_of(slot_of(&channel.id, ctx.config.slots), ctx.config.shards);
    if !ctx.has_credit(to, WorkClass::Route) {
        return Flow::Wait(to);
    }
    Flow::Route(to)
}
