//! Properties of the codec over generated frames, splits and garbage.

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use wukong_proto::{
    ConnAck, Connect, Decoder, Detection, Disconnect, Event, FRAME_BODY_MAX, Flags, Frame, FrameKind, ReasonCode, Recv,
    RecvAck, Send, SendAck, Setting, StreamFields, Sub, SubAck, Text, Violation, decode_one, detect, encode,
    encode_conn_ack, encode_connect, encode_disconnect, encode_event, encode_recv, encode_recv_ack, encode_send,
    encode_send_ack, encode_sub, encode_sub_ack,
};

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        8 => "\\PC{0,12}".prop_map(|text| Text::from(text.as_str())),
        1 => (100_usize..300).prop_map(|len| Text::from("群".repeat(len))),
    ]
}

fn payload() -> impl Strategy<Value = Bytes> {
    prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 100..20_000)].prop_map(Bytes::from)
}

fn flags() -> impl Strategy<Value = Flags> {
    (0..16_u8).prop_map(Flags)
}

/// Values both within and beyond what four bytes hold.
fn seq() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u32>().prop_map(u64::from), any::<u64>()]
}

fn connect() -> impl Strategy<Value = Connect> {
    (flags(), any::<u8>(), any::<u8>(), text(), text(), text(), any::<i64>(), text()).prop_map(
        |(flags, version, device_flag, device_id, uid, token, client_timestamp, client_key)| Connect {
            flags,
            version,
            device_flag,
            device_id,
            uid,
            token,
            client_timestamp,
            client_key,
        },
    )
}

fn conn_ack() -> impl Strategy<Value = ConnAck> {
    (any::<Option<u8>>(), any::<i64>(), any::<u8>(), text(), text(), any::<u64>()).prop_map(
        |(server_version, time_diff, reason, server_key, salt, node_id)| ConnAck {
            server_version,
            time_diff,
            reason: ReasonCode(reason),
            server_key,
            salt,
            node_id,
        },
    )
}

fn send() -> impl Strategy<Value = Send> {
    let numbers = (flags(), any::<u8>(), any::<u32>(), any::<u8>(), any::<u32>());
    (numbers, text(), text(), text(), text(), text(), payload()).prop_map(
        |((flags, setting, client_seq, channel_type, expire), no, stream_no, channel_id, msg_key, topic, payload)| {
            Send {
                flags,
                setting: Setting(setting),
                client_seq,
                client_msg_no: no,
                stream_no,
                channel_id,
                channel_type,
                expire,
                msg_key,
                topic,
                payload,
            }
        },
    )
}

fn send_ack() -> impl Strategy<Value = SendAck> {
    (flags(), any::<i64>(), any::<u32>(), seq(), any::<u8>(), text()).prop_map(
        |(flags, message_id, client_seq, message_seq, reason, client_msg_no)| SendAck {
            flags,
            message_id,
            client_seq,
            message_seq,
            reason: ReasonCode(reason),
            client_msg_no,
        },
    )
}

fn stream() -> impl Strategy<Value = StreamFields> {
    (any::<u8>(), text(), any::<u64>()).prop_map(|(flag, no, id)| StreamFields { flag, no, id })
}

fn recv() -> impl Strategy<Value = Recv> {
    let numbers = (flags(), any::<u8>(), any::<u8>(), any::<u32>(), any::<i64>(), seq(), any::<i32>());
    (numbers, [text(), text(), text(), text(), text()], proptest::option::of(stream()), payload()).prop_map(
        |(numbers, [msg_key, from_uid, channel_id, client_msg_no, topic], stream, payload)| {
            let (flags, setting, channel_type, expire, message_id, message_seq, timestamp) = numbers;
            Recv {
                flags,
                setting: Setting(setting),
                msg_key,
                from_uid,
                channel_id,
                channel_type,
                expire,
                client_msg_no,
                stream,
                message_id,
                message_seq,
                timestamp,
                topic,
                payload,
            }
        },
    )
}

