//! `wukongim run`: from the start of a node to its end.

use super::banner;
use super::config::{RunArgs, unknown_environment};
use crate::node::{Listening, Node, OnHalt, Stopped};
use clap::CommandFactory;
use serde_json::json;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wukong_core::error::StoreFault;

/// The disk failed: the node can promise nothing more.
const HALTED: u8 = 70;
const WRONG_OPTIONS: u8 = 2;

pub fn run(args: RunArgs) -> ExitCode {
    if let Err(e) = log_to_stderr(&args.log) {
        eprintln!("--log {}: {e}. Try --log info.", args.log);
        return ExitCode::FAILURE;
    }
    abort_on_panic();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return failed(&format!("cannot start: {e}")),
    };
    runtime.block_on(serve(&args))
}

fn failed(why: &str) -> ExitCode {
    // A failure to print changes nothing about the failure.
    let _ = writeln!(io::stderr(), "wukongim: {why}");
    ExitCode::FAILURE
}

async fn serve(args: &RunArgs) -> ExitCode {
    let begin = Instant::now();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => return failed(&format!("cannot listen for signals: {e}")),
    };
    let config = match args.node() {
        Ok(config) => config,
        Err(why) => {
            failed(&why);
            return ExitCode::from(WRONG_OPTIONS);
        }
    };
    banner::say(&format!("wukongim    {}", env!("CARGO_PKG_VERSION")));
    let files = banner::raise_open_files();
    for name in unknown_environment(&super::Cli::command()) {
        banner::warn(&format!("the environment variable {name} has no effect in this version"));
    }
    if args.unsafe_no_sync() {
        banner::warn("writes are not synced (a test switch): a power failure loses acknowledged messages.");
    }
    let node = match Node::start(config.clone(), on_halt()) {
        Ok(node) => node,
        Err(e) => return failed(&e.to_string()),
    };
    banner::started(&config, &node);
    banner::self_check(&config.data_dir, files);

    let ready = tokio::select! {
        biased;
        () = signals.next() => false,
        () = node.ready() => true,
    };
    if ready {
        if let Some(path) = &args.ready_file
            && let Err(e) = write_ready_file(path, node.listening)
        {
            return failed(&format!("cannot write the ready file {}: {e}", path.display()));
        }
        banner::ready(&node, begin.elapsed());
        signals.next().await;
    }
    banner::say("stopping: finishing what was accepted (a second signal ends at once)");
    tokio::select! {
        biased;
        () = signals.next() => {
            banner::say("ended at once");
            // Not by way of the destructors, which would wait for what the user no longer waits for.
            std::process::exit(1);
        }
        stopped = node.stop() => match stopped {
            Ok(Stopped::Cleanly) => banner::say("stopped"),
            Ok(Stopped::Owing) => banner::say("stopped; some work was not finished in time, and its senders will ask again"),
            Ok(Stopped::WithoutTheDisk) => {
                banner::say("ended without waiting for the disk, which does not answer; what was acknowledged is on it");
                std::process::exit(0);
            }
            Err(fault) => {
                tracing::error!("{fault}. {}", remedy(fault));
                return ExitCode::from(HALTED);
            }
        },
    }
    ExitCode::SUCCESS
}

struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn log_to_stderr(filter: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}

/// No half-dead node: a panic anywhere ends the process, in builds that unwind too.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn on_halt() -> OnHalt {
    Arc::new(|shard, fault| {
        tracing::error!(shard = shard.0, "the node ends, because its disk failed: {fault}. {}", remedy(fault));
        std::process::exit(i32::from(HALTED));
    })
}

fn remedy(fault: StoreFault) -> &'static str {
    match fault {
        StoreFault::Io => {
            "What was acknowledged is on disk; the newest messages may be unknown to their senders, who send them again. \
             Look at the system log for errors of the disk, then start again."
        }
        StoreFault::Full => "Free some space on the disk of the data directory, or enlarge it, then start again.",
        StoreFault::Corrupt => {
            "Keep a copy of the data directory and check the disk; restore the last backup if it does not start again."
        }
    }
}

/// Appears whole or not at all.
fn write_ready_file(path: &Path, at: Listening) -> io::Result<()> {
    let text = json!({
        "tcp": at.tcp.to_string(),
        "ws": at.websocket.to_string(),
        "http": at.http.to_string(),
        "peers": at.peers.map(|at| at.to_string()),
        "pid": std::process::id(),
    });
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, format!("{text}\n"))?;
    fs::rename(&part, path)
}
