//! Session keys of one connection: the key exchange of CONNECT, opening SEND payloads, sealing RECV payloads
//! (wire specification section 7).
//!
//! `E(x) = base64(AES-128-CBC(PKCS7(x)))`, and a MsgKey is the lower-case hex MD5 of the text `E(sign)`. The sign covers
//! the whole payload as it is on the wire, so [`Signer`] streams it: a message costs two passes of AES-CBC over its
//! text, one of MD5, and no intermediate buffer but one group of 48 bytes.
//!
//! Only 32 bytes are kept per connection. The AES round keys are expanded for each message: that takes tens of
//! nanoseconds, while an expanded key of the `aes` crate, sized for its portable code, takes 704 bytes.

use super::base64::{GROUP, TEXT, encode, encode_last, text_len};
use aes::cipher::inout::InOutBuf;
use aes::cipher::{BlockDecryptMut, BlockEncryptMut, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use alloc::vec::Vec;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use core::fmt;
use md5::{Digest, Md5};
use wukong_proto::{Recv, Send, Setting, Text};
use x25519_dalek::{PublicKey, StaticSecret};

const BLOCK: usize = 16;
/// Length of a MsgKey.
const MSG_KEY: usize = 32;

type Block = aes::Block;
type Encryptor<'k> = cbc::Encryptor<&'k Aes128Enc>;
type Decryptor<'k> = cbc::Decryptor<&'k Aes128Dec>;

/// The secrets of one connection: an AES-128 key and an IV, both ASCII text. They never change while it lives.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKeys {
    key: [u8; 16],
    iv: [u8; 16],
}

impl SessionKeys {
    /// Keys as both sides know them: the key is half an MD5 in hex, the IV is the salt of the CONNACK.
    #[must_use]
    pub const fn new(key: [u8; 16], salt: [u8; 16]) -> Self {
        Self { key, iv: salt }
    }

    /// The salt to write in the CONNACK.
    #[must_use]
    pub fn salt(&self) -> Text {
        ascii(Bytes::copy_from_slice(&self.iv))
    }

    fn cipher(&self) -> Aes128Enc {
        Aes128Enc::new(&self.key.into())
    }
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKeys(..)")
    }
}

/// Why a client key is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// There is none: CONNACK reason 21.
    Empty,
    /// Not padded base64 of 32 bytes, or a point that leaves no secret: CONNACK reason 2.
    NotUsable,
}

/// Why an encrypted SEND is refused; any of them is SENDACK reason 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The MsgKey is not that of the frame.
    MsgKey,
    /// The payload is not padded base64.
    Encoding,
    /// The ciphertext is empty or not made of whole blocks.
    Length,
    /// The PKCS7 padding is wrong.
    Padding,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the client key is empty",
            Self::NotUsable => "the client key is not a usable X25519 public key in base64",
        })
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MsgKey => "the message key does not match the frame",
            Self::Encoding => "the payload is not base64",
            Self::Length => "the encrypted payload is not made of whole blocks",
            Self::Padding => "the padding of the decrypted payload is wrong",
        })
    }
}

impl core::error::Error for KeyError {}
impl core::error::Error for OpenError {}

/// Buffers reused from message to message, one set per shard. Holds no state between calls.
///
/// What [`seal_recv`] returns are slices of the buffer: it is taken back once the frame sealed before is dropped (the
/// usual case: encoded at once), otherwise left to that frame and replaced.
#[derive(Clone, Default)]
pub struct Scratch {
    opened: Vec<u8>,
    sealed: BytesMut,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scratch(..)")
    }
}

/// Reads the ClientKey of a CONNECT.
pub fn check_client_key(text: &str) -> Result<[u8; 32], KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    let mut key = [0; 33];
    if text.len() == text_len(32) && matches!(STANDARD.decode_slice(text, &mut key), Ok(32)) {
        Ok(core::array::from_fn(|at| key[at]))
    } else {
        Err(KeyError::NotUsable)
    }
}

