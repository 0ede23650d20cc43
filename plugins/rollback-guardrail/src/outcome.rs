//! A judgement as the host wants it: the evidence on each metric, and one sentence for the operator.

use std::fmt::Write as _;

use switchback_policy::rollback::{Evidence, Outcome, SUMMARY_BYTES, Verdict};

use crate::config::Config;
use crate::judge::{Judgement, Wait, is_gated, waits_for};
use crate::kernels::Arm;
use crate::state::State;
use crate::track::Track;

/// The id of the evidence of the whole rollout.
pub const ROLLOUT: &str = "rollout";
/// The id of the sample ratio check's evidence.
pub const SAMPLE_RATIO: &str = "sample-ratio";
/// The id of the coverage check's evidence.
pub const COVERAGE: &str = "coverage";

/// Puts a judgement into words and numbers.
#[must_use]
pub fn outcome(config: &Config, state: &State, judgement: Judgement) -> Outcome {
    let mut summary = match judgement.verdict {
        Verdict::RollBack => why_roll_back(config, state, judgement.log_harm),
        Verdict::Advance => why_advance(state),
        Verdict::Hold => why_hold(config, state, judgement.log_harm),
        Verdict::NoData => "no data: nothing arrived in one of the arms, so nothing is decided".to_owned(),
    };
    if let Some(step) = state.step.filter(|step| step.ms > config.max_step_ms && judgement.verdict == Verdict::Hold) {
        let _ = write!(summary, "; this step takes {} already, more than its {}", duration(step.ms), duration(config.max_step_ms));
    }
    let mut end = summary.len().min(SUMMARY_BYTES);
    while !summary.is_char_boundary(end) {
        end -= 1;
    }
    summary.truncate(end);
    Outcome { verdict: judgement.verdict, summary, evidence: evidence(config, state, judgement.log_harm), state: state.to_bytes() }
}

fn evidence(config: &Config, state: &State, log_harm: f64) -> Vec<Evidence> {
    let plain = |id: &str, log_harm: f64, difference: f64| Evidence {
        metric: id.to_owned(),
        log_harm,
        log_safe: None,
        difference,
        low: -1.0,
        high: 1.0,
    };
    let mut evidence = vec![plain(ROLLOUT, log_harm, 0.0)];
    let tracks = parts(config, state).filter(|(_, track)| track.is_known());
    evidence.extend(tracks.map(|(metric, track)| {
        let (difference, low, high) = track.bounds(config.interval_alpha);
        Evidence { metric: track.id.clone(), log_harm: track.log_harm(), log_safe: track.log_safe(is_gated(metric)), difference, low, high }
    }));
    let (measured, configured) = state.integrity.shares().unwrap_or_default();
    evidence.push(plain(SAMPLE_RATIO, state.integrity.log_ratio(), measured - configured));
    evidence.push(plain(COVERAGE, state.integrity.log_coverage(), 0.0));
    evidence
}

fn parts<'a>(config: &'a Config, state: &'a State) -> impl Iterator<Item = (&'a crate::config::Metric, &'a Track)> {
    let metrics = config.metrics.iter().zip(&state.metrics);
    [(&config.errors, &state.errors), (&config.latency, &state.latency)].into_iter().chain(metrics)
}

/// The metric that weighs most against the candidate.
fn worst<'a>(config: &'a Config, state: &'a State) -> Option<&'a Track> {
    let weighed = |(metric, track): &(&crate::config::Metric, &Track)| libm::log(metric.weight.max(1e-300)) + track.log_harm();
    parts(config, state).max_by(|a, b| weighed(a).total_cmp(&weighed(b))).map(|(_, track)| track)
}

fn why_roll_back(config: &Config, state: &State, log_harm: f64) -> String {
    let odds = libm::exp(log_harm.min(50.0));
    let sure = format!("a candidate that is no worse comes to this once in {} rollouts at most", whole(odds));
    let Some(track) = worst(config, state) else { return format!("roll back: {sure}") };
    let run = &track.run;
    // What is shown is counted beyond control's p99, wherever in between the candidate is slower most of all.
    let what = match (track.id.as_str(), track.worst_quantile()) {
        ("latency", 0) => "latency, most of all around control's earlier median; slower than its p99",
        ("latency", 1) => "latency, most of all around control's earlier p90; slower than its p99",
        ("latency", _) => "requests slower than control's earlier p99",
        (id, _) => id,
    };
    let control = match run.arms.control {
        arm if arm.n > 0.0 => format!("control {}", rate(arm)),
        _ => format!("no control, and {} was promised", percent(config.slo_error_rate.unwrap_or(0.0))),
    };
    format!("roll back: {what}: candidate {}, {control}, over the last {}; {sure}", rate(run.arms.candidate), duration(run.ms))
}

fn why_advance(state: &State) -> String {
    let step = state.step.unwrap_or_default();
    format!("advance: every gate is passed after {} requests of the candidate in {}", step.samples, duration(step.ms))
}

fn why_hold(config: &Config, state: &State, log_harm: f64) -> String {
    let needed = -libm::log(config.alpha);
    let mut text = match waits_for(config, state) {
        None => "hold".to_owned(),
        Some(Wait::Begin) => "hold: no window with traffic was seen".to_owned(),
        Some(Wait::SampleRatio) => {
            let (measured, configured) = state.integrity.shares().unwrap_or_default();
            let (measured, configured) = (percent(measured), percent(configured));
            format!(
                "hold: sample ratio mismatch: the candidate gets {measured} where {configured} is configured, so the comparison is unsound"
            )
        }
        Some(Wait::Coverage) => "hold: candidate and control do not report quality for the same part of their requests".to_owned(),
        Some(Wait::Samples(samples)) => format!("hold: {samples} of {} requests of the candidate in this step", config.min_samples),
        Some(Wait::Dwell(ms)) => format!("hold: {} of {} in this step", duration(ms), duration(config.min_dwell_ms)),
        Some(Wait::Engagement) => "hold: clicks and quality of this step are not mature yet".to_owned(),
        Some(Wait::Gate(id, log_safe)) => {
            format!("hold: the evidence that {id} is no worse is {log_safe:.1} of {:.1}", libm::log(config.advance_odds))
        }
    };
    let _ = write!(text, "; evidence of harm {log_harm:.1} of {needed:.1}");
    if let Some(track) = worst(config, state).filter(|track| track.run.arms.control.n > 0.0) {
        let _ = write!(text, ", most by {}: {} against {}", track.id, rate(track.run.arms.candidate), rate(track.run.arms.control));
    }
    text
}

/// `5.21 % of 220`.
fn rate(arm: Arm) -> String {
    if arm.n > 0.0 { format!("{} of {}", percent(arm.mean()), arm.n) } else { "nothing".to_owned() }
}

fn percent(part: f64) -> String {
    let percent = part * 100.0;
    if percent >= 10.0 { format!("{percent:.1} %") } else { format!("{percent:.2} %") }
}

fn whole(number: f64) -> String {
    if number < 1e6 { format!("{number:.0}") } else { format!("{number:.0e}") }
}

fn duration(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10) } else { format!("{} s", ms / 1_000) }
}
