//! Starting a node, in the order that makes failures cheap: the directory's lock, the ports, the database, the shards.

use super::{External, Links, Listening, Node, NodeConfig, OnHalt, SLOTS, stats};
use crate::clock::Clock;
use crate::http::{self, Addresses, Api, Shards};
use crate::peers::{Local, PeerLimits, Peers, PeersConfig, thread as links_thread};
use crate::reactor::inbox::Inbox;
use crate::reactor::listen::{Acceptor, bind};
use crate::reactor::machine::{Machine, MachineState, Store};
use crate::reactor::{Parts, thread};
use crate::recorder::{Recorded, Recorder};
use crate::storage::{DataDir, OpenError, ShardStore, Storage, file_limit};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::watch;
use wukong_core::error::BootError;
use wukong_core::flight::Header;
use wukong_core::ids::{OpId, ShardId};
use wukong_core::limits;
use wukong_core::rng::Seed;
use wukong_core::store::{Load, WriteBatch};
use wukong_core::{Boot, Completion, PersistClass, Shard, ShardConfig};
use wukong_proto::Text;

/// Files that the database keeps open at most, as far as a quarter of the limit allows.
const DATABASE_FILES: u64 = 2_048;
/// Connections of the HTTP API.
const HTTP_FILES: u64 = 1_024;
/// Listeners, logs, event queues.
const OTHER_FILES: u64 = 64;

/// Why a node does not start. `Display` gives the cause and the remedy.
#[derive(Debug)]
pub enum StartError {
    Storage(OpenError),
    Listen { what: &'static str, option: &'static str, addr: SocketAddr, error: io::Error },
    Boot(BootError),
    Recorder(io::Error),
    Threads(io::Error),
    Entropy(getrandom::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(e) => e.fmt(f),
            Self::Listen { what, option, addr, error } => {
                write!(f, "cannot listen on {addr} for {what}: {error}. ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => write!(
                        f,
                        "Another program listens there (ss -ltnp shows which): stop it, or choose another address with {option}."
                    ),
                    io::ErrorKind::PermissionDenied => {
                        write!(f, "Ports below 1024 need a privilege: choose a higher one with {option}.")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        write!(
                            f,
                            "This machine has no such address: choose another with {option}, for instance 0.0.0.0 for all."
                        )
                    }
                    _ => write!(f, "Choose another address with {option}."),
                }
            }
            Self::Boot(e) => write!(f, "{e}."),
            Self::Recorder(e) => write!(
                f,
                "cannot write the flight recording: {e}. Give --record a folder that this user may write, or leave it out."
            ),
            Self::Threads(e) => {
                write!(f, "cannot start a thread: {e}. Raise the limit of threads of this user (ulimit -u).")
            }
            Self::Entropy(e) => write!(f, "the operating system gives no random numbers: {e}."),
        }
    }
}

impl std::error::Error for StartError {}

impl From<OpenError> for StartError {
    fn from(e: OpenError) -> Self {
        Self::Storage(e)
    }
}

impl Store for ShardStore {
    fn persist(&mut self, op: OpId, batch: WriteBatch, class: PersistClass) {
        Self::persist(self, op, batch, class);
    }

    fn load(&mut self, op: OpId, load: Load) -> Option<Completion> {
        Self::load(self, op, load)
    }
}

/// What each shard gets, beside its machine.
struct Berth {
    shard: ShardId,
    store: ShardStore,
    clock: Clock,
    inboxes: Vec<Arc<Inbox>>,
    tcp: std::net::TcpListener,
    websocket: std::net::TcpListener,
    sockets_max: usize,
    peers: Option<Peers>,
    state: watch::Sender<MachineState>,
    on_halt: OnHalt,
}

