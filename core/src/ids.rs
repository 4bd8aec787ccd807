//! Names of things, one type per kind, so that they cannot be mixed up.

use core::fmt;
use wukong_proto::Text;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id!(
    /// A server process in the cluster, 1..=1023 (ten bits of every message id).
    NodeId(u16)
);
/// A process of the cluster at the other end of its links, as its handshake says (cluster-and-raft 4.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProcess {
    pub node: NodeId,
    pub store: StoreId,
    pub incarnation: Incarnation,
    /// How many shards it has: the owner of a slot there is `slot mod shards`.
    pub shards: u8,
    /// The version that both ends speak.
    pub wire: u16,
}

/// What a link between two nodes carries. Each class has a stream of its own, so that bulk never delays votes (4.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkClass {
    /// Votes, beats, fences, leads, fetches.
    Control,
    /// Log items.
    Data,
    /// Snapshots, anti-entropy.
    Bulk,
}

impl LinkClass {
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Bulk];

    #[must_use]
    pub fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

id!(
    /// A shard of this node: one reactor thread.
    ShardId(u8)
);
id!(
    /// One socket. Given by the shell, unique within a shard for the life of the process.
    ConnId(u64)
);
id!(
    /// One effect in flight.
    OpId(u64)
);
id!(
    /// One API call, given by the shell.
    CallId(u64)
);
id!(
    /// A shard of the key space: `crc32(key) mod slots`.
    SlotId(u16)
);
id!(
    /// A channel's number in this node's store; its log rows are keyed by it.
    ChannelNo(u64)
);
id!(
    /// Epoch of a replication group (never "term").
    Epoch(u64)
);
id!(
    /// Count of process starts of a store; fences an older process of the same store.
    Incarnation(u64)
);
id!(
    /// A data directory: random, created with it.
    StoreId(u128)
);

/// A socket as other shards know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnRef {
    pub shard: ShardId,
    pub conn: ConnId,
}

/// Identity of a channel: stored id (person channels composed, semantics 4.2.1) and type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    pub id: Text,
    pub kind: u8,
}

/// Channel types (wire-protocol 6.4).
pub mod channel_type {
    pub const PERSON: u8 = 1;
}

/// Position in a group's log: epoch of the last item, index of the last entry. Ordered epoch first
/// (cluster-and-raft 4.3). The empty log is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: Epoch,
    pub index: u64,
}

/// The slot that owns a key (a uid, or a channel's stored id): `crc32_ieee(key) mod slots`.
/// A command channel shares the slot of its parent: the `____cmd` suffix is stripped first.
#[must_use]
pub fn slot_of(key: impl AsRef<[u8]>, slots: u16) -> SlotId {
    let key = key.as_ref();
    let crc = crc32fast::hash(key.strip_suffix(b"____cmd").unwrap_or(key));
    SlotId((crc % u32::from(slots.max(1))) as u16)
}

/// The shard of this node that owns a slot.
#[must_use]
pub fn shard_of(slot: SlotId, shards: u8) -> ShardId {
    ShardId((slot.0 % u16::from(shards.max(1))) as u8)
}
