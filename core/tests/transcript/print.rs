//! One line for each thing that is printed.

use super::names::{at, members, name, names};
use super::world::Node;
use wukong_core::raft::Log;
use wukong_core::raft::core::{GroupCore, Op, Outcome, Report, Role};
use wukong_core::raft::message::{Body, Envelope, Item, Message};

pub fn envelope(m: &Envelope) -> String {
    format!("{}>{} {} e{}{}", name(m.from), name(m.to), m.message.name(), m.epoch.0, fields(&m.message))
}

fn fields(m: &Message) -> String {
    let or_none = |r: &Option<_>| r.map_or("-".to_owned(), name);
    match m {
        Message::PreVoteReq { next_epoch, pos } => format!(" next={} pos={}", next_epoch.0, at(*pos)),
        Message::PreVoteResp { next_epoch, granted, leader } => {
            format!(" next={} {} leader={}", next_epoch.0, yes(*granted), or_none(leader))
        }
        Message::VoteReq { pos, transfer } => {
            format!(" pos={}{}", at(*pos), transfer.map_or(String::new(), |t| format!(" transfer-from=e{}", t.epoch.0)))
        }
        Message::VoteResp { granted } => format!(" {}", yes(*granted)),
        Message::Begin { mark_at, hw, .. } => format!(" mark@{mark_at} hw={hw}"),
        Message::Beat { seq, hw } => format!(" {seq} hw={hw}"),
        Message::Fetch(f) => {
            let flags = [(f.answer_now, " now"), (f.damaged, " damaged")];
            let flags: String = flags.iter().filter(|(on, _)| *on).map(|(_, text)| *text).collect();
            format!(" {} pos={} dur={} hw={} beat={}{flags}", f.seq, at(f.pos), at(f.durable), f.hw, f.beat)
        }
        Message::Items { prev, items: list, hw, leader_last, .. } => {
            format!(" prev={} [{}] hw={hw} last={leader_last}", at(*prev), items(list))
        }
        Message::Diverged { req_pos, keep } => format!(" at={} keep={}", at(*req_pos), at(*keep)),
        Message::NeedBase { snapshot } => format!(" snapshot={} size={}", at(snapshot.base), snapshot.size),
        Message::SnapshotFetch { offset, .. } => format!(" offset={offset}"),
        Message::SnapshotChunk { offset, bytes, last, .. } => {
            format!(" offset={offset} len={}{}", bytes.len(), if *last { " last" } else { "" })
        }
        Message::Refuse { kind, leader } => format!(" {kind:?} leader={}", or_none(leader)),
        Message::EndEpoch { successors } => format!(" next={}", names(successors)),
        Message::TransferNow { token } => format!(" token=e{}", token.epoch.0),
        Message::ReadReq { .. } | Message::Fence | Message::Wake => String::new(),
        Message::ReadResp { index, .. } => index.map_or(" refused".to_owned(), |i| format!(" at={i}")),
        Message::FenceResp { durable, hw, damaged } => {
            format!(" dur={} hw={hw}{}", at(*durable), if *damaged { " damaged" } else { "" })
        }
        Message::Settle { pos, hw } => format!(" pos={} hw={hw}", at(*pos)),
        Message::SettleAck { pos } => format!(" pos={}", at(*pos)),
    }
}

const fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// `mark2@3 2.4=x 2.5=y`; long runs are cut short.
pub fn items(list: &[Item]) -> String {
    let mut words: Vec<String> = list.iter().map(item).collect();
    if words.len() > 6 {
        let left = words.len() - 5;
        words.splice(4..words.len() - 1, [format!("..{left}..")]);
    }
    words.join(" ")
}

fn item(i: &Item) -> String {
    match i {
        Item::Mark { epoch, at } => format!("mark{}@{at}", epoch.0),
        Item::Entry(e) => format!("{}.{}={}", e.epoch.0, e.index, body(&e.body)),
    }
}

