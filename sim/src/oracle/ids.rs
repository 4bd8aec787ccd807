//! INV-11: no two messages share an id, across restarts and clocks that jump back.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut place = BTreeMap::new();
    let stored =
        logs.iter().enumerate().flat_map(|(c, log)| log.iter().map(move |r| (u64::MAX, r.message_id, c as u32, r.seq)));
    let pushed = h.events.iter().filter_map(|(at, event)| match *event {
        Event::RecvOut { channel, seq, id, .. } => Some((*at, id, h.era(channel, id), seq)),
        Event::AckOut { intent, id, seq, reason: 1, .. } => {
            Some((*at, id, h.era(h.intents[intent as usize].channel?, id), seq))
        }
        _ => None,
    });
    let mut judged = 0;
    for (at, id, channel, seq) in stored.chain(pushed) {
        judged += 1;
        let before = *place.entry(id).or_insert((channel, seq));
        if before != (channel, seq) {
            let (a, b) = (h.show_channel(before.0), h.show_channel(channel));
            return broken("INV-11", at, format!("id {id} names {a} seq {} and {b} seq {seq}", before.1));
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn one_id_one_message() {
        good(check, &[(1, recv(0, 1))], 2);
        let mut twice = log(2);
        twice[0][1].message_id = 100;
        assert_eq!(check(&history(&[]), &twice).unwrap_err().invariant, "INV-11");
    }
}
