//! Ground truth: what is committed, by the disks of all nodes; and what follows for those who listen.

use super::world::World;
use crate::clock::SEC;
use crate::history::{ChannelIx, Event as Happened, IntentIx};
use crate::world::truth::{head, payload, tag};
use std::collections::{BTreeSet, VecDeque};
use wukong_core::cluster::assignment::AssignCommand;
use wukong_core::cluster::command::Command;
use wukong_core::ids::{ChannelKey, ShardId, SlotId, shard_of, slot_of};
use wukong_core::store::rows::{Assignment, Format};
use wukong_core::store::{Family, Record, Write, WriteBatch, keys};

/// A push that was accepted is written within this.
const WITHIN: u64 = 3 * SEC;

/// What a node's replica of a channel was seen with last.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
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
    /// Highest acknowledged seq of each channel.
    pub acked: Vec<u64>,
    /// Message ids of each channel's committed log.
    pub committed: Vec<Vec<i64>>,
    /// Nodes that cut a log.
    pub cut: Vec<bool>,
    /// By node, then channel.
    seen: Vec<Vec<Seen>>,
    /// RECVs written: connection, channel, seq.
    pub received: BTreeSet<(u32, ChannelIx, u64)>,
    /// RECVs that must be written, and by when.
    due: VecDeque<(u64, u32, ChannelIx, u64)>,
    pub judged: u64,
    /// Distinct messages acknowledged.
    pub stored: BTreeSet<IntentIx>,
}

