//! Runs tier B: `make tierb SEEDS=100`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(madsim)]
fn main() -> ExitCode {
    wukong_sim::tierb::runs::main()
}

#[cfg(not(madsim))]
fn main() -> ExitCode {
    eprintln!("tierb needs the simulated executor: `make tierb SEEDS=100` builds it with --cfg madsim.");
    ExitCode::FAILURE
}
