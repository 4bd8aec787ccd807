//! Workload W1: pairs of users, both connected, one sends to the other. Open loop: messages leave when they are due,
//! however the server does, and latencies count from then.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use wukong_proto::{Flags, ReasonCode, Recv, Text};

use super::check::{Acked, Delivered, Flaws, PairCheck};
use super::message::Messages;
use super::net::{Happened, Net, What};
use super::server::Process;
use super::target::Target;
use crate::client::session::{Event, Login, Outgoing};

/// Messages that leave before the sockets are looked at again.
const BURST: u32 = 128;

/// A histogram of microseconds.
pub type Latency = Histogram<u64>;

fn latency() -> Latency {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds")
}

/// What one phase of constant rate showed. Counts and latencies are those of messages due in the measured window.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Messages due per second.
    pub rate: f64,
    /// Length of the window in seconds.
    pub seconds: f64,
    pub sent: u64,
    /// Acks and deliveries that arrived within the window.
    pub acked_in_time: u64,
    pub delivered_in_time: u64,
    pub accepted: u64,
    pub delivered: u64,
    pub refused: BTreeMap<ReasonCode, u64>,
    /// Deliveries that were marked as repeated.
    pub retries: u64,
    /// From due to SENDACK, from due to RECV, and from due to leaving this program; µs.
    pub ack: Latency,
    pub recv: Latency,
    pub lag: Latency,
    /// Processor seconds used within the window.
    pub server_cpu: Option<f64>,
    pub own_cpu: f64,
    /// Why it was ended early.
    pub aborted: Option<String>,
}

impl Phase {
    fn new(rate: f64, seconds: f64) -> Phase {
        Phase {
            rate,
            seconds,
            sent: 0,
            acked_in_time: 0,
            delivered_in_time: 0,
            accepted: 0,
            delivered: 0,
            refused: BTreeMap::new(),
            retries: 0,
            ack: latency(),
            recv: latency(),
            lag: latency(),
            server_cpu: None,
            own_cpu: 0.0,
            aborted: None,
        }
    }

    /// Share of a processor that this program used.
    #[must_use]
    pub fn own_share(&self) -> f64 {
        self.own_cpu / self.seconds
    }
}

/// The state once a second, for the progress line.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    pub second: u64,
    pub warming: bool,
    pub sent: u64,
    pub acked: u64,
    pub delivered: u64,
    pub unacked: u64,
    pub rate: f64,
    pub ack_p99_us: u64,
    pub recv_p99_us: u64,
}

struct Pair {
    to: Text,
    from: Text,
    check: PairCheck,
}

/// The pairs: connection 2i is the sender of pair i, 2i + 1 its receiver.
pub struct Pairs {
    net: Net,
    messages: Messages,
    pairs: Vec<Pair>,
    flaws: Flaws,
    start: Instant,
    turn: usize,
    payload: Vec<u8>,
    compare: Vec<u8>,
    happened: Vec<Happened>,
    /// Since the start of the run, whatever the window.
    sent: u64,
    acked: u64,
    delivered: u64,
    unacked: u64,
    undelivered: u64,
    window: (u64, u64),
    phase: Phase,
    lost: Option<String>,
}

impl Pairs {
    /// Logs all users in and sends one message from each sender, so that every channel exists.
    ///
    /// # Errors
    /// The server is not there, refuses a login, or does not answer.
    pub fn start(target: &Target, messages: Messages, count: usize, payload: usize) -> Result<Pairs, String> {
        let run = messages.run();
        let uids: Vec<String> = (0..count).flat_map(|i| [format!("w{run}a{i:05}"), format!("w{run}b{i:05}")]).collect();
        let token = target.set_tokens(&uids)?;
        let logins = uids.iter().map(|uid| Login {
            token: token.clone(),
            device_id: format!("{uid}-1"),
            version: target.version,
            ..Login::new(uid)
        });
        let net = target.log_in(logins)?;
        let pair = |uids: &[String]| Pair {
            from: uids[0].as_str().into(),
            to: uids[1].as_str().into(),
            check: PairCheck::new(format!("{} to {}", uids[0], uids[1])),
        };
        let mut pairs = Pairs {
            net,
            messages,
            pairs: uids.chunks(2).map(pair).collect(),
            flaws: Flaws::default(),
            start: Instant::now(),
            turn: 0,
            payload: vec![0; payload],
            compare: vec![0; payload],
            happened: Vec::new(),
            sent: 0,
            acked: 0,
            delivered: 0,
            unacked: 0,
            undelivered: 0,
            window: (u64::MAX, 0),
            phase: Phase::new(0.0, 1.0),
            lost: None,
        };
        pairs.warm()?;
        Ok(pairs)
    }

