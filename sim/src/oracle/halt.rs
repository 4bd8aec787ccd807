//! After a failed write a shard promises nothing, and the process ends.

use super::{Logs, broken};
use crate::clock::SEC;
use crate::history::{Event, History, Violation};

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let slack = 2 * SEC + h.pause_max;
    let mut halted: Vec<u8> = Vec::new();
    let mut failed: Option<u64> = None;
    let mut judged = 0;
    for (at, event) in &h.events {
        if let Some(t) = failed
            && *at > t + slack
        {
            return broken("HALT", *at, format!("a write failed at {t} and the process still runs"));
        }
        match *event {
            Event::WriteFailed { .. } => {
                judged += 1;
                failed.get_or_insert(*at);
            }
            Event::Halted { shard } => halted.push(shard),
            Event::Crash { .. } => {
                halted.clear();
                failed = None;
            }
            Event::AckOut { link, .. } | Event::RecvOut { link, .. } | Event::Connack { link, .. }
                if halted.contains(&h.links[link as usize].shard) =>
            {
                return broken("HALT", *at, format!("a frame left a halted shard, to {}", h.show_link(link)));
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
    fn a_failed_write_is_the_end() {
        let failed = (1, Event::WriteFailed { shard: 0 });
        good(check, &[failed, (1, Event::Halted { shard: 0 }), (2, Event::Crash { kept: 1 }), (9, ack(0, 1))], 1);
        bad(check, &[failed, (1, Event::Halted { shard: 0 }), (2, ack(0, 1))], 1, "HALT");
        bad(check, &[failed, (9, Event::Quiet)], 1, "HALT");
    }
}
