//! The tap: every frame a node writes is decoded at the instant it leaves, and judged against the disks of all nodes as they
//! are then.

use super::world::World;
use crate::history::{ChannelIx, Event as Happened, LinkIx, Wrongs};
use crate::world::truth::{payload, tag};
use bytes::Bytes;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::ids::{CallId, ConnId};
use wukong_core::output::Frames;
use wukong_core::store::Record;
use wukong_proto::{ConnAck, Frame, ReasonCode, Recv, SendAck, decode_one};

impl World {
    pub fn write(&mut self, conn: ConnId, frames: &Frames) {
        let link = conn.0 as LinkIx;
        if self.conns.get(link as usize).is_none_or(|c| c.closing) {
            return self.violation("CONN", format!("Write for connection {conn}, which is not open"));
        }
        let mut decoded = Vec::with_capacity(frames.len());
        let mut bytes = 0;
        self.visible.num(conn.0);
        for chunk in frames {
            bytes += chunk.len() as u32;
            let mut rest: Bytes = chunk.clone();
            while !rest.is_empty() {
                let Ok(Some((frame, n))) = decode_one(&rest, 5) else {
                    return self.violation("CONN", format!("a write to {conn} that does not decode"));
                };
                let _ = rest.split_to(n);
                self.tap(link, &frame);
                decoded.push(frame);
            }
        }
        self.frames_leave(link, decoded, bytes);
    }

    fn tap(&mut self, link: LinkIx, frame: &Frame) {
        match frame {
            Frame::ConnAck(ack) => self.tap_connack(link, ack),
            Frame::SendAck(ack) => self.tap_send_ack(link, ack),
            Frame::Recv(recv) => self.tap_recv(link, recv),
            _ => {}
        }
    }

    fn tap_connack(&mut self, link: LinkIx, ack: &ConnAck) {
        if ack.reason == ReasonCode::SUCCESS {
            let session = self.key.session(&ack.server_key, &ack.salt);
            let c = &mut self.conns[link as usize];
            c.session = session;
            c.connected_at = Some(self.now);
            self.nodes[c.node].conns.push(link);
        }
        self.visible.num(u64::from(ack.reason.0));
        self.happened(Happened::Connack { link, reason: ack.reason.0 });
    }

    fn tap_send_ack(&mut self, link: LinkIx, ack: &SendAck) {
        let v = &mut self.visible;
        [u64::from(ack.client_seq), ack.message_seq, u64::from(ack.reason.0)].into_iter().for_each(|n| v.num(n));
        let device = &self.devices[self.conns[link as usize].device as usize];
        let asked = (ack.client_seq as usize).checked_sub(1).and_then(|i| device.sent.get(i)).copied();
        let Some(intent) = asked else {
            return self.violation("INV-7", format!("a SENDACK for client_seq {} never sent", ack.client_seq));
        };
        let (id, seq, reason) = (ack.message_id, ack.message_seq, ack.reason.0);
        let mut wrong = Wrongs::default();
        let i = &self.history.intents[intent as usize];
        if let (true, Some(channel), ReasonCode::SUCCESS) = (self.mode.oracles, i.channel, ack.reason) {
            let (no, from) = (i.no.clone(), self.history.users[i.from as usize].clone());
            let row = self.judge_row(channel, seq, id, &mut wrong);
            if row.as_ref().is_some_and(|(r, _)| r.client_msg_no != no || r.from_uid != from) {
                wrong.0 |= Wrongs::OTHER_ROW;
            }
            self.note_acked(row.map_or(channel, |(_, era)| era), seq, intent);
            let void = self.void_to(link, intent, channel);
            self.truth.promised.push((self.now, intent, id, void));
        }
        self.happened(Happened::AckOut { link, intent, id, seq, reason, wrong });
    }