/// Derives the keys of a connection, and the ServerKey to answer with. `server_secret` is random and fresh for every
/// CONNECT; `salt` comes from [`salt`].
pub fn exchange(
    client_public: [u8; 32],
    server_secret: [u8; 32],
    salt: [u8; 16],
) -> Result<(SessionKeys, Text), KeyError> {
    let secret = StaticSecret::from(server_secret);
    let shared = secret.diffie_hellman(&PublicKey::from(client_public));
    if !shared.was_contributory() {
        return Err(KeyError::NotUsable);
    }
    let digest = hex(Md5::digest(STANDARD.encode(shared.as_bytes())).into());
    let server_key = ascii(STANDARD.encode(PublicKey::from(&secret).as_bytes()).into());
    Ok((SessionKeys::new(core::array::from_fn(|at| digest[at]), salt), server_key))
}

/// Turns 16 random bytes into 16 characters of `[0-9A-Za-z]`: the low digits of the number in base 62, each text
/// as likely as any other within one part in 2^32.
#[must_use]
pub fn salt(random: [u8; 16]) -> [u8; 16] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = u128::from_le_bytes(random);
    core::array::from_fn(|_| {
        let digit = DIGITS[(number % 62) as usize];
        number /= 62;
        digit
    })
}

/// Length of the payload on the wire for a plaintext of `len` bytes.
#[must_use]
pub const fn sealed_len(len: usize) -> usize {
    text_len(len / BLOCK * BLOCK + BLOCK)
}

/// Verifies a SEND of a connection with keys and returns its plaintext, in an allocation of its own.
///
/// A SEND with the bit [`Setting::NO_ENCRYPT`] and without a MsgKey is plaintext already: its payload is returned as it
/// is, sharing the received buffer. (With a MsgKey the bit changes nothing.)
pub fn open_send(keys: &SessionKeys, send: &Send, scratch: &mut Scratch) -> Result<Bytes, OpenError> {
    if send.setting.no_encrypt() && send.msg_key.is_empty() {
        return Ok(send.payload.clone());
    }
    let cipher = keys.cipher();
    let mut signer = Signer::new(&cipher, &keys.iv);
    signer.decimal(false, send.client_seq.into());
    signer.write(send.client_msg_no.as_bytes());
    signer.write(send.channel_id.as_bytes());
    signer.decimal(false, send.channel_type.into());
    signer.write(&send.payload);
    if !same(&signer.finish(), send.msg_key.as_bytes()) {
        return Err(OpenError::MsgKey);
    }
    let text = &mut scratch.opened;
    let len = decode(&send.payload, text).ok_or(OpenError::Encoding)?;
    let ciphertext = &mut text[..len];
    if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOCK) {
        return Err(OpenError::Length);
    }
    let cipher = Aes128Dec::from(&cipher);
    Decryptor::inner_iv_init(&cipher, &keys.iv.into()).decrypt_blocks_inout_mut(blocks(ciphertext));
    let padding = usize::from(ciphertext[len - 1]);
    if !(1..=BLOCK).contains(&padding) || ciphertext[len - padding..].iter().any(|byte| usize::from(*byte) != padding) {
        return Err(OpenError::Padding);
    }
    Ok(Bytes::copy_from_slice(&ciphertext[..len - padding]))
}

/// Encrypts and signs a RECV for one connection: `recv` holds the plaintext and every other field as it will be written
/// for this recipient; its payload and MsgKey are set. Clears [`Setting::NO_ENCRYPT`].
pub fn seal_recv(keys: &SessionKeys, recv: &mut Recv, scratch: &mut Scratch) {
    let out = &mut scratch.sealed;
    out.reserve(sealed_len(recv.payload.len()) + MSG_KEY);
    let plaintext = core::mem::take(&mut recv.payload);
    let msg_key = seal_into(keys, recv, &plaintext, out);
    recv.payload = out.split().freeze();
    out.extend_from_slice(&msg_key);
    recv.msg_key = ascii(out.split().freeze());
    recv.setting = recv.setting.without(Setting::NO_ENCRYPT);
}

