//! `conn::crypto` against the wire vectors, and against a plain implementation of specification section 7.

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use md5::{Digest, Md5};
use proptest::prelude::*;
use serde_json::Value;
use wukong_core::conn::crypto::{
    KeyError, OpenError, Scratch, SessionKeys, check_client_key, exchange, open_send, salt, seal_into, seal_recv,
    sealed_len,
};
use wukong_proto::{Connect, Frame, Recv, Send, Setting, Text, decode_one};

const VECTORS: &str = include_str!("../../proto/tests/vectors/wire-vectors.json");
const KEY: [u8; 16] = *b"423959a858cf41db";
const IV: [u8; 16] = *b"A1b2C3d4E5f6G7h8";

fn vectors() -> Value {
    serde_json::from_str(VECTORS).unwrap()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_else(|| panic!("no member {member} in {value}"))
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn bytes<const N: usize>(text: &str) -> [u8; N] {
    text.as_bytes().try_into().unwrap()
}

fn frame(entry: &Value) -> Frame {
    let version = entry["version"].as_u64().unwrap() as u8;
    decode_one(&Bytes::from(unhex(text(entry, "hex"))), version).unwrap().unwrap().0
}

/// The entries of a list whose names start with any of the prefixes, by name.
fn named<'v>(list: &'v Value, prefixes: &[&str]) -> Vec<(&'v str, &'v Value)> {
    let entries = list.as_array().unwrap().iter().map(|entry| (text(entry, "name"), entry));
    entries.filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix))).collect()
}

fn keys() -> SessionKeys {
    SessionKeys::new(KEY, IV)
}

fn e(plain: &[u8]) -> String {
    let cipher = cbc::Encryptor::<aes::Aes128>::new(&KEY.into(), &IV.into());
    STANDARD.encode(cipher.encrypt_padded_vec_mut::<Pkcs7>(plain))
}