    fn warm(&mut self) -> Result<(), String> {
        for _ in 0..self.pairs.len() {
            self.send(self.elapsed());
            if self.unacked >= 256 {
                self.net.flush();
                self.turn_once(Duration::from_millis(100))?;
            }
        }
        match self.drain(Duration::from_secs(30))? {
            true => Ok(()),
            false => Err(format!(
                "{} of the first {} messages have no SENDACK and {} no RECV after 30 s: is the server healthy?",
                self.unacked,
                self.pairs.len(),
                self.undelivered
            )),
        }
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Messages accepted so far.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.acked
    }

    /// The violations so far.
    #[must_use]
    pub fn flaws(&self) -> &Flaws {
        &self.flaws
    }

    /// Sends `rate` messages a second, evenly: for `warm_up`, then for `measured`. `watch` is asked once a second, and
    /// ends the phase with a reason.
    ///
    /// # Errors
    /// This program cannot go on.
    pub fn run(
        &mut self,
        rate: f64,
        warm_up: Duration,
        measured: Duration,
        server: Option<Process>,
        watch: &mut dyn FnMut(&Tick) -> ControlFlow<String>,
    ) -> Result<Phase, String> {
        let begin = self.elapsed();
        let from = begin + warm_up.as_nanos() as u64;
        let end = from + measured.as_nanos() as u64;
        self.window = (from, end);
        self.phase = Phase::new(rate, measured.as_secs_f64());
        let due_of = |k: u64| begin + (k as f64 * 1e9 / rate) as u64;
        let cpu = |p: Option<Process>| p.and_then(|p| p.cpu_seconds().ok());
        let (mut cpu_before, mut next, mut second) = (None, 0, 1);
        let (sent0, acked0, delivered0) = (self.sent, self.acked, self.delivered);
        let mut last = (sent0, begin);
        loop {
            let mut now = self.elapsed();
            let mut burst = 0;
            while due_of(next) <= now.min(end - 1) && burst < BURST {
                self.send(due_of(next));
                (next, burst) = (next + 1, burst + 1);
            }
            self.net.flush();
            now = self.elapsed();
            if cpu_before.is_none() && now >= from {
                cpu_before = Some((cpu(server), cpu(Some(Process::own()))));
            }
            if now >= end || self.phase.aborted.is_some() {
                break;
            }
            let tick = begin + second * 1_000_000_000;
            if now >= tick {
                let state = Tick {
                    second,
                    warming: tick <= from,
                    sent: self.sent - sent0,
                    acked: self.acked - acked0,
                    delivered: self.delivered - delivered0,
                    unacked: self.unacked,
                    rate: (self.sent - last.0) as f64 * 1e9 / (now - last.1) as f64,
                    ack_p99_us: self.phase.ack.value_at_quantile(0.99),
                    recv_p99_us: self.phase.recv.value_at_quantile(0.99),
                };
                last = (self.sent, now);
                second += 1;
                if let ControlFlow::Break(why) = watch(&state) {
                    self.phase.aborted = Some(why);
                }
            }
            let until = due_of(next).min(tick).min(end);
            self.turn_once(Duration::from_nanos(until.saturating_sub(self.elapsed())))?;
            if let Some(why) = &self.lost {
                self.phase.aborted = Some(why.clone());
            }
        }
        let after = (cpu(server), cpu(Some(Process::own())));
        if let Some((server_before, own_before)) = cpu_before {
            self.phase.server_cpu = server_before.zip(after.0).map(|(before, after)| after - before);
            self.phase.own_cpu = own_before.zip(after.1).map_or(0.0, |(before, after)| after - before);
        }
        Ok(self.phase.clone())
    }

