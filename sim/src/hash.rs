//! The trace hash: a rolling hash over everything that enters and leaves a machine, equal on every build.

use wukong_core::api::{ApiAnswer, ApiRequest, Conversation};
use wukong_core::event::mail::{Mail, Reply, Work};
use wukong_core::store::{Found, Query, Record, Write};
use wukong_core::{Completion, Effect, Input, Output};

/// A 64-bit multiply-fold hash. Not for strangers' keys: for comparing runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace(u64);

impl Default for Trace {
    fn default() -> Self {
        Self(0x243F_6A88_85A3_08D3)
    }
}

impl Trace {
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    pub fn num(&mut self, v: u64) {
        let wide = u128::from(self.0 ^ v) * 0x9E37_79B9_7F4A_7C15_u128;
        self.0 = (wide >> 64) as u64 ^ (wide as u64).rotate_left(23) ^ v.wrapping_mul(0xF39C_C060_5CED_C835);
    }

    pub fn bytes(&mut self, b: &[u8]) {
        self.num(b.len() as u64);
        let (chunks, rest) = b.as_chunks::<8>();
        for c in chunks {
            self.num(u64::from_le_bytes(*c));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.num(u64::from_le_bytes(last));
        }
    }

    pub fn input(&mut self, input: &Input) {
        match input {
            Input::ConnOpened { conn, .. } => self.two(1, conn.0),
            Input::ConnReceived { conn, bytes } => {
                self.two(2, conn.0);
                self.bytes(bytes);
            }
            Input::ConnDrained { conn, bytes } => {
                self.two(3, conn.0);
                self.num(u64::from(*bytes));
            }
            Input::ConnClosed { conn, cause } => {
                self.two(4, conn.0);
                self.num(*cause as u64);
            }
            Input::Mail { from, mail } => {
                self.two(5, u64::from(from.0));
                self.mail(mail);
            }
            Input::Completed { op, completion } => {
                self.two(6, op.0);
                self.completion(completion);
            }
            Input::Call { call, request } => {
                self.two(7, call.0);
                self.request(request);
            }
            Input::Deadline => self.num(8),
            Input::Stop => self.num(9),
            Input::PeerUp { peer } => {
                self.two(10, u64::from(peer.node.0));
                self.two(peer.incarnation.0, u64::from(peer.shards));
            }
            Input::PeerDown { node, incarnation } => {
                self.two(17, u64::from(node.0));
                self.num(incarnation.0);
            }
            Input::PeerFrame { node, incarnation, frame } => {
                self.two(18, u64::from(node.0));
                self.num(incarnation.0);
                self.bytes(frame);
            }
        }
    }

    pub fn output(&mut self, output: &Output) {
        match output {
            Output::Write { conn, frames } => {
                self.two(11, conn.0);
                frames.iter().for_each(|f| self.bytes(f));
            }
            Output::Close { conn, reason } => {
                self.two(12, conn.0);
                self.num(*reason as u64);
            }
            Output::Mail { to, mail } => {
                self.two(13, u64::from(to.0));
                self.mail(mail);
            }
            Output::Start { op, effect } => {
                self.two(14, op.0);
                self.effect(effect);
            }
            Output::Answer { call, answer } => {
                self.two(15, call.0);
                self.answer(answer);
            }
            Output::PeerFrame { to, class, frame } => {
                self.two(19, u64::from(to.0));
                self.num(*class as u64);
                self.bytes(frame);
            }
            Output::PeerReset { to, incarnation } => {
                self.two(20, u64::from(to.0));
                self.num(incarnation.0);
            }
            Output::Note(_) => self.num(16),
        }
    }

    fn two(&mut self, a: u64, b: u64) {
        self.num(a);
        self.num(b);
    }

