//! What checks, metrics and owners may see of a replica; nothing elsewhere is decided by it.

use super::config::Replica;
use super::core::{GroupCore, Role};
use super::log::Log;
use super::message::Entry;
use crate::ids::{Epoch, Position};

impl GroupCore {
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    #[must_use]
    pub const fn leader(&self) -> Option<Replica> {
        self.leader
    }

    #[must_use]
    pub const fn hw(&self) -> u64 {
        self.hw
    }

    /// What the owner, or the leader's, handed on of what is committed; at most `hw`.
    #[must_use]
    pub const fn distributed(&self) -> u64 {
        self.distributed
    }

    /// Entries that the last [`super::core::Op::Truncate`] removed, as far as they were in memory, last first. To be asked
    /// when that operation is written.
    pub fn take_cut(&mut self) -> alloc::vec::Vec<Entry> {
        core::mem::take(&mut self.cut)
    }

    /// Whether a proposal would be taken now.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.refusal().is_none()
    }

    /// No write is in flight.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.journal.idle()
    }

    /// It led, and gives way: until the slot has decided it must not forget that.
    #[must_use]
    pub const fn gives_way(&self) -> bool {
        self.assigned.handover.is_some()
    }

    /// The mark of the epoch it leads begins after this index.
    #[must_use]
    pub fn mark_at(&self) -> Option<u64> {
        self.lead.as_ref().map(|l| l.mark_at)
    }

    #[must_use]
    pub const fn log(&self) -> &Log {
        &self.log
    }

    #[must_use]
    pub fn durable(&self) -> Position {
        self.journal.durable()
    }

    #[must_use]
    pub const fn voted_for(&self) -> Option<Replica> {
        self.voted_for
    }

    /// The position up to which its log is known to be the leader's.
    #[must_use]
    pub const fn validated(&self) -> Option<Position> {
        self.follow.validated
    }

    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        self.tail.get(index)
    }

    /// The leader's mark, hence everything before it, is committed.
    #[must_use]
    pub fn epoch_committed(&self) -> bool {
        self.lead.as_ref().is_some_and(|l| l.epoch_committed)
    }

    /// Index of the entry of the config in force.
    #[must_use]
    pub fn config_index(&self) -> u64 {
        self.history.index()
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.journal.held()
    }

    /// What a leader knows a peer to have durably.
    #[must_use]
    pub fn peer_durable(&self, peer: Replica) -> Option<Position> {
        self.lead.as_ref()?.peer_ref(peer).map(|p| p.durable)
    }

    /// Whether this leader has heard from a quorum within the last `t_min`.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.quorum_active()
    }

    /// Whether a peer said that it knows the group to be settled.
    #[must_use]
    pub fn peer_settled(&self, peer: Replica) -> bool {
        self.lead.as_ref().and_then(|l| l.peer_ref(peer)).is_some_and(|p| p.settle_acked)
    }

    /// Bytes of entries in memory.
    #[must_use]
    pub const fn tail_bytes(&self) -> usize {
        self.tail.bytes()
    }

    /// Proposals and reads without an outcome.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.lead.as_ref().map_or(0, |l| l.proposals.len() + l.reads.len()) + self.forwarded.len()
    }

    /// Nothing is outstanding, and the leader said so.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.assigned.settled
    }

    /// Proposals are stopped, for a transfer or handover.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.assigned.handover.is_some() || self.lead.as_ref().is_some_and(|l| l.transfer.is_some())
    }
}