fn sub() -> impl Strategy<Value = Sub> {
    (flags(), any::<u8>(), text(), text(), any::<u8>(), any::<u8>(), text()).prop_map(
        |(flags, setting, sub_no, channel_id, channel_type, action, param)| Sub {
            flags,
            setting: Setting(setting),
            sub_no,
            channel_id,
            channel_type,
            action,
            param,
        },
    )
}

fn sub_ack() -> impl Strategy<Value = SubAck> {
    (flags(), text(), text(), any::<u8>(), any::<u8>(), any::<u8>()).prop_map(
        |(flags, sub_no, channel_id, channel_type, action, reason)| SubAck {
            flags,
            sub_no,
            channel_id,
            channel_type,
            action,
            reason: ReasonCode(reason),
        },
    )
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        1 => connect().prop_map(Frame::Connect),
        1 => conn_ack().prop_map(Frame::ConnAck),
        3 => send().prop_map(Frame::Send),
        2 => send_ack().prop_map(Frame::SendAck),
        3 => recv().prop_map(Frame::Recv),
        1 => (flags(), any::<i64>(), seq()).prop_map(|(flags, message_id, message_seq)| {
            Frame::RecvAck(RecvAck { flags, message_id, message_seq })
        }),
        1 => prop_oneof![Just(Frame::Ping), Just(Frame::Pong)],
        1 => (flags(), any::<u8>(), text()).prop_map(|(flags, reason, text)| {
            Frame::Disconnect(Disconnect { flags, reason: ReasonCode(reason), text })
        }),
        1 => prop_oneof![sub().prop_map(Frame::Sub), sub_ack().prop_map(Frame::SubAck)],
        1 => (flags(), text(), text(), any::<i64>(), payload()).prop_map(|(flags, id, kind, timestamp, data)| {
            Frame::Event(Event { flags, id, kind, timestamp, data })
        }),
    ]
}

/// The frame with what `version` does not carry set to its default, and what `version` cannot carry made to fit.
///
/// Written against the table of specification section 3, not against the codec.
fn carried(frame: Frame, version: u8) -> Frame {
    let streams = matches!(version, 2..=4);
    let fit = |seq: u64| {
        if version >= 6 { seq } else { seq & u64::from(u32::MAX) }
    };
    match frame {
        Frame::ConnAck(ack) => Frame::ConnAck(ConnAck { node_id: if version >= 4 { ack.node_id } else { 0 }, ..ack }),
        Frame::Send(mut send) => {
            if !streams || send.setting.0 & 0x06 == 0 {
                send.stream_no = Text::EMPTY;
            }
            if version < 3 {
                send.expire = 0;
            }
            if send.setting.0 & 0x08 == 0 {
                send.topic = Text::EMPTY;
            }
            Frame::Send(send)
        }
        Frame::SendAck(mut ack) => {
            ack.message_seq = fit(ack.message_seq);
            if version < 6 {
                ack.client_msg_no = Text::EMPTY;
            }
            Frame::SendAck(ack)
        }
        Frame::Recv(mut recv) => {
            recv.message_seq = fit(recv.message_seq);
            if !streams || recv.setting.0 & 0x02 == 0 {
                recv.stream = None;
            } else {
                recv.stream.get_or_insert_default();
            }
            if version < 3 {
                recv.expire = 0;
            }
            if recv.setting.0 & 0x08 == 0 {
                recv.topic = Text::EMPTY;
            }
            Frame::Recv(recv)
        }
        Frame::RecvAck(ack) => Frame::RecvAck(RecvAck { message_seq: fit(ack.message_seq), ..ack }),
        other => other,
    }
}

