//! Whose fault it is: the peer's (`Violation`, in proto), policy (`Refusal`), the environment (`Fault`), or ours (assertion).

use core::fmt;

/// The store failed. After a failed `Persist` the shard makes no further promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreFault {
    /// An IO error, or the outcome of a sync is unknown.
    Io,
    /// No space left; reads go on.
    Full,
    /// A row failed its checksum, or has a format this version does not know.
    Corrupt,
}

impl fmt::Display for StoreFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "the store reported an IO error",
            Self::Full => "the disk is full",
            Self::Corrupt => "a stored row is damaged or of an unknown format",
        })
    }
}

/// Why a shard cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootError {
    NodeOutOfRange,
    ShardOutOfRange,
    SlotsOutOfRange,
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NodeOutOfRange => "the node id must be between 1 and 1023",
            Self::ShardOutOfRange => "the shard must be below the shard count, which must be between 1 and 16",
            Self::SlotsOutOfRange => "the slot count must be between 1 and 65535",
        })
    }
}

/// Why the server says no to an API call, or could not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A field breaks a rule; the text says which and what to do.
    Invalid(&'static str),
    /// The deadline passed; the outcome is unknown.
    Timeout,
    /// A queue is full or the shard is not ready.
    Busy,
    /// The store failed.
    Store(StoreFault),
    /// A policy said no, with the reason code to return (http-api 2.6).
    Reason(wukong_proto::ReasonCode),
}