pub fn body(b: &Body) -> String {
    match b {
        Body::Data(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Body::Config(c) => format!("{{{}}}", members(c)),
    }
}

pub fn role(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}

pub fn outcome(o: &Outcome) -> String {
    match o {
        Outcome::Committed { first, last, epoch } if first == last => format!("committed {first} e{}", epoch.0),
        Outcome::Committed { first, last, epoch } => format!("committed {first}..{last} e{}", epoch.0),
        Outcome::Unknown => "unknown".to_owned(),
        Outcome::Refused { kind, leader } => {
            format!("refused {kind:?}{}", leader.map_or(String::new(), |r| format!(" leader={}", name(r))))
        }
    }
}

pub fn report(r: &Report) -> String {
    match r {
        Report::CaughtUp { epoch, learner } => format!("caught-up e{} {}", epoch.0, name(*learner)),
        Report::Ready { epoch } => format!("ready e{}", epoch.0),
        Report::JointStable { epoch, config_version } => format!("joint-stable e{} version={config_version}", epoch.0),
        Report::HandoverReady { epoch, end, target } => {
            format!("handover-ready e{} end={} target={}", epoch.0, at(*end), name(*target))
        }
        Report::NeedElect { epoch } => format!("need-elect e{}", epoch.0),
    }
}

/// Writes that change what was written before.
pub fn op(op: &Op) -> Option<String> {
    match op {
        Op::Hard { .. } | Op::Append(_) | Op::Hint { .. } => None,
        Op::Truncate(keep) => Some(format!("cuts its log to {}", at(*keep))),
        Op::Rebase { snapshot, keep_log } => {
            Some(format!("bases its log on {}{}", at(snapshot.base), if *keep_log { ", keeping it" } else { "" }))
        }
        Op::Compact { base, .. } => Some(format!("drops its log up to {}", at(*base))),
    }
}

/// `(1.3) 1x2 2x0 5x4`: base, and how many entries each epoch has.
pub fn runs(log: &Log) -> String {
    let mut words = Vec::new();
    if log.base.index > 0 {
        words.push(format!("({})", at(log.base)));
    }
    let marks = log.marks();
    let first = marks.first().map_or(log.end().index, |(_, at)| *at);
    if first > log.base.index {
        words.push(format!("{}x{}", log.base.epoch.0, first - log.base.index));
    }
    for (i, (epoch, at)) in marks.iter().enumerate() {
        let next = marks.get(i + 1).map_or(log.end().index, |(_, at)| *at);
        words.push(format!("{}x{}", epoch.0, next - at));
    }
    if words.is_empty() { "-".to_owned() } else { words.join(" ") }
}

pub fn state(node: &Node) -> String {
    let who = name(node.me);
    let Some(core) = &node.core else {
        let d = &node.disk;
        return format!("{who} down e{} vote={} log={}", d.epoch.0, d.voted_for.map_or("-".into(), name), runs(&d.log));
    };
    let mut line = format!(
        "{who} {} e{} vote={} leader={} hw={} dur={} log={} members={}",
        role(core.role()),
        core.epoch().0,
        core.voted_for().map_or("-".into(), name),
        core.leader().map_or("-".into(), name),
        core.hw(),
        at(core.durable()),
        runs(core.log()),
        members(core.members()),
    );
    let flags = [
        (core.is_leader() && !core.epoch_committed(), "mark-open".to_owned()),
        (core.is_settled(), "settled".to_owned()),
        (core.is_stopped(), "stopped".to_owned()),
        (node.paused, "paused".to_owned()),
        (!node.writes.is_empty(), format!("writes={}", node.writes.len())),
        (core.held() > 0, format!("held={}", core.held())),
        (core.open_requests() > 0, format!("open={}", core.open_requests())),
    ];
    for (_, flag) in flags.iter().filter(|(on, _)| *on) {
        line += &format!(" {flag}");
    }

    line
}

pub fn log(core: &GroupCore, node: &Node) -> String {
    let mut words = Vec::new();
    let base = core.log().base;
    if base.index > 0 {
        words.push(format!("({})", at(base)));
    }
    let mut marks = core.log().marks().iter().peekable();
    for (index, entry) in &node.memory.entries {
        while let Some((epoch, at)) = marks.next_if(|(_, at)| at < index) {
            words.push(format!("mark{}@{at}", epoch.0));
        }
        words.push(format!("{}.{index}={}", entry.epoch.0, body(&entry.body)));
    }
    for (epoch, at) in marks {
        words.push(format!("mark{}@{at}", epoch.0));
    }
    format!("{} {}", name(node.me), words.join(" "))
}
