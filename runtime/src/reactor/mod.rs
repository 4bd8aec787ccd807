//! The shell of one shard: a single async function that owns all its sockets and drives the machine.
//!
//! A turn hands in what arrived (mail, completions, frames of peers, bytes, calls), drains the machine's outputs once, writes once per
//! connection, and sleeps until the machine's timeout or the next event. There is no task per connection: each socket
//! has a waker that puts its key on a list ([`ready`]). An idle connection owns no buffer.

mod conn;
pub mod inbox;
pub mod listen;
pub mod machine;
pub mod ready;
mod received;
mod sockets;
pub mod stats;
#[cfg(test)]
mod tests;
#[cfg(not(madsim))]
pub mod thread;
pub mod ws;

use crate::clock::Clock;
use crate::peers::Peers;
use conn::Conn;
use inbox::{Arrived, Control, Inbox, ShardSample};
use listen::Acceptor;
use machine::{Machine, MachineState, Store};
use ready::{KeyWaker, ReadyList};
use slab::Slab;
use stats::ReactorStats;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;
use wukong_core::api::ApiAnswer;
use wukong_core::error::StoreFault;
use wukong_core::event::mail::Mail;
use wukong_core::ids::{CallId, ConnId, OpId, ShardId};
use wukong_core::note::Note;
use wukong_core::time::{Instant, Now};
use wukong_core::{Completion, Effect, Input, Output};

/// Sockets looked at in one turn; the others follow in the next.
const READY_PER_TURN: usize = 512;
/// API calls handed in per turn.
const CALLS_PER_TURN: usize = 256;
/// Times that outputs are drained in one turn, because writing or loading gave new inputs.
const PASSES: usize = 4;
/// One buffer per reactor; what was read is copied to its exact size.
const READ_BUFFER: usize = 64 * 1024;
/// Keys of the listeners on the ready list.
const TCP_LISTENER: u32 = u32::MAX;
const WEB_LISTENER: u32 = u32::MAX - 1;
/// When the rest of many stalled connections is asked about.
const STALLED_AGAIN: Duration = Duration::from_millis(5);
/// The loop looks at its clock at least this often: the runtime's timers stand still while the machine sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Told once when the machine halts; must not return.
pub type HaltHook = Arc<dyn Fn(ShardId, StoreFault) + Send + Sync>;

/// What a reactor is made of.
pub struct Parts<M, S> {
    pub shard: ShardId,
    pub machine: M,
    pub store: S,
    pub clock: Clock,
    /// The inboxes of all shards of the node, by number.
    pub inboxes: Vec<Arc<Inbox>>,
    pub tcp: Acceptor,
    pub websocket: Acceptor,
    /// Sockets at one time; beyond it new ones are closed at once.
    pub sockets_max: usize,
    /// Links to other nodes; without them frames for these are dropped.
    pub peers: Option<Peers>,
    pub state: watch::Sender<MachineState>,
    pub on_halt: HaltHook,
}

struct Listener {
    acceptor: Acceptor,
    wake: Arc<KeyWaker>,
    waker: Waker,
}

/// The loop of one shard.
pub struct Reactor<M, S> {
    shard: ShardId,
    machine: M,
    store: S,
    clock: Clock,
    now: Now,
    inbox: Arc<Inbox>,
    inboxes: Vec<Arc<Inbox>>,
    peers: Option<Peers>,
    arrived: Arrived,
    /// The machine took an input since its outputs were last drained.
    undrained: bool,
    stopping: bool,
    exit: bool,
    state: watch::Sender<MachineState>,
    on_halt: HaltHook,

    tcp: Option<Listener>,
    websocket: Option<Listener>,
    /// No accept before this: file descriptors ran out.
    accept_again: Option<Instant>,
    conns: Slab<Conn>,
    sockets_max: usize,
    serial: u64,
    ready: Arc<ReadyList>,
    ready_scratch: Vec<u32>,
    queue: VecDeque<u32>,
    /// Sockets and listeners that wait until the machine takes input again.
    paused: Vec<u32>,
    /// Sockets whose bytes the machine does not want for now.
    stalled: VecDeque<u32>,
    dirty: Vec<u32>,
    credits: Vec<(ConnId, u32)>,
    read_buffer: Vec<u8>,
    /// For the next WebSocket that has none.
    decoder: Option<Box<ws::Decoder>>,
    /// Deadlines in order: each kind has one duration.
    handshakes: VecDeque<(Instant, ConnId)>,
    closing: VecDeque<(Instant, ConnId)>,

