//! What nodes of a cluster say to each other: frames of a link (cluster-and-raft 4.20), written with prost by hand.
//!
//! A frame is `u8 format | u8 class | u8 shard | body`. The three bytes in front tell a runtime where the frame goes without
//! decoding it. The body is one protobuf message: [`Head`], any number of [`Item`]s, and up to two [`Pack`]s.
//!
//! Decoding is total: fields that are unknown here are skipped, lists and lengths are bounded, and byte fields are slices of the
//! received frame. A *kind* that is unknown here decodes as `None`; who gives it a meaning refuses it (4.26).

mod list;
mod message;

pub use list::{Element, List};
pub use message::{
    Assign, Assignment, Audit, AuditAskRows, AuditKind, AuditRow, AuditRows, AuditSum, Beat, Begin, ChannelName,
    Config, ConfigEntry, DataEntry, Diverged, Empty, EndEpoch, Fence, FenceResp, Fetch, Group, GroupItem, Handover,
    HandoverReady, Item, ItemKind, Items, LogItem, LogItemKind, Mark, NeedBase, Ping, Position, PreVoteReq,
    PreVoteResp, ReadReq, ReadResp, Refuse, Replica, Replicas, Report, ReportKind, Said, Settle, SettleAck, Snapshot,
    SnapshotChunk, SnapshotFetch, TransferToken, VoteReq, VoteResp,
};

use alloc::vec::Vec;
use bytes::{Buf, Bytes, BytesMut};
use core::fmt;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, check_wire_type, decode_key, message as field};

/// First byte of every frame that this version writes and reads.
pub const FRAME_FORMAT: u8 = 1;
/// Bytes before the body.
pub const FRAME_HEADER: usize = 3;
/// Largest frame that is read.
pub const FRAME_MAX: usize = 6 << 20;
/// Most items of one frame, each item of a log counted too.
pub const FRAME_ITEMS_MAX: usize = 1 << 17;
/// Most items of the log in one message: a fetch of 1 MiB of empty entries, and marks.
pub const LOG_ITEMS_MAX: usize = 1 << 16;
/// Most rows of one pack; what is beyond goes as single items.
pub const PACK_ROWS_MAX: usize = 1 << 10;
/// Most sums of one comparison of settled channels.
pub const AUDIT_BUCKETS_MAX: usize = 1 << 10;
/// Most channels of one answer in it.
pub const AUDIT_ROWS_MAX: usize = 1 << 10;
/// Most replicas of one list.
pub const REPLICAS_MAX: usize = 255;

const ITEM: u32 = 14;
const BEATS: u32 = 15;
const FETCHES: u32 = 16;

/// Where the frame comes from and goes to, and what flows back with it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Head {
    /// Upper half of the cluster's id.
    #[prost(fixed64, tag = "1")]
    pub cluster_high: u64,
    /// Lower half of the cluster's id.
    #[prost(fixed64, tag = "2")]
    pub cluster_low: u64,
    /// Node of the sender.
    #[prost(uint32, tag = "3")]
    pub from: u32,
    /// Node of the receiver.
    #[prost(uint32, tag = "4")]
    pub to: u32,
    /// Process of the sender.
    #[prost(uint64, tag = "5")]
    pub from_incarnation: u64,
    /// Process that the frame is meant for.
    #[prost(uint64, tag = "6")]
    pub to_incarnation: u64,
    /// Shard of the sender. The receiver's is in the three bytes in front.
    #[prost(uint32, tag = "7")]
    pub from_shard: u32,
    /// Counts the sender's links to this peer; everything below begins anew with each.
    #[prost(uint64, tag = "8")]
    pub session: u64,
    /// The receiver's session that `received`, `*_have` and `*_missed` speak of; 0: none was seen yet.
    #[prost(uint64, tag = "9")]
    pub heard: u64,
    /// Number of the frame within (session, pair of shards, class), from 1.
    #[prost(uint64, tag = "10")]
    pub seq: u64,
    /// Bytes that count against the window, sent in this session, pair of shards and class before this frame.
    #[prost(uint64, tag = "11")]
    pub offset: u64,
    /// Bytes of the other side's class Control that have arrived here: what it may send again.
    #[prost(uint64, tag = "12")]
    pub received_control: u64,
    /// The same for class Data.
    #[prost(uint64, tag = "13")]
    pub received_data: u64,
    /// The same for class Bulk.
    #[prost(uint64, tag = "17")]
    pub received_bulk: u64,
    /// Digest of the list of beats that was kept here; 0: nothing to say.
    #[prost(fixed64, tag = "18")]
    pub beats_have: u64,
    /// The same for fetches.
    #[prost(fixed64, tag = "19")]
    pub fetches_have: u64,
    /// Digest of a list of beats that is not here: the full list is wanted. 0: nothing to say.
    #[prost(fixed64, tag = "20")]
    pub beats_missed: u64,
    /// The same for fetches.
    #[prost(fixed64, tag = "21")]
    pub fetches_missed: u64,
}

