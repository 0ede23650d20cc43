//! A route as JSON: what the config says, what the flags say, and what this router does.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{AdminState, redact};
use crate::config::{Pool, Role, Route};
use crate::flags::{Flags, View};
use crate::release::{PoolStrays, RouteStrays};
use crate::serve::{SharedEndpoint, SharedPool, Why};
use crate::vocabulary::{PoolIndex, RouteIndex};

/// Everything about a route, as `GET /api/v1/routes/{route}` gives it.
pub(super) fn route(state: &AdminState, index: RouteIndex, route: &Route, role: Role) -> Value {
    let view = state.flags.view(index);
    let flags = view.flags.clone();
    let mut json = flags_part(state, index, route, &flags);
    let mut add = |key: &str, value: Value| json.insert(key.to_owned(), value);
    add("source", json!(view.source));
    add("age_seconds", json!(view.age.as_secs_f64()));
    add("applied_ms_ago", json!(u64::try_from(view.applied_for.as_millis()).unwrap_or(u64::MAX)));
    add("store", json!({ "topology": view.topology, "node": view.node }));
    add("faults", json!(faults(&view, role)));
    add("warnings", json!(view.warnings));
    add("routers", json!(state.flags.routers(index)));
    add("pools", pools(state.pools(index), &flags, &state.process.board.strays(&route.name)));
    add("policies", json!(policies(state, index, route)));
    add("evidence", super::evidence::of_route(state, route));
    add("breaker", super::breaker::of_route(state, index, route));
    add("rollout", super::rollout::of_route(state, (index, route), &state.flags.stored(index)));
    let candidates = route.mlflow.as_ref().map(|_| state.process.candidates.progress(&route.name));
    add("mlflow", json!(candidates));
    add("needs_judged_queries", json!(route.validation.judged.is_some()));
    add("role", json!(if role == Role::Operator { "operator" } else { "viewer" }));
    Value::Object(json)
}

/// The flags as this router applies them; `epoch` is the store's.
pub(super) fn flags_part(state: &AdminState, index: RouteIndex, route: &Route, flags: &Flags) -> Map<String, Value> {
    let name = |pool: PoolIndex| route.pools.get(pool.get()).map(|pool| pool.name.as_str());
    let known_epoch = state.flags.fields(index).get("epoch").and_then(|text| text.parse().ok());
    let mut json = Map::new();
    let mut add = |key: &str, value: Value| json.insert(key.to_owned(), value);
    add("name", json!(route.name));
    add("live", json!(name(flags.live)));
    add("candidate_pool", json!(name(flags.candidate.pool)));
    add("canary_percent", json!(flags.candidate.share.percent()));
    add("holdback_pool", json!(flags.holdback.and_then(|holdback| name(holdback.pool))));
    // What is obeyed: the candidate comes first, and the holdback gets what is left.
    let holdback = flags.cut_holdback().or(flags.holdback.map(|holdback| holdback.share));
    add("holdback_percent", json!(holdback.map_or(0.0, |share| share.percent())));
    add("mirror_percent", json!(flags.mirror.percent()));
    add("pin", json!(flags.pin.and_then(name)));
    add("freeze", json!(flags.is_frozen));
    add("flags", json!(flags.features));
    add("epoch", json!(known_epoch.unwrap_or(flags.epoch)));
    add("applied_epoch", json!(flags.epoch));
    add("seal", json!(flags.seal));
    json
}

/// The policies of a route, each with its kind.
pub(super) fn policies(state: &AdminState, index: RouteIndex, route: &Route) -> Vec<Value> {
    let mut split = json!({ "kind": "split" });
    if let (Some(split), Ok(Value::Object(status))) = (split.as_object_mut(), serde_json::to_value(state.policies.status(index))) {
        split.extend(status);
    }
    vec![split, super::evidence::policy(state, index, route)]
}

