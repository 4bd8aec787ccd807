//! The tap: every frame the server writes is decoded at the instant it leaves the shard, and judged against the disk
//! as it is then.

use super::World;
use crate::history::{Event as Happened, LinkIx, Wrong, Wrongs};
use crate::machine::Machine;
use crate::scenario::fault::Of;
use bytes::Bytes;
use wukong_core::api::ApiAnswer;
use wukong_core::ids::{CallId, ConnId};
use wukong_core::output::Frames;
use wukong_proto::{ConnAck, Frame, ReasonCode, SendAck, decode_one};

impl<M: Machine> World<M> {
    pub(super) fn write(&mut self, conn: ConnId, frames: &Frames) {
        let link = conn.0 as LinkIx;
        let Some(l) = self.links.get(link as usize) else {
            self.violation("CONN", format!("Write for connection {conn}, which never was"));
            return;
        };
        if l.closing {
            self.happened(Happened::Illegal { link, what: "a Write after Close" });
        }
        let mut decoded = Vec::with_capacity(frames.len());
        let mut bytes = 0;
        for chunk in frames {
            bytes += chunk.len() as u32;
            self.visible.num(u64::from(link));
            let mut rest: Bytes = chunk.clone();
            while !rest.is_empty() {
                match decode_one(&rest, self.links[link as usize].version) {
                    Ok(Some((frame, n))) => {
                        let _ = rest.split_to(n);
                        self.tap(link, &frame);
                        decoded.push(frame);
                    }
                    Ok(None) => {
                        self.happened(Happened::Illegal { link, what: "a part of a frame" });
                        break;
                    }
                    Err(_) => {
                        self.happened(Happened::Illegal { link, what: "a frame that does not decode" });
                        break;
                    }
                }
            }
        }
        self.frames_leave(link, decoded, bytes);
    }

    fn tap(&mut self, link: LinkIx, frame: &Frame) {
        self.see(frame);
        if !self.links[link as usize].connected && !matches!(frame, Frame::ConnAck(_) | Frame::Disconnect(_)) {
            self.happened(Happened::Illegal { link, what: "a frame before CONNACK" });
        }
        match frame {
            Frame::ConnAck(ack) => self.tap_connack(link, ack),
            Frame::SendAck(ack) => {
                self.tap_send_ack(link, ack);
                self.countdown_of(Of::Acks);
            }
            Frame::Recv(recv) => {
                self.tap_recv(link, recv);
                self.countdown_of(Of::Recvs);
            }
            Frame::Pong => self.happened(Happened::PongOut { link }),
            Frame::Disconnect(_) => self.seen.disconnects += 1,
            _ => self.happened(Happened::Illegal { link, what: "a frame no server sends" }),
        }
    }

    /// What a client sees, without times, ids and keys: equal for equal behaviour.
    fn see(&mut self, frame: &Frame) {
        let v = &mut self.visible;
        v.num(frame.kind() as u64);
        match frame {
            Frame::ConnAck(a) => v.num(u64::from(a.reason.0)),
            Frame::SendAck(a) => {
                v.num(u64::from(a.client_seq));
                v.num(a.message_seq);
                v.num(u64::from(a.reason.0));
            }
            Frame::Recv(r) => {
                v.num(r.message_seq);
                v.bytes(r.client_msg_no.as_bytes());
                v.bytes(r.channel_id.as_bytes());
                v.num(u64::from(r.flags.0));
            }
            _ => {}
        }
    }

    fn tap_connack(&mut self, link: LinkIx, ack: &ConnAck) {
        let l = &self.links[link as usize];
        let twice = l.connected;
        let device = &self.devices[l.device as usize];
        if twice {
            self.happened(Happened::Illegal { link, what: "a second CONNACK" });
            return;
        }
        let version_right = ack.server_version == (device.version >= 4).then_some(device.version.min(6));
        let key = device.key;
        if !version_right {
            self.happened(Happened::Illegal { link, what: "a CONNACK with the wrong version byte" });
        }
        if ack.reason == ReasonCode::SUCCESS {
            let session = self.keys[key].session(&ack.server_key, &ack.salt);
            if session.is_none() {
                self.happened(Happened::Illegal { link, what: "a CONNACK without usable keys" });
            }
            if self.links[link as usize].wrong_token {
                self.happened(Happened::Illegal { link, what: "a CONNACK for a token that was never stored" });
            }
            let l = &mut self.links[link as usize];
            l.connected = true;
            l.session = session;
            if let Some(s) = session
                && !self.seen.sessions.insert(s)
            {
                self.happened(Happened::Illegal { link, what: "keys of another connection" });
            }
        }
        self.happened(Happened::Connack { link, reason: ack.reason.0 });
    }

