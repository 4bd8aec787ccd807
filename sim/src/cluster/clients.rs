//! Clients: devices that look for the node that serves their slot, send, repeat what is unanswered, and read.

use super::conns::Up;
use super::script::Step;
use super::world::{Event, World};
use crate::client::State;
use crate::clock::{MS, SEC};
use crate::history::{Call, ChannelIx, Intent, IntentIx, UserIx, Wrong};
use crate::rng::Rng;
use crate::world::truth::payload;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use wukong_core::Input;
use wukong_core::api::{ApiRequest, MessageSync};
use wukong_core::channel::id::compose;
use wukong_core::ids::{CallId, SlotId, slot_of};
use wukong_proto::{
    ConnAck, Connect, Flags, Frame, ReasonCode, RecvAck, Send, SendAck, Setting, Text, encode_connect, encode_ping,
    encode_recv_ack, encode_send,
};

/// Unanswered SENDs beyond which a client waits.
pub(super) const PENDING_MAX: usize = 12;
/// After that long without an answer a client tries another connection.
const PATIENCE: u64 = 12 * SEC;

/// One device of a user.
#[derive(Clone, Debug)]
pub struct Device {
    pub user: UserIx,
    pub slot: SlotId,
    id: Text,
    /// It only listens, at this node.
    pub listens: Option<usize>,
    pub channels: Vec<ChannelIx>,
    pub state: State,
    rng: Rng,
    /// Intents by client_seq (the first is 1).
    pub sent: Vec<IntentIx>,
    /// Not yet answered, by client_seq, and since when.
    pub pending: BTreeMap<u32, (IntentIx, u64)>,
    pub acked: Vec<IntentIx>,
    life: u32,
    spoke: u64,
    /// What it will say, if the plan gives it a script.
    pub script: VecDeque<Step>,
}

impl World {
    /// Users of each slot: their own slot and that of their channels are the same, because SENDs are not yet forwarded.
    pub(super) fn populate(&mut self) {
        let slots = self.plan.slots as u16;
        for slot in (0..slots).map(SlotId) {
            let mut users: Vec<Text> = Vec::new();
            let count = self.plan.users as usize;
            for name in (0..).map(|i| Text::from(format!("u{i}"))) {
                let last = users.len() + 1 == count;
                let peers = users.last().into_iter().chain(users.first().filter(|_| last));
                let fits = |peer: &Text| slot_of(compose(&name, peer), slots) == slot;
                if slot_of(&name, slots) == slot && peers.into_iter().all(fits) {
                    users.push(name);
                }
                if users.len() == count {
                    break;
                }
            }
            let users: Vec<UserIx> = users.iter().map(|u| self.history.user(u)).collect();
            for (i, user) in users.iter().enumerate() {
                let peers = [users[(i + 1) % count], users[(i + count - 1) % count]];
                let mut channels: Vec<ChannelIx> = peers.iter().map(|p| self.history.channel(*user, *p)).collect();
                channels.dedup();
                self.device(*user, slot, None, channels);
                for node in 0..self.plan.nodes as usize {
                    if self.plan.listeners > 0 {
                        self.device(*user, slot, Some(node), Vec::new());
                    }
                }
            }
        }
        self.write_scripts();
    }

    fn device(&mut self, user: UserIx, slot: SlotId, listens: Option<usize>, channels: Vec<ChannelIx>) {
        let device = self.devices.len() as u32;
        let mut rng = Rng::fork(self.plan.seed, "device", u64::from(device));
        let at = rng.below(300 * MS);
        self.heap.add(at + 2 * MS, Event::Connect { device, life: 0 });
        self.heap.add(at + 100 * MS, Event::Act { device });
        self.devices.push(Device {
            user,
            slot,
            id: Text::from(listens.map_or_else(|| "sender".to_owned(), |n| format!("listener{n}"))),
            listens,
            channels,
            state: State::Off,
            rng,
            sent: Vec::new(),
            pending: BTreeMap::new(),
            acked: Vec::new(),
            life: 0,
            spoke: 0,
            script: VecDeque::new(),
        });
    }

