//! Our replica beside an independent one, the `raft` crate, under the same scripts: who leads, every node's log, what it knows
//! to be committed, and what became of each proposal are the same after each round.
//!
//!     cargo test -p wukong-core --test compare                                        a thousand accepted scripts
//!     COMPARE_SCRIPTS=10000 cargo test -p wukong-core --test compare -- --nocapture
//!     COMPARE_SEED=17 cargo test -p wukong-core --test compare -- --nocapture         one of them, in full
//!     cargo test -p wukong-core --features mutants --test compare planted             the comparison itself
//!
//! Votes never race: at most one node campaigns in a round, and time passes only as the script says. What may still depend on
//! when messages arrive is judged by raft-rs: a script is rejected when raft-rs contradicts itself, because it ends differently
//! if links deliver at random speed, or because it too, with some order of messages and beats, does exactly what ours did.
//! Scripts in which it never has a leader are rejected as well. Ours is run in two orders.

#![allow(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core
)]

#[path = "compare/ours.rs"]
mod ours;
#[path = "compare/reference.rs"]
mod reference;
#[path = "compare/script.rs"]
mod script;
#[path = "compare/world.rs"]
mod world;

use ours::Ours;
use reference::Reference;
use script::{Rng, Round, Script};
use std::panic::catch_unwind;
use world::{Fate, Order, Trace, play};
use wukong_core::mutants::RaftMutant;

/// How many orders of messages raft-rs is given in which to do what ours did.
const MIXES: u64 = 2_000;

#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    /// raft-rs ends otherwise in another order of messages.
    by_order: u64,
    /// A campaign met, in raft-rs, the lease of a leader that was gone.
    by_lease: u64,
    /// A restarted node learned a commit index, in raft-rs, before a leader had confirmed its log.
    by_hearsay: u64,
    /// raft-rs does not come to rest.
    restless: u64,
    /// raft-rs never has a leader.
    leaderless: u64,
    /// Some replica cut proposed entries from its log, in both systems.
    with_truncation: u64,
    rounds: usize,
    proposals: usize,
    committed: usize,
    leader_changes: usize,
    two_leaders: usize,
}

impl Tally {
    const fn rejected(&self) -> u64 {
        self.by_order + self.by_lease + self.by_hearsay + self.restless + self.leaderless
    }

    fn count(&mut self, script: &Script, reference: &Trace, ours_truncated: bool) {
        self.accepted += 1;
        self.rounds += script.rounds.len();
        self.with_truncation += u64::from(ours_truncated && reference.truncated > 0);
        let fates = &reference.rounds.last().expect("some rounds").fates;
        self.proposals += fates.len();
        self.committed += fates.iter().filter(|f| **f == Fate::Committed).count();
        let leaders =
            reference.rounds.iter().map(|r| (0..script.nodes).filter(|n| r.nodes[*n].leads).collect::<Vec<_>>());
        let leaders: Vec<Vec<usize>> = leaders.collect();
        self.two_leaders += leaders.iter().filter(|l| l.len() > 1).count();
        let lone: Vec<usize> = leaders.iter().filter(|l| l.len() == 1).map(|l| l[0]).collect();
        self.leader_changes += lone.windows(2).filter(|pair| pair[0] != pair[1]).count();
    }
}

/// As the messages were sent, mixed, and then in so many looser ways.
fn order(seed: u64, mix: u64) -> Order {
    let rng = Rng((seed + 1).wrapping_mul(mix));
    match mix {
        0 => Order::AsSent,
        1 => Order::Mixed(rng),
        _ => Order::Loose(rng),
    }
}

