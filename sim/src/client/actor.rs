//! What devices do of their own accord.

use super::State;
use crate::clock::{MS, SEC};
use crate::history::{Call, Intent, IntentIx, LinkIx, UserIx, Wrong};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::scenario::Population;
use crate::scenario::script::Action;
use crate::world::net::Mark;
use crate::world::truth::payload;
use crate::world::{Event, Phase, World};
use bytes::{BufMut, Bytes};
use wukong_core::Input;
use wukong_core::api::{ApiRequest, ConversationSync, MessageSync};
use wukong_core::ids::CallId;
use wukong_proto::{
    Connect, Disconnect, Flags, Send, Setting, Text, encode_connect, encode_disconnect, encode_ping, encode_send,
};

/// Breaks of the protocol, each closing the connection (wire-protocol 10).
const GARBAGE: [&[u8]; 6] = [
    &[0x00, 0x00],
    &[0xD0, 0x01, 0x00],
    &[0x30, 0x00],
    &[0x30, 0x80, 0x80, 0x80, 0x80],
    &[0x60, 0x0B, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x20, 0x00],
];

impl<M: Machine> World<M> {
    /// A device of a population wakes up.
    pub(crate) fn act(&mut self, device: u32, life: u32) {
        let d = &mut self.devices[device as usize];
        if self.phase != Phase::Active || d.life != life {
            return;
        }
        let Some(p) = d.population.and_then(|p| self.sc.populations.get(p)).cloned() else { return };
        let mut next = d.rng.spread(p.think.0);
        if let State::Active(link) = d.state {
            next += self.choose(device, link, &p);
        }
        self.later(next, Event::Act { device, life });
    }

    fn choose(&mut self, device: u32, link: LinkIx, p: &Population) -> u64 {
        let weights = [p.send, p.cut, p.bye, p.idle, p.garbage, p.freeze, p.sync, p.token];
        let rng = &mut self.devices[device as usize].rng;
        let mut draw = rng.below(u64::from(weights.iter().sum::<u32>().max(1))) as u32;
        let mut choice = 0;
        for (i, w) in weights.iter().enumerate() {
            if draw < *w {
                choice = i;
                break;
            }
            draw -= w;
        }
        match choice {
            0 => self.talk(device, link, p),
            1 => {
                let heard = self.devices[device as usize].rng.chance(800);
                self.cut(link, heard);
            }
            2 => self.bye(link),
            3 => return self.devices[device as usize].rng.between(5 * SEC, 400 * SEC),
            4 => self.garbage(device, link),
            5 => {
                let after = self.devices[device as usize].rng.between(100 * MS, 20 * SEC);
                self.freeze(link, true);
                self.later(after, Event::Step { index: u32::MAX - link });
            }
            6 => self.some_sync(device),
            _ => self.some_token(device),
        }
        0
    }

    fn talk(&mut self, device: u32, link: LinkIx, p: &Population) {
        let d = &mut self.devices[device as usize];
        let n = d.rng.between(1, u64::from(p.burst.max(1)));
        for _ in 0..n {
            let d = &mut self.devices[device as usize];
            let peer = if d.peers.is_empty() || d.rng.chance(p.myself) { d.user } else { *d.rng.pick(&d.peers) };
            let wrong = wrong(&mut d.rng, p);
            let nokey = d.rng.chance(p.nokey);
            let bytes = d.rng.between(8, u64::from(p.payload.max(8))) as u32;
            let plain = d.rng.chance(p.plain);
            let intent = self.intend(device, peer, None, nokey, bytes, wrong);
            self.send(device, link, intent, plain);
            if self.devices[device as usize].rng.chance(p.again) {
                self.send(device, link, intent, plain);
            }
        }
        self.late_acks(device, link);
        self.flush_up(link);
    }