    /// A device wakes up.
    pub(super) fn act(&mut self, device: u32) {
        let d = &mut self.devices[device as usize];
        let calm = self.quiet.began > 0;
        let mean = if d.listens.is_some() { SEC } else { self.plan.think * MS };
        let next = if calm { d.rng.spread(100 * MS) } else { d.rng.spread(mean) };
        self.later(next, Event::Act { device });
        let d = &mut self.devices[device as usize];
        let State::Active(conn) = d.state else { return };
        if self.now > d.spoke + 60 * SEC {
            let mut out = BytesMut::new();
            encode_ping(&mut out);
            return self.speak(device, conn, out, Vec::new());
        }
        if d.listens.is_some() {
            return;
        }
        let waits = d.pending.values().any(|(_, since)| self.now > since + PATIENCE);
        let moved = d.rng.chance(if calm { 500 } else { 200 });
        let (slot, here) = (d.slot, self.conns[conn as usize].node);
        if waits || (moved && self.serving(slot).is_some_and(|n| n != here)) {
            return self.hang_up_client(conn);
        }
        if self.plan.sends > 0 {
            self.follow_script(device, conn);
        } else if !calm && self.idle == 0 {
            let d = &mut self.devices[device as usize];
            let user = d.user;
            if self.plan.tokens > 0 && d.rng.chance(self.plan.tokens as u32) {
                self.change_token(user);
            }
            self.talk(device, conn);
        }
    }

    fn talk(&mut self, device: u32, conn: u32) {
        let d = &mut self.devices[device as usize];
        let draw = d.rng.below(1000);
        if draw < 30 {
            return self.hang_up_client(conn);
        }
        if draw < 120 {
            let channel = *d.rng.pick(&d.channels);
            let user = d.user;
            let node = if draw < 60 { Some(d.rng.index(self.nodes.len())) } else { None };
            return self.read_channel(user, channel, node);
        }
        if draw < 200 && !d.acked.is_empty() {
            // An application that forgot that it was told.
            let intent = *d.rng.pick(&d.acked);
            self.cover.hit("acknowledged sent again");
            return self.send(device, conn, &[intent]);
        }
        if d.pending.len() < PENDING_MAX {
            let n = d.rng.between(1, 3);
            let intents: Vec<IntentIx> = (0..n)
                .map(|_| {
                    let d = &mut self.devices[device as usize];
                    let channel = *d.rng.pick(&d.channels);
                    self.intend(device, channel)
                })
                .collect();
            self.send(device, conn, &intents);
        }
    }

    /// A message that this device wants to send.
    pub(super) fn intend(&mut self, device: u32, channel: ChannelIx) -> IntentIx {
        let intent = self.history.intents.len() as IntentIx;
        let d = &mut self.devices[device as usize];
        let bytes = d.rng.between(8, self.plan.payload.max(8)) as u32;
        self.history.intents.push(Intent {
            from: d.user,
            device,
            channel: Some(channel),
            client_seq: 0,
            no: Text::from(format!("m{intent}")),
            bytes,
            wrong: Wrong::Nothing,
        });
        intent
    }

    /// SENDs, under new numbers.
    pub(super) fn send(&mut self, device: u32, conn: u32, intents: &[IntentIx]) {
        let first = self.devices[device as usize].sent.len() as u32 + 1;
        intents.iter().for_each(|intent| self.send_later(device, *intent));
        let numbers: Vec<u32> = (first..).take(intents.len()).collect();
        self.transmit(device, conn, &numbers);
    }

    /// The same once the device is connected.
    pub(super) fn send_later(&mut self, device: u32, intent: IntentIx) {
        let now = self.now;
        let d = &mut self.devices[device as usize];
        d.sent.push(intent);
        d.pending.insert(d.sent.len() as u32, (intent, now));
    }

    fn transmit(&mut self, device: u32, conn: u32, numbers: &[u32]) {
        let mut out = BytesMut::new();
        let mut intents = Vec::new();
        for seq in numbers {
            let Some((intent, _)) = self.devices[device as usize].pending.get(seq).copied() else { continue };
            let i = &self.history.intents[intent as usize];
            let users = i.channel.map_or([i.from; 2], |c| self.history.channels[c as usize].users);
            let peer = if users[0] == i.from { users[1] } else { users[0] };
            let send = Send {
                flags: Flags::RED_DOT,
                setting: Setting::NO_ENCRYPT,
                client_seq: *seq,
                client_msg_no: i.no.clone(),
                channel_id: self.history.users[peer as usize].clone(),
                channel_type: 1,
                payload: Bytes::from(payload(intent, i.bytes)),
                ..Send::default()
            };
            if encode_send(&send, 5, &mut out).is_ok() {
                intents.push(intent);
            }
        }
        self.speak(device, conn, out, intents);
    }

    fn speak(&mut self, device: u32, conn: u32, out: BytesMut, intents: Vec<IntentIx>) {
        self.devices[device as usize].spoke = self.now;
        if !out.is_empty() {
            self.send_up(conn, Up::Bytes(out.freeze(), intents));
        }
    }

