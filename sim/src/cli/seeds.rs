//! What all commands over many seeds share: options, threads, a ledger of what was swept, kept plans, and runs in another process.

use super::kept;
use crate::history::Violation;
use crate::raft::cover::Cover;
use clap::Args;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// How a sweep goes over its seeds.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub struct Sweep {
    #[arg(long, value_parser = number, default_value = "0")]
    pub from: u64,
    #[arg(long, default_value_t = 1)]
    pub jobs: usize,
    /// Go on after failures, and list them
    #[arg(long)]
    pub keep_going: bool,
    /// Print every counter
    #[arg(long)]
    pub all: bool,
}

impl Sweep {
    /// Failures that are shown.
    #[must_use]
    pub const fn shown(&self) -> usize {
        if self.keep_going { 1_000 } else { 1 }
    }
}

/// Which seeds a sweep of plans takes, and where it says so.
#[derive(Args, Clone, Debug)]
pub struct Plans {
    #[arg(long, default_value_t = 200)]
    pub seeds: u64,
    #[command(flatten)]
    pub how: Sweep,
    /// Add what was swept to this file, and go on behind the last seed in it
    #[arg(long)]
    pub resume: Option<PathBuf>,
}

/// What a kind of plans is called.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The command under `sim`, and how files of plans begin.
    pub name: &'static str,
    /// What a run handles.
    pub handles: &'static str,
    /// States that a batch of 200 must have seen.
    pub required: &'static [&'static str],
}

/// What a batch of plans came to.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub from: u64,
    pub runs: u64,
    pub handled: u64,
    /// ns.
    pub simulated: u64,
    pub cover: Cover,
    failed: Vec<(u64, Violation)>,
    /// Real seconds.
    pub took: f64,
}

impl Plans {
    /// Runs the plans of all seeds, behind those that the ledger has; `add` takes from an outcome what it wants, and gives what
    /// every batch has: inputs handled, ns simulated, what was seen, what is violated.
    pub fn sweep<O>(
        &self,
        run: impl Fn(u64) -> O + Sync,
        mut add: impl FnMut(O) -> (u64, u64, Cover, Vec<Violation>) + Send,
    ) -> Batch {
        let ledger = Ledger::open(self.resume.as_deref());
        let mut batch = Batch { from: ledger.end().unwrap_or(self.how.from), ..Batch::default() };
        let began = Instant::now();
        each(batch.from..batch.from + self.seeds, self.how.jobs, run, |seed, outcome| {
            let (handled, simulated, cover, violations) = add(outcome);
            batch.runs += 1;
            batch.handled += handled;
            batch.simulated += simulated;
            batch.cover.add(&cover);
            let first = violations.into_iter().next();
            let good = first.is_none();
            batch.failed.extend(first.map(|v| (seed, v)));
            good || self.how.keep_going
        });
        batch.failed.sort_by_key(|(seed, _)| *seed);
        batch.took = began.elapsed().as_secs_f64();
        batch
    }

    /// Says what is wrong, keeps the plans that failed, and adds a batch without failures to the ledger. True when nothing is wrong.
    #[must_use]
    pub fn judge(&self, kind: Kind, ms: u64, batch: &Batch, text: impl Fn(u64) -> String) -> bool {
        if self.how.all {
            batch.cover.iter().for_each(|(name, n)| println!("  {n:>10} {name}"));
        }
        for (seed, why) in batch.failed.iter().take(self.how.shown()) {
            let path = keep(&format!("{}-{seed}", kind.name), &text(*seed), &why.to_string());
            println!("FAILED seed {seed}: {why}\n  sim {} run {}", kind.name, path.display());
        }
        let missing = batch.cover.missing(kind.required);
        if !missing.is_empty() {
            println!("never reached: {}", missing.join(", "));
        }
        if batch.failed.is_empty() {
            let (from, to, seconds) = (batch.from, batch.from + batch.runs, batch.simulated / 1_000_000_000);
            let head = format!("# from to ms {} simulated_s", kind.handles);
            let line = format!("{from} {to} {ms} {} {seconds}", batch.handled);
            Ledger::open(self.resume.as_deref()).add(&head, &line);
        }
        batch.failed.is_empty() && (batch.runs < 200 || missing.is_empty())
    }
}

