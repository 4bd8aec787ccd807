//! The books: what was sent and acknowledged on one side, what is stored on the other.

use super::Stored;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// A message that a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub client_msg_no: String,
    pub payload: Vec<u8>,
    /// Message id and seq of the SENDACK that said yes.
    pub ack: Option<(i64, u64)>,
    /// Refused after all: it may be stored or not, and the client does not send it again.
    pub refused: bool,
}

/// Everything that one user sent to one channel, in the order of sending.
#[derive(Clone, Debug, Default)]
pub struct Account {
    pub uid: String,
    pub sent: Vec<Sent>,
}

impl Account {
    #[must_use]
    pub fn new(uid: &str) -> Account {
        Account { uid: uid.to_owned(), sent: Vec::new() }
    }

    #[must_use]
    pub fn acked(&self) -> usize {
        self.sent.iter().filter(|s| s.ack.is_some()).count()
    }

    /// Neither acknowledged nor refused yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.sent.iter().filter(|s| s.ack.is_none() && !s.refused).count()
    }
}

/// What comparing the books found. Each list names the offending messages.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub stored: usize,
    pub acked: usize,
    /// Acknowledged, and not there.
    pub lost: Vec<String>,
    /// There more than once.
    pub doubled: Vec<String>,
    /// There, but not in the order in which they were sent.
    pub reordered: Vec<String>,
    /// There with another id, seq, sender or content than acknowledged, or sent by nobody.
    pub altered: Vec<String>,
    /// The sequence numbers are not 1, 2, 3 and so on.
    pub gaps: Vec<String>,
}

impl Verdict {
    #[must_use]
    pub fn is_clean(&self) -> bool {
        [&self.lost, &self.doubled, &self.reordered, &self.altered, &self.gaps].iter().all(|l| l.is_empty())
    }

    /// # Panics
    /// Something is wrong.
    pub fn assert_clean(&self, what: &str) {
        assert!(self.is_clean(), "{what}: {self}");
    }

    pub fn add(&mut self, other: Verdict) {
        self.stored += other.stored;
        self.acked += other.acked;
        self.lost.extend(other.lost);
        self.doubled.extend(other.doubled);
        self.reordered.extend(other.reordered);
        self.altered.extend(other.altered);
        self.gaps.extend(other.gaps);
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} acknowledged, {} stored", self.acked, self.stored)?;
        let lists = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("reordered", &self.reordered),
            ("altered", &self.altered),
            ("gaps", &self.gaps),
        ];
        for (name, list) in lists {
            write!(f, ", {} {name}", list.len())?;
            for item in list.iter().take(5) {
                write!(f, "\n    {name}: {item}")?;
            }
        }
        Ok(())
    }
}

/// Compares one channel, read from seq 1, with what its users sent.
#[must_use]
pub fn compare(stored: &[Stored], accounts: &[&Account]) -> Verdict {
    let mut verdict = Verdict { stored: stored.len(), ..Verdict::default() };
    for (at, s) in stored.iter().enumerate() {
        if s.seq != at as u64 + 1 {
            verdict.gaps.push(format!("place {} holds seq {}", at + 1, s.seq));
            break;
        }
    }
    let mut ids = HashSet::new();
    verdict.doubled.extend(stored.iter().filter(|s| !ids.insert(s.id)).map(|s| format!("message id {}", s.id)));
    let mut known = 0;
    for account in accounts {
        let mut by_no: HashMap<&str, &Stored> = HashMap::new();
        for s in stored.iter().filter(|s| s.from == account.uid) {
            known += 1;
            if let Some(first) = by_no.insert(&s.client_msg_no, s) {
                verdict.doubled.push(format!("{} {} at seq {} and {}", s.from, s.client_msg_no, first.seq, s.seq));
            }
        }
        judge(account, &by_no, &mut verdict);
    }
    if known != stored.len() {
        verdict.altered.push(format!("{} messages come from users who sent none", stored.len() - known));
    }
    verdict
}

fn judge(account: &Account, by_no: &HashMap<&str, &Stored>, verdict: &mut Verdict) {
    let mut last = 0;
    let mut found = 0;
    for (at, sent) in account.sent.iter().enumerate() {
        let name = || format!("{}'s message {at} ({})", account.uid, sent.client_msg_no);
        verdict.acked += usize::from(sent.ack.is_some());
        let Some(stored) = by_no.get(sent.client_msg_no.as_str()) else {
            if let Some((id, seq)) = sent.ack {
                verdict.lost.push(format!("{}, acknowledged as id {id} seq {seq}", name()));
            }
            continue;
        };
        found += 1;
        if sent.ack.is_some_and(|ack| ack != (stored.id, stored.seq)) {
            verdict.altered.push(format!("{}: acknowledged as {:?}, stored as {stored:?}", name(), sent.ack));
        }
        if stored.payload != sent.payload {
            verdict.altered.push(format!("{}: the content differs", name()));
        }
        if stored.seq < last {
            verdict.reordered.push(format!("{} is at seq {}, an earlier one at {last}", name(), stored.seq));
        }
        last = last.max(stored.seq);
    }
    if found != by_no.len() {
        verdict.altered.push(format!("{} never sent {} of the messages", account.uid, by_no.len() - found));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(no: &str, ack: Option<(i64, u64)>) -> Sent {
        Sent { client_msg_no: no.into(), payload: no.into(), ack, refused: false }
    }

    fn stored(seq: u64, no: &str) -> Stored {
        Stored { seq, id: 100 + seq as i64, client_msg_no: no.into(), from: "a".into(), payload: no.into() }
    }

    fn books() -> (Vec<Stored>, Account) {
        let account = Account {
            uid: "a".into(),
            sent: vec![sent("x", Some((101, 1))), sent("y", None), sent("z", Some((103, 3))), sent("w", None)],
        };
        (vec![stored(1, "x"), stored(2, "y"), stored(3, "z")], account)
    }

    #[test]
    fn true_books_are_clean() {
        let (stored, account) = books();
        let verdict = compare(&stored, &[&account]);
        assert!(verdict.is_clean(), "{verdict}");
        assert_eq!((verdict.acked, verdict.stored), (2, 3));
    }

    #[test]
    fn each_fault_is_seen() {
        let find = |spoil: fn(&mut Vec<Stored>, &mut Account)| {
            let (mut stored, mut account) = books();
            spoil(&mut stored, &mut account);
            let v = compare(&stored, &[&account]);
            [v.lost.len(), v.doubled.len(), v.reordered.len(), v.altered.len(), v.gaps.len()]
        };
        assert_eq!(find(|s, _| drop(s.pop())), [1, 0, 0, 0, 0]);
        assert_eq!(find(|s, _| s.push(stored(4, "x")))[1], 1);
        assert_eq!(find(|s, _| s[1].id = 101)[1], 1);
        assert_eq!(find(|_, a| a.sent.swap(0, 1))[2], 1);
        assert_eq!(find(|s, _| s[0].payload.push(1)), [0, 0, 0, 1, 0]);
        assert_eq!(find(|_, a| a.sent[0].ack = Some((101, 2))), [0, 0, 0, 1, 0]);
        assert_eq!(find(|s, _| s[1].from = "b".into()), [0, 0, 0, 1, 0]);
        assert_eq!(find(|s, _| s[1].client_msg_no = "q".into()), [0, 0, 0, 1, 0]);
        assert_eq!(find(|s, _| drop(s.remove(1))), [0, 0, 0, 0, 1]);
    }
}
