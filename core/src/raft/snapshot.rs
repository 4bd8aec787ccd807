//! Snapshots, the start of the log, and replicas that fell behind it (cluster-and-raft 4.15, P7).

use super::config::Replica;
use super::core::{GroupCore, Op, Output, Role};
use super::journal::Token;
use super::log::Log;
use super::message::{Message, RefuseKind, Snapshot};
use super::tail::Tail;
use crate::ids::{Epoch, Position};
use crate::mutants::RaftMutant;
use alloc::sync::Arc;
use bytes::Bytes;

/// How far the installation of a snapshot is.
#[derive(Clone, Debug)]
pub struct Install {
    pub snapshot: Arc<Snapshot>,
    /// Epoch of the leader that sends it. A later leader is asked first whether it has the entries after all.
    pub epoch: Epoch,
    /// Bytes written so far.
    pub offset: u64,
    pub stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A chunk is asked for, or being written.
    Fetching,
    /// The log's new base is on its way to the disk.
    Basing(Token),
    /// The state machine is being brought there.
    Restoring,
}

impl GroupCore {
    /// The owner made a snapshot, and the log may forget what it contains.
    pub(super) fn on_snapshot_taken(&mut self, snapshot: Arc<Snapshot>, keep: u64) {
        let to = snapshot.base.index.saturating_sub(keep).min(self.hw);
        let known = self.log.consistent(snapshot.base) && !self.log.is_below_base(snapshot.base);
        if !known || snapshot.base.index > self.hw {
            return;
        }
        self.snapshot = Some(snapshot);
        self.drop_prefix(to);
    }

    pub(super) fn on_compact(&mut self, upto: u64, keep: u64) {
        let held = |r: &Replica| {
            // Whoever leads next may have to serve anybody.
            let known = self.lead.as_ref().and_then(|lead| lead.peer_ref(*r)).filter(|p| p.durable.epoch == self.epoch);
            known.map_or(0, |p| p.durable.index)
        };
        let others = self.members().members().into_iter().filter(|r| *r != self.config.me);
        let least = others.map(|r| held(&r)).min().unwrap_or(u64::MAX);
        self.drop_prefix(upto.min(least.max(upto.saturating_sub(keep))).min(self.hw));
    }

    fn drop_prefix(&mut self, to: u64) {
        if to > self.log.base.index && self.install.is_none() {
            let base = Position { epoch: self.log.epoch_of(to), index: to };
            let (config_index, config) = {
                let all = self.history.all();
                let at = all.iter().rposition(|(i, _)| *i <= to).unwrap_or(0);
                all[at].clone()
            };
            self.log.rebase(base);
            self.tail.trim(to, 0);
            self.persist([Op::Compact { base, config, config_index }]);
        }
    }

    /// The follower's place is gone: it must begin at the snapshot.
    pub(super) fn send_base(&mut self, to: Replica) {
        let (now, retry) = (self.now, self.config.timing.retry);
        if self.assigned.settled {
            // It lacks something: awake until it has it.
            self.stir();
        }
        if let Some(p) = self.lead_mut().peer(to) {
            p.pos = None;
            // If that is lost the follower has nothing to ask for: it is called until it does.
            p.begin_at = now + retry;
            p.begin_wait = retry * 2;
        }
        // One that ends before the log begins leads nowhere.
        match self.snapshot.clone().filter(|s| s.base.index >= self.log.base.index) {
            Some(snapshot) => self.send(to, Message::NeedBase { snapshot }),
            None => {
                self.out.push_back(Output::SnapshotWanted { to });
                self.send(to, Message::Refuse { kind: RefuseKind::Busy, leader: self.leader });
            }
        }
    }

    pub(super) fn on_need_base(&mut self, from: Replica, snapshot: Arc<Snapshot>) {
        if !self.hear(from) {
            return;
        }
        let stale = snapshot.base.index <= self.hw && !self.bug(RaftMutant::SnapshotBelowHw);
        // A snapshot below what is committed is of no use.
        if stale || self.install.as_ref().is_some_and(|i| i.stage != Stage::Fetching) {
            return;
        }
        let epoch = self.epoch;
        if let Some(install) = self.install.as_mut().filter(|i| i.snapshot.id == snapshot.id) {
            // Under way already; it goes on where it was, wherever it comes from.
            if core::mem::replace(&mut install.epoch, epoch) != epoch {
                self.fetch_chunk();
            }
            return;
        }
        let no_bytes = snapshot.size == 0;
        self.install = Some(Install { snapshot, epoch, offset: 0, stage: Stage::Fetching });
        if no_bytes {
            self.base_log();
        } else {
            self.fetch_chunk();
        }
    }

