//! What a window must be before it is judged. One that is not is refused whole, and the state stays as it was.

use switchback_policy::rollback::{Metric, Slice, Tally, Window};

use crate::config::NAME_BYTES;
use crate::effect::GROUPS;
use crate::kernels::Arm;
use crate::state::State;

/// Metrics and buckets that a window may have.
const MOST_METRICS: usize = 64;
const MOST_BUCKETS: usize = 1_024;
/// Sums of doubles go astray by this part at most.
const SLACK: f64 = 1e-6;
/// The most observations of a window: a state that was made of ever so many of these can still be read back.
const MOST_OBSERVATIONS: u64 = 1_000_000_000_000;
/// The longest window.
const LONGEST_MS: u32 = 3_600_000;

/// # Errors
/// What is wrong with the window.
pub(crate) fn check(state: &State, window: &Window) -> Result<(), String> {
    let (next, slice) = match window.slice {
        Slice::Traffic => (state.next_traffic, "traffic"),
        Slice::Engagement => (state.next_engagement, "engagement"),
    };
    let at = format_args!("window {} ({slice})", window.index);
    if window.index < next {
        return Err(format!("{at} was judged before: the next one is {next}"));
    }
    if window.length_ms == 0 || window.length_ms > LONGEST_MS {
        return Err(format!("{at} has length-ms = {}: must be 1 to {LONGEST_MS}", window.length_ms));
    }
    for (name, ppm) in [("share-ppm", window.share_ppm), ("step.share-ppm", Some(window.step.share_ppm))] {
        if let Some(ppm) = ppm.filter(|ppm| *ppm > 1_000_000) {
            return Err(format!("{at} has {name} = {ppm}: must be 1000000 at most"));
        }
    }
    if window.metrics.len() > MOST_METRICS || window.latency.len() > MOST_BUCKETS {
        let (metrics, buckets) = (window.metrics.len(), window.latency.len());
        return Err(format!("{at} has {metrics} metrics and {buckets} buckets: {MOST_METRICS} and {MOST_BUCKETS} at most are allowed"));
    }
    for metric in &window.metrics {
        check_metric(metric).map_err(|reason| format!("{at} has {reason}"))?;
    }
    let is_sorted = window.latency.windows(2).all(|pair| matches!(pair, [a, b] if a.upper_micros < b.upper_micros));
    let requests = [window.candidate_requests, window.control_requests];
    let counts = window.latency.iter().flat_map(|bucket| [bucket.candidate, bucket.control]).chain(requests);
    if let Some(count) = counts.into_iter().find(|count| *count > MOST_OBSERVATIONS) {
        return Err(format!("{at} has {count} requests, or in a bucket: {MOST_OBSERVATIONS} at most are allowed"));
    }
    if !is_sorted {
        return Err(format!("{at} has latency buckets that are not sorted by their edges"));
    }
    Ok(())
}

fn check_metric(metric: &Metric) -> Result<(), String> {
    if metric.id.is_empty() || metric.id.len() > NAME_BYTES {
        return Err(format!("a metric with an id of {} bytes: 1 to {NAME_BYTES} are allowed", metric.id.len()));
    }
    for (role, tally, groups) in
        [("candidate", &metric.candidate, &metric.candidate_groups), ("control", &metric.control, &metric.control_groups)]
    {
        check_tally(tally).map_err(|reason| format!("{} of the {role} with {reason}", metric.id))?;
        if !groups.is_empty() && groups.len() != GROUPS {
            return Err(format!("{} of the {role} with {} groups: none or {GROUPS} are allowed", metric.id, groups.len()));
        }
        for group in groups {
            check_tally(group).map_err(|reason| format!("{} of the {role} with a group with {reason}", metric.id))?;
        }
    }
    Ok(())
}

/// Every observation is within 0 and 1: so are the sums, within what rounding adds.
fn check_tally(tally: &Tally) -> Result<(), String> {
    if tally.n > MOST_OBSERVATIONS {
        return Err(format!("n = {}: must be {MOST_OBSERVATIONS} at most", tally.n));
    }
    let most = tally.n as f64 * (1.0 + SLACK) + SLACK;
    let is_within = |sum: f64, most: f64| sum.is_finite() && sum >= -SLACK && sum <= most;
    if !is_within(tally.sum, most) {
        return Err(format!("sum = {}: must be a number from 0 to n = {}", tally.sum, tally.n));
    }
    if !is_within(tally.sumsq, tally.sum * (1.0 + SLACK) + SLACK) {
        return Err(format!("sumsq = {}: must be a number from 0 to sum = {}", tally.sumsq, tally.sum));
    }
    // The mean of squares is at least the square of the mean.
    if tally.sum * tally.sum > tally.sumsq * tally.n as f64 * (1.0 + SLACK) + SLACK {
        return Err(format!("sumsq = {}: less than {} observations with sum {} can have", tally.sumsq, tally.n, tally.sum));
    }
    Ok(())
}

/// A tally as the kernels want it.
pub(crate) fn arm(tally: &Tally) -> Arm {
    Arm { n: tally.n as f64, sum: tally.sum.max(0.0), sumsq: tally.sumsq.max(0.0) }
}
