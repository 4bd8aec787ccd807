//! The conversation itself: what is typed goes out, what comes in is shown, what is not confirmed goes out again.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use wukong_proto::{Flags, ReasonCode, Recv, SendAck, Text};

use super::Args;
use super::history::{self, clock, payload_of, text_of};
use crate::client::session::{Event, Login, Outgoing};
use crate::client::tcp::{Client, ConnectError};
use crate::client::{fresh_msg_no, random};

/// How soon a typed line is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(30);
const PING_EVERY: Duration = Duration::from_secs(60);
/// A server that does not answer a ping within this is taken for gone.
const PONG_MAX: Duration = Duration::from_secs(10);
const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// After the end of input, confirmations are waited for this long.
const CONFIRM_MAX: Duration = Duration::from_secs(30);

/// What the person at the terminal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    End,
}

struct Pending {
    client_seq: u32,
    msg_no: Text,
    text: String,
    sent: bool,
}

/// A conversation.
pub struct Room<'a, W> {
    args: &'a Args,
    login: Login,
    out: W,
    client: Option<Client>,
    pending: VecDeque<Pending>,
    last_seq: u32,
    shown: VecDeque<i64>,
    next_ping: Instant,
    pong_until: Option<Instant>,
    retry_at: Instant,
    backoff: Duration,
}

impl<'a, W: Write> Room<'a, W> {
    /// Connects, and shows the last messages.
    ///
    /// # Errors
    /// There is no server, or it says no; the text says what to do.
    pub fn enter(args: &'a Args, out: W) -> Result<Room<'a, W>, String> {
        let login = Login {
            token: args.token.clone(),
            device_id: format!("chat-{:016x}", u64::from_be_bytes(random())),
            ..Login::new(&args.uid)
        };
        let client = Client::connect(&args.addr, &login).map_err(|e| no_entry(args, &e))?;
        let now = Instant::now();
        let mut room = Room {
            args,
            login,
            out,
            client: None,
            pending: VecDeque::new(),
            last_seq: 0,
            shown: VecDeque::new(),
            next_ping: now + PING_EVERY,
            pong_until: None,
            retry_at: now,
            backoff: Duration::ZERO,
        };
        room.greet(&client);
        room.client = Some(client);
        Ok(room)
    }

    fn greet(&mut self, client: &Client) {
        let Args { uid, to, addr, .. } = self.args;
        let secret = if client.is_encrypted() { "encrypted" } else { "NOT encrypted" };
        self.say(&format!(
            "-- you are {uid}, talking to {to} through {addr} ({secret}); /quit or Ctrl-D ends; times are UTC"
        ));
        if self.args.history == 0 {
            return;
        }
        match history::last(self.args) {
            Ok(messages) if messages.is_empty() => self.say("-- no messages yet"),
            Ok(messages) => {
                for said in messages {
                    let from = if said.from == self.args.uid { "you" } else { &said.from };
                    self.say(&format!("{} {from} (seq {}): {}", clock(said.at), said.seq, said.text));
                }
                self.say("-- so far");
            }
            Err(error) => self.say(&format!("-- earlier messages cannot be shown: {}: {error}", self.args.http)),
        }
    }

    fn say(&mut self, line: &str) {
        // A reader that went away is noticed by the shell.
        let _ = writeln!(self.out, "{line}");
        let _ = self.out.flush();
    }

    /// Talks until the person leaves, then waits for what is not confirmed, and lingers.
    ///
    /// # Errors
    /// Messages remain without confirmation, or the server does not want this user any more.
    pub fn stay(&mut self, typed: &Receiver<Line>, linger: Duration) -> Result<(), String> {
        let mut left: Option<Instant> = None;
        loop {
            while left.is_none() {
                match typed.try_recv() {
                    Ok(Line::Text(text)) => self.on_text(text),
                    Ok(Line::End) | Err(TryRecvError::Disconnected) => left = Some(Instant::now()),
                    Err(TryRecvError::Empty) => break,
                }
            }
            if let Some(since) = left {
                if self.pending.is_empty() && since.elapsed() >= linger {
                    return Ok(());
                }
                if !self.pending.is_empty() && since.elapsed() > CONFIRM_MAX {
                    return Err(self.unconfirmed());
                }
            }
            self.connect_if_due()?;
            self.listen()?;
        }
    }

    fn unconfirmed(&self) -> String {
        let list: Vec<&str> = self.pending.iter().map(|p| p.text.as_str()).collect();
        format!(
            "{} messages were not confirmed, so it is unknown whether they arrived: {}",
            list.len(),
            list.join(" / ")
        )
    }

    fn on_text(&mut self, text: String) {
        self.last_seq += 1;
        let msg_no = fresh_msg_no().into();
        self.pending.push_back(Pending { client_seq: self.last_seq, msg_no, text, sent: false });
        if self.client.is_none() {
            self.say("-- kept until the server is back");
        }
        self.send_pending();
    }

    /// Sends what was not sent on this connection.
    fn send_pending(&mut self) {
        let Some(client) = &mut self.client else {
            return;
        };
        for pending in self.pending.iter_mut().filter(|p| !p.sent) {
            let message = Outgoing {
                client_seq: pending.client_seq,
                client_msg_no: &pending.msg_no,
                channel_id: &self.args.to.as_str().into(),
                channel_type: if self.args.group { 2 } else { 1 },
                flags: Flags::RED_DOT,
                payload: &payload_of(&pending.text),
            };
            // A broken connection shows itself when listening.
            if client.write(&message).is_err() {
                return;
            }
            pending.sent = true;
        }
    }

    fn connect_if_due(&mut self) -> Result<(), String> {
        if self.client.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if now < self.retry_at {
            std::thread::sleep(LOOK_EVERY.min(self.retry_at - now));
            return Ok(());
        }
        match Client::connect(&self.args.addr, &self.login) {
            Ok(client) => {
                self.client = Some(client);
                self.backoff = Duration::ZERO;
                self.next_ping = Instant::now() + PING_EVERY;
                self.pong_until = None;
                let again = self.pending.len();
                let resent =
                    if again > 0 { format!("; sending {again} unconfirmed messages again") } else { String::new() };
                self.say(&format!("-- connected again{resent}"));
                for pending in &mut self.pending {
                    pending.sent = false;
                }
                self.send_pending();
                Ok(())
            }
            Err(error) if error.is_transient() => {
                self.backoff = (self.backoff * 2).clamp(Duration::from_millis(500), BACKOFF_MAX);
                self.retry_at = Instant::now() + self.backoff;
                Ok(())
            }
            Err(error) => Err(no_entry(self.args, &error)),
        }
    }

    fn listen(&mut self) -> Result<(), String> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        let now = Instant::now();
        if now >= self.next_ping {
            self.next_ping = now + PING_EVERY;
            self.pong_until = Some(now + PONG_MAX);
            // As above.
            let _ = client.ping();
        }
        match client.recv(LOOK_EVERY) {
            Ok(Some(Event::SendAck(ack))) => self.on_ack(&ack),
            Ok(Some(Event::Recv(recv))) => self.on_recv(&recv),
            Ok(Some(Event::Pong)) => self.pong_until = None,
            Ok(Some(Event::Disconnect { reason, text })) => {
                let why = if text.is_empty() { reason.to_string() } else { text.to_string() };
                return Err(format!("the server ended the session: {why}"));
            }
            Ok(Some(_)) => {}
            Ok(None) if self.pong_until.is_some_and(|until| now > until) => self.lose("it does not answer"),
            Ok(None) => {}
            Err(error) => self.lose(&error.to_string()),
        }
        Ok(())
    }