/// Reads a number as scenarios write it, also in hexadecimal.
///
/// # Errors
/// It is none.
pub fn number(word: &str) -> Result<u64, String> {
    crate::scenario::line::Value::parse(word)
}

/// Runs each seed once, on so many threads. `add` is given what came of it, in any order; when it says false, no other seed is begun.
///
/// # Panics
/// A run panicked.
pub fn each<O>(seeds: Range<u64>, jobs: usize, run: impl Fn(u64) -> O + Sync, add: impl FnMut(u64, O) -> bool + Send) {
    let (next, stop, add) = (AtomicU64::new(seeds.start), AtomicBool::new(false), Mutex::new(add));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = run(seed);
            if !add.lock().expect("a run panicked")(seed, outcome) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
}

/// What was swept without a failure: a line each, whose second word is the first seed that was not.
#[derive(Debug, Default)]
pub struct Ledger {
    path: Option<PathBuf>,
    text: Option<String>,
}

impl Ledger {
    /// A file that is not there yet is an empty one.
    #[must_use]
    pub fn open(path: Option<&Path>) -> Self {
        let text = path.and_then(|p| std::fs::read_to_string(p).ok());
        Self { path: path.map(Path::to_owned), text }
    }

    /// Where to go on.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        let lines = self.text.iter().flat_map(|l| l.lines());
        lines.filter_map(|l| l.split_whitespace().nth(1)?.parse().ok()).max()
    }

    /// Adds a line; a new file begins with `head`.
    pub fn add(self, head: &str, line: &str) {
        let Some(path) = self.path else { return };
        let text = self.text.unwrap_or_else(|| format!("{head}\n"));
        if let Err(e) = std::fs::write(&path, format!("{text}{line}\n")) {
            eprintln!("{}: {e}", path.display());
        }
    }
}

/// Keeps the plan of a failure, with the reason as its last line.
#[must_use]
pub fn keep(name: &str, plan: &str, why: &str) -> PathBuf {
    let path = kept().join(format!("{name}.scn"));
    let text = format!("{plan}# {}\n", why.replace('\n', " "));
    if let Err(e) = std::fs::create_dir_all(kept()).and_then(|()| std::fs::write(&path, text)) {
        eprintln!("cannot keep the scenario: {e}");
    }
    path
}

/// Reads a plan.
///
/// # Errors
/// It cannot be read, or is none; with the path.
pub fn load<P>(path: &Path, parse: impl Fn(&str) -> Result<P, String>) -> Result<P, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// What another process prints.
///
/// # Errors
/// It cannot be started, or fails.
pub fn printed(binary: &Path, args: &[String]) -> Result<String, String> {
    let out = Command::new(binary).args(args).output().map_err(|e| format!("{}: {e}", binary.display()))?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(format!("{} ended with {}: {said}", binary.display(), out.status))
}

/// What this program prints in another process, given a line of arguments.
///
/// # Errors
/// It fails.
pub fn again(line: &str) -> Result<String, String> {
    let me = std::env::current_exe().map_err(|e| format!("where am I: {e}"))?;
    printed(&me, &line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

/// Says an error; false.
#[must_use]
pub fn said(error: &str) -> bool {
    eprintln!("{error}");
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_runs_once_until_one_says_stop() {
        let mut sum = 0;
        each(
            3..10,
            2,
            |seed| seed * 2,
            |seed, twice| {
                sum += twice - seed;
                true
            },
        );
        assert_eq!(sum, (3..10).sum::<u64>());
        let mut seen = Vec::new();
        each(
            0..10,
            1,
            |seed| seed,
            |seed, _| {
                seen.push(seed);
                seed < 4
            },
        );
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_ledger_says_where_to_go_on() {
        let path = std::env::temp_dir().join(format!("wukong-ledger-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        assert_eq!(Ledger::open(None).end(), None);
        assert_eq!(Ledger::open(Some(&path)).end(), None);
        Ledger::open(Some(&path)).add("# from to", "0 20");
        Ledger::open(Some(&path)).add("# from to", "20 35");
        assert_eq!(Ledger::open(Some(&path)).end(), Some(35));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "# from to\n0 20\n20 35\n");
        std::fs::remove_file(&path).unwrap();
    }
}
