//! What people and programs are shown of the evidence.

use serde::Serialize;

use super::board::threshold_log;
use super::history::means;
use super::record::{Comparison, Record, Said, Weighed};
use super::roles::Arm;
use crate::config::Route;
use crate::quality::Number;

/// The evidence on a route's candidate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EvidenceView {
    /// The version under test.
    pub candidate: RoleView,
    /// What it is compared with.
    pub control: RoleView,
    /// When the candidate began, in seconds since 1970.
    pub began_unix_seconds: u32,
    /// The epoch of the flags that held then, or a later one with the same shares; `None` where nobody remembers.
    #[serde(skip)]
    pub began_epoch: Option<u64>,
    /// Nobody is under test any more.
    pub is_over: bool,
    /// Requests of the candidate that were judged.
    pub candidate_requests: u64,
    /// Traffic of the windows before this was judged, in seconds since 1970.
    pub judged_until_unix_seconds: u32,
    /// The part of the candidate's requests of the last seconds that failed, 0 to 1; `null` where it had hardly any.
    pub candidate_failing: Option<f64>,
    /// The same of control.
    pub control_failing: Option<f64>,
    /// `advance`, `hold`, `roll_back` or `no_data`; `null` before the first window.
    pub verdict: Option<&'static str>,
    /// The policy's sentence for operators.
    pub summary: String,
    /// Natural logarithm of the e-value that the candidate is worse, all metrics together; `null` where the policy has none.
    pub log_harm: Option<f64>,
    /// A candidate is rolled back from there; `null` where it is not the policy's to say.
    pub threshold_log: Option<f64>,
    /// Each metric, and the checks of the comparison itself.
    pub metrics: Vec<MetricView>,
    /// Windows that were judged, lead-in included.
    pub windows: WindowsView,
    /// Slices that the policy had nothing to say about.
    pub failures: u64,
    /// Why, the last time.
    pub last_failure: Option<String>,
    /// The router that judges.
    pub judge: String,
    /// When it last did, in milliseconds since 1970.
    pub judged_unix_ms: u64,
}

/// One role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleView {
    /// The model version.
    pub version: String,
    /// The pools that it is on.
    pub pools: Vec<String>,
}

/// How far the windows are judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WindowsView {
    /// Traffic slices.
    pub traffic: u64,
    /// Engagement slices.
    pub engagement: u64,
}

/// One metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricView {
    /// Its id.
    pub metric: String,
    /// Natural logarithm of the e-value that the candidate is worse.
    pub log_harm: Option<f64>,
    /// The same that it is within the margin; `null` where that is not asked.
    pub log_safe: Option<f64>,
    /// Candidate minus control, by windows, and its always-valid interval.
    pub difference: Option<Difference>,
    /// Everything since the candidate began; `null` where it was not reported.
    pub candidate: Option<MeanView>,
    /// The same of control.
    pub control: Option<MeanView>,
}

/// A difference with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Candidate minus control.
    pub mean: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeanView {
    /// Observations.
    pub n: u64,
    /// Their mean; of latency, the 99th percentile in milliseconds.
    pub mean: f64,
}

/// The live model against itself, some minutes ago.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HistoryView {
    /// The version.
    pub version: String,
    /// It is compared with so long ago.
    pub seconds_ago: u32,
    /// As in [`EvidenceView`].
    pub log_harm: Option<f64>,
    /// Each metric: `candidate` is now, `control` is then.
    pub metrics: Vec<MetricView>,
    /// Windows that were judged.
    pub windows: WindowsView,
}

/// This router's own breaker on a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct BreakerView {
    /// As the config says.
    pub is_enabled: bool,
    /// There is a candidate to look at.
    pub is_watching: bool,
    /// Natural logarithm of the e-value that the candidate fails more than control, by this router's own counters; `null` without one.
    pub log_harm: Option<f64>,
    /// It trips from there: the config's alpha, shared among the routers that are known.
    pub threshold_log: f64,
    /// `observe_only`: why it would have tripped.
    pub would_trip: Option<String>,
    /// How often it tripped since the process began.
    pub trips: u64,
}

