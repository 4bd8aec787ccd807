//! Sessions made with the fixed key pair of the vectors on the client's side: what was signed and encrypted for the server's
//! fixed pair is translated to the key that the live server drew.

use super::wire::{Got, Transport, Wire};
use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde_json::Value;
use std::time::Duration;
use wukong_proto::{ConnAck, Connect, Frame, ReasonCode, Send, Text, decode_one, encode_connect, encode_send};
use wukong_runtime::client::crypto::Keys;
use wukong_runtime::client::session::send_signature;
use wukong_tests::support::Server;
use x25519_dalek::StaticSecret;

/// The exchange of keys that the vectors were made with.
pub struct Fixed {
    secret: [u8; 32],
    pub client_key: String,
    aes_key: String,
    salt: String,
    keys: Keys,
}

impl Fixed {
    pub fn new(exchange: &Value) -> Fixed {
        let text = |name: &str| exchange[name].as_str().unwrap_or_else(|| panic!("no {name}")).to_owned();
        let secret: [u8; 32] = unhex(&text("clientPrivHex")).try_into().expect("32 bytes");
        let keys = Keys::derive(&StaticSecret::from(secret), &text("serverKey"), &text("salt")).expect("usable keys");
        let (client_key, aes_key, salt) = (text("clientKey"), text("aesKey"), text("salt"));
        Fixed { secret, client_key, aes_key, salt, keys }
    }

    pub fn live(&self, ack: &ConnAck) -> Keys {
        Keys::derive(&StaticSecret::from(self.secret), &ack.server_key, &ack.salt).expect("usable keys in CONNACK")
    }

    /// Without any look at the padding.
    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (key, iv) = (self.aes_key.as_bytes().try_into().ok()?, self.salt.as_bytes().try_into().ok()?);
        let (key, iv): ([u8; 16], [u8; 16]) = (key, iv);
        let decryptor = cbc::Decryptor::<aes::Aes128>::new(&key.into(), &iv.into());
        decryptor.decrypt_padded_vec_mut::<NoPadding>(cipher).ok()
    }

    /// A SEND with the same strengths and defects under the live keys; anything else as it is.
    pub fn translate(&self, bytes: &[u8], version: u8, live: &Keys) -> Vec<u8> {
        let Ok(Some((Frame::Send(old), used))) = decode_one(&Bytes::copy_from_slice(bytes), version) else {
            return bytes.to_vec();
        };
        let mut new = Send { payload: self.translate_payload(&old.payload, live), ..old.clone() };
        let (was, is) = (text(send_signature(&self.keys, &old)), text(send_signature(live, &new)));
        if *old.msg_key == *was {
            new.msg_key = is.as_str().into();
        } else if *old.msg_key == *was.to_uppercase() {
            new.msg_key = is.to_uppercase().as_str().into();
        }
        let mut out = BytesMut::new();
        encode_send(&new, version, &mut out).expect("as long as before");
        out.extend_from_slice(&bytes[used..]);
        out.to_vec()
    }

    fn translate_payload(&self, payload: &Bytes, live: &Keys) -> Bytes {
        let cipher = STANDARD.decode(payload).ok().filter(|c| !c.is_empty() && c.len() % 16 == 0);
        let Some(plain) = cipher.and_then(|c| self.decrypt(&c)) else {
            return payload.clone();
        };
        // CBC: without the block that the padding adds it is the cipher of the plain blocks as they are.
        let cipher = STANDARD.decode(live.encrypt(&plain)).expect("base64");
        STANDARD.encode(&cipher[..plain.len()]).into()
    }
}

fn text(hex: [u8; 32]) -> String {
    String::from_utf8(hex.to_vec()).expect("hexadecimal digits")
}

pub fn unhex(hex: &str) -> Vec<u8> {
    assert!(hex.len().is_multiple_of(2) && hex.is_ascii(), "not hexadecimal: {hex}");
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// A CONNECT of `uid` with the client's fixed key.
pub fn connect_frame(fixed: &Fixed, uid: &str, version: u8) -> Vec<u8> {
    let connect = Connect {
        version,
        device_flag: 1,
        device_id: Text::from(format!("device of {uid}").as_str()),
        uid: Text::from(uid),
        client_timestamp: wukong_runtime::client::wall_ms(),
        client_key: Text::from(fixed.client_key.as_str()),
        ..Connect::default()
    };
    let mut out = BytesMut::new();
    encode_connect(&connect, &mut out).expect("it fits");
    out.to_vec()
}

/// A connection that is logged in.
pub fn open(server: &Server, transport: Transport, fixed: &Fixed, uid: &str, version: u8) -> (Wire, Keys) {
    let mut wire = Wire::open(server, transport, version);
    wire.write(&connect_frame(fixed, uid, version));
    match wire.next(Duration::from_secs(5)) {
        Got::Frame(frame) => match *frame {
            Frame::ConnAck(ack) if ack.reason == ReasonCode::SUCCESS => {
                let live = fixed.live(&ack);
                (wire, live)
            }
            other => panic!("{uid} is not let in: {other:?}"),
        },
        other => panic!("{uid} is not let in: {other:?}"),
    }
}
