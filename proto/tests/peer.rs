//! Frames between nodes: written and read back, bounded, and never copied.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use wukong_proto::peer::{
    Audit, AuditAskRows, AuditKind, AuditRow, AuditRows, AuditSum, ChannelName, DataEntry, Empty, FRAME_FORMAT,
    FRAME_MAX, Fence, Frame, FrameError, Group, GroupItem, Head, Item, ItemKind, Items, LOG_ITEMS_MAX, List, LogItem,
    LogItemKind, Mark, PACK_ROWS_MAX, Pack, Ping, Position, Row, Said, decode_frame, encode_frame, frame_class,
    frame_shard,
};

fn num() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..300_u64, any::<u64>()]
}

fn body() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..64).prop_map(Bytes::from)
}

fn head() -> impl Strategy<Value = Head> {
    (vec(num(), 16), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(n, from, to, from_shard)| Head {
        cluster_high: n[0],
        cluster_low: n[1],
        from,
        to,
        from_incarnation: n[2],
        to_incarnation: n[3],
        from_shard,
        session: n[4],
        heard: n[5],
        seq: n[6],
        offset: n[7],
        received_control: n[8],
        received_data: n[9],
        received_bulk: n[10],
        beats_have: n[11],
        fetches_have: n[12],
        beats_missed: n[13],
        fetches_missed: n[14],
    })
}

fn log_item() -> impl Strategy<Value = LogItem> {
    prop_oneof![
        (num(), num(), body()).prop_map(|(index, epoch, body)| LogItemKind::Data(DataEntry { index, epoch, body })),
        (num(), num()).prop_map(|(epoch, at)| LogItemKind::Mark(Mark { epoch, at })),
    ]
    .prop_map(|kind| LogItem { kind: Some(kind) })
}

