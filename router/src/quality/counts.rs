//! What is counted of one model version in one window: numbers that are merged by adding, in any order. Pure.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use super::latency;
use super::token::GROUPS;

/// What is counted, by its place in [`Counts::numbers`]. Sums of numbers in 0..=1 are counted in millionths, so that adding is exact and its order means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// Attempts that ended and that the backend answers for.
    Requests,
    /// Of them: 5xx, connect failures, resets, responses that cannot be read.
    Errors,
    /// Of them: those that ran out of time.
    Timeouts,
    /// Queries that said whether they found anything.
    ZeroSeen,
    /// Of them: those that found nothing.
    ZeroResults,
    /// Queries that came with a quality in 0..=1.
    QualitySeen,
    /// Its sum, in millionths.
    QualitySum,
    /// The sum of its squares, in millionths.
    QualitySquares,
    /// Tokens that were issued: what may be clicked.
    Impressions,
    /// Tokens that were clicked, each once.
    Clicks,
    /// Tokens that led to a conversion, each once.
    Conversions,
}

impl Number {
    /// All of them, in their order.
    pub const ALL: [Number; 11] = [
        Number::Requests,
        Number::Errors,
        Number::Timeouts,
        Number::ZeroSeen,
        Number::ZeroResults,
        Number::QualitySeen,
        Number::QualitySum,
        Number::QualitySquares,
        Number::Impressions,
        Number::Clicks,
        Number::Conversions,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Number::Requests => "requests",
            Number::Errors => "errors",
            Number::Timeouts => "timeouts",
            Number::ZeroSeen => "zero_results_seen",
            Number::ZeroResults => "zero_results",
            Number::QualitySeen => "quality_seen",
            Number::QualitySum => "quality_sum",
            Number::QualitySquares => "quality_sum_of_squares",
            Number::Impressions => "impressions",
            Number::Clicks => "clicks",
            Number::Conversions => "conversions",
        }
    }

    /// What one of it stands for: sums of qualities are in millionths.
    #[must_use]
    pub fn unit(self) -> f64 {
        if matches!(self, Number::QualitySum | Number::QualitySquares) { 1e-6 } else { 1.0 }
    }

    /// Whether it belongs to the engagement slice of a window, which is sealed when it is mature, and not to the traffic slice.
    #[must_use]
    pub fn is_engagement(self) -> bool {
        matches!(self, Number::Impressions | Number::Clicks | Number::Conversions)
    }
}

/// A number in 0..=1 as it is summed.
#[must_use]
pub fn millionths(value: f64) -> u64 {
    // In range, so that nothing is cut off.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rounded = (value.clamp(0.0, 1.0) * 1e6).round() as u64;
    rounded
}

/// What is counted of one version in one window, or over many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By [`Number`].
    pub numbers: [u64; Number::ALL.len()],
    /// Latencies by bucket, as [`latency`] has them; only those with something in them.
    pub latency: BTreeMap<u16, u64>,
    /// The numbers by group of units; only groups and numbers with something in them.
    pub groups: BTreeMap<(u8, u8), u64>,
}

impl Index<Number> for Counts {
    type Output = u64;

    #[expect(clippy::indexing_slicing, reason = "there is a place for each number")]
    fn index(&self, number: Number) -> &u64 {
        &self.numbers[number as usize]
    }
}

impl IndexMut<Number> for Counts {
    #[expect(clippy::indexing_slicing, reason = "there is a place for each number")]
    fn index_mut(&mut self, number: Number) -> &mut u64 {
        &mut self.numbers[number as usize]
    }
}

/// No router answers more queries in a second.
const MOST_IN_A_WINDOW: u64 = 100_000_000;

impl Counts {
    /// Adds another's. Saturates, which takes centuries.
    pub fn merge(&mut self, other: &Counts) {
        for (mine, theirs) in self.numbers.iter_mut().zip(other.numbers) {
            *mine = mine.saturating_add(theirs);
        }
        for (bucket, count) in &other.latency {
            let mine = self.latency.entry(*bucket).or_default();
            *mine = mine.saturating_add(*count);
        }
        for (place, count) in &other.groups {
            let mine = self.groups.entry(*place).or_default();
            *mine = mine.saturating_add(*count);
        }
    }

