//! From one window to the next state and a verdict.

use switchback_policy::rollback::{Metric as Reported, Slice, Verdict, Window};

use crate::config::{Config, Metric};
use crate::kernels::{self, Arm, Arms};
use crate::state::{State, Step};
use crate::track::{self, Track};
use crate::window::{arm, check};

/// Everybody, in parts per million.
const EVERYBODY: u32 = 1_000_000;
/// Whose coverage is compared, and whose groups tell how requests cluster first.
const QUALITY: &str = "quality";

/// A verdict with the evidence that it rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judgement {
    /// What the evidence says.
    pub verdict: Verdict,
    /// `ln E` of the whole rollout.
    pub log_harm: f64,
}

/// Takes one window into the state, and judges. After an error the state must not be used.
///
/// # Errors
/// What is wrong with the window.
pub fn judge(config: &Config, state: &mut State, window: &Window) -> Result<Judgement, String> {
    check(state, window)?;
    match window.slice {
        Slice::Traffic => observe_traffic(config, state, window),
        Slice::Engagement => state.next_engagement = window.index.saturating_add(1),
    }
    observe_metrics(config, state, window);
    let log_harm = log_rollout(config, state);
    Ok(Judgement { verdict: verdict(config, state, window, log_harm), log_harm })
}

fn observe_traffic(config: &Config, state: &mut State, window: &Window) {
    state.next_traffic = window.index.saturating_add(1);
    let step = follow_step(state, window);
    let errors = |metric: &str| window.metrics.iter().find(|reported| reported.id == metric);
    let parts = [errors("errors"), errors("timeouts")];
    let failed = |of: fn(&Reported) -> f64| parts.into_iter().flatten().map(of).sum::<f64>();
    let arms = Arms {
        candidate: Arm::events(window.candidate_requests as f64, failed(|part| part.candidate.sum)),
        control: Arm::events(window.control_requests as f64, failed(|part| part.control.sum)),
    };
    if parts.iter().any(Option::is_some) {
        match config.slo_error_rate {
            Some(slo) if has_no_control(window) => state.errors.observe_absolute(&config.errors, arms.candidate, slo, window.length_ms),
            _ => {
                let margin = track::margin(config.errors.gate, step.is_last);
                state.errors.observe(config, &config.errors, &arms, margin, window.length_ms);
            }
        }
    }
    if !window.latency.is_empty() {
        if let Some(slow) = state.history.exceedances(&window.latency, config.latency_tolerance, config.latency_ignored) {
            let margin = track::margin(config.latency.gate, step.is_last);
            state.latency.observe_latency(config, &slow, margin, window.length_ms);
        }
        state.history.add(&window.latency);
    }
    state.integrity.observe_share(config, window);
}

/// Counts for the step that the window is of; another one begins with nothing.
fn follow_step(state: &mut State, window: &Window) -> Step {
    let fresh =
        Step { index: window.step.index, share_ppm: window.step.share_ppm, is_last: window.step.is_last, samples: 0, ms: 0, engagement: 0 };
    let mut step = match state.step {
        Some(step) if step.index == fresh.index => Step { share_ppm: fresh.share_ppm, is_last: fresh.is_last, ..step },
        _ => {
            let tracks = [&mut state.errors, &mut state.latency].into_iter().chain(&mut state.metrics);
            tracks.for_each(Track::begin_step);
            fresh
        }
    };
    step.samples = step.samples.saturating_add(window.candidate_requests);
    // Windows of control alone, from before the candidate began, are no time of its.
    if window.candidate_requests > 0 {
        step.ms = step.ms.saturating_add(u64::from(window.length_ms));
    }
    state.step = Some(step);
    step
}

