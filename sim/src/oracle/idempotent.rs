//! INV-10: successful answers to the same key name the same message.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let mut known = BTreeMap::new();
    let mut judged = 0;
    for (at, event) in &h.events {
        let Event::AckOut { intent, id, seq, reason: 1, .. } = *event else { continue };
        let i = &h.intents[intent as usize];
        if i.no.is_empty() {
            continue;
        }
        judged += 1;
        let before = *known.entry((i.channel.map(|c| h.era(c, id)), i.from, &i.no)).or_insert((intent, id, seq));
        if before != (intent, id, seq) {
            let what = format!("{}: answered as (intent, id, seq) {before:?}, then as {:?}", i.no, (intent, id, seq));
            return broken("INV-10", *at, what);
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn answers_agree() {
        good(check, &[(1, ack(0, 1)), (2, ack(0, 1)), (3, ack(1, 2))], 2);
        bad(check, &[(1, ack(0, 1)), (2, ack(0, 2))], 2, "INV-10");
    }
}