/// The policy that judges a route.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct JudgeView {
    /// Its name.
    pub name: String,
    /// SHA-256 of its file; empty for the native one.
    pub digest: String,
    /// Where it came from.
    pub source: String,
    /// Why it is not what the flags name.
    pub why: Option<String>,
}

/// The id of the evidence on everything together.
const ROLLOUT: &str = "rollout";

pub(super) fn evidence(comparison: &Comparison, record: &Record, route: &Route) -> EvidenceView {
    let role = |arm: &Arm| RoleView { version: arm.version.clone(), pools: arm.pools(route).map(|pool| pool.name.clone()).collect() };
    EvidenceView {
        candidate: role(&comparison.arms.candidate),
        control: role(&comparison.arms.control),
        began_unix_seconds: comparison.began,
        began_epoch: record.timeline.epoch_at(comparison.began),
        is_over: comparison.is_over,
        candidate_requests: comparison.candidate[Number::Requests],
        judged_until_unix_seconds: comparison.second(comparison.next_traffic),
        candidate_failing: comparison.candidate_failing.share(),
        control_failing: comparison.control_failing.share(),
        verdict: comparison.said.as_ref().map(|said| said.verdict.label()),
        summary: comparison.said.as_ref().map(|said| said.summary.clone()).unwrap_or_default(),
        log_harm: log_harm(comparison),
        threshold_log: threshold_log(&comparison.policy, route),
        metrics: metrics(comparison),
        windows: windows(comparison),
        failures: comparison.failures,
        last_failure: comparison.failure.clone(),
        judge: record.router.clone(),
        judged_unix_ms: record.at_ms,
    }
}

pub(super) fn history(comparison: &Comparison, seconds_ago: u32) -> HistoryView {
    HistoryView {
        version: comparison.arms.candidate.version.clone(),
        seconds_ago,
        log_harm: log_harm(comparison),
        metrics: metrics(comparison).into_iter().filter(|metric| metric.candidate.is_some() || metric.control.is_some()).collect(),
        windows: windows(comparison),
    }
}

fn windows(comparison: &Comparison) -> WindowsView {
    WindowsView { traffic: comparison.next_traffic, engagement: comparison.next_engagement }
}

fn log_harm(comparison: &Comparison) -> Option<f64> {
    weighed(&comparison.said).find(|weighed| weighed.metric == ROLLOUT).map(|weighed| weighed.log_harm)
}

fn weighed(said: &Option<Said>) -> impl Iterator<Item = &Weighed> {
    said.iter().flat_map(|said| &said.evidence)
}

/// What the policy weighed, with the means, and then what it did not.
pub(super) fn metrics(comparison: &Comparison) -> Vec<MetricView> {
    let mut means = means([&comparison.candidate, &comparison.control]);
    let slowest = [&comparison.candidate, &comparison.control].map(|counts| {
        let n = counts.latency.values().sum();
        counts.latency_ms(0.99).map(|millis| (n, millis))
    });
    if slowest.iter().any(Option::is_some) {
        means.insert("latency", slowest);
    }
    let view = |(n, mean): (u64, f64)| MeanView { n, mean };
    let mut views: Vec<MetricView> = weighed(&comparison.said)
        .filter(|weighed| weighed.metric != ROLLOUT)
        .map(|weighed| {
            let [candidate, control] = means.remove(weighed.metric.as_str()).unwrap_or_default();
            MetricView {
                metric: weighed.metric.clone(),
                log_harm: Some(weighed.log_harm),
                log_safe: weighed.log_safe,
                difference: Some(Difference { mean: weighed.difference, low: weighed.low, high: weighed.high }),
                candidate: candidate.map(view),
                control: control.map(view),
            }
        })
        .collect();
    views.extend(means.into_iter().map(|(id, [candidate, control])| MetricView {
        metric: id.to_owned(),
        log_harm: None,
        log_safe: None,
        difference: None,
        candidate: candidate.map(view),
        control: control.map(view),
    }));
    views
}
