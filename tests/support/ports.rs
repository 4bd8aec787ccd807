//! Ports that a server can be started on again and again: nobody else gets them meanwhile.
//!
//! A bound socket would not do: the server shares its ports among threads (SO_REUSEPORT), so two servers could end up on
//! one port without noticing. Ports are claimed by a lock on a file instead, below the range from which the system takes
//! the ports of outgoing connections.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};

const FIRST: u16 = 20_000;
const LAST: u16 = 31_999;

/// A claimed port of 127.0.0.1.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: File,
}

impl Port {
    /// A port that nothing listens on and no other test has.
    ///
    /// # Panics
    /// There is none left, or the files that claim them cannot be made.
    #[must_use]
    pub fn claim() -> Port {
        let folder = std::env::temp_dir().join("wukongim-test-ports");
        fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("cannot create {}: {e}", folder.display()));
        let span = LAST - FIRST + 1;
        let start = u16::from_be_bytes(wukong_runtime::client::random()) % span;
        for offset in 0..span {
            let number = FIRST + (start + offset) % span;
            let path = folder.join(number.to_string());
            let Ok(claim) = File::options().create(true).append(true).open(&path) else {
                continue;
            };
            if claim.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _claim: claim };
            }
        }
        panic!("no free port between {FIRST} and {LAST}");
    }

    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// What one server listens on.
#[derive(Debug)]
pub struct Ports {
    pub tcp: Port,
    pub ws: Port,
    pub http: Port,
}

impl Ports {
    #[must_use]
    pub fn claim() -> Ports {
        Ports { tcp: Port::claim(), ws: Port::claim(), http: Port::claim() }
    }
}
