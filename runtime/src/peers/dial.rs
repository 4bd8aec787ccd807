//! Dialling one peer for as long as the node runs.

use super::hub::Hub;
use super::stats::add;
use super::stream::{Ended, dial};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use wukong_core::ids::{LinkClass, NodeId};
use wukong_core::rng::Stream;

/// The first pause after a failure; doubled with each further one.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Never returns.
pub(super) async fn keep_linked(hub: Arc<Hub>, node: NodeId, addr: String, mut jitter: Stream) {
    let mut pause = PAUSE_MIN;
    loop {
        let Ended { was_up, why } = attempt(&hub, node, &addr).await;
        if was_up {
            pause = PAUSE_MIN;
        } else {
            add(&hub.stats.peer_dials_failed, 1);
            hub.trouble(node, &why);
        }
        sleep(spread(pause, &mut jitter)).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Opens the three streams of a link at once. With the first that ends the others end too.
async fn attempt(hub: &Arc<Hub>, node: NodeId, addr: &str) -> Ended {
    let link = hub.next_link();
    let [control, data, bulk] = LinkClass::ALL.map(|class| dial(hub, node, addr, class, link));
    let (control, data, bulk) = (pin!(control), pin!(data), pin!(bulk));
    tokio::select! {
        biased;
        ended = control => ended,
        ended = data => ended,
        ended = bulk => ended,
    }
}

/// Between a half and the whole: nodes that lost each other together do not come back in step.
fn spread(pause: Duration, jitter: &mut Stream) -> Duration {
    let half = pause / 2;
    half + Duration::from_nanos(jitter.below(u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_over_their_upper_half() {
        let mut jitter = Stream::fork(&[3; 32], "x");
        let all: Vec<Duration> = (0..200).map(|_| spread(PAUSE_MAX, &mut jitter)).collect();
        assert!(all.iter().all(|p| (PAUSE_MAX / 2..=PAUSE_MAX).contains(p)));
        assert!(all.iter().max() > all.iter().min());
    }
}