/// The frame without what makes it impossible to write at `version`, but with all that is merely not carried.
fn writable(frame: Frame, version: u8) -> Frame {
    let fit = |seq: u64| {
        if version >= 6 { seq } else { seq & u64::from(u32::MAX) }
    };
    match frame {
        Frame::SendAck(ack) => Frame::SendAck(SendAck { message_seq: fit(ack.message_seq), ..ack }),
        Frame::RecvAck(ack) => Frame::RecvAck(RecvAck { message_seq: fit(ack.message_seq), ..ack }),
        Frame::Recv(mut recv) => {
            recv.message_seq = fit(recv.message_seq);
            recv.stream.get_or_insert_default();
            Frame::Recv(recv)
        }
        other => other,
    }
}

fn encoded(frame: &Frame, version: u8) -> Bytes {
    let mut out = BytesMut::new();
    encode(frame, version, &mut out).expect("the frame fits");
    out.freeze()
}

fn encoded_directly(frame: &Frame, version: u8) -> Bytes {
    let mut out = BytesMut::new();
    let result = match frame {
        Frame::Connect(body) => encode_connect(body, &mut out),
        Frame::ConnAck(body) => encode_conn_ack(body, version, &mut out),
        Frame::Send(body) => encode_send(body, version, &mut out),
        Frame::SendAck(body) => encode_send_ack(body, version, &mut out),
        Frame::Recv(body) => encode_recv(body, version, &mut out),
        Frame::RecvAck(body) => encode_recv_ack(body, version, &mut out),
        Frame::Ping | Frame::Pong => encode(frame, version, &mut out),
        Frame::Disconnect(body) => encode_disconnect(body, &mut out),
        Frame::Sub(body) => encode_sub(body, &mut out),
        Frame::SubAck(body) => encode_sub_ack(body, &mut out),
        Frame::Event(body) => encode_event(body, &mut out),
    };
    result.expect("the frame fits");
    out.freeze()
}

/// Cuts `bytes` at the given places, in any order and number.
fn pieces(bytes: &Bytes, cuts: &[prop::sample::Index]) -> Vec<Bytes> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    ends.extend([0, bytes.len()]);
    ends.sort_unstable();
    ends.windows(2).map(|pair| bytes.slice(pair[0]..pair[1])).collect()
}

fn decoded(pieces: &[Bytes], version: u8) -> (Vec<Frame>, Option<Violation>) {
    let mut decoder = Decoder::new(version);
    let mut frames = Vec::new();
    for piece in pieces {
        let before = decoder.buffered();
        decoder.feed(piece.clone());
        assert!(before <= FRAME_BODY_MAX + 5, "no whole frame stays behind");
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(violation) => {
                    assert_eq!(decoder.buffered(), 0);
                    assert_eq!(decoder.next(), Err(violation));
                    return (frames, Some(violation));
                }
            }
            assert!(decoder.buffered() <= FRAME_BODY_MAX + 5 + piece.len());
        }
    }
    (frames, None)
}