/// Beats, or fetches, of many slot groups: rows as they are, or how far all rows of a list that the receiver keeps have
/// advanced since.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pack {
    /// Digest of the list that this is relative to; 0: none.
    #[prost(fixed64, tag = "1")]
    pub base: u64,
    /// Added to each `seq` of the list.
    #[prost(uint64, tag = "2")]
    pub seq_advance: u64,
    /// Added to each `beat` of the list.
    #[prost(uint64, tag = "3")]
    pub beat_advance: u64,
    /// One bit for each row of the list (of `rows`, if `keep`), lowest bit first: whether it is said now. Empty: all are.
    #[prost(bytes = "bytes", tag = "4")]
    pub present: Bytes,
    /// `rows` is a list to keep under its digest.
    #[prost(bool, tag = "5")]
    pub keep: bool,
    /// What is not, or not rightly, in the list.
    #[prost(message, required, tag = "6")]
    pub rows: List<Row, PACK_ROWS_MAX>,
}

/// What a slot group's beat or fetch says. A beat has no positions, no flags and no `beat`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Row {
    /// Number of the slot.
    #[prost(uint32, tag = "1")]
    pub slot: u32,
    /// Epoch of the envelope.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Committed index.
    #[prost(uint64, tag = "3")]
    pub hw: u64,
    /// Number of the beat, or of the fetch.
    #[prost(uint64, tag = "4")]
    pub seq: u64,
    /// Fetch: newest beat that was heard.
    #[prost(uint64, tag = "5")]
    pub beat: u64,
    /// Fetch: end of the log, its epoch.
    #[prost(uint64, tag = "6")]
    pub pos_epoch: u64,
    /// Fetch: end of the log, its index.
    #[prost(uint64, tag = "7")]
    pub pos_index: u64,
    /// Fetch: durable end, its epoch.
    #[prost(uint64, tag = "8")]
    pub durable_epoch: u64,
    /// Fetch: durable end, its index.
    #[prost(uint64, tag = "9")]
    pub durable_index: u64,
    /// Fetch: answer at once.
    #[prost(bool, tag = "10")]
    pub answer_now: bool,
    /// Fetch: the sender is damaged.
    #[prost(bool, tag = "11")]
    pub damaged: bool,
}

impl Element for Row {}

/// A decoded frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Number of the link class.
    pub class: u8,
    /// Shard of the receiver.
    pub shard: u8,
    /// Addresses and credit.
    pub head: Head,
    /// In the order in which they were sent. They come before the packs.
    pub items: Vec<Item>,
    /// Beats of slot groups.
    pub beats: Option<Pack>,
    /// Fetches of slot groups.
    pub fetches: Option<Pack>,
}