    fn tap_send_ack(&mut self, link: LinkIx, ack: &SendAck) {
        if !self.mode.oracles {
            return;
        }
        let mut wrong = Wrongs::default();
        let l = &self.links[link as usize];
        let device = &self.devices[l.device as usize];
        let version = device.version.min(6);
        let asked = (ack.client_seq as usize).checked_sub(1).and_then(|i| device.sent.get(i)).copied();
        let Some(intent) = asked else {
            self.happened(Happened::Illegal { link, what: "a SENDACK for a client_seq never sent" });
            return;
        };
        let i = &self.history.intents[intent as usize];
        if version >= 6 && ack.client_msg_no != i.no {
            wrong.0 |= Wrongs::UNASKED;
        }
        if ack.reason == ReasonCode::SUCCESS {
            let (channel, no, conflict) = (i.channel, i.no.clone(), i.wrong);
            match channel {
                Some(channel) if !matches!(conflict, Wrong::Signature) => {
                    let record = self.judge_row(channel, ack.message_seq, ack.message_id, &mut wrong);
                    if record.is_some_and(|r| {
                        r.client_msg_no != no || r.from_uid != self.history.users[i_from(self, intent)]
                    }) {
                        wrong.0 |= Wrongs::OTHER_ROW;
                    }
                    if ack.message_seq == 1 && !self.members_stand(channel) {
                        wrong.0 |= Wrongs::NO_MEMBERSHIP;
                    }
                    self.note_acked(channel, ack.message_seq);
                }
                _ => wrong.0 |= Wrongs::UNASKED,
            }
        }
        let (id, seq, reason) = (ack.message_id, ack.message_seq, ack.reason.0);
        self.happened(Happened::AckOut { link, intent, id, seq, reason, wrong });
    }

    /// An API call was answered.
    pub(super) fn answered(&mut self, call: CallId, answer: ApiAnswer) {
        let now = self.now;
        let Some(c) = self.history.calls.get(call.0 as usize) else {
            self.violation("CALL", format!("an answer to call {call}, which never was made"));
            return;
        };
        if c.ended.is_some() {
            self.violation("CALL", format!("a second answer to call {call}"));
            return;
        }
        let channels: Vec<_> = c.bounds.iter().map(|(c, _, _)| *c).collect();
        let synced = self.storage.disk.synced();
        let mut durable = true;
        let mut highest = Vec::with_capacity(channels.len());
        if self.mode.oracles {
            for channel in &channels {
                let (_, written) = self.bounds(*channel);
                highest.push(written);
            }
            let single = |w: &mut Self, seq| {
                channels.first().and_then(|c| w.log_row(*c, seq)).is_some_and(|row| row.batch <= synced)
            };
            if let ApiAnswer::Messages(page) = &answer {
                let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq).collect();
                durable = seqs.into_iter().all(|seq| single(self, seq));
            }
        }
        let c = &mut self.history.calls[call.0 as usize];
        c.bounds.iter_mut().zip(highest).for_each(|(b, h)| b.2 = h);
        c.durable = durable;
        c.ended = Some(now);
        c.answer = Some(answer);
        self.call_ends(call);
    }

    /// The process died: calls in flight were lost. Token calls are made again: devices use the token already.
    pub(super) fn lose_calls(&mut self) {
        let mut lost = Vec::new();
        for (i, c) in self.history.calls.iter_mut().enumerate().rev().take(5_000) {
            if c.ended.is_none() && !c.lost {
                c.lost = true;
                lost.push(CallId(i as u64));
            }
        }
        lost.into_iter().for_each(|call| self.call_ends(call));
    }
}

fn i_from<M>(w: &World<M>, intent: u32) -> usize {
    w.history.intents[intent as usize].from as usize
}
