//! Counts of what a shard did, each with a stable name.

macro_rules! counters {
    ($(#[$about:meta])* $counters:ident: $($(#[$doc:meta])* $name:ident,)*) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $counters { $($(#[$doc])* pub $name: u64,)* }

        impl $counters {
            /// Names and values, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Monotonic counts since the shard started.
    Counters:
    inputs,
    connections_opened,
    connections_closed,
    connects_accepted,
    connects_refused,
    sends,
    sendacks_success,
    sendacks_refused,
    /// Owed acks that the owner's deadline answered.
    sendacks_timed_out,
    dedup_hits,
    dedup_loads,
    recvs,
    recv_retries,
    recvacks,
    pings,
    persists,
    persisted_bytes,
    appends,
    appended_entries,
    loads,
    late_completions,
    mail_out,
    mail_waits,
    queue_refusals,
    frames_ignored,
    violations,
    channels_activated,
    channels_settled,
    channels_evicted,
    /// Logs of deleted generations that were here.
    generations_ended,
    slot_entries,
    /// Snapshots of slots that began to be sent.
    snapshots_begun,
    /// Snapshots of slots that were put in place.
    snapshots_restored,
    /// Comparisons of a slot's settled channels; members that differed; channels that were woken for it.
    audits,
    audits_differ,
    audits_woken,
    untracked_recvs,
}
