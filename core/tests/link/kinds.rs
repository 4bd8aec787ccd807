//! Generators of everything that a link carries.

use super::pair::{A, B, replica};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;
use wukong_core::audit;
use wukong_core::ids::{ChannelKey, Epoch, Incarnation, NodeId, Position, SlotId, StoreId};
use wukong_core::link::{Group, Item, Ping};
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::Report;
use wukong_core::raft::message::{
    Body, Entry, Envelope, Fetch, Item as LogItem, Message, RefuseKind, Snapshot, TransferToken,
};
use wukong_core::store::rows::Assignment;
use wukong_proto::Text;

fn num() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1..200_u64, any::<u64>()]
}

fn epoch() -> impl Strategy<Value = Epoch> {
    num().prop_map(Epoch)
}

fn pos() -> impl Strategy<Value = Position> {
    (epoch(), num()).prop_map(|(epoch, index)| Position { epoch, index })
}

fn some_replica() -> impl Strategy<Value = Replica> {
    (any::<u16>(), any::<u128>()).prop_map(|(node, store)| Replica { node: NodeId(node), store: StoreId(store) })
}

fn replicas() -> impl Strategy<Value = Vec<Replica>> {
    vec(some_replica(), 0..6)
}

fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(any::<u8>(), 0..300), 1 => vec(any::<u8>(), 20_000..20_001)].prop_map(Bytes::from)
}

fn config() -> impl Strategy<Value = Config> {
    (num(), replicas(), replicas(), replicas()).prop_map(|(version, voters, voters_out, learners)| Config {
        version,
        voters,
        voters_out,
        learners,
    })
}

fn log_item() -> impl Strategy<Value = LogItem> {
    let entry = |index, epoch, body| LogItem::Entry(Entry { index, epoch, body });
    prop_oneof![
        1 => (epoch(), num()).prop_map(|(epoch, at)| LogItem::Mark { epoch, at }),
        4 => (num(), epoch(), body()).prop_map(move |(i, e, b)| entry(i, e, Body::Data(b))),
        1 => (num(), epoch(), config()).prop_map(move |(i, e, c)| entry(i, e, Body::Config(Arc::new(c)))),
    ]
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    (any::<u64>(), pos(), config(), num(), num()).prop_map(|(id, base, config, config_index, size)| Snapshot {
        id,
        base,
        config: Arc::new(config),
        config_index,
        size,
    })
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let leader = option::of((some_replica(), num().prop_map(Incarnation)));
    ((num(), epoch(), num(), leader), (replicas(), replicas(), replicas()), (num(), any::<bool>(), num())).prop_map(
        |((generation, epoch, config_version, leader), (voters, voters_out, learners), (floor, deleted, last_seq))| {
            Assignment {
                generation,
                epoch,
                config_version,
                leader,
                voters,
                voters_out,
                learners,
                retention_floor: floor,
                deleted,
                last_seq,
            }
        },
    )
}

fn refusal() -> impl Strategy<Value = RefuseKind> {
    prop::sample::select(vec![
        RefuseKind::NotLeader,
        RefuseKind::Fenced,
        RefuseKind::Busy,
        RefuseKind::Removed,
        RefuseKind::Version,
    ])
}

fn token() -> impl Strategy<Value = TransferToken> {
    (epoch(), any::<u64>()).prop_map(|(epoch, nonce)| TransferToken { epoch, nonce })
}

fn fetch() -> impl Strategy<Value = Fetch> {
    (num(), pos(), pos(), num(), num(), any::<bool>(), any::<bool>()).prop_map(
        |(seq, pos, durable, hw, beat, answer_now, damaged)| Fetch { seq, pos, durable, hw, beat, answer_now, damaged },
    )
}

/// Every kind of message, by number. A kind that is missing here fails `every_kind_is_generated`.
pub const MESSAGES: usize = 22;

