//! Key layouts (docs/storage.md). Every slot-owned key begins with the slot, big endian, so that a slot
//! is a range of each column family; integers are big endian so that byte order is numeric order.

use crate::ids::{ChannelKey, ChannelNo, Epoch, ShardId, SlotId};
use bytes::{BufMut, Bytes, BytesMut};
use wukong_proto::Text;

/// The pseudo slot of rows that belong to the node, not to a slot.
pub const NODE_SLOT: SlotId = SlotId(u16::MAX);

/// Tables within a family: the byte after the slot.
pub mod table {
    /// `meta`: what the slot machine has applied.
    pub const APPLIED: u8 = 0x01;
    pub const DEVICE: u8 = 0x10;
    pub const ASSIGNMENT: u8 = 0x20;
    pub const CHANNEL_META: u8 = 0x21;
    pub const MEMBERSHIP: u8 = 0x30;
    /// `raft`: rows of slot groups and of channel replicas.
    pub const HARD: u8 = 0x01;
    pub const MARK: u8 = 0x02;
    pub const ENTRY: u8 = 0x03;
    pub const HINT: u8 = 0x04;
    pub const NEXT_CHANNEL_NO: u8 = 0x05;
    /// A snapshot that came in whole, and its rows: keys of `meta` with this byte between the slot and the rest.
    pub const SNAPSHOT: u8 = 0x06;
    pub const SNAPSHOT_ROW: u8 = 0x07;
    pub const HEAD: u8 = 0x10;
    pub const DIRTY: u8 = 0x11;
    /// Numbers whose rows are on their way out.
    pub const DOOMED: u8 = 0x12;
    /// `raft`, node slot: reserved message ids of one shard.
    pub const ID_BLOCK: u8 = 0x20;
    /// `index`.
    pub const DEDUP: u8 = 0x01;
    pub const MESSAGE_ID: u8 = 0x02;
    pub const SENDER: u8 = 0x03;
}

fn start(slot: SlotId, table: u8, more: usize) -> BytesMut {
    let mut k = BytesMut::with_capacity(3 + more);
    k.put_u16(slot.0);
    k.put_u8(table);
    k
}

fn text16(k: &mut BytesMut, s: impl AsRef<[u8]>) {
    let s = s.as_ref();
    // Ids are bounded far below this by limits.rs; a longer one is our own error.
    assert!(s.len() <= usize::from(u16::MAX), "key part longer than 64 KiB");
    k.put_u16(s.len() as u16);
    k.put_slice(s);
}

fn channel(slot: SlotId, table: u8, key: &ChannelKey) -> Bytes {
    let mut k = start(slot, table, 3 + key.id.len());
    text16(&mut k, &key.id);
    k.put_u8(key.kind);
    k.freeze()
}

/// A slot's row without further key parts (`APPLIED`, `HARD`, `HINT`, `NEXT_CHANNEL_NO`).
#[must_use]
pub fn single(slot: SlotId, table: u8) -> Bytes {
    start(slot, table, 0).freeze()
}

/// First key after the whole of a slot's table.
#[must_use]
pub fn table_end(slot: SlotId, table: u8) -> Bytes {
    start(slot, table + 1, 0).freeze()
}

/// The first key after `key`.
#[must_use]
pub fn after(key: &Bytes) -> Bytes {
    let mut k = BytesMut::with_capacity(key.len() + 1);
    k.put_slice(key);
    k.put_u8(0);
    k.freeze()
}

/// The range of everything that a slot's machine applied, [`table::APPLIED`] itself excepted.
#[must_use]
pub fn applied_rows(slot: SlotId) -> (Bytes, Bytes) {
    (table_end(slot, table::APPLIED), table_end(slot, u8::MAX - 1))
}

/// Where a row of `meta`, found in a snapshot, waits until the snapshot is whole; `key` without the slot.
#[must_use]
pub fn snapshot_row(slot: SlotId, key: &[u8]) -> Bytes {
    let mut k = start(slot, table::SNAPSHOT_ROW, key.len());
    k.put_slice(key);
    k.freeze()
}

/// The key of `meta` that belongs there.
#[must_use]
pub fn parse_snapshot_row(slot: SlotId, key: &[u8]) -> Option<Bytes> {
    let rest = key.get(3..)?;
    let (table, more) = rest.split_first()?;
    let mut k = start(slot, *table, more.len());
    k.put_slice(more);
    Some(k.freeze())
}

#[must_use]
pub fn device(slot: SlotId, uid: &str, flag: u8) -> Bytes {
    let mut k = start(slot, table::DEVICE, 3 + uid.len());
    text16(&mut k, uid);
    k.put_u8(flag);
    k.freeze()
}

#[must_use]
pub fn assignment(slot: SlotId, key: &ChannelKey) -> Bytes {
    channel(slot, table::ASSIGNMENT, key)
}

#[must_use]
pub fn channel_meta(slot: SlotId, key: &ChannelKey) -> Bytes {
    channel(slot, table::CHANNEL_META, key)
}

#[must_use]
pub fn head(slot: SlotId, key: &ChannelKey) -> Bytes {
    channel(slot, table::HEAD, key)
}

#[must_use]
pub fn dirty(slot: SlotId, key: &ChannelKey) -> Bytes {
    channel(slot, table::DIRTY, key)
}

/// The rows of this number belong to nobody any more.
#[must_use]
pub fn doomed(slot: SlotId, channel: ChannelNo) -> Bytes {
    let mut k = start(slot, table::DOOMED, 8);
    k.put_u64(channel.0);
    k.freeze()
}

/// The number of a `doomed` key.
#[must_use]
pub fn parse_doomed(key: &Bytes) -> Option<ChannelNo> {
    Some(ChannelNo(u64::from_be_bytes(key.get(3..11)?.try_into().ok()?)))
}

