//! Items out of the protobuf messages of a frame. Total: what cannot be is an error, never a panic.

use super::{FrameError, Group, Item, Ping};
use crate::audit;
use crate::ids::{ChannelKey, Epoch, Incarnation, NodeId, Position, SlotId, StoreId};
use crate::limits;
use crate::raft::config::{Config, Replica};
use crate::raft::core::Report;
use crate::raft::message::{
    Body, Entry, Envelope, Fetch, Item as LogItem, Message, RefuseKind, Snapshot, TransferToken,
};
use crate::store::rows::Assignment;
use alloc::sync::Arc;
use alloc::vec::Vec;
use wukong_proto::Text;
use wukong_proto::peer::{self as p, AuditKind, ItemKind, LogItemKind, ReportKind, Said};

/// The two ends of the link that a frame came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub from: Replica,
    pub from_incarnation: Incarnation,
    pub to: Replica,
}

impl Ends {
    /// # Errors
    /// A kind that is unknown here, or a value that cannot be.
    pub fn item(&self, item: p::Item) -> Result<Item, FrameError> {
        Ok(match item.kind.ok_or(FrameError::Version)? {
            ItemKind::Group(g) => self.group(g)?,
            ItemKind::Assign(a) => {
                let (channel, generation) = name(a.channel)?;
                let assignment = self::assignment(a.assignment)?;
                if assignment.generation != generation {
                    return Err(FrameError::Malformed);
                }
                Item::Assign { channel, assignment: Arc::new(assignment) }
            }
            ItemKind::Handover(h) => {
                let (channel, generation) = name(h.channel)?;
                Item::Handover { channel, generation, target: replica(h.target)? }
            }
            ItemKind::Report(r) => {
                let (channel, generation) = name(r.channel)?;
                let report = report(Epoch(r.epoch), r.kind.ok_or(FrameError::Version)?)?;
                Item::Report { channel, generation, from: self.from, report }
            }
            ItemKind::Audit(a) => {
                let slot = SlotId(u16::try_from(a.slot).map_err(|_| FrameError::Malformed)?);
                let said = audit(a.kind.ok_or(FrameError::Version)?)?;
                Item::Audit { slot, from: self.from, scan: a.scan, said }
            }
            ItemKind::Ping(ping) => {
                Item::Ping(Ping { clock_ms: ping.clock_ms, load: ping.load, progress: ping.progress })
            }
        })
    }

    fn group(&self, g: p::GroupItem) -> Result<Item, FrameError> {
        let group = match g.group.ok_or(FrameError::Version)? {
            p::Group::Slot(slot) => Group::Slot(SlotId(u16::try_from(slot).map_err(|_| FrameError::Malformed)?)),
            p::Group::Channel(c) => {
                let (channel, generation) = name(c)?;
                Group::Channel { channel, generation }
            }
        };
        let to = g.to.map_or(Ok(self.to), replica)?;
        if to.node != self.to.node {
            return Err(FrameError::Malformed);
        }
        let message = said(g.said.ok_or(FrameError::Version)?)?;
        Ok(Item::Group { group, envelope: Envelope { to, ..self.envelope(Epoch(g.epoch), message) } })
    }

    /// A message from the one end to the other.
    pub const fn envelope(&self, epoch: Epoch, message: Message) -> Envelope {
        Envelope { from: self.from, to: self.to, from_incarnation: self.from_incarnation, epoch, message }
    }
}