    fn tap_recv(&mut self, link: LinkIx, recv: &Recv) {
        let v = &mut self.visible;
        v.num(recv.message_seq);
        v.bytes(recv.client_msg_no.as_bytes());
        v.bytes(recv.channel_id.as_bytes());
        v.num(u64::from(recv.flags.0));
        if !self.mode.oracles {
            return;
        }
        let mut wrong = Wrongs::default();
        let c = &self.conns[link as usize];
        let user = self.devices[c.device as usize].user;
        let plain = c.session.and_then(|s| s.open(&recv.payload).filter(|_| s.recv_is_signed(recv)));
        let known = |i: &u32| (*i as usize) < self.history.intents.len();
        let Some(intent) = plain.as_deref().and_then(tag).filter(known) else {
            return self.violation("INV-21", format!("a RECV on {link} whose payload no client sent"));
        };
        let i = &self.history.intents[intent as usize];
        if plain.as_deref() != Some(&payload(intent, i.bytes)[..]) {
            wrong.0 |= Wrongs::PAYLOAD;
        }
        let Some(channel) = i.channel else { return };
        let users = self.history.channels[channel as usize].users;
        let peer = if users[0] == user { users[1] } else { users[0] };
        if !users.contains(&user) {
            wrong.0 |= Wrongs::NOT_FOR_USER;
        }
        if recv.channel_id != self.history.users[peer as usize] {
            wrong.0 |= Wrongs::CHANNEL_ID;
        }
        if recv.from_uid != self.history.users[i.from as usize] {
            wrong.0 |= Wrongs::FROM_UID;
        }
        let (seq, id, dup) = (recv.message_seq, recv.message_id, recv.flags.dup());
        let row = self.judge_row(channel, seq, id, &mut wrong);
        if row.is_some_and(|(r, _)| tag(&r.payload) != Some(intent) || r.timestamp() != recv.timestamp) {
            wrong.0 |= Wrongs::OTHER_ROW;
        }
        if dup {
            self.cover.hit("recv again");
        }
        self.truth.received.insert((link, id));
        self.happened(Happened::RecvOut { link, channel, seq, id, intent, dup, wrong });
    }

    /// Compares the rows of all disks with what is about to be said of them: a majority of the replicas has to have this one for
    /// good. A replica that has not heard may have another one, which it will cut. Returns the row.
    fn judge_row(&mut self, channel: ChannelIx, seq: u64, id: i64, wrong: &mut Wrongs) -> Option<(Record, ChannelIx)> {
        // Of a log that was deleted perhaps nothing is left; what was committed of it may still be on its way.
        if let Some(era) = self.history.era_of.get(&id).copied().filter(|era| self.has_ended(*era)) {
            let known = self.truth.committed[&era].get(seq as usize - 1).filter(|r| r.message_id == id).cloned();
            wrong.0 |= if known.is_some() { 0 } else { Wrongs::OTHER_ROW };
            return known.map(|r| (r, era));
        }
        let (mut found, mut durable, mut others) = (None, 0, 0);
        for n in 0..self.nodes.len() {
            let Some((record, synced, generation)) = self.row(n, channel, seq) else { continue };
            if record.message_id == id {
                durable += usize::from(synced);
                found = Some((record, generation));
            } else {
                others += 1;
            }
        }
        let Some((record, generation)) = found else {
            wrong.0 |= if others > 0 { Wrongs::OTHER_ROW } else { Wrongs::ABSENT };
            return None;
        };
        if self.may_be_committed(channel, generation, seq, durable) {
            self.note_said(channel, generation, seq);
        } else {
            wrong.0 |= Wrongs::NOT_DURABLE;
        }
        Some((record, self.era(channel, generation)))
    }

    /// An API call was answered.
    pub fn answered(&mut self, call: CallId, answer: ApiAnswer) {
        if self.token_answered(call, &answer) {
            return;
        }
        let Some(channel) = self.history.calls.get(call.0 as usize).map(|c| c.bounds[0].0) else {
            return self.violation("CALL", format!("an answer to call {call}, which never was made"));
        };
        if let ApiRequest::DeleteChannel { .. } = self.history.calls[call.0 as usize].request {
            return self.deletion_answered(call, channel, answer);
        }
        let high = (0..self.nodes.len()).map(|n| self.log_end(n, channel)).max().unwrap_or(0);
        let mut durable = true;
        if let (ApiAnswer::Messages(page), true) = (&answer, self.mode.oracles) {
            self.cover.hit("channel read");
            for m in &page.messages {
                let mut wrong = Wrongs::default();
                durable &= self.judge_row(channel, m.seq, m.message_id, &mut wrong).is_some() && wrong.0 == 0;
            }
        } else {
            self.cover.hit("read refused");
        }
        let now = self.now;
        let (era, low) = self.read_era(call, channel, &answer);
        let c = &mut self.history.calls[call.0 as usize];
        let whole = self.truth.committed.get(&era).map_or(0, Vec::len) as u64;
        c.bounds[0] = (era, low.unwrap_or(c.bounds[0].1), high.max(whole));
        c.durable = durable;
        c.ended = Some(now);
        c.answer = Some(answer);
    }
}