    /// A new message; `no` names its key, else it gets a number.
    pub(crate) fn intend(
        &mut self,
        device: u32,
        peer: UserIx,
        no: Option<Text>,
        nokey: bool,
        bytes: u32,
        wrong: Wrong,
    ) -> IntentIx {
        let ix = self.history.intents.len() as IntentIx;
        let d = &self.devices[device as usize];
        let mut wrong = wrong;
        let user = d.user;
        let mut key = no.unwrap_or_else(|| Text::from(format!("m{ix}")));
        let mut peer = peer;
        if wrong == Wrong::Conflict {
            // The key and the channel of something sent before.
            let known = &self.history.intents;
            let earlier = d.sent.iter().rev().map(|i| &known[*i as usize]);
            let earlier =
                earlier.take(20).find(|i| i.wrong == Wrong::Nothing && !i.no.is_empty() && i.channel.is_some());
            match earlier {
                Some(e) => {
                    key = e.no.clone();
                    let users = self.history.channels[e.channel.unwrap_or_default() as usize].users;
                    peer = if users[0] == user { users[1] } else { users[0] };
                }
                None => wrong = Wrong::Nothing,
            }
        } else if nokey {
            key = Text::default();
        }
        let channel = match wrong {
            Wrong::ChannelId | Wrong::ChannelType => None,
            _ => Some(self.history.channel(user, peer)),
        };
        let d = &mut self.devices[device as usize];
        d.sent.push(ix);
        let client_seq = d.sent.len() as u32;
        d.pending.insert(client_seq.to_string(), ix);
        self.history.intents.push(Intent { from: user, device, channel, client_seq, no: key, bytes, wrong });
        ix
    }

    /// Encodes a SEND of an intent on an active connection.
    pub(crate) fn send(&mut self, device: u32, link: LinkIx, intent: IntentIx, plain: bool) {
        let i = self.history.intents[intent as usize].clone();
        let d = &self.devices[device as usize];
        let version = d.version.min(6);
        let peer = i.channel.map(|c| {
            let users = self.history.channels[c as usize].users;
            if users[0] == i.from { users[1] } else { users[0] }
        });
        let channel_id = match (i.wrong, peer) {
            (Wrong::ChannelId, _) => Text::from_static("a@b"),
            (_, Some(p)) => self.history.users[p as usize].clone(),
            (_, None) => Text::from_static("group"),
        };
        let mut send = Send {
            flags: Flags::RED_DOT,
            setting: Setting::default(),
            client_seq: i.client_seq,
            client_msg_no: i.no.clone(),
            channel_id,
            channel_type: if i.wrong == Wrong::ChannelType { 2 } else { 1 },
            ..Send::default()
        };
        let body = payload(intent, i.bytes);
        let session = self.links[link as usize].session.filter(|_| !plain);
        match session {
            Some(s) => s.sign_send(&mut send, &body),
            None => {
                send.setting = Setting::NO_ENCRYPT;
                send.payload = Bytes::from(body);
            }
        }
        if i.wrong == Wrong::Signature {
            send.msg_key = Text::from_static("00000000000000000000000000000000");
        }
        let out = self.out(link);
        if encode_send(&send, version, out).is_ok() {
            self.mark(link, Mark::Send(intent));
            self.seen.sends += 1;
        }
    }

    pub(crate) fn bye(&mut self, link: LinkIx) {
        let out = self.out(link);
        let _ = encode_disconnect(&Disconnect::default(), out);
        self.mark(link, Mark::End);
        self.flush_up(link);
    }

    pub(crate) fn garbage(&mut self, device: u32, link: LinkIx) {
        let bytes = *self.devices[device as usize].rng.pick(&GARBAGE);
        self.out(link).put_slice(bytes);
        self.mark(link, Mark::End);
        self.flush_up(link);
        self.seen.garbage += 1;
    }

    pub(crate) fn ping_timer(&mut self, device: u32, link: LinkIx) {
        let d = &self.devices[device as usize];
        if d.state != State::Active(link) || !(d.pings || self.phase > Phase::Active) {
            return;
        }
        self.ping(link);
        self.later(60 * SEC, Event::Ping { device, link });
    }

    pub(crate) fn ping(&mut self, link: LinkIx) {
        let out = self.out(link);
        encode_ping(out);
        self.mark(link, Mark::Ping);
        self.flush_up(link);
    }