/// Why bytes are not a frame that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// Of a format, or with a kind of message, that is unknown here.
    Version,
    /// Not what any version would write.
    Malformed,
    /// Beyond a bound.
    TooLarge,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "the frame holds something that this version does not know",
            Self::Malformed => "the frame cannot be decoded",
            Self::TooLarge => "the frame, or a list in it, is too long",
        })
    }
}

impl core::error::Error for FrameError {}

/// The link class of a frame, without decoding it. None: no frame of this format.
#[must_use]
pub fn frame_class(frame: &[u8]) -> Option<u8> {
    header(frame).map(|(class, _)| class)
}

/// The shard that a frame goes to, without decoding it. None: no frame of this format.
#[must_use]
pub fn frame_shard(frame: &[u8]) -> Option<u8> {
    header(frame).map(|(_, shard)| shard)
}

fn header(frame: &[u8]) -> Option<(u8, u8)> {
    match frame {
        [FRAME_FORMAT, class, shard, ..] => Some((*class, *shard)),
        _ => None,
    }
}

/// Begins a frame at the end of `out`. Items and packs may follow, in any number and order; each is complete by itself, so a
/// frame may be cut after any of them.
pub fn begin_frame(out: &mut BytesMut, class: u8, shard: u8, head: &Head) {
    out.extend_from_slice(&[FRAME_FORMAT, class, shard]);
    head.encode_raw(out);
}

/// Adds an item to a frame that was begun.
pub fn put_item(out: &mut BytesMut, item: &Item) {
    field::encode(ITEM, item, out);
}

/// Adds beats to a frame that was begun; at most once.
pub fn put_beats(out: &mut BytesMut, pack: &Pack) {
    field::encode(BEATS, pack, out);
}

/// Adds fetches to a frame that was begun; at most once.
pub fn put_fetches(out: &mut BytesMut, pack: &Pack) {
    field::encode(FETCHES, pack, out);
}

/// A whole frame.
#[must_use]
pub fn encode_frame(frame: &Frame) -> Bytes {
    let mut out = BytesMut::new();
    begin_frame(&mut out, frame.class, frame.shard, &frame.head);
    frame.items.iter().for_each(|item| put_item(&mut out, item));
    frame.beats.iter().for_each(|pack| put_beats(&mut out, pack));
    frame.fetches.iter().for_each(|pack| put_fetches(&mut out, pack));
    out.freeze()
}

/// Reads a frame. Byte fields are slices of it.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_frame(frame: &Bytes) -> Result<Frame, FrameError> {
    if frame.len() > FRAME_MAX {
        return Err(FrameError::TooLarge);
    }
    let Some((class, shard)) = header(frame) else {
        return Err(if frame.len() < FRAME_HEADER { FrameError::Malformed } else { FrameError::Version });
    };
    let mut body = frame.slice(FRAME_HEADER..);
    let mut read = Frame { class, shard, ..Frame::default() };
    let mut weight = 0;
    while body.has_remaining() {
        let (tag, kind) = decode_key(&mut body).map_err(|_| FrameError::Malformed)?;
        read_field(&mut read, tag, kind, &mut body).map_err(|_| FrameError::Malformed)?;
        if tag == ITEM {
            weight += read.items.last().map_or(0, Element::weight);
        }
        if weight > FRAME_ITEMS_MAX {
            return Err(FrameError::TooLarge);
        }
    }
    Ok(read)
}

fn read_field(read: &mut Frame, tag: u32, kind: WireType, body: &mut Bytes) -> Result<(), prost::DecodeError> {
    let ctx = DecodeContext::default();
    match tag {
        ITEM => field::merge_repeated(kind, &mut read.items, body, ctx),
        BEATS | FETCHES => {
            check_wire_type(WireType::LengthDelimited, kind)?;
            let pack = if tag == BEATS { &mut read.beats } else { &mut read.fetches };
            field::merge(kind, pack.get_or_insert_with(Pack::default), body, ctx)
        }
        _ => read.head.merge_field(tag, kind, body, ctx),
    }
}
