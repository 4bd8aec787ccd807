//! The server, and its companions on the command line.

use std::process::ExitCode;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    wukong_runtime::cli::main()
}

/// The simulated world has no command line: its worlds are started by `tierb`.
#[cfg(madsim)]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
