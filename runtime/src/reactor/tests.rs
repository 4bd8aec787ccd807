//! The reactor with real sockets and a machine that echoes.

use super::inbox::{Control, Inbox, ShardSample};
use super::listen::{Acceptor, bind};
use super::machine::{Machine, MachineState, Sample, Store};
use super::{Parts, thread};
use crate::clock::Clock;
use futures_util::{SinkExt, StreamExt};
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Bytes as WsBytes, Message};
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::error::StoreFault;
use wukong_core::event::mail::{Mail, WorkClass};
use wukong_core::ids::{ConnId, OpId, ShardId};
use wukong_core::note::Note;
use wukong_core::store::{Load, WriteBatch};
use wukong_core::time::Now;
use wukong_core::{CloseCause, CloseReason, Completion, Effect, Input, Output, PersistClass, Transport};

const SOCKETS_MAX: usize = 250;
/// Bytes that the echo lets wait per connection before it takes no more input.
const WINDOW: usize = 1 << 20;

/// Echoes what it receives; what begins with `!` is an order.
#[derive(Default)]
struct Echo {
    shard: ShardId,
    out: VecDeque<Output>,
    /// Bytes not yet drained, per connection.
    owed: BTreeMap<u64, usize>,
    waits_for_mail: VecDeque<ConnId>,
    closed: BTreeMap<&'static str, u64>,
    now: Now,
    due: Option<wukong_core::time::Instant>,
    waits_for_due: Option<ConnId>,
    stopped: bool,
    held: Option<ConnId>,
}

fn mail(count: u32) -> Mail {
    Mail::Credit { class: WorkClass::Admit, count }
}

impl Echo {
    fn send(&mut self, conn: ConnId, bytes: bytes::Bytes) {
        *self.owed.entry(conn.0).or_default() += bytes.len();
        self.out.push_back(Output::Write { conn, frames: [bytes].into_iter().collect() });
    }

    fn received(&mut self, conn: ConnId, bytes: bytes::Bytes) {
        match bytes.as_ref() {
            b"!bye" => {
                for _ in 0..64 {
                    self.send(conn, vec![b'.'; 16_384].into());
                }
                self.out.push_back(Output::Close { conn, reason: CloseReason::Kicked });
            }
            b"!mail" => {
                self.waits_for_mail.push_back(conn);
                self.out.push_back(Output::Mail { to: ShardId(1 - self.shard.0), mail: mail(7) });
            }
            b"!later" => {
                self.due = Some(self.now.mono + Duration::from_millis(30));
                self.waits_for_due = Some(conn);
            }
            b"!store" => {
                let batch = WriteBatch::new();
                let effect = Effect::Persist { batch, class: PersistClass::Sync };
                self.out.push_back(Output::Start { op: OpId(conn.0), effect });
            }
            b"!hold" => self.held = Some(conn),
            b"!release" => self.held = None,
            b"!load" => self.out.push_back(Output::Start { op: OpId(conn.0), effect: Effect::Load(Load::default()) }),
            b"!halt" => self.out.push_back(Output::Note(Note::Halted { fault: StoreFault::Io })),
            b"" => {}
            _ => self.send(conn, bytes),
        }
    }
}

impl Machine for Echo {
    fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::ConnOpened { conn, transport, peer } => {
                self.owed.insert(conn.0, 0);
                if transport == Transport::WebSocket && peer.port() == 99 {
                    self.send(conn, peer.to_string().into());
                }
            }
            Input::ConnReceived { conn, bytes } => self.received(conn, bytes),
            Input::ConnDrained { conn, bytes } => {
                if let Some(owed) = self.owed.get_mut(&conn.0) {
                    *owed -= bytes as usize;
                }
            }
            Input::ConnClosed { conn, cause } => {
                self.owed.remove(&conn.0);
                let name = match cause {
                    CloseCause::Peer => "closed_peer",
                    CloseCause::Asked => "closed_asked",
                    CloseCause::Transport => "closed_transport",
                };
                *self.closed.entry(name).or_default() += 1;
            }
            Input::Mail { from, mail: Mail::Credit { count: 7, .. } } => {
                self.out.push_back(Output::Mail { to: from, mail: mail(8) });
            }
            Input::Mail { .. } => {
                if let Some(conn) = self.waits_for_mail.pop_front() {
                    self.send(conn, "mail".into());
                }
            }
            Input::Completed { op, .. } => self.send(ConnId(op.0), "stored".into()),
            Input::Call { call, .. } => self.out.push_back(Output::Answer { call, answer: ApiAnswer::Done }),
            Input::Deadline => {
                if self.due.is_some_and(|due| due <= now.mono) {
                    self.due = None;
                    if let Some(conn) = self.waits_for_due.take() {
                        self.send(conn, "late".into());
                    }
                }
            }
            Input::Stop => self.stopped = true,
            Input::PeerUp { .. } | Input::PeerDown { .. } | Input::PeerFrame { .. } => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    fn poll_timeout(&self) -> Option<wukong_core::time::Instant> {
        self.due
    }

