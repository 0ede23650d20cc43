//! `/api/v1/routes/{route}/breaker`: what this router's own breaker holds back, and its clearing.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::{Operator, Viewer};
use super::error::ApiError;
use super::exposition::Exposition;
use super::{AdminState, Shared, routes};
use crate::config::Route;
use crate::release::BreakerView;
use crate::vocabulary::RouteIndex;

pub(super) async fn show(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    Ok(Json(of_route(&shared.state, index, route)))
}

/// The candidate gets its share on this router again, and is looked at anew.
pub(super) async fn clear(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let cleared = shared.state.flags.trip(index);
    if let Some(trip) = &cleared {
        tracing::warn!(route = route.name, version = trip.version, who = caller.name, "the breaker is cleared by an operator");
        shared.state.flags.set_trip(index, None);
    }
    Ok(Json(json!({ "route": route.name, "cleared": cleared.map(|trip| trip.version.clone()) })))
}

/// As JSON; part of what there is about a route, too.
pub(super) fn of_route(state: &AdminState, index: RouteIndex, route: &Route) -> Value {
    let BreakerView { is_enabled, is_watching, log_harm, threshold_log, would_trip, trips } = state.process.board.breaker(&route.name);
    let trip = state.flags.trip(index);
    let word = match (&trip, is_enabled, is_watching) {
        (Some(_), ..) => "tripped",
        (None, false, _) => "off",
        (None, true, true) => "watching",
        (None, true, false) => "idle",
    };
    json!({
        "route": route.name,
        "state": word,
        "version": trip.as_ref().map(|trip| &trip.version),
        "control_pool": trip.as_ref().map(|trip| &trip.control),
        "since_unix_ms": trip.as_ref().map(|trip| trip.since_unix_ms),
        "why": trip.as_ref().map(|trip| &trip.why),
        "would_trip": would_trip,
        "log_harm": log_harm,
        "threshold_log": threshold_log,
        "trips": trips,
    })
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_breaker_tripped", "gauge", "1 while this router's breaker sends nobody to the candidate.");
    for (index, route) in state.routes() {
        page.gauge(&[("route", &route.name)], if state.flags.trip(index).is_some() { 1.0 } else { 0.0 });
    }
    page.family("switchback_breaker_trips_total", "counter", "How often this router's breaker tripped.");
    for (_, route) in state.routes() {
        page.count(&[("route", &route.name)], state.process.board.breaker(&route.name).trips);
    }
    page.family(
        "switchback_breaker_evidence_log",
        "gauge",
        "Natural logarithm of the e-value that the candidate fails more than control, by this router's own counters; absent without a candidate.",
    );
    for (_, route) in state.routes() {
        if let Some(log_harm) = state.process.board.breaker(&route.name).log_harm {
            page.gauge(&[("route", &route.name)], log_harm);
        }
    }
}