    calls: HashMap<u64, oneshot::Sender<ApiAnswer>>,
    last_call: u64,
    /// Effects that completed within the call that started them.
    done: Vec<(OpId, Completion)>,
    mail: Vec<Vec<Mail>>,
    timer: Option<Pin<Box<Sleep>>>,
    armed: Instant,
    stats: ReactorStats,
}

impl<M: Machine, S: Store> Reactor<M, S> {
    #[must_use]
    pub fn new(parts: Parts<M, S>) -> Self {
        let ready = Arc::new(ReadyList::default());
        let listener = |key, acceptor| {
            let wake = KeyWaker::new(key, &ready);
            // Looked at in the first turn.
            wake.fire();
            Some(Listener { acceptor, waker: Waker::from(wake.clone()), wake })
        };
        Self {
            tcp: listener(TCP_LISTENER, parts.tcp),
            websocket: listener(WEB_LISTENER, parts.websocket),
            shard: parts.shard,
            machine: parts.machine,
            store: parts.store,
            now: parts.clock.now(),
            clock: parts.clock,
            inbox: parts.inboxes[usize::from(parts.shard.0)].clone(),
            mail: parts.inboxes.iter().map(|_| Vec::new()).collect(),
            inboxes: parts.inboxes,
            peers: parts.peers,
            arrived: Arrived::default(),
            undrained: true,
            stopping: false,
            exit: false,
            state: parts.state,
            on_halt: parts.on_halt,
            accept_again: None,
            conns: Slab::new(),
            sockets_max: parts.sockets_max,
            serial: 0,
            ready,
            ready_scratch: Vec::new(),
            queue: VecDeque::new(),
            paused: Vec::new(),
            stalled: VecDeque::new(),
            dirty: Vec::new(),
            credits: Vec::new(),
            read_buffer: vec![0; READ_BUFFER],
            decoder: None,
            handshakes: VecDeque::new(),
            closing: VecDeque::new(),
            calls: HashMap::new(),
            last_call: 0,
            done: Vec::new(),
            timer: None,
            armed: Instant::NEVER,
            stats: ReactorStats::default(),
        }
    }

    /// Runs until [`Control::Exit`].
    pub async fn run(mut self) {
        poll_fn(|cx| self.turn(cx)).await;
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inbox.listen(cx.waker());
        self.ready.listen(cx.waker());
        self.now = self.clock.now();
        self.stats.reactor_turns += 1;

        self.take_inbox();
        self.expire();
        self.take_ready();
        self.take_calls();
        if self.machine.poll_timeout().is_some_and(|at| at <= self.now.mono) {
            self.handle(Input::Deadline);
        }
        for _ in 0..PASSES {
            if !self.undrained && self.dirty.is_empty() {
                break;
            }
            self.drain();
            self.flush();
            self.hand_in_results();
        }
        self.send();
        self.publish();
        if self.exit {
            return Poll::Ready(());
        }
        self.sleep(cx);
        Poll::Pending
    }

    fn handle(&mut self, input: Input) {
        self.undrained = true;
        self.machine.handle(self.now, input);
    }

