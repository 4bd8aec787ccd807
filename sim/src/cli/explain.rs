//! `sim raft explain` and `sim raft explore`: the causes of a failure, and other futures of a state.

use super::seeds::keep;
use crate::raft::cluster::Mode;
use crate::raft::explain::{Moment, explain};
use crate::raft::explore::explore;
use crate::raft::plan::Plan;
use clap::Args;
use std::path::PathBuf;
use wukong_core::mutants::RaftMutant;

/// Which run.
#[derive(Args)]
pub struct Which {
    pub file: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Length of the part with faults
    #[arg(long, default_value_t = super::raft::LASTS)]
    ms: u64,
    /// Plant this bug (a build with the feature `mutants`)
    #[arg(long)]
    mutant: Option<String>,
}

impl Which {
    /// The plan, and how to run it.
    ///
    /// # Errors
    /// The file is no plan; there is no such mutant.
    pub fn plan(&self) -> Result<(Plan, Mode), String> {
        let plan = match &self.file {
            Some(file) => super::raft::load(file)?,
            None => Plan::generate(self.seed, self.ms),
        };
        let mutant = match &self.mutant {
            Some(_) if !cfg!(feature = "mutants") => return Err("build with --features mutants".into()),
            Some(name) => {
                let found = RaftMutant::ALL.into_iter().find(|m| format!("{m:?}") == *name);
                Some(found.ok_or_else(|| format!("there is no mutant {name}"))?)
            }
            None => None,
        };
        Ok((plan, Mode { mutant, ..Mode::default() }))
    }
}

#[derive(Args)]
pub struct Explain {
    #[command(flatten)]
    which: Which,
    /// The failed check; else the first
    #[arg(long)]
    check: Option<String>,
    /// Not a failure, but how this node's replica came to stand where it does
    #[arg(long)]
    node: Option<usize>,
    #[arg(long, default_value_t = 0)]
    group: usize,
    /// With --node: at this time, ms
    #[arg(long, default_value_t = 10_000)]
    at: u64,
    /// Facts in the table
    #[arg(long, default_value_t = 40)]
    lines: usize,
}

impl Explain {
    /// Prints the chain.
    ///
    /// # Errors
    /// There is nothing to explain.
    pub fn run(&self) -> Result<(), String> {
        let (plan, mode) = self.which.plan()?;
        let moment = match self.node {
            Some(node) => Moment::Replica { node, group: self.group, until: self.at },
            None => Moment::Failure(self.check.as_deref()),
        };
        print!("{}", explain(&plan, mode, moment, self.lines)?.table());
        Ok(())
    }
}

#[derive(Args)]
pub struct Explore {
    #[command(flatten)]
    which: Which,
    /// The event whose state is cloned
    #[arg(long)]
    at: u64,
    /// How many futures
    #[arg(long, default_value_t = 20)]
    branches: u64,
    /// Events in each; 0: to the end
    #[arg(long, default_value_t = 5_000)]
    steps: u64,
}

impl Explore {
    /// True when no future failed. Each that did is kept as a plan.
    ///
    /// # Errors
    /// The state is not reached.
    pub fn run(&self) -> Result<bool, String> {
        let (plan, mode) = self.which.plan()?;
        let futures = explore(&plan, mode, self.at, self.branches, self.steps)?;
        let (n, failed) = (futures.branches, futures.failures.len());
        println!("{n} futures of event {}: {} events, {failed} failed", self.at, futures.handled);
        for failure in &futures.failures {
            let last = failure.plan.branches.last().map_or(0, |b| b.seed);
            let told = failure.violation.to_string();
            let path = keep(&format!("raft-{}-{}-{last}", plan.seed, self.at), &failure.plan.text(), &told);
            println!("FAILED future {last}: {told}\n  sim raft run {}", path.display());
        }
        Ok(failed == 0)
    }
}
