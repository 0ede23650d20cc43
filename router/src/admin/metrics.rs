//! `/metrics`: the counters of the data path and the state of the control plane, for Prometheus. Needs no token.
//!
//! Labels are bounded: route, pool, version and endpoint are the config's, codes and reasons a fixed list. No user key.

use axum::extract::State;
use axum::http::{HeaderName, header};

use super::exposition::{Buckets, CONTENT_TYPE, Exposition};
use super::{
    AdminState, Shared, breaker, events_in, evidence, metrics_process, mlflow, notify, pool_metrics, process, quality_metrics, rollback,
    rollout,
};
use crate::config::{Pool, Route};
use crate::quality::{Broken, Count, DECISIONS, Durations, Mirrored, OverrideFault, PoolCounters, Refusal, RouteCounters};
use crate::vocabulary::{PoolIndex, RouteIndex};

const CODES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

type Pick<C> = fn(&C) -> &Count;

pub(super) async fn metrics(State(shared): State<Shared>) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page(&shared.state))
}

fn page(state: &AdminState) -> String {
    let mut page = Exposition::default();
    page.family("switchback_build_info", "gauge", "The version that runs; always 1.");
    page.gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    pool_counters(&mut page, state);
    route_counters(&mut page, state);
    process_counters(&mut page, state);
    events_in::write(&mut page, state);
    pool_metrics::write(&mut page, state);
    quality_metrics::write(&mut page, state);
    evidence::write(&mut page, state);
    breaker::write(&mut page, state);
    rollback::write(&mut page, state);
    rollout::write_metrics(&mut page, state);
    mlflow::write_metrics(&mut page, state);
    notify::write(&mut page, state);
    flags(&mut page, state);
    policies(&mut page, state);
    metrics_process::write(&mut page, state);
    process::write(&mut page);
    page.finish()
}

pub(super) fn pools(state: &AdminState) -> impl Iterator<Item = (RouteIndex, &Route, PoolIndex, &Pool)> {
    let indices = || (0..=u8::MAX).map(PoolIndex);
    state
        .routes()
        .flat_map(move |(index, route)| indices().zip(&route.pools).map(move |(pool_index, pool)| (index, route, pool_index, pool)))
}

fn pool_counters(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_requests_total", "counter", "Attempts on a pool, by status class or what else became of them.");
    for (index, route, pool_index, pool) in pools(state) {
        let mut add = |code: &str, pick: &dyn Fn(&PoolCounters) -> Option<&Count>| {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version), ("code", code)];
            page.count(&labels, sum_pool(state, index, pool_index, pick));
        };
        for (place, code) in CODES.into_iter().enumerate() {
            add(code, &|counters| counters.codes.get(place));
        }
        add("failure", &|counters| Some(&counters.failures));
        add("timeout", &|counters| Some(&counters.timeouts));
        add("client_abort", &|counters| Some(&counters.client_aborts));
    }
    let families: [(&'static str, &'static str, Pick<PoolCounters>); 2] = [
        ("switchback_retries_total", "Second attempts on a fresh connection.", |counters| &counters.retries),
        ("switchback_fallbacks_total", "Queries of this pool that the live pool answered instead.", |counters| &counters.fallbacks),
    ];
    for (name, help, pick) in families {
        page.family(name, "counter", help);
        for (index, route, pool_index, pool) in pools(state) {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version)];
            page.count(&labels, sum_pool(state, index, pool_index, &|counters| Some(pick(counters))));
        }
    }
    page.family("switchback_broken_responses_total", "counter", "Responses that were not passed on, by what is wrong with them.");
    for (index, route, pool_index, pool) in pools(state) {
        for (place, broken) in Broken::ALL.into_iter().enumerate() {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version), ("reason", broken.label())];
            page.count(&labels, sum_pool(state, index, pool_index, &|counters| counters.broken.get(place)));
        }
    }
    page.family("switchback_mirrored_total", "counter", "Copies of queries to a pool, by what became of them.");
    for (index, route, pool_index, pool) in pools(state) {
        for (place, mirrored) in Mirrored::ALL.into_iter().enumerate() {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("result", mirrored.label())];
            page.count(&labels, sum_pool(state, index, pool_index, &|counters| counters.mirrored.get(place)));
        }
    }
    page.family("switchback_request_duration_seconds", "histogram", "From sending an attempt to the head of its response.");
    for (index, route, pool_index, pool) in pools(state) {
        let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version)];
        page.histogram(&labels, &sum_durations(state, index, |route| Some(&route.pools.get(pool_index.get())?.durations)));
    }
}

fn route_counters(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_decisions_total", "counter", "Queries by the reason for which their pool was chosen.");
    for (index, route) in state.routes() {
        for (place, reason) in DECISIONS.into_iter().enumerate() {
            let labels = [("route", route.name.as_str()), ("reason", reason)];
            page.count(&labels, sum_route(state, index, &|counters| counters.decisions.get(place)));
        }
    }
    let families: [(&'static str, &'static str, Pick<RouteCounters>); 2] = [
        ("switchback_unanswered_total", "Queries that the router itself answered with 502, 503 or 504.", |counters| &counters.unanswered),
        ("switchback_policy_failures_total", "Decisions that the policy owed and the native one gave.", |counters| {
            &counters.policy_failures
        }),
    ];
    for (name, help, pick) in families {
        page.family(name, "counter", help);
        for (index, route) in state.routes() {
            page.count(&[("route", &route.name)], sum_route(state, index, &|counters| Some(pick(counters))));
        }
    }
    page.family("switchback_shadow_decisions_total", "counter", "Sampled queries of shadow runs, by whether the candidate agrees.");
    for (index, route) in state.routes() {
        page.count(&[("route", &route.name), ("agrees", "true")], sum_route(state, index, &|counters| Some(&counters.shadow_agreed)));
        page.count(&[("route", &route.name), ("agrees", "false")], sum_route(state, index, &|counters| Some(&counters.shadow_disagreed)));
    }
    page.family("switchback_policy_duration_seconds", "histogram", "Time in the split policy, of one decision in 64.");
    for (index, route) in state.routes() {
        page.histogram(&[("route", &route.name)], &sum_durations(state, index, |route| Some(&route.policy_durations)));
    }
}

