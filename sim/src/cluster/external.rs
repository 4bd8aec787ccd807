//! What a run looks like from outside, without what timing decides: the same script without faults gives the same, whoever runs
//! the shards.
//!
//! Compared are, for every user, how its connections were greeted and how each of its messages was answered; for every channel
//! what is stored of each sender, in the sender's order, and the whole order when the plan has turns; what readers of a channel
//! were given; and who received what how often on one connection, over all connections of a user. Not compared: seqs and ids
//! (who comes first of several senders is a matter of timing), timestamps, which connection of a user received something,
//! repetitions of RECVs and of SENDACKs.

use super::world::World;
use crate::history::IntentIx;
use crate::world::truth::{payload, tag};
use std::collections::BTreeMap;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::store::Record;
use wukong_proto::{Frame, Recv};

/// A frame that a client read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Greeting {
        reason: u8,
    },
    Answer {
        intent: IntentIx,
        reason: u8,
    },
    /// With whether all of it is as it was sent.
    Message {
        intent: IntentIx,
        again: bool,
        whole: bool,
    },
    /// What nobody sent.
    Stranger,
}

/// What is compared, in this order: the first difference is then the nearest to its cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Greetings,
    Answers,
    Stored,
    Read,
    Received,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Greetings => "reasons of CONNACKs for",
            Self::Answers => "reasons of SENDACKs for",
            Self::Stored => "stored in",
            Self::Read => "read of",
            Self::Received => "received by",
        }
    }
}

/// See the module. Empty when there are no scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External(BTreeMap<(Kind, String), Vec<String>>);

impl External {
    #[must_use]
    pub fn of(world: &World) -> Self {
        let mut it = Self::default();
        if world.plan.sends == 0 {
            return it;
        }
        it.add_heard(world);
        for (channel, log) in (0..).zip(world.logs()) {
            it.add_records(world, Kind::Stored, &world.history.show_channel(channel), &log);
        }
        // Reads while others write see more or less; those of the end see all.
        for call in world.history.calls.iter().filter(|c| c.began >= world.quiet.began && world.quiet.began > 0) {
            let (ApiRequest::MessageSync(asked), Some(ApiAnswer::Messages(page))) = (&call.request, &call.answer)
            else {
                continue;
            };
            let name = format!("{} by {}", world.history.show_channel(call.bounds[0].0), asked.login_uid);
            it.add_records(world, Kind::Read, &name, &page.messages);
        }
        it
    }

    fn add_heard(&mut self, world: &World) {
        let h = &world.history;
        let mut received: BTreeMap<(u32, IntentIx), u64> = BTreeMap::new();
        for (conn, heard) in &world.heard {
            let user = world.devices[world.conns[*conn as usize].device as usize].user;
            let uid = h.users[user as usize].to_string();
            match *heard {
                Heard::Greeting { reason } => self.add(Kind::Greetings, uid, reason.to_string()),
                Heard::Answer { intent, reason } => {
                    let no = &h.intents[intent as usize].no;
                    self.add(Kind::Answers, format!("{no} of {uid}"), reason.to_string());
                }
                Heard::Message { intent, again: false, whole: true } => {
                    let times = received.entry((*conn, intent)).or_default();
                    *times += 1;
                    let no = &h.intents[intent as usize].no;
                    self.add(Kind::Received, uid, format!("{no} ({times})"));
                }
                Heard::Message { again: true, whole: true, .. } => {}
                Heard::Message { .. } | Heard::Stranger => self.add(Kind::Received, uid, format!("{heard:?}")),
            }
        }
        for of in self.0.values_mut() {
            of.sort();
            of.dedup();
        }
    }

    fn add(&mut self, kind: Kind, of: String, what: String) {
        self.0.entry((kind, of)).or_default().push(what);
    }

    fn add_records(&mut self, world: &World, kind: Kind, name: &str, records: &[Record]) {
        for record in records {
            let known = tag(&record.payload).and_then(|i| Some((i, world.history.intents.get(i as usize)?)));
            let whole = known.is_some_and(|(i, known)| {
                record.payload == payload(i, known.bytes)[..] && record.client_msg_no == known.no
            });
            let what = if whole { record.client_msg_no.to_string() } else { format!("{record:?}") };
            if world.plan.turns > 0 {
                self.add(kind, format!("{name}, in all"), what.clone());
            }
            self.add(kind, format!("{name}, of {}", record.from_uid), what);
        }
    }

    /// Facts that can be compared.
    #[must_use]
    pub fn facts(&self) -> u64 {
        self.0.values().map(|list| list.len() as u64).sum()
    }

    /// The first difference, if there is one, in words.
    #[must_use]
    pub fn difference(&self, other: &Self, names: [&str; 2]) -> Option<String> {
        let none = Vec::new();
        let keys: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        keys.into_iter().find_map(|key| {
            let (one, two) = (self.0.get(key).unwrap_or(&none), other.0.get(key).unwrap_or(&none));
            let at = (0..one.len().max(two.len())).find(|i| one.get(*i) != two.get(*i))?;
            let show = |list: &[String]| list.get(at).map_or_else(|| "nothing more".to_owned(), Clone::clone);
            let (kind, of) = (key.0.words(), &key.1);
            let (one, two) = (show(one), show(two));
            Some(format!("{kind} {of}, number {}: {one} in {}, {two} in {}", at + 1, names[0], names[1]))
        })
    }
}

impl World {
    pub(super) fn hear(&mut self, conn: u32, frame: &Frame) {
        if self.plan.sends == 0 {
            return;
        }
        let d = &self.devices[self.conns[conn as usize].device as usize];
        let heard = match frame {
            Frame::ConnAck(ack) => Heard::Greeting { reason: ack.reason.0 },
            Frame::SendAck(ack) => match (ack.client_seq as usize).checked_sub(1).and_then(|i| d.sent.get(i)) {
                Some(intent) => Heard::Answer { intent: *intent, reason: ack.reason.0 },
                None => Heard::Stranger,
            },
            Frame::Recv(recv) => self.heard_message(conn, recv),
            _ => return,
        };
        self.heard.push((conn, heard));
    }

    fn heard_message(&self, conn: u32, recv: &Recv) -> Heard {
        let c = &self.conns[conn as usize];
        let plain = c.session.filter(|s| s.recv_is_signed(recv)).and_then(|s| s.open(&recv.payload));
        let intent = plain.as_deref().and_then(tag).filter(|i| (*i as usize) < self.history.intents.len());
        let (Some(plain), Some(intent)) = (plain, intent) else { return Heard::Stranger };
        let i = &self.history.intents[intent as usize];
        let whole = plain == payload(intent, i.bytes)[..]
            && recv.from_uid == self.history.users[i.from as usize]
            && recv.client_msg_no == i.no;
        Heard::Message { intent, again: recv.flags.dup(), whole }
    }

    /// Whether a device read a message.
    pub(super) fn was_read(&self, device: u32, intent: IntentIx) -> bool {
        self.heard.iter().rev().any(|(conn, heard)| {
            self.conns[*conn as usize].device == device
                && matches!(heard, Heard::Message { intent: i, .. } if *i == intent)
        })
    }

    /// The device with which a user sends.
    pub(super) fn sender_of(&self, user: crate::history::UserIx) -> u32 {
        let device = self.devices.iter().position(|d| d.user == user && d.listens.is_none());
        device.expect("each user has one that sends") as u32
    }
}
