//! Channels that are deleted and made anew. Each generation is a log of its own, with seqs from 1: nothing of one that is over is
//! read, or promised to a SEND made after that (S80).

use super::world::{Event, World};
use crate::clock::MS;
use crate::history::{Call, ChannelIx, IntentIx, LinkIx};
use crate::world::truth::head;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use wukong_core::Input;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::error::Refusal;
use wukong_core::ids::{CallId, ChannelKey, ChannelNo, SlotId};
use wukong_core::store::rows::{Assignment, Format, Place};
use wukong_core::store::{Family, Record, keys};

/// Times that the operator asks for a deletion.
const TRIES: u32 = 8;

/// What is known of the generations of a channel.
#[derive(Clone, Debug, Default)]
pub struct Eras {
    /// Those of which something was committed, each with its place in the history.
    seen: Vec<(u64, ChannelIx)>,
    /// Those that somebody proposed to end, and how far they went.
    ended: BTreeMap<u64, u64>,
    /// Up to this one all are over: somebody was told so.
    void: u64,
    /// That somebody is being told.
    done: bool,
    /// Deletions that were begun; of these, those of which the outcome is unknown.
    begun: u64,
    open: u64,
}

impl World {
    /// All channels, generations aside.
    pub(super) fn channels(&self) -> std::ops::Range<ChannelIx> {
        0..self.truth.eras.len() as ChannelIx
    }

    /// A generation as a channel of its own.
    pub(super) fn era(&mut self, channel: ChannelIx, generation: u64) -> ChannelIx {
        let eras = &mut self.truth.eras[channel as usize].seen;
        if let Some((_, era)) = eras.iter().find(|(g, _)| *g == generation) {
            return *era;
        }
        let first = eras.is_empty();
        let era = if first { channel } else { self.history.channels.len() as ChannelIx };
        eras.push((generation, era));
        if !first {
            self.cover.hit("made anew");
            let again = self.history.channels[channel as usize].clone();
            self.history.channels.push(again);
        }
        era
    }

    fn of_era(&self, era: ChannelIx) -> Option<(ChannelIx, u64)> {
        let key = &self.history.channels[era as usize].key.id;
        let channel = *self.history.channel_of.get(key)?;
        let (generation, _) = self.truth.eras[channel as usize].seen.iter().find(|(_, e)| *e == era)?;
        Some((channel, *generation))
    }

    /// Somebody proposed to end it: perhaps it is over.
    pub(super) fn has_ended(&self, era: ChannelIx) -> bool {
        self.of_era(era).is_some_and(|(c, g)| self.truth.eras[c as usize].ended.contains_key(&g))
    }

    pub(super) fn note_ended(&mut self, key: &ChannelKey, generation: u64, last: u64) {
        if let Some(channel) = self.history.channel_of.get(&key.id).copied() {
            let known = self.truth.eras[channel as usize].ended.entry(generation).or_default();
            *known = last.max(*known);
        }
    }

    /// The operator wants a channel deleted.
    pub(super) fn ask_deletion(&mut self, channel: usize) {
        self.delete(channel as ChannelIx, 0);
    }

    pub(super) fn delete(&mut self, channel: ChannelIx, tries: u32) {
        if tries >= TRIES || self.quiet.began > 0 {
            return;
        }
        let (key, slot, _) = self.place(channel);
        let Some(n) = self.serving(slot).filter(|n| self.nodes[*n].alive) else {
            return self.later(500 * MS, Event::Delete { channel, tries: tries + 1 });
        };
        let request = ApiRequest::DeleteChannel { channel_id: key.id, channel_type: key.kind };
        let home = request.home(self.plan.slots as u16, self.plan.shards as u8).0;
        let call = CallId(self.history.calls.len() as u64);
        let eras = &mut self.truth.eras[channel as usize];
        eras.begun += 1;
        eras.open += 1;
        self.history.calls.push(Call {
            request: request.clone(),
            began: self.now,
            ended: None,
            answer: None,
            bounds: vec![(channel, 0, u64::from(tries))],
            durable: true,
            lost: false,
        });
        self.arrive(n, home, Input::Call { call, request });
    }

