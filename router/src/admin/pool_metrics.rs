//! The part of `/metrics` that tells of pools and their endpoints: who gets traffic, who was ejected, what names stand for.

use std::sync::Arc;

use super::AdminState;
use super::exposition::Exposition;
use super::metrics::pools;
use crate::config::{Pool, Route};
use crate::serve::{SharedEndpoint, SharedPool, Why};

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_pool_panic", "gauge", "1 while so few endpoints are healthy that all are used.");
    for (route, pool, shared) in shared_pools(state) {
        page.gauge(&[("route", &route.name), ("pool", &pool.name)], f64::from(u8::from(shared.is_panicking())));
    }
    page.family("switchback_pool_panics_total", "counter", "How often that began.");
    for (route, pool, shared) in shared_pools(state) {
        page.count(&[("route", &route.name), ("pool", &pool.name)], shared.panics());
    }
    type Measure = fn(&SharedEndpoint) -> u64;
    let families: [(&str, &str, &str, Measure); 2] = [
        ("switchback_endpoint_healthy", "gauge", "1 while the endpoint gets traffic.", |endpoint| u64::from(endpoint.is_available())),
        ("switchback_endpoint_in_flight", "gauge", "Attempts in flight from this router.", |endpoint| endpoint.in_flight() as u64),
    ];
    for (name, kind, help, measure) in families {
        page.family(name, kind, help);
        for (route, pool, endpoint) in endpoints(state) {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("endpoint", endpoint.authority.as_str())];
            page.count(&labels, measure(endpoint));
        }
    }
    page.family(
        "switchback_endpoint_ejections_total",
        "counter",
        "How often the endpoint was ejected because its attempts failed, by reason.",
    );
    for (route, pool, endpoint) in endpoints(state) {
        for why in Why::ALL {
            let authority = endpoint.authority.as_str();
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("endpoint", authority), ("reason", why.label())];
            page.count(&labels, endpoint.ejections(why));
        }
    }
    names(page, state);
    strays(page, state);
}

/// Of pools whose servers are asked what they serve.
fn strays(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_pool_stray_servers", "gauge", "Servers of the pool that serve another version than it runs.");
    for (_, route) in state.routes() {
        let Some(loading) = route.loading.as_ref().filter(|loading| loading.is_checked()) else { continue };
        let found = state.process.board.strays(&route.name);
        for pool in route.pools.iter().filter(|pool| loading.version_of(&pool.version).is_some()) {
            let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("version", &pool.version)];
            page.count(&labels, found.get(&pool.name).map_or(0, |found| found.strays.len() as u64));
        }
    }
}

/// Of endpoints that are given by name only.
fn names(page: &mut Exposition, state: &AdminState) {
    let named = || endpoints(state).filter_map(|(route, pool, endpoint)| Some((route, pool, endpoint, endpoint.addresses()?)));
    page.family("switchback_endpoint_addresses", "gauge", "How many addresses the endpoint's name stands for.");
    for (route, pool, endpoint, addresses) in named() {
        let labels = [("route", route.name.as_str()), ("pool", &pool.name), ("endpoint", endpoint.authority.as_str())];
        page.count(&labels, addresses.len() as u64);
    }
    page.family("switchback_dns_lookups_total", "counter", "Look-ups of the endpoint's name, by result.");
    for (route, pool, endpoint, _) in named() {
        let (all, failed) = endpoint.lookups();
        for (result, count) in [("found", all.saturating_sub(failed)), ("failed", failed)] {
            let authority = endpoint.authority.as_str();
            page.count(&[("route", &route.name), ("pool", &pool.name), ("endpoint", authority), ("result", result)], count);
        }
    }
}

fn shared_pools(state: &AdminState) -> impl Iterator<Item = (&Route, &Pool, &Arc<SharedPool>)> {
    pools(state).filter_map(|(index, route, pool_index, pool)| Some((route, pool, state.pools(index).get(pool_index.get())?)))
}

fn endpoints(state: &AdminState) -> impl Iterator<Item = (&Route, &Pool, &Arc<SharedEndpoint>)> {
    shared_pools(state).flat_map(|(route, pool, shared)| shared.endpoints.iter().map(move |endpoint| (route, pool, endpoint)))
}
