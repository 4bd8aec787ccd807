//! RECV at the tap: right message, right view, right keys (INV-20, INV-21).

use super::World;
use super::truth::{payload, tag};
use crate::history::{Event as Happened, LinkIx, Wrongs};
use crate::machine::Machine;
use wukong_proto::{Recv, Setting};

impl<M: Machine> World<M> {
    pub(super) fn tap_recv(&mut self, link: LinkIx, recv: &Recv) {
        if !self.mode.oracles {
            return;
        }
        let mut wrong = Wrongs::default();
        let l = &self.links[link as usize];
        let user = self.devices[l.device as usize].user;
        let mut intent = None;
        match &l.session {
            Some(session) => {
                if !session.recv_is_signed(recv) {
                    wrong.0 |= Wrongs::SIGNATURE;
                }
                let plain = session.open(&recv.payload);
                intent = plain.as_deref().and_then(tag).filter(|i| (*i as usize) < self.history.intents.len());
                let whole = intent.map(|i| payload(i, self.history.intents[i as usize].bytes));
                if plain.as_deref() != whole.as_deref() || whole.is_none() {
                    wrong.0 |= Wrongs::PAYLOAD;
                }
            }
            None => wrong.0 |= Wrongs::PAYLOAD,
        }
        let Some(intent) = intent else {
            self.happened(Happened::Illegal { link, what: "a RECV whose payload no client sent, or with other keys" });
            return;
        };
        let i = &self.history.intents[intent as usize];
        let Some(channel) = i.channel else {
            self.happened(Happened::Illegal { link, what: "a RECV of a message that had to be refused" });
            return;
        };
        let users = self.history.channels[channel as usize].users;
        let from = i.from;
        if !users.contains(&user) {
            wrong.0 |= Wrongs::NOT_FOR_USER;
        }
        let peer = if users[0] == user { users[1] } else { users[0] };
        if recv.channel_id != self.history.users[peer as usize] {
            wrong.0 |= Wrongs::CHANNEL_ID;
        }
        if recv.from_uid != self.history.users[from as usize] {
            wrong.0 |= Wrongs::FROM_UID;
        }
        if recv.client_msg_no != i.no || recv.channel_type != 1 || recv.setting.0 & Setting::NO_ENCRYPT.0 != 0 {
            wrong.0 |= Wrongs::OTHER_ROW;
        }
        if recv.flags.red_dot() != (from != user) || recv.flags.no_persist() || recv.flags.sync_once() {
            wrong.0 |= Wrongs::FLAGS;
        }
        if let Some(row) = self.judge_row(channel, recv.message_seq, recv.message_id, &mut wrong) {
            if recv.timestamp != row.timestamp() {
                wrong.0 |= Wrongs::TIMESTAMP;
            }
            if tag(&row.payload) != Some(intent) {
                wrong.0 |= Wrongs::OTHER_ROW;
            }
        }
        self.happened(Happened::RecvOut {
            link,
            channel,
            seq: recv.message_seq,
            id: recv.message_id,
            intent,
            dup: recv.flags.dup(),
            wrong,
        });
    }
}
