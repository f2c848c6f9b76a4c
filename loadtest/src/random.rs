//! Chance at a few nanoseconds a draw: the generator must not be the bottleneck.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Draws from the normal distribution that are kept to be drawn from again.
const NORMAL_DRAWS: usize = 1 << 14;

/// Seeded, so that the same seed gives the same stream of events.
#[derive(Debug)]
pub struct Dice {
    state: u64,
    normal: Vec<f32>,
}

impl Dice {
    /// The same seed gives the same draws.
    pub fn new(seed: u64) -> Self {
        let mut source = StdRng::seed_from_u64(seed);
        let normal = (0..NORMAL_DRAWS).map(|_| gaussian(source.random(), source.random()) as f32).collect();
        Self { state: source.random(), normal }
    }

    /// Sixty-four bits (Steele, Lea and Flood's SplitMix).
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to below 1.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From `low` to below `high`.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// From 0 to below `bound`.
    #[inline]
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// From the normal distribution.
    #[inline]
    pub fn normal(&mut self) -> f64 {
        let index = self.bits() as usize % NORMAL_DRAWS;
        f64::from(self.normal[index])
    }

    /// 0 to below `length`, in no visible order.
    pub fn permutation(&mut self, length: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..length as u32).collect();
        for index in (1..length).rev() {
            let other = self.below(index + 1);
            order.swap(index, other);
        }
        order
    }
}

/// Box and Muller.
fn gaussian(first: f64, second: f64) -> f64 {
    (-2.0 * (1.0 - first).ln()).sqrt() * (std::f64::consts::TAU * second).cos()
}

/// Ranks by Zipf's law: rank k is drawn in proportion to (k + 1) to the power of -`exponent`.
#[derive(Debug)]
pub struct Zipf {
    cumulative: Vec<f64>,
}

impl Zipf {
    /// Ranks from 0 to below `ranks`.
    pub fn new(ranks: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=ranks)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulative }
    }

    /// The next rank.
    pub fn draw(&self, dice: &mut Dice) -> usize {
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let at = dice.unit() * total;
        self.cumulative.partition_point(|sum| *sum <= at).min(self.cumulative.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_draws_have_the_spread_they_should() {
        let mut dice = Dice::new(1);
        let draws: Vec<f64> = (0..100_000).map(|_| dice.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    #[test]
    fn zipf_follows_its_law() {
        let (ranks, exponent, draws) = (1_000, 1.1, 200_000);
        let zipf = Zipf::new(ranks, exponent);
        let mut dice = Dice::new(7);
        let mut counts = vec![0_u32; ranks];
        for _ in 0..draws {
            counts[zipf.draw(&mut dice)] += 1;
        }
        let norm: f64 = (1..=ranks).map(|rank| (rank as f64).powf(-exponent)).sum();
        for rank in [1, 2, 5, 20] {
            let expected = (rank as f64).powf(-exponent) / norm * f64::from(draws);
            let found = f64::from(counts[rank - 1]);
            assert!((found - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {found}, expected {expected:.0}");
        }
        assert!(counts.iter().all(|count| *count < counts[0] + 1));
    }

    #[test]
    fn a_permutation_has_everything_once_and_the_same_seed_repeats() {
        let order = Dice::new(3).permutation(1_000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(index, value)| index == *value as usize));
        assert_ne!(order, sorted);
        assert_eq!(order, Dice::new(3).permutation(1_000));
        let mut dice = Dice::new(5);
        assert!((0..10_000).all(|_| dice.below(7) < 7 && dice.unit() < 1.0));
    }
}