    fn take_inbox(&mut self) {
        let mut arrived = std::mem::take(&mut self.arrived);
        self.inbox.take(&mut arrived);
        for (from, mail) in arrived.mail.drain(..) {
            self.handle(Input::Mail { from, mail });
        }
        for (op, completion) in arrived.completions.drain(..) {
            self.handle(Input::Completed { op, completion });
        }
        for input in arrived.peers.drain(..) {
            self.handle(input);
        }
        for control in arrived.control.drain(..) {
            match control {
                Control::Stop => self.stop(),
                Control::Exit => self.exit = true,
                Control::Sample(to) => {
                    // Whoever asked may have gone.
                    let _ = to.send(self.sample());
                }
            }
        }
        self.arrived = arrived;
    }

    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.tcp = None;
            self.websocket = None;
            self.drop_handshakes();
            self.handle(Input::Stop);
        }
    }

    fn take_calls(&mut self) {
        for _ in 0..CALLS_PER_TURN {
            if self.arrived.calls.is_empty() || !self.machine.wants_input() {
                return;
            }
            let Some(call) = self.arrived.calls.pop_front() else { return };
            self.inbox.call_taken();
            if call.answer.is_closed() {
                continue;
            }
            self.last_call += 1;
            self.calls.insert(self.last_call, call.answer);
            self.handle(Input::Call { call: CallId(self.last_call), request: call.request });
        }
    }

    /// Takes every output of the machine and starts what it asks for.
    fn drain(&mut self) {
        self.undrained = false;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Write { conn, frames } => self.write(conn, frames),
                Output::Close { conn, .. } => self.close_asked(conn),
                Output::Mail { to, mail } => self.mail[usize::from(to.0)].push(mail),
                Output::Start { op, effect: Effect::Persist { batch, class } } => self.store.persist(op, batch, class),
                Output::Start { op, effect: Effect::Load(load) } => {
                    if let Some(completion) = self.store.load(op, load) {
                        self.done.push((op, completion));
                    }
                }
                Output::Answer { call, answer } => {
                    if let Some(to) = self.calls.remove(&call.0) {
                        // The caller may have given up.
                        let _ = to.send(answer);
                    }
                }
                Output::PeerFrame { to, class, frame } => {
                    if let Some(peers) = &mut self.peers {
                        peers.send(to, class, frame);
                    }
                }
                Output::PeerReset { to, incarnation } => {
                    if let Some(peers) = &self.peers {
                        peers.reset(to, incarnation);
                    }
                }
                Output::Note(note) => self.note(&note),
            }
        }
    }

    /// Credits and completions that the last pass gave.
    fn hand_in_results(&mut self) {
        let mut credits = std::mem::take(&mut self.credits);
        for (conn, bytes) in credits.drain(..) {
            self.handle(Input::ConnDrained { conn, bytes });
        }
        self.credits = credits;
        let mut done = std::mem::take(&mut self.done);
        for (op, completion) in done.drain(..) {
            self.handle(Input::Completed { op, completion });
        }
        self.done = done;
    }

    /// Hands over what this turn wrote to other shards and other nodes, each once.
    fn send(&mut self) {
        for (to, mail) in self.inboxes.iter().zip(&mut self.mail) {
            to.mail(self.shard, mail);
        }
        if let Some(peers) = &mut self.peers {
            peers.flush();
        }
    }

    fn note(&self, note: &Note) {
        let shard = self.shard.0;
        match note {
            Note::Ready => tracing::info!(shard, "the shard serves"),
            Note::Halted { fault } => {
                tracing::error!(shard, "{fault}: the shard makes no further promise");
                (self.on_halt)(self.shard, *fault);
            }
            Note::StoreFailed { fault } => tracing::error!(shard, "{fault}"),
            Note::SlotRestored { slot, applied, .. } => {
                tracing::info!(shard, slot = slot.0, applied, "a slot took a snapshot of its leader");
            }
            Note::SlotStopped { slot, why } => tracing::error!(shard, slot = slot.0, "a slot stopped: {why}"),
            other => tracing::debug!(shard, "{other:?}"),
        }
    }

    /// Tells the world outside when the machine became ready or has stopped.
    fn publish(&self) {
        let known = *self.state.borrow();
        if !known.ready || self.stopping {
            let state = self.machine.state();
            if state != known {
                self.state.send_replace(state);
            }
        }
    }

    fn sample(&self) -> ShardSample {
        let mut sample =
            ShardSample { machine: self.machine.sample(), reactor: self.stats.clone(), ..ShardSample::default() };
        self.inbox.sample(&mut sample);
        sample.machine.gauges.push(("sockets", self.conns.len() as u64));
        sample
    }

    /// The next instant at which this loop has something to do of its own accord; now when it has already.
    fn next_due(&self) -> Instant {
        let work = self.undrained
            || !self.queue.is_empty()
            || self.machine.wants_input() && !(self.paused.is_empty() && self.arrived.calls.is_empty())
            || self.any_stalled_resumes();
        if work {
            return self.now.mono;
        }
        let front = |list: &VecDeque<(Instant, ConnId)>| list.front().map(|(at, _)| *at);
        let many_stalled = (self.stalled.len() > sockets::STALLED_PER_TURN).then(|| self.now.mono + STALLED_AGAIN);
        [many_stalled, self.machine.poll_timeout(), self.accept_again, front(&self.handshakes), front(&self.closing)]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// Sees to it that the loop runs again when it must.
    fn sleep(&mut self, cx: &mut Context<'_>) {
        let now = self.now.mono;
        let due = self.next_due();
        if due <= now {
            cx.waker().wake_by_ref();
            return;
        }
        let due = due.min(now + SLEEP_MAX);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(SLEEP_MAX)));
        // A timer that fires too early does no harm: it is moved only when it would be late, or has fired.
        if due < self.armed || self.armed <= now {
            timer.as_mut().reset(tokio::time::Instant::now() + due.since(now));
            self.armed = due;
        }
        if timer.as_mut().poll(cx).is_ready() {
            self.armed = Instant(0);
            cx.waker().wake_by_ref();
        }
    }
}
