//! Gaussian tail probabilities as scores.
//!
//! Logarithms come from `libm`, not from the platform, so that every machine writes the same bits.

/// Below this distance the asymptotic expansion of the tail is poor, and nobody looks at the score: it fades to zero.
const SMALL: f64 = 1.0;

/// Minus log10 of the probability that a standard normal deviates by more than `distance`, either way.
///
/// For distances of 1 and more by the first terms of the asymptotic expansion (Abramowitz and Stegun 26.2.12),
/// right to a few per cent at 1 and far better behind; zero at zero.
pub(super) fn score_of(distance: f64) -> f64 {
    let distance = distance.abs();
    if distance < SMALL {
        return distance * tail_exponent(SMALL);
    }
    tail_exponent(distance)
}

fn tail_exponent(distance: f64) -> f64 {
    // Q(z) = phi(z) / z * z^2 / (z^2 + 1), a bound that is tight for large z.
    let square = distance * distance;
    let two_sided = libm::log10(2.0 / (2.0 * std::f64::consts::PI).sqrt()) - libm::log10(distance);
    let correction = libm::log10(square / (square + 1.0));
    square / 2.0 * std::f64::consts::LOG10_E - two_sided - correction
}

/// The distance whose score is `score`.
pub(super) fn distance_of(score: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1e3);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if score_of(middle) < score {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_agree_with_tables_of_the_normal_distribution() {
        // Two-sided tail probabilities: 4.55e-2, 2.70e-3, 5.73e-7, 1.97e-9.
        for (distance, probability) in [(2.0, 4.55e-2_f64), (3.0, 2.70e-3), (5.0, 5.73e-7), (6.0, 1.97e-9)] {
            let expected = -probability.log10();
            assert!((score_of(distance) - expected).abs() < 0.05, "{distance}: {} {expected}", score_of(distance));
        }
    }

    #[test]
    fn distance_is_the_inverse_of_score() {
        for score in [0.2, 1.0, 3.0, 9.0, 20.0] {
            assert!((score_of(distance_of(score)) - score).abs() < 1e-9);
        }
    }
}
