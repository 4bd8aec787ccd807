//! INV-7 and INV-8: one SENDACK per SEND within ten seconds, and in seq order per channel on one connection.

use super::{Logs, broken, open_at, spans};
use crate::clock::SEC;
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

const OWED: u64 = 10 * SEC;
/// The ten seconds run from the decoding of a SEND, which nobody outside sees: a shard that is pressed reads less. With
/// no more than this unanswered in all, it has no reason to.
const EASY: usize = 200;
/// Under pressure an answer may be as late as this.
const PRESSED: u64 = 60 * SEC;

/// SENDs on their way: those of an intent on a connection, each with the time by which it must be answered.
#[derive(Default)]
struct Owed {
    due: BTreeMap<(u32, u32), (Vec<u64>, usize)>,
    /// Unanswered per connection, and in all.
    open: BTreeMap<u32, usize>,
    total: usize,
}

impl Owed {
    fn sent(&mut self, link: u32, intent: u32, from: u64, slack: u64) {
        *self.open.entry(link).or_default() += 1;
        self.total += 1;
        let within = if self.total <= EASY { OWED } else { PRESSED };
        self.due.entry((link, intent)).or_default().0.push(from + within + slack);
    }

    /// When the answer was due; none when nothing was asked.
    fn answered(&mut self, link: u32, intent: u32) -> Option<u64> {
        if let Some(n) = self.open.get_mut(&link).filter(|n| **n > 0) {
            *n -= 1;
            self.total -= 1;
        }
        let (due, answered) = self.due.get_mut(&(link, intent))?;
        let at = due.get(*answered).copied();
        *answered += 1;
        at
    }

    fn ended(&mut self, link: u32) {
        self.total -= self.open.remove(&link).unwrap_or_default();
    }
}

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let s = spans(h);
    let slack = 2 * SEC + h.pause_max;
    let end = h.events.last().map_or(0, |(at, _)| *at);
    let mut owed = Owed::default();
    let mut attempts: BTreeMap<u32, u32> = BTreeMap::new();
    let mut last: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut judged = 0;
    for (at, event) in &h.events {
        match *event {
            Event::SendIn { link, intent } => {
                let from = (*at).max(s.connected[link as usize].unwrap_or(0));
                owed.sent(link, intent, from, slack);
                *attempts.entry(intent).or_default() += 1;
            }
            Event::CloseOut { link, .. } | Event::Broken { link } => owed.ended(link),
            Event::AckOut { link, intent, id, seq, reason, .. } => {
                judged += 1;
                let Some(due) = owed.answered(link, intent) else {
                    let what = format!("intent {intent} on {}: more SENDACKs than SENDs", h.show_link(link));
                    return broken("INV-7", *at, what);
                };
                if *at > due && !s.frozen[link as usize] {
                    let late = (at - due) / SEC;
                    let what = format!("intent {intent} on {}: answered {late} s after it was due", h.show_link(link));
                    return broken("INV-7", *at, what);
                }
                let channel = h.intents[intent as usize].channel.map(|c| h.era(c, id));
                if let (1, Some(channel), 1) = (reason, channel, attempts.get(&intent).copied().unwrap_or_default()) {
                    let before = last.entry((link, channel)).or_default();
                    if seq <= *before {
                        let name = h.show_channel(channel);
                        let what = format!("{name} on {}: SENDACK seq {seq} after {before}", h.show_link(link));
                        return broken("INV-8", *at, what);
                    }
                    *before = seq;
                }
            }
            _ => {}
        }
    }
    for ((link, intent), (due, answered)) in &owed.due {
        let Some(due) = due.get(*answered).copied() else { continue };
        if s.connected[*link as usize].is_some() && due < end && open_at(&s, *link, due) && !s.frozen[*link as usize] {
            let what = format!("intent {intent} on {}: never answered", h.show_link(*link));
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
