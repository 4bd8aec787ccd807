//! Ground truth: what is committed, by the disks of all nodes; and what follows for those who listen.

use super::eras::Eras;
use super::world::World;
use crate::clock::SEC;
use crate::history::{ChannelIx, Event as Happened, IntentIx};
use crate::world::truth::{head, payload, tag};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use wukong_core::cluster::assignment::AssignCommand;
use wukong_core::cluster::command::Command;
use wukong_core::ids::{ChannelKey, ShardId, SlotId, shard_of, slot_of};
use wukong_core::store::rows::{Applied, Assignment, Format};
use wukong_core::store::{Family, Record, Write, WriteBatch, keys};

/// A push that was accepted is written within this.
const WITHIN: u64 = 3 * SEC;

/// What a node's replica of a channel was seen with last.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    generation: u64,
    hw: u64,
    /// Since when it leads.
    leads: Option<u64>,
    /// This process led it before.
    led: bool,
    distributed: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// By channel: its generations, as far as anything of them was committed, and what is known of its deletion.
    pub eras: Vec<Eras>,
    /// Highest acknowledged seq of each generation.
    pub acked: BTreeMap<ChannelIx, u64>,
    /// Committed log of each generation.
    pub committed: BTreeMap<ChannelIx, Vec<Record>>,
    /// Generations that are void to whoever sent an intent on a connection: of the channel's deletions that were done before.
    pub sent_under: BTreeMap<(u32, IntentIx), u64>,
    /// SENDs that were acknowledged: when, as which message, and what was void when they were made.
    pub promised: Vec<(u64, IntentIx, i64, u64)>,
    /// Reads under way: by call, what was void and how many deletions had begun.
    pub reads: BTreeMap<u64, (u64, u64)>,
    /// Nodes that cut a log.
    pub cut: Vec<bool>,
    /// By node, then channel.
    seen: Vec<Vec<Seen>>,
    /// What a slot's rows are once so much is applied.
    applied: BTreeMap<(u16, u64), u64>,
    /// RECVs written: connection, message id.
    pub received: BTreeSet<(u32, i64)>,
    /// RECVs that must be written, and by when: connection, channel, generation, seq.
    due: VecDeque<(u64, u32, ChannelIx, u64, u64)>,
    pub judged: u64,
    /// Distinct messages acknowledged.
    pub stored: BTreeSet<IntentIx>,
}

impl Truth {
    #[must_use]
    pub fn new(nodes: usize, channels: usize) -> Self {
        Self {
            eras: vec![Eras::default(); channels],
            cut: vec![false; nodes],
            seen: vec![vec![Seen::default(); channels]; nodes],
            ..Self::default()
        }
    }
}

