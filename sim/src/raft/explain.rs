//! Why a check failed: the facts that led there, walked backwards (`record.rs` keeps them).

use super::cluster::{Cluster, Mode};
use super::plan::Plan;
use super::record::{Deed, Fact, FactId, Recorder, Why};
use super::text::{kind_text, touches};
use super::{GroupNo, MS, NodeNo, SLOT};
use crate::history::Violation;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write;

/// Which moment is to be explained.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// The first failure, or the first of this check.
    Failure(Option<&'a str>),
    /// The last decisive fact of a replica up to a time in ms.
    Replica { node: NodeNo, group: GroupNo, until: u64 },
}

/// A link of the chain: a fact, and how it brought about a later one.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub fact: FactId,
    pub why: Why,
    /// The later one; itself at the end of the chain.
    pub of: FactId,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Chain {
    pub plan: Plan,
    pub violation: Option<Violation>,
    pub facts: Vec<Fact>,
    /// In the order of the run.
    pub links: Vec<Link>,
}

/// Runs a plan again with recording on, and walks back from the moment.
///
/// # Errors
/// Nothing failed, or nothing happened there.
pub fn explain(plan: &Plan, mode: Mode, moment: Moment, lines: usize) -> Result<Chain, String> {
    let mut world = Cluster::new(plan.clone(), Mode { record: true, ..mode });
    let until = if let Moment::Replica { until, .. } = moment { until } else { u64::MAX };
    world.run_to(plan.lasts.min(until) * MS);
    if world.violations.is_empty() && until > plan.lasts {
        world.come_together();
    }
    let recorder = world.recorder.take().ok_or("not recorded")?;
    let (roots, violation) = match moment {
        Moment::Failure(check) => {
            let found = world.violations.iter().position(|v| check.is_none_or(|c| c == v.invariant));
            let at = found.ok_or_else(|| match (world.violations.first(), check) {
                (Some(v), Some(c)) => format!("{c} does not fail here; {} does: {}", v.invariant, v.what),
                _ => "nothing fails here".to_owned(),
            })?;
            (recorder.failures[at].clone(), Some(world.violations[at].clone()))
        }
        Moment::Replica { node, group, .. } => {
            let last = recorder.deed(Deed::Replica(node, group)).ok_or("nothing happened to that replica")?;
            (vec![(last, Why::Failed)], None)
        }
    };
    let links = walk(&recorder, &roots, lines);
    Ok(Chain { plan: plan.clone(), violation, facts: recorder.facts, links })
}

/// How far a fact is, the youngest of equals first; what it is a cause of, and how.
type Near = Reverse<(u64, Reverse<FactId>, FactId, Why)>;

/// The nearest causes of `roots`, at most `lines`. Near is what sent, wrote, voted or acknowledged; far is what changed nothing,
/// and what belongs to other groups.
fn walk(recorder: &Recorder, roots: &[(FactId, Why)], lines: usize) -> Vec<Link> {
    let fact = |id: FactId| &recorder.facts[id as usize];
    let groups: BTreeSet<GroupNo> = roots.iter().filter_map(|(id, _)| fact(*id).group).collect();
    let mut found: BTreeMap<FactId, Link> = BTreeMap::new();
    let mut near: BinaryHeap<Near> = roots.iter().map(|(id, why)| Reverse((0, Reverse(*id), *id, *why))).collect();
    while let Some(Reverse((cost, Reverse(id), of, why))) = near.pop() {
        if found.len() >= lines {
            break;
        }
        if found.contains_key(&id) {
            continue;
        }
        found.insert(id, Link { fact: id, why, of });
        for (cause, why) in &fact(id).causes {
            let f = fact(*cause);
            let step = match why {
                Why::Sent | Why::Wrote | Why::Asked | Why::Led => 1,
                Why::Voted(_) | Why::Acknowledged(_) | Why::Office => 2,
                Why::Disk | Why::Log | Why::Promise | Why::Commit | Why::Armed => 3,
                Why::Contradicts(_) | Why::Failed => 0,
            };
            let dull = if f.decisive { 0 } else { 2 };
            let foreign = if f.group.is_none_or(|g| groups.contains(&g)) { 0 } else { 4 };
            near.push(Reverse((cost + step + dull + foreign, Reverse(*cause), id, *why)));
        }
    }
    found.into_values().collect()
}

