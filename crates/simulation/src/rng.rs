//! Randomness that a seed repeats.

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635_d1c2_a9e7)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Of `from..to`; `from` when that is empty.
    pub(crate) fn of(&mut self, from: u32, to: u32) -> u32 {
        if to <= from {
            return from;
        }
        let span = u64::from(to - from);
        from + u32::try_from(self.next() % span).expect("less than a u32")
    }

    /// True this many times of a hundred.
    pub(crate) fn percent(&mut self, chance: u32) -> bool {
        self.of(0, 100) < chance
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.of(0, u32::try_from(from.len()).expect("short")) as usize]
    }
}
