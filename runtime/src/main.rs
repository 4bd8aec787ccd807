//! The server, and its companions on the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    wukong_runtime::cli::main()
}