fn said(said: Said) -> Result<Message, FrameError> {
    Ok(match said {
        Said::PreVoteReq(m) => Message::PreVoteReq { next_epoch: Epoch(m.next_epoch), pos: position(m.pos) },
        Said::PreVoteResp(m) => Message::PreVoteResp {
            next_epoch: Epoch(m.next_epoch),
            granted: m.granted,
            leader: m.leader.map(replica).transpose()?,
        },
        Said::VoteReq(m) => Message::VoteReq { pos: position(m.pos), transfer: m.transfer.map(token) },
        Said::VoteResp(m) => Message::VoteResp { granted: m.granted },
        Said::Begin(m) => Message::Begin {
            mark_at: m.mark_at,
            hw: m.hw,
            assignment: m.assignment.map(assignment).transpose()?.map(Arc::new),
        },
        Said::Beat(m) => Message::Beat { seq: m.seq, hw: m.hw },
        Said::Fetch(m) => Message::Fetch(fetch(&m)),
        Said::Items(m) => Message::Items {
            prev: position(m.prev),
            items: m.items.0.into_iter().map(log_item).collect::<Result<_, _>>()?,
            hw: m.hw,
            distributed: m.distributed,
            leader_last: m.leader_last,
            fetch_seq: m.fetch_seq,
        },
        Said::Diverged(m) => Message::Diverged { req_pos: position(m.req_pos), keep: position(m.keep) },
        Said::NeedBase(m) => Message::NeedBase { snapshot: Arc::new(snapshot(m.snapshot)?) },
        Said::SnapshotFetch(m) => Message::SnapshotFetch { id: m.id, offset: m.offset },
        Said::SnapshotChunk(m) => Message::SnapshotChunk { id: m.id, offset: m.offset, bytes: m.bytes, last: m.last },
        Said::Refuse(m) => Message::Refuse { kind: refusal(m.kind)?, leader: m.leader.map(replica).transpose()? },
        Said::EndEpoch(m) => Message::EndEpoch { successors: replicas(m.successors)? },
        Said::TransferNow(m) => Message::TransferNow { token: token(m) },
        Said::ReadReq(m) => Message::ReadReq { ctx: m.ctx },
        Said::ReadResp(m) => Message::ReadResp { ctx: m.ctx, index: m.index },
        Said::Fence(_) => Message::Fence,
        Said::FenceResp(m) => Message::FenceResp { durable: position(m.durable), hw: m.hw, damaged: m.damaged },
        Said::Settle(m) => Message::Settle { pos: position(m.pos), hw: m.hw },
        Said::SettleAck(m) => Message::SettleAck { pos: position(m.pos) },
        Said::Wake(_) => Message::Wake,
    })
}

fn audit(kind: AuditKind) -> Result<audit::Said, FrameError> {
    let channel = |c: Option<p::ChannelName>| c.map(|c| name(c).map(|(channel, _)| channel)).transpose();
    Ok(match kind {
        AuditKind::AskSums(_) => audit::Said::AskSums,
        AuditKind::Sums(sums) => {
            let one = |s: p::AuditSum| Ok((u16::try_from(s.bucket).map_err(|_| FrameError::Malformed)?, s.sum));
            audit::Said::Sums(sums.0.into_iter().map(one).collect::<Result<_, _>>()?)
        }
        AuditKind::AskRows(a) => {
            let mut buckets = audit::Buckets::default();
            if a.buckets.len() != 8 * buckets.0.len() {
                return Err(FrameError::Malformed);
            }
            for (word, bytes) in buckets.0.iter_mut().zip(a.buckets.chunks_exact(8)) {
                *word = bytes.iter().fold(0, |w, b| w << 8 | u64::from(*b));
            }
            audit::Said::AskRows { buckets, after: channel(a.after)? }
        }
        AuditKind::Rows(a) => {
            let rows = a.rows.0.into_iter().map(audit_row).collect::<Result<_, _>>()?;
            audit::Said::Rows { rows, upto: channel(a.upto)? }
        }
    })
}

fn audit_row(row: p::AuditRow) -> Result<audit::Row, FrameError> {
    let (channel, generation) = name(row.channel)?;
    let state = match row.state {
        1 => audit::State::Settled,
        2 => audit::State::Dirty,
        3 => audit::State::Awake,
        _ => return Err(FrameError::Version),
    };
    Ok(audit::Row { channel, generation, epoch: Epoch(row.epoch), end: position(row.end), hw: row.hw, state })
}

const fn fetch(f: &p::Fetch) -> Fetch {
    Fetch {
        seq: f.seq,
        pos: position(f.pos),
        durable: position(f.durable),
        hw: f.hw,
        beat: f.beat,
        answer_now: f.answer_now,
        damaged: f.damaged,
    }
}

