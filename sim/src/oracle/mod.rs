//! Guarantees, one file each: pure functions over a history and the logs that the disk held at the end.
//! A timeout or a lost connection means "unknown", never "did not happen".

mod acks;
mod conversations;
mod delivery;
mod durable;
mod echo;
mod halt;
mod idempotent;
mod ids;
mod log;
mod once;
mod order;
mod refusal;
mod retry;
mod session;
mod view;
pub mod window;

use crate::history::{Event, History, LinkIx, Violation};
use wukong_core::store::Record;

/// The log of each channel, by index, as the disk held it in the end.
pub type Logs = [Vec<Record>];

/// Looks for a violation; the number of things it could judge otherwise.
pub type Check = fn(&History, &Logs) -> Result<u64, Violation>;

/// Every oracle by name.
pub const ALL: [(&str, Check); 15] = [
    ("durable", durable::check),
    ("log", log::check),
    ("once", once::check),
    ("idempotent", idempotent::check),
    ("ids", ids::check),
    ("acks", acks::check),
    ("refusal", refusal::check),
    ("echo", echo::check),
    ("order", order::check),
    ("view", view::check),
    ("retry", retry::check),
    ("delivery", delivery::check),
    ("session", session::check),
    ("halt", halt::check),
    ("window", window::check),
];

/// Judges a run: all violations, at most one per oracle, and how much each had to judge.
#[must_use]
pub fn judge(history: &History, logs: &Logs) -> (Vec<Violation>, Vec<(&'static str, u64)>) {
    let (mut violations, mut judged) = (Vec::new(), Vec::new());
    for (name, check) in ALL.iter().copied().chain([("conversations", conversations::check as Check)]) {
        match check(history, logs) {
            Ok(n) => judged.push((name, n)),
            Err(v) => violations.push(v),
        }
    }
    violations.sort_by_key(|v| v.at);
    (violations, judged)
}

fn broken<T>(invariant: &'static str, at: u64, what: String) -> Result<T, Violation> {
    Err(Violation { invariant, at, what })
}

/// When each connection began to be served, and when it ended.
struct Spans {
    connected: Vec<Option<u64>>,
    ended: Vec<Option<u64>>,
    frozen: Vec<bool>,
}

fn spans(h: &History) -> Spans {
    let n = h.links.len();
    let mut s = Spans { connected: vec![None; n], ended: vec![None; n], frozen: vec![false; n] };
    for (at, event) in &h.events {
        match *event {
            Event::Connack { link, reason: 1 } => s.connected[link as usize] = Some(*at),
            Event::CloseOut { link, .. } | Event::Broken { link } => {
                s.ended[link as usize].get_or_insert(*at);
            }
            Event::Frozen { link, on: true } => s.frozen[link as usize] = true,
            _ => {}
        }
    }
    s
}

/// Links of the process that ends at the last crash or still runs are compared by their end only.
fn open_at(s: &Spans, link: LinkIx, at: u64) -> bool {
    s.ended[link as usize].is_none_or(|end| end > at)
}

#[cfg(test)]
pub(crate) mod synthetic {
    //! Histories made by hand.

    use super::*;
    use crate::clock::SEC;
    use crate::history::{Intent, LinkInfo, Wrong, Wrongs};
    use bytes::Bytes;
    use wukong_proto::Text;

    /// Two users, one channel, two connections (0 of the sender, 1 of the receiver), three messages.
    pub fn history(events: &[(u64, Event)]) -> History {
        let mut h = History::default();
        let (a, b) = (h.user("a"), h.user("b"));
        let channel = h.channel(a, b);
        for user in [a, b] {
            h.links.push(LinkInfo { device: user, user, version: 5, shard: 0, incarnation: 1 });
        }
        for i in 0..3 {
            h.intents.push(Intent {
                from: a,
                device: 0,
                channel: Some(channel),
                client_seq: i + 1,
                no: Text::from(format!("m{i}")),
                bytes: 8,
                wrong: Wrong::Nothing,
            });
        }
        h.events = vec![(0, Event::Connack { link: 0, reason: 1 }), (0, Event::Connack { link: 1, reason: 1 })];
        h.events.extend(events.iter().map(|(s, e)| (s * SEC, *e)));
        h
    }

    /// The log that holds messages 0, 1, … in order.
    pub fn log(n: u64) -> Vec<Vec<Record>> {
        vec![(0..n).map(record).collect()]
    }

    pub fn record(i: u64) -> Record {
        Record {
            seq: i + 1,
            message_id: 100 + i as i64,
            from_uid: Text::from("a"),
            client_msg_no: Text::from(format!("m{i}")),
            payload: Bytes::from(format!("{i:08x}")),
            ..Record::default()
        }
    }

    pub fn ack(intent: u32, seq: u64) -> Event {
        Event::AckOut { link: 0, intent, id: 99 + seq as i64, seq, reason: 1, wrong: Wrongs::default() }
    }

    pub fn recv(intent: u32, seq: u64) -> Event {
        let id = 99 + seq as i64;
        Event::RecvOut { link: 1, channel: 0, seq, id, intent, dup: false, wrong: Wrongs::default() }
    }

    pub fn stored(intent: u32, seq: u64) -> Event {
        Event::Stored { channel: 0, seq, intent, id: 99 + seq as i64, batch: seq }
    }

    pub fn send(intent: u32) -> Event {
        Event::SendIn { link: 0, intent }
    }

    pub fn good(check: Check, events: &[(u64, Event)], rows: u64) {
        assert!(check(&history(events), &log(rows)).unwrap() > 0, "vacuous");
    }

    pub fn bad(check: Check, events: &[(u64, Event)], rows: u64, invariant: &str) {
        let v = check(&history(events), &log(rows)).unwrap_err();
        assert_eq!(v.invariant, invariant, "{}", v.what);
    }
}
