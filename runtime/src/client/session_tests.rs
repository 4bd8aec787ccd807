//! The session against the vectors of the specification and against a server's half made of the same parts.

use serde_json::Value;
use wukong_proto::{decode_one, encode, encode_conn_ack, encode_recv};

use super::*;

const SALT: &str = "A1b2C3d4E5f6G7h8";

fn vectors() -> Value {
    let text = include_str!("../../../proto/tests/vectors/wire-vectors.json");
    serde_json::from_str(text).expect("the vectors are JSON")
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn secret(text: &Value) -> [u8; 32] {
    unhex(text.as_str().unwrap()).try_into().unwrap()
}

fn open_session(version: u8) -> (Session, Keys) {
    let vectors = vectors();
    let exchange = &vectors["key_exchange"];
    let mut out = BytesMut::new();
    let login = Login { version, ..Login::new("u1") };
    let mut session = Session::begin(&login, secret(&exchange["clientPrivHex"]), 0, &mut out).unwrap();
    let Ok(Some((Frame::Connect(connect), _))) = decode_one(&out.freeze(), 0) else { panic!("no CONNECT") };
    assert_eq!(connect.client_key, *exchange["clientKey"].as_str().unwrap());
    let server = StaticSecret::from(secret(&exchange["serverPrivHex"]));
    let keys = Keys::derive(&server, &connect.client_key, SALT).unwrap();
    session.feed(conn_ack(version, ReasonCode::SUCCESS, exchange["serverKey"].as_str().unwrap()));
    let node = if version >= 4 { 7 } else { 0 };
    assert_eq!(session.poll(), Ok(Some(Event::Open { version, node, encrypted: true })));
    assert!(session.is_open());
    (session, keys)
}

fn conn_ack(version: u8, reason: ReasonCode, key: &str) -> Bytes {
    let mut out = BytesMut::new();
    let ack = ConnAck {
        server_version: (version >= 4).then_some(version),
        reason,
        server_key: key.into(),
        salt: if key.is_empty() { Text::EMPTY } else { SALT.into() },
        node_id: 7,
        ..ConnAck::default()
    };
    encode_conn_ack(&ack, version, &mut out).unwrap();
    out.freeze()
}

#[test]
fn every_encrypted_vector() {
    let mut seen = 0;
    for vector in vectors()["frames"].as_array().unwrap() {
        let (name, crypto) = (vector["name"].as_str().unwrap(), &vector["crypto"]);
        let Some(plain) = crypto["plaintextUtf8"].as_str() else {
            continue;
        };
        let version = u8::try_from(vector["version"].as_u64().unwrap()).unwrap();
        let (mut session, keys) = open_session(version);
        let wire = Bytes::from(unhex(vector["hex"].as_str().unwrap()));
        assert_eq!(keys.encrypt(plain.as_bytes()), crypto["payloadText"].as_str().unwrap(), "{name}");
        match decode_one(&wire, version).unwrap().unwrap().0 {
            Frame::Send(send) => {
                assert_eq!(send_signature(&keys, &send), send.msg_key.as_bytes(), "{name}");
                // Only what this client can express.
                if send.setting == Setting::default() && send.expire == 0 {
                    let outgoing = Outgoing {
                        client_seq: send.client_seq,
                        client_msg_no: &send.client_msg_no,
                        channel_id: &send.channel_id,
                        channel_type: send.channel_type,
                        flags: send.flags,
                        payload: plain.as_bytes(),
                    };
                    let mut out = BytesMut::new();
                    session.send(&outgoing, &mut out).unwrap();
                    assert_eq!(out, wire, "{name}");
                }
            }
            Frame::Recv(recv) => {
                for chunk in wire.chunks(7) {
                    assert_eq!(session.poll(), Ok(None), "{name}");
                    session.feed(Bytes::copy_from_slice(chunk));
                }
                let plain = Bytes::copy_from_slice(plain.as_bytes());
                assert_eq!(session.poll(), Ok(Some(Event::Recv(Recv { payload: plain, ..recv }))), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
        seen += 1;
    }
    assert!(seen >= 10, "only {seen} vectors have a crypto member");
}

#[test]
fn a_forged_message_breaks_the_session() {
    let (mut session, keys) = open_session(5);
    let mut recv = Recv { message_id: 9, payload: keys.encrypt(b"hi").into(), ..Recv::default() };
    recv.msg_key = hex_text(recv_signature(&keys, &recv));
    let mut good = BytesMut::new();
    encode_recv(&recv, 5, &mut good).unwrap();
    session.feed(good.freeze());
    assert!(matches!(session.poll(), Ok(Some(Event::Recv(r))) if r.payload == "hi"));

    let mut forged = BytesMut::new();
    encode_recv(&Recv { message_seq: 1, ..recv }, 5, &mut forged).unwrap();
    session.feed(forged.freeze());
    for _ in 0..2 {
        assert_eq!(session.poll(), Err(Fault::Forged { message_id: 9 }));
    }
}

#[test]
fn refusals_and_nonsense() {
    let begin = || Session::begin(&Login::new("u1"), [5; 32], 0, &mut BytesMut::new()).unwrap();
    let mut refused = begin();
    refused.feed(conn_ack(6, ReasonCode::AUTH_FAIL, ""));
    assert_eq!(refused.poll(), Ok(Some(Event::Refused(ReasonCode::AUTH_FAIL))));
    assert!(!refused.is_open());

    let mut early = begin();
    early.feed(Bytes::from_static(&[0x80]));
    assert_eq!(early.poll(), Err(Fault::Unexpected(FrameKind::Pong)));

    let mut weak = begin();
    weak.feed(conn_ack(6, ReasonCode::SUCCESS, "AAAA"));
    assert_eq!(weak.poll(), Err(Fault::Keys(KeyError::PublicKey)));

    let mut clear = begin();
    clear.feed(conn_ack(6, ReasonCode::SUCCESS, ""));
    assert_eq!(clear.poll(), Ok(Some(Event::Open { version: 6, node: 7, encrypted: false })));
    clear.feed(Bytes::from_static(&[0x00]));
    assert!(matches!(clear.poll(), Err(Fault::Malformed(_))));
}

#[test]
fn without_keys_nothing_is_encrypted() {
    let mut session = Session::begin(&Login::new("u1"), [5; 32], 0, &mut BytesMut::new()).unwrap();
    session.feed(conn_ack(6, ReasonCode::SUCCESS, ""));
    session.poll().unwrap();
    let (no, to) = (Text::from("n1"), Text::from("u2"));
    let outgoing = Outgoing {
        client_seq: 1,
        client_msg_no: &no,
        channel_id: &to,
        channel_type: 1,
        flags: Flags::RED_DOT,
        payload: b"clear",
    };
    let mut out = BytesMut::new();
    session.send(&outgoing, &mut out).unwrap();
    let Frame::Send(send) = decode_one(&out.freeze(), 6).unwrap().unwrap().0 else { panic!("no SEND") };
    assert!(send.payload == "clear" && send.msg_key.is_empty());

    let recv = Recv { payload: Bytes::from_static(b"clear"), ..Recv::default() };
    let mut wire = BytesMut::new();
    encode(&Frame::Recv(recv.clone()), 6, &mut wire).unwrap();
    session.feed(wire.freeze());
    assert_eq!(session.poll(), Ok(Some(Event::Recv(recv))));
}
