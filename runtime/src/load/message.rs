//! The messages of a run: names that tell which message it is, and payloads that nothing can compress.

use aes::Aes128;
use aes::cipher::{BlockDecrypt, BlockEncrypt, KeyInit};
use wukong_proto::Text;

/// Makes the names and payloads of one run.
///
/// A name is shaped and sized like the UUIDs of real clients and looks as random, so that stored names compress as
/// theirs do; with the key of the run it tells pair and number.
#[derive(Clone)]
pub struct Messages {
    cipher: Aes128,
    seed: u64,
    run: u32,
}

impl Messages {
    /// The messages of the run that `key` (16 random bytes) names.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Messages {
        let [a, b, c, d, rest @ ..] = key;
        let seed = u64::from_be_bytes(*rest.first_chunk().expect("12 bytes are left"));
        Messages { cipher: Aes128::new(&key.into()), seed, run: u32::from_be_bytes([a, b, c, d]) }
    }

    /// A short word that no other run has, for uids.
    #[must_use]
    pub fn run(&self) -> String {
        format!("{:08x}", self.run)
    }

    /// The `client_msg_no` of message `no` of pair `pair`.
    #[must_use]
    pub fn name(&self, pair: u32, no: u64) -> Text {
        let mut block = [0; 16];
        block[..4].copy_from_slice(&self.run.to_be_bytes());
        block[4..8].copy_from_slice(&pair.to_be_bytes());
        block[8..].copy_from_slice(&no.to_be_bytes());
        let mut block = block.into();
        self.cipher.encrypt_block(&mut block);
        let mut text = Vec::with_capacity(36);
        for (i, byte) in block.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                text.push(b'-');
            }
            text.push(b"0123456789abcdef"[usize::from(byte >> 4)]);
            text.push(b"0123456789abcdef"[usize::from(byte & 15)]);
        }
        String::from_utf8(text).expect("hexadecimal digits").into()
    }

    /// Pair and number of a name of this run.
    #[must_use]
    pub fn parse(&self, name: &[u8]) -> Option<(u32, u64)> {
        let mut block = [0_u8; 16];
        let mut digits = name.iter().filter(|b| **b != b'-').map(|b| char::from(*b).to_digit(16));
        for byte in &mut block {
            *byte = (digits.next()?? << 4 | digits.next()??) as u8;
        }
        let mut block = block.into();
        self.cipher.decrypt_block(&mut block);
        let [run, pair] = [0, 4].map(|at| u32::from_be_bytes(*block[at..].first_chunk().expect("4 bytes")));
        let no = u64::from_be_bytes(*block[8..].first_chunk().expect("8 bytes"));
        (digits.next().is_none() && run == self.run).then_some((pair, no))
    }

    /// Writes the payload of message `no` of pair `pair` over all of `out`.
    pub fn payload(&self, pair: u32, no: u64, out: &mut [u8]) {
        let mut state = mix(self.seed ^ u64::from(pair) << 40 ^ no);
        for chunk in out.chunks_mut(8) {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            chunk.copy_from_slice(&mix(state).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_belong_to_one_run() {
        let (ours, other) = (Messages::new([7; 16]), Messages::new([8; 16]));
        let mut seen = std::collections::BTreeSet::new();
        for pair in [0, 1, 999, u32::MAX] {
            for no in [0, 1, 1 << 40] {
                let name = ours.name(pair, no);
                assert_eq!(name.len(), 36);
                assert_eq!(ours.parse(name.as_bytes()), Some((pair, no)));
                assert_eq!(other.parse(name.as_bytes()), None);
                assert!(seen.insert(name));
            }
        }
        for foreign in ["", "hello", "c0ffee", "00000000-0000-0000-0000-0000000000001"] {
            assert_eq!(ours.parse(foreign.as_bytes()), None);
        }
    }

    #[test]
    fn payloads_are_repeatable_and_differ() {
        let messages = Messages::new([7; 16]);
        let payload = |pair, no| {
            let mut out = [0; 37];
            messages.payload(pair, no, &mut out);
            out
        };
        assert_eq!(payload(1, 2), payload(1, 2));
        assert_ne!(payload(1, 2), payload(1, 3));
        assert_ne!(payload(1, 2)[..8], payload(2, 2)[..8]);
        assert!(payload(1, 2)[32..].iter().any(|b| *b != 0));
    }
}
