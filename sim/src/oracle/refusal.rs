//! INV-13: a refusal is earned, names the right reason, and what was refused is not stored.

use super::{Logs, broken};
use crate::history::{Event, History, Violation, Wrong};
use crate::world::truth::tag;
use std::collections::{BTreeMap, BTreeSet};
use wukong_proto::ReasonCode;

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut users_of_key: BTreeMap<_, u32> = BTreeMap::new();
    for i in &h.intents {
        *users_of_key.entry((i.from, i.channel, &i.no)).or_default() += 1;
    }
    let stored: BTreeSet<u32> = logs.iter().flatten().filter_map(|r| tag(&r.payload)).collect();
    let mut sends: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, event) in &h.events {
        if let Event::SendIn { intent, .. } = event {
            *sends.entry(*intent).or_default() += 1;
        }
    }
    let mut judged = 0;
    for (at, event) in &h.events {
        let Event::AckOut { link, intent, reason, .. } = *event else { continue };
        let i = &h.intents[intent as usize];
        let reason = ReasonCode(reason);
        judged += 1;
        if matches!(reason, ReasonCode::SYSTEM_ERROR | ReasonCode::RATE_LIMIT) {
            continue;
        }
        let old = h.links[link as usize].version < 6;
        let conflict = if old { ReasonCode::NOT_ALLOW_SEND } else { ReasonCode::IDEMPOTENCY_CONFLICT };
        let shared = users_of_key.get(&(i.from, i.channel, &i.no)).is_some_and(|n| *n > 1);
        let right = match i.wrong {
            Wrong::Nothing | Wrong::Conflict => reason == ReasonCode::SUCCESS || (shared && reason == conflict),
            Wrong::Signature => reason == ReasonCode::PAYLOAD_DECODE_ERROR,
            Wrong::ChannelId => reason == ReasonCode::CHANNEL_ID_ERROR,
            Wrong::ChannelType => reason == ReasonCode::NOT_SUPPORT_CHANNEL_TYPE,
        };
        if !right {
            return broken("INV-13", *at, format!("{:?} on {}: answered {reason}", i, h.show_link(link)));
        }
        // Of two SENDs of one intent the second may find that the message in its way came to nothing.
        let once = sends.get(&intent) == Some(&1);
        if reason != ReasonCode::SUCCESS && once && stored.contains(&intent) {
            return broken("INV-13", *at, format!("{i:?}: refused with {reason}, and stored"));
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;
    use crate::history::Wrongs;

    #[test]
    fn refusals_are_final_and_earned() {
        let refused = |reason| Event::AckOut { link: 0, intent: 0, id: 1, seq: 0, reason, wrong: Wrongs::default() };
        good(check, &[(1, ack(0, 1))], 1);
        good(check, &[(1, refused(15))], 1);
        bad(check, &[(1, refused(4))], 0, "INV-13");
        let mut h = history(&[(1, send(0)), (2, refused(9))]);
        h.intents[0].wrong = Wrong::Signature;
        assert!(check(&h, &log(0)).is_ok());
        assert_eq!(check(&h, &log(1)).unwrap_err().invariant, "INV-13");
    }
}
