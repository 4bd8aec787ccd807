//! Every entry of the published wire vectors against the codec (specification section 14).

use std::collections::BTreeMap;
use std::io::Write;

use bytes::{Bytes, BytesMut};
use serde_json::{Map, Value};
use wukong_proto::{
    ConnAck, Connect, Decoder, Detection, Disconnect, Event, Flags, Frame, Protocol, ReasonCode, Recv, RecvAck, Send,
    SendAck, Setting, StreamFields, Sub, SubAck, Text, Violation, decode_one, detect, encode,
};

#[test]
fn every_vector() {
    let file: Value = serde_json::from_str(include_str!("vectors/wire-vectors.json")).expect("the vectors are JSON");
    let frames: BTreeMap<&str, (&Value, Frame)> =
        list(&file, "frames").iter().map(|entry| (text(entry, "name"), (entry, listed_frame(entry)))).collect();
    assert_eq!(frames.len(), list(&file, "frames").len(), "names are unique");

    let mut tally = Tally::default();
    tally.section(&file, "frames", |entry| check_frame(entry, &frames[text(entry, "name")].1));
    tally.section(&file, "streams", |entry| check_stream(entry, &frames));
    tally.section(&file, "legacy", |entry| check_legacy(entry, &frames));
    tally.section(&file, "malformed", check_malformed);
    tally.section(&file, "jsonrpc", check_jsonrpc);
    tally.finish();
}

/// What went wrong with one entry.
type Outcome = Result<(), String>;

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, wanted: &T) -> Outcome {
    if got == wanted { Ok(()) } else { Err(format!("{what}: got {got:?}, wanted {wanted:?}")) }
}

#[derive(Default)]
struct Tally {
    passed: usize,
    listed: usize,
    failures: Vec<String>,
}

impl Tally {
    fn section(&mut self, file: &Value, section: &str, check: impl Fn(&Value) -> Outcome) {
        let (mut passed, entries) = (0, list(file, section));
        for entry in entries {
            match check(entry) {
                Ok(()) => passed += 1,
                Err(why) => self.failures.push(format!("{section} {}: {why}", text(entry, "name"))),
            }
        }
        self.passed += passed;
        self.listed += entries.len();
        say(&format!("wire vectors, {section}: {passed}/{}", entries.len()));
    }

    fn finish(self) {
        for failure in &self.failures {
            say(&format!("FAILED {failure}"));
        }
        say(&format!("wire vectors: {}/{} passed", self.passed, self.listed));
        assert!(self.failures.is_empty(), "{} vectors failed", self.failures.len());
        assert!(self.listed >= 183, "the list has shrunk to {}", self.listed);
    }
}

/// Past the capture of the test harness, so that the counts are always seen.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

// Entries

fn check_frame(entry: &Value, listed: &Frame) -> Outcome {
    let (version, bytes) = (version(entry), hex(text(entry, "hex")));
    equal("kind", &listed.kind().name(), &text(entry, "frame"))?;
    if text(entry, "name") == "sendack-v5-msgno-v3server" {
        return check_surplus_msg_no(&bytes, version, listed);
    }
    let mut out = BytesMut::new();
    encode(listed, version, &mut out).map_err(|error| error.to_string())?;
    equal("encoded", &out.freeze(), &bytes)?;
    equal("decoded", &decode_one(&bytes, version), &Ok(Some((listed.clone(), bytes.len()))))?;
    check_splits(&bytes, version, std::slice::from_ref(listed), None)
}

/// One server appends ClientMsgNo to SENDACK below version 6 too. It is not produced (specification section 4.4), and
/// when received it is surplus: ignored, as the clients of those versions do.
fn check_surplus_msg_no(bytes: &Bytes, version: u8, listed: &Frame) -> Outcome {
    let Frame::SendAck(ack) = listed else {
        return Err("not a SENDACK".into());
    };
    equal("listed", &ack.client_msg_no.is_empty(), &false)?;
    let known = Frame::SendAck(SendAck { client_msg_no: Text::EMPTY, ..ack.clone() });
    check_splits(bytes, version, std::slice::from_ref(&known), None)?;
    let mut out = BytesMut::new();
    encode(listed, version, &mut out).map_err(|error| error.to_string())?;
    let surplus = 2 + ack.client_msg_no.len();
    equal("body", &out.freeze().slice(2..), &bytes.slice(2..bytes.len() - surplus))?;
    // With the wide sequence number of version 6 the same field is read.
    let mut out = BytesMut::new();
    encode(listed, 6, &mut out).map_err(|error| error.to_string())?;
    equal("version 6", &decode_one(&out.clone().freeze(), 6), &Ok(Some((listed.clone(), out.len()))))
}

