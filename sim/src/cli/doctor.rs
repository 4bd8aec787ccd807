//! Determinism: the same seeds in two processes, another build, and another hash seed must agree.

use super::load;
use super::seeds::printed;
use crate::run::{Outcome, run};
use crate::scenario::{Scenario, plan};
use crate::world::Mode;
use std::path::{Path, PathBuf};
use wukong_core::Shard;

/// Inputs between two checkpoints.
const EVERY: u64 = 1_000;

/// What is traced: a seed, or a file.
#[derive(Clone, Debug)]
pub enum What {
    Seed(u64, u64),
    File(PathBuf),
}

/// Prints the trace of a run: a checkpoint a line, or the events of a range in full.
///
/// # Errors
/// The scenario cannot be read.
pub fn trace(what: &What, hash: u64, print: Option<(u64, u64)>) -> Result<(), String> {
    let mut scenario = scenario(what)?;
    scenario.node.hash = hash;
    let o: Outcome = run::<Shard>(scenario, Mode { print, checkpoints: EVERY, ..Mode::default() });
    if print.is_none() {
        o.checkpoints.iter().for_each(|c| println!("{c:016x}"));
        println!("inputs {} trace {:016x} visible {:016x}", o.handled, o.trace, o.visible);
    }
    Ok(())
}

fn scenario(what: &What) -> Result<Scenario, String> {
    match what {
        What::Seed(seed, events) => Ok(plan::generate(*seed, *events)),
        What::File(path) => load(path),
    }
}

fn child(binary: &Path, what: &What, hash: u64, print: Option<(u64, u64)>) -> Result<Vec<String>, String> {
    let mut args = vec!["trace".to_owned(), "--hash".to_owned(), hash.to_string()];
    match what {
        What::Seed(seed, events) => {
            args.extend(["--seed".to_owned(), seed.to_string(), "--events".to_owned(), events.to_string()]);
        }
        What::File(path) => args.push(path.display().to_string()),
    }
    if let Some((from, to)) = print {
        args.extend(["--print-from".to_owned(), from.to_string(), "--print-to".to_owned(), to.to_string()]);
    }
    Ok(printed(binary, &args)?.lines().map(str::to_owned).collect())
}

/// Runs seeds in pairs of processes; true when no pair differs.
#[must_use]
pub fn doctor(seeds: u64, from: u64, events: u64, other: Option<&Path>) -> bool {
    match examine(seeds, from, events, other) {
        Ok(()) => {
            let build = if other.is_some() { ", another build" } else { "" };
            println!("{seeds} seeds: two processes{build} and another hash seed agree");
            true
        }
        Err(e) => {
            println!("{e}");
            false
        }
    }
}

fn examine(seeds: u64, from: u64, events: u64, other: Option<&Path>) -> Result<(), String> {
    let me = std::env::current_exe().map_err(|e| format!("where am I: {e}"))?;
    for seed in from..from + seeds {
        let what = What::Seed(seed, events);
        let first = child(&me, &what, 0, None)?;
        compare(&me, &me, &what, &first)?;
        if let Some(other) = other {
            compare(&me, other, &what, &first)?;
        }
        let visible = |lines: &[String]| lines.last().and_then(|l| l.split(" visible ").nth(1)).map(str::to_owned);
        let rehashed = child(&me, &what, 0xDEC0_DE00 + seed, None)?;
        if visible(&first) != visible(&rehashed) {
            return Err(format!(
                "seed {seed}: another hash seed changes what clients see\n  {:?}\n  {:?}",
                first.last(),
                rehashed.last()
            ));
        }
    }
    Ok(())
}

fn compare(one: &Path, two: &Path, what: &What, first: &[String]) -> Result<(), String> {
    let second = child(two, what, 0, None)?;
    if first == second {
        return Ok(());
    }
    let at = first.iter().zip(&second).take_while(|(a, b)| a == b).count() as u64;
    let range = Some((at * EVERY, (at + 1) * EVERY));
    let (a, b) = (child(one, what, 0, range)?, child(two, what, 0, range)?);
    let line = a.iter().zip(&b).position(|(x, y)| x != y).unwrap_or_else(|| a.len().min(b.len()));
    let show = |lines: &[String]| lines.get(line).cloned().unwrap_or_else(|| "(ended)".into());
    Err(format!("{what:?} differs\n  {}: {}\n  {}: {}", one.display(), show(&a), two.display(), show(&b)))
}