/// Compares one script; a difference is the error.
fn compare(seed: u64, mutant: Option<RaftMutant>, mixes: u64, tally: &mut Tally) -> Result<(), String> {
    let script = Script::new(seed);
    let reference = |mix| play(Reference::new(script.nodes), &script, order(seed, mix));
    let (Ok(first), Ok(second)) = (reference(0), reference(1)) else {
        tally.restless += 1;
        return Ok(());
    };
    let rejected = if first.rounds.iter().all(|r| r.nodes.iter().all(|n| !n.leads)) {
        Some(&mut tally.leaderless)
    } else if first.vain_loyalty || second.vain_loyalty {
        Some(&mut tally.by_lease)
    } else if first.hearsay || second.hearsay {
        Some(&mut tally.by_hearsay)
    } else {
        (first.rounds != second.rounds).then_some(&mut tally.by_order)
    };
    if let Some(count) = rejected {
        *count += 1;
        return Ok(());
    }
    let mut truncated = true;
    for mix in 0..2 {
        let ours = catch_unwind(|| play(Ours::new(script.nodes, mutant), &script, order(seed, mix)));
        let Ok(Ok(ours)) = ours else {
            return Err(format!("seed {seed}, mix {mix}: ours fails, or never rests, in\n{}", told(&script.rounds)));
        };
        if let Some(at) = (0..script.rounds.len()).find(|i| ours.rounds[*i] != first.rounds[*i]) {
            let same = |t: &Trace| t.rounds[..=at] == ours.rounds[..=at];
            if (2..mixes).any(|mix| reference(mix).is_ok_and(|t| same(&t))) {
                tally.by_order += 1;
                return Ok(());
            }
            return Err(format!("seed {seed}, mix {mix}: different after\n{}", account(&script, &ours, &first, at)));
        }
        truncated &= ours.truncated > 0;
    }
    tally.count(&script, &first, truncated);
    Ok(())
}

fn told(rounds: &[Round]) -> String {
    rounds.iter().map(|r| format!("{r:?}\n")).collect()
}

/// The rounds up to `at`, and what each system made of the last of them.
fn account(script: &Script, ours: &Trace, reference: &Trace, at: usize) -> String {
    let mut account = told(&script.rounds[..=at]);
    let (mine, theirs) = (&ours.rounds[at], &reference.rounds[at]);
    for n in 0..script.nodes {
        account += &format!("node {n} ours    {:?}\n       raft-rs {:?}\n", mine.nodes[n], theirs.nodes[n]);
    }
    let fates = mine.fates.iter().zip(&theirs.fates).enumerate().filter(|(_, (a, b))| a != b);
    account + &format!("fates: {:?}", fates.collect::<Vec<_>>())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|n| n.parse().expect("a number"))
}

#[test]
fn the_raft_crate_does_the_same() {
    let one = number("COMPARE_SEED");
    let wanted = number("COMPARE_SCRIPTS").unwrap_or(1_000);
    let (mut tally, mut found) = (Tally::default(), Vec::new());
    for seed in one.map_or(0..2 * wanted, |seed| seed..seed + 1) {
        if one.is_some() {
            println!("{}", told(&Script::new(seed).rounds));
        }
        if let Err(difference) = compare(seed, None, MIXES, &mut tally) {
            found.push(difference);
        }
        if tally.accepted == wanted || found.len() == 10 {
            break;
        }
    }
    println!("{tally:#?}");
    assert!(found.is_empty(), "{} scripts differ\n{}", found.len(), found.join("\n\n"));
    if one.is_none() {
        assert!(tally.accepted == wanted && tally.rejected() * 4 <= wanted, "too many scripts were rejected");
        assert!(tally.with_truncation * 10 >= wanted, "too few scripts cut a log");
    }
}

/// The comparison is worth something: each of these is noticed. Missing are bugs that only show while messages or writes are
/// under way, and those that pre-vote hides from a lone campaigner.
#[cfg(feature = "mutants")]
#[test]
fn planted_bugs_are_noticed() {
    use RaftMutant::*;
    let planted = [
        AckBeforeCheck,
        CommitByCount,
        ElectionByIndex,
        EpochStale,
        HwUnvalidated,
        LostEpoch,
        NoCheckQuorum,
        PreVoteRefusalIgnored,
        SameEpochRestart,
        SingleRoundRepair,
        WaiterByIndex,
    ];
    let missed = |mutant: &RaftMutant| {
        let first = (0..3_000).find(|seed| compare(*seed, Some(*mutant), 50, &mut Tally::default()).is_err());
        println!("{mutant:?}: {first:?}");
        first.is_none()
    };
    let missed: Vec<RaftMutant> = planted.into_iter().filter(missed).collect();
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
