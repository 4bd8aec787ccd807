//! A node of the world: what outlives its processes, and how a process of it starts.

use super::counter::Counter;
use super::plan::{Bug, Drives};
use super::store::{Drive, Storage, lock};
use super::tape::{Place, Taped};
use super::world::World;
use crate::rng::Rng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wukong_core::ids::{Incarnation, NodeId, ShardId, StoreId};
use wukong_core::raft::config::Replica;
use wukong_core::rng::Seed;
use wukong_core::{Boot, Shard, ShardConfig};
use wukong_runtime::clock::Clock;
use wukong_runtime::peers::{self, Local, PeerLimits, Peers, PeersConfig};
use wukong_runtime::reactor::inbox::Inbox;
use wukong_runtime::reactor::listen::Acceptor;
use wukong_runtime::reactor::machine::{Machine, MachineState};
use wukong_runtime::reactor::{Parts, Reactor};

const TCP: u16 = 5100;
const WEBSOCKET: u16 = 5200;
const PEERS: u16 = 11110;
const CLUSTER: u128 = 1;
const SOCKETS_MAX: usize = 1_000;

/// A machine of the world, with its disk.
pub struct Site {
    /// Counts from 1.
    pub id: u16,
    pub shards: u8,
    pub drive: Arc<Drive>,
    /// Of the process that runs.
    pub process: Mutex<Option<Process>>,
}

/// Hands on a running process.
#[derive(Clone)]
pub struct Process {
    pub life: u64,
    pub inboxes: Vec<Arc<Inbox>>,
    pub states: Vec<watch::Receiver<MachineState>>,
    pub peers: Option<Peers>,
}

impl Site {
    #[must_use]
    pub fn new(id: u16, shards: u8) -> Self {
        Self { id, shards, drive: Arc::default(), process: Mutex::default() }
    }

    #[must_use]
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, self.id as u8))
    }

    /// Where clients of a shard connect: the simulated listener cannot be shared.
    #[must_use]
    pub fn tcp(&self, shard: u8) -> SocketAddr {
        (self.ip(), TCP + u16::from(shard)).into()
    }
}

/// A process: starts, and never ends of itself.
pub async fn run(world: Arc<World>, index: usize) {
    let site = &world.sites[index];
    let life = site.drive.incarnation.fetch_add(1, Ordering::Relaxed) + 1;
    world.tape.say(format_args!("n{}.{life} starts", site.id));
    let fork = |name: &str| Rng::fork(world.plan.seed, name, u64::from(site.id) << 32 | life);
    let mut secrets = fork("secrets");
    let inboxes: Vec<Arc<Inbox>> = (0..site.shards).map(|_| Arc::default()).collect();
    let storage = Storage::new(site.drive.clone(), inboxes.clone(), fork("disk"), world.plan.bug);
    tokio::spawn(storage.clone().run());

    let (stop, stopped) = watch::channel(false);
    let mut peers = None;
    if world.sites.len() > 1 {
        let listener = TcpListener::bind((site.ip(), PEERS)).await.expect("the port is free");
        let links = Peers::new(peers_config(&world, index, life, secrets.bytes32()), inboxes.clone());
        tokio::spawn(peers::run(links.clone(), listener, stopped));
        peers = Some(links);
    }

    let clock = Clock::start();
    let mut states = Vec::new();
    for shard in (0..site.shards).map(ShardId) {
        let place = Place { node: site.id, life, shard };
        let tcp = Acceptor::new(TcpListener::bind(site.tcp(shard.0)).await.expect("the port is free"));
        let web = (site.ip(), WEBSOCKET + u16::from(shard.0));
        let websocket = Acceptor::new(TcpListener::bind(web).await.expect("the port is free"));
        let (state, receiver) = watch::channel(MachineState::default());
        states.push(receiver);
        let tape = world.tape.clone();
        let parts = Parts {
            shard,
            machine: (),
            store: storage.shard(shard),
            clock,
            inboxes: inboxes.clone(),
            tcp,
            websocket,
            sockets_max: SOCKETS_MAX,
            peers: peers.clone(),
            state,
            on_halt: Arc::new(move |shard, fault| {
                tape.violation(format!("HALT shard {shard}: {fault}"));
                panic!("shard {shard} halted: {fault}");
            }),
        };
        match world.plan.drives {
            Drives::Shard => {
                let seed = Seed { keys: secrets.bytes32(), jitter: secrets.bytes32() };
                let config = ShardConfig {
                    node: NodeId(site.id),
                    shard,
                    shards: site.shards,
                    slots: world.plan.slots,
                    replicas: world.replicas(),
                    cluster: CLUSTER,
                    ..ShardConfig::default()
                };
                let boot = Boot { store: store_of(site.id), incarnation: Incarnation(life) };
                let machine = Shard::new(config, boot, seed, clock.now()).expect("the configuration is possible");
                spawn(&world, place, parts, machine);
            }
            Drives::Counter => {
                let swaps = world.plan.bug == Some(Bug::OutOfOrder);
                let rng = fork(if shard.0 == 0 { "first counter" } else { "second counter" });
                let machine = Counter::new(place, world.tape.clone(), world.counts.clone(), rng, swaps);
                spawn(&world, place, parts, machine);
            }
        }
    }
    *lock(&site.process) = Some(Process { life, inboxes, states, peers });
    std::future::pending::<()>().await;
    drop(stop);
}

fn spawn<M: Machine, S: wukong_runtime::reactor::machine::Store>(
    world: &World,
    place: Place,
    parts: Parts<(), S>,
    machine: M,
) {
    let Parts { shard, machine: (), store, clock, inboxes, tcp, websocket, sockets_max, peers, state, on_halt } = parts;
    let machine = Taped { machine, tape: world.tape.clone(), place, spins: Default::default() };
    let parts = Parts { shard, machine, store, clock, inboxes, tcp, websocket, sockets_max, peers, state, on_halt };
    tokio::spawn(Reactor::new(parts).run());
}

impl World {
    /// Who replicates what: all nodes.
    fn replicas(&self) -> Vec<Replica> {
        self.sites.iter().map(|s| Replica { node: NodeId(s.id), store: store_of(s.id) }).collect()
    }
}

const fn store_of(node: u16) -> StoreId {
    StoreId(0x5707 << 64 | node as u128)
}

fn peers_config(world: &World, index: usize, life: u64, seed: [u8; 32]) -> PeersConfig {
    let site = &world.sites[index];
    let others = world.sites.iter().filter(|s| s.id != site.id);
    PeersConfig {
        local: Local {
            cluster: CLUSTER,
            node: NodeId(site.id),
            store: store_of(site.id),
            incarnation: Incarnation(life),
            shards: site.shards,
        },
        secret: b"secret of the world".to_vec(),
        peers: others.map(|s| (NodeId(s.id), SocketAddr::new(s.ip(), PEERS).to_string())).collect(),
        seed,
        limits: PeerLimits::default(),
    }
}
