//! A blocked Bloom filter over hashes of keys: one cache line per question.

use alloc::vec::Vec;

/// 512 bits.
type Block = [u64; 8];
const BLOCK_BITS: usize = 512;
const PROBES: u32 = 7;
/// Bits for each key when the filter is full: about one false yes in a hundred.
const BITS_PER_KEY: usize = 12;

/// A set that forgets nothing until it is full, and then everything. A yes may be false, a no is certain.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Empty until the first key comes: most shards never need it.
    blocks: Vec<Block>,
    blocks_max: usize,
    keys: usize,
}

impl Filter {
    #[must_use]
    pub const fn new(bytes_max: usize) -> Self {
        Self { blocks: Vec::new(), blocks_max: bytes_max * 8 / BLOCK_BITS, keys: 0 }
    }

    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        !self.blocks.is_empty() && probes(key).all(|(word, bit)| self.blocks[self.place(key)][word] & bit != 0)
    }

    /// True: there was no room, and all keys, this one too, are forgotten.
    #[must_use]
    pub fn insert(&mut self, key: u64) -> bool {
        if self.keys >= self.blocks_max * BLOCK_BITS / BITS_PER_KEY {
            self.blocks.fill([0; 8]);
            self.keys = 0;
            return true;
        }
        if self.blocks.is_empty() {
            self.blocks.resize(self.blocks_max, [0; 8]);
        }
        let place = self.place(key);
        for (word, bit) in probes(key) {
            self.blocks[place][word] |= bit;
        }
        self.keys += 1;
        false
    }

    fn place(&self, key: u64) -> usize {
        ((u128::from(key) * self.blocks.len() as u128) >> 64) as usize
    }
}

/// The upper bits chose the block; the bits in it come from all of them.
fn probes(key: u64) -> impl Iterator<Item = (usize, u64)> {
    let key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let key = key ^ (key >> 32);
    (0..PROBES).map(move |n| {
        let at = (key >> (9 * n)) as usize % BLOCK_BITS;
        (at / 64, 1 << (at % 64))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Well mixed keys.
    fn key(n: u64) -> u64 {
        let mix = |x: u64| {
            (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        };
        mix(mix(n + 1))
    }

    #[test]
    fn what_went_in_is_found_and_little_else() {
        let mut f = Filter::new(1 << 16);
        let n = (1 << 19) / BITS_PER_KEY as u64;
        assert!((0..n).all(|k| !f.insert(key(k))));
        assert!((0..n).all(|k| f.contains(key(k))));
        let false_yes = (n..2 * n).filter(|k| f.contains(key(*k))).count() as u64;
        assert!(false_yes < n / 30, "{false_yes} of {n}");
        assert!(f.insert(key(0)), "full");
        assert!((0..n).all(|k| !f.contains(key(k))));
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let mut f = Filter::new(0);
        assert!(f.insert(1) && !f.contains(1));
    }
}
