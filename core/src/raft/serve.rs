//! The leader's side of replication: fetches, divergence, items (cluster-and-raft 4.10).

use super::config::Replica;
use super::core::{Alarm, GroupCore, Mode, Output, Role};
use super::lead::Progress;
use super::message::{Entry, Fetch, Item, Message, RefuseKind};
use crate::ids::{Incarnation, Position};
use crate::mutants::RaftMutant;
use crate::time::Instant;
use alloc::vec::Vec;

impl GroupCore {
    pub(super) fn on_fetch(&mut self, from: Replica, incarnation: Incarnation, f: &Fetch) {
        if self.role != Role::Leader {
            return self.send(from, Message::Refuse { kind: RefuseKind::NotLeader, leader: self.leader });
        }
        if !self.members().is_member(from) && self.refuse_stranger(from, f) {
            return;
        }
        if !self.note_fetch(from, incarnation, f) {
            return;
        }
        if self.bug(RaftMutant::AckBeforeCheck) {
            self.lead_mut().peer(from).expect("noted").durable = Position { epoch: self.epoch, index: f.durable.index };
        }
        self.try_commit();
        if self.role != Role::Leader {
            return;
        }
        if self.log.is_below_base(f.pos) {
            return self.send_base(from);
        }
        let skip = self.bug(RaftMutant::SingleRoundRepair) && self.lead_mut().peer(from).is_some_and(|p| p.repaired);
        if !self.log.consistent(f.pos) && !skip {
            let keep = self.log.epoch_end(f.pos.epoch);
            let p = self.lead_mut().peer(from).expect("noted");
            p.pos = None;
            p.repaired = true;
            return self.send(from, Message::Diverged { req_pos: f.pos, keep });
        }
        let end = self.log.end();
        if f.pos != end && self.assigned.settled {
            self.stir();
        }
        let now = self.now;
        let retry = self.config.timing.retry;
        let p = self.lead_mut().peer(from).expect("noted");
        let advanced = p.pos.is_none_or(|old| f.pos > old);
        p.pos = Some(f.pos);
        p.answer_now |= f.answer_now;
        if p.flight.is_some_and(|(to, until)| f.pos >= to || now >= until || f.pos == end) {
            p.flight = None;
        }
        if advanced {
            p.flight_wait = retry;
        }
        if self.assigned.settled && self.lead_mut().peer(from).is_some_and(|p| p.durable != end) {
            // It lacks something: awake until it has it.
            self.stir();
        }
        self.transfer_progress();
        self.handover_progress();
    }

    /// A fetch from someone who is no member: true when it is not served. A removed voter still gets its own removal.
    fn refuse_stranger(&mut self, from: Replica, f: &Fetch) -> bool {
        let learned = f.hw >= self.history.index() && self.config.mode == Mode::Elected;
        if learned || self.bug(RaftMutant::RemovedNotServed) {
            if let Some(lead) = self.lead.as_mut() {
                lead.peers.retain(|p| p.peer != from);
            }
            self.send(from, Message::Refuse { kind: RefuseKind::Removed, leader: self.leader });
            return true;
        }
        let (now, retry) = (self.now, self.config.timing.retry);
        let lead = self.lead_mut();
        if lead.peer(from).is_none() {
            lead.peers.push(Progress::new(from, now, retry));
        }
        false
    }

    /// Records what a fetch says of its sender. False: it is old, or contradicts what is known.
    fn note_fetch(&mut self, from: Replica, incarnation: Incarnation, f: &Fetch) -> bool {
        let (epoch, end, now, retry) = (self.epoch, self.log.end(), self.now, self.config.timing.retry);
        let lead = self.lead_mut();
        if lead.peer(from).is_none() {
            lead.peers.push(Progress::new(from, now, retry));
        }
        let p = lead.peer(from).expect("just added");
        let reborn = incarnation > p.incarnation;
        if reborn {
            let (claimed, old) = (p.claimed, p.incarnation);
            *p = Progress { incarnation, claimed, ..Progress::new(from, now, retry) };
            p.suspect = claimed.epoch == epoch && old.0 > 0 && f.durable < claimed;
        } else if f.seq <= p.fetch_seq {
            return false;
        }
        p.fetch_seq = f.seq;
        p.seen = Some(now);
        p.begin_at = Instant::NEVER;
        p.beat = p.beat.max(f.beat);
        p.suspect |= f.damaged;
        let mut alarm = (reborn && p.suspect && !f.damaged).then_some(Alarm::LostAck);
        if f.durable.epoch == epoch {
            if f.durable.index > end.index {
                self.alarm(Alarm::ForeignTail);
                self.send(from, Message::Refuse { kind: RefuseKind::Version, leader: self.leader });
                return false;
            }
            p.durable = p.durable.max(f.durable);
            if f.durable >= p.claimed && !f.damaged {
                p.suspect = false;
                p.claimed = f.durable;
            }
        }
        if let Some(alarm) = alarm.take() {
            self.alarm(alarm);
        }
        self.reads_echoed();
        true
    }