fn check_stream(entry: &Value, frames: &BTreeMap<&str, (&Value, Frame)>) -> Outcome {
    let bytes = hex(text(entry, "hex"));
    let names = list(entry, "frames").iter().map(|name| name.as_str().expect("a name"));
    let listed: Vec<Frame> = names.map(|name| frames[name].1.clone()).collect();
    let mut out = BytesMut::new();
    for frame in &listed {
        encode(frame, version(entry), &mut out).map_err(|error| error.to_string())?;
    }
    equal("encoded", &out.freeze(), &bytes)?;
    check_splits(&bytes, version(entry), &listed, None)
}

/// Bytes that are never produced. What the decoder makes of them is stated here.
fn check_legacy(entry: &Value, frames: &BTreeMap<&str, (&Value, Frame)>) -> Outcome {
    let (version, bytes) = (version(entry), hex(text(entry, "hex")));
    match text(entry, "name") {
        "send-v2-legacy-stream" => {
            let wanted = Frame::Send(Send {
                setting: Setting::LEGACY_STREAM,
                flags: Flags::RED_DOT,
                client_seq: 7,
                client_msg_no: "no-8".into(),
                stream_no: "s1".into(),
                channel_id: "g1".into(),
                channel_type: 2,
                payload: Bytes::from_static(b"hi"),
                ..Send::default()
            });
            check_splits(&bytes, version, &[wanted], None)
        }
        "recv-v2-legacy-stream" => {
            // No server receives RECV. The legacy bit alone announces no fields, so the rest shifts, but stays total;
            // what the server sends instead has neither the bit nor the fields.
            let Ok(Some((Frame::Recv(shifted), consumed))) = decode_one(&bytes, version) else {
                return Err("not a RECV".into());
            };
            equal("consumed", &consumed, &bytes.len())?;
            equal("stream", &shifted.stream, &None)?;
            equal("client_msg_no", &shifted.client_msg_no.as_str(), &"no-8")?;
            let stream = Some(StreamFields { flag: 1, no: "s1".into(), id: 7 });
            let meant = Recv { setting: shifted.setting.for_recv(version), stream, ..shifted };
            let mut out = BytesMut::new();
            encode(&Frame::Recv(meant.clone()), version, &mut out).map_err(|error| error.to_string())?;
            let sent = Recv { stream: None, ..meant };
            equal("sent", &decode_one(&out.clone().freeze(), version), &Ok(Some((Frame::Recv(sent), out.len()))))
        }
        "send-v5-stream-bit-miscounted" => {
            // The announced length takes two bytes from what follows.
            equal("decoded", &decode_one(&bytes, version), &Ok(None))?;
            let (correct, Frame::Send(send)) = &frames["send-v5-stream-bit"] else {
                return Err("the correct form is no SEND".into());
            };
            equal("body", &bytes.slice(2..), &hex(text(correct, "hex")).slice(2..))?;
            let swallowed = Bytes::from([&bytes[..], &[0x70, 0x70, 0x70]].concat());
            let wanted = Send { payload: Bytes::from([&send.payload[..], &[0x70, 0x70]].concat()), ..send.clone() };
            check_splits(&swallowed, version, &[Frame::Send(wanted), Frame::Ping], None)
        }
        other => Err(format!("nothing is known about {other}")),
    }
}