    pub(super) fn connect(&mut self, device: u32, life: u32) {
        let d = &mut self.devices[device as usize];
        if d.life != life || d.state != State::Off {
            return;
        }
        let (slot, listens, astray) =
            (d.slot, d.listens, d.rng.chance(80) && self.quiet.began == 0 && self.plan.sends == 0);
        let node = match listens {
            Some(n) => Some(n),
            None if astray => Some(self.rng.clients.index(self.nodes.len())),
            None => self.serving(slot),
        };
        let Some(node) = node.filter(|n| self.nodes[*n].alive) else { return self.come_back(device) };
        let conn = self.open(device, node);
        let d = &mut self.devices[device as usize];
        d.state = State::Connecting(conn);
        let connect = Connect {
            version: 5,
            device_id: d.id.clone(),
            uid: self.history.users[d.user as usize].clone(),
            client_key: self.key.public.clone(),
            ..Connect::default()
        };
        let mut out = BytesMut::new();
        if encode_connect(&connect, &mut out).is_ok() {
            self.speak(device, conn, out, Vec::new());
        }
    }

    fn come_back(&mut self, device: u32) {
        let d = &mut self.devices[device as usize];
        let after = d.rng.spread(120 * MS);
        let life = d.life;
        self.later(after, Event::Connect { device, life });
    }

    pub(super) fn client_receives(&mut self, conn: u32, frames: Vec<Frame>) {
        let device = self.conns[conn as usize].device;
        let mut out = BytesMut::new();
        for frame in frames {
            self.hear(conn, &frame);
            match frame {
                Frame::ConnAck(ack) => self.connected(device, conn, &ack),
                Frame::SendAck(ack) => self.answered_send(device, conn, &ack),
                Frame::Recv(r) if self.devices[device as usize].rng.chance(950) => {
                    let ack = RecvAck { message_id: r.message_id, message_seq: r.message_seq, ..RecvAck::default() };
                    // A frame that is too large for the buffer is not sent: a RECVACK never is.
                    let _ = encode_recv_ack(&ack, 5, &mut out);
                }
                _ => {}
            }
        }
        if self.conns[conn as usize].client_open {
            self.speak(device, conn, out, Vec::new());
        }
    }

    fn connected(&mut self, device: u32, conn: u32, ack: &ConnAck) {
        let now = self.now;
        let d = &mut self.devices[device as usize];
        if d.state != State::Connecting(conn) || ack.reason != ReasonCode::SUCCESS {
            return;
        }
        d.state = State::Active(conn);
        d.pending.values_mut().for_each(|(_, since)| *since = now);
        let numbers: Vec<u32> = d.pending.keys().copied().collect();
        if !numbers.is_empty() {
            self.cover.hit("resent after reconnect");
            self.transmit(device, conn, &numbers);
        }
    }

    fn answered_send(&mut self, device: u32, conn: u32, ack: &SendAck) {
        let d = &mut self.devices[device as usize];
        let Some((intent, _)) = d.pending.remove(&ack.client_seq) else { return };
        if ack.reason == ReasonCode::SUCCESS {
            d.acked.push(intent);
            return self.quiet_acked(intent);
        }
        self.cover.hit("refused");
        // Another number, and another connection: whoever refused may not lead any more. Who has too much to do is left to do it.
        self.send_later(device, intent);
        if ack.reason != ReasonCode::RATE_LIMIT {
            self.hang_up_client(conn);
        }
    }

    pub(super) fn client_lost(&mut self, conn: u32) {
        let device = self.conns[conn as usize].device;
        let d = &mut self.devices[device as usize];
        if d.state == State::Active(conn) || d.state == State::Connecting(conn) {
            d.state = State::Off;
            d.life += 1;
            self.come_back(device);
        }
    }

    /// The business backend reads a channel: at the node that serves it, or at any.
    pub(super) fn read_channel(&mut self, user: UserIx, channel: ChannelIx, node: Option<usize>) {
        let c = &self.history.channels[channel as usize];
        let peer = if c.users[0] == user { c.users[1] } else { c.users[0] };
        let slot = slot_of(&c.key.id, self.plan.slots as u16);
        let Some(n) = node.or_else(|| self.serving(slot)).filter(|n| self.nodes[*n].alive) else { return };
        let request = ApiRequest::MessageSync(MessageSync {
            login_uid: self.history.users[user as usize].clone(),
            channel_id: self.history.users[peer as usize].clone(),
            channel_type: 1,
            start: 1,
            end: 0,
            limit: 10_000,
            up: true,
        });
        let home = request.home(self.plan.slots as u16, self.plan.shards as u8).0;
        let call = CallId(self.history.calls.len() as u64);
        let low = self.readable_from(channel, call);
        self.history.calls.push(Call {
            request: request.clone(),
            began: self.now,
            ended: None,
            answer: None,
            bounds: vec![(channel, low, 0)],
            durable: true,
            lost: false,
        });
        self.arrive(n, home, Input::Call { call, request });
    }
}
