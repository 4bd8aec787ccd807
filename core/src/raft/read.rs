//! Confirmed reads: by a beat that a quorum echoes, or by lease (cluster-and-raft 4.14).

use super::config::Replica;
use super::core::{GroupCore, Mode, Output, Role};
use super::message::{Message, RefuseKind};
use crate::mutants::RaftMutant;
use crate::time::Instant;
use alloc::vec::Vec;

/// A read that waits for its beat.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    pub ctx: u64,
    /// Commit index when it arrived.
    pub index: u64,
    /// Beat that a quorum must echo.
    pub need: u64,
    /// The follower that asked, if it was not the owner.
    pub from: Option<Replica>,
    /// When it is given up.
    pub until: Instant,
}

/// Reads of this replica's owner that the leader answers.
#[derive(Clone, Debug, Default)]
pub struct Forwarded(Vec<(u64, Instant)>);

impl Forwarded {
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.first().map_or(Instant::NEVER, |(_, at)| *at)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl GroupCore {
    pub(super) fn on_read(&mut self, ctx: u64) {
        match (self.role, self.leader) {
            (Role::Leader, _) => self.begin_read(ctx, None),
            (Role::Follower, Some(leader)) if self.forwarded.0.len() < self.config.bounds.reads => {
                self.forwarded.0.push((ctx, self.now + self.config.timing.t_min));
                self.send(leader, Message::ReadReq { ctx });
            }
            (Role::Follower, Some(_)) => self.refuse(ctx, RefuseKind::Busy),
            _ => self.refuse(ctx, RefuseKind::NotLeader),
        }
    }

    pub(super) fn refuse(&mut self, ctx: u64, kind: RefuseKind) {
        self.out.push_back(Output::ReadReady { ctx, index: Err(kind) });
    }

    pub(super) fn on_read_req(&mut self, from: Replica, ctx: u64) {
        if self.role == Role::Leader {
            self.begin_read(ctx, Some(from));
        } else {
            self.send(from, Message::ReadResp { ctx, index: None });
        }
    }

    fn begin_read(&mut self, ctx: u64, from: Option<Replica>) {
        let (index, until) = (self.hw, self.now + self.config.timing.t_min);
        let unconfirmed = self.bug(RaftMutant::ReadUnconfirmed);
        let bound = self.config.bounds.reads;
        let alone = self.members().quorum(|r| r == self.config.me);
        let lead = self.lead_mut();
        let need = lead.beat_seq + 1;
        let read = Read { ctx, index, need, from, until };
        if !lead.epoch_committed {
            // What older epochs committed is not known yet.
            return self.refuse_read(&read, RefuseKind::Busy);
        }
        if lead.reads.len() >= bound {
            return self.refuse_read(&read, RefuseKind::Busy);
        }
        if unconfirmed || alone {
            return self.serve_read(&read);
        }
        lead.beat_wanted = true;
        lead.reads.push_back(read);
        self.stir();
    }

    fn serve_read(&mut self, read: &Read) {
        match read.from {
            Some(from) => self.send(from, Message::ReadResp { ctx: read.ctx, index: Some(read.index) }),
            None => self.out.push_back(Output::ReadReady { ctx: read.ctx, index: Ok(read.index) }),
        }
    }

    pub(super) fn refuse_read(&mut self, read: &Read, kind: RefuseKind) {
        match read.from {
            Some(from) => self.send(from, Message::ReadResp { ctx: read.ctx, index: None }),
            None => self.refuse(read.ctx, kind),
        }
    }

    pub(super) fn on_read_resp(&mut self, ctx: u64, index: Option<u64>) {
        if let Some(i) = self.forwarded.0.iter().position(|(c, _)| *c == ctx) {
            self.forwarded.0.remove(i);
            self.out.push_back(Output::ReadReady { ctx, index: index.ok_or(RefuseKind::NotLeader) });
        }
    }

    pub(super) fn forwarded_time(&mut self) {
        while self.forwarded.deadline() <= self.now {
            let (ctx, _) = self.forwarded.0.remove(0);
            self.refuse(ctx, RefuseKind::Busy);
        }
        let now = self.now;
        let Some(lead) = self.lead.as_mut() else { return };
        let late: Vec<Read> = lead.reads.iter().filter(|r| now >= r.until).copied().collect();
        lead.reads.retain(|r| now < r.until);
        for read in late {
            self.refuse_read(&read, RefuseKind::Busy);
        }
    }

    /// The leader they were sent to is gone.
    pub(super) fn forwarded_lost(&mut self) {
        for (ctx, _) in core::mem::take(&mut self.forwarded.0) {
            self.refuse(ctx, RefuseKind::NotLeader);
        }
    }

    /// A beat was echoed: serves the reads that a quorum has now confirmed, and extends the lease.
    pub(super) fn reads_echoed(&mut self) {
        let me = self.config.me;
        let Some(lead) = self.lead.as_ref().filter(|l| !l.reads.is_empty() || !l.beats.is_empty()) else { return };
        let newest = lead.beat_seq;
        let echo = |r| if r == me { Some(newest) } else { lead.peer_ref(r).map(|p| p.beat) };
        let Some(echoed) = self.members().quorum_value(echo) else { return };
        self.extend_lease(echoed);
        while let Some(read) = self.lead_mut().reads.front().copied().filter(|r| r.need <= echoed) {
            self.lead_mut().reads.pop_front();
            self.serve_read(&read);
        }
    }

    /// The voters that echoed refuse other candidates for `t_min` after hearing the beat, and they heard it after it was sent.
    fn extend_lease(&mut self, echoed: u64) {
        let from_arrival = self.bug(RaftMutant::LeaseFromArrival);
        let (now, t_min) = (self.now, self.config.timing.t_min);
        let lead = self.lead_mut();
        while let Some((_, sent)) = lead.beats.pop_front_if(|(seq, _)| *seq <= echoed) {
            let start = if from_arrival { now } else { sent };
            // Clocks drift apart by two in a hundred at most.
            lead.lease_until = lead.lease_until.max(start + t_min * 49 / 50);
        }
    }

    pub(super) fn on_lease_read(&mut self, ctx: u64) {
        let lease = self.config.lease && self.config.mode == Mode::Elected;
        let ignore_transfer = self.bug(RaftMutant::LeaseAfterTransfer);
        // Nobody else can be elected while a sole voter is alive.
        let alone = self.members().quorum(|r| r == self.config.me);
        let Some(lead) = self.lead.as_ref().filter(|_| lease) else { return self.refuse(ctx, RefuseKind::NotLeader) };
        let held = alone || self.now < lead.lease_until;
        let valid = lead.epoch_committed && held && (!lead.lease_off || ignore_transfer);
        let index = if valid { Ok(self.hw) } else { Err(RefuseKind::Busy) };
        self.out.push_back(Output::ReadReady { ctx, index });
    }
}
