//! A server of one's own for each test, what to say to it, and the books that tell whether it kept its promises.

pub mod api;
pub mod ledger;
pub mod ports;
pub mod server;
pub mod temp;

pub use api::{Answer, Api, Stored};
pub use ledger::{Account, Sent, Verdict};
pub use ports::Ports;
pub use server::{Options, Server};
pub use temp::TempDir;

use std::time::{Duration, Instant};

/// Looks every 20 ms whether `found` gives something.
///
/// # Panics
/// It does not within `most`.
pub fn wait_for<T>(what: &str, most: Duration, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + most;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {most:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