fn observe_metrics(config: &Config, state: &mut State, window: &Window) {
    let is_of_step = state.step.is_some_and(|step| step.index == window.step.index);
    if window.slice == Slice::Engagement
        && let Some(step) = state.step.as_mut().filter(|_| is_of_step)
    {
        step.engagement = step.engagement.saturating_add(1);
    }
    for (metric, track) in config.metrics.iter().zip(&mut state.metrics) {
        let Some(reported) = window.metrics.iter().find(|reported| reported.id == metric.id) else { continue };
        let has_groups = !reported.candidate_groups.is_empty() || !reported.control_groups.is_empty();
        if has_groups {
            track.expect_clusters(config, metric.floor);
        }
        let arms = Arms { candidate: arm(&reported.candidate), control: arm(&reported.control) };
        let margin = track::margin(metric.gate, window.step.is_last).filter(|_| is_of_step);
        track.observe(config, metric, &arms, margin, window.length_ms);
        track.add_groups(reported);
        if metric.id == QUALITY && window.slice == Slice::Engagement {
            state.integrity.observe_coverage(config, window, [arms.candidate.n, arms.control.n]);
        }
    }
    // The metric that the most requests have stands for all of them.
    let clusters = state.metrics.iter().filter_map(|track| track.clusters.as_deref());
    if let Some(most) = clusters.max_by(|a, b| a.observations().total_cmp(&b.observations())) {
        state.integrity.set_phi(most.of_sizes(config));
    }
}

/// `ln E` of the whole rollout: the weighted mean of the metrics' e-values. One that was not seen has 1.
fn log_rollout(config: &Config, state: &State) -> f64 {
    let metrics = config.metrics.iter().zip(&state.metrics);
    let parts = [(&config.errors, &state.errors), (&config.latency, &state.latency)].into_iter().chain(metrics);
    let mut weighted = [(0.0, f64::NEG_INFINITY); 18];
    for (slot, (metric, track)) in weighted.iter_mut().zip(parts) {
        *slot = (metric.weight, track.log_harm());
    }
    let used = weighted.into_iter().filter(|(weight, _)| *weight > 0.0);
    kernels::log_mix(used)
}

fn has_no_control(window: &Window) -> bool {
    window.share_ppm == Some(EVERYBODY) && window.control_requests == 0
}

fn verdict(config: &Config, state: &State, window: &Window, log_harm: f64) -> Verdict {
    if log_harm >= config.threshold_log() {
        return Verdict::RollBack;
    }
    if window.candidate_requests == 0 || (window.control_requests == 0 && !(has_no_control(window) && config.slo_error_rate.is_some())) {
        return Verdict::NoData;
    }
    if waits_for(config, state).is_none() { Verdict::Advance } else { Verdict::Hold }
}

/// What a verdict to advance still needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wait<'a> {
    /// No traffic slice was seen.
    Begin,
    /// The shares are not as configured.
    SampleRatio,
    /// The arms do not report quality alike.
    Coverage,
    /// The candidate's requests in this step.
    Samples(u64),
    /// The step's length so far, in milliseconds.
    Dwell(u64),
    /// Clicks and quality of this step are not mature.
    Engagement,
    /// A gate, and how far its log e-value is.
    Gate(&'a str, f64),
}

pub(crate) fn waits_for<'a>(config: &Config, state: &'a State) -> Option<Wait<'a>> {
    let Some(step) = state.step else { return Some(Wait::Begin) };
    if state.integrity.has_skewed_ratio {
        return Some(Wait::SampleRatio);
    }
    if state.integrity.has_skewed_coverage {
        return Some(Wait::Coverage);
    }
    if step.samples < config.min_samples {
        return Some(Wait::Samples(step.samples));
    }
    if step.ms < config.min_dwell_ms {
        return Some(Wait::Dwell(step.ms));
    }
    let is_quality_gated = step.share_ppm >= config.quality_from_ppm;
    if is_quality_gated && step.engagement == 0 {
        return Some(Wait::Engagement);
    }
    let needed = libm::log(config.advance_odds);
    let always = [(&config.errors, &state.errors), (&config.latency, &state.latency)];
    let from_some_share = config.metrics.iter().zip(&state.metrics).filter(|_| is_quality_gated);
    always.into_iter().chain(from_some_share).find_map(|(metric, track)| {
        let log_safe = track.log_safe(is_gated(metric))?;
        (log_safe < needed).then_some(Wait::Gate(&track.id, log_safe))
    })
}

pub(crate) fn is_gated(metric: &Metric) -> bool {
    metric.gate.is_some()
}