/// Bytes that look enough like frames to get past the header.
fn garbage() -> impl Strategy<Value = Bytes> {
    let framed = (0..16_u8, 0..16_u8, vec(prop_oneof![Just(0_u8), 0..4_u8, any::<u8>()], 0..100)).prop_map(
        |(kind, flags, body)| {
            let mut bytes = vec![kind << 4 | flags, body.len() as u8];
            bytes.extend(body);
            bytes
        },
    );
    prop_oneof![vec(any::<u8>(), 0..200), vec(framed, 0..4).prop_map(|frames| frames.concat())].prop_map(Bytes::from)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoding_undoes_encoding(frame in any_frame()) {
        for version in 0..=7 {
            let written = encoded(&writable(frame.clone(), version), version);
            let wanted = carried(frame.clone(), version);
            prop_assert_eq!(decode_one(&written, version), Ok(Some((wanted.clone(), written.len()))));
            prop_assert_eq!(&encoded(&wanted, version), &written);
            prop_assert_eq!(&encoded_directly(&wanted, version), &written);
            prop_assert_eq!(decode_one(&written.slice(..written.len() - 1), version), Ok(None));
        }
    }

    #[test]
    fn surplus_bytes_of_a_body_are_ignored(frame in any_frame(), surplus in vec(any::<u8>(), 1..20), version in 1..=5_u8) {
        let open = matches!(frame, Frame::Ping | Frame::Pong | Frame::Send(_) | Frame::Recv(_) | Frame::Event(_));
        let frame = carried(frame, version);
        let written = encoded(&frame, version);
        prop_assume!(!open && written[1] & 0x80 == 0 && usize::from(written[1]) + surplus.len() < 0x80);
        let mut longer = BytesMut::from(&written[..]);
        longer[1] += surplus.len() as u8;
        longer.extend_from_slice(&surplus);
        prop_assert_eq!(decode_one(&longer.clone().freeze(), version), Ok(Some((frame, longer.len()))));
    }

    #[test]
    fn any_split_gives_the_same_frames(
        frames in vec(any_frame(), 0..5),
        tail in garbage(),
        cuts in vec(any::<prop::sample::Index>(), 0..30),
        pace in 0..3,
        version in 1..=6_u8,
    ) {
        let frames: Vec<Frame> = frames.into_iter().map(|frame| carried(frame, version)).collect();
        let mut bytes: Vec<u8> = Vec::new();
        for frame in &frames {
            bytes.extend_from_slice(&encoded(frame, version));
        }
        bytes.extend_from_slice(&tail);
        let bytes = Bytes::from(bytes);
        let whole = decoded(std::slice::from_ref(&bytes), version);
        prop_assert_eq!(&whole.0[..frames.len()], &frames[..]);
        prop_assert_eq!(&decoded(&pieces(&bytes, &cuts), version), &whole);

        // Read more slowly than fed.
        let mut decoder = Decoder::new(version);
        let mut late = Vec::new();
        for piece in pieces(&bytes, &cuts) {
            decoder.feed(piece);
            for _ in 0..pace {
                late.extend(decoder.next().ok().flatten());
            }
        }
        while let Ok(Some(frame)) = decoder.next() {
            late.push(frame);
        }
        prop_assert_eq!((late, decoder.next().err()), whole);
    }

    #[test]
    fn garbage_never_panics(
        bytes in garbage(),
        cuts in vec(any::<prop::sample::Index>(), 0..10),
        version in any::<u8>(),
    ) {
        let whole = decoded(std::slice::from_ref(&bytes), version);
        prop_assert_eq!(&decoded(&pieces(&bytes, &cuts), version), &whole);
        // Whatever was accepted can be written again and means the same.
        for frame in whole.0 {
            let written = encoded(&frame, version);
            prop_assert_eq!(decode_one(&written, version), Ok(Some((frame, written.len()))));
        }
        if let Detection::Is(_, skip) = detect(&bytes) {
            prop_assert!(skip < bytes.len());
        }
    }

    #[test]
    fn announced_megabytes_are_bounded(len in prop_oneof![0..2 * FRAME_BODY_MAX, 0..0x1000_0000_usize], chunk in 1..300_000_usize, version in 1..=6_u8) {
        let mut head = vec![0x30_u8];
        head.extend((0..4).map(|group| (len >> (7 * group)) as u8 & 0x7F | if group < 3 { 0x80 } else { 0 }));
        let zeros = Bytes::from(vec![0; chunk]);
        let mut decoder = Decoder::new(version);
        decoder.feed(Bytes::from(head));
        let wanted = match len {
            0 => Err(Violation::Truncated { kind: FrameKind::Send, at: 0 }),
            1..=FRAME_BODY_MAX => Ok(None),
            _ => Err(Violation::FrameTooLarge { kind: FrameKind::Send, len: len as u32 }),
        };
        prop_assert_eq!(decoder.next(), wanted);
        for _ in 0..8 {
            decoder.feed(zeros.clone());
            while let Ok(Some(_)) = decoder.next() {}
            prop_assert!(decoder.buffered() <= FRAME_BODY_MAX + 5);
        }
    }
}
