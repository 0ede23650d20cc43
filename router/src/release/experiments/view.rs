//! What people and programs are shown of an experiment.

use serde::Serialize;

use super::record::{Found, Record};
use crate::flags::Experiment;
use crate::quality::{Counts, Number};
use crate::release::record::Comparison;
use crate::release::view::{self, MetricView};

/// What is known of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ExperimentEvidence {
    /// Its arms, control first.
    pub arms: Vec<ArmView>,
    /// Each of the others against control.
    pub comparisons: Vec<ComparisonView>,
    /// The first window, in seconds since 1970.
    pub began_unix_seconds: u32,
    /// Traffic of the windows before this is in it, in seconds since 1970.
    pub traffic_until_unix_seconds: u32,
    /// Clicks and conversions of the windows before this are in it.
    pub engagement_until_unix_seconds: u32,
    /// Seconds that nobody kept until they could be judged.
    pub left_out_seconds: u32,
    /// The router that judges.
    pub judge: String,
    /// When it last did, in milliseconds since 1970.
    pub judged_unix_ms: u64,
}

/// What was counted of an arm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmView {
    /// Its name.
    pub arm: String,
    /// Attempts that ended and that the backend answers for.
    pub requests: u64,
    /// Of them, 5xx and those without an answer.
    pub errors: u64,
    /// Of them, those that ran out of time.
    pub timeouts: u64,
    /// Tokens that were issued.
    pub impressions: u64,
    /// Of them, those that were clicked.
    pub clicks: u64,
    /// Of them, those that led to a conversion.
    pub conversions: u64,
    /// Queries that came with a quality, and its mean.
    pub quality: Option<QualityView>,
    /// Queries that said whether they found anything, and those that found nothing.
    pub zero_results: Option<ZeroResultsView>,
    /// Median, in milliseconds.
    pub latency_p50_ms: Option<f64>,
    /// 99th percentile, in milliseconds.
    pub latency_p99_ms: Option<f64>,
}

/// A mean quality.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QualityView {
    /// Queries.
    pub seen: u64,
    /// 0 to 1.
    pub mean: f64,
}

/// Queries that found nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ZeroResultsView {
    /// Queries that said so.
    pub seen: u64,
    /// Of them.
    pub of_them: u64,
}

/// An arm against control.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonView {
    /// The arm.
    pub arm: String,
    /// Control.
    pub control: String,
    /// The shares are as they should be, as far as is known.
    pub is_sound: bool,
    /// It does harm, beyond doubt.
    pub is_harmful: bool,
    /// In a sentence.
    pub summary: String,
    /// Each metric.
    pub metrics: Vec<MetricView>,
}

/// What there is to be shown.
pub(super) fn view(experiment: &Experiment, record: &Record) -> ExperimentEvidence {
    let name = |place: usize| experiment.arms.get(place).map(|arm| arm.name.as_str()).unwrap_or_default();
    let others = record.others.iter().map(|comparison| &comparison.candidate);
    ExperimentEvidence {
        arms: std::iter::once(&record.control).chain(others).enumerate().map(|(place, counts)| arm(name(place), counts)).collect(),
        comparisons: record.others.iter().zip(&record.found).map(comparison).collect(),
        began_unix_seconds: record.began,
        traffic_until_unix_seconds: record.next_traffic,
        engagement_until_unix_seconds: record.next_engagement,
        left_out_seconds: record.left_out,
        judge: record.router.clone(),
        judged_unix_ms: record.at_ms,
    }
}

fn arm(name: &str, counts: &Counts) -> ArmView {
    let seen = counts[Number::QualitySeen];
    let mean = counts[Number::QualitySum] as f64 * Number::QualitySum.unit() / seen as f64;
    let zero = ZeroResultsView { seen: counts[Number::ZeroSeen], of_them: counts[Number::ZeroResults] };
    ArmView {
        arm: name.to_owned(),
        requests: counts[Number::Requests],
        errors: counts[Number::Errors],
        timeouts: counts[Number::Timeouts],
        impressions: counts[Number::Impressions],
        clicks: counts[Number::Clicks],
        conversions: counts[Number::Conversions],
        quality: (seen > 0).then_some(QualityView { seen, mean }),
        zero_results: Some(zero).filter(|zero| zero.seen > 0),
        latency_p50_ms: counts.latency_ms(0.5),
        latency_p99_ms: counts.latency_ms(0.99),
    }
}

fn comparison((comparison, found): (&Comparison, &Found)) -> ComparisonView {
    let (arm, control) = (comparison.arms.candidate.version.clone(), comparison.arms.control.version.clone());
    let metrics = view::metrics(comparison);
    let summary = match found {
        // An arm that fails has other shares for it, too: retries, and answers of others.
        Found { harm: Some(harm), .. } => harm.clone(),
        Found { is_skewed: true, .. } => {
            "the arms do not have the shares that they should have: what differs may be who is in them".to_owned()
        }
        Found { .. } => differs(&metrics),
    };
    ComparisonView { arm, control, is_sound: !found.is_skewed, is_harmful: found.harm.is_some(), summary, metrics }
}

/// Which metrics differ, by intervals that hold together.
fn differs(metrics: &[MetricView]) -> String {
    let words = metrics.iter().filter_map(|metric| {
        let difference = metric.difference.filter(|_| metric.candidate.is_some() && metric.control.is_some())?;
        let what = if difference.low > 0.0 {
            "more"
        } else if difference.high < 0.0 {
            "less"
        } else {
            return None;
        };
        Some(format!("{what} {}", if metric.metric == "latency" { "slow requests" } else { &metric.metric }))
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "no difference is certain yet".to_owned() } else { words.join(", ") }
}
