//! INV-20 and INV-21: every RECV is what its recipient must see, under its own connection's keys.

use super::{Logs, broken};
use crate::history::{Event, History, Violation, Wrongs};

const CRYPTO: u16 = Wrongs::SIGNATURE | Wrongs::PAYLOAD;

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for (at, event) in &h.events {
        let (link, wrong, what) = match *event {
            Event::RecvOut { link, wrong, .. } => (link, wrong, "RECV"),
            Event::AckOut { link, wrong, .. } => (link, wrong, "SENDACK"),
            _ => continue,
        };
        judged += 1;
        let invariant = if wrong.has(CRYPTO) { "INV-21" } else { "INV-20" };
        let view = Wrongs::CHANNEL_ID
            | Wrongs::FROM_UID
            | Wrongs::TIMESTAMP
            | Wrongs::FLAGS
            | Wrongs::UNASKED
            | Wrongs::NOT_FOR_USER;
        if wrong.has(CRYPTO | view) {
            return broken(invariant, *at, format!("{what} to {}: {} ({event:?})", h.show_link(link), wrong.names()));
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn wrong_facts_are_reported() {
        good(check, &[(1, recv(0, 1)), (1, ack(0, 1))], 1);
        for (bits, invariant) in [(Wrongs::SIGNATURE, "INV-21"), (Wrongs::CHANNEL_ID, "INV-20")] {
            let r = Event::RecvOut { link: 1, channel: 0, seq: 1, id: 100, intent: 0, dup: false, wrong: Wrongs(bits) };
            bad(check, &[(1, r)], 1, invariant);
        }
    }
}
