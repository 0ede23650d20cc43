//! Exact bounds and quantiles for what a simulation counts.

/// The upper end of the one-sided 95 % interval of a part, of which `hits` among `n` were seen (Clopper and Pearson).
#[must_use]
pub fn upper_bound(hits: u64, n: u64) -> f64 {
    if hits >= n {
        return 1.0;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if at_most(hits, n, middle) > 0.05 { low = middle } else { high = middle }
    }
    high
}

/// P(at most `hits` of `n`) for events of probability `p`.
fn at_most(hits: u64, n: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    // Terms in logs, each from the one before: no factorial overflows.
    let mut log_term = n as f64 * (-p).ln_1p();
    let mut sum = log_term.exp();
    for hit in 1..=hits {
        log_term += ((n - hit + 1) as f64 / hit as f64).ln() + p.ln() - (-p).ln_1p();
        sum += log_term.exp();
    }
    sum.min(1.0)
}

/// The normal distribution function, to 1e-7 and better (complementary error function by its continued fraction or its series).
#[must_use]
pub fn normal_below(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let tail = if x < 2.5 {
        // erf(x) = 2/sqrt(pi) * sum of (-1)^n x^(2n+1) / (n! (2n+1)), in its form without cancellation.
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    } else {
        let mut fraction = 0.0;
        for n in (1..60).rev() {
            fraction = f64::from(n) / 2.0 / (x + fraction);
        }
        (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + fraction)
    };
    if z > 0.0 { 1.0 - 0.5 * tail } else { 0.5 * tail }
}

/// The value that this part of them does not exceed; `None` when it is one that never came. `values` is sorted, and holds those that
/// came of `n`.
#[must_use]
pub fn quantile(values: &[f64], n: u64, part: f64) -> Option<f64> {
    let rank = ((part * n as f64).ceil() as usize).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_the_normal_distribution_are_as_in_the_tables() {
        for (hits, n, wanted) in [(0, 2_000, 0.001_496_7), (5, 100, 0.102_25), (14, 10_000, 0.002_189)] {
            assert!((upper_bound(hits, n) - wanted).abs() < 2e-5, "{} for {hits} of {n}", upper_bound(hits, n));
        }
        for (z, wanted) in [(0.0, 0.5), (1.281_551_565_5, 0.9), (2.326_347_874, 0.99), (-1.959_963_985, 0.025), (4.753_424_3, 1.0 - 1e-6)] {
            assert!((normal_below(z) - wanted).abs() < 1e-9, "{z}: {}", normal_below(z));
        }
    }

    #[test]
    fn what_never_came_counts_in_a_quantile() {
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 4, 0.5), Some(2.0));
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 4, 0.95), None);
        assert_eq!(quantile(&[], 0, 0.5), None);
    }
}
