//! How long a step needs to see which harm at this traffic, how many queries that exposes, and which share would be wiser.

use serde::Serialize;

use super::judges::Judges;
use super::rollouts::{Order, run, summarise};
use super::scenario::{Rates, Scenario};

/// Shares that are proposed, smallest first.
const SHARES: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5];

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// Requests a second of the route.
    pub requests_per_second: f64,
    /// The step's share.
    pub share: f64,
    /// How the live model does.
    pub base: Rates,
    /// The harm is to be seen within this.
    pub within_seconds: u64,
    /// Rollouts for each harm and share.
    pub order: Order,
}

/// The answer for one harm.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What goes wrong.
    pub harm: String,
    /// Seconds of data until it is seen in half of the rollouts; absent when it is not within twice the time.
    pub seconds_median: Option<f64>,
    /// The same for 95 of 100.
    pub seconds_p95: Option<f64>,
    /// Queries that the candidate answered by then, in 95 of 100.
    pub exposed_p95: Option<f64>,
    /// The smallest share that sees it in time in 95 of 100.
    pub wiser_share: Option<f64>,
}

/// The harms that are asked about, relative to the base.
fn harms(base: Rates) -> Vec<(String, Rates)> {
    let percent = |part: f64| format!("{:.3}", part * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned();
    let errors = [0.01, 0.05, 0.2].map(|errors| {
        let worse = (base.errors + errors).min(1.0);
        (format!("errors {} -> {} %", percent(base.errors), percent(worse)), Rates { errors: worse, ..base })
    });
    let clicks = [0.95, 0.9, 0.8].map(|part| {
        let worse = base.clicks * part;
        (format!("clicks {} -> {} %", percent(base.clicks), percent(worse)), Rates { clicks: worse, ..base })
    });
    let quality = [0.02, 0.05].map(|less| {
        let worse = (base.quality - less).max(0.0);
        (format!("quality {:.2} -> {worse:.2}", base.quality), Rates { quality: worse, ..base })
    });
    let slow = (format!("p99 {:.0} -> {:.0} ms", base.p99_ms, base.p99_ms * 1.5), Rates { p99_ms: base.p99_ms * 1.5, ..base });
    errors.into_iter().chain(clicks).chain(quality).chain([slow]).collect()
}

/// Number of harms that [`plan`] answers for: what `progress` counts to.
#[must_use]
pub fn number_of_harms() -> u64 {
    harms(Rates::default()).len() as u64
}

/// Answers.
///
/// # Errors
/// What is wrong with the question, or the policy's config.
pub fn plan(question: &Question, judges: &Judges<'_>, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (done, (name, harm)) in harms(question.base).into_iter().enumerate() {
        let at = |share: f64| -> Result<_, String> {
            let scenario = Scenario {
                requests_per_second: question.requests_per_second,
                share,
                base: question.base,
                harm: Some(harm),
                windows: question.within_seconds * 2,
                // Latency needs 2,000 requests of control before there are thresholds.
                warm_up: (2_500.0 / question.requests_per_second).ceil().clamp(10.0, 600.0) as u64,
                ..Scenario::default()
            };
            Ok(summarise(&scenario, &run(&scenario, judges, question.order, &|_| {})?))
        };
        let asked = at(question.share)?;
        let mut wiser_share = None;
        for share in SHARES {
            let is_in_time = |seconds: f64| seconds <= question.within_seconds as f64;
            // Smallest first: the first that is in time exposes the fewest.
            if at(share)?.seconds_p95.is_some_and(is_in_time) {
                wiser_share = Some(share);
                break;
            }
        }
        lines.push(Line {
            harm: name,
            seconds_median: asked.seconds_median,
            seconds_p95: asked.seconds_p95,
            exposed_p95: asked.samples_p95,
            wiser_share,
        });
        progress(done as u64 + 1);
    }
    Ok(lines)
}
