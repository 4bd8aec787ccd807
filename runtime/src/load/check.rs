//! What must be true of every run, pair by pair: one ack per SEND, each acked message delivered once, in order, no gap.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use wukong_proto::{Flags, ReasonCode, Recv, SendAck};

/// The violations found so far: how many of each kind, and the first few in words.
#[derive(Clone, Debug, Default)]
pub struct Flaws {
    counts: BTreeMap<&'static str, u64>,
    examples: Vec<String>,
}

impl Flaws {
    /// Adds one.
    pub fn add(&mut self, kind: &'static str, words: impl FnOnce() -> String) {
        *self.counts.entry(kind).or_default() += 1;
        if self.examples.len() < 12 {
            self.examples.push(format!("{kind}: {}", words()));
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// How many of each kind.
    #[must_use]
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// The first few in words.
    #[must_use]
    pub fn examples(&self) -> &[String] {
        &self.examples
    }
}

/// A message of which something is still outstanding, or the latest ones.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// Nanoseconds since the start of the run at which it was due.
    due: u64,
    acked: Option<Place>,
    refused: Option<ReasonCode>,
    delivered: Option<Place>,
}

/// Where the server put a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    id: i64,
    seq: u64,
}

/// What an ack was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acked {
    /// Accepted; the message had been due at this time.
    Accepted { due: u64 },
    /// Refused with this reason.
    Refused(ReasonCode),
    /// A flaw; it was counted.
    Flawed,
}

/// What a delivery was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// The first time; the message had been due at this time.
    First { due: u64 },
    /// Again, marked as such.
    Retry,
    /// A flaw; it was counted.
    Flawed,
}

/// The state of one pair: the messages of one sender to one receiver.
#[derive(Clone, Debug, Default)]
pub struct PairCheck {
    name: Rc<str>,
    /// Number of the first message of `sent`.
    first: u64,
    sent: VecDeque<Sent>,
    unacked: u64,
    undelivered: u64,
    last_acked: Option<(u64, u64)>,
    last_delivered: Option<(u64, u64)>,
    accepted: u64,
    uncertain: u64,
}

impl PairCheck {
    /// A pair, called `name` in findings.
    #[must_use]
    pub fn new(name: String) -> PairCheck {
        PairCheck { name: name.into(), ..PairCheck::default() }
    }

    /// A message was sent that was due at `due`; returns its number.
    pub fn sent(&mut self, due: u64) -> u64 {
        self.sent.push_back(Sent { due, acked: None, refused: None, delivered: None });
        self.unacked += 1;
        self.undelivered += 1;
        self.first + self.sent.len() as u64 - 1
    }

