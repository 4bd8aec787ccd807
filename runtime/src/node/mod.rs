//! A whole node in one process: storage, shards, listeners and the HTTP API, started and stopped together.

mod start;
mod stats;
#[cfg(test)]
mod tests;

pub use start::{StartError, sockets_max};

use crate::peers::{PeerStatus, Peers};
use crate::reactor::inbox::{Control, Inbox};
use crate::reactor::machine::MachineState;
use crate::storage::{ClusterId, Identity, Storage, StorageOptions};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use wukong_core::error::StoreFault;
use wukong_core::ids::{Incarnation, NodeId, ShardId};
use wukong_core::limits;

/// Slots of a node; fixed at the first start.
pub const SLOTS: u16 = 64;
pub const SHARDS_MAX: u8 = 16;
/// Beyond the core's own limit for a graceful stop: closing connections takes 2 s at most.
const STOP_MARGIN: Duration = Duration::from_millis(2_500);
/// Ending the threads and the last sync.
const CLOSE: Duration = Duration::from_secs(2);

/// What to start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub data_dir: PathBuf,
    pub node_id: NodeId,
    pub shards: u8,
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
    pub external: External,
    pub token_auth: bool,
    pub manager_token: Option<String>,
    /// Where the flight recorder writes.
    pub record: Option<PathBuf>,
    pub storage: StorageOptions,
    /// The cluster that the data directory must belong to; a new one is made for it.
    pub cluster: Option<ClusterId>,
    pub peers: Option<PeerOptions>,
}

/// The other nodes of the cluster.
#[derive(Clone)]
pub struct PeerOptions {
    pub listen: SocketAddr,
    pub secret: String,
    /// Addresses (host:port) by node, without this one.
    pub nodes: Vec<(NodeId, String)>,
}

impl fmt::Debug for PeerOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerOptions").field("listen", &self.listen).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// What `/route` tells clients, as far as the operator said.
#[derive(Clone, Debug, Default)]
pub struct External {
    pub ip: Option<String>,
    pub tcp_addr: Option<String>,
    pub ws_addr: Option<String>,
    pub wss_addr: Option<String>,
    pub intranet_tcp_addr: Option<String>,
}

/// Where a node really listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    pub tcp: SocketAddr,
    pub websocket: SocketAddr,
    pub http: SocketAddr,
    /// None: this node has no peers.
    pub peers: Option<SocketAddr>,
}

/// A running node.
pub struct Node {
    pub listening: Listening,
    pub identity: Identity,
    pub incarnation: Incarnation,
    storage: Arc<Storage>,
    inboxes: Vec<Arc<Inbox>>,
    states: Vec<watch::Receiver<MachineState>>,
    shards: Vec<JoinHandle<io::Result<()>>>,
    http_stop: watch::Sender<bool>,
    http: JoinHandle<io::Result<()>>,
    links: Option<Links>,
}

/// The thread of the links.
struct Links {
    peers: Peers,
    stop: watch::Sender<bool>,
    thread: JoinHandle<io::Result<()>>,
}

/// Called when a shard can promise nothing more. It must end the process.
pub type OnHalt = Arc<dyn Fn(ShardId, StoreFault) + Send + Sync>;

impl Node {
    /// # Errors
    /// Why the node cannot start, with what to do about it.
    pub fn start(config: NodeConfig, on_halt: OnHalt) -> Result<Self, StartError> {
        start::start(config, on_halt)
    }

    /// Returns when every shard serves.
    pub async fn ready(&self) {
        for state in &self.states {
            // A reactor that left has panicked, which ends the process.
            let _ = state.clone().wait_for(|s| s.ready).await;
        }
    }

    /// The links to the other nodes.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.links.as_ref().map_or_else(Vec::new, |links| links.peers.status())
    }

    /// Finishes what is owed, closes all connections and the store.
    ///
    /// # Errors
    /// The store failed: what was not acknowledged may be lost.
    pub async fn stop(self) -> Result<Stopped, StoreFault> {
        self.http_stop.send_replace(true);
        for inbox in &self.inboxes {
            inbox.control(Control::Stop);
        }
        let stopped = async {
            for state in &self.states {
                let _ = state.clone().wait_for(|s| s.stopped).await;
            }
        };
        let in_time = tokio::time::timeout(limits::STOP_GRACE + STOP_MARGIN, stopped).await.is_ok();
        for inbox in &self.inboxes {
            inbox.control(Control::Exit);
        }
        // On a thread of its own: a disk that hangs must not keep the process from ending.
        let (done, closed) = oneshot::channel();
        std::thread::spawn(move || {
            let _ = done.send(self.close());
        });
        match tokio::time::timeout(CLOSE, closed).await {
            Ok(Ok(closed)) => closed.map(|()| if in_time { Stopped::Cleanly } else { Stopped::Owing }),
            _ => Ok(Stopped::WithoutTheDisk),
        }
    }

    fn close(self) -> Result<(), StoreFault> {
        for thread in self.shards {
            report_end("shard", thread);
        }
        report_end("HTTP", self.http);
        // Last: shards that stop finish what they owe to other nodes.
        if let Some(links) = self.links {
            links.stop.send_replace(true);
            report_end("peer", links.thread);
        }
        // Nobody else holds it now: the HTTP thread, which had it for its metrics, has ended.
        Arc::try_unwrap(self.storage).map_or(Ok(()), Storage::close)
    }
}

/// How a stop ended. What was acknowledged is on disk in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    Cleanly,
    /// Some work was not finished in time; its senders do not know whether it was done.
    Owing,
    /// The disk did not answer.
    WithoutTheDisk,
}

fn report_end(what: &str, thread: JoinHandle<io::Result<()>>) {
    match thread.join() {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!("the {what} thread failed: {e}"),
        Err(_) => tracing::error!("the {what} thread panicked"),
    }
}