    fn wants_input(&self) -> bool {
        self.owed.values().all(|owed| *owed < WINDOW)
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        assert!(self.owed.contains_key(&conn.0), "asked about a connection that it does not know");
        self.held != Some(conn)
    }

    fn state(&self) -> MachineState {
        MachineState { ready: true, stopped: self.stopped }
    }

    fn sample(&self) -> Sample {
        let owed = self.owed.values().sum::<usize>() as u64;
        Sample { counters: self.closed.iter().map(|(k, v)| (*k, *v)).collect(), gauges: vec![("owed", owed)] }
    }
}

/// Persists complete through the inbox, loads at once.
struct NoStore(Arc<Inbox>);

impl Store for NoStore {
    fn persist(&mut self, op: OpId, _: WriteBatch, _: PersistClass) {
        self.0.complete([(op, Completion::Persisted(Ok(())))]);
    }

    fn load(&mut self, _: OpId, _: Load) -> Option<Completion> {
        Some(Completion::Loaded(Ok(Vec::new())))
    }
}

struct Server {
    tcp: SocketAddr,
    websocket: SocketAddr,
    inboxes: Vec<Arc<Inbox>>,
    states: Vec<watch::Receiver<MachineState>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
    halted: std::sync::mpsc::Receiver<StoreFault>,
}

impl Server {
    fn start(shards: u8) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (tcp_list, tcp) = bind::listeners(any, usize::from(shards)).unwrap();
        let (web_list, websocket) = bind::listeners(any, usize::from(shards)).unwrap();
        let inboxes: Vec<Arc<Inbox>> = (0..shards).map(|_| Arc::default()).collect();
        let (halt, halted) = std::sync::mpsc::channel();
        let (mut states, mut threads) = (Vec::new(), Vec::new());
        for (shard, (tcp, web)) in (0..shards).zip(tcp_list.into_iter().zip(web_list)) {
            let inboxes = inboxes.clone();
            let (state, receiver) = watch::channel(MachineState::default());
            let halt = halt.clone();
            states.push(receiver);
            let parts = move || {
                Ok(Parts {
                    shard: ShardId(shard),
                    machine: Echo { shard: ShardId(shard), ..Echo::default() },
                    store: NoStore(inboxes[usize::from(shard)].clone()),
                    clock: Clock::start(),
                    inboxes,
                    tcp: Acceptor::new(tcp)?,
                    websocket: Acceptor::new(web)?,
                    sockets_max: SOCKETS_MAX,
                    peers: None,
                    state,
                    on_halt: Arc::new(move |_, fault| halt.send(fault).unwrap_or_default()),
                })
            };
            threads.push(thread::spawn(format!("shard-{shard}"), parts).unwrap());
        }
        Self { tcp, websocket, inboxes, states, threads, halted }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.tcp).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    }

    fn sample(&self, shard: usize) -> ShardSample {
        let (to, answer) = oneshot::channel();
        self.inboxes[shard].control(Control::Sample(to));
        answer.blocking_recv().unwrap()
    }

    fn counter(&self, name: &str) -> u64 {
        (0..self.inboxes.len())
            .map(|shard| {
                let sample = self.sample(shard);
                let all = sample.machine.counters.iter().chain(&sample.machine.gauges).copied();
                all.chain(sample.reactor.iter()).filter(|(n, _)| *n == name).map(|(_, v)| v).sum::<u64>()
            })
            .sum()
    }

    fn wait_for(&self, name: &str, value: u64) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.counter(name) != value {
            assert!(Instant::now() < until, "{name} is {} and not {value}", self.counter(name));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for inbox in &self.inboxes {
            inbox.control(Control::Exit);
        }
        for thread in self.threads.drain(..) {
            thread.join().expect("a reactor does not panic").expect("a reactor does not fail");
        }
    }
}

fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    back
}

fn answer_to(stream: &mut TcpStream, order: &[u8], len: usize) -> Vec<u8> {
    stream.write_all(order).unwrap();
    let mut back = vec![0; len];
    stream.read_exact(&mut back).unwrap();
    back
}

#[test]
fn two_hundred_connections_echo_over_tcp_and_leave() {
    let server = Server::start(2);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    for round in 0..20_u32 {
        for (i, stream) in streams.iter_mut().enumerate() {
            let text = format!("{round}:{i}:{}", "x".repeat(i * 7));
            assert_eq!(round_trip(stream, text.as_bytes()), text.as_bytes());
        }
    }
    server.wait_for("owed", 0);
    assert_eq!(server.counter("sockets"), 200);
    assert!((0..2).all(|s| server.sample(s).reactor.accepted_tcp > 20), "the kernel spreads connections over shards");
    drop(streams);
    server.wait_for("closed_peer", 200);
    assert_eq!(server.counter("sockets"), 0);
}

#[test]
fn a_large_echo_crosses_many_partial_writes() {
    let server = Server::start(1);
    let stream = server.connect();
    let bytes: Vec<u8> = (0..8 << 20).map(|i: u32| ((i * 31) >> 3) as u8).collect();
    let mut reader = stream.try_clone().unwrap();
    let expected = bytes.clone();
    let reading = std::thread::spawn(move || {
        let mut back = vec![0; expected.len()];
        reader.read_exact(&mut back).unwrap();
        assert!(back == expected);
    });
    (&stream).write_all(&bytes).unwrap();
    reading.join().unwrap();
    server.wait_for("owed", 0);
}

#[test]
fn a_slow_reader_stops_the_intake_and_others_go_on_after_it() {
    let server = Server::start(1);
    let slow = server.connect();
    let mut writer = slow.try_clone().unwrap();
    let total = 24_usize << 20;
    let writing = std::thread::spawn(move || writer.write_all(&vec![b'z'; total]).unwrap());
    let until = Instant::now() + Duration::from_secs(10);
    while server.counter("owed") < WINDOW as u64 {
        assert!(Instant::now() < until, "the window never filled");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Nothing is taken in while the machine wants no input.
    let read = server.counter("socket_read_bytes");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.counter("socket_read_bytes"), read);
    let turns = server.counter("reactor_turns");
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.counter("reactor_turns") - turns < 20, "the loop sleeps meanwhile");
    let mut waiting = server.connect();
    waiting.write_all(b"hello").unwrap();
    let mut back = vec![0; 1 << 16];
    let mut got = 0;
    while got < total {
        let n = (&slow).read(&mut back).unwrap();
        assert!(n > 0 && back[..n].iter().all(|b| *b == b'z'));
        got += n;
    }
    writing.join().unwrap();
    let mut back = [0; 5];
    waiting.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn a_connection_whose_bytes_are_not_wanted_waits_alone() {
    let server = Server::start(1);
    let (mut held, mut other) = (server.connect(), server.connect());
    held.write_all(b"!hold").unwrap();
    server.wait_for("socket_reads", 1);
    held.write_all(b"waits").unwrap();
    for _ in 0..10 {
        assert_eq!(round_trip(&mut other, b"goes on"), b"goes on");
    }
    assert_eq!(server.counter("socket_reads"), 11);
    let turns = server.counter("reactor_turns");
    std::thread::sleep(Duration::from_millis(100));
    assert!(server.counter("reactor_turns") - turns < 10, "the loop sleeps meanwhile");
    other.write_all(b"!release").unwrap();
    let mut back = [0; 5];
    held.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"waits");
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let server = Server::start(1);
    let mut streams: Vec<TcpStream> = (0..SOCKETS_MAX + 10).map(|_| server.connect()).collect();
    server.wait_for("refused_too_many", 10);
    let refused = streams.split_off(SOCKETS_MAX);
    assert!(streams.iter_mut().all(|s| round_trip(s, b"in") == b"in"));
    assert!(refused.iter().all(|mut s| matches!(s.read(&mut [0]), Ok(0) | Err(_))));
    drop(streams);
    server.wait_for("sockets", 0);
    assert_eq!(round_trip(&mut server.connect(), b"again"), b"again");
}

