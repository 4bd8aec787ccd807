//! One operating system thread per reactor. Under the simulator a reactor is a task of its node instead.

use super::machine::{Machine, Store};
use super::{Parts, Reactor};
use std::io;
use std::thread::JoinHandle;

/// Turns between two looks at the sockets while the reactor never sleeps. Two, because the runtime then goes to sleep
/// straight after a turn that left nothing to do, without a look at the sockets in between.
const TURNS_PER_POLL: u32 = 2;

/// Starts a thread that builds its machine with `parts`, within its runtime, and drives it until `Control::Exit`.
///
/// # Errors
/// No thread or runtime can be made. What `parts` returns as an error, the thread returns.
pub fn spawn<M, S, F>(name: String, parts: F) -> io::Result<JoinHandle<io::Result<()>>>
where
    M: Machine,
    S: Store,
    F: FnOnce() -> io::Result<Parts<M, S>> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().event_interval(TURNS_PER_POLL).build()?;
    std::thread::Builder::new().name(name).spawn(move || {
        runtime.block_on(async {
            let reactor = Reactor::new(parts()?);
            // A spawned task is woken without a system call from its own thread; the root future is not. The reactor
            // bounds its own turns, so the runtime's budget would only add detours.
            let task = tokio::spawn(tokio::task::unconstrained(reactor.run()));
            task.await.map_err(io::Error::other)
        })
    })
}
