//! The client's side of the key exchange, payload encryption and signatures (wire-protocol 7), written independently
//! of the core.

use aes::Aes128;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as B64;
use bytes::Bytes;
use md5::{Digest, Md5};
use wukong_proto::{Recv, Send, Text};
use x25519_dalek::{PublicKey, StaticSecret};

/// A client's long-lived key pair. Real clients make one per connection; the server cannot tell.
#[derive(Clone)]
pub struct KeyPair {
    secret: StaticSecret,
    pub public: Text,
}

impl KeyPair {
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        let secret = StaticSecret::from(secret);
        let public = Text::from(B64.encode(PublicKey::from(&secret).as_bytes()));
        Self { secret, public }
    }

    /// The keys of a connection from what CONNACK says; none if it is malformed.
    #[must_use]
    pub fn session(&self, server_key: &str, salt: &str) -> Option<Session> {
        let server: [u8; 32] = B64.decode(server_key).ok()?.try_into().ok()?;
        let iv: [u8; 16] = salt.as_bytes().try_into().ok()?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(server));
        let digest = hex(&Md5::digest(B64.encode(shared.as_bytes())));
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_bytes()[..16]);
        Some(Session { key, iv })
    }
}

/// Keys of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Session {
    pub key: [u8; 16],
    pub iv: [u8; 16],
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 * bytes.len());
    for b in bytes {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
    out
}

impl Session {
    /// `E(x)` of the specification: base64 of AES-128-CBC with PKCS7.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> String {
        let padded = plain.len() / 16 * 16 + 16;
        let mut buffer = vec![0; padded];
        buffer[..plain.len()].copy_from_slice(plain);
        let cipher = cbc::Encryptor::<Aes128>::new(&self.key.into(), &self.iv.into());
        let sealed = cipher.encrypt_padded_mut::<Pkcs7>(&mut buffer, plain.len()).unwrap_or_default();
        B64.encode(sealed)
    }

    /// Undoes `seal`; none when it was not sealed with these keys.
    #[must_use]
    pub fn open(&self, sealed: &[u8]) -> Option<Bytes> {
        let mut buffer = B64.decode(sealed).ok()?;
        let cipher = cbc::Decryptor::<Aes128>::new(&self.key.into(), &self.iv.into());
        let n = cipher.decrypt_padded_mut::<Pkcs7>(&mut buffer).ok()?.len();
        buffer.truncate(n);
        Some(Bytes::from(buffer))
    }

    fn msg_key(&self, sign: &[u8]) -> String {
        hex(&Md5::digest(self.seal(sign)))
    }

    /// Encrypts and signs a SEND whose payload is in clear.
    pub fn sign_send(&self, send: &mut Send, plain: &[u8]) {
        send.payload = Bytes::from(self.seal(plain));
        let mut sign = Vec::with_capacity(64 + send.payload.len());
        number(&mut sign, i128::from(send.client_seq));
        sign.extend_from_slice(send.client_msg_no.as_bytes());
        sign.extend_from_slice(send.channel_id.as_bytes());
        number(&mut sign, i128::from(send.channel_type));
        sign.extend_from_slice(&send.payload);
        send.msg_key = Text::from(self.msg_key(&sign));
    }

    /// Whether the signature of a RECV is right.
    #[must_use]
    pub fn recv_is_signed(&self, recv: &Recv) -> bool {
        let mut sign = Vec::with_capacity(96 + recv.payload.len());
        number(&mut sign, i128::from(recv.message_id));
        number(&mut sign, i128::from(recv.message_seq));
        sign.extend_from_slice(recv.client_msg_no.as_bytes());
        number(&mut sign, i128::from(recv.timestamp));
        sign.extend_from_slice(recv.from_uid.as_bytes());
        sign.extend_from_slice(recv.channel_id.as_bytes());
        number(&mut sign, i128::from(recv.channel_type));
        sign.extend_from_slice(&recv.payload);
        recv.msg_key == *self.msg_key(&sign)
    }
}

fn number(out: &mut Vec<u8>, v: i128) {
    use std::io::Write as _;
    // Writing into a vector cannot fail.
    let _ = write!(out, "{v}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_exchange_of_the_specification() {
        let pair = KeyPair::new(std::array::from_fn(|i| i as u8 + 1));
        assert_eq!(pair.public, "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=");
        let s = pair.session("ZLEBsdC+WocEvQePmJUAH8A+jp+VIvGI3RKNmEbUhGY=", "A1b2C3d4E5f6G7h8").unwrap();
        assert_eq!(&s.key, b"423959a858cf41db");
        let mut send = Send {
            client_seq: 1,
            client_msg_no: Text::from("c0ffee"),
            channel_id: Text::from("u2"),
            channel_type: 1,
            ..Send::default()
        };
        let plain = s.open(b"VF+Do2WCwi+Vg6sNalcrXQLYYw6wkkb5qCZxuM+I6j8o=");
        assert!(plain.is_none(), "not base64 of whole blocks");
        s.sign_send(&mut send, b"hello");
        assert_eq!(s.open(&send.payload).as_deref(), Some(&b"hello"[..]));
        assert_eq!(send.msg_key.len(), 32);
        assert!(pair.session("short", "A1b2C3d4E5f6G7h8").is_none());
    }

    #[test]
    fn a_changed_recv_is_noticed() {
        let s = Session { key: *b"0123456789abcdef", iv: *b"fedcba9876543210" };
        let mut recv = Recv { message_id: 7, payload: Bytes::from(s.seal(b"x")), ..Recv::default() };
        assert!(!s.recv_is_signed(&recv));
        let mut sign = Vec::new();
        for part in ["7", "0", "", "0", "", "", "0"] {
            sign.extend_from_slice(part.as_bytes());
        }
        sign.extend_from_slice(&recv.payload);
        recv.msg_key = Text::from(s.msg_key(&sign));
        assert!(s.recv_is_signed(&recv));
        recv.message_seq = 1;
        assert!(!s.recv_is_signed(&recv));
    }
}
