//! The server, and its companions on the command line.

use std::process::ExitCode;

/// The message path allocates and frees on different threads, which the system's allocator does slowly.
#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(madsim))]
fn main() -> ExitCode {
    wukong_runtime::cli::main()
}

/// The simulated world has no command line: its worlds are started by `tierb`.
#[cfg(madsim)]
fn main() -> ExitCode {
    ExitCode::FAILURE
}
