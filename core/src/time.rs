//! The core's notion of time: both clocks are inputs, never read.

use core::ops::{Add, Sub};
use core::time::Duration;

/// Monotonic nanoseconds since this process started. Never persisted or sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

/// Calendar time: milliseconds since the Unix epoch. It may jump; no decision about safety rests on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub u64);

/// The two clocks as the shell read them when an input arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    pub mono: Instant,
    pub wall: WallTime,
}

impl Instant {
    /// The instant at which nothing ever happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, d: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, d: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl WallTime {
    /// Whole seconds, as stored and sent in a message's timestamp (semantics 4.9.5).
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }
}
