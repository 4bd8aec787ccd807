//! The client frame decoder: arbitrary bytes, cut anywhere, at any version.
//!
//! Input: one byte of version (high bit: adopt the version of each CONNECT), one byte whose low nibble counts the piece
//! bytes that follow, then the stream. The stream is cut into pieces of the given lengths, over and over; after a
//! piece byte with the high bit at most one frame is read before the next piece is fed.
#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use wukong_proto::{Decoder, Detection, FRAME_BODY_MAX, Frame, MAX_VERSION, Violation, decode_one, detect, encode};

/// Each frame with the version it was read at, and how it ended.
type Decoded = (Vec<(u8, Frame)>, Option<Violation>);

fuzz_target!(|input: &[u8]| {
    let [first, count, rest @ ..] = input else {
        return;
    };
    let (version, adopt) = (first & 0x7F, first & 0x80 != 0);
    let Some((pieces, stream)) = rest.split_at_checked(usize::from(count & 0x0F)) else {
        return;
    };
    let stream = Bytes::copy_from_slice(stream);

    if let Detection::Is(_, skip) = detect(&stream) {
        assert!(skip < stream.len());
    }
    let whole = in_pieces(&stream, &[], version, adopt);
    assert_eq!(one_by_one(&stream, version, adopt), whole);
    assert_eq!(in_pieces(&stream, pieces, version, adopt), whole);
    for (version, frame) in &whole.0 {
        round_trip(frame, *version);
    }
    if let Some(violation) = whole.1 {
        assert!(!violation.to_string().is_empty());
    }
});

fn next_version(frame: &Frame, version: u8, adopt: bool) -> u8 {
    match frame {
        Frame::Connect(connect) if adopt => connect.version.min(MAX_VERSION),
        _ => version,
    }
}

fn in_pieces(stream: &Bytes, pieces: &[u8], version: u8, adopt: bool) -> Decoded {
    let mut decoder = Decoder::new(version);
    let mut frames = Vec::new();
    let mut rest = stream.clone();
    let mut cuts = pieces.iter().cycle();
    while !rest.is_empty() {
        let (len, ahead) =
            cuts.next().map_or((rest.len(), false), |cut| (usize::from(cut & 0x7F) + 1, cut & 0x80 != 0));
        decoder.feed(rest.split_to(len.min(rest.len())));
        let pause = ahead && !rest.is_empty();
        loop {
            let version = decoder.version();
            match decoder.next() {
                Ok(Some(frame)) => {
                    decoder.set_version(next_version(&frame, version, adopt));
                    frames.push((version, frame));
                    if pause {
                        break;
                    }
                }
                Ok(None) => {
                    assert!(decoder.buffered() < FRAME_BODY_MAX + 5);
                    break;
                }
                Err(violation) => {
                    assert_eq!((decoder.buffered(), decoder.next()), (0, Err(violation)));
                    return (frames, Some(violation));
                }
            }
        }
    }
    (frames, None)
}

fn one_by_one(stream: &Bytes, mut version: u8, adopt: bool) -> Decoded {
    let mut frames = Vec::new();
    let mut rest = stream.clone();
    loop {
        match decode_one(&rest, version) {
            Ok(Some((frame, consumed))) => {
                rest = rest.slice(consumed..);
                let next = next_version(&frame, version, adopt);
                frames.push((version, frame));
                version = next;
            }
            Ok(None) => return (frames, None),
            Err(violation) => return (frames, Some(violation)),
        }
    }
}

/// What was decoded can be encoded, and that is the same frame in its only canonical form.
fn round_trip(frame: &Frame, version: u8) {
    let mut out = BytesMut::new();
    encode(frame, version, &mut out).expect("a decoded frame fits its version");
    let written = out.freeze();
    let Ok(Some((again, consumed))) = decode_one(&written, version) else { panic!("{frame:?} became {written:?}") };
    assert_eq!((&again, consumed), (frame, written.len()));
    let mut out = BytesMut::new();
    encode(&again, version, &mut out).expect("it fitted before");
    assert_eq!(out, written);
}
