//! Scripts of replicated groups and what they print, reviewed as text (`core/tests/transcripts/`).
//!
//! A file is a row of blocks: commands, `----`, what they print, an empty line. `UPDATE=1` writes what is printed into the files;
//! `TRANSCRIPT=s20` runs only those whose name contains it. What a scenario must show stands in `expect` commands, and invariants
//! are checked after every step: neither can be updated away.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod transcript;

use std::path::PathBuf;
use transcript::chaos::{Dice, elected};
use transcript::command;
use transcript::file::{Mismatch, Transcript};
use transcript::slot::assigned;
use transcript::world::World;

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|s| s.to_string_lossy().into_owned())
}

fn files() -> Vec<PathBuf> {
    let only = variable("TRANSCRIPT").unwrap_or_default();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|p| p.file_name().unwrap().to_string_lossy().contains(&only));
    paths.sort();
    assert!(!paths.is_empty(), "no transcript is called {only}");
    paths
}

#[test]
fn transcripts() {
    let update = variable("UPDATE").is_some();
    let mut failures = String::new();
    for path in files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut transcript = Transcript::parse(&std::fs::read_to_string(&path).unwrap());
        let found = transcript.run(&mut World::default(), update);
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
    let given = variable("CHAOS").unwrap_or_else(|| "0..150".to_owned());
    let (first, last) = match given.split_once("..") {
        Some((a, b)) => (a.parse().unwrap(), b.parse().unwrap()),
        None => (given.parse().unwrap(), given.parse::<u64>().unwrap() + 1),
    };
    let run = |seed: u64| elected(seed, None).and_then(|()| assigned(seed, None));
    let failure = (first..last).find_map(|seed| run(seed).err());
    assert!(failure.is_none(), "{}", failure.unwrap_or_default());
}

/// S98: one by one, in one batch, in random batches: the same content at the same places of every replica.
#[test]
fn batches_make_no_difference() {
    let words: Vec<String> = (0..60).map(|i| format!("m{i}")).collect();
    let mut dice = Dice(1);
    let mut contents = Vec::new();
    for most in [1, 60, 7] {
        let mut world = World::default();
        for line in ["cluster voters=A,B,C fetch=300 tail=500", "timeout A", "stabilize"] {
            command::run(&mut world, line);
        }
        let mut rest = &words[..];
        while !rest.is_empty() {
            let count = if most == 7 { 1 + dice.below(7).min(rest.len() - 1) } else { most };
            command::run(&mut world, &format!("propose A {}", rest[..count].join(" ")));
            rest = &rest[count..];
        }
        for line in ["time 1s", "expect hw 60", "expect equal"] {
            command::run(&mut world, line);
        }
        assert!(world.check.violations.is_empty(), "{:?}", world.check.violations);
        contents.extend(world.nodes.iter().map(|n| n.memory.entries.clone()));
    }
    assert!(contents.iter().all(|c| *c == contents[0]));
}

/// S76, S81, S84 with two hundred groups: while nobody writes nothing is sent and nobody waits; when their leader's node dies each
/// is writable after one fence and one word to the new leader.
#[test]
fn many_quiet_groups_cost_nothing() {
    let mut groups: Vec<World> = (0..200).map(|_| World::default()).collect();
    for (seed, world) in groups.iter_mut().enumerate() {
        let first = format!("cluster mode=assigned voters=A,B,C seed={seed}");
        let rest =
            ["assign A,B,C epoch=1 leader=A voters=A,B,C", "stabilize", "propose A x", "time 15s", "expect settled"];
        for line in std::iter::once(first.as_str()).chain(rest) {
            command::run(world, line);
        }
        world.out.clear();
        for line in ["expect idle", "time 3600s msgs", "expect settled"] {
            command::run(world, line);
        }
        assert!(world.out.is_empty(), "{:?}", world.out);
        for line in
            ["crash A", "fence B,C epoch=2", "assign B epoch=2 leader=B voters=A,B,C", "propose B y", "time 5ms"]
        {
            command::run(world, line);
        }
        for line in ["expect committed y", "expect leader B", "time 60s", "expect settled B,C", "expect idle B,C"] {
            command::run(world, line);
        }
        assert!(world.check.violations.is_empty(), "{:?}", world.check.violations);
    }
}

/// A bug that none of these tests notices is a gap in them.
#[cfg(feature = "mutants")]
#[test]
fn planted_bugs_are_noticed() {
    use wukong_core::mutants::RaftMutant as M;
    // Not here: bugs of the slot leader and of the owner (fences, generations, the end of joint, entries read per batch).
    let planted = [
        M::VoteBeforeHard,
        M::VoteForgotten,
        M::CommitByCount,
        M::AckBeforeCheck,
        M::LearnerCounted,
        M::HwUnvalidated,
        M::SingleRoundRepair,
        M::EpochStale,
        M::LostEpoch,
        M::HandoverKeepsWriting,
        M::OneStepSwap,
        M::EagerPromote,
        M::WaiterByIndex,
        M::ReadUnconfirmed,
        M::SameEpochRestart,
        M::DurableIsEnd,
        M::LateCompletion,
        M::ElectionByIndex,
        M::PromiseVolatile,
        M::ConfigBeforeEpochCommitted,
        M::LeaseAfterTransfer,
        M::LeaseFromArrival,
        M::NoBootStickiness,
        M::NoCheckQuorum,
        M::CandidateIgnoresWinner,
        M::TransferStuck,
        M::CreditLeak,
        M::RemovedNotServed,
        M::SnapshotBelowHw,
        M::SettleEarly,
        M::WakeStorm,
        M::SyncErrorIgnored,
        M::PreVoteRefusalIgnored,
    ];
    let files: Vec<String> = files().iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let scripted = |m| {
        let broken = |text: &String| !Transcript::parse(text).run(&mut World::planted(Some(m)), true).is_empty();
        files.iter().any(|text| noticed(|| broken(text)))
    };
    let random = |m| {
        (0..400).any(|seed| noticed(|| elected(seed, Some(m)).is_err()) || noticed(|| assigned(seed, Some(m)).is_err()))
    };
    let survivors: Vec<M> = planted.into_iter().filter(|m| !scripted(*m) && !random(*m)).collect();
    assert!(survivors.is_empty(), "{survivors:?}");
}

/// A panic of the core is noticed as well.
#[cfg(feature = "mutants")]
fn noticed(run: impl FnOnce() -> bool) -> bool {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(true)
}
