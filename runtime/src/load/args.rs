//! The command line of `wukongim bench`.

use std::path::PathBuf;

use clap::ValueEnum;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Person to person: pairs of connected users, one writes to the other
    W1,
    /// Idle connections: what each costs the server
    W5,
    /// The first message of new channels, one after the other
    FirstAck,
}

/// Puts load on a server and measures it, checking in every run that nothing is lost, doubled, or out of order
///
/// The load is open loop: messages leave by a schedule however the server does, and latencies count from the moment a
/// message was due. A run in which the server loses, doubles or reorders anything prints FAILED and no figure, and
/// ends with code 1.
///
/// A server on this machine, started and stopped by the run, each on a processor of its own:
///     wukongim bench --workload w1 --self-host --rate 5000
///     wukongim bench --workload w1 --self-host --saturate --verify
///     wukongim bench --workload w5 --self-host --conns 10000
///
/// A server that runs already (any that speaks the WuKongIM protocol):
///     wukongim bench --workload w1 --addr host:5100 --http host:5001 --token-auth --rate 1000
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// What the clients do
    #[arg(long, value_enum, default_value = "w1")]
    pub workload: Workload,

    /// Where the clients connect
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5100", help_heading = "Server")]
    pub addr: String,

    /// The HTTP API: for --token-auth, --verify, and the counters of /metrics
    #[arg(long, value_name = "HOST:PORT", help_heading = "Server")]
    pub http: Option<String>,

    /// Where /metrics is, if not at --http
    #[arg(long, value_name = "HOST:PORT", help_heading = "Server")]
    pub metrics: Option<String>,

    /// The manager token that the API asks for
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true, help_heading = "Server")]
    pub http_token: String,

    /// The server's process on this machine, to read its processor time and memory
    #[arg(long, value_name = "PID", help_heading = "Server")]
    pub server_pid: Option<u32>,

    /// Give each user a token through the API, and log in with it
    #[arg(long, help_heading = "Server")]
    pub token_auth: bool,

    /// Clients speak WebSocket (then --addr is the WebSocket port)
    #[arg(long, help_heading = "Server")]
    pub ws: bool,

    /// Protocol version that the clients offer, 1 to 6
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=6), help_heading = "Server")]
    pub protocol: u8,

    /// Start a server for this run: `wukongim run` on free ports, with an empty data directory
    #[arg(long, conflicts_with_all = ["addr", "http", "server_pid"], help_heading = "Own server")]
    pub self_host: bool,

    /// Where its data directory goes; must be a real disk
    #[arg(long, value_name = "DIR", requires = "self_host", help_heading = "Own server")]
    pub data_dir: Option<PathBuf>,

    /// Another program than this one, for instance the last release
    #[arg(long, value_name = "FILE", requires = "self_host", help_heading = "Own server")]
    pub server_bin: Option<PathBuf>,

    /// One more argument of its `run`; may be repeated
    #[arg(
        long = "server-arg",
        value_name = "ARG",
        requires = "self_host",
        allow_hyphen_values = true,
        help_heading = "Own server"
    )]
    pub server_args: Vec<String>,

    /// The processor it is kept on
    #[arg(long, value_name = "CPU", default_value_t = 0, help_heading = "Own server")]
    pub server_cpu: usize,

    /// Leave its data and log in place
    #[arg(long, requires = "self_host", help_heading = "Own server")]
    pub keep: bool,

    /// Messages a second, over all pairs
    #[arg(long, value_name = "N", default_value_t = 1000.0, help_heading = "Load")]
    pub rate: f64,

    /// Find the highest rate that the server keeps up with (both P99 below 100 ms), beginning at --rate
    #[arg(long, help_heading = "Load")]
    pub saturate: bool,

    /// w1: pairs of users
    #[arg(long, value_name = "N", default_value_t = 1000, help_heading = "Load")]
    pub pairs: usize,

    /// w5: connections
    #[arg(long, value_name = "N", default_value_t = 10_000, help_heading = "Load")]
    pub conns: usize,

    /// first-ack: new channels
    #[arg(long, value_name = "N", default_value_t = 500, help_heading = "Load")]
    pub channels: usize,

    /// Bytes of each payload; they look random, so nothing can compress them
    #[arg(long, value_name = "BYTES", default_value_t = 256, help_heading = "Load")]
    pub payload: usize,

    /// Length of the measured window; for w5, of the rest
    #[arg(long, value_name = "S", default_value_t = 20, help_heading = "Load")]
    pub seconds: u64,

    /// Time at full rate before the window
    #[arg(long, value_name = "S", default_value_t = 5, help_heading = "Load")]
    pub warmup: u64,

    /// After the run, read every channel back and check that each message is stored once
    #[arg(long, help_heading = "Load")]
    pub verify: bool,

    /// Keep this program on one processor (with --self-host: 1, if there are two)
    #[arg(long, value_name = "CPU", help_heading = "This program")]
    pub pin: Option<usize>,

    /// Let both run wherever they like
    #[arg(long, conflicts_with = "pin", help_heading = "This program")]
    pub no_pin: bool,

    /// Write the result as JSON too
    #[arg(long, value_name = "FILE", help_heading = "This program")]
    pub json: Option<PathBuf>,
}
