//! From what was counted in a window to what a rollback policy is shown of it. Pure.

use std::collections::BTreeMap;

use super::timeline::Held;
use crate::policy::rollback::{Bucket, Metric, Slice, Step, Tally, Window as Shown};
use crate::quality::{Counts, GROUPS, Number, Window, latency_upper_micros};

/// A window's length, in milliseconds.
pub(super) const WINDOW_MS: u32 = 1_000;

/// What was counted of both roles in one window.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) candidate: Counts,
    pub(super) control: Counts,
}

impl Pair {
    /// Of a window, by the ids of each role.
    pub(super) fn of(window: Option<&Window>, candidate: &[u32], control: &[u32]) -> Pair {
        Pair { candidate: sum(window, candidate), control: sum(window, control) }
    }
}

/// Everything that was counted of these versions.
pub(super) fn sum(window: Option<&Window>, ids: &[u32]) -> Counts {
    let mut sum = Counts::default();
    if let Some(window) = window {
        ids.iter().filter_map(|id| window.get(id)).for_each(|counts| sum.merge(counts));
    }
    sum
}

/// Where a slice stands in its rollout.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Place {
    /// From the first window.
    pub(super) index: u64,
    pub(super) slice: Slice,
    pub(super) step: Step,
    pub(super) share_ppm: Option<u32>,
}

impl Place {
    /// `first_step` is the one that the rollout began with.
    pub(super) fn of(index: u64, slice: Slice, held: &Held, first_step: u32) -> Place {
        let setting = &held.setting;
        let step = Step { index: held.step.saturating_sub(first_step), share_ppm: setting.step_ppm, is_last: setting.is_last };
        Place { index, slice, step, share_ppm: setting.share_ppm.filter(|_| held.is_whole) }
    }
}

/// A metric: its id, what is observed, the sum, the sum of squares (events are their own), and what one stands for.
struct Kind {
    id: &'static str,
    n: Number,
    sum: Number,
    squares: Option<Number>,
    slice: Slice,
    has_groups: bool,
}

const MILLION: f64 = 1e6;

/// Sorted by id.
const KINDS: [Kind; 6] = [
    Kind { id: "clicks", n: Number::Impressions, sum: Number::Clicks, squares: None, slice: Slice::Engagement, has_groups: true },
    Kind { id: "conversions", n: Number::Impressions, sum: Number::Conversions, squares: None, slice: Slice::Engagement, has_groups: true },
    Kind { id: "errors", n: Number::Requests, sum: Number::Errors, squares: None, slice: Slice::Traffic, has_groups: false },
    Kind {
        id: "quality",
        n: Number::QualitySeen,
        sum: Number::QualitySum,
        squares: Some(Number::QualitySquares),
        slice: Slice::Engagement,
        has_groups: true,
    },
    Kind { id: "timeouts", n: Number::Requests, sum: Number::Timeouts, squares: None, slice: Slice::Traffic, has_groups: false },
    Kind { id: "zero-results", n: Number::ZeroSeen, sum: Number::ZeroResults, squares: None, slice: Slice::Traffic, has_groups: true },
];

/// One slice of a window as a policy is shown it.
pub(super) fn shown(pair: &Pair, place: &Place) -> Shown {
    let kinds = KINDS.iter().filter(|kind| kind.slice == place.slice);
    let metrics = kinds.filter(|kind| pair.candidate[kind.n] > 0 || pair.control[kind.n] > 0).map(|kind| metric(kind, pair)).collect();
    Shown {
        index: place.index,
        length_ms: WINDOW_MS,
        slice: place.slice,
        step: place.step,
        share_ppm: place.share_ppm,
        candidate_requests: pair.candidate[Number::Requests],
        control_requests: pair.control[Number::Requests],
        metrics,
        latency: if place.slice == Slice::Traffic { latency(pair) } else { Vec::new() },
    }
}

fn metric(kind: &Kind, pair: &Pair) -> Metric {
    let whole = |counts: &Counts| tally(kind, |number| counts[number]);
    let group = |counts: &Counts, group: u8| tally(kind, |number| counts.of_group(group, number));
    let groups = |counts: &Counts| if kind.has_groups { (0..GROUPS).map(|number| group(counts, number)).collect() } else { Vec::new() };
    Metric {
        id: kind.id.to_owned(),
        candidate: whole(&pair.candidate),
        control: whole(&pair.control),
        candidate_groups: groups(&pair.candidate),
        control_groups: groups(&pair.control),
    }
}

/// Sums that numbers from 0 to 1 can have. A click of a window whose impression was counted in the next one (the worker was held up in between) would
/// be more than all, and squares are rounded one by one.
fn tally(kind: &Kind, of: impl Fn(Number) -> u64) -> Tally {
    let n = of(kind.n);
    let all = n as f64;
    match kind.squares {
        None => {
            let events = of(kind.sum).min(n) as f64;
            Tally { n, sum: events, sumsq: events }
        }
        Some(squares) => {
            let sum = (of(kind.sum) as f64 / MILLION).min(all);
            let least = if n > 0 { sum * sum / all } else { 0.0 };
            Tally { n, sum, sumsq: (of(squares) as f64 / MILLION).clamp(least, sum.max(least)) }
        }
    }
}

