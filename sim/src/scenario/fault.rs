//! Fault episodes: drawn or written beforehand, never rolled per event, so that a run can be shrunk.

use super::line::{Line, Span, Value, lines, words};
use crate::clock::MS;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The process dies, at once or after `after` more events of kind `of`; it starts again after `down`.
    #[default]
    Crash,
    /// Graceful stop, then start after `down`.
    Stop,
    /// No sync completes.
    Stall,
    /// Every sync takes `by` more.
    Slow,
    /// Writes are refused: no space.
    Full,
    /// Syncs fail.
    Io,
    /// Reads fail.
    Read,
    /// The calendar jumps by `by`.
    Jump,
    /// One shard (or all, `shard=255`) does nothing.
    Pause,
    /// A share of all connections breaks.
    Storm,
    /// A share of all clients stops reading.
    Freeze,
}

/// What a crash waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Of {
    #[default]
    Outputs,
    Persists,
    Syncs,
    Acks,
    Recvs,
    Mails,
}

/// What a crash leaves of what was not synced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Only what was synced: the power failed.
    #[default]
    Synced,
    /// Everything written: the process was killed.
    All,
    /// A prefix of random length.
    Some,
}

words! {
    Kind: "crash" = Kind::Crash, "stop" = Kind::Stop, "stall" = Kind::Stall, "slow" = Kind::Slow, "full" = Kind::Full,
        "io" = Kind::Io, "read" = Kind::Read, "jump" = Kind::Jump, "pause" = Kind::Pause, "storm" = Kind::Storm,
        "freeze" = Kind::Freeze;
    Of: "outputs" = Of::Outputs, "persists" = Of::Persists, "syncs" = Of::Syncs, "acks" = Of::Acks,
        "recvs" = Of::Recvs, "mails" = Of::Mails;
    Keep: "synced" = Keep::Synced, "all" = Keep::All, "some" = Keep::Some;
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Crash,
        Self::Stop,
        Self::Stall,
        Self::Slow,
        Self::Full,
        Self::Io,
        Self::Read,
        Self::Jump,
        Self::Pause,
        Self::Storm,
        Self::Freeze,
    ];
}

lines! {
    /// One episode.
    Fields "fault" {
        at: Span = Span(0),
        /// How long it lasts.
        span: Span = Span(0),
        after: u32 = 0,
        of: Of = Of::Outputs,
        keep: Keep = Keep::Synced,
        down: Span = Span(200 * MS),
        /// Milliseconds, signed.
        by: i64 = 0,
        shard: u8 = 255,
        /// Per mille.
        share: u32 = 1000,
    }
}

/// One episode of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    pub fields: Fields,
}

impl Fault {
    /// # Errors
    /// What is wrong with the words.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let (kind, rest) = words.split_first().ok_or("fault: which one?")?;
        Ok(Self { kind: Kind::parse(kind)?, fields: super::line::made(rest)? })
    }

    #[must_use]
    pub fn line(&self) -> String {
        self.fields.line().replacen("fault", &format!("fault {}", self.kind.show()), 1)
    }
}
