//! Messages of replication groups and of the slots that direct them. Their meaning is that of the types of the same name in
//! `core` (raft::message, store::rows, raft::core::Report); here is only their form. Numbers of fields are never used again.
#![allow(missing_docs)]

use super::list::{Element, List};
use super::{AUDIT_BUCKETS_MAX, AUDIT_ROWS_MAX, LOG_ITEMS_MAX, REPLICAS_MAX};
use bytes::Bytes;
use prost::{Message, Oneof};

pub type Replicas = List<Replica, REPLICAS_MAX>;

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Replica {
    #[prost(uint32, tag = "1")]
    pub node: u32,
    #[prost(fixed64, tag = "2")]
    pub store_high: u64,
    #[prost(fixed64, tag = "3")]
    pub store_low: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Position {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Config {
    #[prost(uint64, tag = "1")]
    pub version: u64,
    #[prost(message, required, tag = "2")]
    pub voters: Replicas,
    #[prost(message, required, tag = "3")]
    pub voters_out: Replicas,
    #[prost(message, required, tag = "4")]
    pub learners: Replicas,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Assignment {
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub config_version: u64,
    /// None while electing.
    #[prost(message, optional, tag = "4")]
    pub leader: Option<Replica>,
    #[prost(uint64, tag = "5")]
    pub leader_incarnation: u64,
    #[prost(message, required, tag = "6")]
    pub voters: Replicas,
    #[prost(message, required, tag = "7")]
    pub voters_out: Replicas,
    #[prost(message, required, tag = "8")]
    pub learners: Replicas,
    #[prost(uint64, tag = "9")]
    pub retention_floor: u64,
    #[prost(bool, tag = "10")]
    pub deleted: bool,
    #[prost(uint64, tag = "11")]
    pub last_seq: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Snapshot {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(message, required, tag = "2")]
    pub base: Position,
    #[prost(message, required, tag = "3")]
    pub config: Config,
    #[prost(uint64, tag = "4")]
    pub config_index: u64,
    #[prost(uint64, tag = "5")]
    pub size: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogItem {
    #[prost(oneof = "LogItemKind", tags = "1, 2, 3")]
    pub kind: Option<LogItemKind>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum LogItemKind {
    #[prost(message, tag = "1")]
    Mark(Mark),
    #[prost(message, tag = "2")]
    Data(DataEntry),
    #[prost(message, tag = "3")]
    Config(ConfigEntry),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Mark {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct DataEntry {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ConfigEntry {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(message, required, tag = "3")]
    pub config: Config,
}

impl Element for Replica {}
impl Element for LogItem {}

/// One thing that a frame carries.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Item {
    #[prost(oneof = "ItemKind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<ItemKind>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum ItemKind {
    #[prost(message, tag = "1")]
    Group(GroupItem),
    #[prost(message, tag = "2")]
    Assign(Assign),
    #[prost(message, tag = "3")]
    Handover(Handover),
    #[prost(message, tag = "4")]
    Report(Report),
    #[prost(message, tag = "5")]
    Ping(Ping),
    #[prost(message, tag = "6")]
    Audit(Audit),
}

impl Element for Item {
    fn weight(&self) -> usize {
        match &self.kind {
            Some(ItemKind::Group(GroupItem { said: Some(Said::Items(items)), .. })) => 1 + items.items.0.len(),
            Some(ItemKind::Audit(Audit { kind: Some(AuditKind::Sums(sums)), .. })) => 1 + sums.0.len(),
            Some(ItemKind::Audit(Audit { kind: Some(AuditKind::Rows(rows)), .. })) => 1 + rows.rows.0.len(),
            _ => 1,
        }
    }
}

/// A message between replicas of a group. Its sender is the process that sent the frame.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GroupItem {
    #[prost(oneof = "Group", tags = "1, 2")]
    pub group: Option<Group>,
    /// None: the process that the frame goes to.
    #[prost(message, optional, tag = "3")]
    pub to: Option<Replica>,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(
        oneof = "Said",
        tags = "5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26"
    )]
    pub said: Option<Said>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Group {
    #[prost(uint32, tag = "1")]
    Slot(u32),
    #[prost(message, tag = "2")]
    Channel(ChannelName),
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct ChannelName {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(uint64, tag = "3")]
    pub generation: u64,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum Said {
    #[prost(message, tag = "5")]
    Items(Items),
    #[prost(message, tag = "6")]
    Fetch(Fetch),
    #[prost(message, tag = "7")]
    Beat(Beat),
    #[prost(message, tag = "8")]
    Begin(Begin),
    #[prost(message, tag = "9")]
    PreVoteReq(PreVoteReq),
    #[prost(message, tag = "10")]
    PreVoteResp(PreVoteResp),
    #[prost(message, tag = "11")]
    VoteReq(VoteReq),
    #[prost(message, tag = "12")]
    VoteResp(VoteResp),
    #[prost(message, tag = "13")]
    Diverged(Diverged),
    #[prost(message, tag = "14")]
    NeedBase(NeedBase),
    #[prost(message, tag = "15")]
    SnapshotFetch(SnapshotFetch),
    #[prost(message, tag = "16")]
    SnapshotChunk(SnapshotChunk),
    #[prost(message, tag = "17")]
    Refuse(Refuse),
    #[prost(message, tag = "18")]
    EndEpoch(EndEpoch),
    #[prost(message, tag = "19")]
    TransferNow(TransferToken),
    #[prost(message, tag = "20")]
    ReadReq(ReadReq),
    #[prost(message, tag = "21")]
    ReadResp(ReadResp),
    #[prost(message, tag = "22")]
    Fence(Fence),
    #[prost(message, tag = "23")]
    FenceResp(FenceResp),
    #[prost(message, tag = "24")]
    Settle(Settle),
    #[prost(message, tag = "25")]
    SettleAck(SettleAck),
    #[prost(message, tag = "26")]
    Wake(Empty),
}

/// Nothing; it may get fields.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Empty {}

/// The epoch to promise is the item's.
pub type Fence = Empty;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Items {
    #[prost(message, required, tag = "1")]
    pub prev: Position,
    #[prost(message, required, tag = "2")]
    pub items: List<LogItem, LOG_ITEMS_MAX>,
    #[prost(uint64, tag = "3")]
    pub hw: u64,
    #[prost(uint64, tag = "4")]
    pub leader_last: u64,
    #[prost(uint64, tag = "5")]
    pub fetch_seq: u64,
    /// What every recipient partition accepted.
    #[prost(uint64, tag = "6")]
    pub distributed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Fetch {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(message, required, tag = "2")]
    pub pos: Position,
    #[prost(message, required, tag = "3")]
    pub durable: Position,
    #[prost(uint64, tag = "4")]
    pub hw: u64,
    #[prost(uint64, tag = "5")]
    pub beat: u64,
    #[prost(bool, tag = "6")]
    pub answer_now: bool,
    #[prost(bool, tag = "7")]
    pub damaged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Beat {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint64, tag = "2")]
    pub hw: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Begin {
    #[prost(uint64, tag = "1")]
    pub mark_at: u64,
    #[prost(uint64, tag = "2")]
    pub hw: u64,
    #[prost(message, optional, tag = "3")]
    pub assignment: Option<Assignment>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PreVoteReq {
    #[prost(uint64, tag = "1")]
    pub next_epoch: u64,
    #[prost(message, required, tag = "2")]
    pub pos: Position,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct PreVoteResp {
    #[prost(uint64, tag = "1")]
    pub next_epoch: u64,
    #[prost(bool, tag = "2")]
    pub granted: bool,
    #[prost(message, optional, tag = "3")]
    pub leader: Option<Replica>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TransferToken {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(fixed64, tag = "2")]
    pub nonce: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct VoteReq {
    #[prost(message, required, tag = "1")]
    pub pos: Position,
    #[prost(message, optional, tag = "2")]
    pub transfer: Option<TransferToken>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct VoteResp {
    #[prost(bool, tag = "1")]
    pub granted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Diverged {
    #[prost(message, required, tag = "1")]
    pub req_pos: Position,
    #[prost(message, required, tag = "2")]
    pub keep: Position,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct NeedBase {
    #[prost(message, required, tag = "1")]
    pub snapshot: Snapshot,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SnapshotFetch {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SnapshotChunk {
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
    #[prost(bool, tag = "4")]
    pub last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Refuse {
    /// 1 not leader, 2 fenced, 3 busy, 4 removed, 5 version.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(message, optional, tag = "2")]
    pub leader: Option<Replica>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct EndEpoch {
    #[prost(message, required, tag = "1")]
    pub successors: Replicas,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ReadReq {
    #[prost(uint64, tag = "1")]
    pub ctx: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ReadResp {
    #[prost(uint64, tag = "1")]
    pub ctx: u64,
    /// None: refused.
    #[prost(uint64, optional, tag = "2")]
    pub index: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct FenceResp {
    #[prost(message, required, tag = "1")]
    pub durable: Position,
    #[prost(uint64, tag = "2")]
    pub hw: u64,
    #[prost(bool, tag = "3")]
    pub damaged: bool,
    #[prost(uint64, tag = "4")]
    pub distributed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Settle {
    #[prost(message, required, tag = "1")]
    pub pos: Position,
    #[prost(uint64, tag = "2")]
    pub hw: u64,
    #[prost(uint64, tag = "3")]
    pub distributed: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct SettleAck {
    #[prost(message, required, tag = "1")]
    pub pos: Position,
}

/// Slot leader to a replica: what is committed about the channel. The name's generation is the assignment's.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Assign {
    #[prost(message, required, tag = "1")]
    pub channel: ChannelName,
    #[prost(message, required, tag = "2")]
    pub assignment: Assignment,
}

/// Slot leader to a channel's leader: give way to `target`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Handover {
    #[prost(message, required, tag = "1")]
    pub channel: ChannelName,
    #[prost(message, required, tag = "2")]
    pub target: Replica,
}

/// A channel's leader to whoever leads the slot.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Report {
    #[prost(message, required, tag = "1")]
    pub channel: ChannelName,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(oneof = "ReportKind", tags = "3, 4, 5, 6, 7")]
    pub kind: Option<ReportKind>,
}

#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum ReportKind {
    #[prost(message, tag = "3")]
    Ready(Empty),
    /// The version of the config.
    #[prost(uint64, tag = "4")]
    JointStable(u64),
    /// The learner.
    #[prost(message, tag = "5")]
    CaughtUp(Replica),
    #[prost(message, tag = "6")]
    HandoverReady(HandoverReady),
    #[prost(message, tag = "7")]
    NeedElect(Empty),
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct HandoverReady {
    #[prost(message, required, tag = "1")]
    pub end: Position,
    #[prost(message, required, tag = "2")]
    pub target: Replica,
}

/// Node to node: how its process fares.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Ping {
    /// The sender's calendar clock, milliseconds.
    #[prost(uint64, tag = "1")]
    pub clock_ms: u64,
    #[prost(uint32, tag = "2")]
    pub load: u32,
    /// Rises as long as the sender's shards make progress.
    #[prost(uint64, tag = "3")]
    pub progress: u64,
}

/// Two members of a slot compare their settled channels. Whoever leads the slot asks.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Audit {
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Number of the comparison, given by who asks.
    #[prost(uint64, tag = "2")]
    pub scan: u64,
    #[prost(oneof = "AuditKind", tags = "3, 4, 5, 6")]
    pub kind: Option<AuditKind>,
}

#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum AuditKind {
    #[prost(message, tag = "3")]
    AskSums(Empty),
    #[prost(message, tag = "4")]
    Sums(List<AuditSum, AUDIT_BUCKETS_MAX>),
    #[prost(message, tag = "5")]
    AskRows(AuditAskRows),
    #[prost(message, tag = "6")]
    Rows(AuditRows),
}

/// A bucket that is not empty.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct AuditSum {
    #[prost(uint32, tag = "1")]
    pub bucket: u32,
    #[prost(fixed64, tag = "2")]
    pub sum: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuditAskRows {
    /// One bit for each bucket, in words of 64 bits, big endian; the lowest bit is the first bucket.
    #[prost(bytes = "bytes", tag = "1")]
    pub buckets: Bytes,
    /// None: from the first. Its generation says nothing.
    #[prost(message, optional, tag = "2")]
    pub after: Option<ChannelName>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuditRows {
    #[prost(message, required, tag = "1")]
    pub rows: List<AuditRow, AUDIT_ROWS_MAX>,
    /// None: to the last. Its generation says nothing.
    #[prost(message, optional, tag = "2")]
    pub upto: Option<ChannelName>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct AuditRow {
    #[prost(message, required, tag = "1")]
    pub channel: ChannelName,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(message, required, tag = "3")]
    pub end: Position,
    #[prost(uint64, tag = "4")]
    pub hw: u64,
    /// 1 settled, 2 dirty, 3 awake.
    #[prost(uint32, tag = "5")]
    pub state: u32,
}

impl Element for AuditSum {}
impl Element for AuditRow {}