/// The codec's verdict must be that of a strict parser (`layout_check`); what the server then does is tested elsewhere.
fn check_malformed(entry: &Value) -> Outcome {
    let (version, bytes) = (version(entry), hex(text(entry, "hex")));
    let decoded = decode_one(&bytes, version);
    let verdict = match &decoded {
        Ok(None) => "need-more".to_owned(),
        Ok(Some((frame, consumed))) => format!("frame:{},consumed:{consumed}", frame.kind()),
        Err(_) => "malformed".to_owned(),
    };
    equal("verdict", &verdict.as_str(), &text(entry, "layout_check"))?;
    let mut after = Decoder::new(version);
    after.feed(bytes.clone());
    let (frames, violation) = drain(&mut after);
    if verdict == "malformed" {
        equal("consequence", &text(entry, "expected"), &"close")?;
        equal("violation", &violation, &decoded.err())?;
    }
    if text(entry, "name") == "ping-then-zero-byte" {
        equal("after the ping", &violation, &Some(Violation::ReservedType { nibble: 0 }))?;
    }
    if text(entry, "state") == "unauthenticated" {
        let first_is_connect = bytes[0] >> 4 == 1;
        let wanted = if first_is_connect { Detection::Is(Protocol::Binary, 0) } else { Detection::Violation };
        equal("detected", &detect(&bytes), &wanted)?;
        if !first_is_connect {
            equal("consequence", &text(entry, "expected"), &"close")?;
        }
    }
    check_splits(&bytes, version, &frames, violation)
}

fn check_jsonrpc(entry: &Value) -> Outcome {
    let document = text(entry, "text");
    // Batches are not supported, so `[` opens neither protocol.
    let is_batch = document.starts_with('[');
    let expected = |skip| {
        if is_batch { Detection::Violation } else { Detection::Is(Protocol::JsonRpc, skip) }
    };
    equal("detected", &detect(document.as_bytes()), &expected(0))?;
    equal("first byte", &detect(&document.as_bytes()[..1]), &expected(0))?;
    equal("after white space", &detect(format!(" \t\r\n{document}").as_bytes()), &expected(4))
}

/// The same frames, then the same violation, in one piece, byte by byte, and in two pieces cut anywhere.
fn check_splits(bytes: &Bytes, version: u8, frames: &[Frame], violation: Option<Violation>) -> Outcome {
    let wanted = (frames.to_vec(), violation);
    equal("whole", &decode_pieces(std::slice::from_ref(bytes), version), &wanted)?;
    let single: Vec<Bytes> = (0..bytes.len()).map(|at| bytes.slice(at..=at)).collect();
    equal("byte by byte", &decode_pieces(&single, version), &wanted)?;
    for at in 1..bytes.len() {
        let halves = [bytes.slice(..at), bytes.slice(at..)];
        equal(&format!("split at {at}"), &decode_pieces(&halves, version), &wanted)?;
    }
    Ok(())
}

fn decode_pieces(pieces: &[Bytes], version: u8) -> (Vec<Frame>, Option<Violation>) {
    let mut decoder = Decoder::new(version);
    let mut all = Vec::new();
    for piece in pieces {
        decoder.feed(piece.clone());
        let (frames, violation) = drain(&mut decoder);
        all.extend(frames);
        if violation.is_some() {
            return (all, violation);
        }
    }
    (all, None)
}

fn drain(decoder: &mut Decoder) -> (Vec<Frame>, Option<Violation>) {
    let mut frames = Vec::new();
    loop {
        match decoder.next() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(violation) => return (frames, Some(violation)),
        }
    }
}

// The listed fields as a frame

