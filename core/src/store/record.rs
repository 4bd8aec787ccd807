//! A chat message at rest: the value of a log row, and so the replicated entry itself (docs/storage.md).
//!
//! `u8 format=1 | u8 flags | u8 setting | u8 parts | u64 epoch | i64 message_id | u64 timestamp_ms | u32 client_seq |
//! [u32 expire] | text16 from_uid | text16 client_msg_no | [text16 topic] | [text16 stream_no] | payload | u32 crc32`.
//! Channel and seq are the row's key. `parts`: bit 0 expire, bit 1 topic, bit 2 stream_no.

use super::rows::{self, Damaged};
use crate::ids::Epoch;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::{Flags, Setting, Text};

const FORMAT: u8 = 1;
const EXPIRE: u8 = 1;
const TOPIC: u8 = 2;
const STREAM_NO: u8 = 4;

/// A stored chat message (semantics 1.13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// From the row's key.
    pub seq: u64,
    /// Epoch of the leader that appended it.
    pub epoch: Epoch,
    pub message_id: i64,
    /// Wall time of the proposal, milliseconds; clients see seconds.
    pub timestamp_ms: u64,
    pub flags: Flags,
    pub setting: Setting,
    pub client_seq: u32,
    /// Seconds after `timestamp_ms`; 0 = never.
    pub expire: u32,
    pub from_uid: Text,
    pub client_msg_no: Text,
    pub topic: Text,
    pub stream_no: Text,
    /// Plaintext.
    pub payload: Bytes,
}

impl Record {
    /// Upper bound of the encoded size, for batch limits.
    #[must_use]
    pub fn size(&self) -> usize {
        48 + self.from_uid.len()
            + self.client_msg_no.len()
            + self.topic.len()
            + self.stream_no.len()
            + self.payload.len()
    }

    /// Seconds since the epoch, as the wire carries it.
    #[must_use]
    pub const fn timestamp(&self) -> i32 {
        (self.timestamp_ms / 1000) as i32
    }

    /// Its lifetime is over; it is hidden from sync and push (semantics 4.7).
    #[must_use]
    pub const fn expired(&self, now_ms: u64) -> bool {
        self.expire != 0 && self.timestamp_ms + (self.expire as u64) * 1000 < now_ms
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let parts = if self.expire != 0 { EXPIRE } else { 0 }
            | if self.topic.is_empty() { 0 } else { TOPIC }
            | if self.stream_no.is_empty() { 0 } else { STREAM_NO };
        out.extend_from_slice(&[FORMAT, self.flags.0, self.setting.0, parts]);
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.client_seq.to_be_bytes());
        if parts & EXPIRE != 0 {
            out.extend_from_slice(&self.expire.to_be_bytes());
        }
        rows::put_text(out, &self.from_uid);
        rows::put_text(out, &self.client_msg_no);
        if parts & TOPIC != 0 {
            rows::put_text(out, &self.topic);
        }
        if parts & STREAM_NO != 0 {
            rows::put_text(out, &self.stream_no);
        }
        out.extend_from_slice(&self.payload);
        rows::seal(out, start);
    }

    /// # Errors
    /// The row fails its checksum or has a format this version does not know.
    pub fn decode(seq: u64, row: &Bytes) -> Result<Self, Damaged> {
        let mut r = rows::Row::open(row, FORMAT)?;
        let (flags, setting, parts) = (Flags(r.u8()?), Setting(r.u8()?), r.u8()?);
        Ok(Self {
            seq,
            flags,
            setting,
            epoch: Epoch(r.u64()?),
            message_id: r.u64()? as i64,
            timestamp_ms: r.u64()?,
            client_seq: r.u32()?,
            expire: if parts & EXPIRE != 0 { r.u32()? } else { 0 },
            from_uid: r.text()?,
            client_msg_no: r.text()?,
            topic: if parts & TOPIC != 0 { r.text()? } else { Text::default() },
            stream_no: if parts & STREAM_NO != 0 { r.text()? } else { Text::default() },
            payload: r.rest(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        Record {
            seq: 7,
            epoch: Epoch(3),
            message_id: 1_783_445_566_778_899_456,
            timestamp_ms: 1_700_000_000_123,
            flags: Flags(2),
            setting: Setting(0x88),
            client_seq: 9,
            expire: 60,
            from_uid: Text::from("u1"),
            client_msg_no: Text::from("c0ffee"),
            topic: Text::from("t"),
            stream_no: Text::from("s"),
            payload: Bytes::from_static(b"hi"),
        }
    }

    #[test]
    fn a_record_survives_the_disk() {
        for r in [sample(), Record { expire: 0, topic: Text::default(), stream_no: Text::default(), ..sample() }] {
            let mut row = Vec::new();
            r.encode(&mut row);
            assert!(row.len() <= r.size());
            assert_eq!(Record::decode(7, &Bytes::from(row)), Ok(r));
        }
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        let mut row = Vec::new();
        sample().encode(&mut row);
        for bit in 0..row.len() * 8 {
            let mut bad = row.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Record::decode(7, &Bytes::from(bad)).is_err(), "bit {bit}");
        }
    }
}
