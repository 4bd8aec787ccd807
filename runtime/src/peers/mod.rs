//! Links to the other nodes of the cluster (cluster-and-raft 4.20, 4.21): what frames mean is decided in the core.
//!
//! - Three streams for each pair of nodes, one for each [`LinkClass`], each on a connection of its own: bulk never delays
//!   votes. The node with the lower id dials, so connections never cross; both need each other in `--peer`.
//! - A link is *up* when all three streams are greeted ([`handshake`]), and down when one ends. Every shard is told both, in
//!   this order: up, frames, down. A link that was lost is dialled again after 50 ms to 2 s.
//! - On the control stream each side pings every 500 ms; nothing for 3 s is the end.
//! - What leaves waits in a queue for each stream, bounded in bytes. A full control queue ends the link; frames for the other
//!   streams are dropped and counted (the core's credits make that rare). What arrives waits in the shards' inboxes: when one is
//!   far behind, data and bulk streams are not read, so that their senders' credits and windows run out.
//! - Nothing is encrypted, and only the greeting is authenticated (HMAC-SHA256 of both hellos with the cluster's secret): the peer
//!   port belongs into a network that only the nodes reach.

mod dial;
mod handshake;
mod hub;
mod queue;
mod stats;
mod stream;
#[cfg(all(test, not(madsim)))]
mod tests;
#[cfg(not(madsim))]
pub mod thread;
mod wire;

pub use stats::PeerSample;
pub use wire::Listener;

use crate::reactor::inbox::Inbox;
use bytes::Bytes;
use hub::Hub;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use wukong_core::ids::{Incarnation, LinkClass, NodeId, PeerProcess, StoreId};
use wukong_core::rng::Stream;
use wukong_proto::hello::HANDSHAKE_MAX;

/// Bytes of one message on a stream at most: beyond it the link ends.
pub const FRAME_MAX: usize = 16 << 20;
/// Opening a connection may take this long.
const CONNECT: Duration = Duration::from_secs(2);
/// A handshake, and then the wait for the other streams of the link, may take this long each.
const FORMING: Duration = Duration::from_secs(3);
/// How long a refused side has to read why.
const LINGER: Duration = Duration::from_millis(500);
/// Time between two pings (cluster-and-raft 4.20).
const PING: Duration = Duration::from_millis(500);
/// Nothing heard on the control stream for this long: the link ends.
const SILENCE: Duration = Duration::from_secs(3);
/// Bytes in flight on a stream before its reader takes them.
#[cfg(not(madsim))]
const WINDOW: u32 = 4 << 20;
/// Handshakes of dialling nodes at one time: beyond it streams are refused.
const HANDSHAKES_MAX: usize = 64;

/// Room in a queue while the handshake goes on.
const fn limit_of_handshakes() -> usize {
    4 * HANDSHAKE_MAX
}

/// This process, as its peers see it.
#[derive(Clone, Copy, Debug)]
pub struct Local {
    pub cluster: u128,
    pub node: NodeId,
    pub store: StoreId,
    pub incarnation: Incarnation,
    pub shards: u8,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Bytes waiting to leave on a stream, by class. Control beyond it: the link ends. Data and bulk: frames are dropped.
    pub queue_bytes: [usize; LinkClass::ALL.len()],
    /// Bytes of frames waiting for one shard: beyond it data and bulk streams are not read; beyond twice that, which control
    /// frames alone can reach, the link ends.
    pub inbox_bytes: usize,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self { queue_bytes: [16 << 20, 64 << 20, 16 << 20], inbox_bytes: 64 << 20 }
    }
}

/// What the links are made of.
#[derive(Clone)]
pub struct PeersConfig {
    pub local: Local,
    /// Known to all nodes of the cluster and to nobody else.
    pub secret: Vec<u8>,
    /// The other nodes with their addresses (host:port). Others are refused.
    pub peers: Vec<(NodeId, String)>,
    /// Root of nonces and jitter.
    pub seed: [u8; 32],
    pub limits: PeerLimits,
}

/// What is known of a peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    pub node: NodeId,
    /// The process at the other end of an open link.
    pub up: Option<PeerProcess>,
    /// Why the last link ended or could not be opened; none while it is up.
    pub trouble: Option<String>,
}

/// A hand on the links; each reactor has its own. Sending never waits.
pub struct Peers {
    hub: Arc<Hub>,
    /// What this reactor has sent since its last flush.
    gathered: BTreeMap<(NodeId, LinkClass), Vec<Bytes>>,
}

impl Clone for Peers {
    fn clone(&self) -> Self {
        Self { hub: self.hub.clone(), gathered: BTreeMap::new() }
    }
}

impl Peers {
    /// No link yet: [`run`] opens them. `inboxes` are those of all shards of this node, by number.
    #[must_use]
    pub fn new(config: PeersConfig, inboxes: Vec<Arc<Inbox>>) -> Self {
        Self { hub: Hub::new(config, inboxes), gathered: BTreeMap::new() }
    }

    /// Frames for one stream leave in the order of the calls, with the next [`flush`](Self::flush). Without an open link
    /// they are dropped; nobody is told.
    pub fn send(&mut self, to: NodeId, class: LinkClass, frame: Bytes) {
        self.gathered.entry((to, class)).or_default().push(frame);
    }

    /// Hands over what was sent: each stream is woken once.
    pub fn flush(&mut self) {
        for ((to, class), frames) in &mut self.gathered {
            if !frames.is_empty() {
                self.hub.send(*to, *class, frames);
            }
        }
    }

    /// Ends the link to this process; it is opened again as after any loss.
    pub fn reset(&self, to: NodeId, incarnation: Incarnation) {
        self.hub.reset(to, incarnation);
    }

    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        self.hub.status()
    }

    #[must_use]
    pub fn sample(&self) -> PeerSample {
        self.hub.stats.sample()
    }
}

/// Accepts and dials until `stop` becomes true, then ends all links.
///
/// # Errors
/// The listener cannot be used.
pub async fn run(peers: Peers, listener: Listener, mut stop: watch::Receiver<bool>) -> io::Result<()> {
    let hub = peers.hub;
    let mut tasks = Vec::new();
    for (node, addr) in hub.dialled() {
        let jitter = Stream::fork(&hub.seed, &format!("peer dial {node}"));
        tasks.push(tokio::spawn(dial::keep_linked(hub.clone(), node, addr.to_owned(), jitter)));
    }
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let accepted: wire::Accepted = {
        let hub = hub.clone();
        Arc::new(move |wire| {
            let (hub, handshakes) = (hub.clone(), handshakes.clone());
            tokio::spawn(async move { stream::accept(&hub, wire, &handshakes).await });
        })
    };
    let serving = wire::serve(listener, accepted, stop.clone());
    let served = tokio::select! {
        biased;
        () = stream::stopped(&mut stop) => Ok(()),
        served = serving => served,
    };
    for task in tasks {
        task.abort();
    }
    hub.end_all();
    served
}