#[test]
fn a_close_writes_what_was_handed_over_before() {
    let server = Server::start(1);
    let mut stream = server.connect();
    stream.write_all(b"!bye").unwrap();
    let mut all = Vec::new();
    // Bytes that the server never reads must not turn the close into a reset.
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"more").unwrap();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 64 * 16_384);
    server.wait_for("closed_asked", 1);
    drop(stream);
    server.wait_for("sockets", 0);
    assert_eq!(server.counter("closes_cut_short"), 0);
}

#[test]
fn a_close_does_not_wait_for_a_peer_that_reads_nothing() {
    let server = Server::start(1);
    let streams: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
    for mut stream in &streams {
        stream.write_all(b"!bye").unwrap();
    }
    server.wait_for("closed_asked", 8);
    server.wait_for("sockets", 0);
}

#[test]
fn mail_goes_to_the_other_shard_and_comes_back() {
    let server = Server::start(2);
    for _ in 0..32 {
        let mut stream = server.connect();
        for _ in 0..10 {
            assert_eq!(answer_to(&mut stream, b"!mail", 4), b"mail");
        }
    }
    let wakes: u64 = (0..2).map(|s| server.sample(s).wakes_by_other_shards).sum();
    assert!(wakes > 0 && wakes <= 640, "{wakes} wakes");
}

#[test]
fn effects_timers_and_calls_come_back() {
    let server = Server::start(1);
    let mut stream = server.connect();
    assert_eq!(answer_to(&mut stream, b"!store", 6), b"stored");
    assert_eq!(answer_to(&mut stream, b"!load", 6), b"stored");
    let before = Instant::now();
    assert_eq!(answer_to(&mut stream, b"!later", 4), b"late");
    let took = before.elapsed();
    assert!((30..4_000).contains(&took.as_millis()), "{took:?}");
    let (to, answer) = oneshot::channel();
    let request = ApiRequest::ConversationSync(wukong_core::api::ConversationSync::default());
    assert!(server.inboxes[0].call(super::inbox::Call { request, answer: to }).is_ok());
    assert_eq!(answer.blocking_recv().unwrap(), ApiAnswer::Done);
    assert_eq!(server.sample(0).calls_waiting, 0);
    stream.write_all(b"!halt").unwrap();
    assert_eq!(server.halted.recv_timeout(Duration::from_secs(5)), Ok(StoreFault::Io));
}

#[test]
fn an_idle_loop_hardly_turns() {
    let server = Server::start(1);
    let _streams: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    server.wait_for("sockets", 50);
    let turns = server.counter("reactor_turns");
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.counter("reactor_turns") - turns <= 4);
}

#[test]
fn a_stop_closes_the_listeners_and_is_reported() {
    let server = Server::start(1);
    let mut stream = server.connect();
    round_trip(&mut stream, b"x");
    server.inboxes[0].control(Control::Stop);
    let until = Instant::now() + Duration::from_secs(5);
    while !server.states[0].borrow().stopped {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(TcpStream::connect(server.tcp).is_err());
    assert!(TcpStream::connect(server.websocket).is_err());
}

fn in_runtime<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn web(server: &Server) -> tokio_tungstenite::WebSocketStream<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(server.websocket).await.unwrap();
    tokio_tungstenite::client_async("ws://x/any/path", stream).await.unwrap().0
}

#[test]
fn two_hundred_connections_echo_over_websocket() {
    let server = Server::start(2);
    in_runtime(async {
        let mut sockets = Vec::new();
        for _ in 0..200 {
            sockets.push(web(&server).await);
        }
        for round in 0..5 {
            for (i, socket) in sockets.iter_mut().enumerate() {
                let payload = vec![round as u8; 1 + i * 37];
                socket.send(Message::Binary(WsBytes::from(payload.clone()))).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary(WsBytes::from(payload)));
            }
        }
        let socket = &mut sockets[0];
        // Text arrives as bytes; answers are binary all the same.
        socket.send(Message::text("群")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("群".as_bytes().into()));
        socket.send(Message::Ping(WsBytes::from_static(b"p"))).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(WsBytes::from_static(b"p")));
        let mut two = sockets.pop().unwrap();
        two.send(Message::binary(vec![1; 200_000])).await.unwrap();
        let mut back = 0;
        while back < 200_000 {
            back += two.next().await.unwrap().unwrap().into_data().len();
        }
        assert_eq!(back, 200_000);
        two.close(None).await.unwrap();
        while let Some(Ok(_)) = two.next().await {}
    });
    server.wait_for("owed", 0);
    server.wait_for("sockets", 0);
}