pub(super) fn start(config: NodeConfig, on_halt: OnHalt) -> Result<Node, StartError> {
    let dir = DataDir::open(&config.data_dir, config.node_id, config.cluster)?;
    let (identity, incarnation) = (dir.identity(), dir.incarnation());

    let count = usize::from(config.shards);
    let listen = |what, option, addr, count| {
        bind::listeners(addr, count).map_err(|error| StartError::Listen { what, option, addr, error })
    };
    let (tcp_list, tcp) = listen("clients (TCP)", "--tcp-addr", config.tcp, count)?;
    let (web_list, websocket) = listen("clients (WebSocket)", "--ws-addr", config.websocket, count)?;
    let (mut http_list, http) = listen("the HTTP API", "--http-addr", config.http, 1)?;
    let peer_socket = match &config.peers {
        Some(peers) => Some(listen("the other nodes", "--peer-listen", peers.listen, 1)?),
        None => None,
    };
    let listening = Listening { tcp, websocket, http, peers: peer_socket.as_ref().map(|(_, at)| *at) };

    let inboxes: Vec<Arc<Inbox>> = (0..count).map(|_| Arc::default()).collect();
    let sink = {
        let inboxes = inboxes.clone();
        Box::new(move |shard: ShardId, done| inboxes[usize::from(shard.0)].complete(done))
    };
    let (storage, stores) = Storage::start(dir, config.shards, config.storage.clone(), sink)?;
    let storage = Arc::new(storage);

    let links = match (&config.peers, peer_socket) {
        (Some(options), Some((mut listeners, _))) => {
            let local = Local {
                cluster: identity.cluster.0,
                node: config.node_id,
                store: identity.store,
                incarnation,
                shards: config.shards,
            };
            let peers = PeersConfig {
                local,
                secret: options.secret.clone().into_bytes(),
                peers: options.nodes.clone(),
                seed: random()?,
                limits: PeerLimits::default(),
            };
            let peers = Peers::new(peers, inboxes.clone());
            let (stop, stopped) = watch::channel(false);
            let thread =
                links_thread::spawn(peers.clone(), listeners.remove(0), stopped).map_err(StartError::Threads)?;
            Some(Links { peers, stop, thread })
        }
        _ => None,
    };
    let peers = || links.as_ref().map(|links| links.peers.clone());

    let clock = Clock::start();
    let boot = Boot { store: identity.store, incarnation };
    let recorder = match &config.record {
        Some(folder) => Some(Recorder::create(folder, incarnation).map_err(StartError::Recorder)?),
        None => None,
    };
    let sockets_max = sockets_max(file_limit().soft) / count;
    let (mut states, mut shards) = (Vec::new(), Vec::new());
    let sockets = tcp_list.into_iter().zip(web_list);
    for ((shard, store), (tcp, websocket)) in (0..).map(ShardId).zip(stores).zip(sockets) {
        let shard_config = ShardConfig {
            node: config.node_id,
            shard,
            shards: config.shards,
            slots: SLOTS,
            token_auth: config.token_auth,
            manager_token: config.manager_token.as_deref().map(Text::from),
            ..ShardConfig::default()
        };
        let seed = Seed { keys: random()?, jitter: random()? };
        let header = Header { config: shard_config, boot, seed, started: clock.now() };
        let Header { config, boot, seed, started } = header.clone();
        let machine = Shard::new(config, boot, seed, started).map_err(StartError::Boot)?;
        let (state, receiver) = watch::channel(MachineState::default());
        states.push(receiver);
        let inboxes = inboxes.clone();
        let berth = Berth {
            sockets_max,
            peers: peers(),
            shard,
            store,
            clock,
            inboxes,
            tcp,
            websocket,
            state,
            on_halt: on_halt.clone(),
        };
        let thread = match &recorder {
            None => spawn(berth, machine),
            Some(recorder) => {
                let tape = recorder.begin(&header).map_err(StartError::Recorder)?;
                spawn(berth, Recorded::new(machine, tape))
            }
        };
        shards.push(thread.map_err(StartError::Threads)?);
    }

    let addresses = addresses(&config.external, listening);
    let core = Shards { slots: SLOTS, inboxes: inboxes.clone(), states: states.clone() };
    let more_metrics = {
        let (storage, peers) = (storage.clone(), peers());
        Box::new(move || {
            let mut metrics = stats::of_storage(&storage);
            metrics.extend(peers.iter().flat_map(stats::of_peers));
            metrics
        })
    };
    let node_id = u64::from(config.node_id.0);
    let api = Api::new(Arc::new(core), config.manager_token.clone(), node_id, addresses, more_metrics);
    let (http_stop, stop) = watch::channel(false);
    let listener = http_list.remove(0);
    let http = serve_http(listener, api, stop).map_err(StartError::Threads)?;
    Ok(Node { listening, identity, incarnation, storage, inboxes, states, shards, http_stop, http, links })
}