fn msg_key(sign: &[u8]) -> Text {
    let digest = Md5::digest(e(sign));
    Text::from(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn send_sign(send: &Send) -> Vec<u8> {
    let head = format!("{}{}{}{}", send.client_seq, send.client_msg_no, send.channel_id, send.channel_type);
    [head.as_bytes(), &send.payload].concat()
}

fn recv_sign(recv: &Recv) -> Vec<u8> {
    let Recv { message_id, message_seq, client_msg_no, timestamp, from_uid, channel_id, channel_type, .. } = recv;
    let head = format!("{message_id}{message_seq}{client_msg_no}{timestamp}{from_uid}{channel_id}{channel_type}");
    [head.as_bytes(), &recv.payload].concat()
}

/// A SEND signed over the payload text given.
fn signed(payload: impl Into<Bytes>) -> Send {
    let mut send =
        Send { client_seq: 7, channel_id: "u2".into(), channel_type: 1, payload: payload.into(), ..Send::default() };
    send.msg_key = msg_key(&send_sign(&send));
    send
}

fn open(send: &Send) -> Result<Bytes, OpenError> {
    open_send(&keys(), send, &mut Scratch::default())
}

#[test]
fn vectors_with_crypto() {
    let (mut sends, mut recvs, mut scratch) = (0, 0, Scratch::default());
    for entry in vectors()["frames"].as_array().unwrap().iter().filter(|entry| !entry["crypto"].is_null()) {
        let (name, crypto) = (text(entry, "name"), &entry["crypto"]);
        let keys = SessionKeys::new(bytes(text(crypto, "aesKey")), bytes(text(crypto, "iv")));
        let plain = text(crypto, "plaintextUtf8");
        match frame(entry) {
            Frame::Send(send) => {
                assert_eq!(send.payload, text(crypto, "payloadText"), "{name}");
                assert_eq!(send_sign(&send), text(crypto, "signString").as_bytes(), "{name}");
                assert_eq!(open_send(&keys, &send, &mut scratch).as_deref(), Ok(plain.as_bytes()), "{name}");
                sends += 1;
            }
            Frame::Recv(written) => {
                let mut recv = Recv {
                    payload: plain.to_owned().into(),
                    msg_key: Text::EMPTY,
                    setting: written.setting.with(Setting::NO_ENCRYPT),
                    ..written.clone()
                };
                let mut out = BytesMut::from("before");
                let key = seal_into(&keys, &recv, plain.as_bytes(), &mut out);
                assert_eq!(out, format!("before{}", text(crypto, "payloadText")), "{name}");
                assert_eq!(written.msg_key.as_bytes(), key, "{name}");
                seal_recv(&keys, &mut recv, &mut scratch);
                assert_eq!(recv_sign(&recv), text(crypto, "signString").as_bytes(), "{name}");
                assert_eq!(recv, written, "{name}");
                recvs += 1;
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(sends >= 7 && recvs >= 7, "{sends} SEND and {recvs} RECV vectors");
}

#[test]
fn vector_key_exchange() {
    let vector = &vectors()["key_exchange"];
    let secret: [u8; 32] = unhex(text(vector, "serverPrivHex")).try_into().unwrap();
    let client = check_client_key(text(vector, "clientKey")).unwrap();
    let (keys, server_key) = exchange(client, secret, bytes(text(vector, "salt"))).unwrap();
    assert_eq!(server_key, text(vector, "serverKey"));
    assert_eq!(keys.salt(), text(vector, "salt"));
    assert_eq!(keys, SessionKeys::new(bytes(text(vector, "aesKey")), bytes(text(vector, "salt"))));
    assert_eq!(format!("{keys:?}"), "SessionKeys(..)");
}

#[test]
fn vectors_of_refused_client_keys() {
    let all = vectors();
    let entries = named(&all["malformed"], &["connect-clientkey-"]);
    assert!(entries.len() >= 6);
    for (name, entry) in entries {
        let Frame::Connect(Connect { client_key, .. }) = frame(entry) else { panic!("{name}") };
        let outcome = check_client_key(&client_key).and_then(|key| exchange(key, [0x42; 32], IV));
        let expected = match text(entry, "expected") {
            "connack:21,close" => KeyError::Empty,
            "connack:2,close" => KeyError::NotUsable,
            other => panic!("{name}: {other}"),
        };
        assert_eq!(outcome, Err(expected), "{name}");
    }
}

#[test]
fn client_keys_are_strict() {
    let good = STANDARD.encode([9; 32]);
    assert_eq!(check_client_key(&good), Ok([9; 32]));
    let url_safe = STANDARD.encode([0xFF; 32]).replace('/', "_");
    let trailing_bits = format!("{}l=", &good[..42]);
    for bad in [&good[..43], &format!("{good}\n"), &format!("{good}="), &url_safe, &trailing_bits, "=", "é"] {
        assert_eq!(check_client_key(bad), Err(KeyError::NotUsable), "{bad}");
    }
}

#[test]
fn vectors_of_refused_sends() {
    let all = vectors();
    let prefixes = ["send-bad-msgkey", "send-empty-msgkey", "send-msgkey-uppercase", "send-payload-", "send-padding-"];
    let entries = named(&all["malformed"], &prefixes);
    assert!(entries.len() >= 9);
    for (name, entry) in entries {
        assert_eq!(text(entry, "expected"), "sendack:9", "{name}");
        let Frame::Send(send) = frame(entry) else { panic!("{name}") };
        let expected = match name {
            "send-payload-not-base64" => OpenError::Encoding,
            "send-payload-15-byte-ciphertext" | "send-payload-zero-bytes" => OpenError::Length,
            _ if name.starts_with("send-padding-") => OpenError::Padding,
            _ => OpenError::MsgKey,
        };
        assert_eq!(open(&send), Err(expected), "{name}");
    }
}

#[test]
fn no_encrypt_counts_only_without_a_msg_key() {
    let all = vectors();
    let [(name, entry)] = named(&all["malformed"], &["send-noencrypt-plaintext"])[..] else { panic!() };
    let Frame::Send(mut send) = frame(entry) else { panic!("{name}") };
    assert_eq!(open(&send), Ok(send.payload.clone()));
    send.setting = Setting::default();
    assert_eq!(open(&send), Err(OpenError::MsgKey));
    let mut send = Send { setting: Setting::NO_ENCRYPT, ..signed(e(b"hi")) };
    assert_eq!(open(&send).as_deref(), Ok(&b"hi"[..]));
    send.msg_key = Text::from_static("0");
    assert_eq!(open(&send), Err(OpenError::MsgKey));
}

#[test]
fn line_breaks_in_base64_are_passed_over() {
    let text = e(&[b'x'; 100]);
    let lines: Vec<&str> = (0..text.len()).step_by(19).map(|at| &text[at..text.len().min(at + 19)]).collect();
    for wrapped in [lines.join("\r\n"), lines.join("\n"), format!("{text}\r\n"), text.replace('=', "\n=")] {
        assert_eq!(open(&signed(wrapped)).as_deref(), Ok(&[b'x'; 100][..]));
    }
    for bad in [lines.join(" "), format!("{text}\n*"), text.trim_end_matches('=').to_owned()] {
        assert_eq!(open(&signed(bad)), Err(OpenError::Encoding));
    }
    assert_eq!(open(&signed("\r\n")), Err(OpenError::Length));
}

#[test]
fn salts_are_alphanumeric_and_use_the_whole_alphabet() {
    let mut seen = [0_u32; 128];
    for round in 0..4_000_u32 {
        for character in salt(Md5::digest(round.to_le_bytes()).into()) {
            seen[usize::from(character)] += 1;
        }
    }
    for (character, count) in (0_u8..).zip(seen) {
        // 64 000 draws among 62: 1032 expected, six deviations allowed.
        let expected = if character.is_ascii_alphanumeric() { 830..1240 } else { 0..1 };
        assert!(expected.contains(&count), "{character}: {count}");
    }
}

/// Decrypts as a client would.
fn decrypted(payload: &[u8]) -> Vec<u8> {
    let cipher = cbc::Decryptor::<aes::Aes128>::new(&KEY.into(), &IV.into());
    cipher.decrypt_padded_vec_mut::<Pkcs7>(&STANDARD.decode(payload).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sends_open_to_what_was_encrypted(
        plain in prop::collection::vec(any::<u8>(), 0..5000),
        client_seq: u32, channel_type: u8, client_msg_no in ".{0,40}", channel_id in ".{0,40}", flip: prop::sample::Index,
    ) {
        let mut send = Send {
            client_seq, channel_type, client_msg_no: client_msg_no.into(), channel_id: channel_id.into(),
            payload: e(&plain).into(), ..Send::default()
        };
        send.msg_key = msg_key(&send_sign(&send));
        let (mut scratch, plain) = (Scratch::default(), Bytes::from(plain));
        prop_assert_eq!(open_send(&keys(), &send, &mut scratch), Ok(plain.clone()));
        let mut payload = send.payload.to_vec();
        payload[flip.index(send.payload.len())] ^= 1;
        let bent = Send { payload: payload.into(), ..send.clone() };
        prop_assert_eq!(open_send(&keys(), &bent, &mut scratch), Err(OpenError::MsgKey));
        prop_assert_eq!(open_send(&keys(), &send, &mut scratch), Ok(plain));
    }

    #[test]
    fn recvs_are_sealed_as_the_plain_code_seals(
        plains in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 1..4),
        message_id: i64, message_seq: u64, timestamp: i32, channel_type: u8,
        client_msg_no in ".{0,40}", from_uid in ".{0,40}", channel_id in ".{0,40}", keep: bool,
    ) {
        let (mut scratch, mut kept) = (Scratch::default(), Vec::new());
        for plain in plains {
            let mut recv = Recv {
                message_id, message_seq, timestamp, channel_type,
                client_msg_no: client_msg_no.as_str().into(), from_uid: from_uid.as_str().into(),
                channel_id: channel_id.as_str().into(), payload: plain.clone().into(), ..Recv::default()
            };
            seal_recv(&keys(), &mut recv, &mut scratch);
            prop_assert_eq!(&recv.payload, &e(&plain));
            prop_assert_eq!(recv.payload.len(), sealed_len(plain.len()));
            prop_assert_eq!(&decrypted(&recv.payload), &plain);
            prop_assert_eq!(&recv.msg_key, &msg_key(&recv_sign(&recv)));
            kept.extend(keep.then_some((recv, plain)));
        }
        // What was sealed before is not touched by what is sealed after.
        prop_assert!(kept.iter().all(|(recv, plain)| recv.payload == e(plain)));
    }
}

#[test]
fn every_size_around_the_block_and_group_boundaries() {
    let mut scratch = Scratch::default();
    for size in (0..=400).chain([4_096, 65_537, 700_000]) {
        let plain: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let mut recv = Recv { payload: plain.clone().into(), ..Recv::default() };
        seal_recv(&keys(), &mut recv, &mut scratch);
        assert_eq!(recv.payload, e(&plain), "{size}");
        assert_eq!(recv.msg_key, msg_key(&recv_sign(&recv)), "{size}");
        let opened = open_send(&keys(), &signed(recv.payload), &mut scratch);
        assert_eq!(opened.as_deref(), Ok(&plain[..]), "{size}");
    }
}
