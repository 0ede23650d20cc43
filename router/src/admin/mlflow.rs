//! `/api/v1/mlflow/webhook`: what MLflow says of its registry, and what metrics show of that.
//!
//! It takes no token: a delivery is believed for its signature, and all that it can bring about is that a route which asks for an alias gets what that
//! alias points to.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::error::ApiError;
use super::exposition::Exposition;
use super::{AdminState, Shared, now_unix_ms, routes};
use crate::mlflow::{Delivered, Ended, Event, Refused, Told, Wish};

/// Results of deliveries, for metrics.
const ACCEPTED: &str = "accepted";
const IGNORED: &str = "ignored";
const REPEATED: &str = "repeated";
const MALFORMED: &str = "malformed";
const TOO_MANY: &str = "too_many";

pub(super) async fn deliver(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let state = &shared.state;
    let candidates = &state.process.candidates;
    let Some(webhook) = state.access.mlflow() else { return Err(ApiError::NoMlflow) };
    let body = routes::whole(body).inspect_err(|_| candidates.count_delivery(MALFORMED))?;
    let now_ms = now_unix_ms();
    let signed = webhook.verify(&headers, &body, now_ms).map_err(|refused| {
        candidates.count_delivery(refused.label());
        ApiError::Webhook(refused)
    })?;
    let delivered = candidates.take(&signed, webhook.max_age(), now_ms);
    match delivered {
        Delivered::New | Delivered::Again(_) => {}
        Delivered::Repeated => {
            candidates.count_delivery(REPEATED);
            return Ok((StatusCode::OK, Json(json!({ "routes": [], "why": "this delivery was taken before" }))));
        }
        Delivered::TooMany => {
            candidates.count_delivery(TOO_MANY);
            return Err(ApiError::TooManyDeliveries);
        }
    }
    let event = Event::read(&body).map_err(|why| {
        candidates.count_delivery(MALFORMED);
        ApiError::BadRequest(why)
    })?;
    Ok(carry_out(state, &event, (&signed.id, &delivered)))
}

fn carry_out(state: &AdminState, event: &Event, (delivery, delivered): (&str, &Delivered)) -> (StatusCode, Json<Value>) {
    let candidates = &state.process.candidates;
    let ignored = |why: String| {
        candidates.count_delivery(IGNORED);
        tracing::debug!(delivery, why, "a webhook of MLflow's is of no interest");
        (StatusCode::OK, Json(json!({ "routes": [], "why": why })))
    };
    let (model, alias, version) = match event {
        Event::AliasSet { model, alias, version } => (model, alias, version),
        Event::Other(what) => return ignored(format!("{what} is of no interest: only model_version_alias.created is")),
        Event::Elsewhere(workspace) => return ignored(format!("the workspace {workspace} is of no interest: only default is")),
    };
    let mut wishes = Wish::of(&state.config, model, alias);
    wishes.retain(|wish| delivered.is_for(&wish.route));
    if wishes.is_empty() {
        return ignored(format!("no route asks for models:/{model}@{alias} ([route.mlflow])"));
    }
    candidates.count_delivery(ACCEPTED);
    let routes: Vec<Value> = wishes
        .into_iter()
        .map(|wish| {
            let (route, before) = (wish.route.clone(), live(state, &wish.route));
            let is_begun = candidates.submit(Wish { delivery: Some(delivery.to_owned()), before, ..wish }) == Told::Begun;
            tracing::info!(route, model, alias, version, delivery, is_begun, "MLflow names a candidate");
            json!({ "route": route, "state": if is_begun { "begun" } else { "waits" } })
        })
        .collect();
    (StatusCode::ACCEPTED, Json(json!({ "routes": routes, "why": format!("models:/{model}@{alias} is version {version}") })))
}

/// The version that is live on a route.
fn live(state: &AdminState, name: &str) -> Option<String> {
    let (index, route) = state.routes().find(|(_, route)| route.name == name)?;
    let flags = state.flags.stored(index);
    let of_config = || route.pools.get(flags.live.get()).map(|pool| pool.version.clone());
    flags.versions.get(&flags.live).cloned().or_else(of_config)
}

pub(super) fn write_metrics(page: &mut Exposition, state: &AdminState) {
    if state.access.mlflow().is_none() {
        return;
    }
    let candidates = &state.process.candidates;
    page.family("switchback_mlflow_deliveries_total", "counter", "Deliveries of MLflow's webhook, by what became of them.");
    let refused = [Refused::Unsigned, Refused::Signature, Refused::Stale].map(Refused::label);
    for result in [ACCEPTED, IGNORED, REPEATED, MALFORMED, TOO_MANY].into_iter().chain(refused) {
        page.count(&[("result", result)], candidates.deliveries(result));
    }
    page.family("switchback_mlflow_candidates_total", "counter", "Candidates that MLflow named, by how the work on them ended.");
    for (_, route) in state.routes().filter(|(_, route)| route.mlflow.is_some()) {
        for ended in Ended::ALL {
            page.count(&[("route", &route.name), ("result", ended.label())], candidates.ended(&route.name, ended));
        }
    }
}
