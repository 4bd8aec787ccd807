//! Row formats: `u8 format | body | u32 crc32(everything before)`. A row that fails the check is never served.

use crate::ids::{ChannelNo, Epoch, Incarnation, NodeId, Position, StoreId};
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

/// A row failed its checksum, ends early, or has an unknown format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// Reads a checked row front to back.
pub struct Row {
    body: Bytes,
    at: usize,
}

impl Row {
    /// # Errors
    /// Checksum or format mismatch.
    pub fn open(row: &Bytes, format: u8) -> Result<Self, Damaged> {
        let n = row.len().checked_sub(4).ok_or(Damaged)?;
        let crc = u32::from_be_bytes(row[n..].try_into().map_err(|_| Damaged)?);
        if n == 0 || crc32fast::hash(&row[..n]) != crc || row[0] != format {
            return Err(Damaged);
        }
        Ok(Self { body: row.slice(1..n), at: 0 })
    }

    fn take(&mut self, n: usize) -> Result<&[u8], Damaged> {
        let bytes = self.body.get(self.at..self.at + n).ok_or(Damaged)?;
        self.at += n;
        Ok(bytes)
    }

    /// # Errors
    /// The row ends early; the same for all readers below.
    pub fn u8(&mut self) -> Result<u8, Damaged> {
        Ok(self.take(1)?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Damaged> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().map_err(|_| Damaged)?))
    }

    pub fn u32(&mut self) -> Result<u32, Damaged> {
        Ok(u32::from_be_bytes(self.take(4)?.try_into().map_err(|_| Damaged)?))
    }

    pub fn u64(&mut self) -> Result<u64, Damaged> {
        Ok(u64::from_be_bytes(self.take(8)?.try_into().map_err(|_| Damaged)?))
    }

    pub fn text(&mut self) -> Result<Text, Damaged> {
        let n = usize::from(self.u16()?);
        if self.body.len() < self.at + n {
            return Err(Damaged);
        }
        let text = Text::try_from(self.body.slice(self.at..self.at + n)).map_err(|_| Damaged)?;
        self.at += n;
        Ok(text)
    }

    #[must_use]
    pub fn rest(mut self) -> Bytes {
        self.body.split_off(self.at)
    }
}

/// Appends `u16 length | bytes`. Ids are bounded far below 64 KiB by limits.rs.
pub fn put_text(out: &mut Vec<u8>, s: impl AsRef<[u8]>) {
    let s = s.as_ref();
    assert!(s.len() <= usize::from(u16::MAX), "text in a row longer than 64 KiB");
    out.extend_from_slice(&(s.len() as u16).to_be_bytes());
    out.extend_from_slice(s);
}

/// Ends the row that began at `start`.
pub fn seal(out: &mut Vec<u8>, start: usize) {
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

/// A row type with a fixed body.
pub trait Format: Sized {
    const FORMAT: u8;
    fn body(&self, out: &mut Vec<u8>);
    /// # Errors
    /// The row ends early or holds an impossible value.
    fn parse(row: &mut Row) -> Result<Self, Damaged>;

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(Self::FORMAT);
        self.body(out);
        seal(out, start);
    }

    fn to_bytes(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        self.encode(&mut out);
        Bytes::from(out)
    }

    /// # Errors
    /// The row is damaged.
    fn decode(row: &Bytes) -> Result<Self, Damaged> {
        Self::parse(&mut Row::open(row, Self::FORMAT)?)
    }
}

macro_rules! row {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $ty:ty = $get:expr, $put:expr;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
        impl Format for $name {
            const FORMAT: u8 = 1;
            fn body(&self, out: &mut Vec<u8>) {
                $( { let put: fn(&$ty, &mut Vec<u8>) = $put; put(&self.$field, out); } )*
            }
            fn parse(row: &mut Row) -> Result<Self, Damaged> {
                Ok(Self { $($field: { let get: fn(&mut Row) -> Result<$ty, Damaged> = $get; get(row)? },)* })
            }
        }
    };
}