    fn effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Persist { batch, class } => {
                self.two(21, *class as u64);
                for write in batch {
                    match write {
                        Write::Put { family, key, value } => {
                            self.num(family as u64);
                            self.bytes(key);
                            self.bytes(value);
                        }
                        Write::Delete { family, key } => {
                            self.num(0x100 | family as u64);
                            self.bytes(key);
                        }
                        Write::DeleteRange { family, from, to } => {
                            self.num(0x200 | family as u64);
                            self.bytes(from);
                            self.bytes(to);
                        }
                    }
                }
            }
            Effect::Load(load) => {
                self.num(22);
                for query in &load.queries {
                    match query {
                        Query::Get { family, key } => {
                            self.num(*family as u64);
                            self.bytes(key);
                        }
                        Query::Range { family, from, to, rows_max, bytes_max, reverse } => {
                            self.two(*family as u64, u64::from(*rows_max));
                            self.two(u64::from(*bytes_max), u64::from(*reverse));
                            self.bytes(from);
                            self.bytes(to);
                        }
                    }
                }
            }
        }
    }

    fn completion(&mut self, completion: &Completion) {
        match completion {
            Completion::Persisted(r) => self.num(r.err().map_or(0, |f| 1 + f as u64)),
            Completion::Loaded(Err(f)) => self.two(31, *f as u64),
            Completion::Loaded(Ok(found)) => found.iter().for_each(|f| match f {
                Found::Point(None) => self.num(32),
                Found::Unreadable(fault) => self.two(34, *fault as u64),
                Found::Point(Some(v)) => self.bytes(v),
                Found::Page { rows, more } => {
                    self.two(33, u64::from(*more));
                    for (k, v) in rows {
                        self.bytes(k);
                        self.bytes(v);
                    }
                }
            }),
        }
    }

    /// What tells one mail from another; the payloads of both ends are hashed where they leave the node.
    fn mail(&mut self, mail: &Mail) {
        match mail {
            Mail::Work(Work::Connect(c)) => self.two(41, c.conn.conn.0),
            Mail::Work(Work::Send(s)) => self.two(42, s.message_id as u64),
            Mail::Work(Work::RecvAck { message_id, .. }) => self.two(43, *message_id as u64),
            Mail::Work(Work::ChannelSend(s)) => self.two(44, s.message_id as u64),
            Mail::Work(Work::Push(p)) => {
                self.two(45, p.push);
                p.uids.iter().for_each(|u| self.bytes(u.as_bytes()));
                p.deliveries.iter().for_each(|d| self.num(d.record.message_id as u64));
            }
            Mail::Work(Work::Deliver { conn, delivery, dup }) => {
                self.two(46, conn.conn.0);
                self.two(delivery.record.message_id as u64, u64::from(*dup));
            }
            Mail::Reply(Reply::Connected { conn, .. }) => self.two(51, conn.conn.0),
            Mail::Reply(Reply::SendAck { message_id, seq, reason, .. }) => {
                self.two(52, *message_id as u64);
                self.two(*seq, u64::from(reason.0));
            }
            Mail::Reply(_) => self.num(53),
            Mail::Credit { count, .. } => self.two(54, u64::from(*count)),
        }
    }

    fn request(&mut self, request: &ApiRequest) {
        match request {
            ApiRequest::SetToken { uid, token, .. } => {
                self.bytes(uid.as_bytes());
                self.bytes(token.as_bytes());
            }
            ApiRequest::MessageSync(q) => {
                self.bytes(q.channel_id.as_bytes());
                self.two(q.start, q.end);
            }
            ApiRequest::ConversationSync(q) => self.bytes(q.uid.as_bytes()),
            ApiRequest::DeleteChannel { channel_id, .. } => self.bytes(channel_id.as_bytes()),
        }
    }

    fn answer(&mut self, answer: &ApiAnswer) {
        match answer {
            ApiAnswer::Done => self.num(61),
            ApiAnswer::Refused(_) => self.num(62),
            ApiAnswer::Messages(page) => {
                self.two(63, u64::from(page.more));
                page.messages.iter().for_each(|r| self.record(r));
            }
            ApiAnswer::Conversations(list) => list.iter().for_each(|c: &Conversation| {
                self.bytes(c.channel_id.as_bytes());
                self.two(c.unread, c.read_to);
                c.recents.iter().for_each(|r| self.record(r));
            }),
        }
    }

    fn record(&mut self, r: &Record) {
        self.two(r.seq, r.message_id as u64);
        self.bytes(&r.payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_length_matter() {
        let hash = |parts: &[&[u8]]| {
            let mut t = Trace::default();
            parts.iter().for_each(|p| t.bytes(p));
            t.value()
        };
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_ne!(hash(&[b"x\0"]), hash(&[b"x"]));
        assert_eq!(hash(&[b"same"]), hash(&[b"same"]));
    }
}
