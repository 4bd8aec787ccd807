//! The highest rate that a server keeps up with: rates are tried, then the best one is confirmed for longer.

use std::ops::ControlFlow;
use std::time::Duration;

use super::pairs::{Pairs, Phase, Tick};
use super::server::Process;

/// A rate counts as sustained while the 99th percentile of both latencies is below this.
pub const P99_MAX_US: u64 = 100_000;

/// Why a phase does not count as sustained; none if it does.
#[must_use]
pub fn not_sustained(phase: &Phase, drained: bool) -> Option<String> {
    let ms = |us: u64| us as f64 / 1000.0;
    let (ack, recv) = (phase.ack.value_at_quantile(0.99), phase.recv.value_at_quantile(0.99));
    if let Some(why) = &phase.aborted {
        Some(why.clone())
    } else if !phase.refused.is_empty() {
        Some(format!("{} messages were refused", phase.refused.values().sum::<u64>()))
    } else if !drained {
        Some("messages were still outstanding long after".to_owned())
    } else if ack >= P99_MAX_US {
        Some(format!("P99 of SENDACK {:.0} ms", ms(ack)))
    } else if recv >= P99_MAX_US {
        Some(format!("P99 of RECV {:.0} ms", ms(recv)))
    } else if phase.acked_in_time.min(phase.delivered_in_time) * 100 < phase.sent * 98 {
        Some(format!("{} due, {} acked in time", phase.sent, phase.acked_in_time))
    } else {
        None
    }
}

/// What the search says on the way.
pub trait Say {
    /// Called once a second.
    fn tick(&mut self, tick: &Tick);
    /// Called after each rate that was tried.
    fn tried(&mut self, phase: &Phase, why_not: Option<&str>);
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The highest rate sustained for the three seconds of a try.
    pub briefly: f64,
    /// The highest rate sustained for as long as asked. None if there was none, or the run has flaws, which then tell why.
    pub confirmed: Option<Phase>,
}

/// Searches from `first` messages a second on, and confirms what it found for `confirm`.
///
/// # Errors
/// This program cannot go on.
pub fn search(
    pairs: &mut Pairs,
    first: f64,
    confirm: Duration,
    server: Option<Process>,
    say: &mut dyn Say,
) -> Result<Found, String> {
    let mut found = Found::default();
    let (mut low, mut high, mut rate) = (0.0, f64::INFINITY, first);
    while high / low > 1.07 && rate >= 10.0 {
        let Some((_, fine)) = attempt(pairs, rate, 1, Duration::from_secs(3), server, say)? else {
            return Ok(found);
        };
        if fine {
            low = rate;
            found.briefly = rate;
            rate = if high.is_finite() { f64::midpoint(low, high) } else { rate * 1.5 };
        } else {
            high = rate;
            rate = if low > 0.0 { f64::midpoint(low, high) } else { rate / 2.0 };
        }
    }
    rate = low;
    for _ in 0..10 {
        if rate < 10.0 {
            break;
        }
        let Some((phase, fine)) = attempt(pairs, rate, 2, confirm, server, say)? else {
            return Ok(found);
        };
        if fine {
            found.confirmed = Some(phase);
            return Ok(found);
        }
        rate *= 0.93;
    }
    Ok(found)
}

fn attempt(
    pairs: &mut Pairs,
    rate: f64,
    warm_up: u64,
    measured: Duration,
    server: Option<Process>,
    say: &mut dyn Say,
) -> Result<Option<(Phase, bool)>, String> {
    let mut watch = |tick: &Tick| {
        say.tick(tick);
        // More than a second's worth waits: this rate is lost, and waiting only makes the queues longer.
        if tick.unacked as f64 > rate.max(1000.0) {
            ControlFlow::Break(format!("{} messages waited for their SENDACK", tick.unacked))
        } else {
            ControlFlow::Continue(())
        }
    };
    pairs.run(rate, Duration::from_secs(warm_up), measured, server, &mut watch)?;
    let soon = pairs.drain(Duration::from_secs(2))?;
    let phase = pairs.settled();
    let why_not = not_sustained(&phase, soon);
    say.tried(&phase, why_not.as_deref());
    let drained = soon || pairs.drain(Duration::from_secs(30))?;
    if !drained || !pairs.flaws().is_empty() {
        return Ok(None);
    }
    Ok(Some((phase, why_not.is_none())))
}
