//! Ground truth: what the disk holds, read with the core's own record formats.

use super::World;
use crate::disk::{Disk, Row};
use crate::history::{ChannelIx, Event as Happened, History, IntentIx, Wrong, Wrongs};
use crate::machine::Machine;
use std::collections::BTreeMap;
use wukong_core::cluster::command::Command;
use wukong_core::event::mail::{Mail, Work};
use wukong_core::ids::{ChannelNo, SlotId, slot_of};
use wukong_core::store::keys::{self, table};
use wukong_core::store::rows::{ChannelHead, Format, Membership};
use wukong_core::store::{Family, Record, Write, WriteBatch};

/// Caches over the disk, forgotten at every start of the process.
#[derive(Debug, Default)]
pub struct Truth {
    /// Number of each channel in this store.
    numbers: Vec<Option<ChannelNo>>,
    channels: BTreeMap<(SlotId, ChannelNo), ChannelIx>,
    /// Highest seq written, and highest acknowledged, per channel.
    pub written: Vec<u64>,
    pub acked: Vec<u64>,
}

impl Truth {
    pub fn restart(&mut self) {
        self.numbers.clear();
        self.channels.clear();
        self.written.clear();
    }
}

/// The number and head of a channel.
#[must_use]
pub fn head(disk: &Disk, history: &History, slots: u16, channel: ChannelIx) -> Option<ChannelHead> {
    let key = &history.channels[channel as usize].key;
    let row = disk.row(Family::Raft, &keys::head(slot_of(&key.id, slots), key))?;
    ChannelHead::decode(&row.value).ok()
}

/// Tag that every payload begins with: which intent it is.
#[must_use]
pub fn tag(payload: &[u8]) -> Option<IntentIx> {
    let text = core::str::from_utf8(payload.get(..8)?).ok()?;
    u32::from_str_radix(text, 16).ok()
}

pub(crate) fn payload(intent: IntentIx, bytes: u32) -> Vec<u8> {
    let mut out = format!("{intent:08x}").into_bytes();
    out.resize((bytes as usize).max(8), b'.');
    out
}

/// The rows of a channel's log, in order.
///
/// # Errors
/// A row is damaged.
pub fn log_of(disk: &Disk, history: &History, slots: u16, channel: ChannelIx) -> Result<Vec<Record>, String> {
    let Some(head) = head(disk, history, slots, channel) else { return Ok(Vec::new()) };
    let slot = slot_of(&history.channels[channel as usize].key.id, slots);
    let (from, to) = (keys::log(slot, head.channel_no, 0), keys::log(slot, head.channel_no, u64::MAX));
    disk.rows(Family::Log, &from, &to)
        .map(|(k, row)| {
            let seq = keys::parse_log_seq(k).unwrap_or_default();
            Record::decode(seq, &row.value)
                .map_err(|_| format!("{}: row {seq} is damaged", history.show_channel(channel)))
        })
        .collect()
}

fn put<T: Copy + Default>(list: &mut Vec<T>, at: u32, value: T) {
    if list.len() <= at as usize {
        list.resize(at as usize + 1, T::default());
    }
    list[at as usize] = value;
}

impl<M: Machine> World<M> {
    pub(super) fn number_of(&mut self, channel: ChannelIx) -> Option<(SlotId, ChannelNo)> {
        let slot = slot_of(&self.history.channels[channel as usize].key.id, self.sc.node.slots);
        if let Some(Some(no)) = self.truth.numbers.get(channel as usize) {
            return Some((slot, *no));
        }
        let no = head(&self.storage.disk, &self.history, self.sc.node.slots, channel)?.channel_no;
        put(&mut self.truth.numbers, channel, Some(no));
        self.truth.channels.insert((slot, no), channel);
        Some((slot, no))
    }

    pub(super) fn log_row(&mut self, channel: ChannelIx, seq: u64) -> Option<&Row> {
        let (slot, no) = self.number_of(channel)?;
        self.storage.disk.row(Family::Log, &keys::log(slot, no, seq))
    }

    /// Compares a row with what is about to be said of it; the row, for further questions.
    pub(super) fn judge_row(&mut self, channel: ChannelIx, seq: u64, id: i64, wrong: &mut Wrongs) -> Option<Record> {
        let synced = self.storage.disk.synced();
        let Some(row) = self.log_row(channel, seq) else {
            wrong.0 |= Wrongs::ABSENT;
            return None;
        };
        if row.batch > synced {
            wrong.0 |= Wrongs::NOT_DURABLE;
        }
        let record = Record::decode(seq, &row.value).ok().filter(|r| r.message_id == id);
        if record.is_none() {
            wrong.0 |= Wrongs::OTHER_ROW;
        }
        record
    }

    /// Both participants of a channel take part in it: by their rows, or by durable slot entries not applied yet.
    pub(super) fn members_stand(&self, channel: ChannelIx) -> bool {
        let c = &self.history.channels[channel as usize];
        c.users.iter().all(|u| {
            let uid = &self.history.users[*u as usize];
            let slot = slot_of(uid, self.sc.node.slots);
            let row = self.storage.disk.row(Family::Meta, &keys::membership(slot, uid, &c.key));
            row.and_then(|r| Membership::decode(&r.value).ok()).is_some_and(|m| m.live)
                || self.entry_stands(slot, uid, channel)
        })
    }

