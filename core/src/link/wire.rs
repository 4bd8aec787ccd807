//! Items as the protobuf messages that go into a frame.

use super::{Group, Item};
use crate::audit;
use crate::ids::{ChannelKey, Position};
use crate::raft::config::{Config, Replica};
use crate::raft::core::Report;
use crate::raft::message::{Body, Envelope, Fetch, Item as LogItem, Message, RefuseKind, Snapshot};
use crate::store::rows::Assignment;
use wukong_proto::peer::{self as p, AuditKind, ItemKind, LogItemKind, ReportKind, Said};

/// `to` is the process that the frame goes to: it need not be named.
pub(super) fn item(item: &Item, to: Replica) -> p::Item {
    let kind = match item {
        Item::Group { group, envelope } => ItemKind::Group(group_item(group, envelope, to)),
        Item::Assign { channel, assignment } => ItemKind::Assign(p::Assign {
            channel: name(channel, assignment.generation),
            assignment: self::assignment(assignment),
        }),
        Item::Handover { channel, generation, target } => {
            ItemKind::Handover(p::Handover { channel: name(channel, *generation), target: replica(*target) })
        }
        Item::Report { channel, generation, report, .. } => {
            ItemKind::Report(self::report(name(channel, *generation), report))
        }
        Item::Audit { slot, scan, said, .. } => {
            ItemKind::Audit(p::Audit { slot: u32::from(slot.0), scan: *scan, kind: Some(audit(said)) })
        }
        Item::Ping(ping) => {
            ItemKind::Ping(p::Ping { clock_ms: ping.clock_ms, load: ping.load, progress: ping.progress })
        }
    };
    p::Item { kind: Some(kind) }
}

fn group_item(group: &Group, envelope: &Envelope, to: Replica) -> p::GroupItem {
    let group = match group {
        Group::Slot(slot) => p::Group::Slot(u32::from(slot.0)),
        Group::Channel { channel, generation } => p::Group::Channel(name(channel, *generation)),
    };
    p::GroupItem {
        group: Some(group),
        to: (envelope.to != to).then(|| replica(envelope.to)),
        epoch: envelope.epoch.0,
        said: Some(said(&envelope.message)),
    }
}

fn said(message: &Message) -> Said {
    match message {
        Message::PreVoteReq { next_epoch, pos } => {
            Said::PreVoteReq(p::PreVoteReq { next_epoch: next_epoch.0, pos: position(*pos) })
        }
        Message::PreVoteResp { next_epoch, granted, leader } => Said::PreVoteResp(p::PreVoteResp {
            next_epoch: next_epoch.0,
            granted: *granted,
            leader: leader.map(replica),
        }),
        Message::VoteReq { pos, transfer } => Said::VoteReq(p::VoteReq {
            pos: position(*pos),
            transfer: transfer.map(|t| p::TransferToken { epoch: t.epoch.0, nonce: t.nonce }),
        }),
        Message::VoteResp { granted } => Said::VoteResp(p::VoteResp { granted: *granted }),
        Message::Begin { mark_at, hw, assignment } => Said::Begin(p::Begin {
            mark_at: *mark_at,
            hw: *hw,
            assignment: assignment.as_deref().map(self::assignment),
        }),
        Message::Beat { seq, hw } => Said::Beat(p::Beat { seq: *seq, hw: *hw }),
        Message::Fetch(fetch) => Said::Fetch(self::fetch(fetch)),
        Message::Items { prev, items, hw, distributed, leader_last, fetch_seq } => Said::Items(p::Items {
            prev: position(*prev),
            items: p::List(items.iter().map(log_item).collect()),
            hw: *hw,
            leader_last: *leader_last,
            fetch_seq: *fetch_seq,
            distributed: *distributed,
        }),
        Message::Diverged { req_pos, keep } => {
            Said::Diverged(p::Diverged { req_pos: position(*req_pos), keep: position(*keep) })
        }
        Message::NeedBase { snapshot } => Said::NeedBase(p::NeedBase { snapshot: self::snapshot(snapshot) }),
        Message::SnapshotFetch { id, offset } => Said::SnapshotFetch(p::SnapshotFetch { id: *id, offset: *offset }),
        Message::SnapshotChunk { id, offset, bytes, last } => {
            Said::SnapshotChunk(p::SnapshotChunk { id: *id, offset: *offset, bytes: bytes.clone(), last: *last })
        }
        Message::Refuse { kind, leader } => {
            Said::Refuse(p::Refuse { kind: refusal(*kind), leader: leader.map(replica) })
        }
        Message::EndEpoch { successors } => Said::EndEpoch(p::EndEpoch { successors: replicas(successors) }),
        Message::TransferNow { token } => {
            Said::TransferNow(p::TransferToken { epoch: token.epoch.0, nonce: token.nonce })
        }
        Message::ReadReq { ctx } => Said::ReadReq(p::ReadReq { ctx: *ctx }),
        Message::ReadResp { ctx, index } => Said::ReadResp(p::ReadResp { ctx: *ctx, index: *index }),
        Message::Fence => Said::Fence(p::Fence {}),
        Message::FenceResp { durable, hw, damaged } => {
            Said::FenceResp(p::FenceResp { durable: position(*durable), hw: *hw, damaged: *damaged, distributed: 0 })
        }
        Message::Settle { pos, hw } => Said::Settle(p::Settle { pos: position(*pos), hw: *hw, distributed: 0 }),
        Message::SettleAck { pos } => Said::SettleAck(p::SettleAck { pos: position(*pos) }),
        Message::Wake => Said::Wake(p::Empty {}),
    }
}

