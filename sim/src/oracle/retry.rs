//! INV-18 and INV-19: a RECV is repeated at most five times, a minute apart, and not after its RECVACK.

use super::{Logs, broken};
use crate::clock::SEC;
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

const EVERY: u64 = 60 * SEC;
const TIMES: u32 = 6;

#[derive(Default)]
struct Track {
    times: u32,
    last: u64,
    acked: Option<u64>,
}

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let slack = SEC + h.pause_max;
    // What waits for a client that does not read is repeated by the clock, not by the write.
    let frozen = super::spans(h).frozen;
    let mut tracks: BTreeMap<(u32, i64), Track> = BTreeMap::new();
    let mut judged = 0;
    for (at, event) in &h.events {
        match *event {
            Event::RecvAckIn { link, id } => {
                if let Some(t) = tracks.get_mut(&(link, id)) {
                    t.acked.get_or_insert(*at);
                }
            }
            Event::RecvOut { link, id, seq, channel, .. } => {
                judged += 1;
                let t = tracks.entry((link, id)).or_default();
                t.times += 1;
                let name = || format!("{} seq {seq} on {}", h.show_channel(channel), h.show_link(link));
                if t.times > TIMES {
                    return broken("INV-18", *at, format!("{}: transmission {}", name(), t.times));
                }
                if t.times > 1 && at + slack < t.last + EVERY && !frozen[link as usize] {
                    return broken(
                        "INV-18",
                        *at,
                        format!("{}: repeated after {} ms", name(), (at - t.last) / 1_000_000),
                    );
                }
                if t.acked.is_some_and(|acked| *at > acked + slack) {
                    return broken("INV-18", *at, format!("{}: repeated after its RECVACK was processed", name()));
                }
                t.last = *at;
            }
            _ => {}
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn repetitions_are_bounded() {
        let ack_in = Event::RecvAckIn { link: 1, id: 100 };
        good(check, &[(1, recv(0, 1)), (61, recv(0, 1)), (62, ack_in)], 1);
        bad(check, &[(1, recv(0, 1)), (50, recv(0, 1))], 1, "INV-18");
        bad(check, &[(1, recv(0, 1)), (2, ack_in), (61, recv(0, 1))], 1, "INV-18");
        let seven: Vec<_> = (0..7).map(|i| (60 * i, recv(0, 1))).collect();
        good(check, &seven[..6], 1);
        bad(check, &seven, 1, "INV-18");
    }
}