pub fn message(kind: usize) -> BoxedStrategy<Message> {
    match kind {
        0 => (epoch(), pos()).prop_map(|(next_epoch, pos)| Message::PreVoteReq { next_epoch, pos }).boxed(),
        1 => (epoch(), any::<bool>(), option::of(some_replica()))
            .prop_map(|(next_epoch, granted, leader)| Message::PreVoteResp { next_epoch, granted, leader })
            .boxed(),
        2 => (pos(), option::of(token())).prop_map(|(pos, transfer)| Message::VoteReq { pos, transfer }).boxed(),
        3 => any::<bool>().prop_map(|granted| Message::VoteResp { granted }).boxed(),
        4 => (num(), num(), option::of(assignment()))
            .prop_map(|(mark_at, hw, a)| Message::Begin { mark_at, hw, assignment: a.map(Arc::new) })
            .boxed(),
        5 => (num(), num()).prop_map(|(seq, hw)| Message::Beat { seq, hw }).boxed(),
        6 => fetch().prop_map(Message::Fetch).boxed(),
        7 => (pos(), vec(log_item(), 0..20), num(), num(), num(), num())
            .prop_map(|(prev, items, hw, distributed, leader_last, fetch_seq)| Message::Items {
                prev,
                items,
                hw,
                distributed,
                leader_last,
                fetch_seq,
            })
            .boxed(),
        8 => (pos(), pos()).prop_map(|(req_pos, keep)| Message::Diverged { req_pos, keep }).boxed(),
        9 => snapshot().prop_map(|s| Message::NeedBase { snapshot: Arc::new(s) }).boxed(),
        10 => (any::<u64>(), num()).prop_map(|(id, offset)| Message::SnapshotFetch { id, offset }).boxed(),
        11 => (any::<u64>(), num(), body(), any::<bool>())
            .prop_map(|(id, offset, bytes, last)| Message::SnapshotChunk { id, offset, bytes, last })
            .boxed(),
        12 => {
            (refusal(), option::of(some_replica())).prop_map(|(kind, leader)| Message::Refuse { kind, leader }).boxed()
        }
        13 => replicas().prop_map(|successors| Message::EndEpoch { successors }).boxed(),
        14 => token().prop_map(|token| Message::TransferNow { token }).boxed(),
        15 => num().prop_map(|ctx| Message::ReadReq { ctx }).boxed(),
        16 => (num(), option::of(num())).prop_map(|(ctx, index)| Message::ReadResp { ctx, index }).boxed(),
        17 => Just(Message::Fence).boxed(),
        18 => (pos(), num(), any::<bool>())
            .prop_map(|(durable, hw, damaged)| Message::FenceResp { durable, hw, damaged })
            .boxed(),
        19 => (pos(), num()).prop_map(|(pos, hw)| Message::Settle { pos, hw }).boxed(),
        20 => pos().prop_map(|pos| Message::SettleAck { pos }).boxed(),
        _ => Just(Message::Wake).boxed(),
    }
}

fn channel() -> impl Strategy<Value = ChannelKey> {
    ("\\PC{0,30}", any::<u8>()).prop_map(|(id, kind)| ChannelKey { id: Text::from(id.as_str()), kind })
}

fn group() -> impl Strategy<Value = Group> {
    prop_oneof![
        any::<u16>().prop_map(|n| Group::Slot(SlotId(n))),
        (channel(), num()).prop_map(|(channel, generation)| Group::Channel { channel, generation }),
    ]
}

/// To the process that runs on B now, or to a store that was there before.
fn addressee() -> impl Strategy<Value = Replica> {
    prop_oneof![3 => Just(replica(B)), 1 => any::<u128>().prop_map(|s| Replica { node: B, store: StoreId(s) })]
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        epoch().prop_map(|epoch| Report::Ready { epoch }),
        (epoch(), num()).prop_map(|(epoch, config_version)| Report::JointStable { epoch, config_version }),
        (epoch(), some_replica()).prop_map(|(epoch, learner)| Report::CaughtUp { epoch, learner }),
        (epoch(), pos(), some_replica()).prop_map(|(epoch, end, target)| Report::HandoverReady { epoch, end, target }),
        epoch().prop_map(|epoch| Report::NeedElect { epoch }),
    ]
}

fn audit() -> impl Strategy<Value = audit::Said> {
    let states = [audit::State::Settled, audit::State::Dirty, audit::State::Awake];
    let row = (channel(), num(), epoch(), pos(), num(), prop::sample::select(states.to_vec())).prop_map(
        |(channel, generation, epoch, end, hw, state)| audit::Row { channel, generation, epoch, end, hw, state },
    );
    prop_oneof![
        Just(audit::Said::AskSums),
        vec((any::<u16>(), num()), 0..20).prop_map(audit::Said::Sums),
        (prop::array::uniform16(num()), option::of(channel()))
            .prop_map(|(b, after)| audit::Said::AskRows { buckets: audit::Buckets(b), after }),
        (vec(row, 0..5), option::of(channel())).prop_map(|(rows, upto)| audit::Said::Rows { rows, upto }),
    ]
}

/// Any item from A (incarnation 1) to B.
pub fn item() -> impl Strategy<Value = Item> {
    let said = (0..MESSAGES).prop_flat_map(message);
    prop_oneof![
        10 => (group(), addressee(), epoch(), said).prop_map(|(group, to, epoch, message)| Item::Group {
            group,
            envelope: Envelope { from: replica(A), to, from_incarnation: Incarnation(1), epoch, message },
        }),
        1 => (channel(), assignment())
            .prop_map(|(channel, a)| Item::Assign { channel, assignment: Arc::new(a) }),
        1 => (channel(), num(), some_replica())
            .prop_map(|(channel, generation, target)| Item::Handover { channel, generation, target }),
        1 => (channel(), num(), report())
            .prop_map(|(channel, generation, report)| Item::Report { channel, generation, from: replica(A), report }),
        1 => (any::<u64>(), any::<u32>(), any::<u64>())
            .prop_map(|(clock_ms, load, progress)| Item::Ping(Ping { clock_ms, load, progress })),
        1 => (any::<u16>(), num(), audit()).prop_map(|(slot, scan, said)| Item::Audit {
            slot: SlotId(slot),
            from: replica(A),
            scan,
            said,
        }),
    ]
}