fn audit(said: &audit::Said) -> AuditKind {
    match said {
        audit::Said::AskSums => AuditKind::AskSums(p::Empty {}),
        audit::Said::Sums(sums) => {
            let one = |(bucket, sum): &(u16, u64)| p::AuditSum { bucket: u32::from(*bucket), sum: *sum };
            AuditKind::Sums(p::List(sums.iter().map(one).collect()))
        }
        audit::Said::AskRows { buckets, after } => AuditKind::AskRows(p::AuditAskRows {
            buckets: buckets.0.iter().flat_map(|word| word.to_be_bytes()).collect(),
            after: after.as_ref().map(|c| name(c, 0)),
        }),
        audit::Said::Rows { rows, upto } => AuditKind::Rows(p::AuditRows {
            rows: p::List(rows.iter().map(audit_row).collect()),
            upto: upto.as_ref().map(|c| name(c, 0)),
        }),
    }
}

fn audit_row(row: &audit::Row) -> p::AuditRow {
    p::AuditRow {
        channel: name(&row.channel, row.generation),
        epoch: row.epoch.0,
        end: position(row.end),
        hw: row.hw,
        state: match row.state {
            audit::State::Settled => 1,
            audit::State::Dirty => 2,
            audit::State::Awake => 3,
        },
    }
}

fn fetch(f: &Fetch) -> p::Fetch {
    p::Fetch {
        seq: f.seq,
        pos: position(f.pos),
        durable: position(f.durable),
        hw: f.hw,
        beat: f.beat,
        answer_now: f.answer_now,
        damaged: f.damaged,
    }
}

fn log_item(item: &LogItem) -> p::LogItem {
    let kind = match item {
        LogItem::Mark { epoch, at } => LogItemKind::Mark(p::Mark { epoch: epoch.0, at: *at }),
        LogItem::Entry(e) => match &e.body {
            Body::Data(body) => {
                LogItemKind::Data(p::DataEntry { index: e.index, epoch: e.epoch.0, body: body.clone() })
            }
            Body::Config(c) => {
                LogItemKind::Config(p::ConfigEntry { index: e.index, epoch: e.epoch.0, config: config(c) })
            }
        },
    };
    p::LogItem { kind: Some(kind) }
}

const fn refusal(kind: RefuseKind) -> u32 {
    match kind {
        RefuseKind::NotLeader => 1,
        RefuseKind::Fenced => 2,
        RefuseKind::Busy => 3,
        RefuseKind::Removed => 4,
        RefuseKind::Version => 5,
    }
}

fn report(channel: p::ChannelName, report: &Report) -> p::Report {
    let (epoch, kind) = match report {
        Report::Ready { epoch } => (epoch, ReportKind::Ready(p::Empty {})),
        Report::JointStable { epoch, config_version } => (epoch, ReportKind::JointStable(*config_version)),
        Report::CaughtUp { epoch, learner } => (epoch, ReportKind::CaughtUp(replica(*learner))),
        Report::HandoverReady { epoch, end, target } => {
            (epoch, ReportKind::HandoverReady(p::HandoverReady { end: position(*end), target: replica(*target) }))
        }
        Report::NeedElect { epoch } => (epoch, ReportKind::NeedElect(p::Empty {})),
    };
    p::Report { channel, epoch: epoch.0, kind: Some(kind) }
}

fn name(channel: &ChannelKey, generation: u64) -> p::ChannelName {
    p::ChannelName { id: channel.id.clone().into_bytes(), kind: u32::from(channel.kind), generation }
}

const fn position(pos: Position) -> p::Position {
    p::Position { epoch: pos.epoch.0, index: pos.index }
}

fn replica(r: Replica) -> p::Replica {
    p::Replica { node: u32::from(r.node.0), store_high: (r.store.0 >> 64) as u64, store_low: r.store.0 as u64 }
}

fn replicas(list: &[Replica]) -> p::Replicas {
    p::List(list.iter().copied().map(replica).collect())
}

fn config(c: &Config) -> p::Config {
    p::Config {
        version: c.version,
        voters: replicas(&c.voters),
        voters_out: replicas(&c.voters_out),
        learners: replicas(&c.learners),
    }
}

fn snapshot(s: &Snapshot) -> p::Snapshot {
    p::Snapshot {
        id: s.id,
        base: position(s.base),
        config: config(&s.config),
        config_index: s.config_index,
        size: s.size,
    }
}

fn assignment(a: &Assignment) -> p::Assignment {
    p::Assignment {
        generation: a.generation,
        epoch: a.epoch.0,
        config_version: a.config_version,
        leader: a.leader.map(|(r, _)| replica(r)),
        leader_incarnation: a.leader.map_or(0, |(_, incarnation)| incarnation.0),
        voters: replicas(&a.voters),
        voters_out: replicas(&a.voters_out),
        learners: replicas(&a.learners),
        retention_floor: a.retention_floor,
        deleted: a.deleted,
        last_seq: a.last_seq,
    }
}
