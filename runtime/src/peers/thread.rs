//! One operating system thread for all links of a node, as HTTP has one. Under the simulator they are tasks of the node.

use super::{Listener, Peers, run};
use std::io;
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Runs the links until `stop` becomes true.
///
/// # Errors
/// No thread or runtime can be made.
pub fn spawn(peers: Peers, listener: Listener, stop: watch::Receiver<bool>) -> io::Result<JoinHandle<io::Result<()>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("peers".to_owned()).spawn(move || runtime.block_on(run(peers, listener, stop)))
}