/// As [`seal_recv`], for a caller that lays out the frame itself: appends the payload to `out` and returns the MsgKey.
/// Of `recv` only the signed fields are read, not its payload.
pub fn seal_into(keys: &SessionKeys, recv: &Recv, plaintext: &[u8], out: &mut BytesMut) -> [u8; 32] {
    let cipher = keys.cipher();
    let mut signer = Signer::new(&cipher, &keys.iv);
    signer.decimal(recv.message_id < 0, recv.message_id.unsigned_abs());
    signer.decimal(false, recv.message_seq);
    signer.write(recv.client_msg_no.as_bytes());
    signer.decimal(recv.timestamp < 0, recv.timestamp.unsigned_abs().into());
    signer.write(recv.from_uid.as_bytes());
    signer.write(recv.channel_id.as_bytes());
    signer.decimal(false, recv.channel_type.into());

    out.reserve(sealed_len(plaintext.len()));
    let mut sink = |text: &[u8]| {
        out.extend_from_slice(text);
        signer.write(text);
    };
    let mut body = Encoder::new(&cipher, &keys.iv);
    body.write(plaintext, &mut sink);
    body.finish(&mut sink);
    signer.finish()
}

/// `E`, written piece by piece: takes bytes, gives text in whole groups.
struct Encoder<'k> {
    cbc: Encryptor<'k>,
    group: [u8; GROUP],
    filled: usize,
}

impl<'k> Encoder<'k> {
    fn new(cipher: &'k Aes128Enc, iv: &[u8; 16]) -> Self {
        Self { cbc: Encryptor::inner_iv_init(cipher, &(*iv).into()), group: [0; GROUP], filled: 0 }
    }

    fn write(&mut self, mut bytes: &[u8], mut sink: impl FnMut(&[u8])) {
        while self.filled + bytes.len() >= GROUP {
            let (now, rest) = bytes.split_at(GROUP - self.filled);
            self.group[self.filled..].copy_from_slice(now);
            self.flush(&mut sink);
            self.filled = 0;
            bytes = rest;
        }
        self.group[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Pads and gives the rest. There is always room for the padding: a full group is flushed as it fills.
    fn finish(mut self, mut sink: impl FnMut(&[u8])) {
        let padding = BLOCK - self.filled % BLOCK;
        let end = self.filled + padding;
        self.group[self.filled..end].fill(padding as u8);
        self.group[end..].fill(0);
        self.cbc.encrypt_blocks_inout_mut(blocks(&mut self.group[..end]));
        let mut text = [0; TEXT];
        let len = encode_last(&self.group, end, &mut text);
        sink(&text[..len]);
    }

    fn flush(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.cbc.encrypt_blocks_inout_mut(blocks(&mut self.group));
        sink(&encode(&self.group));
    }
}

/// The MsgKey of a sign, written piece by piece.
struct Signer<'k> {
    text: Encoder<'k>,
    md5: Md5,
}

impl<'k> Signer<'k> {
    fn new(cipher: &'k Aes128Enc, iv: &[u8; 16]) -> Self {
        Self { text: Encoder::new(cipher, iv), md5: Md5::new() }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.text.write(bytes, |text| self.md5.update(text));
    }

    fn decimal(&mut self, negative: bool, mut number: u64) {
        let mut digits = [b'-'; 21];
        let mut at = digits.len();
        while number > 0 || at == digits.len() {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.write(&digits[at - usize::from(negative)..]);
    }

    fn finish(self) -> [u8; MSG_KEY] {
        let Self { text, mut md5 } = self;
        text.finish(|text| md5.update(text));
        hex(md5.finalize().into())
    }
}

/// Decodes base64 to the start of `out`, passing over CR and LF, and tells how many bytes. `out` only ever grows.
fn decode(text: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let room = base64::decoded_len_estimate(text.len());
    if out.len() < room {
        out.resize(room, 0);
    }
    super::base64::decode(text, out).or_else(|| {
        let mut unwrapped = text.to_vec();
        unwrapped.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        STANDARD.decode_slice(unwrapped, out).ok()
    })
}

/// Bytes as cipher blocks to work on in place; their number is a multiple of the block size.
fn blocks(bytes: &mut [u8]) -> InOutBuf<'_, '_, Block> {
    let (blocks, rest) = InOutBuf::from(bytes).into_chunks();
    debug_assert!(rest.is_empty(), "whole blocks only");
    blocks
}

fn hex(digest: [u8; 16]) -> [u8; MSG_KEY] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    core::array::from_fn(|at| DIGITS[usize::from(digest[at / 2] >> (4 * (1 - at % 2)) & 15)])
}

/// Equality in a time that does not depend on where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (l, r)| differ | (l ^ r)) == 0
}

fn ascii(text: Bytes) -> Text {
    Text::try_from(text).expect("base64, hex and salts are ASCII")
}
