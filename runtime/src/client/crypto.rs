//! Session keys, and the operations made with them: encrypting payloads and signing frames (wire-protocol section 7).

use std::fmt;

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use x25519_dalek::{PublicKey, StaticSecret};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Why no keys could be made from what the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// The peer's public key is not the base64 of 32 bytes.
    PublicKey,
    /// The peer's public key is a point of small order: the secret would be known to everyone.
    WeakKey,
    /// The salt is not 16 bytes.
    Salt,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyError::PublicKey => "the public key is not the base64 of 32 bytes",
            KeyError::WeakKey => "the public key gives a shared secret of zeros",
            KeyError::Salt => "the salt is not 16 characters",
        })
    }
}

impl std::error::Error for KeyError {}

/// The payload is not base64 of whole, correctly padded cipher blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undecryptable;

/// Base64 of the public key that belongs to `secret`, as CONNECT and CONNACK carry it.
#[must_use]
pub fn public_key(secret: &StaticSecret) -> String {
    STANDARD.encode(PublicKey::from(secret).as_bytes())
}

/// The keys of one connection. Client and server derive the same.
#[derive(Clone)]
pub struct Keys {
    aes: Aes128,
    iv: [u8; 16],
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// The keys from the own secret, the peer's public key as sent, and the salt.
    ///
    /// # Errors
    /// The peer's key or the salt is unusable.
    pub fn derive(secret: &StaticSecret, peer_key: &str, salt: &str) -> Result<Keys, KeyError> {
        let peer: [u8; 32] =
            STANDARD.decode(peer_key).ok().and_then(|k| k.try_into().ok()).ok_or(KeyError::PublicKey)?;
        let iv: [u8; 16] = salt.as_bytes().try_into().map_err(|_| KeyError::Salt)?;
        let shared = secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(KeyError::WeakKey);
        }
        let hex = hex_md5(STANDARD.encode(shared.as_bytes()).as_bytes());
        let aes = Aes128::new_from_slice(&hex[..16]).expect("16 bytes");
        Ok(Keys { aes, iv })
    }

    /// E(x): base64 of the padded ciphertext.
    #[must_use]
    pub fn encrypt(&self, plain: &[u8]) -> String {
        let mut blocks = Vec::with_capacity(plain.len() + 16);
        blocks.extend_from_slice(plain);
        STANDARD.encode(self.cipher(&mut blocks))
    }

    /// The inverse of [`encrypt`](Keys::encrypt); CR and LF in the text are tolerated.
    ///
    /// # Errors
    /// The text was not made by [`encrypt`](Keys::encrypt) with these keys.
    pub fn decrypt(&self, text: &[u8]) -> Result<Vec<u8>, Undecryptable> {
        let broken = |b: &u8| matches!(b, b'\r' | b'\n');
        let mut blocks = if text.iter().any(broken) {
            STANDARD.decode(text.iter().copied().filter(|b| !broken(b)).collect::<Vec<u8>>())
        } else {
            STANDARD.decode(text)
        }
        .map_err(|_| Undecryptable)?;
        let decryptor = cbc::Decryptor::inner_iv_init(&self.aes, &self.iv.into());
        let len = decryptor.decrypt_padded_mut::<Pkcs7>(&mut blocks).map_err(|_| Undecryptable)?.len();
        blocks.truncate(len);
        Ok(blocks)
    }

    /// MsgKey(x): the signature of what `parts` are together.
    #[must_use]
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let len: usize = parts.iter().map(|p| p.len()).sum();
        let mut blocks = Vec::with_capacity(len + 16);
        for part in parts {
            blocks.extend_from_slice(part);
        }
        hex_md5(STANDARD.encode(self.cipher(&mut blocks)).as_bytes())
    }

    fn cipher<'a>(&self, plain: &'a mut Vec<u8>) -> &'a [u8] {
        let len = plain.len();
        plain.resize(len + 16, 0);
        let encryptor = cbc::Encryptor::inner_iv_init(&self.aes, &self.iv.into());
        encryptor.encrypt_padded_mut::<Pkcs7>(plain, len).expect("room for the padding")
    }
}

fn hex_md5(bytes: &[u8]) -> [u8; 32] {
    let mut hex = [0; 32];
    for (pair, byte) in hex.chunks_exact_mut(2).zip(Md5::digest(bytes)) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(first: u8) -> StaticSecret {
        StaticSecret::from(core::array::from_fn::<u8, 32, _>(|i| first + i as u8))
    }

    #[test]
    fn both_sides_derive_the_keys_of_the_vector() {
        let (client, server) = (secret(0x01), secret(0x41));
        assert_eq!(public_key(&client), "B6N8vBQgk8i3VdwbEOhstCY3StFqqFPtC9/AsrhtHHw=");
        assert_eq!(public_key(&server), "ZLEBsdC+WocEvQePmJUAH8A+jp+VIvGI3RKNmEbUhGY=");
        let salt = "A1b2C3d4E5f6G7h8";
        let ours = Keys::derive(&client, &public_key(&server), salt).unwrap();
        let theirs = Keys::derive(&server, &public_key(&client), salt).unwrap();
        let text = br#"{"type":1,"content":"hello"}"#;
        assert_eq!(ours.encrypt(text), "VF+Do2WCwi+Vg6NalcrXQLYWw6wkkb5qCZxuM+I6j8o=");
        assert_eq!(theirs.decrypt(ours.encrypt(text).as_bytes()).unwrap(), text);
        let signature = ours.sign(&[b"1", b"c0ffee", b"u2", b"1", ours.encrypt(text).as_bytes()]);
        assert_eq!(&signature, b"b02a7f168e7ae7f1d1a920bbf3cbd990");
    }

    #[test]
    fn padding_is_always_there_and_always_checked() {
        let keys = Keys::derive(&secret(1), &public_key(&secret(0x41)), "A1b2C3d4E5f6G7h8").unwrap();
        assert_eq!(keys.encrypt(b"").len(), 24);
        assert_eq!(keys.encrypt(&[7; 32]).len(), 64);
        assert_eq!(keys.decrypt(keys.encrypt(&[7; 32]).as_bytes()).unwrap(), [7; 32]);
        let text = keys.encrypt(&[7; 32]);
        let folded = format!("{}\r\n{}", &text[..20], &text[20..]);
        assert_eq!(keys.decrypt(folded.as_bytes()).unwrap(), [7; 32]);
        for bad in [&b""[..], b"%%%%", b"AAAA", &text.as_bytes()[..24], &text.as_bytes()[..44]] {
            assert_eq!(keys.decrypt(bad), Err(Undecryptable), "{bad:?}");
        }
    }

    #[test]
    fn unusable_keys_are_refused() {
        let ours = secret(1);
        let derive = |key: &str, salt: &str| Keys::derive(&ours, key, salt).map(drop);
        let (good, salt) = (public_key(&secret(2)), "A1b2C3d4E5f6G7h8");
        assert_eq!(derive("", salt), Err(KeyError::PublicKey));
        assert_eq!(derive("AAAA", salt), Err(KeyError::PublicKey));
        assert_eq!(derive(&STANDARD.encode([0; 32]), salt), Err(KeyError::WeakKey));
        assert_eq!(derive(&good, "short"), Err(KeyError::Salt));
        assert_eq!(derive(&good, salt), Ok(()));
    }
}
