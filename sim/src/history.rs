//! What happened, as oracles read it: intents of clients, what entered and left the shards, what the disk held then.

use std::collections::BTreeMap;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::ids::ChannelKey;
use wukong_core::output::CloseReason;
use wukong_proto::Text;

/// Index of a connection over the whole run.
pub type LinkIx = u32;
/// Index of a user.
pub type UserIx = u32;
/// Index of a message that a client wanted to send.
pub type IntentIx = u32;
/// Index of a channel.
pub type ChannelIx = u32;

/// A message that a client wanted to send; repetitions are the same intent.
#[derive(Clone, Debug)]
pub struct Intent {
    pub from: UserIx,
    pub device: u32,
    /// None for a channel that cannot exist.
    pub channel: Option<ChannelIx>,
    pub client_seq: u32,
    /// client_msg_no; empty = no idempotency.
    pub no: Text,
    pub bytes: u32,
    pub wrong: Wrong,
}

/// What is wrong with an intent on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    /// The key of an earlier intent with another payload.
    Conflict,
    Signature,
    ChannelId,
    ChannelType,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    pub device: u32,
    pub user: UserIx,
    pub version: u8,
    pub shard: u8,
    pub incarnation: u64,
}

/// A person channel.
#[derive(Clone, Debug)]
pub struct Channel {
    pub key: ChannelKey,
    pub users: [UserIx; 2],
}

/// An API call and what was known when it began and ended.
#[derive(Clone, Debug)]
pub struct Call {
    pub request: ApiRequest,
    pub began: u64,
    pub ended: Option<u64>,
    pub answer: Option<ApiAnswer>,
    /// For each channel it may read: the last acknowledged seq when it began, and the last written one when it ended.
    pub bounds: Vec<(ChannelIx, u64, u64)>,
    /// Everything it returned was durable when it was answered.
    pub durable: bool,
    pub lost: bool,
}

/// Facts that a check found wrong when something left a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrongs(pub u16);

impl Wrongs {
    /// No row of that channel and seq is on the disk.
    pub const ABSENT: u16 = 1;
    /// The row may be lost by a crash at this instant.
    pub const NOT_DURABLE: u16 = 1 << 1;
    /// The row holds something else.
    pub const OTHER_ROW: u16 = 1 << 2;
    /// A participant has no membership row.
    pub const NO_MEMBERSHIP: u16 = 1 << 3;
    pub const SIGNATURE: u16 = 1 << 4;
    pub const PAYLOAD: u16 = 1 << 5;
    pub const CHANNEL_ID: u16 = 1 << 6;
    pub const FROM_UID: u16 = 1 << 7;
    pub const TIMESTAMP: u16 = 1 << 8;
    pub const FLAGS: u16 = 1 << 9;
    /// It names a client_seq or client_msg_no that was never sent on this device.
    pub const UNASKED: u16 = 1 << 10;
    pub const NOT_FOR_USER: u16 = 1 << 11;

    const NAMES: [&'static str; 12] = [
        "no such row on disk",
        "row not durable",
        "row on disk differs",
        "a participant has no membership row",
        "wrong signature",
        "payload does not decrypt to what was sent",
        "wrong channel id for this recipient",
        "wrong from uid",
        "timestamp differs from the stored one",
        "wrong header flags",
        "answers something never asked",
        "user takes no part in the channel",
    ];