    /// How many messages have no SENDACK.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        self.unacked
    }

    /// How many messages were neither delivered nor refused.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// How many messages were accepted, and of how many refused ones the outcome is unknown.
    #[must_use]
    pub fn accepted(&self) -> (u64, u64) {
        (self.accepted, self.uncertain)
    }

    /// How many messages were sent.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.first + self.sent.len() as u64
    }

    /// The name given in [`new`](PairCheck::new).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn slot(&mut self, no: u64) -> Option<&mut Sent> {
        self.sent.get_mut(usize::try_from(no.checked_sub(self.first)?).ok()?)
    }

    /// A SENDACK for message `no`.
    pub fn on_ack(&mut self, no: u64, ack: &SendAck, flaws: &mut Flaws) -> Acked {
        let name = self.name.clone();
        let known = no < self.first + self.sent.len() as u64;
        let Some(sent) = self.slot(no) else {
            let kind = if known { "second SENDACK" } else { "SENDACK of nothing" };
            flaws.add(kind, || format!("{name}, message {no}"));
            return Acked::Flawed;
        };
        if sent.acked.is_some() || sent.refused.is_some() {
            flaws.add("second SENDACK", || format!("{name}, message {no}"));
            return Acked::Flawed;
        }
        let place = Place { id: ack.message_id, seq: ack.message_seq };
        let (due, delivered) = (sent.due, sent.delivered);
        if ack.reason != ReasonCode::SUCCESS {
            sent.refused = Some(ack.reason);
            self.uncertain += u64::from(outcome_unknown(ack.reason));
            self.unacked -= 1;
            if delivered.is_none() {
                self.undelivered -= 1;
            } else if !outcome_unknown(ack.reason) {
                flaws.add("refused but delivered", || format!("{name}, message {no}: {}", ack.reason));
            }
            self.forget();
            return Acked::Refused(ack.reason);
        }
        sent.acked = Some(place);
        self.accepted += 1;
        self.unacked -= 1;
        let mut fine = true;
        if place.seq == 0 {
            flaws.add("no seq", || format!("{name}, message {no} was accepted with seq 0"));
            fine = false;
        }
        if delivered.is_some_and(|d| d != place) {
            flaws.add("SENDACK and RECV differ", || format!("{name}, message {no}: {place:?}, {delivered:?}"));
            fine = false;
        }
        if let Some((last_no, last_seq)) = self.last_acked
            && (no > last_no) != (place.seq > last_seq)
        {
            flaws.add("order", || format!("{name}: messages {last_no}, {no} got seq {last_seq}, {}", place.seq));
            fine = false;
        }
        if self.last_acked.is_none_or(|(last, _)| no > last) {
            self.last_acked = Some((no, place.seq));
        }
        self.forget();
        if fine { Acked::Accepted { due } } else { Acked::Flawed }
    }

    /// A RECV of message `no`; `intact` says whether its payload is what was sent.
    pub fn on_recv(&mut self, no: u64, recv: &Recv, intact: bool, flaws: &mut Flaws) -> Delivered {
        let name = self.name.clone();
        let place = Place { id: recv.message_id, seq: recv.message_seq };
        if !intact {
            flaws.add("payload changed", || format!("{name}, message {no}, {place:?}"));
            return Delivered::Flawed;
        }
        let again = recv.flags.with(Flags::DUP) == recv.flags;
        let never_sent = no >= self.first + self.sent.len() as u64;
        let earlier = match self.slot(no) {
            Some(sent) => sent.delivered,
            // Long settled: its place is forgotten.
            None => Some(place),
        };
        if never_sent {
            flaws.add("RECV of nothing", || format!("{name}, message {no}"));
            return Delivered::Flawed;
        }
        if let Some(earlier) = earlier {
            if again && earlier == place {
                return Delivered::Retry;
            }
            let kind = if earlier == place { "delivered twice" } else { "stored twice" };
            flaws.add(kind, || format!("{name}, message {no}: {earlier:?}, {place:?}"));
            return Delivered::Flawed;
        }
        let mut fine = true;
        if let Some((last_no, last_seq)) = self.last_delivered {
            if place.seq != last_seq + 1 {
                let kind = if place.seq > last_seq { "gap" } else { "order" };
                flaws.add(kind, || format!("{name}: seq {} after {last_seq}", place.seq));
                fine = false;
            } else if no <= last_no {
                flaws.add("order", || format!("{name}: message {no} after {last_no}"));
                fine = false;
            }
        }
        self.last_delivered = Some((no, place.seq));
        let sent = self.slot(no).expect("looked up above");
        sent.delivered = Some(place);
        let (due, acked, refused) = (sent.due, sent.acked, sent.refused);
        match refused {
            None => self.undelivered -= 1,
            Some(reason) if outcome_unknown(reason) => {}
            Some(reason) => {
                flaws.add("refused but delivered", || format!("{name}, message {no}: {reason}"));
                fine = false;
            }
        }
        if acked.is_some_and(|a| a != place) {
            flaws.add("SENDACK and RECV differ", || format!("{name}, message {no}: {acked:?}, {place:?}"));
            fine = false;
        }
        self.forget();
        if fine { Delivered::First { due } } else { Delivered::Flawed }
    }

    /// Keeps the last 64 settled messages, so that a second copy of one is told from a retry.
    fn forget(&mut self) {
        while self.sent.len() > 64 && self.sent.front().is_some_and(Sent::settled) {
            self.sent.pop_front();
            self.first += 1;
        }
    }

    /// The run is over: whatever is missing now is lost.
    pub fn finish(&self, flaws: &mut Flaws) {
        for (no, sent) in (self.first..).zip(&self.sent) {
            if sent.acked.is_none() && sent.refused.is_none() {
                flaws.add("no SENDACK", || format!("{}, message {no}", self.name));
            } else if sent.acked.is_some() && sent.delivered.is_none() {
                flaws.add("acked but not delivered", || format!("{}, message {no}, {:?}", self.name, sent.acked));
            }
        }
    }
}

impl Sent {
    fn settled(&self) -> bool {
        self.refused.is_some() || (self.acked.is_some() && self.delivered.is_some())
    }
}

/// After these the message may have been stored all the same (semantics of an owed ack that timed out).
#[must_use]
pub fn outcome_unknown(reason: ReasonCode) -> bool {
    matches!(reason.0, 15 | 18)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
