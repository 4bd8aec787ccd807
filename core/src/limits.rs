//! Every limit of the core, with its unit and what happens beyond it (architecture section 10).

use core::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// No complete CONNECT within this: closed.
pub const FIRST_FRAME: Duration = Duration::from_secs(5);
/// CONNECT received but not answered within this more: closed without CONNACK.
pub const AUTH: Duration = Duration::from_secs(5);
/// No inbound byte for this long: closed, no frame.
pub const IDLE: Duration = Duration::from_secs(180);
/// Time a kicked connection has to drain its DISCONNECT (semantics 3.4).
pub const KICK_CLOSE: Duration = Duration::from_secs(2);
/// The same after a master token was replaced (semantics 3.3.1).
pub const TOKEN_KICK_CLOSE: Duration = Duration::from_secs(10);
/// A graceful stop finishes commits within this.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Inbound bytes not yet decoded: beyond it the connection is closed.
pub const INBOUND_BYTES_MAX: usize = MIB + 64 * KIB;
/// Bytes held while CONNECT is being answered: beyond it the connection is closed.
pub const HELD_BYTES_MAX: usize = 64 * KIB;
/// Bytes waiting to be written: beyond it the connection is closed.
pub const OUTBOUND_BYTES_MAX: usize = 4 * MIB;
/// Room kept for the next write batch.
pub const BATCH_RESERVE_MAX: usize = 256 * KIB;
/// Outbound frames are cut from chunks of this size.
pub const FRAME_CHUNK: usize = 8 * KIB;
/// Plaintext payload on every entry path: beyond it SENDACK NotAllowSend. An encrypted RECV then fits a client's 1 MiB.
pub const PAYLOAD_MAX: usize = 700 * KIB;
/// Bytes of a channel id given by a client: beyond it SENDACK ChannelIDError.
pub const CHANNEL_ID_MAX: usize = 255;
/// Bytes of a uid: beyond it CONNACK AuthFail.
pub const UID_MAX: usize = 120;
/// Bytes of a client_msg_no: beyond it SENDACK NotAllowSend.
pub const CLIENT_MSG_NO_MAX: usize = 255;
/// Bytes of a token: beyond it CONNACK AuthFail, or an API refusal.
pub const TOKEN_MAX: usize = 1024;

/// Events waiting per user: beyond it SENDACK RateLimit.
pub const USER_QUEUE_MAX: usize = 1_000;
/// Events waiting per channel: beyond it SENDACK RateLimit.
pub const CHANNEL_QUEUE_MAX: usize = 1_000;
/// Pushes on their way to the lanes of one shard: beyond it the channel's distribution waits.
pub const LANE_QUEUE_MAX: usize = 4_096;
/// Pusher lanes of a shard.
pub const LANES: usize = 64;
/// Events a drain takes from one queue before the next queue runs.
pub const DRAIN_EVENTS_MAX: usize = 100;
/// Events one `handle` runs before it returns to the shell.
pub const TURN_EVENTS_MAX: usize = 256;
/// Machines waiting to run, and mail to itself: beyond it the shard takes no new work until it caught up.
pub const RUN_QUEUE_HIGH: usize = 65_536;
/// Parked loads per channel: beyond it the queue waits.
pub const PARKED_MAX: usize = 16;