fn audit() -> impl Strategy<Value = AuditKind> {
    let name = || (body(), any::<u32>(), num()).prop_map(|(id, kind, generation)| ChannelName { id, kind, generation });
    let sum = (any::<u32>(), num()).prop_map(|(bucket, sum)| AuditSum { bucket, sum });
    let row = (name(), num(), num(), num(), num(), any::<u32>()).prop_map(|(channel, epoch, e, index, hw, state)| {
        AuditRow { channel, epoch, end: Position { epoch: e, index }, hw, state }
    });
    prop_oneof![
        Just(AuditKind::AskSums(Empty {})),
        vec(sum, 0..6).prop_map(|sums| AuditKind::Sums(List(sums))),
        (body(), prop::option::of(name()))
            .prop_map(|(buckets, after)| AuditKind::AskRows(AuditAskRows { buckets, after })),
        (vec(row, 0..4), prop::option::of(name()))
            .prop_map(|(rows, upto)| AuditKind::Rows(AuditRows { rows: List(rows), upto })),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let name = (body(), any::<u32>(), num()).prop_map(|(id, kind, generation)| ChannelName { id, kind, generation });
    let group = prop_oneof![any::<u32>().prop_map(Group::Slot), name.prop_map(Group::Channel)];
    let items = vec(log_item(), 0..5).prop_map(|items| Said::Items(Items { items: List(items), ..Items::default() }));
    let said = prop_oneof![items, Just(Said::Fence(Fence {}))];
    let group = (group, num(), said).prop_map(|(group, epoch, said)| {
        ItemKind::Group(GroupItem { group: Some(group), to: None, epoch, said: Some(said) })
    });
    let ping = (num(), any::<u32>(), num())
        .prop_map(|(clock_ms, load, progress)| ItemKind::Ping(Ping { clock_ms, load, progress }));
    let audit = (any::<u32>(), num(), audit())
        .prop_map(|(slot, scan, kind)| ItemKind::Audit(Audit { slot, scan, kind: Some(kind) }));
    prop_oneof![3 => group, 1 => ping, 1 => audit].prop_map(|kind| Item { kind: Some(kind) })
}

fn pack() -> impl Strategy<Value = Pack> {
    let row = (any::<u32>(), vec(num(), 8), any::<bool>()).prop_map(|(slot, n, flag)| Row {
        slot,
        epoch: n[0],
        hw: n[1],
        seq: n[2],
        beat: n[3],
        pos_epoch: n[4],
        pos_index: n[5],
        durable_epoch: n[6],
        durable_index: n[7],
        answer_now: flag,
        damaged: !flag,
    });
    (num(), num(), num(), body(), any::<bool>(), vec(row, 0..6)).prop_map(|(base, seq, beat, present, keep, rows)| {
        Pack { base, seq_advance: seq, beat_advance: beat, present, keep, rows: List(rows) }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let packs = (prop::option::of(pack()), prop::option::of(pack()));
    (any::<u8>(), any::<u8>(), head(), vec(item(), 0..8), packs)
        .prop_map(|(class, shard, head, items, (beats, fetches))| Frame { class, shard, head, items, beats, fetches })
}

proptest! {
    #[test]
    fn frames_survive_the_wire(frame in frame()) {
        let bytes = encode_frame(&frame);
        prop_assert_eq!((frame_class(&bytes), frame_shard(&bytes)), (Some(frame.class), Some(frame.shard)));
        prop_assert_eq!(decode_frame(&bytes), Ok(frame));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>(), frame in frame()) {
        let _ = decode_frame(&Bytes::from(bytes.clone()));
        let _ = decode_frame(&Bytes::from([&[FRAME_FORMAT, 0, 0][..], &bytes].concat()));
        let whole = encode_frame(&frame);
        let _ = decode_frame(&whole.slice(..cut.index(whole.len())));
        let _ = (frame_class(&bytes), frame_shard(&bytes));
    }
}

#[test]
fn the_header_is_read_without_the_body() {
    assert_eq!((frame_class(&[1, 2, 7]), frame_shard(&[1, 2, 7])), (Some(2), Some(7)));
    assert_eq!((frame_class(&[1, 2]), frame_shard(&[2, 2, 7])), (None, None));
}

#[test]
fn bodies_are_slices_of_the_frame() {
    let body = Bytes::from(vec![5; 1000]);
    let entry = LogItem { kind: Some(LogItemKind::Data(DataEntry { index: 1, epoch: 1, body })) };
    let said = Some(Said::Items(Items { items: List(vec![entry]), ..Items::default() }));
    let item = Item { kind: Some(ItemKind::Group(GroupItem { said, ..GroupItem::default() })) };
    let bytes = encode_frame(&Frame { items: vec![item], ..Frame::default() });
    let read = decode_frame(&bytes).expect("ours");
    let Some(ItemKind::Group(GroupItem { said: Some(Said::Items(items)), .. })) = &read.items[0].kind else {
        panic!("{read:?}")
    };
    let Some(LogItemKind::Data(entry)) = &items.items.0[0].kind else { panic!("{items:?}") };
    assert!(bytes.as_ptr_range().contains(&entry.body.as_ptr()), "not copied");
    assert_eq!(entry.body, vec![5; 1000]);
}

#[test]
fn what_is_unknown_is_skipped_and_an_unknown_kind_is_none() {
    let mut bytes = BytesMut::from(&encode_frame(&Frame::default())[..]);
    // Field 100, a varint; then an item whose kind has number 99.
    bytes.put_slice(&[0xA0, 0x06, 0x05]);
    bytes.put_slice(&[14 << 3 | 2, 3, 0x9A, 0x06, 0]);
    let read = decode_frame(&bytes.freeze()).expect("well formed");
    assert_eq!(read, Frame { items: vec![Item { kind: None }], ..Frame::default() });
}

/// Bytes of a frame whose field `tag` holds `count` empty messages, below the given field numbers.
fn nested(path: &[u8], count: usize) -> Bytes {
    let mut inner = [path[path.len() - 1] << 3 | 2, 0].repeat(count);
    for tag in path.iter().rev().skip(1) {
        let mut outer = BytesMut::new();
        if *tag > 15 {
            outer.put_slice(&[(*tag & 15) << 3 | 0x82, 1]);
        } else {
            outer.put_u8(*tag << 3 | 2);
        }
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.put_slice(&inner);
        inner = outer.to_vec();
    }
    [&[FRAME_FORMAT, 0, 0][..], &inner].concat().into()
}

#[test]
fn lists_and_frames_are_bounded() {
    assert!(decode_frame(&nested(&[15, 6, 1], PACK_ROWS_MAX)).is_ok());
    assert_eq!(decode_frame(&nested(&[15, 6, 1], PACK_ROWS_MAX + 1)), Err(FrameError::Malformed));
    // item 14, group 1, items 5, list 2, element 1
    assert!(decode_frame(&nested(&[14, 1, 5, 2, 1], LOG_ITEMS_MAX)).is_ok());
    assert_eq!(decode_frame(&nested(&[14, 1, 5, 2, 1], LOG_ITEMS_MAX + 1)), Err(FrameError::Malformed));
    assert_eq!(decode_frame(&nested(&[14], 200_000)), Err(FrameError::TooLarge), "items of a frame");
    assert_eq!(decode_frame(&vec![FRAME_FORMAT; FRAME_MAX + 1].into()), Err(FrameError::TooLarge));
}
