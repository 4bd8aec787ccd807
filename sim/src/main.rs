//! The simulator's command line.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use wukong_sim::cli::doctor::{What, doctor, trace};
use wukong_sim::cli::seeds::{Sweep, number};
use wukong_sim::cli::sweep::sweep;
use wukong_sim::cli::{cluster, load, mutants, raft, replay, show, shrink, speed};
use wukong_sim::scenario::plan;
use wukong_sim::world::Mode;

#[derive(Parser)]
#[command(about = "Seeded worlds that drive the core through crashes, lost writes and clock trouble")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One run: of a seed, or of a scenario file
    Run {
        file: Option<PathBuf>,
        #[arg(long, value_parser = number, default_value = "0")]
        seed: u64,
        #[arg(long, default_value_t = 10_000)]
        events: u64,
        /// Print the scenario instead of running it
        #[arg(long)]
        text: bool,
        /// Print every counter
        #[arg(long)]
        all: bool,
    },
    /// Many seeds; stops at the first failure
    Sweep {
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        #[arg(long, default_value_t = 10_000)]
        events: u64,
        #[command(flatten)]
        how: Sweep,
    },
    /// Run a kept scenario, or a recording of a real shard, again
    Replay {
        file: PathBuf,
        #[arg(long)]
        all: bool,
        /// Print inputs and outputs with these numbers
        #[arg(long)]
        print_from: Option<u64>,
        #[arg(long, default_value_t = u64::MAX)]
        print_to: u64,
    },
    /// Make a failing scenario smaller
    Shrink {
        file: PathBuf,
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Is the simulator deterministic?
    Doctor {
        #[arg(long, default_value_t = 10)]
        seeds: u64,
        #[arg(long, value_parser = number, default_value = "0")]
        from: u64,
        #[arg(long, default_value_t = 5_000)]
        events: u64,
        /// A build of another kind to compare with
        #[arg(long)]
        other_binary: Option<PathBuf>,
    },
    /// Events per second: heap alone, without oracles, with all
    Speed {
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        #[arg(long, default_value_t = 10_000)]
        events: u64,
    },
    /// Plant known bugs; fails when one survives
    Mutants {
        #[arg(long)]
        only: Option<String>,
        /// Seeds per mutant
        #[arg(long, default_value_t = 300)]
        seeds: u64,
        #[arg(long, default_value_t = 10_000)]
        events: u64,
    },
    /// Clusters of replication groups: elections, replication, assignment of channel leaders
    #[command(subcommand)]
    Raft(raft::Command),
    /// Clusters of shards: slots and channels on several nodes, with clients
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// The trace of one run, for `doctor`
    Trace {
        file: Option<PathBuf>,
        #[arg(long, value_parser = number, default_value = "0")]
        seed: u64,
        #[arg(long, default_value_t = 10_000)]
        events: u64,
        #[arg(long, default_value_t = 0)]
        hash: u64,
        #[arg(long)]
        print_from: Option<u64>,
        #[arg(long, default_value_t = u64::MAX)]
        print_to: u64,
    },
}

fn main() -> ExitCode {
    let good = match Args::parse().command {
        Command::Run { file, seed, events, text, all } => run(file, seed, events, text, all),
        Command::Sweep { seeds, events, how } => sweep(seeds, events, how),
        Command::Replay { file, all, print_from, print_to } => {
            replay(&file, Mode { print: print_from.map(|f| (f, print_to)), ..Mode::default() }, all)
        }
        Command::Shrink { file, seconds } => shrink_file(&file, seconds),
        Command::Doctor { seeds, from, events, other_binary } => doctor(seeds, from, events, other_binary.as_deref()),
        Command::Speed { seeds, events } => {
            speed::speed(seeds, events);
            true
        }
        Command::Mutants { only, seeds, events } => mutants::mutants(only.as_deref(), seeds, events),
        Command::Raft(command) => raft::main(command),
        Command::Cluster(command) => cluster::main(command),
        Command::Trace { file, seed, events, hash, print_from, print_to } => {
            let what = file.map_or(What::Seed(seed, events), What::File);
            said(trace(&what, hash, print_from.map(|f| (f, print_to))))
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn said(result: Result<(), String>) -> bool {
    if let Err(e) = &result {
        eprintln!("{e}");
    }
    result.is_ok()
}

fn run(file: Option<PathBuf>, seed: u64, events: u64, text: bool, all: bool) -> bool {
    let scenario = match &file {
        Some(path) => load(path),
        None => Ok(plan::generate(seed, events)),
    };
    match scenario {
        Ok(scenario) if text => {
            print!("{}", scenario.text());
            true
        }
        Ok(scenario) => {
            show(&scenario, &file.unwrap_or_else(|| "(sim run --text > FILE)".into()), Mode::default(), all)
        }
        Err(e) => said(Err(e)),
    }
}

fn shrink_file(file: &std::path::Path, seconds: u64) -> bool {
    let scenario = match load(file) {
        Ok(s) => s,
        Err(e) => return said(Err(e)),
    };
    match shrink::shrink(&scenario, Mode::default(), Duration::from_secs(seconds)) {
        Some(small) => {
            print!("{}", small.text());
            true
        }
        None => said(Err(format!("{}: does not fail", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
        let sweep = ["sim", "raft", "sweep", "--seeds", "7", "--from", "0x10", "--keep-going"];
        assert!(matches!(
            Args::parse_from(sweep).command,
            Command::Raft(raft::Command::Sweep { what, .. }) if what.seeds == 7 && what.how.from == 16 && what.how.keep_going
        ));
    }
}