impl Truth {
    #[must_use]
    pub fn new(nodes: usize, channels: usize) -> Self {
        Self {
            acked: vec![0; channels],
            committed: vec![Vec::new(); channels],
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

    /// What a node's disk holds at a seq, and whether a crash can take it back.
    pub(super) fn row(&self, n: usize, channel: ChannelIx, seq: u64) -> Option<(Record, bool)> {
        let disk = &self.nodes[n].storage.disk;
        let no = head(disk, &self.history, self.plan.slots as u16, channel)?.channel_no;
        let slot = slot_of(&self.history.channels[channel as usize].key.id, self.plan.slots as u16);
        let row = disk.row(Family::Log, &keys::log(slot, no, seq))?;
        Record::decode(seq, &row.value).ok().map(|r| (r, row.batch <= disk.synced()))
    }

    /// The last seq on a node's disk.
    pub(super) fn log_end(&self, n: usize, channel: ChannelIx) -> u64 {
        let disk = &self.nodes[n].storage.disk;
        let Some(head) = head(disk, &self.history, self.plan.slots as u16, channel) else { return 0 };
        let slot = slot_of(&self.history.channels[channel as usize].key.id, self.plan.slots as u16);
        let (from, to) = (keys::log(slot, head.channel_no, 0), keys::log(slot, head.channel_no, u64::MAX));
        disk.rows(Family::Log, &from, &to).next_back().and_then(|(k, _)| keys::parse_log_seq(k)).unwrap_or(0)
    }

    /// Who votes in a channel, as far as any disk knows.
    pub(super) fn voters(&self, channel: ChannelIx) -> Vec<usize> {
        let (key, slot, _) = self.place(channel);
        let rows = self.nodes.iter().filter_map(|n| n.storage.disk.row(Family::Meta, &keys::assignment(slot, &key)));
        let newest = rows.filter_map(|r| Assignment::decode(&r.value).ok()).max_by_key(|a| (a.generation, a.epoch));
        newest.map_or_else(Vec::new, |a| a.voters.iter().map(|r| super::node_of(r.node)).collect())
    }

    pub(super) fn note_acked(&mut self, channel: ChannelIx, seq: u64, intent: IntentIx) {
        let known = &mut self.truth.acked[channel as usize];
        *known = (*known).max(seq);
        if !self.truth.stored.insert(intent) {
            self.cover.hit("acknowledged again");
        }
    }

    /// After a turn of a shard: what its replicas say is committed, compared with the disks and with what was said before.
    pub(super) fn look(&mut self, n: usize, shard: u8) {
        for channel in 0..self.history.channels.len() as ChannelIx {
            let (key, _, home) = self.place(channel);
            if home.0 != shard {
                continue;
            }
            let looked = self.nodes[n].channel(&key, home);
            let before = self.truth.seen[n][channel as usize];
            let Some((hw, distributed, leads)) = looked else {
                self.truth.seen[n][channel as usize].leads = None;
                continue;
            };
            if distributed > hw {
                self.violation("distributed", format!("n{n} {}: {distributed}, committed {hw}", key.id));
            }
            if hw > before.hw {
                self.commit(n, channel, before.hw, hw);
            }
            let since = if leads { Some(before.leads.unwrap_or(self.now)) } else { None };
            if let (Some(since), Some(_), true) = (since, before.leads, distributed > before.distributed) {
                self.handed_on(n, channel, since, before.distributed, distributed);
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
                Seen { hw: hw.max(before.hw), leads: since, led: before.led || leads, distributed };
        }
    }

    /// `n` says that everything up to `hw` is committed.
    fn commit(&mut self, n: usize, channel: ChannelIx, from: u64, hw: u64) {
        for seq in from + 1..=hw {
            self.truth.judged += 1;
            let Some((record, _)) = self.row(n, channel, seq) else {
                let name = self.history.show_channel(channel);
                return self.violation("INV-1", format!("n{n} {name}: commits {seq} without having it"));
            };
            let id = record.message_id;
            let known = self.truth.committed[channel as usize].get(seq as usize - 1).copied();
            let name = self.history.show_channel(channel);
            match known {
                Some(k) if k != id => {
                    let what = format!("n{n} {name}: seq {seq} is {id} here, committed as {k}");
                    return self.violation("INV-2", what);
                }
                Some(_) => {}
                None => {
                    let holders = (0..self.nodes.len()).filter_map(|m| self.row(m, channel, seq));
                    let durable = holders.filter(|(r, synced)| r.message_id == id && *synced).count();
                    if durable < self.majority() {
                        let what = format!("n{n} {name}: commits {seq}, which {durable} disks have");
                        return self.violation("commit", what);
                    }
                    self.truth.committed[channel as usize].push(id);
                }
            }
        }
    }

    /// A leader says that the recipients' lanes have these: whoever was connected here before it led gets them.
    fn handed_on(&mut self, n: usize, channel: ChannelIx, since: u64, from: u64, to: u64) {
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
                self.truth.due.push_back((at, *conn, channel, seq));
            }
        }
    }

    pub(super) fn check_all(&mut self) {
        while let Some((at, conn, channel, seq)) = self.truth.due.front().copied() {
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
            let Some((record, _)) = self.row(c.node, channel, seq) else { continue };
            let sent = tag(&record.payload).is_some_and(|i| self.sent_on(conn, i));
            if !sent && !self.truth.received.contains(&(conn, channel, seq)) {
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

    fn note_command(&mut self, value: &[u8]) {
        let Ok((_, Command::Assign { command, .. })) = Command::from_entry(&bytes::Bytes::copy_from_slice(value))
        else {
            return;
        };
        match command {
            AssignCommand::Elect { .. } => self.cover.hit("elected a channel's leader"),
            AssignCommand::Lead { .. } => self.cover.hit("fenced"),
            AssignCommand::Handover { .. } => self.cover.hit("handed over"),
            _ => {}
        }
    }

    fn note_log_row(&mut self, key: &[u8], value: &[u8]) {
        let seq = keys::parse_log_seq(key).unwrap_or_default();
        let record = Record::decode(seq, &bytes::Bytes::copy_from_slice(value)).ok();
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
        self.cover.hit("truncated");
        self.truth.cut[n] = true;
        for (seq, id) in cut {
            let committed = self.truth.committed.iter().position(|c| c.get(seq as usize - 1) == Some(&id));
            if let Some(channel) = committed {
                let name = self.history.show_channel(channel as ChannelIx);
                self.violation("INV-3", format!("n{n} {name}: cuts {seq}, which is committed"));
            }
        }
    }
}