pub(crate) fn put_u64(v: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&v.to_be_bytes());
}

row! {
    /// A snapshot of a slot lies aside, whole.
    SnapshotRow {
        base: Position = |r| Ok(Position { epoch: Epoch(r.u64()?), index: r.u64()? }),
            |v, o| { put_u64(v.epoch.0, o); put_u64(v.index, o); };
    }
}

row! {
    /// Hard state of an elected group (cluster-and-raft 4.4).
    HardState {
        epoch: Epoch = |r| Ok(Epoch(r.u64()?)), |v, o| put_u64(v.0, o);
        /// 0 = no vote in this epoch.
        voted_for: NodeId = |r| Ok(NodeId(r.u16()?)), |v, o| o.extend_from_slice(&v.0.to_be_bytes());
    }
}

row! {
    /// Start of an epoch: `at` = last index before it (cluster-and-raft 4.3).
    Mark {
        at: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// A slot's commit hint and the position its log starts after.
    Hint {
        hw: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        base: Position = |r| Ok(Position { epoch: Epoch(r.u64()?), index: r.u64()? }),
            |v, o| { put_u64(v.epoch.0, o); put_u64(v.index, o); };
    }
}

row! {
    /// What a slot machine has applied, written in the batch that applied it.
    Applied {
        index: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// A plain counter: next channel number of a slot, end of a reserved id block.
    Counter {
        value: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// Replica-local head of a channel's log (architecture 2.1). Exact when the channel is settled;
    /// otherwise a dirty row exists and the log may hold up to `limits::HEAD_EVERY` + one append more.
    ChannelHead {
        channel_no: ChannelNo = |r| Ok(ChannelNo(r.u64()?)), |v, o| put_u64(v.0, o);
        /// Index of the Create command; tells a recreated channel from its predecessor.
        generation: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        /// Promised epoch of this replica (its hard state).
        epoch: Epoch = |r| Ok(Epoch(r.u64()?)), |v, o| put_u64(v.0, o);
        /// Last log position known when the row was written.
        end: Position = |r| Ok(Position { epoch: Epoch(r.u64()?), index: r.u64()? }),
            |v, o| { put_u64(v.epoch.0, o); put_u64(v.index, o); };
        hw: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        /// Everything up to this seq was accepted by every recipient partition.
        distributed: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// Dedup row: where the message with this (sender, client_msg_no) is (semantics 4.8.2).
    DedupRow {
        seq: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        message_id: i64 = |r| Ok(r.u64()? as i64), |v, o| o.extend_from_slice(&v.to_be_bytes());
        /// FNV-1a 64 of the client's plaintext payload.
        payload_hash: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// Where a message id is.
    Place {
        channel_no: ChannelNo = |r| Ok(ChannelNo(r.u64()?)), |v, o| put_u64(v.0, o);
        seq: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

row! {
    /// A device's credentials, slot of the uid (semantics 3.3.1).
    Device {
        token: Text = |r| r.text(), |v, o| put_text(o, v);
        /// 0 slave, 1 master.
        level: u8 = |r| r.u8(), |v, o| o.push(*v);
    }
}

row! {
    /// Replicated flags of a channel, slot of the channel.
    ChannelMeta {
        /// Both participants of a person channel have their membership row.
        directory_ready: bool = |r| Ok(r.u8()? != 0), |v, o| o.push(u8::from(*v));
    }
}

row! {
    /// A user's part in a channel, slot of the uid (semantics 6.2.7).
    Membership {
        live: bool = |r| Ok(r.u8()? != 0), |v, o| o.push(u8::from(*v));
        join_seq: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        read_seq: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        deleted_to: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        /// Version of the membership source; an older one is ignored.
        version: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
        updated_ms: u64 = |r| r.u64(), |v, o| put_u64(*v, o);
    }
}

/// Who leads, or the absence of a leader (cluster-and-raft 4.18).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Replica {
    pub node: NodeId,
    pub store: StoreId,
}

/// Assignment of a channel group, slot of the channel (cluster-and-raft 4.18).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    pub generation: u64,
    pub epoch: Epoch,
    pub config_version: u64,
    /// None while Electing.
    pub leader: Option<(Replica, Incarnation)>,
    pub voters: Vec<Replica>,
    pub voters_out: Vec<Replica>,
    pub learners: Vec<Replica>,
    pub retention_floor: u64,
    /// A tombstone keeps the generation: whatever is of it, or of an older one, is void.
    pub deleted: bool,
    /// How far the logs of deleted generations went, at most. A new generation begins at 1 all the same (S80).
    pub last_seq: u64,
}

impl Assignment {
    #[must_use]
    pub fn is_member(&self, r: Replica) -> bool {
        self.voters.contains(&r) || self.voters_out.contains(&r) || self.learners.contains(&r)
    }

    /// The newest generation that is void.
    #[must_use]
    pub const fn void(&self) -> u64 {
        if self.deleted { self.generation } else { self.generation.saturating_sub(1) }
    }
}

pub(crate) fn put_replica(r: Replica, out: &mut Vec<u8>) {
    out.extend_from_slice(&r.node.0.to_be_bytes());
    out.extend_from_slice(&r.store.0.to_be_bytes());
}

pub(crate) fn get_replica(r: &mut Row) -> Result<Replica, Damaged> {
    let node = NodeId(r.u16()?);
    let store = StoreId((u128::from(r.u64()?) << 64) | u128::from(r.u64()?));
    Ok(Replica { node, store })
}

pub(crate) fn put_replicas(list: &[Replica], out: &mut Vec<u8>) {
    assert!(list.len() <= usize::from(u8::MAX), "more than 255 replicas");
    out.push(list.len() as u8);
    for r in list {
        put_replica(*r, out);
    }
}

pub(crate) fn get_replicas(r: &mut Row) -> Result<Vec<Replica>, Damaged> {
    (0..r.u8()?).map(|_| get_replica(r)).collect()
}

impl Format for Assignment {
    const FORMAT: u8 = 1;

    fn body(&self, out: &mut Vec<u8>) {
        put_u64(self.generation, out);
        put_u64(self.epoch.0, out);
        put_u64(self.config_version, out);
        out.push(u8::from(self.leader.is_some()));
        if let Some((replica, incarnation)) = self.leader {
            put_replica(replica, out);
            put_u64(incarnation.0, out);
        }
        put_replicas(&self.voters, out);
        put_replicas(&self.voters_out, out);
        put_replicas(&self.learners, out);
        put_u64(self.retention_floor, out);
        out.push(u8::from(self.deleted));
        put_u64(self.last_seq, out);
    }

    fn parse(r: &mut Row) -> Result<Self, Damaged> {
        let (generation, epoch, config_version) = (r.u64()?, Epoch(r.u64()?), r.u64()?);
        let leader = if r.u8()? != 0 { Some((get_replica(r)?, Incarnation(r.u64()?))) } else { None };
        Ok(Self {
            generation,
            epoch,
            config_version,
            leader,
            voters: get_replicas(r)?,
            voters_out: get_replicas(r)?,
            learners: get_replicas(r)?,
            retention_floor: r.u64()?,
            deleted: r.u8()? != 0,
            last_seq: r.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_disk_and_damage_is_seen() {
        let me = Replica { node: NodeId(1), store: StoreId(7 << 64 | 9) };
        let a = Assignment {
            generation: 4,
            epoch: Epoch(2),
            leader: Some((me, Incarnation(3))),
            voters: alloc::vec![me],
            last_seq: 5,
            ..Assignment::default()
        };
        let row = a.to_bytes();
        assert_eq!(Assignment::decode(&row), Ok(a));
        let d = Device { token: Text::from("tok"), level: 1 };
        assert_eq!(Device::decode(&d.to_bytes()), Ok(d));
        assert_eq!(Device::decode(&row.slice(..row.len() - 1)), Err(Damaged));
        assert_eq!(Assignment::decode(&Bytes::new()), Err(Damaged));
    }
}