fn process_counters(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_refusals_total", "counter", "Requests and connections that were refused or ended, by reason.");
    for (place, refusal) in Refusal::ALL.into_iter().enumerate() {
        page.count(&[("reason", refusal.label())], state.quality.sum(|worker| worker.refusals.get(place)));
    }
    page.family("switchback_override_faults_total", "counter", "Overrides that were ignored, by reason.");
    for (place, fault) in OverrideFault::ALL.into_iter().enumerate() {
        page.count(&[("reason", fault.label())], state.quality.sum(|worker| worker.override_faults.get(place)));
    }
    if let Some(tls) = &state.tls {
        page.family("switchback_certificate_expiry_timestamp_seconds", "gauge", "When a certificate in use ends, in seconds since 1970.");
        for certificate in tls.certificates() {
            let file = certificate.file.display().to_string();
            let name = certificate.names.first().map_or("", String::as_str);
            page.gauge(&[("file", &file), ("name", name)], certificate.not_after as f64);
        }
    }
    page.family("switchback_connections_total", "counter", "Client connections taken.");
    page.count(&[], state.quality.sum(|worker| Some(&worker.connections)));
}

fn flags(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_flags_age_seconds", "gauge", "Since the flag store was last heard; 0 with the embedded store.");
    page.gauge(&[], state.flags.age().as_secs_f64());
    page.family("switchback_flags_node_info", "gauge", "1 for the server that has the route's flags; none while it is away.");
    for (index, route) in state.routes() {
        let view = state.flags.view(index);
        if let Some(node) = &view.node {
            page.gauge(&[("route", &route.name), ("topology", view.topology), ("node", node)], 1.0);
        }
    }
    page.family("switchback_flags_epoch", "gauge", "The epoch of the flags that this router applies.");
    for (index, route) in state.routes() {
        page.count(&[("route", &route.name)], state.flags.view(index).flags.epoch);
    }
    page.family("switchback_flags_faults", "gauge", "Fields of the flags that are not obeyed.");
    for (index, route) in state.routes() {
        page.count(&[("route", &route.name)], state.flags.view(index).faults.len() as u64);
    }
    page.family("switchback_flags_live", "gauge", "1 for the pool that `live` points at.");
    for (index, route, pool_index, pool) in pools(state) {
        let is_live = state.flags.view(index).flags.live == pool_index;
        page.gauge(&[("route", &route.name), ("pool", &pool.name)], f64::from(u8::from(is_live)));
    }
    page.family("switchback_flags_canary_percent", "gauge", "Share of the units that the candidate gets, in percent.");
    for (index, route) in state.routes() {
        page.gauge(&[("route", &route.name)], state.flags.view(index).flags.candidate.share.percent());
    }
}

fn policies(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_policy_info", "gauge", "The policy in force, and in one word how it is; always 1.");
    for (index, route) in state.routes() {
        let status = state.policies.status(index);
        let word = serde_json::to_value(status.state).ok();
        let word = word.as_ref().and_then(|word| word.as_str()).unwrap_or("");
        page.gauge(&[("route", &route.name), ("kind", "split"), ("name", &status.name), ("digest", &status.digest), ("state", word)], 1.0);
    }
    page.family("switchback_policy_quarantined", "gauge", "1 while native decisions stand in for a policy that failed too often.");
    for (index, route) in state.routes() {
        let is_quarantined = state.policies.status(index).in_force.quarantined_for_ms.is_some();
        page.gauge(&[("route", &route.name), ("kind", "split")], f64::from(u8::from(is_quarantined)));
    }
}

fn sum_route(state: &AdminState, index: RouteIndex, pick: &dyn Fn(&RouteCounters) -> Option<&Count>) -> u64 {
    state.quality.sum(|worker| pick(worker.routes.get(index.get())?))
}

pub(super) fn sum_pool(state: &AdminState, index: RouteIndex, pool: PoolIndex, pick: &dyn Fn(&PoolCounters) -> Option<&Count>) -> u64 {
    sum_route(state, index, &|route| pick(route.pools.get(pool.get())?))
}

fn sum_durations(state: &AdminState, index: RouteIndex, pick: impl Fn(&RouteCounters) -> Option<&Durations>) -> Buckets {
    let mut buckets = Buckets::default();
    for worker in state.quality.workers() {
        let Some(durations) = worker.routes.get(index.get()).and_then(|route| pick(route)) else { continue };
        for (sum, count) in buckets.counts.iter_mut().zip(&durations.buckets) {
            *sum += count.get();
        }
        buckets.sum_micros += durations.sum_micros.get();
    }
    buckets
}
