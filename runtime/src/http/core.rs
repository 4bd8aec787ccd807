//! How the HTTP edge reaches the shards.

use crate::reactor::inbox::{Call, Control, Inbox, ShardSample};
use crate::reactor::machine::MachineState;
use std::sync::Arc;
use tokio::sync::{oneshot, watch};
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::error::Refusal;

/// What the edge needs of the node. A trait, so that routes are tested without one.
pub trait Core: Send + Sync {
    /// Hands a call to the shard that owns its key.
    ///
    /// # Errors
    /// The shard has too many calls waiting.
    fn call(&self, request: ApiRequest) -> Result<oneshot::Receiver<ApiAnswer>, Refusal>;

    /// Why the node does not serve, if so.
    fn not_ready(&self) -> Option<String>;

    /// Asks every shard for its figures.
    fn samples(&self) -> Vec<oneshot::Receiver<ShardSample>>;
}

/// The shards of this node.
pub struct Shards {
    pub slots: u16,
    pub inboxes: Vec<Arc<Inbox>>,
    pub states: Vec<watch::Receiver<MachineState>>,
}

impl Core for Shards {
    fn call(&self, request: ApiRequest) -> Result<oneshot::Receiver<ApiAnswer>, Refusal> {
        let shards = u8::try_from(self.inboxes.len()).unwrap_or(u8::MAX);
        let home = request.home(self.slots, shards);
        let (answer, receiver) = oneshot::channel();
        self.inboxes[usize::from(home.0)].call(Call { request, answer })?;
        Ok(receiver)
    }

    fn not_ready(&self) -> Option<String> {
        let states = || self.states.iter().map(|s| *s.borrow());
        if states().any(|s| s.stopped) {
            return Some("the node is stopping".to_owned());
        }
        let waiting = states().filter(|s| !s.ready).count();
        (waiting > 0).then(|| format!("{waiting} of {} shards are still loading", self.states.len()))
    }

    fn samples(&self) -> Vec<oneshot::Receiver<ShardSample>> {
        let ask = |inbox: &Arc<Inbox>| {
            let (to, receiver) = oneshot::channel();
            inbox.control(Control::Sample(to));
            receiver
        };
        self.inboxes.iter().map(ask).collect()
    }
}