/// The range of all rows of a table of `index` that are keyed by a channel: `DEDUP`, `SENDER`.
#[must_use]
pub fn index_of(slot: SlotId, table: u8, channel: ChannelNo) -> (Bytes, Bytes) {
    let bound = |no: u64| {
        let mut k = start(slot, table, 8);
        k.put_u64(no);
        k.freeze()
    };
    (bound(channel.0), bound(channel.0 + 1))
}

/// The channel of a `dirty` or `head` key.
#[must_use]
pub fn parse_channel(key: &Bytes) -> Option<ChannelKey> {
    let n = usize::from(u16::from_be_bytes([*key.get(3)?, *key.get(4)?]));
    if key.len() != 6 + n {
        return None;
    }
    let id = Text::try_from(key.slice(5..5 + n)).ok()?;
    Some(ChannelKey { id, kind: key[5 + n] })
}

#[must_use]
pub fn membership(slot: SlotId, uid: &str, key: &ChannelKey) -> Bytes {
    let mut k = start(slot, table::MEMBERSHIP, 5 + uid.len() + key.id.len());
    text16(&mut k, uid);
    text16(&mut k, &key.id);
    k.put_u8(key.kind);
    k.freeze()
}

/// The range of one user's membership rows.
#[must_use]
pub fn memberships(slot: SlotId, uid: &str) -> (Bytes, Bytes) {
    let mut from = start(slot, table::MEMBERSHIP, 2 + uid.len());
    text16(&mut from, uid);
    let mut to = from.clone();
    // Lengths of ids never reach 0xffff.
    to.put_u16(u16::MAX);
    (from.freeze(), to.freeze())
}

/// The channel of a membership key of `uid`.
#[must_use]
pub fn parse_membership(key: &Bytes, uid: &str) -> Option<ChannelKey> {
    let at = 5 + uid.len();
    let n = usize::from(u16::from_be_bytes([*key.get(at)?, *key.get(at + 1)?]));
    if key.len() != at + 3 + n {
        return None;
    }
    let id = Text::try_from(key.slice(at + 2..at + 2 + n)).ok()?;
    Some(ChannelKey { id, kind: key[at + 2 + n] })
}

#[must_use]
pub fn slot_mark(slot: SlotId, epoch: Epoch) -> Bytes {
    let mut k = start(slot, table::MARK, 8);
    k.put_u64(epoch.0);
    k.freeze()
}

#[must_use]
pub fn slot_entry(slot: SlotId, index: u64) -> Bytes {
    let mut k = start(slot, table::ENTRY, 8);
    k.put_u64(index);
    k.freeze()
}

#[must_use]
pub fn id_block(shard: ShardId) -> Bytes {
    let mut k = start(NODE_SLOT, table::ID_BLOCK, 1);
    k.put_u8(shard.0);
    k.freeze()
}

/// A log row: 18 bytes on the stack, because one is made for every message.
#[must_use]
pub fn log(slot: SlotId, channel: ChannelNo, seq: u64) -> [u8; 18] {
    let mut k = [0; 18];
    k[..2].copy_from_slice(&slot.0.to_be_bytes());
    k[2..10].copy_from_slice(&channel.0.to_be_bytes());
    k[10..].copy_from_slice(&seq.to_be_bytes());
    k
}

/// The seq of a log key.
#[must_use]
pub fn parse_log_seq(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(10..18)?.try_into().ok()?))
}

/// The channel's number in a log key, or in a mark's.
#[must_use]
pub fn parse_log_no(key: &[u8]) -> Option<ChannelNo> {
    Some(ChannelNo(u64::from_be_bytes(key.get(2..10)?.try_into().ok()?)))
}

/// A mark of a channel's log, keyed like a log row with the epoch in place of the seq.
#[must_use]
pub fn mark(slot: SlotId, channel: ChannelNo, epoch: Epoch) -> [u8; 18] {
    log(slot, channel, epoch.0)
}

/// Dedup row: the full sender and client_msg_no, so that no two keys share a row.
pub fn dedup_into(k: &mut BytesMut, slot: SlotId, channel: ChannelNo, uid: &Text, client_msg_no: &Text) {
    k.clear();
    k.put_u16(slot.0);
    k.put_u8(table::DEDUP);
    k.put_u64(channel.0);
    text16(k, uid);
    k.put_slice(client_msg_no.as_bytes());
}

#[must_use]
pub fn dedup(slot: SlotId, channel: ChannelNo, uid: &Text, client_msg_no: &Text) -> Bytes {
    let mut k = BytesMut::with_capacity(13 + uid.len() + client_msg_no.len());
    dedup_into(&mut k, slot, channel, uid, client_msg_no);
    k.freeze()
}

#[must_use]
pub fn message_id(slot: SlotId, id: i64) -> [u8; 11] {
    let mut k = [0; 11];
    k[..2].copy_from_slice(&slot.0.to_be_bytes());
    k[2] = table::MESSAGE_ID;
    k[3..].copy_from_slice(&id.to_be_bytes());
    k
}

/// Last own seq of a sender in a channel.
pub fn sender_into(k: &mut BytesMut, slot: SlotId, channel: ChannelNo, uid: &Text) {
    k.clear();
    k.put_u16(slot.0);
    k.put_u8(table::SENDER);
    k.put_u64(channel.0);
    k.put_slice(uid.as_bytes());
}

#[must_use]
pub fn sender(slot: SlotId, channel: ChannelNo, uid: &Text) -> Bytes {
    let mut k = BytesMut::with_capacity(11 + uid.len());
    sender_into(&mut k, slot, channel, uid);
    k.freeze()
}