    /// Connects if the device still wants to and is not connected.
    pub(crate) fn reconnect(&mut self, device: u32, life: u32) {
        let d = &self.devices[device as usize];
        if d.life != life || !d.wanted || d.state != State::Off {
            return;
        }
        let Some(link) = self.open(device) else {
            self.come_back(device);
            return;
        };
        let wrong_token =
            self.sc.node.tokens && self.phase == Phase::Active && self.devices[device as usize].rng.chance(50);
        let client_timestamp = self.wall_ms() as i64;
        let d = &mut self.devices[device as usize];
        d.state = State::Connecting(link);
        d.unacked.clear();
        let uid = self.history.users[d.user as usize].clone();
        let token = if wrong_token { Text::from_static("no such token") } else { d.token.clone() };
        let connect = Connect {
            flags: Flags::default(),
            version: d.version,
            device_flag: d.flag,
            device_id: d.id.clone(),
            uid,
            token,
            client_timestamp,
            client_key: self.keys_public(device),
        };
        self.links[link as usize].wrong_token = wrong_token;
        let out = self.out(link);
        let _ = encode_connect(&connect, out);
        self.pipelined(device, link);
        self.flush_up(link);
    }

    /// Some clients do not wait for CONNACK.
    fn pipelined(&mut self, device: u32, link: LinkIx) {
        let d = &mut self.devices[device as usize];
        let plain = d.population.and_then(|p| self.sc.populations.get(p)).map_or(0, |p| p.plain);
        if self.phase == Phase::Active && d.rng.chance(plain * 4) && !d.peers.is_empty() {
            let peer = *d.rng.pick(&d.peers);
            let intent = self.intend(device, peer, None, false, 8, Wrong::Nothing);
            self.send(device, link, intent, true);
            self.seen.pipelined += 1;
        }
    }

    /// A device without connection tries again later.
    pub(crate) fn come_back(&mut self, device: u32) {
        let d = &mut self.devices[device as usize];
        if !d.wanted {
            return;
        }
        let mean = d.population.and_then(|p| self.sc.populations.get(p)).map_or(200 * MS, |p| p.backoff.0);
        let after = if self.phase == Phase::Active { d.rng.spread(mean) } else { d.rng.spread(300 * MS) };
        let life = d.life;
        self.later(after, Event::Reconnect { device, life });
    }

    /// A call of the business backend.
    pub(crate) fn call(&mut self, request: ApiRequest, anywhere: bool, channels: Vec<u32>) {
        if !self.is_up() {
            if let ApiRequest::SetToken { uid, token, device_flag, .. } = request {
                let user = self.history.user(&uid);
                self.token_due(user, device_flag, token);
            }
            return;
        }
        let shards = self.shards_up();
        let home = request.home(self.sc.node.slots, shards).0;
        let shard = if anywhere { self.rng.clients.below(u64::from(shards)) as u8 } else { home };
        let bounds = channels.into_iter().map(|c| (c, self.bounds(c).0, 0)).collect();
        let call = CallId(self.history.calls.len() as u64);
        self.history.calls.push(Call {
            request: request.clone(),
            began: self.now,
            ended: None,
            answer: None,
            bounds,
            durable: true,
            lost: false,
        });
        self.arrive(shard, Input::Call { call, request });
    }

