//! Whether one model is worse than another on the same queries: a paired bootstrap of the mean difference (Efron and Tibshirani 1993, ch. 16; Sakai 2006 for
//! measures of retrieval). Pure, and the same for the same numbers.

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use super::measures::mean;

/// Samples that are drawn.
const DRAWS: usize = 4_000;
/// How sure the interval is: each end is wrong with 5 %.
const TAIL: f64 = 0.05;
/// With fewer queries an interval says nothing.
pub(super) const FEWEST: usize = 20;

/// The mean of the differences, and an interval that has the true one with 90 % (95 % to each side).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Difference {
    /// Queries that were compared.
    pub queries: usize,
    /// Of the model that is looked at.
    pub mean: f64,
    /// Of the live model.
    pub live: f64,
    /// The mean of the differences, the model's less the live one's.
    pub by: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Of a measure where more is better: one number for each query and model.
pub(super) fn difference(model: &[f64], live: &[f64]) -> Difference {
    let differences: Vec<f64> = model.iter().zip(live).map(|(model, live)| model - live).collect();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(20_260_801);
    let mut means: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let drawn = (0..differences.len()).filter_map(|_| differences.get(random.random_range(0..differences.len())));
            mean(&drawn.copied().collect::<Vec<_>>())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let by = mean(&differences);
    Difference {
        queries: differences.len(),
        mean: mean(model),
        live: mean(live),
        by,
        low: quantile(&means, TAIL).unwrap_or(by),
        high: quantile(&means, 1.0 - TAIL).unwrap_or(by),
    }
}

/// Of sorted values; `share` from 0 to 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index from 0 to the last")]
pub(super) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = super::measures::count(sorted.len().checked_sub(1)?);
    sorted.get((share.clamp(0.0, 1.0) * last).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use rand_distr::{Distribution as _, Normal};

    use super::*;

    #[test]
    fn the_interval_has_the_true_difference_about_as_often_as_it_says() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let noise = Normal::new(-0.01, 0.1).unwrap();
        let (mut missed, runs) = (0, 200);
        for _ in 0..runs {
            let live = vec![0.7; 120];
            let model: Vec<f64> = live.iter().map(|live| live + noise.sample(&mut random)).collect();
            let said = difference(&model, &live);
            missed += u32::from(!(said.low..=said.high).contains(&-0.01));
        }
        // 10 % of 200 are 20, with a standard error of 4.2.
        assert!((8..=36).contains(&missed), "{missed} of {runs}");
    }

    #[test]
    fn the_same_model_is_no_different() {
        let said = difference(&[0.5, 0.7, 0.1], &[0.5, 0.7, 0.1]);
        assert_eq!((said.by, said.low, said.high), (0.0, 0.0, 0.0));
        assert_eq!(difference(&[], &[]).queries, 0);
    }
}