    fn lose(&mut self, why: &str) {
        self.client = None;
        self.pong_until = None;
        // The first attempt at once: a restart may be over already.
        self.retry_at = Instant::now() + self.backoff;
        self.say(&format!("-- the server is gone ({why}); connecting again"));
    }

    fn on_ack(&mut self, ack: &SendAck) {
        let Some(at) = self.pending.iter().position(|p| p.client_seq == ack.client_seq) else {
            return;
        };
        let Some(pending) = self.pending.remove(at) else {
            return;
        };
        if ack.reason == ReasonCode::SUCCESS {
            self.say(&format!("you (seq {} ✓): {}", ack.message_seq, pending.text));
        } else {
            self.say(&format!("-- refused ({}): {}", ack.reason, pending.text));
        }
    }

    fn on_recv(&mut self, recv: &Recv) {
        if let Some(client) = &mut self.client {
            // Lost with the connection, the server sends the message again.
            let _ = client.recv_ack(recv);
        }
        if self.shown.contains(&recv.message_id) {
            return;
        }
        self.shown.push_back(recv.message_id);
        if self.shown.len() > 1024 {
            self.shown.pop_front();
        }
        let from = if recv.from_uid.is_empty() { "system" } else { recv.from_uid.as_str() };
        let here = *recv.channel_id == *self.args.to;
        let whence = match (here, from == self.args.uid) {
            (true, true) => "you, elsewhere".to_owned(),
            (true, false) => from.to_owned(),
            (false, _) => format!("{from}, in another chat ({})", recv.channel_id),
        };
        let (at, text) = (clock(i64::from(recv.timestamp)), text_of(&recv.payload));
        self.say(&format!("{at} {whence} (seq {}): {text}", recv.message_seq));
    }
}

fn no_entry(args: &Args, error: &ConnectError) -> String {
    let hint = match error {
        ConnectError::Unreachable(_) => {
            "\nIs a server running? In another terminal: wukongim run\nSomewhere else: --addr HOST:PORT".to_owned()
        }
        ConnectError::Refused(ReasonCode::AUTH_FAIL) => format!(
            "\nThe server asks for tokens. Store one, then add --token SECRET:\n  \
             curl -d '{{\"uid\":\"{}\",\"token\":\"SECRET\",\"device_flag\":0}}' http://{}/user/token",
            args.uid, args.http
        ),
        ConnectError::Protocol(_) => "\nIs this the TCP port of a WuKongIM server (5100 by default)?".to_owned(),
        _ => String::new(),
    };
    format!("{}: {error}{hint}", args.addr)
}