/// Entries of one append group.
pub const APPEND_ENTRIES_MAX: usize = 1_024;
/// Bytes of one append group, or one entry.
pub const APPEND_BYTES_MAX: usize = MIB;
/// Uncommitted bytes a group keeps in memory: beyond it proposals are refused.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 * MIB;
/// Committed entries that the leader of a slot keeps for its followers; older ones are read from disk.
pub const SLOT_TAIL_BYTES: usize = MIB;
/// The same for the leader of a channel.
pub const CHANNEL_TAIL_BYTES: usize = 64 * KIB;
/// Epochs that the log of one group may show. Each costs an election; a group with more stops.
pub const MARKS_MAX: u32 = 65_536;
/// Bytes of their rows.
pub const MARKS_BYTES_MAX: u32 = 4 * MIB as u32;
/// Entries of a channel's log that are read at once.
pub const LOG_PAGE: u32 = 1_024;
/// Voters of a channel. The design wants three (cluster-and-raft 4.22); as long as nodes do not pass SENDs on, every node that may
/// come to lead the slot needs a replica, or nobody could serve the channel.
pub const CHANNEL_REPLICAS_MAX: usize = 7;
/// Time between two comparisons of a slot's settled channels with those of another member (cluster-and-raft 4.19).
pub const AUDIT_EVERY: Duration = Duration::from_secs(3_600);
/// The same after a process, a link or a leader is new, and up to twice that: by then channels that were active have settled again.
pub const AUDIT_SOON: Duration = Duration::from_secs(30);
/// Digests of a slot.
pub const AUDIT_BUCKETS: usize = 1_024;
/// Head rows read at once.
pub const AUDIT_PAGE: u32 = 128;
/// Time between two such reads: 25,000 channels a second at most.
pub const AUDIT_PACE: Duration = Duration::from_millis(5);
/// Rows of one answer, to which one page more may come.
pub const AUDIT_ROWS: usize = 256;
/// Questions that wait at a member: beyond it they are dropped.
pub const AUDIT_ASKS_MAX: usize = 64;
/// A member that has not answered within this is left for the next time.
pub const AUDIT_ANSWER: Duration = Duration::from_secs(60);
/// Time that each channel takes that is woken: 500 a second.
pub const AUDIT_WAKE: Duration = Duration::from_millis(2);
/// Rows of a deleted log that go at once: between two such steps others read and write.
pub const PURGE_ROWS: u32 = 256;
/// What waits for a replica that is being loaded: more is lost, and repeated by its sender.
pub const EARLY_INPUTS_MAX: usize = 16;
/// Entries between two head rows of a channel: bounds what activation reads.
pub const HEAD_EVERY: u64 = 256;

/// Absolute deadline of a SEND at its owner; then SENDACK SystemError.
pub const OWED_ACK: Duration = Duration::from_secs(10);
/// Payload bytes of such SENDs: beyond it reading pauses.
pub const OWED_BYTES_MAX: usize = 4 * MIB;
/// SENDs of one connection without SENDACK: beyond it reading pauses.
pub const OWED_ACKS_MAX: usize = 512;
/// Deadline of an API call.
pub const CALL: Duration = Duration::from_secs(10);
/// API calls in flight per shard: beyond it Busy.
pub const CALLS_MAX: usize = 4_096;
/// Loads in flight per shard: beyond it they wait in the core.
pub const LOADS_MAX: usize = 256;
/// Points of one load.
pub const LOAD_POINTS_MAX: usize = 4_096;

/// Work mail in flight to one shard: beyond it new work waits at its producer.
pub const MAIL_CREDIT: usize = 8_192;

/// Payload bytes of RECVs without RECVACK per connection: beyond it they are sent untracked.
pub const UNACKED_BYTES_MAX: usize = 4 * MIB;
/// RECVs without RECVACK per connection: beyond it they are sent untracked (semantics 5.7.4).
pub const UNACKED_MAX: usize = 1_024;
/// Time between two transmissions of a RECV (semantics 5.7.1).
pub const RETRY_EVERY: Duration = Duration::from_secs(60);
/// Repetitions of a RECV.
pub const RETRY_MAX: u8 = 5;

/// Connections per uid: beyond it the oldest slave connection is closed.
pub const CONNS_PER_UID: usize = 64;
/// Connections per shard.
pub const CONNS_MAX: usize = 1_000_000;
/// Connections of a shard that have not authenticated: beyond it new ones are closed.
pub const UNAUTHENTICATED_MAX: usize = 20_000;

