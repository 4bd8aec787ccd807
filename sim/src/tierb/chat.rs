//! Users that chat over the simulated network, with the real codec and real keys.
//!
//! Each sends numbered messages to its neighbours, repeats what was not acknowledged on every new connection, and answers
//! what it receives. Of several nodes everybody looks for the one that serves.

use super::plan::Plan;
use super::store::lock;
use super::world::World;
use crate::client::session::{KeyPair, Session};
use crate::rng::Rng;
use bytes::{Bytes, BytesMut};
use madsim::runtime::Handle;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use wukong_proto::{
    ConnAck, Connect, Decoder, Flags, Frame, ReasonCode, Recv, RecvAck, Send, SendAck, Setting, Text, encode_connect,
    encode_recv_ack, encode_send,
};

const VERSION: u8 = 5;
/// No CONNACK, or no SENDACK although one is owed: the user connects anew.
const PATIENCE: Duration = Duration::from_secs(4);
/// Messages of a user without SENDACK.
const OPEN_MAX: usize = 12;

/// A message that somebody wants stored.
#[derive(Clone, Debug)]
pub struct Intent {
    pub from: usize,
    pub to: usize,
    /// Counts the sender's messages from 1: `client_seq`, and with the sender the `client_msg_no`.
    pub number: u32,
    /// The sender's connection that it left on first.
    line: u64,
    /// (seq, id) of the first SENDACK.
    pub acked: Option<(u64, i64)>,
}

/// What all users know.
pub struct Chat {
    pub users: usize,
    pub intents: Mutex<Vec<Intent>>,
    /// No new messages any more.
    pub winding_down: AtomicBool,
    /// Everybody goes home.
    pub over: AtomicBool,
    received: AtomicU64,
    pub refused: AtomicU64,
}

impl Intent {
    #[must_use]
    pub fn no(&self) -> String {
        format!("u{}-{}", self.from, self.number)
    }

    #[must_use]
    pub fn payload(&self) -> Vec<u8> {
        format!("message {} of u{} to u{}", self.number, self.from, self.to).into_bytes()
    }
}

#[must_use]
pub fn uid(user: usize) -> String {
    format!("u{user}")
}

impl Chat {
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            users: plan.users,
            intents: Mutex::default(),
            winding_down: AtomicBool::new(false),
            over: AtomicBool::new(false),
            received: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// (acked, received)
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        let acked = lock(&self.intents).iter().filter(|i| i.acked.is_some()).count();
        (acked as u64, self.received.load(Ordering::Relaxed))
    }

    /// Messages without SENDACK.
    #[must_use]
    pub fn open(&self) -> usize {
        lock(&self.intents).iter().filter(|i| i.acked.is_none()).count()
    }

    fn open_of(&self, user: usize) -> Vec<Intent> {
        lock(&self.intents).iter().filter(|i| i.from == user && i.acked.is_none()).cloned().collect()
    }

    fn intend(&self, from: usize, to: usize, line: u64) -> Intent {
        let mut intents = lock(&self.intents);
        let number = intents.iter().filter(|i| i.from == from).count() as u32 + 1;
        let intent = Intent { from, to, number, line, acked: None };
        intents.push(intent.clone());
        intent
    }
}

/// Everybody, on a machine of their own.
#[must_use]
pub fn start(world: &Arc<World>) -> Vec<JoinHandle<()>> {
    let machine = Handle::current().create_node().name("people").ip(Ipv4Addr::new(10, 0, 1, 1).into()).build();
    (0..world.plan.users).map(|user| machine.spawn(User::new(world, user).live())).collect()
}

struct User {
    world: Arc<World>,
    me: usize,
    rng: Rng,
    keys: KeyPair,
    /// The node that it tries next.
    site: usize,
    /// The last connection was of use.
    served: bool,
    /// Counts connections.
    line: u64,
    /// When the oldest unanswered SEND or CONNECT of this connection left.
    asked: Option<Instant>,
}

