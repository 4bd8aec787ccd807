//! The world of `sim cluster` over production nodes: its clients, plan and oracles, while reactors run the shards.
//!
//! The world stays one value behind a lock, taken for an instant only. Its heap holds clients, episodes and checks; a task runs it
//! to the simulated time and carries out its orders. Machines and disks of nodes tell it what happens ([`Watched`], [`Shelf`]).

use super::store::{Medium, lock};
use super::world::{self, Outcome};
use crate::clock::MS;
use crate::cluster::conns::Down;
use crate::cluster::plan::Plan;
use crate::cluster::shell::{Order, Shell};
use crate::cluster::world::{Mode, World};
use crate::rng::Rng;
use bytes::Bytes;
use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};
use wukong_core::Completion;
use wukong_core::error::StoreFault;
use wukong_core::ids::{Incarnation, NodeId};
use wukong_core::store::{Load, WriteBatch};
use wukong_proto::Decoder;
use wukong_runtime::reactor::inbox::Call;

/// Between the end of a process and the next start, at least.
const DOWN: Duration = Duration::from_millis(5);
/// Links notice silence, and are dialled again after pauses: so much later a cluster comes together.
const GRACE: Duration = Duration::from_secs(20);

/// See the module.
pub struct Stage {
    world: Mutex<World>,
    start: Instant,
    /// There are orders, or an event that comes earlier.
    bell: Notify,
    /// What goes up the connections of clients.
    lines: Mutex<BTreeMap<u32, mpsc::UnboundedSender<Bytes>>>,
    /// Connections by the client's address.
    by_address: Mutex<BTreeMap<SocketAddr, u32>>,
}

impl Stage {
    #[must_use]
    pub fn new(plan: Plan, print: bool) -> Arc<Self> {
        let mode = Mode { print: print.then_some((0, u64::MAX)), ..Mode::default() };
        Arc::new(Self {
            world: Mutex::new(World::with(plan, mode, Some(Shell::new(GRACE.as_nanos() as u64)))),
            start: Instant::now(),
            bell: Notify::new(),
            lines: Mutex::default(),
            by_address: Mutex::default(),
        })
    }

