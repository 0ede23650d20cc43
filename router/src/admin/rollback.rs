//! `POST /api/v1/routes/{route}/rollback`: takes the candidate out of traffic, through the store; where that is away, on this router alone.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Operator;
use super::error::ApiError;
use super::exposition::{Buckets, Exposition};
use super::{AdminState, Shared, routes};
use crate::flags::{Change, ChangeError, Kind};
use crate::release::{hold_back, rollback};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// For the ledger.
    #[serde(default)]
    why: String,
    /// Only say what would be done.
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn roll_back(
    Operator(caller): Operator,
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let (index, route) = routes::find(&shared, &name)?;
    let body = routes::whole(body)?;
    let order: Order = if body.is_empty() {
        Order::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::BadRequest(format!(r#"the body must be empty, or JSON like {{"why": "it ranks worse"}}: {error}"#))
        })?
    };
    let flags = shared.state.flags.stored(index);
    let Some(back) = rollback(&flags, route) else {
        return Err(ApiError::NothingToRollBack(name));
    };
    let healthy = route.pool_named(&back.target).and_then(|pool| shared.state.pools(index).get(pool.get()));
    let healthy = healthy.map_or(0, |pool| pool.endpoints.iter().filter(|endpoint| endpoint.is_available()).count());
    let mut answer = json!({
        "route": name, "candidate": back.candidate, "control": back.control, "target": back.target, "target_healthy": healthy,
        "epoch": null, "held_back_here": false, "error": null,
    });
    let mut tell = |key: &str, value: Value| answer.as_object_mut().map(|answer| answer.insert(key.to_owned(), value));
    if order.dry_run {
        return Ok(Json(answer));
    }
    if healthy == 0 {
        return Err(ApiError::TargetNotReady { target: back.target });
    }
    let change =
        Change { fields: back.fields, expected_epoch: None, kind: Kind::Rollback, who: caller.name.clone(), why: order.why.clone() };
    match shared.state.flags.change(index, change).await {
        Ok(epoch) => {
            shared.state.process.board.count_rollback(&route.name, "operator");
            tracing::warn!(route = route.name, candidate = back.candidate, epoch, who = caller.name, why = order.why, "rolled back");
            tell("epoch", json!(epoch));
        }
        Err(error @ (ChangeError::Invalid(_) | ChangeError::Conflict { .. })) => return Err(error.into()),
        Err(error) => {
            // Without its store, each router can do so much for its own users; the flags follow when the store is back and half of the routers did.
            let why = if order.why.is_empty() {
                format!("{} rolled back", caller.name)
            } else {
                format!("{} rolled back: {}", caller.name, order.why)
            };
            let trip = hold_back(&flags, route, super::now_unix_ms(), why);
            tracing::warn!(route = route.name, candidate = back.candidate, who = caller.name, %error, "rolled back on this router alone: the store is away");
            tell("held_back_here", json!(trip.is_some()));
            tell("error", json!(error.to_string()));
            shared.state.flags.set_trip(index, trip.map(Arc::new));
        }
    }
    Ok(Json(answer))
}

pub(super) fn write(page: &mut Exposition, state: &AdminState) {
    page.family("switchback_rollbacks_total", "counter", "Rollbacks that this router wrote, by cause: evidence, breakers or operator.");
    for (_, route) in state.routes() {
        let totals = state.process.board.rollbacks(&route.name);
        for cause in ["evidence", "breakers", "operator"] {
            page.count(&[("route", &route.name), ("cause", cause)], totals.by_cause.get(cause).copied().unwrap_or(0));
        }
    }
    page.family(
        "switchback_rollback_seconds",
        "histogram",
        "From the decision to roll back until every router that is heard of obeys it, of those that this router decided by itself.",
    );
    for (_, route) in state.routes() {
        let totals = state.process.board.rollbacks(&route.name);
        page.histogram(&[("route", &route.name)], &Buckets { counts: totals.obeyed, sum_micros: totals.obeyed_micros });
    }
}
