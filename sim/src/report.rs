//! A failure on one screen, and the figures of a batch.

use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::scenario::line::{Span, Value};
use crate::sometimes::{RARE, REQUIRED, Seen, missing};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Seconds with milliseconds.
#[must_use]
pub fn seconds(ns: u64) -> String {
    if ns == u64::MAX { "the end".into() } else { format!("{}.{:03}s", ns / 1_000_000_000, ns / 1_000_000 % 1_000) }
}

/// The screen that describes a failed run.
#[must_use]
pub fn screen(scenario: &Scenario, outcome: &Outcome, file: &Path) -> String {
    let mut out = String::new();
    for (i, v) in outcome.violations.iter().take(5).enumerate() {
        let mark = if i == 0 { "FAILED" } else { "also  " };
        let _ = writeln!(out, "{mark} {}  at {}  seed {:#x}", v.invariant, seconds(v.at), scenario.seed);
        let _ = writeln!(out, "  {}", v.what.chars().take(700).collect::<String>());
    }
    let at = outcome.violations.first().map_or(u64::MAX, |v| v.at);
    let last = scenario.faults.iter().filter(|f| f.fields.at.0 <= at).rev().take(3);
    for fault in last {
        let _ = writeln!(out, "  before: {}", fault.line());
    }
    let _ = writeln!(
        out,
        "  {} inputs, {} acked, {} received, {} crashes, simulated {}, trace {:016x}",
        outcome.handled,
        outcome.acked,
        outcome.received,
        outcome.crashes,
        Span(outcome.simulated / 1_000_000_000 * 1_000_000_000).show(),
        outcome.trace
    );
    let _ = writeln!(out, "  replay: sim replay {}", file.display());
    let _ = writeln!(out, "  shrink: sim shrink {}", file.display());
    out
}

/// Writes a failing scenario beside others of its kind; its path.
///
/// # Errors
/// The file cannot be written.
pub fn keep(folder: &Path, scenario: &Scenario, outcome: &Outcome) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let invariant = outcome.violations.first().map_or("ok", |v| v.invariant);
    let path = folder.join(format!("{}-{:x}.scn", invariant.to_lowercase(), scenario.seed));
    let mut text = String::new();
    for v in &outcome.violations {
        let _ = writeln!(text, "# {} at {}: {}", v.invariant, seconds(v.at), v.what.replace('\n', " "));
    }
    // The magic line comes first; comments follow it.
    let body = scenario.text();
    let (magic, rest) = body.split_once('\n').unwrap_or((&body, ""));
    std::fs::write(&path, format!("{magic}\n{text}{rest}"))?;
    Ok(path)
}

/// What a batch saw, and what it should have seen.
#[must_use]
pub fn coverage(seen: &Seen, every: bool) -> String {
    let mut out = String::new();
    if every {
        for (name, count) in seen.all() {
            let _ = writeln!(out, "  {name:<32} {count}");
        }
    }
    let (required, rare) = (missing(seen, REQUIRED), missing(seen, RARE));
    if !required.is_empty() {
        let _ = writeln!(out, "never reached (required): {}", required.join(", "));
    }
    if !rare.is_empty() {
        let _ = writeln!(out, "never reached (rare): {}", rare.join(", "));
    }
    out
}
