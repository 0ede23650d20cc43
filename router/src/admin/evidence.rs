//! `/api/v1/routes/{route}/evidence`: what is known of the candidate, and who knows it.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::exposition::Exposition;
use super::{AdminState, Shared, routes};
use crate::config::Route;
use crate::release::{EvidenceView, MetricView, RouteBoard};
use crate::vocabulary::RouteIndex;

pub(super) async fn show(Viewer(_): Viewer, State(shared): State<Shared>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let (_, route) = routes::find(&shared, &name)?;
    Ok(Json(of_route(&shared.state, route)))
}

/// As JSON; part of what there is about a route, too.
pub(super) fn of_route(state: &AdminState, route: &Route) -> Value {
    let RouteBoard { evidence, history, away, faults, .. } = state.process.board.of(&route.name);
    json!({
        "route": route.name,
        "observe_only": route.is_observed_only,
        "evidence": evidence,
        "history": history,
        "away": away,
        "faults": faults,
    })
}

/// The rollback policy, beside the split policy.
pub(super) fn policy(state: &AdminState, index: RouteIndex, route: &Route) -> Value {
    let wanted = state.flags.view(index).flags.rollback_policy.to_string();
    let judge = state.process.board.of(&route.name).judge;
    let state = match (&judge.why, judge.digest.is_empty()) {
        (Some(_), _) => "refused",
        (None, true) => "native",
        (None, false) => "in_force",
    };
    let kind = if judge.digest.is_empty() { "native" } else { "wasm" };
    json!({
        "kind": "rollback",
        "name": judge.name,
        "digest": judge.digest,
        "wanted": wanted,
        "state": state,
        "in_force": { "kind": kind, "source": judge.source },
        "why": judge.why.unwrap_or_default(),
    })
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    let boards: Vec<(&str, RouteBoard)> =
        state.routes().map(|(_, route)| (route.name.as_str(), state.process.board.of(&route.name))).collect();
    let judged: Vec<(&str, &EvidenceView)> = boards.iter().filter_map(|(route, board)| Some((*route, board.evidence.as_ref()?))).collect();
    of_candidates(page, &judged);
    of_history(page, &boards);
    page.family("switchback_judging", "gauge", "1 while this router judges or follows the judge; 0 while the store is away.");
    for (route, board) in &boards {
        page.gauge(&[("route", route)], if board.away.is_none() { 1.0 } else { 0.0 });
    }
}

fn of_candidates(page: &mut Exposition, judged: &[(&str, &EvidenceView)]) {
    let under_test = || judged.iter().filter(|(_, evidence)| !evidence.is_over);
    page.family(
        "switchback_evidence_log",
        "gauge",
        "Natural logarithm of the e-value that the candidate is worse than control, by metric; \"rollout\" is all of them together.",
    );
    for (route, evidence) in under_test() {
        weights(page, [("route", route), ("candidate", &evidence.candidate.version)], evidence.log_harm, &evidence.metrics);
    }
    page.family(
        "switchback_evidence_threshold_log",
        "gauge",
        "The policy rolls back when switchback_evidence_log of the rollout comes to this.",
    );
    for (route, threshold) in under_test().filter_map(|(route, evidence)| Some((route, evidence.threshold_log?))) {
        page.gauge(&[("route", route)], threshold);
    }
    page.family("switchback_verdict", "gauge", "1 for the rollback policy's last verdict on the candidate.");
    for (route, verdict) in under_test().filter_map(|(route, evidence)| Some((route, evidence.verdict?))) {
        page.gauge(&[("route", route), ("verdict", verdict)], 1.0);
    }
    page.family(
        "switchback_judged_windows_total",
        "counter",
        "Windows of the candidate that were judged, by slice; another candidate begins at 0.",
    );
    for (route, evidence) in judged {
        page.count(&[("route", route), ("slice", "traffic")], evidence.windows.traffic);
        page.count(&[("route", route), ("slice", "engagement")], evidence.windows.engagement);
    }
    page.family(
        "switchback_judged_timestamp_seconds",
        "gauge",
        "When a window of the candidate was last judged, by whichever router, in seconds since 1970; absent without a candidate.",
    );
    for (route, evidence) in under_test() {
        page.gauge(&[("route", route)], evidence.judged_unix_ms as f64 / 1e3);
    }
    page.family(
        "switchback_rollback_policy_failures_total",
        "counter",
        "Windows that the rollback policy failed on; another candidate begins at 0.",
    );
    for (route, evidence) in judged {
        page.count(&[("route", route)], evidence.failures);
    }
}

fn of_history(page: &mut Exposition, boards: &[(&str, RouteBoard)]) {
    page.family(
        "switchback_history_evidence_log",
        "gauge",
        "The same of the live model, compared with itself some minutes ago, while there is no candidate. It alerts, and decides nothing.",
    );
    for (route, history) in boards.iter().filter_map(|(route, board)| Some((route, board.history.as_ref()?))) {
        weights(page, [("route", route), ("version", &history.version)], history.log_harm, &history.metrics);
    }
}

fn weights(page: &mut Exposition, [first, second]: [(&'static str, &str); 2], all: Option<f64>, metrics: &[MetricView]) {
    if let Some(log_harm) = all {
        page.gauge(&[first, second, ("metric", "rollout")], log_harm);
    }
    for (metric, log_harm) in metrics.iter().filter_map(|metric| Some((metric, metric.log_harm?))) {
        page.gauge(&[first, second, ("metric", &metric.metric)], log_harm);
    }
}
