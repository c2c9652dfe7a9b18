//! Seeded choices that are the same on every machine: ChaCha8 words and integer arithmetic only, no floating point
//! and nothing whose width depends on the platform.

use ocelli_data::ContentHash;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A stream of choices for one item of one world.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// The stream of item `index` of `world` under `seed`. Streams of different items are independent, so that any
    /// item can be made without making those before it.
    pub fn new(world: &str, seed: u64, index: u64) -> Self {
        let key = ContentHash::of(format!("{world}/{seed}/{index}").as_bytes());
        Self(ChaCha8Rng::from_seed(*key.as_bytes()))
    }

    /// Uniform in `0..n`; 0 where `n` is 0. Unbiased by rejection.
    pub fn below(&mut self, n: u32) -> u32 {
        if n == 0 {
            return 0;
        }
        let zone = u32::MAX - (u32::MAX - n + 1) % n;
        loop {
            let word = self.0.next_u32();
            if word <= zone {
                return word % n;
            }
        }
    }

    /// Uniform in `lo..=hi`; `lo` where the range is empty.
    pub fn between(&mut self, lo: i64, hi: i64) -> i64 {
        let span = (hi - lo + 1).clamp(0, i64::from(u32::MAX)) as u32;
        lo + i64::from(self.below(span))
    }

    /// True with probability `percent` / 100.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One element; the first where the slice has one only. The slice must not be empty.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u32) as usize]
    }

    /// `n` different elements in random order, or all of them where there are fewer.
    pub fn sample<T: Clone>(&mut self, from: &[T], n: usize) -> Vec<T> {
        let mut all = from.to_vec();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_covered_and_streams_differ() {
        let mut dice = Dice::new("w", 1, 2);
        let mut seen = [0u32; 7];
        for _ in 0..7000 {
            seen[dice.below(7) as usize] += 1;
        }
        // Each count is binomial(7000, 1/7): mean 1000, standard deviation 29.
        assert!(seen.iter().all(|&n| (850..1150).contains(&n)), "{seen:?}");
        assert_ne!(Dice::new("w", 1, 2).0.next_u64(), Dice::new("w", 1, 3).0.next_u64());
        assert_ne!(Dice::new("w", 1, 2).0.next_u64(), Dice::new("v", 1, 2).0.next_u64());
        assert_eq!(dice.between(5, 5), 5);
    }
}
