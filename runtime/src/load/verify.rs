//! What the server stored, read back through POST /channel/messagesync: each accepted message once, without a gap.

use serde_json::{Value, json};
use wukong_proto::Text;

use super::check::{Flaws, PairCheck};
use super::message::Messages;
use super::target::Target;

const PAGE: u64 = 1000;

/// Pages through the channel of every pair; returns the number of messages found.
///
/// # Errors
/// The API is not there or does not answer as specified.
pub fn verify(
    target: &Target,
    messages: &Messages,
    checks: &[PairCheck],
    names: &[[Text; 2]],
    flaws: &mut Flaws,
) -> Result<u64, String> {
    let mut api = target.api("--verify")?;
    let mut found = 0;
    for (index, (check, [from, to])) in (0..).zip(checks.iter().zip(names)) {
        let mut stored = Stored { index, next_seq: 1, next_no: 0, count: 0 };
        loop {
            let body = json!({
                "login_uid": from.as_str(), "channel_id": to.as_str(), "channel_type": 1,
                "start_message_seq": stored.next_seq, "limit": PAGE, "pull_mode": 1,
            });
            let page = api.post("/channel/messagesync", &body);
            let page = page.map_err(|e| format!("POST /channel/messagesync: {e}"))?;
            let rows = page["messages"].as_array();
            let rows = rows.ok_or_else(|| format!("POST /channel/messagesync answered without messages: {page}"))?;
            for row in rows {
                stored.on_row(row, messages, check, flaws);
            }
            if rows.is_empty() || page["more"] != 1 {
                break;
            }
        }
        stored.finish(check, flaws);
        found += stored.count;
    }
    Ok(found)
}

struct Stored {
    index: u32,
    next_seq: u64,
    next_no: u64,
    count: u64,
}

impl Stored {
    fn on_row(&mut self, row: &Value, messages: &Messages, check: &PairCheck, flaws: &mut Flaws) {
        let (name, seq) = (row["client_msg_no"].as_str().unwrap_or(""), row["message_seq"].as_u64().unwrap_or(0));
        if seq != self.next_seq {
            flaws.add("stored: gap", || format!("{}: seq {seq} where {} belongs", check.name(), self.next_seq));
        }
        match messages.parse(name.as_bytes()) {
            Some((index, no)) if index == self.index && no < check.count() => {
                if no < self.next_no {
                    flaws.add("stored: twice or out of order", || format!("{}: message {no}, seq {seq}", check.name()));
                }
                self.next_no = self.next_no.max(no + 1);
            }
            _ => flaws.add("stored: foreign message", || format!("{}: '{name}', seq {seq}", check.name())),
        }
        self.next_seq = seq.max(self.next_seq) + 1;
        self.count += 1;
    }

    fn finish(&self, check: &PairCheck, flaws: &mut Flaws) {
        let (accepted, uncertain) = check.accepted();
        if !(accepted..=accepted + uncertain).contains(&self.count) {
            flaws.add("stored: count", || {
                format!("{}: {} stored, {accepted} accepted, {uncertain} uncertain", check.name(), self.count)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use wukong_proto::{ReasonCode, SendAck};

    use super::*;

    fn kinds(rows: &[(u64, u64)], accepted: u64) -> Vec<&'static str> {
        let messages = Messages::new([3; 16]);
        let mut flaws = Flaws::default();
        let mut check = PairCheck::new("a to b".into());
        for no in 0..accepted {
            check.sent(0);
            let ack = SendAck { reason: ReasonCode::SUCCESS, message_seq: no + 1, ..SendAck::default() };
            check.on_ack(no, &ack, &mut flaws);
        }
        let mut stored = Stored { index: 0, next_seq: 1, next_no: 0, count: 0 };
        for (no, seq) in rows {
            let row = json!({ "client_msg_no": messages.name(0, *no).as_str(), "message_seq": seq });
            stored.on_row(&row, &messages, &check, &mut flaws);
        }
        stored.finish(&check, &mut flaws);
        flaws.counts().keys().copied().collect()
    }

    #[test]
    fn only_what_was_accepted_and_once() {
        assert_eq!(kinds(&[(0, 1), (1, 2), (2, 3)], 3), [""; 0]);
        assert_eq!(kinds(&[(0, 1), (1, 2)], 3), ["stored: count"]);
        assert_eq!(kinds(&[(0, 1), (1, 2), (2, 4)], 3), ["stored: gap"]);
        assert_eq!(kinds(&[(0, 1), (0, 2), (2, 3)], 3), ["stored: twice or out of order"]);
        assert_eq!(kinds(&[(0, 1), (1, 2), (7, 3)], 3), ["stored: foreign message"]);
    }
}
