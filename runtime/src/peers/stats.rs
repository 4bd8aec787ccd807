//! Counts of what the links did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Monotonic counts since the start, written by the links and the reactors.
        #[derive(Debug, Default)]
        pub(super) struct Stats { $(pub $name: AtomicU64,)* }

        /// What they were at one instant, each with a stable name.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct PeerSample { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            pub fn sample(&self) -> PeerSample {
                PeerSample { $($name: self.$name.load(Relaxed),)* }
            }
        }

        impl PeerSample {
            /// Names and values, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

stats! {
    peer_links_up,
    peer_links_down,
    /// Attempts to open a link that failed.
    peer_dials_failed,
    /// Streams that this side refused.
    peer_streams_refused,
    peer_frames_out,
    peer_bytes_out,
    peer_frames_in,
    peer_bytes_in,
    /// Frames for a node without an open link: dropped.
    peer_frames_without_link,
    /// Frames of data and bulk streams dropped because too much waited.
    peer_frames_dropped,
    /// Links closed because the control queue was full.
    peer_control_overflows,
    /// Links closed because the peer sent what no peer sends.
    peer_violations,
    /// Times a data or bulk stream was not read because too much waited for a shard.
    peer_reads_paused,
}

pub(super) fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Relaxed);
}