    /// Looks at the world, or changes it, as it is now.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let mut world = lock(&self.world);
        world.run_to(self.start.elapsed().as_nanos() as u64);
        let next = world.heap.next_at();
        let seen = look(&mut world);
        let earlier = world.heap.next_at().is_some_and(|at| next.is_none_or(|next| at < next));
        if earlier || world.shell.as_ref().is_some_and(|s| !s.orders.is_empty()) {
            self.bell.notify_one();
        }
        seen
    }

    /// The connection of a client, by its address.
    #[must_use]
    pub fn line_of(&self, peer: SocketAddr) -> Option<u32> {
        lock(&self.by_address).get(&peer).copied()
    }

    fn at(&self, ns: u64) -> Instant {
        self.start + Duration::from_nanos(ns)
    }

    /// Runs the heap and carries out what the world wants, for ever.
    async fn direct(self: Arc<Self>, hull: Arc<world::World>, people: NodeHandle) {
        loop {
            let (orders, next) = self.with(|w| {
                let orders = w.shell.as_mut().map(|s| std::mem::take(&mut s.orders)).unwrap_or_default();
                (orders, w.heap.next_at().filter(|_| w.violations.is_empty()))
            });
            for order in orders {
                self.carry_out(order, &hull, &people);
            }
            let next = next.map_or(self.start + Duration::from_secs(86_400), |at| self.at(at));
            tokio::select! {
                biased;
                () = self.bell.notified() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    fn carry_out(self: &Arc<Self>, order: Order, hull: &Arc<world::World>, people: &NodeHandle) {
        hull.tape.say(format_args!("{order:?}"));
        let (handle, net) = (Handle::current(), NetSim::current());
        match order {
            Order::Start(node) => {
                let (stage, hull) = (self.clone(), hull.clone());
                tokio::spawn(async move { stage.start(node, &hull).await });
            }
            Order::Kill(node) => {
                *lock(&hull.sites[node].process) = None;
                handle.kill(hull.machine(node));
            }
            Order::Pause(node, until) => {
                let (machine, until) = (hull.machine(node), self.at(until));
                handle.pause(machine);
                tokio::spawn(async move {
                    sleep_until(until).await;
                    Handle::current().resume(machine);
                });
            }
            Order::Cut { from, to, on: true } => net.clog_link(hull.machine(from), hull.machine(to)),
            Order::Cut { from, to, on: false } => net.unclog_link(hull.machine(from), hull.machine(to)),
            Order::Reset(a, b) => {
                let other = lock(&hull.sites[b].process).as_ref().map(|p| p.life);
                let peers = lock(&hull.sites[a].process).as_ref().and_then(|p| p.peers.clone());
                if let (Some(life), Some(peers)) = (other, peers) {
                    peers.reset(NodeId(hull.sites[b].id), Incarnation(life));
                }
            }
            Order::Latency(times) => {
                let (low, high) = hull.plan.latency;
                let range = Duration::from_micros(low * times)..Duration::from_micros(high * times);
                net.update_config(|c| c.send_latency = range);
            }
            Order::Open(conn) => {
                let (to, from) = mpsc::unbounded_channel();
                lock(&self.lines).insert(conn, to);
                let (node, shard) = self.with(|w| (w.conns[conn as usize].node, w.conns[conn as usize].shard));
                let addr = hull.sites[node].tcp(shard);
                let stage = self.clone();
                people.spawn(async move { stage.line(conn, addr, from).await });
            }
            Order::Write(conn, bytes) => {
                if let Some(line) = lock(&self.lines).get(&conn) {
                    // A connection that broke takes nothing more.
                    let _ = line.send(bytes);
                }
            }
            Order::HangUp(conn) => drop(lock(&self.lines).remove(&conn)),
            Order::Call { node, shard, call, request } => {
                let inbox = lock(&hull.sites[node].process).as_ref().map(|p| p.inboxes[usize::from(shard)].clone());
                let (answer, answered) = oneshot::channel();
                let asked = inbox.is_some_and(|inbox| inbox.call(Call { request, answer }).is_ok());
                let stage = self.clone();
                tokio::spawn(async move {
                    if asked && let Ok(answer) = answered.await {
                        stage.with(|w| w.answered(call, answer));
                    }
                });
            }
        }
    }

    /// A process that may run is started, after a moment.
    async fn start(&self, node: usize, hull: &world::World) {
        let life = |w: &mut World| w.nodes[node].alive.then_some(w.nodes[node].life);
        let wanted = self.with(life);
        // The first one starts with its machine.
        if wanted <= Some(1) {
            return;
        }
        sleep(DOWN).await;
        if self.with(life) == wanted {
            Handle::current().restart(hull.machine(node));
        }
    }

    /// A client's connection, to its end.
    async fn line(&self, conn: u32, addr: SocketAddr, out: mpsc::UnboundedReceiver<Bytes>) {
        // However it ends: the client sees the end.
        let _ = self.talk(conn, addr, out).await;
        lock(&self.lines).remove(&conn);
        self.with(|w| w.down(conn, Down::Fin));
    }

    async fn talk(&self, conn: u32, addr: SocketAddr, mut out: mpsc::UnboundedReceiver<Bytes>) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(addr).await?;
        lock(&self.by_address).insert(stream.local_addr()?, conn);
        let mut decoder = Decoder::new(5);
        let mut buffer = vec![0; 16 * 1024];
        loop {
            tokio::select! {
                biased;
                bytes = out.recv() => match bytes {
                    None => return Ok(()),
                    Some(bytes) => {
                        stream.write_all(&bytes).await?;
                        stream.flush().await?;
                    }
                },
                read = stream.read(&mut buffer) => {
                    let n = read?;
                    if n == 0 {
                        return Ok(());
                    }
                    decoder.feed(Bytes::copy_from_slice(&buffer[..n]));
                    let mut frames = Vec::new();
                    while let Some(frame) = decoder.next().map_err(|v| self.broken(conn, &v))? {
                        frames.push(frame);
                    }
                    self.with(|w| w.delivered(conn, frames));
                }
            }
        }
    }

    fn broken(&self, conn: u32, what: &dyn std::fmt::Debug) -> std::io::Error {
        self.with(|w| w.violation("STREAM", format!("connection {conn} does not decode: {what:?}")));
        std::io::ErrorKind::InvalidData.into()
    }
}

/// Runs a scenario to its end, within a simulation of its own.
pub async fn play(hull: Arc<world::World>, stage: Arc<Stage>) -> Outcome {
    let people = Handle::current().create_node().name("people").ip(Ipv4Addr::new(10, 0, 1, 1).into()).build();
    tokio::spawn(stage.clone().direct(hull.clone(), people));
    let lasts = stage.with(|w| w.plan.lasts * MS);
    while stage.with(|w| w.violations.is_empty() && w.now < lasts) {
        sleep_until(stage.at(lasts).min(Instant::now() + Duration::from_secs(1))).await;
    }
    while let Some(until) = stage.with(World::settle) {
        sleep_until(stage.at(until)).await;
    }
    let mut outcome = hull.outcome();
    let played = stage.with(|w| w.outcome());
    outcome.violations.extend(played.violations.iter().map(ToString::to_string));
    outcome.starts = stage.with(|w| w.nodes.iter().map(|n| n.life).sum());
    outcome.acked = played.acked;
    outcome.judged = played.judged;
    outcome.cover = played.cover;
    outcome.external = played.external;
    outcome
}

/// The disk of a node, as its process `life` sees it.
pub struct Shelf {
    pub stage: Arc<Stage>,
    pub node: usize,
    pub life: u64,
}

impl Shelf {
    /// A process that is dead does nothing, although its tasks may still run within this instant.
    fn with<T>(&self, otherwise: T, act: impl FnOnce(&mut World) -> T) -> T {
        self.stage.with(|w| {
            let node = &w.nodes[self.node];
            if node.alive && node.life == self.life { act(w) } else { otherwise }
        })
    }
}

impl Medium for Shelf {
    fn write(&self, batch: &WriteBatch) -> Result<u64, StoreFault> {
        self.with(Err(StoreFault::Io), |w| {
            let storage = &mut w.nodes[self.node].storage;
            if storage.failed { Err(StoreFault::Io) } else { Ok(storage.disk.write(batch)) }
        })
    }

    fn sync_time(&self, rng: &mut Rng) -> Duration {
        self.with(Duration::ZERO, |w| {
            let mean = w.plan.sync * 1_000;
            Duration::from_nanos(rng.spread(mean) + w.nodes[self.node].storage.slow_by)
        })
    }

    fn sync(&self, number: u64) -> Result<(), StoreFault> {
        self.with(Err(StoreFault::Io), |w| w.sync(self.node, number))
    }

    fn read(&self, load: &Load) -> Completion {
        self.with(Completion::Loaded(Err(StoreFault::Io)), |w| w.read(self.node, load))
    }
}
