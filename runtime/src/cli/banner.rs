//! What `wukongim run` tells at its start, in plain lines on the standard output.

use super::config::{HTTP_PORT, TCP_PORT};
use crate::node::{Node, NodeConfig, sockets_max};
use crate::storage::SelfCheck;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

/// Below this a node cannot hold many clients.
const FILES_WANTED: u64 = 65_536;
/// What is asked for when the hard limit is infinite and the kernel does not take that.
const FILES_HIGH: u64 = 1 << 20;

/// Prints; that nobody reads it is no reason to stop.
pub fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end()).and_then(|()| out.flush());
}

pub fn warn(text: &str) {
    say(&format!("warning     {text}"));
}

/// Raises the limit of open files as far as this process may, and says what it is. None: no limit.
pub fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let hard = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if setrlimit(Resource::Nofile, hard).is_err() {
        let high = Some(limit.maximum.map_or(FILES_HIGH, |m| m.min(FILES_HIGH)));
        // As it was, then.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: high, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current
}

/// Who and where.
pub fn started(config: &NodeConfig, node: &Node) {
    let (id, at) = (node.identity, node.listening);
    let mut text = format!("data        {} (node {}, store {:032x}, ", config.data_dir.display(), id.node, id.store.0);
    let _ = match node.incarnation.0 {
        1 => writeln!(text, "new)"),
        n => writeln!(text, "start {n})"),
    };
    let _ = writeln!(text, "shards      {}", config.shards);
    let _ = writeln!(text, "TCP         {}", at.tcp);
    let _ = writeln!(text, "WebSocket   {}", at.websocket);
    let note = match (at.http.ip().is_loopback(), &config.manager_token) {
        (true, _) => "(this machine only; --http-addr opens it to others, --manager-token protects it)",
        (false, Some(_)) => "(wants the manager token)",
        (false, None) => "",
    };
    let _ = writeln!(text, "HTTP API    {} {note}", at.http);
    if let (Some(listen), Some(peers)) = (at.peers, &config.peers) {
        let nodes: Vec<String> = peers.nodes.iter().map(|(node, addr)| format!("{node} at {addr}")).collect();
        let _ = writeln!(text, "Peers       {listen} (cluster {}; {})", id.cluster, nodes.join(", "));
    }
    say(&text);
    if !at.http.ip().is_loopback() && config.manager_token.is_none() {
        warn(
            "the HTTP API is open to the network, and whoever reaches it may do everything: set --manager-token, or keep it behind a firewall.",
        );
    }
}

/// The state of the machine, with a remedy for what is not well.
pub fn self_check(data_dir: &Path, files: Option<u64>) {
    match SelfCheck::run(data_dir) {
        Ok(check) => {
            let sync = check.sync.p50.as_secs_f64() * 1e3;
            let free = check.space.available as f64 / (1_u64 << 30) as f64;
            say(&format!("disk        a synced write takes {sync:.2} ms (median of 32), {free:.1} GiB free"));
            [check.space.warning(), check.sync.warning()].into_iter().flatten().for_each(|w| warn(&w));
        }
        Err(e) => warn(&format!("the disk of the data directory could not be checked: {e}")),
    }
    match files {
        None => say("files       no limit of open files"),
        Some(n) => {
            say(&format!("files       {n} may be open at once, enough for {} client connections", sockets_max(n)))
        }
    }
    if files.is_some_and(|n| n < FILES_WANTED) {
        warn(&format!(
            "few files may be open, so there is room for few clients. Raise the hard limit: ulimit -Hn {FILES_HIGH}, \
             LimitNOFILE={FILES_HIGH} in a systemd unit, or --ulimit nofile={FILES_HIGH} for a container."
        ));
    }
}

/// It serves now: what to try.
pub fn ready(node: &Node, took: std::time::Duration) {
    let at = node.listening;
    let program = std::env::args().next().unwrap_or_else(|| "wukongim".to_owned());
    let mut more = String::new();
    if at.tcp.port() != TCP_PORT {
        let _ = write!(more, " --addr {}", local(at.tcp));
    }
    if at.http.port() != HTTP_PORT {
        let _ = write!(more, " --http {}", local(at.http));
    }
    say(&format!(
        "\nReady after {:.2} s. What to try next, in two more terminals:\n\n    \
         {program} chat --uid alice --to bob{more}\n    \
         {program} chat --uid bob --to alice{more}\n\n    \
         curl http://{}/health\n",
        took.as_secs_f64(),
        local(at.http)
    ));
}

/// An address under which this machine reaches itself.
fn local(addr: SocketAddr) -> String {
    if addr.ip().is_unspecified() { format!("127.0.0.1:{}", addr.port()) } else { addr.to_string() }
}