    fn entry_stands(&self, slot: SlotId, uid: &str, channel: ChannelIx) -> bool {
        let key = &self.history.channels[channel as usize].key;
        let synced = self.storage.disk.synced();
        let (from, to) = (keys::slot_entry(slot, 0), keys::table_end(slot, table::ENTRY));
        let entries = self.storage.disk.rows(Family::Raft, &from, &to).rev().take(10_000);
        entries.filter(|(_, row)| row.batch <= synced).any(|(_, row)| {
            let Ok((_, command)) = Command::from_entry(&row.value) else { return false };
            matches!(command, Command::UpsertMembership { uid: u, channel: c, .. } if u == *uid && c == *key)
        })
    }

    pub(super) fn note_acked(&mut self, channel: ChannelIx, seq: u64) {
        let known = self.truth.acked.get(channel as usize).copied().unwrap_or_default();
        put(&mut self.truth.acked, channel, known.max(seq));
    }

    /// What a batch writes to channel logs and heads.
    pub(super) fn note_batch(&mut self, shard: u8, batch: &WriteBatch, number: u64) {
        if !self.mode.oracles {
            return;
        }
        for write in batch {
            match write {
                Write::Put { family: Family::Log, key, value } => self.note_log_row(key, value, number),
                Write::Put { family: Family::Raft, key, value } if key.get(2) == Some(&table::HEAD) => {
                    self.note_head(key, value);
                }
                _ => {}
            }
        }
        let _ = shard;
    }

    fn note_log_row(&mut self, key: &[u8], value: &[u8], batch: u64) {
        let seq = keys::parse_log_seq(key).unwrap_or_default();
        let row = bytes::Bytes::copy_from_slice(value);
        let Ok(record) = Record::decode(seq, &row) else {
            self.happened(Happened::Phantom { batch, what: "a log row that does not decode" });
            return;
        };
        let intent = tag(&record.payload);
        let known = intent.and_then(|i| self.history.intents.get(i as usize));
        let Some((intent, known)) = intent.zip(known) else {
            self.happened(Happened::Phantom { batch, what: "a payload that no client sent" });
            return;
        };
        let from_right = self.history.users[known.from as usize] == record.from_uid && known.no == record.client_msg_no;
        let payload_right = record.payload == payload(intent, known.bytes)[..];
        let allowed = matches!(known.wrong, Wrong::Nothing | Wrong::Conflict);
        match known.channel {
            Some(channel) if from_right && payload_right && allowed => {
                self.happened(Happened::Stored { channel, seq, intent, id: record.message_id, batch });
                let known = self.truth.written.get(channel as usize).copied().unwrap_or_default();
                put(&mut self.truth.written, channel, known.max(seq));
            }
            _ if !allowed => self.happened(Happened::Phantom { batch, what: "a message that had to be refused" }),
            _ => self.happened(Happened::Phantom { batch, what: "a message with another sender, key or payload" }),
        }
    }

    fn note_head(&mut self, key: &[u8], value: &[u8]) {
        let key = bytes::Bytes::copy_from_slice(key);
        let Some(channel_key) = keys::parse_channel(&key) else { return };
        let Ok(head) = ChannelHead::decode(&bytes::Bytes::copy_from_slice(value)) else { return };
        let Some(channel) = self.history.channel_of.get(&channel_key.id).copied() else { return };
        let lowest = self.process.pushes.iter().filter(|(c, _)| *c == channel).map(|(_, s)| *s).min();
        if let Some(in_flight) = lowest
            && head.distributed >= in_flight
        {
            self.happened(Happened::EarlyDistributed { channel, distributed: head.distributed, in_flight });
        }
    }

    /// A push is on its way to another shard.
    pub(super) fn push_departs(&mut self, mail: &Mail) {
        if let Mail::Work(Work::Push(push)) = mail {
            self.seen.pushes_between_shards += 1;
            for d in &push.deliveries {
                if let Some(channel) = self.history.channel_of.get(&d.channel.id) {
                    self.process.pushes.push((*channel, d.record.seq));
                }
            }
        }
    }

    pub(super) fn push_arrives(&mut self, mail: &Mail) {
        if let Mail::Work(Work::Push(push)) = mail {
            for d in &push.deliveries {
                let channel = self.history.channel_of.get(&d.channel.id);
                let at = self.process.pushes.iter().position(|(c, s)| Some(c) == channel && *s == d.record.seq);
                if let Some(at) = at {
                    self.process.pushes.swap_remove(at);
                }
            }
        }
    }

    /// Last seq acknowledged, and last seq written, of a channel.
    #[must_use]
    pub(crate) fn bounds(&self, channel: ChannelIx) -> (u64, u64) {
        let at = |list: &Vec<u64>| list.get(channel as usize).copied().unwrap_or_default();
        let written = match head(&self.storage.disk, &self.history, self.sc.node.slots, channel) {
            Some(h) => {
                let slot = slot_of(&self.history.channels[channel as usize].key.id, self.sc.node.slots);
                let (from, to) = (keys::log(slot, h.channel_no, 0), keys::log(slot, h.channel_no, u64::MAX));
                let last = self.storage.disk.rows(Family::Log, &from, &to).next_back();
                last.and_then(|(k, _)| keys::parse_log_seq(k)).unwrap_or_default()
            }
            None => 0,
        };
        (at(&self.truth.acked), written)
    }
}
