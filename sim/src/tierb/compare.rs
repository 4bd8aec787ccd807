//! Tier A is the reference: the same script without faults gives the same history outside, whoever runs the shards. A difference
//! is a bug of the shell.

use super::plan::Plan;
use super::runs::run;
use crate::cli::cluster::load;
use crate::cli::seeds::{each, said};
use crate::cluster::external::External;
use crate::cluster::run as tier_a;
use crate::cluster::world::Mode;
use crate::{cluster, rng::Rng};
use clap::Args;
use std::path::PathBuf;

const NAMES: [&str; 2] = ["tier A", "tier B"];

#[derive(Args)]
pub struct Compare {
    #[arg(long, default_value_t = 50)]
    seeds: u64,
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Instead of seeds: a scenario with scripts; its faults are left out
    file: Option<PathBuf>,
    /// Print the scenario of the first seed
    #[arg(long)]
    text: bool,
}

/// What a comparison came to: how many facts agree, or what differs.
pub type Verdict = Result<u64, String>;

/// True when nothing differs.
#[must_use]
pub fn main(what: &Compare) -> bool {
    if let Some(file) = &what.file {
        return match load(file).and_then(|plan| compare(&without_faults(plan), |_| {})) {
            Ok(facts) => {
                println!("{}: {facts} facts agree", file.display());
                true
            }
            Err(e) => said(&format!("{}: {e}", file.display())),
        };
    }
    if what.text {
        print!("{}", scripted(what.from).text());
        return true;
    }
    let (mut facts, mut failed) = (0, 0);
    each(
        what.from..what.from + what.seeds,
        what.jobs,
        |seed| compare(&scripted(seed), |_| {}),
        |seed, verdict| {
            match verdict {
                Ok(n) => facts += n,
                Err(why) => {
                    failed += 1;
                    let why: String = why.chars().take(600).collect();
                    println!("DIFFERENT seed {seed}: {why}\n  tierb compare --from {seed} --text prints its scenario");
                }
            }
            true
        },
    );
    println!("{} seeds in both tiers: {facts} facts agree, {failed} seeds differ", what.seeds);
    failed == 0
}

/// A cluster without faults whose users have scripts; of every other seed the scripts have turns.
#[must_use]
pub fn scripted(seed: u64) -> cluster::plan::Plan {
    let mut rng = Rng::fork(seed, "compare", 0);
    let drawn = without_faults(cluster::plan::Plan::generate(seed, 8_000));
    cluster::plan::Plan {
        // With five a slot may be led outside the replicas of a channel, which then takes no message.
        nodes: if rng.chance(200) { 1 } else { 3 },
        shards: rng.between(1, 4),
        slots: rng.between(1, 4),
        listeners: 1,
        think: *rng.pick(&[2, 20, 60]),
        payload: *rng.pick(&[16, 2_000, 60_000]),
        drift: 0,
        sends: rng.between(10, 40),
        turns: seed % 2,
        ..drawn
    }
}

fn without_faults(plan: cluster::plan::Plan) -> cluster::plan::Plan {
    cluster::plan::Plan { episodes: Vec::new(), lasts: plan.lasts.min(8_000), ..plan }
}

/// Plays a plan in both tiers; `change` may plant something in that of tier B.
///
/// # Errors
/// One of the runs failed, or they differ: the first difference.
pub fn compare(plan: &cluster::plan::Plan, change: impl FnOnce(&mut Plan)) -> Verdict {
    if plan.sends == 0 {
        return Err("its users have no scripts: `sends` is 0".into());
    }
    let a = tier_a::run(plan, Mode::default());
    let mut of_b = Plan::of_scenario(plan.clone());
    change(&mut of_b);
    let b = run(of_b, false);
    // What differs says more than what a run missed later on.
    let different = External::difference(&a.external, &b.external, NAMES);
    if let Some(v) = a.violations.first() {
        return Err(format!("tier A failed: {v}"));
    }
    match (b.violations.first(), different) {
        (None, None) => Ok(a.external.facts()),
        (None, Some(what)) => Err(what),
        (Some(v), None) => Err(format!("tier B failed: {v}")),
        (Some(v), Some(what)) => Err(format!("{what}; tier B failed: {v}")),
    }
}
