//! Looks for outliers, and does what [`super::outlier`] decides: on the control thread, one task a pool.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::outlier::{Change, Detector, Look, Return, Why};
use super::{SharedEndpoint, SharedPool};
use crate::config;

/// Between two looks: when every query fails, one look for each would be too many.
const PAUSE: Duration = Duration::from_millis(5);

/// Follows one pool until the task is dropped. Each change is logged.
pub(crate) async fn eject_outliers(route: String, pool: Arc<SharedPool>) {
    let config = &pool.config.outlier;
    if pool.endpoints.len() < 2 || config.max_ejection_percent == 0 {
        return;
    }
    let mut detector = Detector::new(pool.endpoints.len(), config, Instant::now());
    loop {
        tokio::select! {
            () = pool.news.notified() => {}
            () = tokio::time::sleep_until(detector.next_step()) => {}
        }
        let looks: Vec<Look> = pool.endpoints.iter().map(|endpoint| endpoint.look()).collect();
        let now = Instant::now();
        for change in detector.step(&looks, now) {
            apply(&route, &pool, change, now);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn apply(route: &str, pool: &SharedPool, change: Change, now: Instant) {
    let (Change::Eject { index, .. } | Change::HalfOpen { index } | Change::Back { index, .. }) = change;
    let Some(endpoint) = pool.endpoints.get(index) else { return };
    let (name, authority) = (&pool.config.name, &endpoint.authority);
    match change {
        Change::Eject { lasts, why, .. } => {
            endpoint.reasons.ejected(&in_words(why, endpoint, &pool.config.outlier));
            pool.change(route, endpoint, |endpoint| endpoint.eject(now + lasts, why));
            tracing::warn!(route, pool = name, endpoint = %authority, why = why.label(), ?lasts, "endpoint ejected");
        }
        Change::HalfOpen { .. } => {
            let probes = pool.config.outlier.probes;
            pool.change(route, endpoint, |endpoint| endpoint.half_open(probes));
            tracing::info!(route, pool = name, endpoint = %authority, probes, "ejection over: the endpoint gets probes");
        }
        Change::Back { why, .. } => {
            pool.change(route, endpoint, SharedEndpoint::readmit);
            let why = match why {
                Return::Answered => "it answered its probes",
                Return::NoneBetter => "it failed a probe, and no other endpoint does better",
            };
            tracing::warn!(route, pool = name, endpoint = %authority, "endpoint back in: {why}");
        }
    }
}

fn in_words(why: Why, endpoint: &SharedEndpoint, outlier: &config::Outlier) -> String {
    match why {
        // A success may have come since it was looked at.
        Why::ConsecutiveFailures => format!("{} failures in a row", endpoint.look().consecutive.max(outlier.consecutive_failures)),
        Why::FailurePercentage => format!("at least {} % of its attempts failed", outlier.failure_percentage_threshold),
        Why::Probe => "a probe failed".to_owned(),
    }
}
