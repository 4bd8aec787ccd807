//! The options of `wukongim run`. Each is also an environment variable; those the reference has keep its names
//! (webhooks-and-config 4), so that an existing deployment goes on with them.

use super::peers::{PeerArg, cluster_id, options, peer};
use crate::node::{External, NodeConfig, SHARDS_MAX};
use crate::storage::{ClusterId, Faults, StorageOptions};
use clap::builder::BoolishValueParser;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;
use wukong_core::ids::NodeId;

pub const TCP_PORT: u16 = 5100;
pub const HTTP_PORT: u16 = 5001;

/// Runs the server
///
/// Nothing needs to be configured: clients connect to port 5100 (TCP) or 5200 (WebSocket), data goes to
/// ./wukongim-data, and the HTTP API for your back end listens on this machine only.
///
/// Every option can also be given as the environment variable shown with it; the option wins.
/// Ctrl-C or SIGTERM stops the server: what was accepted is finished and stored first. A second one ends it at once.
/// Exit codes: 0 stopped, 1 could not start, 2 wrong options, 70 the disk failed.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    /// Where all data is kept; made if it is not there [default: ./wukongim-data]
    #[arg(long, env = "WK_DATADIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Base of the data directory, as the reference has it: data goes to DIR/data
    #[arg(long, env = "WK_ROOTDIR", value_name = "DIR", hide = true)]
    root_dir: Option<PathBuf>,

    /// Number of this node, a part of every message id; fixed at the first start
    #[arg(long, env = "WK_CLUSTER_NODEID", value_name = "1..1023", default_value_t = 1001,
          value_parser = clap::value_parser!(u16).range(1..=1023))]
    node_id: u16,

    /// Where clients connect over TCP (port 0: any free one)
    #[arg(long, env = "WK_ADDR", value_name = "HOST:PORT", default_value = "0.0.0.0:5100", value_parser = address)]
    tcp_addr: SocketAddr,

    /// Where clients connect over WebSocket
    #[arg(long, env = "WK_WSADDR", value_name = "HOST:PORT", default_value = "0.0.0.0:5200", value_parser = address)]
    ws_addr: SocketAddr,

    /// Where the HTTP API listens. It is for your back end, never for clients: without --manager-token whoever reaches it
    /// may do everything
    #[arg(long, env = "WK_HTTPADDR", value_name = "HOST:PORT", default_value = "127.0.0.1:5001", value_parser = address)]
    http_addr: SocketAddr,

    /// Address or name that clients reach this machine by, for GET /route [default: the address of the LAN]
    #[arg(long, env = "WK_EXTERNAL_IP", value_name = "HOST")]
    external_ip: Option<String>,

    /// What GET /route gives for TCP, if not external-ip and the port
    #[arg(long, env = "WK_EXTERNAL_TCPADDR", value_name = "HOST:PORT")]
    external_tcp_addr: Option<String>,

    /// What GET /route gives for WebSocket
    #[arg(long, env = "WK_EXTERNAL_WSADDR", value_name = "ws://HOST:PORT")]
    external_ws_addr: Option<String>,

    /// What GET /route gives for WebSocket over TLS (a proxy in front of this server)
    #[arg(long, env = "WK_EXTERNAL_WSSADDR", value_name = "wss://HOST:PORT")]
    external_wss_addr: Option<String>,

    /// What GET /route?intranet=1 gives for TCP
    #[arg(long, env = "WK_INTRANET_TCPADDR", value_name = "HOST:PORT")]
    intranet_tcp_addr: Option<String>,

    /// Admit only devices whose token was registered with POST /user/token
    #[arg(long, env = "WK_TOKENAUTHON", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", hide_default_value = true,
          value_parser = BoolishValueParser::new())]
    token_auth: bool,

    /// Secret that every HTTP request must carry in the header `token` (the health probes excepted), and the manager uid
    /// when it connects
    #[arg(long, env = "WK_MANAGERTOKEN", value_name = "SECRET", hide_env_values = true)]
    manager_token: Option<String>,

    /// Threads that serve clients, each with a share of the users and channels
    /// [default: one per processor, one fewer below four processors]
    #[arg(long, env = "WK_SHARDS", value_name = "1..16", value_parser = clap::value_parser!(u8).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u8>,

    /// Another node of the cluster; once for each. Only the links between the nodes are made so far: each still serves its
    /// own clients alone
    #[arg(long = "peer", env = "WK_CLUSTER_INITNODES", value_name = "ID=HOST:PORT", value_delimiter = ' ', value_parser = peer)]
    peers: Vec<PeerArg>,

    /// Where the other nodes connect. Keep it inside a private network: what nodes say to each other is not encrypted
    #[arg(long, env = "WK_CLUSTER_ADDR", value_name = "HOST:PORT", default_value = "0.0.0.0:11110", value_parser = address)]
    peer_listen: SocketAddr,

    /// The cluster that this node belongs to, 32 hexadecimal digits, the same for all nodes; fixed at the first start
    /// [default: one of its own]
    #[arg(long, env = "WK_CLUSTER_ID", value_name = "HEX", value_parser = cluster_id)]
    cluster_id: Option<ClusterId>,

    /// Secret that the nodes of a cluster prove to each other, at least 16 characters
    #[arg(long, env = "WK_CLUSTER_SECRET", value_name = "SECRET", hide_env_values = true)]
    cluster_secret: Option<String>,

    /// Record everything that enters the shards below this folder, for `sim replay`. Costs time and disk, and holds what
    /// users write
    #[arg(long, env = "WK_RECORD", value_name = "DIR")]
    record: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or per module, like info,wukong_runtime::http=debug
    #[arg(long, env = "WK_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Write a JSON object with the addresses and the pid to this file once the server serves
    #[arg(long, env = "WK_READY_FILE", value_name = "FILE")]
    pub ready_file: Option<PathBuf>,

    /// Complete writes without syncing them. Acknowledged messages are lost when the power fails
    #[arg(long, hide = true)]
    test_unsafe_no_sync: bool,

    /// No sync begins while this file exists
    #[arg(long, hide = true, value_name = "FILE")]
    test_stall_file: Option<PathBuf>,

    /// Each sync takes this much longer
    #[arg(long, hide = true, value_name = "MS", default_value_t = 0)]
    test_sync_delay_ms: u64,

    /// A sync fails while this file exists
    #[arg(long, hide = true, value_name = "FILE")]
    test_fail_sync_file: Option<PathBuf>,
}

