//! Many rollouts of one scenario, on several threads, and what they show together.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use switchback_policy::rollback::Verdict;

use super::exact::{quantile, upper_bound};
use super::judges::Judges;
use super::scenario::Scenario;
use super::traffic::{Model, Traffic};

/// Rollouts that a thread takes at a time.
const BATCH: u64 = 8;

/// How many rollouts, and of which seed.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// Rollouts.
    pub rollouts: u64,
    /// Seed of the first; each rollout has its own.
    pub seed: u64,
    /// Threads. They change nothing but the time it takes.
    pub threads: usize,
}

/// How one rollout ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollout {
    /// The window in which it was rolled back, from 0; `None` when it never was.
    pub window: Option<u64>,
    /// The candidate's requests from the onset of the harm until then.
    pub samples: u64,
    /// Windows that were judged.
    pub judged: u64,
}

/// Runs the rollouts. `progress` is called with the number of those that are done.
///
/// # Errors
/// The first error of a judge, or what is wrong with the scenario.
pub fn run(scenario: &Scenario, judges: &Judges<'_>, order: Order, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Rollout>, String> {
    scenario.check()?;
    let model = Model::new(scenario);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || -> Result<Vec<(u64, Rollout)>, String> {
        let mut judge = judges()?;
        let mut ended = Vec::new();
        loop {
            let first = next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= order.rollouts {
                return Ok(ended);
            }
            for rollout in first..(first + BATCH).min(order.rollouts) {
                judge.begin();
                ended.push((rollout, run_one(&model, judge.as_mut(), order.seed, rollout)?));
                progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            }
        }
    };
    let parts: Vec<Result<Vec<(u64, Rollout)>, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..order.threads.max(1)).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()));
        threads.into_iter().map(join).collect()
    });
    let mut ended = Vec::new();
    for part in parts {
        ended.extend(part?);
    }
    ended.sort_by_key(|(rollout, _)| *rollout);
    Ok(ended.into_iter().map(|(_, ended)| ended).collect())
}

fn run_one(model: &Model, judge: &mut dyn super::Judge, seed: u64, rollout: u64) -> Result<Rollout, String> {
    let scenario = &model.scenario;
    let mut traffic = Traffic::new(model, seed, rollout);
    let (mut samples, mut judged) = (0, 0);
    for _ in 0..scenario.warm_up + scenario.windows {
        traffic.advance();
        let at = traffic.window_of_rollout();
        if at.is_some_and(|at| at >= scenario.onset) {
            samples += traffic.traffic.candidate_requests;
        }
        for window in [Some(&traffic.traffic), traffic.engagement.as_ref()].into_iter().flatten() {
            judged += 1;
            if judge.judge(window)? == Verdict::RollBack {
                return Ok(Rollout { window: Some(at.unwrap_or(0)), samples, judged });
            }
        }
    }
    Ok(Rollout { window: None, samples, judged })
}

/// What the rollouts of a scenario show together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The scenario's name.
    pub scenario: String,
    /// Rollouts.
    pub rollouts: u64,
    /// Rolled back before there was harm.
    pub false_alarms: u64,
    /// The exact upper end of the 95 % interval of their part.
    pub false_alarms_upper: f64,
    /// Rolled back once there was harm; 0 where there is none.
    pub detected: u64,
    /// Canary requests from the onset until the harm was seen; absent when more than half, or 5 %, never did.
    pub samples_median: Option<f64>,
    /// The same for 95 of 100.
    pub samples_p95: Option<f64>,
    /// Seconds of data from the onset, whole windows. A traffic slice is sealed 2 s later, clicks when they are mature.
    pub seconds_median: Option<f64>,
    /// The same for 95 of 100.
    pub seconds_p95: Option<f64>,
    /// Windows that were judged, both slices.
    pub judged: u64,
}

/// Sums rollouts up.
#[must_use]
pub fn summarise(scenario: &Scenario, rollouts: &[Rollout]) -> Summary {
    let n = rollouts.len() as u64;
    let onset = if scenario.harm.is_some() { scenario.onset } else { u64::MAX };
    let early = rollouts.iter().filter(|rollout| rollout.window.is_some_and(|window| window < onset)).count() as u64;
    let seen: Vec<&Rollout> = rollouts.iter().filter(|rollout| rollout.window.is_some_and(|window| window >= onset)).collect();
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    let samples = sorted(seen.iter().map(|rollout| rollout.samples as f64).collect());
    let length = f64::from(scenario.window_ms) / 1e3;
    let delay = |rollout: &&Rollout| rollout.window.map_or(0.0, |window| (window + 1).saturating_sub(onset) as f64 * length);
    let seconds = sorted(seen.iter().map(delay).collect());
    // Of the rollouts that came to the onset.
    let met = n - early;
    Summary {
        scenario: scenario.name.clone(),
        rollouts: n,
        false_alarms: early,
        false_alarms_upper: upper_bound(early, n),
        detected: seen.len() as u64,
        samples_median: quantile(&samples, met, 0.5),
        samples_p95: quantile(&samples, met, 0.95),
        seconds_median: quantile(&seconds, met, 0.5),
        seconds_p95: quantile(&seconds, met, 0.95),
        judged: rollouts.iter().map(|rollout| rollout.judged).sum(),
    }
}
