//! Follows the names of endpoints: looks them up at start, at an interval, and after a failure to connect. On the control thread.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::places::Looked;
use super::{SharedEndpoint, SharedPool};

/// Between two look-ups of a name to which nobody can connect.
const SOONEST: Duration = Duration::from_secs(1);

/// Looks up every name once, all at the same time, for so long at most: a resolver that does not answer holds no start up.
pub(crate) async fn look_up_all(pools: impl Iterator<Item = (&str, &Arc<SharedPool>)>, limit: Duration) {
    let names = pools.flat_map(|(route, pool)| pool.endpoints.iter().map(move |endpoint| (route, pool, endpoint)));
    let lookups = names.filter(|(.., endpoint)| endpoint.places.is_name());
    let lookups = lookups.map(|(route, pool, endpoint)| look_up(route, pool, endpoint, true));
    let _ = tokio::time::timeout(limit, join_all(lookups)).await;
}

/// Follows one endpoint's name until the task is dropped.
pub(crate) async fn follow_name(route: String, pool: Arc<SharedPool>, endpoint: Arc<SharedEndpoint>) {
    if !endpoint.places.is_name() {
        return;
    }
    let interval = pool.config.dns_interval;
    // The look-up at start may have been given up.
    let mut was_good = endpoint.places.is_resolved();
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = endpoint.places.doubted.notified() => tokio::time::sleep(SOONEST.min(interval)).await,
        }
        was_good = look_up(&route, &pool, &endpoint, was_good).await;
    }
}

/// Whether it stands for something. Logs changes, and the first of several failures.
async fn look_up(route: &str, pool: &SharedPool, endpoint: &SharedEndpoint, was_good: bool) -> bool {
    let (name, authority) = (&pool.config.name, &endpoint.authority);
    match endpoint.places.look_up().await {
        Ok(Looked::Changed { from, to }) => {
            // Nothing to apply: what changed is whether there are addresses, and the places know that.
            pool.change(route, endpoint, |_| {});
            tracing::info!(route, pool = name, endpoint = %authority, ?from, ?to, "the name stands for other addresses");
        }
        Ok(Looked::Same) => {}
        Err(why) => {
            if was_good {
                let kept = endpoint.places.all().len();
                tracing::warn!(route, pool = name, endpoint = %authority, why, kept, "look-up failed: the last good addresses stay");
            }
            return false;
        }
    }
    if pool.config.health.interval.is_zero() {
        endpoint.places.forget_failures();
    }
    true
}