/// Time after which a channel asks again for its participants' membership rows.
pub const DIRECTORY_RETRY: Duration = Duration::from_secs(1);
/// How far the head row's `distributed` may lag in time.
pub const HEAD_HINT: Duration = Duration::from_secs(1);
/// A channel leader idle this long settles (cluster-and-raft 4.19).
pub const SETTLE_IDLE: Duration = Duration::from_secs(10);
/// A settled channel idle this long leaves memory.
pub const EVICT_IDLE: Duration = Duration::from_secs(60);
/// Channels in memory per shard: beyond it idle settled ones are evicted first, then new ones are refused as Busy.
pub const CHANNELS_MAX: usize = 200_000;
/// Users in memory without a connection are dropped at once; with one they stay.
pub const DEDUP_BYTES_MAX: usize = 64 * MIB;

/// Length of a reserved block of message ids (semantics 4.9.1).
pub const ID_BLOCK_MS: u64 = 1_000;
/// A follower of a slot that its leader does not hear for so long stands still, though its link be open (cluster-and-raft 4.20): what
/// it leads gets another leader.
pub const SILENT: Duration = Duration::from_secs(3);
/// Entries a slot keeps in its log behind the applied one (cluster-and-raft 4.15).
pub const SLOT_LOG_SUFFIX: u64 = 10_000;
/// Entries that a slot keeps for members that lack them: who lacks more begins at a snapshot.
pub const SLOT_LOG_MAX: u64 = 50_000;
/// Bytes of a snapshot's chunk, as far as rows have not changed since; with all that did it fits a frame.
pub const SNAPSHOT_CHUNK: usize = MIB / 2;
/// Rows of a chunk.
pub const SNAPSHOT_CHUNK_ROWS: u32 = 4_096;
/// Snapshots that a shard sends at once; other followers wait.
pub const SNAPSHOTS_OUT_MAX: usize = 2;
/// A snapshot that nobody asks for is given up after this, and another follower may have one.
pub const SNAPSHOT_IDLE: Duration = Duration::from_secs(5);
/// Rows that were overwritten while a snapshot of them is sent. More: it is given up, and the follower begins another one.
pub const SNAPSHOT_BEFORE_BYTES: usize = 16 * MIB;
/// Keys one slot command may read.
pub const READ_SET_MAX: usize = 4_096;
/// A read of a slot that the store could not answer is tried again after this.
pub const READ_RETRY: Duration = Duration::from_millis(500);
/// Clean rows a slot overlay keeps.
pub const OVERLAY_ROWS_MAX: usize = 4_096;

/// Messages of one sync answer.
pub const SYNC_MESSAGES_MAX: i64 = 10_000;
/// The same when the caller gives none.
pub const SYNC_MESSAGES_DEFAULT: i64 = 100;
/// Bytes of one sync answer: the page ends earlier, with more = 1.
pub const SYNC_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Messages per conversation of one answer.
pub const CONVERSATION_MESSAGES_MAX: i64 = 1_000;
/// Bytes read for one conversation sync, all conversations together.
pub const CONVERSATION_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Conversation rows read per user.
pub const CONVERSATIONS_MAX: u32 = 10_000;

/// Largest RECV: setting, seven texts' lengths, ids, and the base64 of the padded ciphertext.
pub const RECV_OVERHEAD_MAX: usize = 64 * KIB;

