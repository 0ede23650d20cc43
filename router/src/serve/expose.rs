//! What a response says of the decision about its query, where the route's `expose` or an override asks for it.

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::routes::RouteWorker;
use super::split::Chosen;
use crate::config::Expose;
use crate::quality::DECISIONS;
use crate::vocabulary::PoolIndex;

const X_SWITCHBACK_POOL: HeaderName = HeaderName::from_static("x-switchback-pool");
const X_SWITCHBACK_VERSION: HeaderName = HeaderName::from_static("x-switchback-version");
const X_SWITCHBACK_EPOCH: HeaderName = HeaderName::from_static("x-switchback-epoch");
const X_SWITCHBACK_REASON: HeaderName = HeaderName::from_static("x-switchback-reason");
const X_SWITCHBACK_ARM: HeaderName = HeaderName::from_static("x-switchback-arm");

/// Says what `expose` names; `pool` is the one that answered.
pub(crate) fn say(headers: &mut HeaderMap, expose: Expose, route: &RouteWorker, pool: PoolIndex, chosen: &Chosen) {
    if expose.has(Expose::POOL)
        && let Some(name) = route.pool_name(pool)
    {
        headers.insert(X_SWITCHBACK_POOL, name);
    }
    if expose == Expose::POOL {
        return;
    }
    // A version is printable, so it is always a header value.
    let version = route.config.pools.get(pool.get()).and_then(|pool| HeaderValue::from_str(&pool.version).ok());
    if let Some(version) = version.filter(|_| expose.has(Expose::VERSION)) {
        headers.insert(X_SWITCHBACK_VERSION, version);
    }
    if expose.has(Expose::EPOCH) {
        headers.insert(X_SWITCHBACK_EPOCH, HeaderValue::from(chosen.epoch));
    }
    if expose.has(Expose::REASON) {
        let decision = DECISIONS.get(usize::from(chosen.reason)).copied().unwrap_or("native");
        let reason = if pool == chosen.pool { decision } else { "fallback" };
        headers.insert(X_SWITCHBACK_REASON, HeaderValue::from_static(reason));
    }
    // Names of experiments and arms are letters, digits, - and _.
    let arm = chosen
        .counts
        .as_ref()
        .filter(|_| expose.has(Expose::ARM))
        .and_then(|counted| HeaderValue::from_str(counted.arm.as_ref()?.name()).ok());
    if let Some(arm) = arm {
        headers.insert(X_SWITCHBACK_ARM, arm);
    }
}
