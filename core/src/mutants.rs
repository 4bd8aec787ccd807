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
    /// What a truncation cuts stays in the index of keys.
    TruncateKeepsDedupRows,
    /// A follower writes no index of keys.
    FollowerIndexMissing,
    /// Promises of a leader that lost office are kept, and given when their index commits.
    PromiseKeptOverOffice,
    /// What was committed before a leader led, and not handed on, is not.
    ArrearsForgotten,
    /// Only what begins an epoch brings a follower into memory.
    FollowerForgotten,
    /// A replica that is loaded again numbers its fetches from 1.
    FetchesNumberedAnew,
    /// Keys of entries that others made committed are looked up among what is durable here.
    CommitTakenForDurable,
    /// A slot's snapshot has rows that are newer than its base.
    SnapshotOfToday,
    /// Of a slot's snapshot only the first chunk is kept.
    SnapshotCutShort,
    /// A replica goes on with the log that it has when its channel was made anew (M30).
    OldGenerationKept,
    /// Settled channels that differ are not woken.
    AntiEntropySkipped,
}

impl Mutant {
    /// Those that several nodes are needed to notice.
    pub const CLUSTER: [Self; 11] = [
        Self::TruncateKeepsDedupRows,
        Self::FollowerIndexMissing,
        Self::PromiseKeptOverOffice,
        Self::ArrearsForgotten,
        Self::FollowerForgotten,
        Self::FetchesNumberedAnew,
        Self::CommitTakenForDurable,
        Self::SnapshotOfToday,
        Self::SnapshotCutShort,
        Self::OldGenerationKept,
        Self::AntiEntropySkipped,
    ];

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

/// Planted bugs of replication (cluster-and-raft 4.30); the number is that of its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RaftMutant {
    /// M1: a vote leaves before it is durable.
    VoteBeforeHard,
    /// M2: the vote of an epoch is forgotten.
    VoteForgotten,
    /// M3: copies are counted without looking at the epoch.
    CommitByCount,
    /// M4: a position is counted before the logs were compared.
    AckBeforeCheck,
    /// M5: learners count.
    LearnerCounted,
    /// M6: a follower believes a commit index without knowing that its log matches.
    HwUnvalidated,
    /// M7: divergence is repaired in one round.
    SingleRoundRepair,
    /// M8: the last epoch is not recomputed after a cut.
    EpochStale,
    /// M9: of two epochs in one batch only the first is recorded.
    LostEpoch,
    /// M10: a leader that hands over goes on writing.
    HandoverKeepsWriting,
    /// M11: voters are replaced in one step.
    OneStepSwap,
    /// M12: a learner that lags is promoted.
    EagerPromote,
    /// M13: a waiter is content with any entry at its index.
    WaiterByIndex,
    /// M14: reads are not confirmed.
    ReadUnconfirmed,
    /// M15: a restarted process leads the epoch it led before.
    SameEpochRestart,
    /// M16: everything in memory counts as durable.
    DurableIsEnd,
    /// M17: a late completion of overwritten items counts.
    LateCompletion,
    /// M18: only indexes are compared in elections.
    ElectionByIndex,
    /// M19: the promise of a fence is not durable.
    PromiseVolatile,
    /// M19: a leader is assigned without a fence round.
    FenceSkipped,
    /// M19: a minority of answers ends the fence round.
    FenceMinority,
    /// M20: joint is left before its mark is committed.
    LeaveJointEarly,
    /// M21: a config is changed before the leader's epoch is committed.
    ConfigBeforeEpochCommitted,
    /// M22: the lease survives a transfer.
    LeaseAfterTransfer,
    /// M23: the lease runs from the arrival of the echo.
    LeaseFromArrival,
    /// M24: a replica that just started votes at once.
    NoBootStickiness,
    /// M25: a leader never checks that it is heard.
    NoCheckQuorum,
    /// M26: a candidate ignores the winner of its epoch.
    CandidateIgnoresWinner,
    /// M27: what a transfer stopped is never resumed.
    TransferStuck,
    /// M28: a failed read of the log leaks the fetch credit.
    CreditLeak,
    /// M29: a removed voter is not served its removal.
    RemovedNotServed,
    /// M30: a channel that was made anew shares its predecessor's log.
    GenerationShared,
    /// M31: a snapshot below the commit index is installed.
    SnapshotBelowHw,
    /// M34: settled while an append is not durable.
    SettleEarly,
    /// M35: the return of a node wakes everything.
    WakeStorm,
    /// M38: a failed sync is taken for a good one.
    SyncErrorIgnored,
    /// M39: the higher epoch of a refused pre-vote is ignored.
    PreVoteRefusalIgnored,
}

impl RaftMutant {
    pub const ALL: [Self; 37] = [
        Self::VoteBeforeHard,
        Self::VoteForgotten,
        Self::CommitByCount,
        Self::AckBeforeCheck,
        Self::LearnerCounted,
        Self::HwUnvalidated,
        Self::SingleRoundRepair,
        Self::EpochStale,
        Self::LostEpoch,
        Self::HandoverKeepsWriting,
        Self::OneStepSwap,
        Self::EagerPromote,
        Self::WaiterByIndex,
        Self::ReadUnconfirmed,
        Self::SameEpochRestart,
        Self::DurableIsEnd,
        Self::LateCompletion,
        Self::ElectionByIndex,
        Self::PromiseVolatile,
        Self::FenceSkipped,
        Self::FenceMinority,
        Self::LeaveJointEarly,
        Self::ConfigBeforeEpochCommitted,
        Self::LeaseAfterTransfer,
        Self::LeaseFromArrival,
        Self::NoBootStickiness,
        Self::NoCheckQuorum,
        Self::CandidateIgnoresWinner,
        Self::TransferStuck,
        Self::CreditLeak,
        Self::RemovedNotServed,
        Self::GenerationShared,
        Self::SnapshotBelowHw,
        Self::SettleEarly,
        Self::WakeStorm,
        Self::SyncErrorIgnored,
        Self::PreVoteRefusalIgnored,
    ];
}