fn random() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(StartError::Entropy)?;
    Ok(bytes)
}

fn spawn<M: Machine>(berth: Berth, machine: M) -> io::Result<JoinHandle<io::Result<()>>> {
    thread::spawn(format!("shard-{}", berth.shard), move || {
        Ok(Parts {
            shard: berth.shard,
            machine,
            store: berth.store,
            clock: berth.clock,
            inboxes: berth.inboxes,
            tcp: Acceptor::new(berth.tcp)?,
            websocket: Acceptor::new(berth.websocket)?,
            sockets_max: berth.sockets_max,
            peers: berth.peers,
            state: berth.state,
            on_halt: berth.on_halt,
        })
    })
}

fn serve_http(
    listener: std::net::TcpListener,
    api: Api,
    stop: watch::Receiver<bool>,
) -> io::Result<JoinHandle<io::Result<()>>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("http".to_owned()).spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            http::serve(listener, http::router(Arc::new(api)), stop).await;
            Ok(())
        })
    })
}

/// Client connections of a process that may have so many files open. The database must never find none left: a write
/// that fails ends the node.
#[must_use]
pub fn sockets_max(files: u64) -> usize {
    let reserved = (files / 4).min(DATABASE_FILES) + (files / 8).min(HTTP_FILES) + OTHER_FILES;
    let left = files.saturating_sub(reserved).max(files / 2);
    usize::try_from(left).unwrap_or(usize::MAX).min(limits::CONNS_MAX)
}

/// What `/route` answers: what the operator said, else the address clients can reach most probably.
fn addresses(external: &External, listening: Listening) -> Addresses {
    let host = |bound: SocketAddr| match &external.ip {
        Some(ip) => ip.clone(),
        None if bound.ip().is_unspecified() => bracketed(lan_address()),
        None => bracketed(bound.ip()),
    };
    let (tcp, web) = (listening.tcp, listening.websocket);
    let derived_tcp = || format!("{}:{}", host(tcp), tcp.port());
    let derived_web = || format!("ws://{}:{}", host(web), web.port());
    Addresses {
        tcp_addr: external.tcp_addr.clone().unwrap_or_else(derived_tcp),
        ws_addr: external.ws_addr.clone().unwrap_or_else(derived_web),
        wss_addr: external.wss_addr.clone().unwrap_or_default(),
        intranet_tcp_addr: external.intranet_tcp_addr.clone().unwrap_or_default(),
    }
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// The address from which packets to the outside would leave. Nothing is sent.
fn lan_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // A documentation address: any that is not local does.
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    probe().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |addr: SocketAddr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_always_has_files_left() {
        assert_eq!(sockets_max(u64::MAX), limits::CONNS_MAX);
        assert_eq!(sockets_max(20_000), 20_000 - 2_048 - 1_024 - 64);
        assert_eq!(sockets_max(100), 50);
    }

    #[test]
    fn route_addresses_have_the_formats_of_the_sdks() {
        let at = |text: &str| text.parse().unwrap();
        let listening = Listening {
            tcp: at("127.0.0.1:5100"),
            websocket: at("[::1]:5200"),
            http: at("127.0.0.1:5001"),
            peers: None,
        };
        let derived = addresses(&External::default(), listening);
        assert_eq!(derived.tcp_addr, "127.0.0.1:5100");
        assert_eq!((derived.ws_addr.as_str(), derived.wss_addr.as_str()), ("ws://[::1]:5200", ""));
        let external = External {
            ip: Some("im.example".into()),
            wss_addr: Some("wss://im.example:443".into()),
            intranet_tcp_addr: Some("10.0.0.1:5100".into()),
            ..External::default()
        };
        let told = addresses(&external, listening);
        assert_eq!((told.tcp_addr.as_str(), told.ws_addr.as_str()), ("im.example:5100", "ws://im.example:5200"));
        assert_eq!(told.wss_addr, "wss://im.example:443");
        assert_eq!(told.intranet_tcp_addr, "10.0.0.1:5100");
        let any = Listening { tcp: at("0.0.0.0:7"), ..listening };
        assert!(!addresses(&External::default(), any).tcp_addr.starts_with("0.0.0.0"));
    }
}