/// What belongs to one slice of some counts.
pub(super) fn of_slice(slice: Slice, counts: &Counts) -> Counts {
    let mut mine = Counts::default();
    for kind in KINDS.iter().filter(|kind| kind.slice == slice) {
        for number in [Some(kind.n), Some(kind.sum), kind.squares].into_iter().flatten() {
            mine[number] = counts[number];
        }
    }
    if slice == Slice::Traffic {
        mine.latency.clone_from(&counts.latency);
    }
    mine
}

/// Observations and mean of each metric in some counts, by id; those that nobody reported are absent.
pub(super) fn means(counts: &Counts) -> BTreeMap<&'static str, (u64, f64)> {
    let kinds = KINDS.iter().filter(|kind| counts[kind.n] > 0);
    let mean = |kind: &Kind| {
        let tally = tally(kind, |number| counts[number]);
        (kind.id, (tally.n, tally.sum / tally.n as f64))
    };
    kinds.map(mean).collect()
}

fn latency(pair: &Pair) -> Vec<Bucket> {
    let mut buckets = BTreeMap::<u64, (u64, u64)>::new();
    let upper = |bucket: u16| latency_upper_micros(usize::from(bucket)).map(u64::from);
    for (bucket, count) in &pair.candidate.latency {
        if let Some(upper) = upper(*bucket) {
            buckets.entry(upper).or_default().0 += count;
        }
    }
    for (bucket, count) in &pair.control.latency {
        if let Some(upper) = upper(*bucket) {
            buckets.entry(upper).or_default().1 += count;
        }
    }
    buckets.into_iter().map(|(upper_micros, (candidate, control))| Bucket { upper_micros, candidate, control }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{NativeRollback, RollbackInstance};
    use crate::quality::{any_counts, millionths};
    use crate::release::roles::Setting;
    use proptest::prelude::*;

    fn place(index: u64, slice: Slice) -> Place {
        let setting = Setting { step_ppm: 100_000, share_ppm: Some(100_000), ..Setting::NOBODY };
        Place::of(index, slice, &Held { setting, step: 3, is_whole: true }, 1)
    }

    #[test]
    fn each_metric_is_in_its_slice() {
        let mut counts = Counts::default();
        for number in Number::ALL {
            counts.add(number, 5, 1_000_000);
        }
        counts.latency.insert(64, 7);
        let pair = Pair { candidate: counts, control: Counts::default() };
        let traffic = shown(&pair, &place(7, Slice::Traffic));
        let ids = |shown: &Shown| shown.metrics.iter().map(|metric| metric.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&traffic), ["errors", "timeouts", "zero-results"]);
        assert_eq!(traffic.latency, [Bucket { upper_micros: 65, candidate: 7, control: 0 }]);
        assert_eq!((traffic.index, traffic.step.index, traffic.share_ppm), (7, 2, Some(100_000)));
        let engagement = shown(&pair, &place(7, Slice::Engagement));
        assert_eq!((ids(&engagement), engagement.latency.len()), (["clicks", "conversions", "quality"].map(str::to_owned).to_vec(), 0));
        let quality = &engagement.metrics[2];
        assert_eq!(quality.candidate, Tally { n: 1_000_000, sum: 1.0, sumsq: 1.0 });
        assert_eq!((quality.candidate_groups.len(), quality.candidate_groups[5]), (32, quality.candidate));
    }

    #[test]
    fn what_nobody_reported_is_absent() {
        let mut counts = Counts::default();
        counts.add(Number::Requests, 0, 1);
        let pair = Pair { candidate: Counts::default(), control: counts };
        assert_eq!(shown(&pair, &place(0, Slice::Engagement)).metrics, []);
        assert_eq!(shown(&pair, &place(0, Slice::Traffic)).metrics.len(), 2);
    }

    #[test]
    fn equal_qualities_are_sound_whatever_their_squares_are_rounded_to() {
        let mut counts = Counts::default();
        for _ in 0..1_000 {
            counts.add(Number::QualitySeen, 0, 1);
            counts.add(Number::QualitySum, 0, millionths(0.001_234));
            counts.add(Number::QualitySquares, 0, millionths(0.001_234 * 0.001_234));
        }
        let pair = Pair { candidate: counts.clone(), control: counts };
        let mut policy = RollbackInstance::native(NativeRollback::Guardrail);
        policy.evaluate("{}", &[], &shown(&pair, &place(0, Slice::Engagement))).unwrap();
    }

    proptest! {
        /// Whatever was counted, torn apart as it may be: the policy can judge it.
        #[test]
        fn a_policy_takes_every_window(candidate in any_counts(), control in any_counts()) {
            let pair = Pair { candidate, control };
            let mut policy = RollbackInstance::native(NativeRollback::Guardrail);
            let mut state = Vec::new();
            for slice in [Slice::Traffic, Slice::Engagement] {
                state = policy.evaluate("{}", &state, &shown(&pair, &place(4, slice))).unwrap().state;
            }
        }
    }
}
