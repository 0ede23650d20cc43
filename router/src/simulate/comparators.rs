//! How others decide, on the same windows: what the guardrail is compared with.
//!
//! Each is told no more than it would see in practice: sums of one metric per role and window. They look at errors, zero results, clicks
//! and quality; a metric that one of them finds worse rolls back.

use switchback_policy::rollback::{Slice, Tally, Verdict, Window};

use super::exact::normal_below;
use super::judges::Judge;
use super::scenario::Scenario;

/// One-sided significance of each test of each metric.
const ALPHA: f64 = 0.01;
/// The normal's quantile for it.
const Z: f64 = 2.326_347_874;
/// Metrics that are looked at, and whether more is better.
const METRICS: [(&str, bool); 4] = [("errors", false), ("zero-results", false), ("clicks", true), ("quality", true)];

/// Which comparator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Comparator {
    /// A z-test on all counters so far, after every window.
    ZTest,
    /// Kayenta-like: Mann-Whitney on the rates of 10 s, repeated each minute.
    MannWhitney,
    /// Mixture SPRT on the normal approximation, a quarter of alpha for each metric.
    Msprt,
}

impl Comparator {
    /// A judge of this kind.
    #[must_use]
    pub fn judge(self) -> Box<dyn Judge> {
        Box::new(Compared { kind: self, totals: <[_; 4]>::default(), points: <[_; 4]>::default(), fresh: <[_; 4]>::default(), windows: 0 })
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
    totals: [[Sums; 2]; 4],
    /// Rates of ten seconds, candidate and control.
    points: [[Vec<f64>; 2]; 4],
    fresh: [[Sums; 2]; 4],
    windows: u64,
}

impl Judge for Compared {
    fn begin(&mut self) {
        *self =
            Compared { kind: self.kind, totals: <[_; 4]>::default(), points: <[_; 4]>::default(), fresh: <[_; 4]>::default(), windows: 0 };
    }

    fn judge(&mut self, window: &Window) -> Result<Verdict, String> {
        if window.candidate_requests == 0 {
            return Ok(Verdict::NoData);
        }
        if window.slice == Slice::Traffic {
            self.windows += 1;
        }
        let mut is_worse = false;
        let metrics = METRICS.iter().zip(self.totals.iter_mut().zip(self.points.iter_mut().zip(&mut self.fresh)));
        for ((id, is_higher_better), (totals, (points, fresh))) in metrics {
            let Some(metric) = window.metrics.iter().find(|metric| metric.id == *id) else { continue };
            for (sums, tally) in totals.iter_mut().chain(fresh.iter_mut()).zip([&metric.candidate, &metric.control].into_iter().cycle()) {
                sums.add(tally);
            }
            let sign = if *is_higher_better { -1.0 } else { 1.0 };
            is_worse |= match self.kind {
                Comparator::ZTest => z(totals, sign) > Z,
                Comparator::Msprt => msprt(totals, sign, if *is_higher_better { 0.02 } else { 0.005 }) >= -(ALPHA / 4.0).ln(),
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
