//! INV-32, INV-36: a conversation sync lists every channel with messages, its newest ones, and the right unread count.

use super::{Logs, broken};
use crate::history::{Call, History, Violation};
use wukong_core::api::{ApiAnswer, ApiRequest, Conversation, ConversationSync};

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for call in &h.calls {
        let (ApiRequest::ConversationSync(q), Some(ApiAnswer::Conversations(list))) = (&call.request, &call.answer)
        else {
            continue;
        };
        judged += 1;
        let at = call.ended.unwrap_or(call.began);
        for c in list {
            if let Err(what) = row(h, logs, call, q, c) {
                return broken("INV-32", at, format!("conversation sync of {}: {}: {what}", q.uid, c.stored_id));
            }
        }
        for (channel, low, _) in &call.bounds {
            let key = &h.channels[*channel as usize].key;
            if *low > 0 && !list.iter().any(|c| c.stored_id == key.id) {
                let what = format!("conversation sync of {} omits {}, acknowledged up to {low}", q.uid, key.id);
                return broken("INV-36", at, what);
            }
        }
    }
    Ok(judged)
}

fn row(h: &History, logs: &Logs, call: &Call, q: &ConversationSync, c: &Conversation) -> Result<(), String> {
    let channel = h.channel_of.get(&c.stored_id).ok_or("no such channel")?;
    let users = h.channels[*channel as usize].users;
    let user = users.iter().find(|u| h.users[**u as usize] == q.uid).ok_or("the user takes no part in it")?;
    let peer = if users[0] == *user { users[1] } else { users[0] };
    if c.channel_id != h.users[peer as usize] {
        return Err(format!("shown as {}", c.channel_id));
    }
    let (_, low, high) = call.bounds.iter().find(|(b, _, _)| b == channel).copied().unwrap_or((*channel, 0, u64::MAX));
    let last = c.recents.first().ok_or("no messages")?.seq;
    if last < low || last > high {
        return Err(format!("newest is {last}, the log was between {low} and {high}"));
    }
    let log = logs.get(*channel as usize).map(Vec::as_slice).unwrap_or_default();
    let seen = log.get(..last as usize).ok_or("more than the log holds")?;
    let expected: Vec<_> = seen.iter().rev().take(q.msg_count.max(0) as usize).collect();
    if c.recents.iter().collect::<Vec<_>>() != expected {
        return Err(format!("recents are {:?}", c.recents.iter().map(|r| r.seq).collect::<Vec<_>>()));
    }
    let own = seen.iter().rev().find(|r| r.from_uid == q.uid).map_or(0, |r| r.seq);
    // An own message that was on its way while the answer was made may count as written: then all is read.
    let on_its_way = high > last;
    let right = (c.unread, c.read_to) == (last - own, own) || (on_its_way && (c.unread, c.read_to) == (0, last));
    if right {
        Ok(())
    } else {
        Err(format!("unread {} read to {}, expected {} and {own}", c.unread, c.read_to, last - own))
    }
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{history, log};
    use super::*;
    use wukong_proto::Text;

    fn asked(rows: Vec<Conversation>) -> History {
        let mut h = history(&[]);
        let uid = Text::from("b");
        h.calls.push(Call {
            request: ApiRequest::ConversationSync(ConversationSync {
                uid,
                msg_count: 2,
                ..ConversationSync::default()
            }),
            began: 0,
            ended: Some(1),
            answer: Some(ApiAnswer::Conversations(rows)),
            bounds: vec![(0, 2, 3)],
            durable: true,
            lost: false,
        });
        h
    }

    #[test]
    fn lists_are_complete_and_counts_right() {
        let stored_id = history(&[]).channels[0].key.id.clone();
        let mut recents = log(3).remove(0)[1..].to_vec();
        recents.reverse();
        let good =
            Conversation { channel_id: Text::from("a"), stored_id, channel_type: 1, unread: 3, read_to: 0, recents };
        assert_eq!(check(&asked(vec![good.clone()]), &log(3)), Ok(1));
        assert_eq!(check(&asked(vec![]), &log(3)).unwrap_err().invariant, "INV-36");
        for bad in [Conversation { unread: 2, ..good.clone() }, Conversation { channel_id: Text::from("b"), ..good }] {
            assert_eq!(check(&asked(vec![bad]), &log(3)).unwrap_err().invariant, "INV-32");
        }
    }
}