    /// Adds to a number, in all and in the unit's group.
    pub fn add(&mut self, number: Number, group: u8, more: u64) {
        self[number] = self[number].saturating_add(more);
        if more > 0 {
            let mine = self.groups.entry((group, number as u8)).or_default();
            *mine = mine.saturating_add(more);
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.iter().all(|number| *number == 0) && self.latency.is_empty() && self.groups.is_empty()
    }

    /// The latency that a share of the responses did not exceed, in milliseconds: the upper edge of its bucket. `None` without any.
    #[must_use]
    pub fn latency_ms(&self, share: f64) -> Option<f64> {
        let all: u64 = self.latency.values().sum();
        // At least one, and no more than there are.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((all as f64 * share).ceil() as u64).clamp(1, all.max(1));
        let mut so_far = 0;
        let bucket = self.latency.iter().find(|(_, count)| {
            so_far += **count;
            so_far >= rank
        });
        bucket.and_then(|(bucket, _)| latency::upper_micros(usize::from(*bucket))).map(|micros| f64::from(micros) / 1e3)
    }

    /// A number of one group of units.
    #[must_use]
    pub fn of_group(&self, group: u8, number: Number) -> u64 {
        self.groups.get(&(group, number as u8)).copied().unwrap_or(0)
    }

    /// Whether one sender can have counted this in one window: it may have come from outside.
    #[must_use]
    pub fn is_of_a_window(&self) -> bool {
        let most = |number: u8| match Number::ALL.get(usize::from(number)) {
            Some(Number::QualitySum | Number::QualitySquares) => MOST_IN_A_WINDOW * 1_000_000,
            _ => MOST_IN_A_WINDOW,
        };
        self.is_sound()
            && (0..).zip(self.numbers).all(|(number, count)| count <= most(number))
            && self.groups.iter().all(|((_, number), count)| *count <= most(*number))
            && self.latency.values().all(|count| *count <= MOST_IN_A_WINDOW)
    }

    /// Whether everything in it is something that this program counts: it may have come from outside.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let numbers = Number::ALL.len();
        self.latency.keys().all(|bucket| usize::from(*bucket) < latency::BUCKETS)
            && self.groups.keys().all(|(group, number)| *group < GROUPS && usize::from(*number) < numbers)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn counts() -> impl Strategy<Value = Counts> {
        let few = 0..1_000_u64;
        let numbers = prop::array::uniform11(few.clone());
        let latency = prop::collection::btree_map(0..736_u16, 1..1_000_u64, 0..8);
        let groups = prop::collection::btree_map((0..32_u8, 0..11_u8), 1..1_000_u64, 0..8);
        (numbers, latency, groups).prop_map(|(numbers, latency, groups)| Counts { numbers, latency, groups })
    }

    fn merged(all: &[Counts]) -> Counts {
        all.iter().fold(Counts::default(), |mut sum, one| {
            sum.merge(one);
            sum
        })
    }

    proptest! {
        #[test]
        fn merging_means_the_same_in_any_order_and_grouping(mut all in prop::collection::vec(counts(), 1..6), cut in 0..6_usize) {
            let whole = merged(&all);
            let (left, right) = all.split_at(cut.min(all.len()));
            let mut halves = merged(left);
            halves.merge(&merged(right));
            prop_assert_eq!(&halves, &whole);
            all.reverse();
            prop_assert_eq!(merged(&all), whole);
        }

        #[test]
        fn what_is_added_is_in_all_and_in_its_group(group in 0..32_u8, more in 0..1_000_u64) {
            let mut counts = Counts::default();
            counts.add(Number::Errors, group, more);
            prop_assert_eq!((counts[Number::Errors], counts.of_group(group, Number::Errors)), (more, more));
            prop_assert_eq!(counts.is_empty(), more == 0);
            prop_assert!(counts.is_sound());
        }
    }

    #[test]
    fn a_number_in_0_to_1_is_counted_in_millionths() {
        for (value, counted) in [(0.0, 0), (0.5, 500_000), (1.0, 1_000_000), (0.123_456_7, 123_457), (-1.0, 0), (7.0, 1_000_000)] {
            assert_eq!(millionths(value), counted);
        }
        assert_eq!(millionths(f64::NAN), 0);
    }

    #[test]
    fn a_quantile_is_the_upper_edge_of_its_bucket() {
        assert_eq!(Counts::default().latency_ms(0.5), None);
        let counts = Counts { latency: BTreeMap::from([(10, 98), (63, 1), (64, 1)]), ..Counts::default() };
        assert_eq!([0.0, 0.5, 0.98, 0.99, 1.0].map(|share| counts.latency_ms(share)), [0.01, 0.01, 0.01, 0.063, 0.065].map(Some));
    }

    #[test]
    fn more_than_a_router_can_answer_is_of_no_window() {
        let with = |number: Number, count: u64| {
            let mut counts = Counts::default();
            counts.add(number, 3, count);
            counts.is_of_a_window()
        };
        assert!(with(Number::Requests, MOST_IN_A_WINDOW) && !with(Number::Requests, MOST_IN_A_WINDOW + 1));
        assert!(with(Number::QualitySum, MOST_IN_A_WINDOW * 1_000_000) && !with(Number::QualitySum, u64::MAX));
        assert!(!Counts { latency: BTreeMap::from([(7, u64::MAX)]), ..Counts::default() }.is_of_a_window());
    }

    #[test]
    fn what_nobody_counts_is_not_sound() {
        let with = |latency: &[u16], groups: &[(u8, u8)]| Counts {
            latency: latency.iter().map(|bucket| (*bucket, 1)).collect(),
            groups: groups.iter().map(|place| (*place, 1)).collect(),
            ..Counts::default()
        };
        assert!(with(&[735], &[(31, 10)]).is_sound());
        assert!(!with(&[736], &[]).is_sound() && !with(&[], &[(32, 0)]).is_sound() && !with(&[], &[(0, 11)]).is_sound());
    }
}