fn log_item(item: p::LogItem) -> Result<LogItem, FrameError> {
    Ok(match item.kind.ok_or(FrameError::Version)? {
        LogItemKind::Mark(m) => LogItem::Mark { epoch: Epoch(m.epoch), at: m.at },
        LogItemKind::Data(e) => {
            LogItem::Entry(Entry { index: e.index, epoch: Epoch(e.epoch), body: Body::Data(e.body) })
        }
        LogItemKind::Config(e) => {
            let body = Body::Config(Arc::new(config(e.config)?));
            LogItem::Entry(Entry { index: e.index, epoch: Epoch(e.epoch), body })
        }
    })
}

fn refusal(kind: u32) -> Result<RefuseKind, FrameError> {
    Ok(match kind {
        1 => RefuseKind::NotLeader,
        2 => RefuseKind::Fenced,
        3 => RefuseKind::Busy,
        4 => RefuseKind::Removed,
        5 => RefuseKind::Version,
        _ => return Err(FrameError::Version),
    })
}

fn report(epoch: Epoch, kind: ReportKind) -> Result<Report, FrameError> {
    Ok(match kind {
        ReportKind::Ready(_) => Report::Ready { epoch },
        ReportKind::JointStable(config_version) => Report::JointStable { epoch, config_version },
        ReportKind::CaughtUp(learner) => Report::CaughtUp { epoch, learner: replica(learner)? },
        ReportKind::HandoverReady(h) => {
            Report::HandoverReady { epoch, end: position(h.end), target: replica(h.target)? }
        }
        ReportKind::NeedElect(_) => Report::NeedElect { epoch },
    })
}

fn name(name: p::ChannelName) -> Result<(ChannelKey, u64), FrameError> {
    if name.id.len() > limits::LINK_CHANNEL_ID_MAX {
        return Err(FrameError::TooLarge);
    }
    let id = Text::try_from(name.id).map_err(|_| FrameError::Malformed)?;
    let kind = u8::try_from(name.kind).map_err(|_| FrameError::Malformed)?;
    Ok((ChannelKey { id, kind }, name.generation))
}

const fn position(pos: p::Position) -> Position {
    Position { epoch: Epoch(pos.epoch), index: pos.index }
}

const fn token(t: p::TransferToken) -> TransferToken {
    TransferToken { epoch: Epoch(t.epoch), nonce: t.nonce }
}

fn replica(r: p::Replica) -> Result<Replica, FrameError> {
    let node = u16::try_from(r.node).map_err(|_| FrameError::Malformed)?;
    let store = u128::from(r.store_high) << 64 | u128::from(r.store_low);
    Ok(Replica { node: NodeId(node), store: StoreId(store) })
}

fn replicas(list: p::Replicas) -> Result<Vec<Replica>, FrameError> {
    list.0.into_iter().map(replica).collect()
}

fn config(c: p::Config) -> Result<Config, FrameError> {
    Ok(Config {
        version: c.version,
        voters: replicas(c.voters)?,
        voters_out: replicas(c.voters_out)?,
        learners: replicas(c.learners)?,
    })
}

fn snapshot(s: p::Snapshot) -> Result<Snapshot, FrameError> {
    Ok(Snapshot {
        id: s.id,
        base: position(s.base),
        config: Arc::new(config(s.config)?),
        config_index: s.config_index,
        size: s.size,
    })
}

fn assignment(a: p::Assignment) -> Result<Assignment, FrameError> {
    let incarnation = Incarnation(a.leader_incarnation);
    Ok(Assignment {
        generation: a.generation,
        epoch: Epoch(a.epoch),
        config_version: a.config_version,
        leader: a.leader.map(|r| replica(r).map(|r| (r, incarnation))).transpose()?,
        voters: replicas(a.voters)?,
        voters_out: replicas(a.voters_out)?,
        learners: replicas(a.learners)?,
        retention_floor: a.retention_floor,
        deleted: a.deleted,
        last_seq: a.last_seq,
    })
}
