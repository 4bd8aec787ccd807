//! Counts of what a reactor did with the world.

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Monotonic counts since the reactor started, each with a stable name.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ReactorStats { $($(#[$doc])* pub $name: u64,)* }

        impl ReactorStats {
            /// Names and values, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

stats! {
    /// Times the shard's loop ran.
    reactor_turns,
    accepted_tcp,
    accepted_websocket,
    /// Failed accepts, most often for want of file descriptors.
    accept_errors,
    /// Connections closed at once because the process may not have more files open.
    refused_too_many,
    websocket_handshakes_refused,
    websocket_handshakes_timed_out,
    websocket_violations,
    socket_reads,
    socket_read_bytes,
    socket_writes,
    socket_written_bytes,
    /// Connections closed with bytes unwritten, because their peer took longer than the close may take.
    closes_cut_short,
}
