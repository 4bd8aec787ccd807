//! The command line: `wukongim run`, `chat`, `bench`.

mod banner;
mod config;
mod peers;
mod run;

use crate::{chat, load};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

/// An instant-messaging server that speaks WuKongIM
///
/// To try it, in three terminals:
///
///   wukongim run
///   wukongim chat --uid alice --to bob
///   wukongim chat --uid bob --to alice
///
/// Nothing needs to be configured. `wukongim COMMAND --help` explains each command.
#[derive(Debug, Parser)]
#[command(name = "wukongim", version, verbatim_doc_comment, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<config::RunArgs>),
    Chat(chat::Args),
    Bench(load::Args),
}

/// Parses the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let command = config::ignore_empty_environment(Cli::command());
    let parsed = command.try_get_matches().and_then(|m| Cli::from_arg_matches(&m));
    match parsed {
        Ok(cli) => match cli.command {
            Command::Run(args) => run::run(*args),
            Command::Chat(args) => chat::run(&args),
            Command::Bench(args) => load::run(&args),
        },
        Err(e) => e.exit(),
    }
}
