//! Calls that the HTTP edge makes into the core. The edge parses and formats; the core decides.

use crate::error::Refusal;
use crate::ids::{ShardId, shard_of, slot_of};
use crate::store::Record;
use alloc::vec::Vec;
use wukong_proto::Text;

/// A call (http-api.md gives the routes).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// POST /user/token (http-api 8.1).
    SetToken { uid: Text, token: Text, device_flag: u8, device_level: u8 },
    /// POST /channel/messagesync (http-api 4.8), ids in client form.
    MessageSync(MessageSync),
    /// POST /conversation/sync (http-api 7.1).
    ConversationSync(ConversationSync),
    /// The channel's log goes, and whatever is derived from it; its next message begins a new log at seq 1 (cluster-and-raft
    /// S80). The id is in stored form. Done: nothing of the old log is read, and nothing is added to it, any more. A channel that is
    /// not there is deleted already.
    DeleteChannel { channel_id: Text, channel_type: u8 },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageSync {
    pub login_uid: Text,
    pub channel_id: Text,
    pub channel_type: u8,
    pub start: u64,
    pub end: u64,
    /// As given by the caller; 0 or less means 100, above 10,000 means 10,000.
    pub limit: i64,
    /// pull_mode 1.
    pub up: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConversationSync {
    pub uid: Text,
    pub version: i64,
    /// What the client holds: channel id in client form, type, last seq.
    pub last_seqs: Vec<(Text, u8, u64)>,
    pub msg_count: i64,
    pub only_unread: bool,
    pub exclude_types: Vec<u8>,
    pub page: i64,
    pub page_size: i64,
}

/// Answer to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    Done,
    Refused(Refusal),
    Messages(MessagePage),
    Conversations(Vec<Conversation>),
}

/// Messages in ascending seq order (http-api 4.8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessagePage {
    pub start: u64,
    pub end: u64,
    pub more: bool,
    /// The channel's stored id, which the message objects of the answer are made from (http-api 2.7).
    pub channel_id: Text,
    pub channel_type: u8,
    pub messages: Vec<Record>,
}

/// One row of /conversation/sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Client form: the peer's uid for a person channel.
    pub channel_id: Text,
    /// Stored form, for the message objects.
    pub stored_id: Text,
    pub channel_type: u8,
    pub unread: u64,
    pub read_to: u64,
    /// Newest first.
    pub recents: Vec<Record>,
}

impl ApiRequest {
    /// The shard that should be handed the call: the one that owns its key. Any shard would do.
    #[must_use]
    pub fn home(&self, slots: u16, shards: u8) -> ShardId {
        let slot = match self {
            Self::SetToken { uid, .. } => slot_of(uid, slots),
            Self::ConversationSync(q) => slot_of(&q.uid, slots),
            Self::DeleteChannel { channel_id, .. } => slot_of(channel_id, slots),
            Self::MessageSync(q) => match crate::channel::id::stored(&q.login_uid, &q.channel_id, q.channel_type) {
                Ok(key) => slot_of(&key.id, slots),
                Err(_) => slot_of(&q.login_uid, slots),
            },
        };
        shard_of(slot, shards)
    }
}