    fn some_sync(&mut self, device: u32) {
        let d = &mut self.devices[device as usize];
        let user = d.user;
        let anywhere = d.rng.chance(200);
        if d.rng.chance(400) {
            let msg_count = d.rng.between(1, 4) as i64;
            self.conversations(user, msg_count, anywhere);
            return;
        }
        let peer = if d.peers.is_empty() { user } else { *d.rng.pick(&d.peers) };
        let limit = *d.rng.pick(&[0, 1, 2, 5, 100]);
        let up = d.rng.chance(500);
        let (a, b) = (d.rng.u64(), d.rng.u64());
        let channel = self.history.channel(user, peer);
        let (_, last) = self.bounds(channel);
        let near = |v: u64| if v.is_multiple_of(4) { 0 } else { (v >> 8) % (last + 4) };
        self.messages(user, peer, near(a), near(b), limit, up, anywhere);
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn messages(
        &mut self,
        user: UserIx,
        peer: UserIx,
        start: u64,
        end: u64,
        limit: i64,
        up: bool,
        anywhere: bool,
    ) {
        let channel = self.history.channel(user, peer);
        let request = ApiRequest::MessageSync(MessageSync {
            login_uid: self.history.users[user as usize].clone(),
            channel_id: self.history.users[peer as usize].clone(),
            channel_type: 1,
            start,
            end,
            limit,
            up,
        });
        self.call(request, anywhere, vec![channel]);
    }

    pub(crate) fn conversations(&mut self, user: UserIx, msg_count: i64, anywhere: bool) {
        let channels = self.history.channels.iter().enumerate();
        let mine = channels.filter(|(_, c)| c.users.contains(&user)).map(|(i, _)| i as u32).collect();
        let uid = self.history.users[user as usize].clone();
        let request = ApiRequest::ConversationSync(ConversationSync { uid, msg_count, ..ConversationSync::default() });
        self.call(request, anywhere, mine);
    }

    pub(crate) fn some_token(&mut self, device: u32) {
        let n = self.history.calls.len();
        let d = &mut self.devices[device as usize];
        let token = Text::from(format!("token {n}"));
        let level = u8::from(d.rng.chance(200));
        let (user, device_flag) = (d.user, d.flag);
        self.set_token(user, device_flag, token, level);
    }

    pub(crate) fn set_token(&mut self, user: UserIx, device_flag: u8, token: Text, level: u8) {
        for d in &mut self.devices {
            if d.user == user && d.flag == device_flag {
                d.token = token.clone();
            }
        }
        let uid = self.history.users[user as usize].clone();
        self.call(ApiRequest::SetToken { uid, token, device_flag, device_level: level }, false, Vec::new());
    }

    /// Steps of a script; large numbers end a freeze.
    pub(crate) fn scripted(&mut self, index: u32) {
        let Some(step) = self.sc.steps.get(index as usize).cloned() else {
            let link = u32::MAX - index;
            if (link as usize) < self.links.len() {
                self.freeze(link, false);
            }
            return;
        };
        let Some(device) = self.sc.devices.iter().position(|d| d.name == step.device) else { return };
        let device = device as u32;
        let f = &step.fields;
        let link = match self.devices[device as usize].state {
            State::Active(link) => Some(link),
            _ => None,
        };
        let user = self.devices[device as usize].user;
        let peer = if f.to.is_empty() { user } else { self.history.user(&f.to) };
        match (step.action, link) {
            (Action::Connect, _) => {
                let d = &mut self.devices[device as usize];
                d.wanted = true;
                let life = d.life;
                self.reconnect(device, life);
            }
            (Action::Send, _) => {
                for _ in 0..f.times {
                    let no = (!f.no.is_empty()).then(|| Text::from(f.no.as_str()));
                    let intent = self.intend(device, peer, no, false, f.bytes, Wrong::Nothing);
                    if let Some(link) = link {
                        self.send(device, link, intent, false);
                    }
                }
                if let Some(link) = link {
                    self.flush_up(link);
                }
            }
            (Action::Acks, _) => self.devices[device as usize].acks = if f.on { 1000 } else { 0 },
            (Action::Ping, Some(link)) => self.ping(link),
            (Action::Cut, Some(link)) => {
                self.devices[device as usize].wanted = f.on;
                self.cut(link, true);
            }
            (Action::Bye, Some(link)) => {
                self.devices[device as usize].wanted = false;
                self.bye(link);
            }
            (Action::Garbage, Some(link)) => self.garbage(device, link),
            (Action::Freeze, Some(link)) => self.freeze(link, true),
            (Action::Thaw, Some(link)) => self.freeze(link, false),
            (Action::Sync, _) => self.messages(user, peer, f.start, f.end, f.limit, f.up, false),
            (Action::Conversations, _) => self.conversations(user, f.limit, false),
            (_, None) => {}
        }
    }
}

fn wrong(rng: &mut Rng, p: &Population) -> Wrong {
    let mut draw = rng.below(1000) as u32;
    for (share, wrong) in [
        (p.conflict, Wrong::Conflict),
        (p.badkey, Wrong::Signature),
        (p.badchannel, Wrong::ChannelId),
        (p.badchannel, Wrong::ChannelType),
    ] {
        if draw < share {
            return wrong;
        }
        draw -= share;
    }
    Wrong::Nothing
}