/// An open connection.
struct Line {
    stream: TcpStream,
    decoder: Decoder,
    session: Option<Session>,
}

impl User {
    fn new(world: &Arc<World>, me: usize) -> Self {
        let mut rng = Rng::fork(world.plan.seed, "user", me as u64);
        let keys = KeyPair::new(rng.bytes32());
        let site = me % world.sites.len();
        Self { world: world.clone(), me, rng, keys, site, served: false, line: 0, asked: None }
    }

    fn is_over(&self) -> bool {
        self.world.chat.over.load(Ordering::Relaxed)
    }

    async fn live(mut self) {
        while !self.is_over() {
            let site = &self.world.sites[self.site];
            let addr = site.tcp(self.rng.below(u64::from(site.shards)) as u8);
            if let Ok(Ok(stream)) = timeout(PATIENCE, TcpStream::connect(addr)).await {
                let line = Line { stream, decoder: Decoder::new(VERSION), session: None };
                // How it ended does not matter: all that is unanswered is sent again.
                let _ = self.talk(line).await;
            }
            if !self.served {
                self.site = self.rng.index(self.world.sites.len());
            }
            self.served = false;
            sleep(Duration::from_millis(self.rng.between(5, 400))).await;
        }
    }

    /// One connection, to its end.
    async fn talk(&mut self, mut line: Line) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        self.line += 1;
        let _ = encode_connect(&self.connect(), &mut out);
        self.asked = Some(Instant::now());
        line.write(&mut out).await?;
        let mut next = Instant::now();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = tokio::select! {
                biased;
                read = line.stream.read(&mut buffer) => Some(read?),
                () = sleep_until(next) => None,
            };
            match read {
                Some(0) => return Ok(()),
                Some(n) => {
                    line.decoder.feed(Bytes::copy_from_slice(&buffer[..n]));
                    while let Some(frame) = line.decoder.next().map_err(|v| self.broken(&v))? {
                        if !self.frame(&mut line, frame, &mut out) {
                            return Ok(());
                        }
                    }
                }
                None => {
                    next = Instant::now() + Duration::from_millis(self.rng.spread(self.world.plan.think));
                    if self.is_over() || self.asked.is_some_and(|at| at.elapsed() > PATIENCE) {
                        return Ok(());
                    }
                    // Some connections just break.
                    if self.rng.chance(5) {
                        return Ok(());
                    }
                    self.say_something(&line, &mut out);
                }
            }
            line.write(&mut out).await?;
        }
    }

    fn broken(&self, what: &dyn std::fmt::Debug) -> std::io::Error {
        self.world.tape.violation(format!("WIRE u{}: {what:?}", self.me));
        std::io::ErrorKind::InvalidData.into()
    }

    fn connect(&self) -> Connect {
        Connect {
            flags: Flags::default(),
            version: VERSION,
            device_flag: 0,
            device_id: Text::from("d"),
            uid: Text::from(uid(self.me)),
            token: Text::default(),
            client_timestamp: 0,
            client_key: self.keys.public.clone(),
        }
    }

    fn say_something(&mut self, line: &Line, out: &mut BytesMut) {
        let Some(session) = line.session else { return };
        let chat = &self.world.chat;
        if chat.winding_down.load(Ordering::Relaxed) || chat.open_of(self.me).len() >= OPEN_MAX {
            return;
        }
        for _ in 0..self.rng.between(1, 4) {
            let to = (self.me + 1 + self.rng.index(chat.users - 1)) % chat.users;
            let intent = chat.intend(self.me, to, self.line);
            send(&session, &intent, out);
        }
        self.asked.get_or_insert_with(Instant::now);
    }

    /// False: the connection is of no more use.
    fn frame(&mut self, line: &mut Line, frame: Frame, out: &mut BytesMut) -> bool {
        match frame {
            Frame::ConnAck(ack) => return self.connected(line, &ack, out),
            Frame::SendAck(ack) => return self.acked(&ack),
            Frame::Recv(recv) => self.received(line, &recv, out),
            Frame::Disconnect(_) => return false,
            _ => {}
        }
        true
    }

    fn connected(&mut self, line: &mut Line, ack: &ConnAck, out: &mut BytesMut) -> bool {
        if ack.reason != ReasonCode::SUCCESS {
            self.world.tape.violation(format!("CONNACK u{}: {:?}", self.me, ack.reason));
            return false;
        }
        let Some(session) = self.keys.session(&ack.server_key, &ack.salt) else {
            self.world.tape.violation(format!("CONNACK u{}: no usable keys", self.me));
            return false;
        };
        line.session = Some(session);
        self.served = true;
        let open = self.world.chat.open_of(self.me);
        open.iter().for_each(|intent| send(&session, intent, out));
        self.asked = (!open.is_empty()).then(Instant::now);
        true
    }

    fn acked(&mut self, ack: &SendAck) -> bool {
        let chat = &self.world.chat;
        if ack.reason != ReasonCode::SUCCESS {
            // Its node may have lost its office; another one serves.
            self.served = false;
            // Not stored, or unknown: said again on the next connection.
            chat.refused.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let told = (ack.message_seq, ack.message_id);
        let mut intents = lock(&chat.intents);
        match intents.iter_mut().find(|i| i.from == self.me && i.number == ack.client_seq) {
            None => self.world.tape.violation(format!("INV-50 u{}: {ack:?} was never asked for", self.me)),
            Some(intent) => match intent.acked.replace(told) {
                Some(before) if before != told => {
                    let what = format!("INV-9 {}: acknowledged as {before:?} and as {told:?}", intent.no());
                    self.world.tape.violation(what);
                }
                _ => self.world.tape.say(format_args!("{} is acked as {told:?}", intent.no())),
            },
        }
        let open = intents.iter().any(|i| i.from == self.me && i.acked.is_none());
        self.asked = open.then(Instant::now);
        true
    }

    fn received(&mut self, line: &Line, recv: &Recv, out: &mut BytesMut) {
        let chat = &self.world.chat;
        chat.received.fetch_add(1, Ordering::Relaxed);
        let ack = RecvAck { flags: recv.flags, message_id: recv.message_id, message_seq: recv.message_seq };
        let _ = encode_recv_ack(&ack, VERSION, out);
        let intents = lock(&chat.intents);
        // What is distributed again after a crash goes to all who are there, also to a new connection of the sender.
        let mine = |i: &&Intent| i.to == self.me || i.from == self.me && i.line < self.line;
        let intent = intents.iter().filter(mine).find(|i| i.no() == *recv.client_msg_no);
        let payload = line.session.filter(|s| s.recv_is_signed(recv)).and_then(|s| s.open(&recv.payload));
        let right = intent.is_some_and(|i| {
            payload.as_deref() == Some(&i.payload()[..])
                && *recv.from_uid == uid(i.from)
                && i.acked.is_none_or(|told| told == (recv.message_seq, recv.message_id))
        });
        if !right {
            self.world.tape.violation(format!("INV-17 u{}: {recv:?} for {intent:?}", self.me));
        }
    }
}

impl Line {
    async fn write(&mut self, out: &mut BytesMut) -> std::io::Result<()> {
        if !out.is_empty() {
            self.stream.write_all(out).await?;
            self.stream.flush().await?;
            out.clear();
        }
        Ok(())
    }
}

fn send(session: &Session, intent: &Intent, out: &mut BytesMut) {
    let mut send = Send {
        flags: Flags::RED_DOT,
        setting: Setting::default(),
        client_seq: intent.number,
        client_msg_no: Text::from(intent.no()),
        channel_id: Text::from(uid(intent.to)),
        channel_type: 1,
        ..Send::default()
    };
    session.sign_send(&mut send, &intent.payload());
    let _ = encode_send(&send, VERSION, out);
}
