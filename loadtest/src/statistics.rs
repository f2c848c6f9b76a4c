//! The little statistics that the report needs.

/// The middle value; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `share` of the values lie; 0 of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(index.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The largest value; 0 of nothing.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// By how much y grows when x grows by one: least squares. 0 if there is nothing to tell it by.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    if points.len() < 2 {
        return 0.0;
    }
    let mean_x = points.iter().map(|point| point.0).sum::<f64>() / count;
    let mean_y = points.iter().map(|point| point.1).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if variance > 0.0 { covariance / variance } else { 0.0 }
}

/// By which share the median of the second half lies above that of the first.
pub fn growth_between_halves(values: &[f64]) -> f64 {
    let (first, second) = values.split_at(values.len() / 2);
    let before = median(first);
    if before > 0.0 { median(second) / before - 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_slopes() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!((median(&values) - 3.0).abs() < 1e-9 && (largest(&values) - 5.0).abs() < 1e-9);
        assert!((quantile(&values, 1.0) - 5.0).abs() < 1e-9 && (quantile(&values, 0.01) - 1.0).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9 && slope(&[(1.0, 1.0)]).abs() < 1e-9);
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 7.0 + 2.5 * f64::from(x))).collect();
        assert!((slope(&line) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn growth_compares_the_halves() {
        assert!((growth_between_halves(&[100.0, 100.0, 120.0, 120.0]) - 0.2).abs() < 1e-9);
        assert!(growth_between_halves(&[]).abs() < 1e-9);
    }
}
