//! Randomness is an input: ChaCha streams forked by name from the shard's seed.

use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// The two roots a shard is given. `keys` makes secrets and is never recorded in clear; `jitter` spreads timers.
#[derive(Clone)]
pub struct Seed {
    pub keys: [u8; 32],
    pub jitter: [u8; 32],
}

impl core::fmt::Debug for Seed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// One named stream of random numbers.
#[derive(Clone, Debug)]
pub struct Stream(ChaCha12Rng);

impl Stream {
    /// A stream of its own for each name: a new draw in one never shifts another.
    #[must_use]
    pub fn fork(root: &[u8; 32], name: &str) -> Self {
        let mut seed = *root;
        let crc = crc32fast::hash(name.as_bytes());
        let mut rng = ChaCha12Rng::from_seed(seed);
        rng.set_stream(u64::from(crc));
        rng.fill_bytes(&mut seed);
        Self(ChaCha12Rng::from_seed(seed))
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    /// Uniform in `0..bound` (bound > 0), by widening multiplication.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }
}
