//! Scripts of replicated groups and what they print, reviewed as text (`core/tests/transcripts/`).
//!
//! A file is a row of blocks: commands, `----`, what they print, an empty line. `UPDATE=1` writes what is printed into the files;
//! `TRANSCRIPT=s20` runs only those whose name contains it. What a scenario must show stands in `expect` commands, and invariants
//! are checked after every step: neither can be updated away.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod transcript;

use transcript::file::{Mismatch, Transcript};
use transcript::world::World;

#[test]
fn transcripts() {
    let update = std::env::var_os("UPDATE").is_some();
    let only = std::env::var_os("TRANSCRIPT").map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|p| p.file_name().unwrap().to_string_lossy().contains(&only));
    paths.sort();
    assert!(!paths.is_empty(), "no transcript is called {only}");
    let mut failures = String::new();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut transcript = Transcript::parse(&std::fs::read_to_string(&path).unwrap());
        let mut world = World::default();
        let found = transcript.run(&mut world, update);
        if update {
            std::fs::write(&path, transcript.print()).unwrap();
        }
        for Mismatch { line, text } in found {
            failures += &format!("\n{name}:{line}\n{text}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// S99: whatever is cut, crashes, stops or is delivered twice, no index changes its content, no proposal has two outcomes, no read is
/// older than it may be, and afterwards everything is equal. `CHAOS=7` runs seed 7 alone, `CHAOS=0..5000` many.
#[test]
fn random_faults_break_nothing() {
    let given = std::env::var_os("CHAOS").map_or("0..150".to_owned(), |s| s.to_string_lossy().into_owned());
    let (first, last) = match given.split_once("..") {
        Some((a, b)) => (a.parse().unwrap(), b.parse().unwrap()),
        None => (given.parse().unwrap(), given.parse::<u64>().unwrap() + 1),
    };
    let run = |seed: u64| transcript::chaos::elected(seed).and_then(|()| transcript::slot::assigned(seed));
    let failure = (first..last).find_map(|seed| run(seed).err());
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}