/// Fields that are not obeyed. A salt that is not obeyed is still not a viewer's business.
pub(super) fn faults(view: &View, role: Role) -> Vec<Value> {
    let show = |fault: &crate::flags::Fault| {
        let is_hidden = role == Role::Viewer && matches!(fault.field.as_str(), "salt" | "experiments");
        let value = if is_hidden { redact::HIDDEN } else { &fault.value };
        json!({ "field": fault.field, "value": value, "allowed": fault.allowed })
    };
    view.faults.iter().map(show).collect()
}

fn pools(pools: &[Arc<SharedPool>], flags: &Flags, strays: &RouteStrays) -> Value {
    let now = Instant::now();
    let entry = |(index, pool): (PoolIndex, &Arc<SharedPool>)| {
        // As the flags have it: the generation that follows them is a moment later.
        let version = flags.versions.get(&index).unwrap_or(&pool.config.version);
        let value = json!({
            "version": version,
            "roles": roles(flags, index),
            "healthy": pool.healthy(),
            "is_panicking": pool.is_panicking(),
            "in_flight": pool.in_flight(),
            "strays": strays.get(&pool.config.name).map_or_else(Vec::new, |found| stray_servers(found, now)),
            "endpoints": pool.endpoints.iter().map(|shared| endpoint(shared, now)).collect::<Vec<_>>(),
        });
        (pool.config.name.clone(), value)
    };
    Value::Object((0..=u8::MAX).map(PoolIndex).zip(pools).map(entry).collect())
}

fn stray_servers(found: &PoolStrays, now: Instant) -> Vec<Value> {
    let age = found.seen.map(|seen| now.saturating_duration_since(seen).as_secs_f64());
    let one = |stray: &crate::loading::Stray| json!({ "server": stray.server, "serves": stray.serves, "restore": found.restore, "seen_seconds_ago": age });
    found.strays.iter().map(one).collect()
}

fn endpoint(endpoint: &SharedEndpoint, now: Instant) -> Value {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json!({
        "endpoint": endpoint.authority.as_str(),
        "is_healthy": endpoint.is_available(),
        "state": endpoint.state(now).label(),
        "in_flight": endpoint.in_flight(),
        "ejections": Why::ALL.into_iter().map(|why| endpoint.ejections(why)).sum::<u64>(),
        "ejected_for_ms": endpoint.ejected_for(now).map(milliseconds),
        "why": endpoint.why(now),
        "last_failure": endpoint.last_failure().map(|(what, at)| json!({ "what": what, "ms_ago": milliseconds(now.saturating_duration_since(at)) })),
        "addresses": endpoint.addresses(),
    })
}

/// A line for each pool that gets queries and has nobody to answer them, as far as this router knows.
pub(super) fn without_health(state: &AdminState, index: RouteIndex, route: &Route) -> Vec<String> {
    let flags = state.flags.view(index).flags;
    let pools = (0..=u8::MAX).map(PoolIndex).zip(&route.pools).zip(state.pools(index));
    let line = |((index, config), pool): ((PoolIndex, &Pool), &Arc<SharedPool>)| {
        let roles = roles(&flags, index);
        let is_dead = !roles.is_empty() && !pool.has_healthy_endpoint();
        is_dead.then(|| format!("pool {} ({}) has no healthy endpoint", config.name, roles.join(", ")))
    };
    pools.filter_map(line).collect()
}

/// What a pool is to this route at this moment.
fn roles(flags: &Flags, pool: PoolIndex) -> Vec<&'static str> {
    let mut roles = Vec::new();
    if flags.live == pool {
        roles.push("live");
    }
    if flags.candidate.pool == pool && flags.candidate.share.get() > 0 {
        roles.push("candidate");
    }
    if flags.candidate.pool == pool && flags.mirror.get() > 0 && flags.pin.is_none() && flags.live != pool {
        roles.push("mirror");
    }
    if flags.holdback.is_some_and(|holdback| holdback.pool == pool) {
        roles.push("holdback");
    }
    if flags.pin == Some(pool) {
        roles.push("pin");
    }
    roles
}
