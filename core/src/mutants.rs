//! Planted bugs for `make mutants`: each breaks one rule, and the simulator must notice.
//! Without the feature `mutants` every question below is answered `false` at compile time.

/// A planted bug. The simulator names the invariant that must catch each (docs/simulation.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// An append counts as durable when its Persist starts.
    AckOnPersistStart,
    /// The waiters of a batch are completed by the batch before it.
    TokenCompletesEarlier,
    /// Dedup rows of the log are not consulted: after a restart, or eviction, a resend is new.
    DedupTailNotRebuilt,
    /// A key absent from the LRU counts as never seen.
    DedupLruComplete,
    /// A reactivated channel starts at the head row's end and forgets the tail above it.
    SeqReusedAfterRestart,
    /// Message ids are used without a reserved block.
    IdBlockNotReserved,
    /// An event that parks forgets that it owes an ack.
    SendackDroppedOnPark,
    /// The connection that sent a message receives it too.
    RecvToOrigin,
    /// RECVACK removes nothing.
    RecvackIgnored,
    /// `distributed` moves when the push is sent, not when it is accepted.
    DistributedOnSend,
    /// A push that finds no credit at its target is dropped.
    MailLostWhenFull,
    /// A loaded row is used although a newer one was applied and evicted meanwhile.
    StaleLoadAfterEviction,
}

impl Mutant {
    pub const ALL: [Self; 12] = [
        Self::AckOnPersistStart,
        Self::TokenCompletesEarlier,
        Self::DedupTailNotRebuilt,
        Self::DedupLruComplete,
        Self::SeqReusedAfterRestart,
        Self::IdBlockNotReserved,
        Self::SendackDroppedOnPark,
        Self::RecvToOrigin,
        Self::RecvackIgnored,
        Self::DistributedOnSend,
        Self::MailLostWhenFull,
        Self::StaleLoadAfterEviction,
    ];
}
