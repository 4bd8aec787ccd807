//! The two clocks of the core, read in one place.

use std::time::{SystemTime, UNIX_EPOCH};
use wukong_core::time::{Instant, Now, WallTime};

/// Monotonic time since this value was made, and calendar time. All shards of a node share one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Tick,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { start: Tick::read() }
    }

    #[must_use]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: Instant(Tick::read().nanos_since(self.start)),
            wall: WallTime(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// `CLOCK_BOOTTIME`: unlike the monotonic clock it runs on while the machine sleeps, so that deadlines pass then too.
#[cfg(all(target_os = "linux", not(madsim)))]
#[derive(Clone, Copy, Debug)]
struct Tick(u64);

#[cfg(all(target_os = "linux", not(madsim)))]
impl Tick {
    fn read() -> Self {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (secs, nanos) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
        Self(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn nanos_since(self, start: Self) -> u64 {
        self.0.saturating_sub(start.0)
    }
}

#[cfg(not(all(target_os = "linux", not(madsim))))]
#[derive(Clone, Copy, Debug)]
struct Tick(std::time::Instant);

#[cfg(not(all(target_os = "linux", not(madsim))))]
impl Tick {
    fn read() -> Self {
        Self(std::time::Instant::now())
    }

    fn nanos_since(self, start: Self) -> u64 {
        u64::try_from(self.0.saturating_duration_since(start.0).as_nanos()).unwrap_or(u64::MAX)
    }
}
