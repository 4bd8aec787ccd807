//! A node of the world: what outlives its processes, and how a process of it starts.

use super::counter::Counter;
use super::plan::{Bug, Drives};
use super::stage::Shelf;
use super::store::{Drive, Medium, Storage, lock};
use super::tape::{Place, Taped};
use super::watch::Watched;
use super::world::World;
use crate::cluster::{CLUSTER, replica};
use crate::rng::Rng;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::sync::watch;
use wukong_core::ids::{Incarnation, NodeId, ShardId};
use wukong_core::rng::Seed;
use wukong_core::{Boot, Shard, ShardConfig};
use wukong_runtime::clock::Clock;
use wukong_runtime::peers::{self, Local, PeerLimits, Peers, PeersConfig};
use wukong_runtime::reactor::inbox::Inbox;
use wukong_runtime::reactor::listen::Acceptor;
use wukong_runtime::reactor::machine::{Machine, MachineState};
use wukong_runtime::reactor::{HaltHook, Parts, Reactor};

const TCP: u16 = 5100;
const WEBSOCKET: u16 = 5200;
const PEERS: u16 = 11110;
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
    let life = match &world.stage {
        Some(stage) => stage.with(|w| w.nodes[index].life),
        None => site.drive.incarnation.load(Ordering::Relaxed) + 1,
    };
    site.drive.incarnation.store(life, Ordering::Relaxed);
    world.tape.say(format_args!("n{}.{life} starts", site.id));
    let fork = |name: &str| Rng::fork(world.plan.seed, name, u64::from(site.id) << 32 | life);
    let mut secrets = fork("secrets");
    let inboxes: Vec<Arc<Inbox>> = (0..site.shards).map(|_| Arc::default()).collect();
    let medium: Arc<dyn Medium> = match world.stage.clone() {
        Some(stage) => Arc::new(Shelf { stage, node: index, life }),
        None => site.drive.clone(),
    };
    let storage = Storage::new(medium, inboxes.clone(), fork("disk"), world.plan.bug);
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
        let on_halt = halt_hook(&world, index);
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
            on_halt,
        };
        match world.plan.drives {
            Drives::Shard => {
                let seed = Seed { keys: secrets.bytes32(), jitter: secrets.bytes32() };
                let config = match &world.stage {
                    Some(stage) => stage.with(|w| w.shard_config(index, shard.0)),
                    None => world.shard_config(index, shard),
                };
                let boot = Boot { store: replica(index).store, incarnation: Incarnation(life) };
                let machine = Shard::new(config, boot, seed, clock.now()).expect("the configuration is possible");
                match world.stage.clone() {
                    Some(stage) => {
                        let machine = Watched::new(machine, stage, index, life, shard, world.plan.bug);
                        spawn(&world, place, parts, machine);
                    }
                    None => spawn(&world, place, parts, machine),
                }
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
    /// All nodes replicate everything.
    fn shard_config(&self, index: usize, shard: ShardId) -> ShardConfig {
        ShardConfig {
            node: replica(index).node,
            shard,
            shards: self.sites[index].shards,
            slots: self.plan.slots,
            replicas: (0..self.sites.len()).map(replica).collect(),
            cluster: CLUSTER,
            ..ShardConfig::default()
        }
    }
}

/// What a shard does that must make no further promise. In a scenario the disk may have failed: the process ends, and is
/// started again.
fn halt_hook(world: &Arc<World>, index: usize) -> HaltHook {
    let world = world.clone();
    Arc::new(move |shard, fault| match &world.stage {
        Some(stage) => stage.with(|w| {
            w.cover.hit("halted");
            w.exit(index);
        }),
        None => {
            world.tape.violation(format!("HALT shard {shard}: {fault}"));
            panic!("shard {shard} halted: {fault}");
        }
    })
}

fn peers_config(world: &World, index: usize, life: u64, seed: [u8; 32]) -> PeersConfig {
    let site = &world.sites[index];
    let others = world.sites.iter().filter(|s| s.id != site.id);
    PeersConfig {
        local: Local {
            cluster: CLUSTER,
            node: NodeId(site.id),
            store: replica(index).store,
            incarnation: Incarnation(life),
            shards: site.shards,
        },
        secret: b"secret of the world".to_vec(),
        peers: others.map(|s| (NodeId(s.id), SocketAddr::new(s.ip(), PEERS).to_string())).collect(),
        seed,
        limits: PeerLimits::default(),
    }
}
