//! `/api/v1/routes/{route}/evidence`: what is known of the candidate, and who knows it.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::access::Viewer;
use super::error::ApiError;
use super::exposition::Exposition;
use super::{AdminState, Shared, routes};
use crate::config::Route;
use crate::release::RouteBoard;
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
    json!({
        "kind": "rollback",
        "name": judge.name,
        "digest": judge.digest,
        "wanted": wanted,
        "state": state,
        "source": judge.source,
        "why": judge.why.unwrap_or_default(),
    })
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    let boards: Vec<(&str, RouteBoard)> =
        state.routes().map(|(_, route)| (route.name.as_str(), state.process.board.of(&route.name))).collect();
    page.family(
        "switchback_evidence_log",
        "gauge",
        "Natural logarithm of the e-value that the candidate is worse than control, by metric; \"rollout\" is all of them together.",
    );
    for (route, board) in &boards {
        let Some(evidence) = board.evidence.as_ref().filter(|evidence| !evidence.is_over) else { continue };
        let labels = |metric| [("route", *route), ("candidate", evidence.candidate.version.as_str()), ("metric", metric)];
        if let Some(log_harm) = evidence.log_harm {
            page.gauge(&labels("rollout"), log_harm);
        }
        for metric in &evidence.metrics {
            if let Some(log_harm) = metric.log_harm {
                page.gauge(&labels(&metric.metric), log_harm);
            }
        }
    }
    page.family("switchback_evidence_threshold_log", "gauge", "What switchback_evidence_log of the rollout comes to when the policy rolls back.");
    for (route, board) in &boards {
        if let Some(threshold) = board.evidence.as_ref().filter(|evidence| !evidence.is_over).and_then(|evidence| evidence.threshold_log) {
            page.gauge(&[("route", route)], threshold);
        }
    }
    page.family("switchback_verdict", "gauge", "1 for the rollback policy's last verdict on the candidate.");
    for (route, board) in &boards {
        if let Some(verdict) = board.evidence.as_ref().filter(|evidence| !evidence.is_over).and_then(|evidence| evidence.verdict) {
            page.gauge(&[("route", route), ("verdict", verdict)], 1.0);
        }
    }
    page.family("switchback_judged_windows_total", "counter", "Windows of the candidate that were judged, by slice.");
    for (route, board) in &boards {
        let Some(evidence) = &board.evidence else { continue };
        page.count(&[("route", route), ("slice", "traffic")], evidence.windows.traffic);
        page.count(&[("route", route), ("slice", "engagement")], evidence.windows.engagement);
    }
    page.family("switchback_rollback_policy_failures_total", "counter", "Windows that the rollback policy had nothing to say about: it failed.");
    for (route, board) in &boards {
        if let Some(evidence) = &board.evidence {
            page.count(&[("route", route)], evidence.failures);
        }
    }
    page.family(
        "switchback_history_evidence_log",
        "gauge",
        "The same of the live model, compared with itself some minutes ago, while there is no candidate. Alerts, and decides nothing.",
    );
    for (route, board) in &boards {
        let Some(history) = &board.history else { continue };
        let labels = |metric| [("route", *route), ("version", history.version.as_str()), ("metric", metric)];
        if let Some(log_harm) = history.log_harm {
            page.gauge(&labels("rollout"), log_harm);
        }
        for metric in &history.metrics {
            if let Some(log_harm) = metric.log_harm {
                page.gauge(&labels(&metric.metric), log_harm);
            }
        }
    }
    page.family("switchback_judging", "gauge", "1 while this router can judge or follow the judge; 0 while the store is away.");
    for (route, board) in &boards {
        page.gauge(&[("route", route)], if board.away.is_none() { 1.0 } else { 0.0 });
    }
}
