//! What devices do when something arrives, or when their connection is lost.

use super::State;
use crate::clock::{MS, SEC};
use crate::history::{IntentIx, LinkIx, UserIx, Wrong};
use crate::machine::Machine;
use crate::world::net::Mark;
use crate::world::{Event, Phase, World};
use wukong_core::ids::CallId;
use wukong_proto::{ConnAck, Frame, ReasonCode, Recv, RecvAck, SendAck, Text, encode_recv_ack};

impl<M: Machine> World<M> {
    pub(crate) fn client_receives(&mut self, link: LinkIx, frames: Vec<Frame>) {
        let device = self.links[link as usize].device;
        for frame in frames {
            match frame {
                Frame::ConnAck(ack) => self.client_connack(device, link, &ack),
                Frame::SendAck(ack) => self.client_send_ack(device, &ack),
                Frame::Recv(recv) => self.client_recv(device, link, &recv),
                Frame::Disconnect(d) if d.reason == ReasonCode::CONNECT_KICK => {
                    // Kicked clients do not come back by themselves.
                    self.devices[device as usize].wanted = false;
                    self.seen.kicked += 1;
                }
                _ => {}
            }
        }
        if self.links[link as usize].client_open {
            self.flush_up(link);
        }
    }

    fn client_connack(&mut self, device: u32, link: LinkIx, ack: &ConnAck) {
        let d = &mut self.devices[device as usize];
        if d.state != State::Connecting(link) || ack.reason != ReasonCode::SUCCESS {
            return;
        }
        d.state = State::Active(link);
        // The JavaScript SDK repeats everything unanswered, in the order of the numbers as text.
        let again: Vec<_> = d.pending.values().copied().collect();
        let first = d.rng.below(60 * SEC);
        for intent in again {
            self.send(device, link, intent, false);
            self.seen.resends += 1;
        }
        self.later(first, Event::Ping { device, link });
    }

    fn client_send_ack(&mut self, device: u32, ack: &SendAck) {
        let d = &mut self.devices[device as usize];
        let Some(intent) = d.pending.remove(&ack.client_seq.to_string()) else { return };
        let transient = matches!(ack.reason, ReasonCode::SYSTEM_ERROR | ReasonCode::RATE_LIMIT);
        let i = &self.history.intents[intent as usize];
        let worth = !i.no.is_empty() && matches!(i.wrong, Wrong::Nothing);
        if transient && worth && (self.phase > Phase::Active || d.rng.chance(700)) {
            d.again += 1;
            // The more waits, the longer the application does.
            let after = d.rng.between(SEC, 4 * SEC) * (1 + d.pending.len() as u64 / 32).min(12);
            self.later(after, Event::Again { device, intent });
        }
    }

    /// The application tries again with the same key, as a new SEND.
    pub(crate) fn again(&mut self, device: u32, intent: IntentIx) {
        let d = &mut self.devices[device as usize];
        d.again -= 1;
        d.sent.push(intent);
        let seq = d.sent.len() as u32;
        d.pending.insert(seq.to_string(), intent);
        let state = d.state;
        self.history.intents[intent as usize].client_seq = seq;
        self.seen.retried_after_error += 1;
        if let State::Active(link) = state {
            self.send(device, link, intent, false);
            self.flush_up(link);
        }
    }

    fn client_recv(&mut self, device: u32, link: LinkIx, recv: &Recv) {
        let calm = self.phase > Phase::Active;
        let d = &mut self.devices[device as usize];
        let seen = d.seen.entry(recv.channel_id.clone()).or_default();
        *seen = (*seen).max(recv.message_seq);
        if calm || d.rng.chance(d.acks) {
            self.recv_ack(device, link, recv.message_id, recv.message_seq);
        } else if d.unacked.len() < 200 {
            d.unacked.push((recv.message_id, recv.message_seq));
        }
    }

    fn recv_ack(&mut self, device: u32, link: LinkIx, message_id: i64, message_seq: u64) {
        let version = self.devices[device as usize].version.min(6);
        let ack = RecvAck { message_id, message_seq, ..RecvAck::default() };
        let out = self.out(link);
        if encode_recv_ack(&ack, version, out).is_ok() {
            self.mark(link, Mark::RecvAck(message_id));
        }
    }

    /// Now and then what was withheld is acknowledged after all.
    pub(crate) fn late_acks(&mut self, device: u32, link: LinkIx) {
        let d = &mut self.devices[device as usize];
        if d.unacked.is_empty() || !d.rng.chance(100) {
            return;
        }
        for (id, seq) in std::mem::take(&mut d.unacked) {
            self.recv_ack(device, link, id, seq);
        }
    }

    /// The client's end of a connection is gone.
    pub(crate) fn client_lost(&mut self, link: LinkIx) {
        let device = self.links[link as usize].device;
        let d = &mut self.devices[device as usize];
        if d.state == State::Active(link) || d.state == State::Connecting(link) {
            d.state = State::Off;
            d.unacked.clear();
            self.come_back(device);
        }
    }

    /// A call was answered; a token call that failed or was lost is made again, because devices use the token already.
    pub(crate) fn call_ends(&mut self, call: CallId) {
        use wukong_core::api::{ApiAnswer, ApiRequest};
        let c = &self.history.calls[call.0 as usize];
        if let (ApiRequest::SetToken { uid, token, device_flag, .. }, Some(ApiAnswer::Refused(_)) | None) =
            (&c.request, &c.answer)
        {
            let (uid, token, flag): (Text, Text, u8) = (uid.clone(), token.clone(), *device_flag);
            let user = self.history.user(&uid);
            let current = self.devices.iter().any(|d| d.user == user && d.flag == flag && d.token == token);
            if current {
                self.token_due(user, flag, token);
            }
        }
    }

    pub(crate) fn token_due(&mut self, user: UserIx, flag: u8, token: Text) {
        let index = self.tokens_due.len() as u32;
        self.tokens_due.push((user, flag, token));
        self.later(500 * MS, Event::Token { index });
    }

    pub(crate) fn token_again(&mut self, index: u32) {
        let (user, flag, token) = self.tokens_due[index as usize].clone();
        self.set_token(user, flag, token, 0);
    }
}
