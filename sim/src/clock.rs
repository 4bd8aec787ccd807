//! Clocks of a process. True time is the simulation's own and counts nanoseconds from the start of the run.

use wukong_core::time::{Instant, Now, WallTime};

/// Nanoseconds of one microsecond, millisecond, second.
pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const SEC: u64 = 1_000_000_000;

/// Calendar time at true time 0: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What a process sees of time: a monotonic clock that starts at 0 with it, and a calendar that may jump.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    started: u64,
    /// How much faster than true time both clocks run, in parts per million.
    drift_ppm: i64,
    offset_ms: i64,
}

impl Clock {
    #[must_use]
    pub const fn new(drift_ppm: i64) -> Self {
        Self { started: 0, drift_ppm, offset_ms: 0 }
    }

    /// A process starts: its monotonic clock reads 0. The calendar goes on.
    pub const fn restart(&mut self, at: u64) {
        self.started = at;
    }

    pub const fn jump(&mut self, ms: i64) {
        self.offset_ms += ms;
    }

    /// How far the calendar was moved, ms.
    #[must_use]
    pub const fn jumped(&self) -> i64 {
        self.offset_ms
    }

    fn scaled(&self, elapsed: u64) -> u64 {
        (i128::from(elapsed) * i128::from(1_000_000 + self.drift_ppm) / 1_000_000) as u64
    }

    #[must_use]
    pub fn now(&self, at: u64) -> Now {
        let wall = (EPOCH_MS + self.scaled(at) / MS).saturating_add_signed(self.offset_ms);
        Now { mono: Instant(self.scaled(at - self.started)), wall: WallTime(wall) }
    }

    /// The first true time at which the monotonic clock reads `mono` or more.
    #[must_use]
    pub fn when(&self, mono: Instant) -> u64 {
        let rate = i128::from(1_000_000 + self.drift_ppm);
        let elapsed = (i128::from(mono.0) * 1_000_000 + rate - 1) / rate;
        self.started.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_never_rings_early() {
        for ppm in [-500, -1, 0, 3, 499] {
            let mut c = Clock::new(ppm);
            c.restart(77);
            for mono in [0, 1, 999, 60 * SEC + 1] {
                let at = c.when(Instant(mono));
                assert!(c.now(at).mono.0 >= mono && (at == 77 || c.now(at - 1).mono.0 < mono), "{ppm} {mono}");
            }
        }
    }

    #[test]
    fn the_calendar_jumps_and_the_monotonic_clock_does_not() {
        let mut c = Clock::new(0);
        let before = c.now(5 * SEC);
        c.jump(-3_600_000);
        let after = c.now(5 * SEC);
        assert_eq!(before.mono, after.mono);
        assert_eq!(before.wall.0 - after.wall.0, 3_600_000);
    }
}