    #[must_use]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits != 0
    }

    #[must_use]
    pub fn names(self) -> String {
        let held = Self::NAMES.iter().enumerate().filter(|(i, _)| self.0 & (1 << i) != 0);
        held.map(|(_, n)| *n).collect::<Vec<_>>().join(", ")
    }
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The server wrote CONNACK.
    Connack {
        link: LinkIx,
        reason: u8,
    },
    /// The server handled the last byte of a SEND.
    SendIn {
        link: LinkIx,
        intent: IntentIx,
    },
    AckOut {
        link: LinkIx,
        intent: IntentIx,
        id: i64,
        seq: u64,
        reason: u8,
        wrong: Wrongs,
    },
    RecvOut {
        link: LinkIx,
        channel: ChannelIx,
        seq: u64,
        id: i64,
        intent: IntentIx,
        dup: bool,
        wrong: Wrongs,
    },
    /// The server handled the last byte of a RECVACK.
    RecvAckIn {
        link: LinkIx,
        id: i64,
    },
    PingIn {
        link: LinkIx,
    },
    PongOut {
        link: LinkIx,
    },
    /// The core asked for the close.
    CloseOut {
        link: LinkIx,
        reason: CloseReason,
    },
    /// The client or the network ended it.
    Broken {
        link: LinkIx,
    },
    /// The client did not read (`on`), or reads again.
    Frozen {
        link: LinkIx,
        on: bool,
    },
    /// A write left the core against the protocol.
    Illegal {
        link: LinkIx,
        what: &'static str,
    },
    /// A row of a channel's log was written, not yet durable.
    Stored {
        channel: ChannelIx,
        seq: u64,
        intent: IntentIx,
        id: i64,
        batch: u64,
    },
    /// A log row that no client asked for, or that does not decode.
    Phantom {
        batch: u64,
        what: &'static str,
    },
    /// A head row says `distributed` although a push below it has not arrived.
    EarlyDistributed {
        channel: ChannelIx,
        distributed: u64,
        in_flight: u64,
    },
    /// The process died; batches above `kept` are gone.
    Crash {
        kept: u64,
    },
    Boot {
        incarnation: u64,
    },
    /// A shard was told that a write failed.
    WriteFailed {
        shard: u8,
    },
    Halted {
        shard: u8,
    },
    /// Faults have ended; clients behave.
    Quiet,
}

/// The whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub users: Vec<Text>,
    pub channels: Vec<Channel>,
    pub channel_of: BTreeMap<Text, ChannelIx>,
    /// Of a channel that was deleted and made anew each generation is a channel of its own to the oracles; the first one seen is the
    /// channel itself. Here by the ids of committed messages.
    pub era_of: BTreeMap<i64, ChannelIx>,
    pub links: Vec<LinkInfo>,
    pub intents: Vec<Intent>,
    pub calls: Vec<Call>,
    pub events: Vec<(u64, Event)>,
    /// The longest time a shard was allowed to do nothing; bounds in seconds are lengthened by it.
    pub pause_max: u64,
}

impl History {
    pub fn user(&mut self, uid: &str) -> UserIx {
        if let Some(i) = self.users.iter().position(|u| *u == *uid) {
            return i as UserIx;
        }
        self.users.push(Text::from(uid));
        (self.users.len() - 1) as UserIx
    }

    /// The channel of two users, known from now on.
    pub fn channel(&mut self, a: UserIx, b: UserIx) -> ChannelIx {
        let id = wukong_core::channel::id::compose(&self.users[a as usize], &self.users[b as usize]);
        if let Some(i) = self.channel_of.get(&id) {
            return *i;
        }
        let ix = self.channels.len() as ChannelIx;
        self.channel_of.insert(id.clone(), ix);
        let key = ChannelKey { id, kind: wukong_core::ids::channel_type::PERSON };
        self.channels.push(Channel { key, users: [a, b] });
        ix
    }

    /// The generation of `channel` that a message belongs to.
    #[must_use]
    pub fn era(&self, channel: ChannelIx, id: i64) -> ChannelIx {
        self.era_of.get(&id).copied().unwrap_or(channel)
    }

    #[must_use]
    pub fn show_link(&self, link: LinkIx) -> String {
        let l = &self.links[link as usize];
        format!(
            "connection {link} ({}, device {}, v{}, shard {})",
            self.users[l.user as usize], l.device, l.version, l.shard
        )
    }

    #[must_use]
    pub fn show_channel(&self, channel: ChannelIx) -> String {
        self.channels.get(channel as usize).map_or_else(|| "?".into(), |c| c.key.id.to_string())
    }
}

/// A broken guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the invariant, such as `INV-4`.
    pub invariant: &'static str,
    /// ns of the run.
    pub at: u64,
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at as f64 / 1e9, self.what)
    }
}
