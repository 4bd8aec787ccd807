//! INV-14: every stored message is written to every connection of its recipients that was open all the time.

use super::{Logs, broken, spans};
use crate::clock::SEC;
use crate::history::{Event, History, Violation};
use std::collections::{BTreeMap, BTreeSet};

/// After faults stop, a message is delivered within this.
const WITHIN: u64 = 5 * SEC;

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let s = spans(h);
    let end = h.events.last().map_or(0, |(at, _)| *at);
    let mut stored: BTreeMap<(u32, u64), (u64, u32)> = BTreeMap::new();
    let mut received: BTreeSet<(u32, u32, u64)> = BTreeSet::new();
    let mut origins: BTreeSet<(u32, u32)> = BTreeSet::new();
    let mut quiet = None;
    for (at, event) in &h.events {
        match *event {
            Event::Stored { channel, seq, intent, .. } => {
                stored.insert((channel, seq), (*at, intent));
            }
            Event::RecvOut { link, channel, seq, .. } => {
                received.insert((link, channel, seq));
            }
            Event::SendIn { link, intent } => {
                origins.insert((link, intent));
            }
            Event::Quiet => quiet = Some(*at),
            _ => {}
        }
    }
    // A run that was stopped before its quiet phase says nothing.
    let Some(quiet) = quiet else { return Ok(0) };
    let mut judged = 0;
    let open: Vec<u32> = (0..h.links.len() as u32)
        .filter(|l| s.connected[*l as usize].is_some() && s.ended[*l as usize].is_none())
        .collect();
    for ((channel, seq), (at, intent)) in stored {
        let kept = logs.get(channel as usize).is_some_and(|l| l.len() as u64 >= seq);
        if !kept || at.max(quiet) + WITHIN > end {
            continue;
        }
        let users = h.channels[channel as usize].users;
        for link in &open {
            let info = &h.links[*link as usize];
            let before = s.connected[*link as usize].is_some_and(|c| c < at);
            if !before || !users.contains(&info.user) || origins.contains(&(*link, intent)) {
                continue;
            }
            judged += 1;
            if !received.contains(&(*link, channel, seq)) {
                let name = h.show_channel(channel);
                let what = format!(
                    "{name} seq {seq} (intent {intent}), stored at {at}, was never written to {}",
                    h.show_link(*link)
                );
                return broken("INV-14", at, what);
            }
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn open_connections_receive_everything() {
        let end = (20, Event::Boot { incarnation: 1 });
        let quiet = (3, Event::Quiet);
        good(check, &[(1, send(0)), (1, stored(0, 1)), (2, recv(0, 1)), quiet, end], 1);
        bad(check, &[(1, send(0)), (1, stored(0, 1)), quiet, end], 1, "INV-14");
        let broken = (2, Event::Broken { link: 1 });
        assert_eq!(check(&history(&[(1, send(0)), (1, stored(0, 1)), broken, quiet, end]), &log(1)), Ok(0));
    }
}