fn listed_frame(entry: &Value) -> Frame {
    let mut fields = Fields(entry["fields"].as_object().expect("fields").clone());
    let kind = fields.text("frame");
    let flags = fields.flags();
    let frame = match kind.as_str() {
        "CONNECT" => Frame::Connect(Connect {
            flags,
            version: fields.number("version"),
            device_flag: fields.number("deviceFlag"),
            device_id: fields.text("deviceId"),
            uid: fields.text("uid"),
            token: fields.text("token"),
            client_timestamp: fields.number("clientTimestamp"),
            client_key: fields.text("clientKey"),
        }),
        "CONNACK" => Frame::ConnAck(ConnAck {
            server_version: match fields.0.remove("hasServerVersion") {
                Some(Value::Bool(true)) => Some(fields.number("serverVersion")),
                _ => None,
            },
            time_diff: fields.number("timeDiff"),
            reason: ReasonCode(fields.number("reasonCode")),
            server_key: fields.text("serverKey"),
            salt: fields.text("salt"),
            node_id: fields.number("nodeId"),
        }),
        "SEND" => Frame::Send(Send {
            flags,
            setting: Setting(fields.number("setting")),
            client_seq: fields.number("clientSeq"),
            client_msg_no: fields.text("clientMsgNo"),
            stream_no: fields.text("streamNo"),
            channel_id: fields.text("channelId"),
            channel_type: fields.number("channelType"),
            expire: fields.number("expire"),
            msg_key: fields.text("msgKey"),
            topic: fields.text("topic"),
            payload: fields.bytes("payloadHex"),
        }),
        "SENDACK" => Frame::SendAck(SendAck {
            flags,
            message_id: fields.number("messageId"),
            client_seq: fields.number("clientSeq"),
            message_seq: fields.number("messageSeq"),
            reason: ReasonCode(fields.number("reasonCode")),
            client_msg_no: fields.text("clientMsgNo"),
        }),
        "RECV" => Frame::Recv(Recv {
            flags,
            setting: Setting(fields.number("setting")),
            msg_key: fields.text("msgKey"),
            from_uid: fields.text("fromUid"),
            channel_id: fields.text("channelId"),
            channel_type: fields.number("channelType"),
            expire: fields.number("expire"),
            client_msg_no: fields.text("clientMsgNo"),
            stream: fields.0.contains_key("streamNo").then(|| StreamFields {
                flag: fields.number("streamFlag"),
                no: fields.text("streamNo"),
                id: fields.number("streamId"),
            }),
            message_id: fields.number("messageId"),
            message_seq: fields.number("messageSeq"),
            timestamp: fields.number("timestamp"),
            topic: fields.text("topic"),
            payload: fields.bytes("payloadHex"),
        }),
        "RECVACK" => Frame::RecvAck(RecvAck {
            flags,
            message_id: fields.number("messageId"),
            message_seq: fields.number("messageSeq"),
        }),
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "DISCONNECT" => Frame::Disconnect(Disconnect {
            flags,
            reason: ReasonCode(fields.number("reasonCode")),
            text: fields.text("reason"),
        }),
        "SUB" => Frame::Sub(Sub {
            flags,
            setting: Setting(fields.number("setting")),
            sub_no: fields.text("subNo"),
            channel_id: fields.text("channelId"),
            channel_type: fields.number("channelType"),
            action: fields.number("action"),
            param: fields.text("param"),
        }),
        "SUBACK" => Frame::SubAck(SubAck {
            flags,
            sub_no: fields.text("subNo"),
            channel_id: fields.text("channelId"),
            channel_type: fields.number("channelType"),
            action: fields.number("action"),
            reason: ReasonCode(fields.number("reasonCode")),
        }),
        "EVENT" => Frame::Event(Event {
            flags,
            id: fields.text("id"),
            kind: fields.text("type"),
            timestamp: fields.number("timestamp"),
            data: fields.bytes("dataHex"),
        }),
        other => panic!("{other} is no frame"),
    };
    assert!(fields.0.is_empty(), "{}: nothing is known about {:?}", text(entry, "name"), fields.0);
    frame
}

/// The fields of an entry; what is taken is removed, so that none is overlooked.
struct Fields(Map<String, Value>);

impl Fields {
    fn flags(&mut self) -> Flags {
        let mut flags = Flags::default();
        let listed = self.0.remove("flags").unwrap_or(Value::Null);
        for (name, bit) in [
            ("noPersist", Flags::NO_PERSIST),
            ("redDot", Flags::RED_DOT),
            ("syncOnce", Flags::SYNC_ONCE),
            ("dup", Flags::DUP),
        ] {
            if listed[name] == true {
                flags = flags.with(bit);
            }
        }
        flags
    }

    fn text(&mut self, name: &str) -> Text {
        self.0.remove(name).map_or(Text::EMPTY, |value| Text::from(value.as_str().expect(name)))
    }

    fn bytes(&mut self, name: &str) -> Bytes {
        self.0.remove(name).map_or(Bytes::new(), |value| hex(value.as_str().expect(name)))
    }

    /// A number or a decimal string; 0 if absent.
    fn number<T: TryFrom<i128>>(&mut self, name: &str) -> T {
        let wide: i128 = match self.0.remove(name) {
            None => 0,
            Some(Value::String(digits)) => digits.parse().expect(name),
            Some(value) => value.to_string().parse().expect(name),
        };
        T::try_from(wide).unwrap_or_else(|_| panic!("{name}: {wide} is out of range"))
    }
}

// The file

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap_or_else(|| panic!("{name} is a list"))
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_else(|| panic!("{name} is a text: {entry}"))
}

fn version(entry: &Value) -> u8 {
    entry["version"].as_u64().and_then(|version| version.try_into().ok()).expect("a version")
}

fn hex(digits: &str) -> Bytes {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    let pair = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(pair).collect()
}
