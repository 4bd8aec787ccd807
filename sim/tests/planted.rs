//! Planted bugs of replication: what explains one, what finds one from a cloned state, and what small worlds show.
#![cfg(feature = "mutants")]

use std::path::Path;
use wukong_core::mutants::RaftMutant;
use wukong_sim::cli::raft::load;
use wukong_sim::raft::cluster::Mode;
use wukong_sim::raft::explain::{Chain, Moment, explain};
use wukong_sim::raft::explore::explore;
use wukong_sim::raft::plan::Plan;
use wukong_sim::raft::run::run;
use wukong_sim::raft::small::{Bounds, search};

fn with(mutant: RaftMutant) -> Mode {
    Mode { mutant: Some(mutant), ..Mode::default() }
}

/// The kept scenario of a mutant, with the first seed that shows it.
fn kept(mutant: RaftMutant) -> Plan {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios/raft/mutants");
    let plan = load(&folder.join(format!("{mutant:?}.scn"))).unwrap();
    let mut seeds = (0..24).map(|more| Plan { seed: plan.seed + more, ..plan.clone() });
    seeds.find(|p| !run(p, with(mutant)).violations.is_empty()).expect("some seed shows it")
}

/// Whether the chain holds a fact of this node whose text contains all of these.
fn holds(chain: &Chain, node: Option<usize>, words: &[&str]) -> bool {
    let told = |w: &&str, f: &wukong_sim::raft::record::Fact| f.what.contains(*w) || f.did.contains(*w);
    chain.facts().any(|f| f.node == node && words.iter().all(|w| told(w, f)))
}

#[test]
fn planted_election_by_index_is_explained() {
    let plan = kept(RaftMutant::ElectionByIndex);
    let chain = explain(&plan, with(RaftMutant::ElectionByIndex), Moment::Failure(None), 40).unwrap();
    let v = chain.violation.clone().unwrap();
    assert_eq!(v.invariant, "I8");
    let leader = usize::from(v.what.as_bytes()[1] - b'0');
    assert!(chain.links.len() <= 40);
    // It became leader by a vote of one that held something newer; that had been committed; and that voter had restarted.
    assert!(holds(&chain, Some(leader), &["VoteResp: true", "Leader"]), "{}", chain.table());
    let voter = (0..3).find(|n| holds(&chain, Some(*n), &["is durable", "votes for"]) && *n != leader);
    let voter = voter.unwrap_or_else(|| panic!("no vote in\n{}", chain.table()));
    assert!(holds(&chain, Some(voter), &["starts again"]), "{}", chain.table());
    assert!((0..3).any(|n| holds(&chain, Some(n), &["Fetch", "commits"])), "{}", chain.table());
    assert!(chain.table().contains("blackout, for 60 ms"), "{}", chain.table());
    // Recording changes nothing.
    assert_eq!(run(&plan, with(RaftMutant::ElectionByIndex)).violations.first().map(|f| f.at), Some(v.at));
}

#[test]
fn planted_lease_is_explained() {
    let plan = kept(RaftMutant::NoBootStickiness);
    let chain = explain(&plan, with(RaftMutant::NoBootStickiness), Moment::Failure(Some("I22")), 40).unwrap();
    assert!(holds(&chain, Some(0), &["read by lease", "returns"]), "{}", chain.table());
    assert!(holds(&chain, Some(2), &["VoteResp: true", "Leader"]), "{}", chain.table());
    assert!(holds(&chain, Some(1), &["votes for n2"]), "{}", chain.table());
    let other = explain(&plan, with(RaftMutant::NoBootStickiness), Moment::Failure(Some("I14")), 40);
    assert!(other.unwrap_err().contains("I22"));
}

#[test]
fn planted_bug_is_found_in_another_future() {
    let mode = with(RaftMutant::VoteForgotten);
    // A main line that does not show it, whose state at some event has futures that do.
    let silent = (0..20).map(|seed| Plan::generate(seed, 8_000)).filter(|p| run(p, mode).violations.is_empty());
    let mut tried = silent.filter_map(|plan| explore(&plan, mode, 4_000, 20, 20_000).ok());
    let futures = tried.find(|f| !f.failures.is_empty()).expect("some future shows it");
    for failure in &futures.failures {
        // From the start, by its text.
        let again = run(&Plan::parse(&failure.plan.text()).unwrap(), mode);
        let first = again.violations.first().map(|v| (v.invariant, v.at, v.what.clone()));
        assert_eq!(first, Some((failure.violation.invariant, failure.violation.at, failure.violation.what.clone())));
    }
}

#[test]
fn planted_bugs_show_in_small_worlds() {
    let boot = Bounds { led: false, entries: 0, ..Bounds::default() };
    for (mutant, assigned, bounds, invariant) in [
        (RaftMutant::VoteBeforeHard, false, boot, "I3"),
        (RaftMutant::SameEpochRestart, false, boot, "I1"),
        (RaftMutant::CommitByCount, false, Bounds::default(), "I11"),
        (RaftMutant::HwUnvalidated, false, Bounds::default(), "I15"),
        (RaftMutant::CommitByCount, true, Bounds::default(), "I11"),
        (RaftMutant::PromiseVolatile, true, Bounds::default(), "I3"),
        (RaftMutant::FenceMinority, true, Bounds::default(), "I18"),
    ] {
        let seen = search(assigned, bounds, Some(mutant), 100_000);
        let (v, path) = seen.violation.unwrap_or_else(|| panic!("{mutant:?}: {} states", seen.states));
        assert_eq!(v.invariant, invariant, "{mutant:?}: {}", v.what);
        assert!(!path.is_empty() && path.len() as u32 <= seen.depth + 1);
    }
}