    pub(super) fn deletion_answered(&mut self, call: CallId, channel: ChannelIx, answer: ApiAnswer) {
        let now = self.now;
        let c = &mut self.history.calls[call.0 as usize];
        let tries = c.bounds[0].2 as u32 + 1;
        c.ended = Some(now);
        c.answer = Some(answer.clone());
        let eras = &mut self.truth.eras[channel as usize];
        match answer {
            ApiAnswer::Done => {
                eras.open -= 1;
                eras.done = true;
                return self.cover.hit("deleted");
            }
            ApiAnswer::Refused(Refusal::Busy) => eras.open -= 1,
            _ => self.cover.hit("deletion of unknown outcome"),
        }
        self.later(500 * MS, Event::Delete { channel, tries });
    }

    /// After the turn that said so: the record is written. Everything older than the newest generation is over, and so is that if its
    /// record says so.
    pub(super) fn note_deleted(&mut self) {
        for channel in self.channels() {
            if std::mem::take(&mut self.truth.eras[channel as usize].done) {
                let void = self.record(channel).map_or(0, |a| a.void());
                let eras = &mut self.truth.eras[channel as usize];
                eras.void = eras.void.max(void);
            }
        }
    }

    /// A SEND arrives: what was said to be over before is over for it.
    pub(super) fn note_sent(&mut self, link: LinkIx, intent: IntentIx) {
        let Some(channel) = self.history.intents[intent as usize].channel else { return };
        let void = self.truth.eras[channel as usize].void;
        self.truth.sent_under.entry((link, intent)).or_insert(void);
    }

    /// A read begins: the last seq that it has to return.
    pub(super) fn readable_from(&mut self, channel: ChannelIx, call: CallId) -> u64 {
        let eras = &self.truth.eras[channel as usize];
        self.truth.reads.insert(call.0, (eras.void, eras.begun));
        let newest =
            eras.seen.iter().max().filter(|(g, _)| eras.open == 0 && *g > eras.void && !eras.ended.contains_key(g));
        newest.and_then(|(_, era)| self.truth.acked.get(era)).copied().unwrap_or(0)
    }

    /// Which generation a read returned, and the last seq that it had to return, if that is not what it was when it began.
    pub(super) fn read_era(
        &mut self,
        call: CallId,
        channel: ChannelIx,
        answer: &ApiAnswer,
    ) -> (ChannelIx, Option<u64>) {
        let (void, begun) = self.truth.reads.remove(&call.0).unwrap_or_default();
        let eras = self.truth.eras[channel as usize].clone();
        let newest = eras.seen.iter().max().map_or(channel, |(_, era)| *era);
        let low = (eras.begun != begun).then_some(0);
        let ApiAnswer::Messages(page) = answer else { return (newest, low) };
        let mut of: Vec<ChannelIx> =
            page.messages.iter().filter_map(|m| self.history.era_of.get(&m.message_id).copied()).collect();
        of.dedup();
        if of.len() > 1 {
            self.violation("S80", format!("{}: a read mixes generations", self.history.show_channel(channel)));
        }
        let Some(era) = of.first().copied() else { return (newest, low) };
        let generation = self.of_era(era).map_or(0, |(_, g)| g);
        if generation <= void {
            let name = self.history.show_channel(channel);
            self.violation("S80", format!("{name}: a read returned generation {generation}, deleted before it began"));
        }
        (era, low)
    }

    /// What was void to a SEND that is answered now: of the deletions done before it was made, as far as the node that answers has
    /// heard. A leader that is cut off repeats what it said of a message that was committed before.
    pub(super) fn void_to(&self, link: LinkIx, intent: IntentIx, channel: ChannelIx) -> u64 {
        let (key, slot, _) = self.place(channel);
        let disk = &self.nodes[self.conns[link as usize].node].storage.disk;
        let row = disk.row(Family::Meta, &keys::assignment(slot, &key));
        let known = row.and_then(|r| Assignment::decode(&r.value).ok()).map_or(0, |a| a.void());
        self.truth.sent_under.get(&(link, intent)).copied().unwrap_or(0).min(known)
    }

    /// Whether it is right to call an entry committed that so many disks have for good. Of a generation that is over it was there when
    /// the fence round asked: a replica that slept may hear of it when the others have nothing left of it.
    pub(super) fn may_be_committed(&self, channel: ChannelIx, generation: u64, seq: u64, durable: usize) -> bool {
        let enough = durable >= self.majority();
        let Some(last) = self.truth.eras[channel as usize].ended.get(&generation) else { return enough };
        // Perhaps nothing came of the proposal to end it.
        let over = self.record(channel).is_some_and(|a| generation <= a.void());
        seq <= *last || (enough && !over)
    }

