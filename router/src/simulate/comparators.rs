//! How others decide, on the same windows: what the guardrail is compared with.
//!
//! Each is told no more than it would see in practice: sums of one metric per role and window. They look at errors, zero results, clicks,
//! quality, and requests slower than control's p99 so far; a metric that one of them finds worse rolls back.

use std::collections::BTreeMap;

use switchback_policy::rollback::{Slice, Tally, Verdict, Window};

use super::exact::normal_below;
use super::judges::{Intervals, Judge};
use super::scenario::Scenario;

/// One-sided significance of each test of each metric.
const ALPHA: f64 = 0.01;
/// The normal's quantile for it.
const Z: f64 = 2.326_347_874;
/// Metrics that are looked at, and whether more is better. Slow requests are made of the latencies.
const METRICS: [(&str, bool); LOOKED_AT] = [("errors", false), ("zero-results", false), ("clicks", true), ("quality", true), (SLOW, false)];
const LOOKED_AT: usize = 5;
const SLOW: &str = "slow";
/// Requests of control before there is a p99 of it.
const LEAST: u64 = 2_000;

/// Which comparator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Comparator {
    /// A z-test on all counters so far, after every window.
    ZTest,
    /// Kayenta-like: Mann-Whitney on the rates of 10 s, repeated each minute.
    MannWhitney,
    /// Mixture SPRT on the normal approximation, an equal part of alpha for each metric.
    Msprt,
    /// The report of an A/B experiment with one arm beside control: any of its intervals, 95 % together, says that there is a difference.
    Experiment,
}

