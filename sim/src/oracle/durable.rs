//! INV-3, INV-4, INV-5, INV-34, INV-49: what was promised is durable when it is promised, and for ever.

use super::{Logs, broken};
use crate::history::{Event, History, Violation, Wrongs};

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for (at, event) in &h.events {
        let (channel, seq, id, wrong, what) = match *event {
            Event::AckOut { intent, seq, id, reason: 1, wrong, .. } => {
                let Some(channel) = h.intents[intent as usize].channel else { continue };
                (channel, seq, id, wrong, "SENDACK")
            }
            Event::RecvOut { channel, seq, id, wrong, .. } => (channel, seq, id, wrong, "RECV"),
            _ => continue,
        };
        judged += 1;
        let channel = h.era(channel, id);
        let name = || format!("{what} of {} seq {seq} id {id}", h.show_channel(channel));
        if wrong.has(Wrongs::ABSENT | Wrongs::NOT_DURABLE | Wrongs::OTHER_ROW) {
            let invariant = if what == "RECV" { "INV-49" } else { "INV-5" };
            return broken(invariant, *at, format!("{}: {}", name(), wrong.names()));
        }
        if wrong.has(Wrongs::NO_MEMBERSHIP) {
            return broken("INV-34", *at, format!("{}: {}", name(), wrong.names()));
        }
        let row = (seq as usize).checked_sub(1).and_then(|i| logs.get(channel as usize)?.get(i));
        if row.is_none_or(|r| r.message_id != id) {
            let found = row.map_or_else(|| "nothing".into(), |r| format!("id {} of {}", r.message_id, r.client_msg_no));
            return broken("INV-4", *at, format!("{}: in the end the log holds {found} there", name()));
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn promises_are_kept() {
        good(check, &[(1, ack(0, 1)), (2, recv(0, 1))], 1);
        bad(check, &[(1, ack(0, 1)), (2, ack(1, 2))], 1, "INV-4");
        let late = |bits| Event::AckOut { link: 0, intent: 0, id: 100, seq: 1, reason: 1, wrong: Wrongs(bits) };
        bad(check, &[(1, late(Wrongs::NOT_DURABLE))], 1, "INV-5");
        bad(check, &[(1, late(Wrongs::NO_MEMBERSHIP))], 1, "INV-34");
    }
}
