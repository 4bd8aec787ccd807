//! What a SEND passes at its channel's authority before it is appended (semantics 2.6, 4.6, 4.8), in order.

use super::id;
use crate::event::mail::SendEvent;
use crate::ids::channel_type;
use wukong_proto::ReasonCode;

/// What a stage decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    Stop(ReasonCode),
}

/// A named step of a chain.
pub struct Stage {
    pub name: &'static str,
    pub run: fn(&SendEvent) -> Flow,
}

/// The chain of a SEND at the channel authority. What follows it is not a choice: dedup, append.
pub const CHANNEL_SEND_CHAIN: &[Stage] = &[Stage { name: "permission", run: permission }];

/// Person channels: everyone may write to everyone, but nobody in another's name (semantics 4.6.4 without lists).
fn permission(event: &SendEvent) -> Flow {
    let Some(channel) = &event.channel else {
        return Flow::Stop(ReasonCode::CHANNEL_ID_ERROR);
    };
    if channel.kind != channel_type::PERSON {
        return Flow::Stop(ReasonCode::NOT_SUPPORT_CHANNEL_TYPE);
    }
    match id::split(id::origin(&channel.id)) {
        Some((a, b)) if event.from_uid == a || event.from_uid == b => Flow::Continue,
        _ => Flow::Stop(ReasonCode::CHANNEL_ID_ERROR),
    }
}