    /// What was promised after a deletion is of a newer generation.
    pub(super) fn judge_eras(&mut self) {
        for (at, intent, id, void) in std::mem::take(&mut self.truth.promised) {
            self.truth.judged += 1;
            let era = self.history.era_of.get(&id).copied();
            let generation = era.and_then(|era| self.of_era(era)).map(|(_, g)| g);
            if generation.is_some_and(|g| g <= void) {
                let what = format!("intent {intent} sent when {void} was over, acknowledged as {id} of {generation:?}");
                self.violation("S80", format!("{what} at {at}"));
            }
        }
    }

    /// What a generation's log is in the end: on disk, or what was committed of it before it was deleted.
    pub(super) fn log_of_era(&self, era: ChannelIx) -> Vec<Record> {
        let committed = self.truth.committed.get(&era).cloned().unwrap_or_default();
        let Some((channel, generation)) = self.of_era(era) else { return committed };
        if self.record(channel).is_none_or(|a| generation <= a.void()) {
            return committed;
        }
        let here = |n: &usize| self.generation_on_disk(*n, channel) == Some(generation);
        let mut all: Vec<Vec<Record>> = (0..self.nodes.len()).filter(here).map(|n| self.log(n, channel)).collect();
        all.sort_by_key(|log| std::cmp::Reverse(log.len().min(committed.len())));
        let mut log = all.into_iter().next().unwrap_or_default();
        log.truncate(committed.len());
        log
    }

    fn generation_on_disk(&self, n: usize, channel: ChannelIx) -> Option<u64> {
        let disk = &self.nodes[n].storage.disk;
        head(disk, &self.history, self.plan.slots as u16, channel).map(|h| h.generation)
    }

    /// A node that has what is void.
    pub(super) fn left_behind(&self, channel: ChannelIx, record: &Assignment) -> Option<String> {
        let old = |n: &usize| self.generation_on_disk(*n, channel).is_some_and(|g| g <= record.void());
        let n = (0..self.nodes.len()).find(old)?;
        Some(format!("{}: n{n} has a log of a deleted generation", self.history.show_channel(channel)))
    }

    /// The log of this key's number is on its way out.
    pub(super) fn is_doomed(&self, n: usize, log_key: &[u8]) -> bool {
        let slot = SlotId(u16::from_be_bytes([log_key[0], log_key[1]]));
        self.doomed(n, slot, keys::parse_log_no(log_key).unwrap_or_default())
    }

    fn doomed(&self, n: usize, slot: SlotId, no: ChannelNo) -> bool {
        self.nodes[n].storage.disk.row(Family::Raft, &keys::doomed(slot, no)).is_some()
    }

    pub(super) fn index_is_doomed(&self, n: usize, key: &Bytes, value: &Bytes) -> bool {
        let slot = SlotId(u16::from_be_bytes([key[0], key[1]]));
        let no = if key[2] == keys::table::MESSAGE_ID {
            Place::decode(value).map_or(ChannelNo(0), |p| p.channel_no)
        } else {
            keys::parse_doomed(key).unwrap_or_default()
        };
        self.doomed(n, slot, no)
    }

    /// In the end nothing is left of deleted logs.
    pub(super) fn check_nothing_left(&mut self, n: usize) {
        let slots = self.plan.slots as u16;
        let (channels, disk) = (self.channels(), &self.nodes[n].storage.disk);
        let heads =
            channels.filter_map(|c| Some((self.place(c).1.0, head(disk, &self.history, slots, c)?.channel_no.0)));
        let heads: BTreeSet<(u16, u64)> = heads.collect();
        let part = |key: &Bytes| (u16::from_be_bytes([key[0], key[1]]), keys::parse_log_no(key).map_or(0, |no| no.0));
        let strange = |family: Family| disk.all(family).map(|(key, _)| part(key)).find(|at| !heads.contains(at));
        let left = strange(Family::Log).or_else(|| strange(Family::Marks));
        let list = disk.all(Family::Raft).any(|(key, _)| key[2] == keys::table::DOOMED && key[..2] != [0xff, 0xff]);
        if left.is_some() || list {
            self.violation("left", format!("n{n} still has rows of a log that is nobody's: {left:?}"));
        }
    }
}