    /// Waits until nothing is outstanding; false if that took longer than `most`.
    ///
    /// # Errors
    /// This program cannot go on.
    pub fn drain(&mut self, most: Duration) -> Result<bool, String> {
        let deadline = Instant::now() + most;
        while self.unacked + self.undelivered > 0 && self.lost.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.net.flush();
            self.turn_once(left.min(Duration::from_millis(100)))?;
        }
        self.net.flush();
        Ok(self.lost.is_none())
    }

    /// The latest phase, with what arrived since it ended.
    #[must_use]
    pub fn settled(&self) -> Phase {
        self.phase.clone()
    }

    /// Ends the run: whatever is missing now is lost. The checks of the pairs are for [`verify`](super::verify).
    #[must_use]
    pub fn finish(mut self) -> (Flaws, Vec<PairCheck>, Vec<[Text; 2]>) {
        for pair in &self.pairs {
            pair.check.finish(&mut self.flaws);
        }
        let (checks, names) = self.pairs.into_iter().map(|pair| (pair.check, [pair.from, pair.to])).unzip();
        (self.flaws, checks, names)
    }

    fn send(&mut self, due: u64) {
        let index = self.turn % self.pairs.len();
        self.turn += 1;
        let pair = &mut self.pairs[index];
        let no = pair.check.sent(due);
        self.messages.payload(index as u32, no, &mut self.payload);
        let message = Outgoing {
            client_seq: no as u32 + 1,
            client_msg_no: &self.messages.name(index as u32, no),
            channel_id: &pair.to,
            channel_type: 1,
            flags: Flags::RED_DOT,
            payload: &self.payload,
        };
        self.net.send(2 * index, &message).expect("sizes were checked at the start");
        self.sent += 1;
        self.unacked += 1;
        self.undelivered += 1;
        if self.in_window(due) {
            self.phase.sent += 1;
            let lag = (self.start.elapsed().as_nanos() as u64).saturating_sub(due) / 1000;
            self.phase.lag.saturating_record(lag.max(1));
        }
    }

    fn in_window(&self, due: u64) -> bool {
        (self.window.0..self.window.1).contains(&due)
    }

    fn turn_once(&mut self, wait: Duration) -> Result<(), String> {
        let mut happened = std::mem::take(&mut self.happened);
        self.net.poll(wait, &mut happened).map_err(|e| format!("epoll: {e}"))?;
        for Happened { conn, at, what } in happened.drain(..) {
            let at = at.saturating_duration_since(self.start).as_nanos() as u64;
            match what {
                What::Event(Event::SendAck(ack)) if conn % 2 == 0 => {
                    let no = u64::from(ack.client_seq).wrapping_sub(1);
                    let check = &mut self.pairs[conn / 2].check;
                    let before = (check.unacked(), check.undelivered());
                    let outcome = check.on_ack(no, &ack, &mut self.flaws);
                    self.recount(conn / 2, before);
                    self.on_acked(outcome, at);
                }
                What::Event(Event::Recv(recv)) => self.on_recv(conn, &recv, at),
                What::Event(Event::Pong) => {}
                What::Event(other) => {
                    self.flaws.add("unexpected frame", || format!("connection {conn}: {other:?}"));
                }
                What::Lost(why) => {
                    let pair = &self.pairs[conn / 2].check;
                    self.flaws.add("connection lost", || format!("{}: {why}", pair.name()));
                    self.lost.get_or_insert(format!("connection {conn} was lost: {why}"));
                }
            }
        }
        self.happened = happened;
        Ok(())
    }

    fn on_acked(&mut self, outcome: Acked, at: u64) {
        match outcome {
            Acked::Accepted { due } => {
                self.acked += 1;
                if self.in_window(at) {
                    self.phase.acked_in_time += 1;
                }
                if self.in_window(due) {
                    self.phase.accepted += 1;
                    self.phase.ack.saturating_record((at.saturating_sub(due) / 1000).max(1));
                }
            }
            Acked::Refused(reason) => *self.phase.refused.entry(reason).or_default() += 1,
            Acked::Flawed => {}
        }
    }

    fn on_recv(&mut self, conn: usize, recv: &Recv, at: u64) {
        let named = self.messages.parse(recv.client_msg_no.as_bytes());
        let Some((index, no)) = named.filter(|(index, _)| conn % 2 == 1 && *index as usize == conn / 2) else {
            self.flaws.add("foreign message", || format!("connection {conn}: {recv:?}"));
            return;
        };
        self.messages.payload(index, no, &mut self.compare);
        let pair = &mut self.pairs[conn / 2];
        let place_right = recv.from_uid == pair.from && recv.channel_id == pair.from && recv.channel_type == 1;
        let intact = place_right && recv.payload == self.compare;
        let before = (pair.check.unacked(), pair.check.undelivered());
        let outcome = pair.check.on_recv(no, recv, intact, &mut self.flaws);
        self.recount(conn / 2, before);
        // Without it the server would send the message again.
        self.net.recv_ack(conn, recv).expect("a seq that was received can be sent");
        match outcome {
            Delivered::First { due } => {
                self.delivered += 1;
                if self.in_window(at) {
                    self.phase.delivered_in_time += 1;
                }
                if self.in_window(due) {
                    self.phase.delivered += 1;
                    self.phase.recv.saturating_record((at.saturating_sub(due) / 1000).max(1));
                }
            }
            Delivered::Retry => self.phase.retries += 1,
            Delivered::Flawed => {}
        }
    }

    /// Keeps the sums over all pairs in step with one pair, whose counts were `before`.
    fn recount(&mut self, index: usize, before: (u64, u64)) {
        let check = &self.pairs[index].check;
        self.unacked = self.unacked - before.0 + check.unacked();
        self.undelivered = self.undelivered - before.1 + check.undelivered();
    }
}