    pub(super) fn lead_mut(&mut self) -> &mut super::lead::Lead {
        self.lead.as_mut().expect("a leader leads")
    }

    /// Sends peer `i` what it lacks, unless something is on its way to it.
    pub(super) fn serve(&mut self, i: usize) {
        let Some(lead) = self.lead.as_mut() else { return };
        let Some(p) = lead.peers.get_mut(i) else { return };
        let Some(pos) = p.pos else { return };
        let end = self.log.end();
        let due = core::mem::take(&mut p.answer_now);
        if pos == end {
            p.flight = None;
        } else if p.flight.is_none() && p.reading.is_none() && !lead.paused.contains(&p.peer.node) {
            return self.serve_items(i, pos);
        }
        if due {
            let (peer, seq) = (p.peer, p.fetch_seq);
            p.hw_sent = self.hw;
            let (hw, distributed, leader_last) = (self.hw, self.distributed, end.index);
            self.send(
                peer,
                Message::Items { prev: pos, items: Vec::new(), hw, distributed, leader_last, fetch_seq: seq },
            );
        }
    }

    fn serve_items(&mut self, i: usize, pos: Position) {
        let end = self.log.end();
        if self.log.is_below_base(pos) {
            let peer = self.lead_mut().peers[i].peer;
            return self.send_base(peer);
        }
        let entries = if pos.index == end.index {
            Some(Vec::new())
        } else {
            self.tail.from(pos.index + 1, self.config.bounds.fetch)
        };
        match entries {
            Some(entries) => self.send_items(i, pos, entries),
            None => {
                let request = self.next_request;
                self.next_request += 1;
                let to = self.tail.first().map_or(end.index, |first| first - 1);
                self.lead_mut().peers[i].reading = Some(request);
                let max_bytes = self.config.bounds.fetch;
                self.out.push_back(Output::ReadLog { request, from: pos.index + 1, to, max_bytes });
            }
        }
    }

    pub(super) fn on_log_read(&mut self, request: u64, entries: Option<Vec<Entry>>) {
        let leak = self.bug(RaftMutant::CreditLeak);
        let Some(lead) = self.lead.as_mut() else { return };
        let Some(i) = lead.peers.iter().position(|p| p.reading == Some(request)) else { return };
        let (now, retry) = (self.now, self.config.timing.retry);
        let p = &mut lead.peers[i];
        if entries.is_none() && leak {
            return;
        }
        p.reading = None;
        match (entries, p.pos) {
            (Some(entries), Some(pos)) if entries.first().is_some_and(|e| e.index == pos.index + 1) => {
                self.send_items(i, pos, entries);
            }
            // Superseded: it is served anew at the end of this step.
            (Some(_), _) | (None, None) => {}
            (None, Some(pos)) => {
                // As if it were lost on the way: tried again after the retry time.
                p.flight = Some((pos, now + retry));
                let (peer, leader) = (p.peer, self.leader);
                self.send(peer, Message::Refuse { kind: RefuseKind::Busy, leader });
            }
        }
    }

    /// `entries` follow `pos`; the marks that lie between them are put in their places.
    fn send_items(&mut self, i: usize, pos: Position, entries: Vec<Entry>) {
        let last = entries.last().map_or(pos.index, |e| e.index);
        let mut items = Vec::with_capacity(entries.len() + 1);
        let mut marks = self.log.marks_after(pos.epoch).filter(|(_, at)| *at <= last).peekable();
        let mut epoch = pos.epoch;
        for entry in entries {
            while let Some((e, at)) = marks.next_if(|(_, at)| *at < entry.index) {
                items.push(Item::Mark { epoch: e, at });
                epoch = e;
            }
            items.push(Item::Entry(entry));
        }
        for (e, at) in marks {
            items.push(Item::Mark { epoch: e, at });
            epoch = e;
        }
        let (now, hw, leader_last) = (self.now, self.hw, self.log.end().index);
        let distributed = self.distributed;
        let p = &mut self.lead_mut().peers[i];
        p.flight = Some((Position { epoch, index: last }, now + p.flight_wait));
        p.hw_sent = hw;
        let (peer, fetch_seq) = (p.peer, p.fetch_seq);
        self.send(peer, Message::Items { prev: pos, items, hw, distributed, leader_last, fetch_seq });
    }
}
