//! A user who keeps sending until the server is gone, and remembers what the server promised.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use wukong_proto::{Flags, ReasonCode, Text};
use wukong_runtime::client::{Client, Event, Login, Outgoing, fresh_msg_no};
use wukong_tests::support::{Account, Sent, Stored};

/// Sent and not yet acknowledged, at most.
const WINDOW: usize = 6;
/// Between two new messages; keeps the books short.
const PAUSE: Duration = Duration::from_millis(4);
const CONNECT_MAX: Duration = Duration::from_secs(15);

pub struct Talker {
    pub account: Account,
    peer: String,
    /// What was delivered: id, seq and name of the message, and who sent it.
    pub received: Vec<Stored>,
}

/// How long talkers go on.
#[derive(Default)]
pub struct Session {
    /// No new messages; ends when all are acknowledged.
    pub settle: AtomicBool,
    /// Talkers that have had an acknowledgement in this session.
    pub busy: AtomicUsize,
}

impl Talker {
    pub fn new(uid: &str, peer: &str) -> Talker {
        Talker { account: Account::new(uid), peer: peer.to_owned(), received: Vec::new() }
    }

    /// Connects, sends again what has no answer yet, and talks until the connection ends or all is settled.
    pub fn talk(&mut self, addr: &str, session: &Session) {
        let mut client = self.connect(addr);
        let mut open: Vec<usize> =
            (0..self.account.sent.len()).filter(|at| self.account.sent[*at].ack.is_none()).collect();
        for at in open.clone() {
            if self.write(&mut client, at, Flags::RED_DOT).is_err() {
                return;
            }
        }
        let (mut last, mut counted) = (Instant::now(), false);
        loop {
            let settle = session.settle.load(Ordering::Relaxed);
            if settle && open.is_empty() {
                return;
            }
            if !settle && open.len() < WINDOW && last.elapsed() >= PAUSE {
                last = Instant::now();
                open.push(self.compose());
                if self.write(&mut client, self.account.sent.len() - 1, Flags::RED_DOT).is_err() {
                    return;
                }
            }
            match client.recv(PAUSE) {
                Ok(Some(Event::SendAck(ack))) => {
                    let at = ack.client_seq as usize - 1;
                    assert_eq!(ack.reason, ReasonCode::SUCCESS, "{}'s message {at} is refused", self.account.uid);
                    let promise = (ack.message_id, ack.message_seq);
                    let sent = &mut self.account.sent[at];
                    assert!(sent.ack.is_none_or(|a| a == promise), "{:?}, then {promise:?}", sent.ack);
                    sent.ack = Some(promise);
                    open.retain(|o| *o != at);
                    if !counted {
                        counted = true;
                        session.busy.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Some(Event::Recv(recv))) => {
                    self.received.push(Stored {
                        seq: recv.message_seq,
                        id: recv.message_id,
                        client_msg_no: recv.client_msg_no.to_string(),
                        from: recv.from_uid.to_string(),
                        payload: recv.payload.to_vec(),
                    });
                    if client.recv_ack(&recv).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(wukong_runtime::client::tcp::RecvError::Closed(_)) => return,
                Err(error) => panic!("{}: {error}", self.account.uid),
            }
        }
    }

    fn connect(&self, addr: &str) -> Client {
        let login = Login { version: 5, device_id: "d".into(), ..Login::new(&self.account.uid) };
        let deadline = Instant::now() + CONNECT_MAX;
        loop {
            match Client::connect(addr, &login) {
                Ok(client) => return client,
                Err(e) if e.is_transient() && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(e) => panic!("{} cannot connect: {e}", self.account.uid),
            }
        }
    }

    fn compose(&mut self) -> usize {
        let at = self.account.sent.len();
        // Every now and then one of a size that the database keeps in files of their own.
        let filling = "#".repeat(if at % 16 == 15 { 6_000 } else { at * 37 % 300 });
        let payload = format!(r#"{{"type":1,"content":"{} {at} {filling}"}}"#, self.account.uid);
        let client_msg_no = fresh_msg_no();
        self.account.sent.push(Sent { client_msg_no, payload: payload.into(), ack: None, refused: false });
        at
    }

    fn write(&self, client: &mut Client, at: usize, flags: Flags) -> std::io::Result<()> {
        let sent = &self.account.sent[at];
        client.write(&Outgoing {
            client_seq: at as u32 + 1,
            client_msg_no: &Text::from(sent.client_msg_no.as_str()),
            channel_id: &Text::from(self.peer.as_str()),
            channel_type: 1,
            flags,
            payload: &sent.payload,
        })
    }
}