impl World {
    /// Replicas of a channel that are enough.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.nodes.len().min(3) / 2 + 1
    }

    pub(super) fn place(&self, channel: ChannelIx) -> (ChannelKey, SlotId, ShardId) {
        let key = self.history.channels[channel as usize].key.clone();
        let slot = slot_of(&key.id, self.plan.slots as u16);
        (key, slot, shard_of(slot, self.plan.shards as u8))
    }

    /// What a node's disk holds at a seq, whether a crash can take it back, and its generation.
    pub(super) fn row(&self, n: usize, channel: ChannelIx, seq: u64) -> Option<(Record, bool, u64)> {
        let disk = &self.nodes[n].storage.disk;
        let head = head(disk, &self.history, self.plan.slots as u16, channel)?;
        let slot = slot_of(&self.history.channels[channel as usize].key.id, self.plan.slots as u16);
        let row = disk.row(Family::Log, &keys::log(slot, head.channel_no, seq))?;
        Record::decode(seq, &row.value).ok().map(|r| (r, row.batch <= disk.synced(), head.generation))
    }

    /// The same, if it is of this generation.
    pub(super) fn row_of(&self, n: usize, channel: ChannelIx, generation: u64, seq: u64) -> Option<(Record, bool)> {
        self.row(n, channel, seq).filter(|(.., g)| *g == generation).map(|(record, synced, _)| (record, synced))
    }

    /// The last seq on a node's disk.
    pub(super) fn log_end(&self, n: usize, channel: ChannelIx) -> u64 {
        let disk = &self.nodes[n].storage.disk;
        let Some(head) = head(disk, &self.history, self.plan.slots as u16, channel) else { return 0 };
        let slot = slot_of(&self.history.channels[channel as usize].key.id, self.plan.slots as u16);
        let (from, to) = (keys::log(slot, head.channel_no, 0), keys::log(slot, head.channel_no, u64::MAX));
        disk.rows(Family::Log, &from, &to).next_back().and_then(|(k, _)| keys::parse_log_seq(k)).unwrap_or(0)
    }

    /// The newest record of a channel on any disk.
    pub(super) fn record(&self, channel: ChannelIx) -> Option<Assignment> {
        let (key, slot, _) = self.place(channel);
        let rows = self.nodes.iter().filter_map(|n| n.storage.disk.row(Family::Meta, &keys::assignment(slot, &key)));
        let all = rows.filter_map(|r| Assignment::decode(&r.value).ok());
        all.max_by_key(|a| (a.generation, a.deleted, a.epoch))
    }

    /// Who votes in a channel, as far as any disk knows.
    pub(super) fn voters(&self, channel: ChannelIx) -> Vec<usize> {
        self.record(channel).map_or_else(Vec::new, |a| a.voters.iter().map(|r| super::node_of(r.node)).collect())
    }

    /// `era` is a generation of a channel.
    pub(super) fn note_acked(&mut self, era: ChannelIx, seq: u64, intent: IntentIx) {
        let known = self.truth.acked.entry(era).or_default();
        *known = (*known).max(seq);
        if !self.truth.stored.insert(intent) {
            self.cover.hit("acknowledged again");
        }
    }

    /// After a turn of a shard: what its replicas say is committed, compared with the disks and with what was said before.
    pub(super) fn look(&mut self, n: usize, shard: u8) {
        if self.nodes[n].storage.failed {
            // What is in memory reaches the disk no more, and nobody hears of it.
            return;
        }
        for channel in self.channels() {
            let (key, _, home) = self.place(channel);
            if home.0 != shard {
                continue;
            }
            let looked = self.nodes[n].channel(&key, home).zip(self.nodes[n].generation(&key, home));
            let mut before = self.truth.seen[n][channel as usize];
            if looked.is_some_and(|(_, generation)| generation != before.generation) {
                before = Seen::default();
            }
            let Some(((hw, distributed, leads), generation)) = looked else {
                self.truth.seen[n][channel as usize].leads = None;
                continue;
            };
            if distributed > hw {
                self.violation("distributed", format!("n{n} {}: {distributed}, committed {hw}", key.id));
            }
            if hw > before.hw {
                self.commit(n, channel, generation, before.hw, hw);
            }
            let since = if leads { Some(before.leads.unwrap_or(self.now)) } else { None };
            if let (Some(since), Some(_), true) = (since, before.leads, distributed > before.distributed) {
                self.handed_on(n, (channel, generation), since, before.distributed, distributed);
            }
            if leads && before.leads.is_none() {
                self.cover.hit("channel led");
                if before.led {
                    self.cover.hit("led again by the same process");
                }
                if distributed < self.log_end(n, channel) {
                    self.cover.hit("led with arrears");
                }
            }
            self.truth.seen[n][channel as usize] =
                Seen { generation, hw: hw.max(before.hw), leads: since, led: before.led || leads, distributed };
        }
    }

    /// `n` says that everything up to `hw` is committed.
    fn commit(&mut self, n: usize, channel: ChannelIx, generation: u64, from: u64, hw: u64) {
        let era = self.era(channel, generation);
        for seq in from + 1..=hw {
            self.truth.judged += 1;
            let Some((record, _)) = self.row_of(n, channel, generation, seq) else {
                let name = self.history.show_channel(channel);
                return self.violation("INV-1", format!("n{n} {name}: commits {seq} without having it"));
            };
            let id = record.message_id;
            let known = self.truth.committed.entry(era).or_default().get(seq as usize - 1).map(|r| r.message_id);
            let name = self.history.show_channel(channel);
            match known {
                Some(k) if k != id => {
                    let what = format!("n{n} {name}: seq {seq} is {id} here, committed as {k}");
                    return self.violation("INV-2", what);
                }
                Some(_) => {}
                None => {
                    let holders = (0..self.nodes.len()).filter_map(|m| self.row_of(m, channel, generation, seq));
                    let durable = holders.filter(|(r, synced)| r.message_id == id && *synced).count();
                    if !self.may_be_committed(channel, generation, seq, durable) {
                        let what = format!("n{n} {name}: commits {seq} of {generation}, which {durable} disks have");
                        return self.violation("commit", what);
                    }
                    self.truth.committed.entry(era).or_default().push(record);
                    self.history.era_of.insert(id, era);
                }
            }
        }
    }

    /// A client is rightly told of `seq`: everything up to there is committed. Whoever says so may die before its turn is over, and the
    /// channel be deleted before anybody else says it.
    pub(super) fn note_said(&mut self, channel: ChannelIx, generation: u64, seq: u64) {
        let era = self.era(channel, generation);
        let known = self.truth.committed.entry(era).or_default().len() as u64;
        for seq in known + 1..=seq {
            let rows: Vec<(Record, bool)> =
                (0..self.nodes.len()).filter_map(|m| self.row_of(m, channel, generation, seq)).collect();
            let on = |id: i64| rows.iter().filter(|(r, synced)| *synced && r.message_id == id).count();
            let Some((record, _)) = rows.iter().find(|(r, _)| on(r.message_id) >= self.majority()) else { return };
            self.history.era_of.insert(record.message_id, era);
            self.truth.committed.entry(era).or_default().push(record.clone());
        }
    }

    /// A leader says that the recipients' lanes have these: whoever was connected here before it led gets them.
    fn handed_on(&mut self, n: usize, (channel, generation): (ChannelIx, u64), since: u64, from: u64, to: u64) {
        let users = self.history.channels[channel as usize].users;
        let listening: Vec<u32> = self.nodes[n]
            .conns
            .iter()
            .copied()
            .filter(|c| {
                let conn = &self.conns[*c as usize];
                let user = self.devices[conn.device as usize].user;
                conn.connected_at.is_some_and(|at| at < since) && users.contains(&user)
            })
            .collect();
        let at = self.now + WITHIN;
        for seq in from + 1..=to {
            for conn in &listening {
                self.truth.due.push_back((at, *conn, channel, generation, seq));
            }
        }
    }

    pub(super) fn check_all(&mut self) {
        while let Some((at, conn, channel, generation, seq)) = self.truth.due.front().copied() {
            if at > self.now {
                break;
            }
            self.truth.due.pop_front();
            let c = &self.conns[conn as usize];
            let node = &self.nodes[c.node];
            let open = c.client_open && c.server_open && !c.closing && node.alive && node.life == c.life;
            if !open || node.paused_until + WITHIN > self.now {
                continue;
            }
            self.truth.judged += 1;
            let Some((record, _)) = self.row_of(c.node, channel, generation, seq) else { continue };
            let sent = tag(&record.payload).is_some_and(|i| self.sent_on(conn, i));
            if !sent && !self.truth.received.contains(&(conn, record.message_id)) {
                let name = self.history.show_channel(channel);
                let what = format!("{name} seq {seq} was handed on, and never written to connection {conn}");
                self.violation("INV-14", what);
            }
        }
    }

    fn sent_on(&self, conn: u32, intent: IntentIx) -> bool {
        let mine = Happened::SendIn { link: conn, intent };
        self.history.events.iter().rev().any(|(_, e)| *e == mine)
    }

    pub(super) fn note_crash(&mut self, n: usize) {
        self.truth.seen[n].iter_mut().for_each(|s| *s = Seen::default());
        self.nodes[n].conns.clear();
    }

    /// What a batch is about to do to logs.
    pub fn note_batch(&mut self, n: usize, batch: &WriteBatch) {
        if !self.mode.oracles {
            return;
        }
        for write in batch {
            match write {
                Write::Put { family: Family::Log, key, value } => self.note_log_row(key, value),
                Write::Put { family: Family::Raft, key, value } if key.get(2) == Some(&keys::table::ENTRY) => {
                    self.note_command(value);
                }
                Write::DeleteRange { family: Family::Log, from, to } => self.note_cut(n, from, to),
                _ => {}
            }
        }
    }

    /// A batch is written: where as much is applied, the rows are the same on every node.
    pub(super) fn note_applied(&mut self, n: usize, batch: &WriteBatch) {
        if !self.mode.oracles {
            return;
        }
        // Of several in one batch the last one counts.
        let applied = batch.iter().filter_map(|write| {
            let Write::Put { family: Family::Meta, key: [a, b, keys::table::APPLIED], value } = write else {
                return None;
            };
            let applied = Applied::decode(&Bytes::copy_from_slice(value)).ok()?;
            Some((SlotId(u16::from_be_bytes([*a, *b])), applied))
        });
        for (slot, applied) in applied.collect::<BTreeMap<_, _>>() {
            let (from, to) = keys::applied_rows(slot);
            let mut hash = crc32fast::Hasher::new();
            for (key, row) in self.nodes[n].storage.disk.rows(Family::Meta, &from, &to) {
                hash.update(key);
                hash.update(&row.value);
            }
            let hash = u64::from(hash.finalize());
            self.truth.judged += 1;
            if *self.truth.applied.entry((slot.0, applied.index)).or_insert(hash) != hash {
                let what =
                    format!("n{n} slot {}: applied {}, and has other rows than others had", slot.0, applied.index);
                self.violation("machine", what);
            }
        }
    }

    fn note_command(&mut self, value: &[u8]) {
        let Ok((_, Command::Assign { channel, command })) = Command::from_entry(&Bytes::copy_from_slice(value)) else {
            return;
        };
        match command {
            AssignCommand::Elect { .. } => self.cover.hit("elected a channel's leader"),
            AssignCommand::Lead { .. } => self.cover.hit("fenced"),
            AssignCommand::Handover { .. } => self.cover.hit("handed over"),
            AssignCommand::Delete { generation, last_seq } => self.note_ended(&channel, generation, last_seq),
            _ => {}
        }
    }

    fn note_log_row(&mut self, key: &[u8], value: &[u8]) {
        let seq = keys::parse_log_seq(key).unwrap_or_default();
        let record = Record::decode(seq, &Bytes::copy_from_slice(value)).ok();
        let known = record.as_ref().and_then(|r| tag(&r.payload)).and_then(|i| {
            let known = self.history.intents.get(i as usize)?;
            Some((i, known))
        });
        let right = record.zip(known).is_some_and(|(r, (intent, known))| {
            r.from_uid == self.history.users[known.from as usize]
                && r.client_msg_no == known.no
                && r.payload == payload(intent, known.bytes)[..]
        });
        if !right {
            self.happened(Happened::Phantom { batch: seq, what: "what no client sent" });
        }
    }

    fn note_cut(&mut self, n: usize, from: &[u8], to: &[u8]) {
        let cut: Vec<(u64, i64)> = self.nodes[n]
            .storage
            .disk
            .rows(Family::Log, from, to)
            .filter_map(|(k, row)| Some((k, keys::parse_log_seq(k)?, row)))
            .filter_map(|(_, seq, row)| Some((seq, Record::decode(seq, &row.value).ok()?.message_id)))
            .collect();
        if cut.is_empty() {
            return;
        }
        if self.is_doomed(n, from) {
            self.cover.hit("rows of a deleted log went");
        } else {
            self.cover.hit("truncated");
            self.truth.cut[n] = true;
        }
        for (seq, id) in cut {
            let era = self.history.era_of.get(&id).copied();
            if let Some(channel) = era.filter(|era| !self.has_ended(*era)) {
                let name = self.history.show_channel(channel);
                self.violation("INV-3", format!("n{n} {name}: cuts {seq}, which is committed"));
            }
        }
    }
}