fn because(link: &Link) -> String {
    let of = link.of;
    match link.why {
        Why::Sent => format!("sent what #{of} received"),
        Why::Wrote => format!("began the write of #{of}"),
        Why::Armed => format!("set the timer of #{of}"),
        Why::Asked => format!("asked for #{of}"),
        Why::Led => format!("led to #{of}"),
        Why::Office => format!("gave the office in #{of}"),
        Why::Acknowledged(n) => format!("n{n}'s word, counted in #{of}"),
        Why::Voted(n) => format!("n{n}'s vote, counted in #{of}"),
        Why::Disk => format!("what the disk held in #{of}"),
        Why::Log => format!("the log that #{of} found"),
        Why::Promise => format!("the promise that #{of} found"),
        Why::Commit => format!("the commit index of #{of}"),
        Why::Contradicts(what) => what.to_owned(),
        Why::Failed => "HERE".to_owned(),
    }
}

fn cut(text: &str, width: usize) -> String {
    let mut short: String = text.chars().take(width).collect();
    if short.len() < text.len() {
        short.pop();
        short.push('~');
    }
    short
}

impl Chain {
    /// The facts of the chain.
    pub fn facts(&self) -> impl Iterator<Item = &Fact> + '_ {
        self.links.iter().map(|l| &self.facts[l.fact as usize])
    }

    /// Episodes that were in force while the chain came about, and touch one of its nodes.
    fn episodes(&self) -> Vec<(u64, String)> {
        let nodes: BTreeSet<NodeNo> = self.facts().filter_map(|f| f.node).collect();
        let (Some(first), Some(last)) = (self.facts().map(|f| f.at).min(), self.facts().map(|f| f.at).max()) else {
            return Vec::new();
        };
        let branches = self.plan.branches.iter().flat_map(|b| &b.episodes);
        let all = self.plan.episodes.iter().chain(branches);
        let during = all.filter(|e| e.at * MS <= last && (e.at + e.lasts.max(1)) * MS >= first);
        let ours = during.filter(|e| touches(e.kind).is_none_or(|n| n.iter().any(|n| nodes.contains(n))));
        ours.map(|e| (e.at * MS, format!("{}, for {} ms", kind_text(e.kind), e.lasts))).collect()
    }

    /// A table: time, node, what happened, what it did, and why it is here.
    #[must_use]
    pub fn table(&self) -> String {
        let mut out = String::new();
        let mut line = |text: std::fmt::Arguments| writeln!(out, "{}", text.to_string().trim_end()).expect("a string");
        if let Some(v) = &self.violation {
            line(format_args!("{} at {:.3} s: {}", v.invariant, v.at as f64 / 1e9, v.what));
        }
        line(format_args!("{:>10}  {:<5} {:>7} {:<52} {:<44} why it is here", "ms", "where", "", "what", "did"));
        let mut episodes = self.episodes().into_iter().peekable();
        let told = |at: u64, what: &str| format!("{:>10.3}  {:<5} {:>7} {what}", at as f64 / MS as f64, "", "fault");
        for link in &self.links {
            let f = &self.facts[link.fact as usize];
            while let Some((at, what)) = episodes.next_if(|(at, _)| *at <= f.at) {
                line(format_args!("{}", told(at, &what)));
            }
            let place = match (f.node, f.group) {
                (Some(n), Some(SLOT)) => format!("n{n} s"),
                (Some(n), Some(g)) => format!("n{n} g{g}"),
                (Some(n), None) => format!("n{n}"),
                _ => "world".to_owned(),
            };
            let (what, did, why) = (cut(&f.what, 52), cut(&f.did, 44), because(link));
            let at = f.at as f64 / MS as f64;
            line(format_args!("{at:>10.3}  {place:<5} {:>7} {what:<52} {did:<44} {why}", format!("#{}", link.fact)));
        }
        for (at, what) in episodes {
            line(format_args!("{}", told(at, &what)));
        }
        out
    }
}