    fn fetch_chunk(&mut self) {
        let (Some(install), Some(leader)) = (self.install.as_ref(), self.leader) else { return };
        let ask = Message::SnapshotFetch { id: install.snapshot.id, offset: install.offset };
        self.follow.retry_at = self.now + self.config.timing.retry_max;
        self.send(leader, ask);
    }

    /// The log is about to be replaced: its end means nothing to the leader. Not so while a snapshot comes in and another leader
    /// took office: its answer to the position shows what is needed now.
    pub(super) fn installing(&self) -> bool {
        self.install.as_ref().is_some_and(|i| i.stage != Stage::Fetching || i.epoch == self.epoch)
    }

    /// The leader was silent.
    pub(super) fn resume_install(&mut self) {
        if self.install.as_ref().is_some_and(|i| i.stage == Stage::Fetching) {
            self.fetch_chunk();
        }
    }

    pub(super) fn on_snapshot_fetch(&mut self, from: Replica, id: u64, offset: u64) {
        if self.role != Role::Leader {
            return self.send(from, Message::Refuse { kind: RefuseKind::NotLeader, leader: self.leader });
        }
        let now = self.now;
        if let Some(p) = self.lead_mut().peer(from) {
            p.seen = Some(now);
            p.begin_at = crate::time::Instant::NEVER;
        }
        self.out.push_back(Output::ReadSnapshot { to: from, id, offset });
    }

    pub(super) fn on_snapshot_part(&mut self, to: Replica, id: u64, offset: u64, part: Option<(Bytes, bool)>) {
        if self.role != Role::Leader {
            return;
        }
        match part {
            Some((bytes, last)) => self.send(to, Message::SnapshotChunk { id, offset, bytes, last }),
            // Another one took its place.
            None => self.send_base(to),
        }
    }

    pub(super) fn on_snapshot_chunk(&mut self, from: Replica, id: u64, offset: u64, bytes: Bytes, last: bool) {
        if !self.hear(from) {
            return;
        }
        let Some(install) = self.install.as_mut() else { return };
        if install.snapshot.id != id || install.offset != offset || install.stage != Stage::Fetching {
            return;
        }
        install.offset += bytes.len() as u64;
        let snapshot = Arc::clone(&install.snapshot);
        self.follow.retry_at = self.now + self.config.timing.retry_max;
        self.out.push_back(Output::WriteSnapshot { snapshot, offset, bytes, last });
    }

    pub(super) fn on_snapshot_written(&mut self, id: u64, outcome: Result<bool, ()>) {
        if !self.install.as_ref().is_some_and(|i| i.snapshot.id == id && i.stage == Stage::Fetching) {
            return;
        }
        match outcome {
            Ok(false) => self.fetch_chunk(),
            Ok(true) => self.base_log(),
            Err(()) => {
                // Damaged on the way: discarded, and the position stated again.
                self.install = None;
                self.fetch();
            }
        }
    }

    /// The snapshot is durable: the log is based on it (P7). What continues it is kept.
    fn base_log(&mut self) {
        let Some(install) = self.install.as_ref() else { return };
        let snapshot = Arc::clone(&install.snapshot);
        if snapshot.base.index <= self.hw && !self.bug(RaftMutant::SnapshotBelowHw) {
            // Others brought more meanwhile.
            self.install = None;
            return self.fetch();
        }
        let keep_log = self.log.consistent(snapshot.base) && !self.log.is_below_base(snapshot.base);
        if keep_log {
            self.log.rebase(snapshot.base);
            self.tail.trim(snapshot.base.index, 0);
        } else {
            self.log = Log::starting_at(snapshot.base);
            self.tail = Tail::default();
            self.follow.validated = None;
            self.journal.discard(|m| matches!(m.message, Message::Fetch(_)));
        }
        self.history.rolled_back(self.log.end().index);
        self.history.rebase(snapshot.config_index, Arc::clone(&snapshot.config));
        let token = self.persist([Op::Rebase { snapshot, keep_log }]);
        self.install.as_mut().expect("just seen").stage = Stage::Basing(token);
        self.follow.retry_at = crate::time::Instant::NEVER;
    }

    pub(super) fn install_persisted(&mut self, token: Token) {
        if let Some(install) = self.install.as_mut()
            && matches!(install.stage, Stage::Basing(base) if base <= token)
        {
            install.stage = Stage::Restoring;
            let snapshot = Arc::clone(&install.snapshot);
            self.out.push_back(Output::Restore { snapshot });
        }
    }

    pub(super) fn on_restored(&mut self) {
        if !self.install.as_ref().is_some_and(|i| i.stage == Stage::Restoring) {
            return;
        }
        let install = self.install.take().expect("just seen");
        let base = install.snapshot.base.index;
        self.snapshot = Some(install.snapshot);
        if self.bug(RaftMutant::SnapshotBelowHw) {
            self.hw = base;
        }
        self.raise_hw(base);
        self.fetch();
    }
}
