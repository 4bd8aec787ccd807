//! Flight recordings: the inputs of every shard of a run, and a hash of what each drain gave.
//!
//! One file per shard: a [`Header`], then items until the end. An item is an input with its time, or the end of a drain
//! with the hash of its outputs: a shard batches what several inputs caused until it is drained, so a replay has to
//! drain where the run did. Mail is recorded as sender and ordinal only: [`replay`] runs all shards together and takes it
//! from what the sender's replay gives.
//!
//! ```text
//! file    "WKFLIGHT" | u8 format | varint node, shard, shards, slots, token_auth, overlay_rows_max, dedup_bytes_max,
//!         mail_credit | u128 store | varint incarnation | varint mono, wall | 32 bytes jitter | bytes sealed | item*
//! sealed  (32 bytes keys | u8 has token | text token | u32 crc32 of the before) XOR ChaCha20(key, stream = shard)
//! item    u8 tag | varint mono since the last item | zigzag varint wall since the last item | what the tag says
//! drain   u8 0 | u64 hash
//! ```
//!
//! Fixed integers are big endian; `bytes` and `text` are a varint length and the bytes. The key of the sealed part lies
//! beside the files (`recorder.key`), so that a recording can be handed on without the secrets of its node.
//! What clients sent, tokens included, is in clear.

mod decode;
mod encode;
mod hash;
mod replay;

pub use decode::{Bad, Item, Items, Recorded};
pub use encode::Encoder;
pub use hash::OutputHash;
pub use replay::{Difference, Recording, Seen, Summary, replay};

use crate::rng::Seed;
use crate::shard::{Boot, ShardConfig};
use crate::time::Now;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const MAGIC: &[u8; 8] = b"WKFLIGHT";
const FORMAT: u8 = 3;

/// The key that a recording's secrets are sealed with.
#[derive(Clone)]
pub struct SealKey(pub [u8; 32]);

impl SealKey {
    /// The key as `recorder.key` holds it: 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Some(Self(key))
    }
}

/// What a shard was made from.
#[derive(Clone, Debug)]
pub struct Header {
    pub config: ShardConfig,
    pub boot: Boot,
    pub seed: Seed,
    /// The time that was given to `Shard::new`.
    pub started: Now,
}

/// Seals and opens. A key is used for one run only, and each shard of it has a stream of its own.
fn cipher(key: &SealKey, shard: u8, bytes: &mut [u8]) {
    let mut stream = ChaCha20Rng::from_seed(key.0);
    stream.set_stream(u64::from(shard));
    for chunk in bytes.chunks_mut(4) {
        for (byte, pad) in chunk.iter_mut().zip(stream.next_u32().to_le_bytes()) {
            *byte ^= pad;
        }
    }
}

/// Tags of items.
mod tag {
    pub const DRAINED: u8 = 0;
    pub const OPENED: u8 = 1;
    pub const RECEIVED: u8 = 2;
    pub const CREDIT: u8 = 3;
    pub const CLOSED: u8 = 4;
    pub const MAIL: u8 = 5;
    pub const PERSISTED: u8 = 6;
    pub const LOADED: u8 = 7;
    pub const CALL: u8 = 8;
    pub const DEADLINE: u8 = 9;
    pub const STOP: u8 = 10;
    pub const PEER_UP: u8 = 11;
    pub const PEER_DOWN: u8 = 12;
    pub const PEER_FRAME: u8 = 13;
}
