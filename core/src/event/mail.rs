//! Mail between machines of one node, on the same shard or another (architecture section 2).
//!
//! `Work` takes a credit of its target, which comes back when the target has dealt with it; a `Reply`
//! travels on the credit of the work it answers and is never refused.

use crate::channel::read::{ReadAnswer, ReadJob};
use crate::error::Refusal;
use crate::ids::{ChannelKey, ConnRef, ShardId};
use crate::output::CloseReason;
use crate::store::Record;
use crate::time::{Instant, WallTime};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bytes::Bytes;
use core::time::Duration;
use smallvec::SmallVec;
use wukong_proto::{Flags, ReasonCode, Setting, Text};

/// Mail from one shard to another.
#[derive(Clone, Debug)]
pub enum Mail {
    Work(Work),
    Reply(Reply),
    /// Returns credits for work dealt with.
    Credit {
        class: WorkClass,
        count: u32,
    },
}

/// The hops of a message. Each has credits of its own, and what one hop waits for is only ever a later one, so no
/// two full queues can wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum WorkClass {
    /// Owner → user authority.
    Admit,
    /// User authority → channel authority.
    Route,
    /// Channel authority → lanes.
    Push,
    /// Lanes → owner.
    Deliver,
}

impl WorkClass {
    pub const ALL: [Self; 4] = [Self::Admit, Self::Route, Self::Push, Self::Deliver];
}

/// Mail that takes a credit.
#[derive(Clone, Debug)]
pub enum Work {
    /// Owner → user authority.
    Connect(Box<ConnectEvent>),
    /// Owner → user authority.
    Send(Box<SendEvent>),
    /// Owner → user authority.
    RecvAck { conn: ConnRef, uid: Text, message_id: i64 },
    /// User authority → channel authority.
    ChannelSend(Box<SendEvent>),
    /// Channel authority → user authority: new messages for these users.
    Push(Box<Push>),
    /// User authority → owner: one RECV.
    Deliver { conn: ConnRef, delivery: Arc<Delivery>, dup: bool },
}

impl Work {
    #[must_use]
    pub const fn class(&self) -> WorkClass {
        match self {
            Self::Connect(_) | Self::Send(_) | Self::RecvAck { .. } => WorkClass::Admit,
            Self::ChannelSend(_) => WorkClass::Route,
            Self::Push(_) => WorkClass::Push,
            Self::Deliver { .. } => WorkClass::Deliver,
        }
    }
}

/// Mail that answers work, or is bounded by what exists (connections, channels, calls).
#[derive(Clone, Debug)]
pub enum Reply {
    /// User authority → owner.
    Connected { conn: ConnRef, verdict: ConnectVerdict },
    /// Channel or user authority → owner. `owed_id` is the id given at decode; `message_id` the stored one.
    SendAck { conn: ConnRef, owed_id: i64, message_id: i64, seq: u64, reason: ReasonCode },
    /// User authority → channel authority: the lanes took the push.
    PushAccepted { channel: u32, activation: u64, push: u64 },
    /// User authority → owner: the connection must go.
    Kick { conn: ConnRef, disconnect: Option<&'static str>, after: Duration, reason: CloseReason },
    /// Owner → user authority: an authenticated connection ended.
    Gone { conn: ConnRef, uid: Text },
    /// Channel authority → user authority's slot: this user takes part in the channel.
    EnsureMembership { uid: Text, channel: ChannelKey, from: ShardId, index: u32, activation: u64 },
    /// The answer: the membership row is committed.
    MembershipReady { index: u32, activation: u64, uid: Text },
    /// A call's home → channel authority.
    Read { job: Box<ReadJob> },
    /// The answer.
    ReadDone { call: u64, part: u32, answer: Box<ReadAnswer> },
    /// A call's home → channel authority: the channel has to go.
    Delete { home: ShardId, call: u64, channel: ChannelKey },
    /// The answer.
    Deleted { call: u64, result: Result<(), Refusal> },
}

/// CONNECT, as the user authority needs it.
#[derive(Clone, Debug)]
pub struct ConnectEvent {
    pub conn: ConnRef,
    pub uid: Text,
    pub token: Text,
    pub device_id: Text,
    pub device_flag: u8,
}

/// What the user authority says to a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectVerdict {
    Accepted,
    Refused(ReasonCode),
    /// A transient fault: close without CONNACK.
    Unavailable,
}

/// SEND on its way, payload already in clear.
#[derive(Clone, Debug)]
pub struct SendEvent {
    pub conn: ConnRef,
    /// Given at decode; the key of the owed ack.
    pub message_id: i64,
    /// Absolute: every later stage uses what remains (architecture section 4).
    pub deadline: Instant,
    pub from_uid: Text,
    /// As sent by the client.
    pub channel_id: Text,
    pub channel_type: u8,
    /// Stored form; set by validation at the user authority.
    pub channel: Option<ChannelKey>,
    pub flags: Flags,
    pub setting: Setting,
    pub client_seq: u32,
    pub client_msg_no: Text,
    pub stream_no: Text,
    pub expire: u32,
    pub topic: Text,
    pub payload: Bytes,
}

impl SendEvent {
    /// The message as it is stored, without a place in a log. Takes the texts along, except the sender, who is still owed an ack.
    #[must_use]
    pub fn take_record(&mut self, now: WallTime) -> Record {
        use core::mem::take;
        Record {
            message_id: self.message_id,
            timestamp_ms: now.0,
            flags: self.flags,
            setting: self.setting,
            client_seq: self.client_seq,
            expire: self.expire,
            from_uid: self.from_uid.clone(),
            client_msg_no: take(&mut self.client_msg_no),
            topic: take(&mut self.topic),
            stream_no: take(&mut self.stream_no),
            payload: take(&mut self.payload),
            ..Record::default()
        }
    }
}

/// A message on its way to recipients.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub channel: ChannelKey,
    pub record: Record,
    /// The connection that must not receive it; none after a restart.
    pub origin: Option<ConnRef>,
    /// Handed over once more after a restart: recipients may have it already.
    pub again: bool,
}

/// Messages of one channel for the users of one shard.
#[derive(Clone, Debug)]
pub struct Push {
    pub from: ShardId,
    /// Index and activation of the channel at its authority, echoed when the push is accepted.
    pub channel: u32,
    pub activation: u64,
    pub push: u64,
    pub uids: Arc<[Text]>,
    pub deliveries: Deliveries,
}

/// Messages of one push, in seq order.
pub type Deliveries = SmallVec<[Arc<Delivery>; 1]>;