impl RunArgs {
    /// # Errors
    /// Options that do not go together, with what to do.
    pub fn node(&self) -> Result<NodeConfig, String> {
        let data_dir = match (&self.data_dir, &self.root_dir) {
            (Some(dir), _) => dir.clone(),
            (None, Some(root)) => root.join("data"),
            (None, None) => PathBuf::from("./wukongim-data"),
        };
        let faults = Faults {
            unsafe_no_sync: self.test_unsafe_no_sync,
            stall: self.test_stall_file.clone(),
            sync_delay: Duration::from_millis(self.test_sync_delay_ms),
            fail_sync: self.test_fail_sync_file.clone(),
        };
        let node_id = NodeId(self.node_id);
        let peers = options(node_id, &self.peers, self.peer_listen, self.cluster_id, self.cluster_secret.as_deref())?;
        Ok(NodeConfig {
            data_dir,
            node_id,
            shards: self.shards.unwrap_or_else(default_shards),
            tcp: self.tcp_addr,
            websocket: self.ws_addr,
            http: self.http_addr,
            external: External {
                ip: self.external_ip.clone(),
                tcp_addr: self.external_tcp_addr.clone(),
                ws_addr: self.external_ws_addr.clone(),
                wss_addr: self.external_wss_addr.clone(),
                intranet_tcp_addr: self.intranet_tcp_addr.clone(),
            },
            token_auth: self.token_auth,
            manager_token: self.manager_token.clone(),
            record: self.record.clone(),
            storage: StorageOptions { faults, ..StorageOptions::default() },
            cluster: self.cluster_id,
            peers,
        })
    }

    pub fn unsafe_no_sync(&self) -> bool {
        self.test_unsafe_no_sync
    }
}

fn default_shards() -> u8 {
    shards_for(std::thread::available_parallelism().map_or(1, usize::from))
}

/// The storage thread, the kernel and the HTTP API want some time too: with few processors one is left to them.
fn shards_for(processors: usize) -> u8 {
    let shards = if processors < 4 { processors.saturating_sub(1) } else { processors };
    shards.clamp(1, usize::from(SHARDS_MAX)) as u8
}

/// `host:port`, `:port`, or with the scheme that the reference's configuration has in front.
fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = ["tcp://", "ws://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
    if let Some(port) = bare.strip_prefix(':').and_then(|p| p.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    let found =
        bare.to_socket_addrs().map_err(|e| format!("{e}; give an address and a port, like 0.0.0.0:{TCP_PORT}"))?;
    // A name may stand for several addresses; the first IPv4 one is what people mean by localhost.
    let all: Vec<SocketAddr> = found.collect();
    all.iter().find(|a| a.is_ipv4()).or(all.first()).copied().ok_or_else(|| "the name has no address".to_owned())
}

/// An empty environment variable is no value (webhooks-and-config 4).
pub fn ignore_empty_environment(command: clap::Command) -> clap::Command {
    command.mut_subcommand("run", |run| {
        run.mut_args(|arg| {
            let empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|v| v.is_empty()));
            if empty { arg.env(clap::builder::Resettable::Reset) } else { arg }
        })
    })
}

/// Variables of the reference's naming scheme that mean nothing here.
pub fn unknown_environment(command: &clap::Command) -> Vec<String> {
    let known: Vec<String> = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|a| a.get_env())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let given = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let mut unknown: Vec<String> = given.filter(|n| n.starts_with("WK_") && !known.contains(n)).collect();
    unknown.sort();
    unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_have_the_schemes_of_the_reference() {
        let at = |text: &str| address(text).map(|a| a.to_string());
        assert_eq!(at("tcp://0.0.0.0:5100").as_deref(), Ok("0.0.0.0:5100"));
        assert_eq!(at("ws://[::1]:5200").as_deref(), Ok("[::1]:5200"));
        assert_eq!(at(":7").as_deref(), Ok("0.0.0.0:7"));
        assert_eq!(at("localhost:80").as_deref(), Ok("127.0.0.1:80"));
        for bad in ["", "5100", "1.2.3.4", "1.2.3.4:70000", "tcp://"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn few_processors_are_not_all_taken() {
        let expected = [(1, 1), (2, 1), (3, 2), (4, 4), (8, 8), (64, 16)];
        for (processors, shards) in expected {
            assert_eq!(shards_for(processors), shards);
        }
    }
}
