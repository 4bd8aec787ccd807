//! The HTTP API: parses, asks the shard that owns the key, formats. It decides nothing about messages.
//!
//! Envelopes and quirks are those of the reference (http-api 2.1 to 2.4), because business back ends rely on them.

mod answer;
mod body;
mod core;
mod edge;
mod message;
pub mod metrics;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

pub use self::core::{Core, Shards};
pub use edge::router;
pub use routes::Addresses;
pub use serve::serve;

use metrics::Metric;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

/// Everything the handlers know.
pub struct Api {
    pub core: Arc<dyn Core>,
    /// When set, every route but the probes wants it in the header `token`.
    pub manager_token: Option<String>,
    pub node_id: u64,
    pub addresses: Addresses,
    /// Figures that do not come from the shards.
    pub more_metrics: Box<dyn Fn() -> Vec<Metric> + Send + Sync>,
    counts: Counts,
    /// KiB of bodies that may be in memory.
    bodies: Semaphore,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    refused: AtomicU64,
}

/// Memory for the bodies of all requests together: beyond it requests wait to be read.
const BODIES_KIB: usize = 256 * 1024;

impl Api {
    #[must_use]
    pub fn new(
        core: Arc<dyn Core>,
        manager_token: Option<String>,
        node_id: u64,
        addresses: Addresses,
        more_metrics: Box<dyn Fn() -> Vec<Metric> + Send + Sync>,
    ) -> Self {
        let (counts, bodies) = (Counts::default(), Semaphore::new(BODIES_KIB));
        Self { core, manager_token, node_id, addresses, more_metrics, counts, bodies }
    }
}
