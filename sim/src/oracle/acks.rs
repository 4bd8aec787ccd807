//! INV-7 and INV-8: one SENDACK per SEND within ten seconds, and in seq order per channel on one connection.

use super::{Logs, broken, open_at, spans};
use crate::clock::SEC;
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

const OWED: u64 = 10 * SEC;

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let s = spans(h);
    let slack = 2 * SEC + h.pause_max + h.stall_max;
    let end = h.events.last().map_or(0, |(at, _)| *at);
    let mut owed: BTreeMap<(u32, u32), (Vec<u64>, usize)> = BTreeMap::new();
    let mut attempts: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut judged = 0;
    for (at, event) in &h.events {
        match *event {
            Event::SendIn { link, intent } => {
                owed.entry((link, intent)).or_default().0.push(*at);
                *attempts.entry(intent).or_default() += 1;
            }
            Event::AckOut { link, intent, seq, reason, .. } => {
                judged += 1;
                let (sent, answered) = owed.entry((link, intent)).or_default();
                let Some(sent_at) = sent.get(*answered).copied() else {
                    let what = format!(
                        "intent {intent}: {} SENDs were read on {}, this is SENDACK {}",
                        sent.len(),
                        h.show_link(link),
                        *answered + 1
                    );
                    return broken("INV-7", *at, what);
                };
                *answered += 1;
                let from = sent_at.max(s.connected[link as usize].unwrap_or(0));
                if *at > from + OWED + slack && !s.frozen[link as usize] {
                    let what = format!(
                        "intent {intent} on {}: read at {from}, answered {} s later",
                        h.show_link(link),
                        (at - from) / SEC
                    );
                    return broken("INV-7", *at, what);
                }
                let channel = h.intents[intent as usize].channel;
                if let (1, Some(channel), 1) = (reason, channel, attempts.get(&intent).copied().unwrap_or_default()) {
                    let before = last.entry((link, channel)).or_default();
                    if seq <= *before {
                        let what = format!(
                            "{} on {}: SENDACK seq {seq} after {before}",
                            h.show_channel(channel),
                            h.show_link(link)
                        );
                        return broken("INV-8", *at, what);
                    }
                    *before = seq;
                }
            }
            _ => {}
        }
    }
    for ((link, intent), (sent, answered)) in &owed {
        let Some(sent_at) = sent.get(*answered) else { continue };
        let Some(connected) = s.connected[*link as usize] else { continue };
        let due = (*sent_at).max(connected) + OWED + slack;
        if due < end && open_at(&s, *link, due) && !s.frozen[*link as usize] {
            let what = format!("intent {intent} on {}: read at {sent_at}, never answered", h.show_link(*link));
            return broken("INV-7", due, what);
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn every_send_is_answered_once_and_in_time() {
        good(check, &[(1, send(0)), (2, ack(0, 1)), (30, Event::Quiet)], 1);
        good(
            check,
            &[(1, send(0)), (2, ack(0, 1)), (3, send(1)), (4, Event::Broken { link: 0 }), (30, Event::Quiet)],
            1,
        );
        bad(check, &[(1, send(0)), (2, ack(0, 1)), (2, ack(0, 1))], 1, "INV-7");
        bad(check, &[(1, send(0)), (30, Event::Quiet)], 1, "INV-7");
        bad(check, &[(1, send(0)), (20, ack(0, 1))], 1, "INV-7");
    }

    #[test]
    fn answers_follow_the_order_of_the_log() {
        good(check, &[(1, send(0)), (1, send(1)), (2, ack(0, 1)), (2, ack(1, 2))], 2);
        bad(check, &[(1, send(0)), (1, send(1)), (2, ack(1, 2)), (2, ack(0, 1))], 2, "INV-8");
        // A repetition is answered from memory or disk, whenever it comes.
        good(check, &[(1, send(0)), (1, send(1)), (2, send(0)), (2, ack(1, 2)), (2, ack(0, 1)), (2, ack(0, 1))], 2);
    }
}