impl Comparator {
    /// A judge of this kind.
    #[must_use]
    pub fn judge(self) -> Box<dyn Judge> {
        match self {
            Comparator::Experiment => Box::new(Intervals::new()),
            Comparator::ZTest | Comparator::MannWhitney | Comparator::Msprt => Box::new(Compared::of(self)),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Sums {
    n: f64,
    sum: f64,
    sumsq: f64,
}

impl Sums {
    fn add(&mut self, tally: &Tally) {
        self.n += tally.n as f64;
        self.sum += tally.sum;
        self.sumsq += tally.sumsq;
    }

    fn mean(self) -> f64 {
        self.sum / self.n
    }
}

struct Compared {
    kind: Comparator,
    /// Candidate and control of each metric.
    totals: [[Sums; 2]; LOOKED_AT],
    /// Rates of ten seconds, candidate and control.
    points: [[Vec<f64>; 2]; LOOKED_AT],
    fresh: [[Sums; 2]; LOOKED_AT],
    windows: u64,
    /// Control's latencies so far, by upper edge in microseconds.
    latencies: BTreeMap<u64, u64>,
}

impl Compared {
    fn of(kind: Comparator) -> Compared {
        let (totals, points, fresh) = Default::default();
        Compared { kind, totals, points, fresh, windows: 0, latencies: BTreeMap::new() }
    }

    /// Requests of both roles slower than control's p99 in the windows before; nothing while too little is known of it.
    fn slow(&mut self, window: &Window) -> [Tally; 2] {
        let all: u64 = self.latencies.values().sum();
        let mut above = 0;
        let p99 = self.latencies.iter().rev().find(|(_, count)| {
            above += **count;
            above * 100 > all
        });
        let p99 = p99.filter(|_| all >= LEAST).map(|(edge, _)| *edge);
        let mut tallies = [Tally { n: 0, sum: 0.0, sumsq: 0.0 }; 2];
        for bucket in &window.latency {
            *self.latencies.entry(bucket.upper_micros).or_default() += bucket.control;
            let Some(p99) = p99 else { continue };
            for (tally, count) in tallies.iter_mut().zip([bucket.candidate, bucket.control]) {
                tally.n += count;
                if bucket.upper_micros > p99 {
                    tally.sum += count as f64;
                    tally.sumsq += count as f64;
                }
            }
        }
        tallies
    }
}

impl Judge for Compared {
    fn begin(&mut self) {
        *self = Compared::of(self.kind);
    }

    fn judge(&mut self, window: &Window) -> Result<Verdict, String> {
        if window.candidate_requests == 0 {
            return Ok(Verdict::NoData);
        }
        if window.slice == Slice::Traffic {
            self.windows += 1;
        }
        let slow = self.slow(window);
        let mut is_worse = false;
        let metrics = METRICS.iter().zip(self.totals.iter_mut().zip(self.points.iter_mut().zip(&mut self.fresh)));
        for ((id, is_higher_better), (totals, (points, fresh))) in metrics {
            let metric = window.metrics.iter().find(|metric| metric.id == *id).map(|metric| [&metric.candidate, &metric.control]);
            let tallies = if *id == SLOW { Some(slow.each_ref()) } else { metric };
            let Some(tallies) = tallies else { continue };
            for (sums, tally) in totals.iter_mut().chain(fresh.iter_mut()).zip(tallies.into_iter().cycle()) {
                sums.add(tally);
            }
            let sign = if *is_higher_better { -1.0 } else { 1.0 };
            is_worse |= match self.kind {
                Comparator::ZTest => z(totals, sign) > Z,
                Comparator::Msprt => msprt(totals, sign, if *is_higher_better { 0.02 } else { 0.005 }) >= -(ALPHA / LOOKED_AT as f64).ln(),
                // It has a judge of its own.
                Comparator::Experiment => false,
                Comparator::MannWhitney => {
                    if self.windows.is_multiple_of(10) && fresh.iter().all(|sums| sums.n > 0.0) {
                        for (points, fresh) in points.iter_mut().zip(fresh.iter_mut()) {
                            points.push(std::mem::take(fresh).mean());
                        }
                    }
                    self.windows.is_multiple_of(60) && mann_whitney(points, sign)
                }
            };
        }
        Ok(if is_worse { Verdict::RollBack } else { Verdict::Hold })
    }
}

/// Difference in the bad direction, and its variance.
fn difference(sums: &[Sums; 2], sign: f64) -> Option<(f64, f64)> {
    let [candidate, control] = *sums;
    let n = candidate.n + control.n;
    let mean = (candidate.sum + control.sum) / n;
    let variance = (candidate.sumsq + control.sumsq) / n - mean * mean;
    let usable = candidate.n >= 30.0 && control.n >= 30.0 && variance > 0.0;
    usable.then(|| (sign * (candidate.mean() - control.mean()), variance * (1.0 / candidate.n + 1.0 / control.n)))
}

fn z(sums: &[Sums; 2], sign: f64) -> f64 {
    difference(sums, sign).map_or(0.0, |(difference, variance)| difference / variance.sqrt())
}

/// Log of the mixture likelihood ratio (Johari, Pekelis, Walsh 2015); 0 for a difference in the good direction.
fn msprt(sums: &[Sums; 2], sign: f64, tau: f64) -> f64 {
    let Some((difference, variance)) = difference(sums, sign).filter(|(difference, _)| *difference > 0.0) else { return 0.0 };
    let wide = variance + tau * tau;
    0.5 * (variance / wide).ln() + difference * difference * tau * tau / (2.0 * variance * wide)
}

/// Whether the candidate's points are worse, by the normal approximation with ties.
fn mann_whitney(points: &[Vec<f64>; 2], sign: f64) -> bool {
    let [candidate, control] = points;
    let (n, m) = (candidate.len() as f64, control.len() as f64);
    if n < 5.0 {
        return false;
    }
    let mut all: Vec<(f64, bool)> = candidate.iter().map(|x| (sign * x, true)).chain(control.iter().map(|x| (sign * x, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties, mut below) = (0.0, 0.0, 0.0);
    for tied in all.chunk_by(|a, b| a.0 == b.0) {
        let count = tied.len() as f64;
        ranks += tied.iter().filter(|(_, is_candidate)| *is_candidate).count() as f64 * (below + (count + 1.0) / 2.0);
        ties += count * count * count - count;
        below += count;
    }
    let total = n + m;
    let variance = n * m / 12.0 * ((total + 1.0) - ties / (total * (total - 1.0)));
    let u = ranks - n * (n + 1.0) / 2.0;
    variance > 0.0 && 1.0 - normal_below((u - n * m / 2.0) / variance.sqrt()) < ALPHA
}

/// Wald's bound: the canary samples that a test needs on average which knows both distributions, the metric and the onset, and is
/// wrong as rarely. `None` where the scenario has no harm, or one of the latency.
#[must_use]
pub fn wald_samples(scenario: &Scenario) -> Option<f64> {
    let (base, harm) = (scenario.base, scenario.harm?);
    let bernoulli = |p: f64, q: f64| if p == q { 0.0 } else { p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln() };
    let spread = 0.3_f64;
    let quality = (base.quality - harm.quality) / spread;
    let information = bernoulli(harm.errors, base.errors)
        + bernoulli(harm.clicks, base.clicks)
        + bernoulli(harm.zero_results, base.zero_results)
        + quality * quality / 2.0;
    (information > 0.0).then(|| -ALPHA.ln() / information)
}
