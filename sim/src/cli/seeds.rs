//! What all commands over many seeds share: options, threads, a ledger of what was swept, kept plans, and runs in another process.

use super::kept;
use clap::Args;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a sweep goes over its seeds.
#[derive(Args, Clone, Copy, Debug)]
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

/// What this program prints in another process; the error too, as text.
#[must_use]
pub fn again(args: &[String]) -> Result<String, String> {
    let me = std::env::current_exe().map_err(|e| format!("where am I: {e}"))?;
    printed(&me, args)
}

/// Says an error; false.
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
