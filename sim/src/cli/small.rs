//! `sim raft small`: small worlds, exhaustively.

use crate::raft::small::{Bounds, search};
use clap::Args;
use std::time::Instant;
use wukong_core::mutants::RaftMutant;

#[derive(Args)]
pub struct Small {
    /// Only this search: boot (an elected group before anything happened), elected, or assigned (both with a leader)
    #[arg(long)]
    mode: Option<String>,
    #[arg(long, default_value_t = 2)]
    epochs: u64,
    #[arg(long)]
    entries: Option<u8>,
    #[arg(long)]
    crashes: Option<u8>,
    #[arg(long)]
    elections: Option<u8>,
    #[arg(long)]
    ticks: Option<u8>,
    #[arg(long)]
    reads: Option<u8>,
    /// Look at so many states at most
    #[arg(long, default_value_t = 1_000_000)]
    states: u64,
    /// Plant this bug (a build with the feature `mutants`)
    #[arg(long)]
    mutant: Option<String>,
}

impl Small {
    /// True when no state breaks a rule.
    #[must_use]
    pub fn run(&self) -> bool {
        let mutant = self.mutant.as_ref().and_then(|n| RaftMutant::ALL.into_iter().find(|m| format!("{m:?}") == *n));
        if self.mutant.is_some() && (mutant.is_none() || !cfg!(feature = "mutants")) {
            eprintln!("no such mutant, or not built with --features mutants");
            return false;
        }
        let wanted = ["boot", "elected", "assigned"].into_iter().filter(|n| self.mode.as_ref().is_none_or(|m| m == n));
        wanted.fold(true, |fine, name| {
            let began = Instant::now();
            let (boot, assigned) = (name == "boot", name == "assigned");
            let usual = Bounds::default();
            let bounds = Bounds {
                epochs: self.epochs,
                entries: self.entries.unwrap_or(if boot { 0 } else { usual.entries }),
                crashes: self.crashes.unwrap_or(usual.crashes),
                elections: self.elections.unwrap_or(usual.elections),
                ticks: self.ticks.unwrap_or(usual.ticks),
                reads: self.reads.unwrap_or(usual.reads),
                led: !boot,
            };
            let seen = search(assigned, bounds, mutant, self.states);
            println!(
                "{name:<9} {} states, {} steps, depth {}, {:.1} s: {}",
                seen.states,
                seen.steps,
                seen.depth,
                began.elapsed().as_secs_f64(),
                if seen.violation.is_some() {
                    "FAILED"
                } else if seen.complete {
                    "all that there are"
                } else {
                    "not all"
                },
            );
            if let Some((v, path)) = &seen.violation {
                println!("  {}: {}", v.invariant, v.what);
                path.iter().enumerate().for_each(|(i, step)| println!("  {:>3} {step}", i + 1));
            }
            fine && seen.violation.is_none()
        })
    }
}
