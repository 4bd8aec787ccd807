//! Seeded draws: one small generator per name, so that a new draw in one place never shifts another.

/// A named stream of pseudo random numbers (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Rng(u64);

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(mix(seed ^ STEP))
    }

    /// A stream of its own for each name and number.
    #[must_use]
    pub fn fork(seed: u64, name: &str, number: u64) -> Self {
        let mut h = mix(seed);
        for b in name.bytes() {
            h = mix(h ^ u64::from(b)).wrapping_add(STEP);
        }
        Self(mix(h ^ mix(number)))
    }

    pub const fn u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform in `0..bound`.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// Uniform in `from..=to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True with a probability of `per_mille` in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// Around `mean`, never 0: the sum of two uniform draws, with one in sixteen up to eight times as long.
    pub fn spread(&mut self, mean: u64) -> u64 {
        let m = mean.max(1);
        let scale = if self.below(16) == 0 { 8 } else { 1 };
        1 + (self.below(m) + self.below(m)) * scale
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut out = [0; 32];
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.u64().to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_name_and_repeat() {
        let mut a = Rng::fork(1, "net", 0);
        let mut b = Rng::fork(1, "disk", 0);
        assert_ne!(a.u64(), b.u64());
        assert_eq!(Rng::fork(7, "x", 3).u64(), Rng::fork(7, "x", 3).u64());
        assert!((0..1000).all(|_| (5..=9).contains(&a.between(5, 9))));
        assert!(!b.chance(0) && b.chance(1000));
    }
}