#[test]
fn a_close_on_websocket_is_a_close_frame_1000() {
    let server = Server::start(1);
    in_runtime(async {
        let mut socket = web(&server).await;
        socket.send(Message::text("!bye")).await.unwrap();
        let (mut bytes, mut code) = (0, None);
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Close(frame) => code = frame.map(|f| f.code),
                other => bytes += other.into_data().len(),
            }
        }
        assert_eq!((bytes, code), (64 * 16_384, Some(CloseCode::Normal)));
    });
    server.wait_for("closed_asked", 1);
    server.wait_for("sockets", 0);
}

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Forwarded-For: 10.9.8.7\r\n\
    X-Real-Port: 99\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn upgrade(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.websocket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.write_all(UPGRADE.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

#[test]
fn a_proxy_names_the_peer_and_a_violation_is_closed_with_1002() {
    let server = Server::start(1);
    let mut stream = upgrade(&server);
    let mut hello = [0; 2 + 11];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello[2..], b"10.9.8.7:99");
    // An unmasked frame.
    stream.write_all(&[0x82, 1, b'x']).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xEA]);
    server.wait_for("closed_transport", 1);
    assert_eq!(server.counter("websocket_violations"), 1);
}

#[test]
fn messages_that_arrive_in_parts_at_the_same_time_do_not_mix() {
    let server = Server::start(1);
    let mut streams = [(); 3].map(|()| upgrade(&server));
    for stream in &mut streams {
        stream.read_exact(&mut [0; 2 + 11]).unwrap();
    }
    // A text message in two frames with a ping between them; the mask is zero.
    let parts: [&[u8]; 5] = [&[0x01], &[0x83, 0, 0, 0, 0, b'a'], b"b", b"c\x89\x80\0\0\0\0", b"\x80\x81\0\0\0\0"];
    for (round, part) in (1..).zip(parts) {
        for stream in &mut streams {
            stream.write_all(part).unwrap();
        }
        server.wait_for("socket_reads", 3 * (1 + round));
    }
    for (stream, last) in streams.iter_mut().zip(*b"xyz") {
        stream.write_all(&[last]).unwrap();
        let mut answers = [0; 2 + 6];
        stream.read_exact(&mut answers).unwrap();
        assert_eq!(answers, [0x8A, 0, 0x82, 4, b'a', b'b', b'c', last]);
    }
    assert_eq!(server.counter("websocket_violations"), 0);
}

#[test]
fn plain_http_on_the_websocket_port_is_told_so() {
    let server = Server::start(1);
    let mut stream = TcpStream::connect(server.websocket).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 426 ") && text.contains("5001"), "{text}");
    server.wait_for("websocket_handshakes_refused", 1);
    server.wait_for("sockets", 0);
}

/// Not an assertion but a figure: `cargo test --release -p wukong-runtime throughput -- --nocapture`.
#[test]
fn throughput_of_the_echo() {
    let server = Server::start(1);
    let (connections, window) = (50, 16);
    let time = Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 3_000 });
    let until = Instant::now() + time;
    let mut streams: Vec<TcpStream> = (0..connections).map(|_| server.connect()).collect();
    for in_flight in [1, window] {
        let (mut messages, until) = (0_u64, until + time * u32::from(in_flight > 1));
        let started = Instant::now();
        let mut buffer = [0_u8; 64 * 64];
        while Instant::now() < until {
            for stream in &mut streams {
                stream.write_all(&buffer[..64 * in_flight]).unwrap();
            }
            for stream in &mut streams {
                stream.read_exact(&mut buffer[..64 * in_flight]).unwrap();
            }
            messages += (connections * in_flight) as u64;
        }
        let rate = messages as f64 / started.elapsed().as_secs_f64();
        println!("{connections} connections, {in_flight} in flight, 64 B: {rate:.0} messages/s");
    }
}