/// Bytes under way to one shard of a peer, per class (cluster-and-raft 4.21). They bound what a receiver that lags has to keep.
/// Control never fills it: idle groups use some 100 bytes a beat, a fence of 10,000 channels 1 MiB.
pub const LINK_CONTROL_WINDOW: usize = 4 * MIB;
/// Two frames, so that one is on the wire while the other is handled: 800 MB/s at 10 ms there and back.
pub const LINK_DATA_WINDOW: usize = 8 * MIB;
/// Snapshots may be slow: one item is under way while the next is read.
pub const LINK_BULK_WINDOW: usize = 2 * MIB;
/// Bytes waiting for credit, estimated. Control beyond it: the link is broken and reset.
pub const LINK_CONTROL_QUEUE_MAX: usize = 4 * MIB;
/// The same for Data: the oldest are dropped. Its producers have one answer under way per group and follower.
pub const LINK_DATA_QUEUE_MAX: usize = 16 * MIB;
/// From so much data that waits for credit on, groups give that peer nothing more; below half of it they go on (4.21).
pub const LINK_DATA_PAUSE: usize = 4 * MIB;
/// The same for Bulk: the oldest are dropped.
pub const LINK_BULK_QUEUE_MAX: usize = 4 * MIB;
/// No item is added to a frame that is longer.
pub const LINK_FRAME_BYTES: usize = 4 * MIB;
/// One item, encoded: beyond it dropped. A fetch (1 MiB, or one entry) and its header fit, a snapshot's chunk must.
pub const LINK_ITEM_MAX: usize = 3 * MIB / 2;
/// Control credit that the packed beats and fetches of one step may need: below it they wait.
pub const LINK_PACK_BYTES: usize = 256 * KIB;
/// Nothing was credited for this long although something waits: the link is broken and reset.
pub const LINK_STALL: Duration = Duration::from_secs(10);
/// Bytes of a channel's id in a peer's message: beyond it the frame is refused.
pub const LINK_CHANNEL_ID_MAX: usize = 512;

const _: () = {
    use wukong_proto::peer::{FRAME_MAX, PACK_ROWS_MAX};
    assert!(LINK_ITEM_MAX + 64 * KIB <= LINK_BULK_WINDOW, "every item fits an empty window");
    assert!(LINK_FRAME_BYTES + LINK_ITEM_MAX + LINK_PACK_BYTES <= FRAME_MAX);
    assert!(LINK_FRAME_BYTES <= LINK_DATA_WINDOW && LINK_CONTROL_WINDOW >= 2 * LINK_PACK_BYTES);
    // A fetch row takes at most 97 bytes, and both packs may be full.
    assert!(2 * (PACK_ROWS_MAX * (97 + 1) + KIB) <= LINK_PACK_BYTES);
    assert!(APPEND_BYTES_MAX + 256 * KIB <= LINK_ITEM_MAX);
    assert!(CHANNEL_ID_MAX < LINK_CHANNEL_ID_MAX);
    assert!(AUDIT_BUCKETS == wukong_proto::peer::AUDIT_BUCKETS_MAX);
    assert!(AUDIT_ROWS + AUDIT_PAGE as usize <= wukong_proto::peer::AUDIT_ROWS_MAX);
    assert!(2 * (AUDIT_PAGE as usize + wukong_proto::peer::AUDIT_ROWS_MAX) <= LOAD_POINTS_MAX);
};

const _: () = {
    let ciphertext = 16 * (PAYLOAD_MAX / 16 + 1);
    assert!(4 * ciphertext.div_ceil(3) + RECV_OVERHEAD_MAX <= wukong_proto::FRAME_BODY_MAX);
    assert!(PAYLOAD_MAX < INBOUND_BYTES_MAX && INBOUND_BYTES_MAX < OUTBOUND_BYTES_MAX);
    assert!(PAYLOAD_MAX < APPEND_BYTES_MAX && APPEND_BYTES_MAX < UNCOMMITTED_BYTES_MAX);
    assert!(APPEND_ENTRIES_MAX >= CHANNEL_QUEUE_MAX);
    assert!(OWED_ACKS_MAX < USER_QUEUE_MAX);
    assert!(IDLE.as_secs() >= 150, "clients ping every 120 s at the slowest");
    assert!(CALL.as_secs() >= OWED_ACK.as_secs());
    assert!(LOAD_POINTS_MAX >= READ_SET_MAX);
    // A person channel's composed id is two uids and an `@`.
    assert!(2 * UID_MAX < CHANNEL_ID_MAX);
};
